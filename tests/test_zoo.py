"""The zoo: folders, cards, recipes and references agree with the code."""

import json
import re
from dataclasses import replace

import pytest

from ppnmf import zoo
from ppnmf.models import REGISTRY

ENTRIES = zoo.entries()
names = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def test_folders_and_registry_are_equal():
    assert {entry.name for entry in ENTRIES} == set(REGISTRY)


@names
def test_an_entry_has_its_four_files_and_no_python(entry):
    assert {path.name for path in entry.path.iterdir()} == {"README.md", "recipe.toml", "reference.json", "graph.svg"}


@names
def test_the_card_shows_the_program_of_today(entry):
    assert f"```python\n{zoo.program(entry.name)}\n```" in entry.card, "paste `ppnmf.zoo.program(name)` into the card"


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
    assert {"W", "H", "sigma2", "X", "row", "column"} <= shown


@pytest.fixture(scope="module", params=ENTRIES, ids=lambda entry: entry.name)
def outcome(request):
    return request.param, zoo.run(request.param.recipe, progress=False)


def test_a_recipe_reproduces_its_reference(outcome):
    entry, result = outcome
    assert set(entry.reference) == set(result.numbers)
    assert zoo.disagreements(result, entry.reference) == []


def test_a_number_off_its_reference_is_told(outcome):
    entry, result = outcome
    value, error = result.numbers["sigma2"]
    off = replace(result, numbers={**result.numbers, "sigma2": (1.2 * value, error)})
    (sentence,) = zoo.disagreements(off, entry.reference)
    assert sentence.startswith("sigma2 is ")
    assert "was not measured" in zoo.disagreements(result, {"other": entry.reference["sigma2"]})[0]


RECIPE = """
model = "exponential_gaussian"
[data]
toy = { N = 12, D = 8, rank = 2, noise = 0.01 }
[model_options]
rank = 2
scaled = true
[fit]
method = "icm"
tol = 1e-3
"""


def test_a_recipe_of_ones_own_needs_no_reference(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    result = zoo.run(tmp_path / "recipe.toml", progress=False)
    assert result.replicates == 1 and "hidden_root_mean_squared_error" not in result.numbers
    assert zoo.reference_beside(tmp_path / "recipe.toml") == {}
    (tmp_path / "reference.json").write_text(json.dumps({"replicates": 8, "results": result.to_dict()}))
    assert zoo.disagreements(result, zoo.reference_beside(tmp_path / "recipe.toml")) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("model = ", "model "), "is not a recipe"),
        (("[fit]", "[fitted]"), "lacks fit"),
        (("exponential_gaussian", "other"), "there is no model 'other'"),
        (("toy = ", "toys = "), "lacks a data set's name"),
        (("[data]", "replicates = 0\n[data]"), "replicates is 0"),
        (("rank = 2\nscaled", "rank = 0\nscaled"), "rank is 0"),
    ],
)
def test_a_bad_recipe_gets_one_sentence(tmp_path, change, sentence):
    (tmp_path / "recipe.toml").write_text(RECIPE.replace(*change))
    with pytest.raises(ValueError, match=sentence):
        zoo.run(tmp_path / "recipe.toml", progress=False)


def test_an_absent_recipe_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no recipe"):
        zoo.run(tmp_path / "recipe.toml")
