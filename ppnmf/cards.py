"""The cards of the zoo, kept equal to what they tell of: the Pyro program of today, and the numbers of the last measurement.

`measured` follows a recipe many times over and makes the reference; `renewed` puts program and numbers into a card. A test keeps
every card as `renewed` makes it, so that none can drift.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from ppnmf import recipes
from ppnmf.disk import write_text
from ppnmf.zoo import Entry

__all__ = ["REPLICATES", "SEED", "measured", "number", "renewed", "write"]

REPLICATES = 8
SEED = 101  # of the first, away from the recipe's own
ABOUT = (
    "Means over {} replicates (other seeds than the recipe's) with their standard errors; errors are in X's units, densities in "
    "nats."
)
PROGRAM = re.compile(r"```python\ndef (?:__call__|forward)\(.*?\n```", re.DOTALL)
DIGITS = 7  # of a number in a reference


def measured(entry: Entry, replicates: int = REPLICATES, seed: int = SEED, progress: bool = True) -> str:
    """What reference.json is to hold: the recipe followed so many times, other seeds each.

    Raises:
        ValueError: fewer than two replicates, which have no spread.
    """
    if replicates < 2:
        raise ValueError(f"replicates is {replicates}; an error takes two or more")
    outcome = recipes.run(entry.recipe, seed=seed, replicates=replicates, progress=progress)
    results = {
        name: {kind: float(f"{value:.{DIGITS}g}") for kind, value in facts.items()}
        for name, facts in outcome.to_dict().items()
    }
    facts = {"about": ABOUT.format(replicates), "replicates": replicates, "seed": seed, "results": results}
    return json.dumps(facts, indent=2) + "\n"


def renewed(entry: Entry) -> str:
    """The card with the model's program of today, and in its table the values of the reference; all else as it stands.

    Raises:
        ValueError: the card has no place for the program, or no line for a number of the reference.
    """
    program = f"```python\n{recipes.program(entry.name)}\n```"
    text, places = PROGRAM.subn(lambda _: program, entry.card, count=1)
    if not places:
        raise ValueError(f"{entry.path / 'README.md'} shows no program: it begins with ```python and def __call__(")
    for name, known in entry.reference.items():
        text = _with_value(text, name, known, entry.path)
    return text


def _with_value(card: str, name: str, known: Mapping[str, float], path: Path) -> str:
    """The card with the value of a number in the second column of its line."""
    words = "ELBO" if name == "elbo" else name.replace("_", " ")
    line = re.compile(rf"^\| {re.escape(words)} \|[^|]*\|", re.MULTILINE)
    text, places = line.subn(f"| {words} | {number(known['value'], known['error'])} |", card, count=1)
    if not places:
        raise ValueError(f"{path / 'README.md'} has no line | {words} | | | in its table of what was measured")
    return text


def number(value: float, error: float) -> str:
    """A value to the place of the second digit of its error.

    >>> number(1.475287, 0.001439), number(-16535.31, 19.866)
    ('1.4753 ± 0.0014', '-16535 ± 20')
    """
    if not error > 0:
        return f"{value:.6g}"
    place = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{place}f} ± {error:.2g}"


def write(entry: Entry, reference: str) -> None:
    """Replace an entry's reference, and its card with that. Raises OSError, in a sentence, where they cannot be written."""
    write_text(entry.path / "reference.json", reference)
    write_text(entry.path / "README.md", renewed(entry))
