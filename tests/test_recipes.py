"""Recipes are followed, reproduce the references beside them, and say what is wrong with them."""

import json
from dataclasses import replace

import pytest

from ppnmf import recipes, zoo

ENTRIES = zoo.entries()
pytestmark = pytest.mark.filterwarnings(r"ignore:X has \d+ negative entries")  # of a drawn matrix, some are


@pytest.fixture(scope="module", params=ENTRIES, ids=lambda entry: entry.name)
def outcome(request):
    return request.param, recipes.run(request.param.recipe, progress=False)


def test_a_recipe_reproduces_its_reference(outcome):
    entry, result = outcome
    assert set(entry.reference) == set(result.numbers)
    assert recipes.disagreements(result, entry.reference) == []


def test_a_number_off_its_reference_is_told(outcome):
    entry, result = outcome
    name = "root_mean_squared_error"
    value, error = result.numbers[name]
    off = replace(result, numbers={**result.numbers, name: (1.2 * value, error)})
    (sentence,) = recipes.disagreements(off, entry.reference)
    assert sentence.startswith(f"{name} is ")
    assert "was not measured" in recipes.disagreements(result, {"other": entry.reference[name]})[0]


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
    result = recipes.run(tmp_path / "recipe.toml", progress=False)
    assert result.replicates == 1 and "hidden_root_mean_squared_error" not in result.numbers
    assert zoo.reference_beside(tmp_path / "recipe.toml") == {}
    (tmp_path / "reference.json").write_text(json.dumps({"replicates": 8, "results": result.to_dict()}))
    assert recipes.disagreements(result, zoo.reference_beside(tmp_path / "recipe.toml")) == []
    assert zoo.reference_beside(tmp_path) == zoo.reference_beside(tmp_path / "recipe.toml") != {}


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
        recipes.run(tmp_path / "recipe.toml", progress=False)


def test_an_absent_recipe_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no recipe"):
        recipes.run(tmp_path / "recipe.toml")
