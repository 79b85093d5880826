"""Cards with the programs of today and the numbers of their references: `python -m tests.cards` writes those that differ."""

from ppnmf import cards, zoo
from ppnmf.disk import write_text

if __name__ == "__main__":
    for entry in zoo.entries():
        text = cards.renewed(entry)
        if text != entry.card:
            print(write_text(entry.path / "README.md", text))  # noqa: T201
