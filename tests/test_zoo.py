"""The zoo: folders and cards agree with the code, and are listed without it."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ppnmf import cards, recipes, zoo
from ppnmf.cli import app
from ppnmf.models import REGISTRY

ENTRIES = zoo.entries()
names = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def test_folders_and_registry_are_equal():
    assert {entry.name for entry in ENTRIES} == set(REGISTRY)


@names
def test_an_entry_has_its_four_files_and_no_python(entry):
    assert {path.name for path in entry.path.iterdir()} == {"README.md", "recipe.toml", "reference.json", "graph.svg"}


@names
def test_the_card_shows_the_program_of_today_and_the_numbers_of_the_reference(entry):
    assert cards.renewed(entry) == entry.card, "write the card anew: python -m tests.cards"


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
        "import sys; from ppnmf import cli; cli.zoo.list_zoo()\n"
        "assert not {'torch', 'pyro', 'numba', 'scipy', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in REGISTRY)


def test_a_measurement_is_put_into_the_reference_and_the_card(tmp_path):
    own = next(entry for entry in ENTRIES if entry.name == "exponential_gaussian")
    for path in own.path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "README.md").write_text(own.card.replace("def __call__(", "def __call__(old, "))
    entry = zoo.Entry("exponential_gaussian", tmp_path)
    with pytest.raises(ValueError, match="has no line | dispersion | | |"):
        (tmp_path / "reference.json").write_text(
            '{"replicates": 2, "results": {"dispersion": {"value": 1, "error": 1}}}'
        )
        cards.renewed(entry)
    cards.write(entry, cards.measured(entry, 2, progress=False))
    outcome = recipes.run(tmp_path, seed=cards.SEED, replicates=2, progress=False)
    assert outcome.replicates == 2
    for name, (value, error) in outcome.numbers.items():
        assert entry.reference[name]["value"] == pytest.approx(value, rel=1e-6)
        assert f"| {name.replace('_', ' ')} | {cards.number(value, error)} |" in entry.card
    assert recipes.program("exponential_gaussian") in entry.card and "old, " not in entry.card
    with pytest.raises(ValueError, match="replicates is 1"):
        cards.measured(entry, 1)


RECIPE = """
model = "exponential_gaussian"
held_out = 0.2
[data]
toy = { N = 12, D = 8, rank = 2, noise = 0.01 }
[model_options]
rank = 2
[fit]
method = "gibbs"
draws = 20
warmup = 20
chains = 1
survey = 0
"""


def test_check_says_what_agrees_and_what_does_not(monkeypatch):
    numbers = {
        entry.path: {name: (known["value"], 0.0) for name, known in entry.reference.items()} for entry in ENTRIES
    }
    monkeypatch.setattr(recipes, "run", lambda path, **_: recipes.Outcome("", numbers[path.parent], None, 2, 1.5))
    done = CliRunner().invoke(app, ["zoo", "check"])
    assert done.exit_code == 0 and done.stdout.count("agrees in 4 numbers") >= 8, done.output
    (path,) = (entry.path for entry in ENTRIES if entry.name == "semi_supervised")
    numbers[path]["sigma2"] = (3.0, 0.0)
    done = CliRunner().invoke(app, ["zoo", "check", "semi_supervised", "tri_factor"])
    assert done.exit_code == 1 and "sigma2 is 3, and the reference 1.0" in done.stdout and "agrees" in done.stdout
    assert CliRunner().invoke(app, ["zoo", "check", "other"]).exit_code == 2
    assert "semi_supervised" in CliRunner().invoke(app, ["zoo"]).stdout


@pytest.mark.slow
def test_every_recipe_gives_its_reference_with_other_seeds_too():
    done = CliRunner().invoke(app, ["zoo", "check", "--seed", "7000", "--no-progress"])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("agrees in") == len(ENTRIES)
