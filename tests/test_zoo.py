"""The zoo: folders and cards agree with the code, and are listed without it."""

import re
import subprocess
import sys

import pytest

from ppnmf import zoo
from ppnmf.models import REGISTRY
from ppnmf.recipes import program

ENTRIES = zoo.entries()
names = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def test_folders_and_registry_are_equal():
    assert {entry.name for entry in ENTRIES} == set(REGISTRY)


@names
def test_an_entry_has_its_four_files_and_no_python(entry):
    assert {path.name for path in entry.path.iterdir()} == {"README.md", "recipe.toml", "reference.json", "graph.svg"}


@names
def test_the_card_shows_the_program_of_today(entry):
    assert f"```python\n{program(entry.name)}\n```" in entry.card, "paste `ppnmf.recipes.program(name)` into the card"


@names
def test_the_card_links_to_the_code(entry):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", entry.card):
        assert (entry.path / target).exists(), target
    assert f"](../../ppnmf/models/{entry.name}.py)" in entry.card
    for heading in ("Story", "When to use it", "Limits", "Measured", "References"):
        assert f"\n## {heading}\n" in entry.card


@names
def test_the_picture_has_every_site(entry):
    shown = set(re.findall(r"<text[^>]*>([^<]+)</text>", (entry.path / "graph.svg").read_text()))
    assert {*REGISTRY[entry.name](rank=2).sites(3, 2), "X", "row", "column"} <= shown


def test_cards_are_listed_without_the_libraries_that_compute():
    code = (
        "import sys; from ppnmf.cli import COMMANDS; COMMANDS['zoo']()\n"
        "assert not {'torch', 'pyro', 'numba', 'scipy', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in REGISTRY)
