"""A fitted PAE-NMF finds the columns of new rows by their names."""

from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

import ppnmf
from ppnmf import cli
from ppnmf.models import PAENMF

N, D, K = 12, 5, 2
COLUMNS = ["TP53", "EGFR", "MYC", "KRAS", "PTEN"]
VALUES = np.random.default_rng(0).gamma(2.0, size=(N, D))
SEEN = VALUES > 0.5
X = pd.DataFrame(VALUES, [f"cell {i}" for i in range(N)], COLUMNS)
OTHER_ORDER = X[sorted(COLUMNS)]


def fit(data, model=None, **options):
    return ppnmf.fit(model or PAENMF(K), data, method="svi", steps=20, draws=2, progress=False, **options)


@cache
def fitted(named=True):
    return fit(X if named else VALUES)


def means(model, rows, mask=None):
    return model.encode(rows, mask).mean


def test_the_fitted_model_knows_the_names_of_its_columns():
    assert fitted().model.columns == tuple(COLUMNS)
    assert fitted(named=False).model.columns is None and PAENMF(K).columns is None
    assert "column_names" not in fitted(named=False).model.state_dict()


SHORT = ["--draws", 4, "--warmup", 2, "--chains", 1, "--quick"]
NEW_ROWS = {
    "as they were": X,
    "another order": OTHER_ORDER,
    "nullable": OTHER_ORDER.convert_dtypes(),
    "polars": pl.from_pandas(OTHER_ORDER),
    "xarray": xr.DataArray(OTHER_ORDER, dims=("cell", "gene")),
    "an array": VALUES,
    "a frame without names": pd.DataFrame(VALUES),
}


@pytest.mark.parametrize("kind", NEW_ROWS)
def test_columns_are_found_by_name_or_have_none(kind):
    model = fitted().model
    assert torch.equal(means(model, NEW_ROWS[kind]), means(model, VALUES))
    bound, errors = model.log_likelihood(NEW_ROWS[kind], draws=100)
    assert torch.equal(bound, model.log_likelihood(VALUES, draws=100)[0]) and errors.shape == (N,)


def test_columns_that_are_counted_are_put_in_order():
    model, order = fitted(named=False).model, [3, 0, 1, 4, 2]
    for frame in (pd.DataFrame(VALUES).iloc[:, order], pd.DataFrame(VALUES).iloc[:, ::-1]):
        assert torch.equal(means(model, frame), means(model, VALUES))


@pytest.mark.parametrize("mask", [SEEN, pd.DataFrame(SEEN, X.index, COLUMNS).iloc[::-1]], ids=["array", "frame"])
def test_a_mask_goes_with_the_rows_it_is_given_for(mask):
    model = fitted().model
    assert torch.equal(means(model, X, mask), means(model, VALUES, SEEN))
    turned = mask[:, np.argsort(COLUMNS)] if isinstance(mask, np.ndarray) else mask
    assert torch.equal(means(model, OTHER_ORDER, turned), means(model, VALUES, SEEN))


OTHERS = {
    "a missing column": (
        X.drop(columns="MYC"),
        "'MYC' is missing; give each of these once and no others, in any order",
    ),
    "one more": (X.assign(BRCA1=1.0), "X's columns are not those that pae_nmf was fitted to: 'BRCA1' is unknown"),
    "another one": (X.rename(columns={"MYC": "MYCN"}), "'MYC' is missing and 'MYCN' is unknown"),
    "one twice": (X[[*COLUMNS, "MYC"]], "'MYC' is there twice"),
    "text": (X.assign(MYC="high"), r"X's column 'MYC' holds text \('high' is the first\)"),
    "a missing value": (X.astype("Float64").mask(~SEEN), "X has entries that are not finite; hide them with a mask"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_columns_are_refused(kind):
    rows, sentence = OTHERS[kind]
    for ask in (fitted().model.encode, fitted().model.log_likelihood):
        with pytest.raises(ValueError, match=sentence):
            ask(rows)


def test_names_that_the_fit_had_not_are_told_of():
    model = fitted(named=False).model
    with pytest.warns(UserWarning, match="X's columns have names .*, and those that pae_nmf was fitted to had none"):
        assert torch.equal(means(model, X), means(model, VALUES))


def test_rows_on_the_way_are_found_by_name_too():
    model = fitted().model
    way = model.interpolate(VALUES[0], VALUES[1], 3)
    assert torch.equal(model.interpolate(OTHER_ORDER.iloc[0], X.iloc[1], 3), way)
    assert torch.equal(model.interpolate(OTHER_ORDER.iloc[[0]], VALUES[1], 3), way)
    with pytest.raises(ValueError, match="'MYC' is missing"):
        model.interpolate(X.iloc[0].drop("MYC"), X.iloc[1])
    with pytest.raises(ValueError, match="2 rows are given where one is needed"):
        model.interpolate(X[:2], X.iloc[1])


def test_names_are_saved_and_loaded_with_the_weights(tmp_path):
    loaded = ppnmf.Posterior.load(fitted().save(tmp_path / "fit.nc")).model
    assert loaded.columns == tuple(COLUMNS)
    assert torch.equal(means(loaded, OTHER_ORDER), means(fitted().model, X))
    again = PAENMF(K)
    again.load_state_dict(fitted().model.state_dict())
    assert again.columns == tuple(COLUMNS)
    again.load_state_dict(fitted(named=False).model.state_dict())
    assert again.columns is None
    assert fitted().model.float().double().columns == tuple(COLUMNS)


def test_training_on_wants_the_same_columns_in_their_order():
    assert fit(X, fitted().model).model.columns == tuple(COLUMNS)
    assert fit(VALUES, fitted().model).model.columns == tuple(COLUMNS)
    assert fit(X, fitted(named=False).model).model.columns == tuple(COLUMNS)
    with pytest.raises(ValueError, match="are not those that the model was fitted to, in their order"):
        fit(OTHER_ORDER, fitted().model)


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_the_command_line_tells_the_model_its_columns(command, tmp_path):
    X.to_csv(tmp_path / "X.csv")
    own = {
        "fit": ["--method", "svi", "--steps", 5, "--out", tmp_path / "pae.nc"],
        "compare": ["--out", tmp_path, *SHORT],
    }
    options = [command, tmp_path / "X.csv", "--rank", K, "--no-progress", *own[command]]
    done = CliRunner().invoke(cli.app, list(map(str, options)))
    assert done.exit_code == 0, done.output
    post = ppnmf.Posterior.load(tmp_path / "pae.nc")
    assert post.model.columns == tuple(COLUMNS) == tuple(post.names["columns"])
    assert torch.equal(means(post.model, OTHER_ORDER), means(post.model, X))
