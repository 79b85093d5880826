"""Tables, new rows and drawn rows of a saved posterior, from the command line."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import ppnmf
from ppnmf import cli

ROWS, COLUMNS = [f"cell {i}" for i in range(12)], [f"gene {j}" for j in range(6)]


def frame(seed=0):
    generator = np.random.default_rng(seed)
    X = generator.exponential(1, (12, 2)) @ generator.exponential(1, (2, 6)) + 0.05
    return pd.DataFrame(X, ROWS, COLUMNS)


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    X = frame()
    X.iloc[2, 3] = X.iloc[7, 0] = np.nan
    options = {"rank": 2, "missing": "nan", "draws": 40, "warmup": 20, "chains": 2, "init": "scaled", "progress": False}
    post = ppnmf.fit("exponential_gaussian", X, **options)
    path = tmp_path_factory.mktemp("fit") / "fit.nc"
    post.save(path)
    return path, post


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_tables_are_those_of_the_posterior(fit, tmp_path):
    path, post = fit
    done = call("tables", path, "--out", tmp_path / "tables", "--level", 0.8)
    assert done.exit_code == 0, done.output
    read = pd.read_csv(tmp_path / "tables" / "components.csv")
    pd.testing.assert_frame_equal(read, post.components(level=0.8).to_pandas())
    assert list(pd.read_csv(tmp_path / "tables" / "loadings.csv")["row"][:3]) == ["cell 0", "cell 0", "cell 1"]
    imputed = pd.read_csv(tmp_path / "tables" / "imputed.csv")
    assert list(zip(imputed["row"], imputed["column"], strict=True)) == [("cell 2", "gene 3"), ("cell 7", "gene 0")]


def test_missing_cells_have_the_bounds_of_their_predictive_distribution(fit, monkeypatch):
    _, post = fit
    many = ppnmf.extend(post, 1500, progress=False)
    found = many.imputed(level=0.8)
    wanted = many.interval(rows=["cell 2", "cell 7"], columns=["gene 3", "gene 0"], level=0.8)
    for name in ("mean", "lower", "upper"):
        one, other = getattr(found, name), np.diag(getattr(wanted, name))
        np.testing.assert_allclose(one, other, atol=0.1 * float((wanted.upper - wanted.lower).min()))
    monkeypatch.setattr("ppnmf.imputation.AT_ONCE", 1)
    np.testing.assert_allclose(many.imputed(level=0.8).mean, found.mean, rtol=0.1)
    assert len(found) == 2 and list(found.to_pandas()["column"]) == ["gene 3", "gene 0"]


def test_without_missing_cells_there_are_none(tmp_path):
    post = ppnmf.fit(ppnmf.models.ExponentialGaussian(2), frame().to_numpy(), method="icm", restarts=1)
    assert len(post.imputed()) == 0
    assert post.imputed().to_csv(tmp_path / "none.csv").read_text().splitlines() == ["row,column,mean,lower,upper"]


def test_new_rows_get_their_loadings_by_the_names_of_columns(fit, tmp_path):
    path, post = fit
    new = frame(1).iloc[:5, ::-1]
    new.to_csv(tmp_path / "new.csv")
    done = call("transform", path, tmp_path / "new.csv", "--out", tmp_path / "W.csv", "--draws", 20)
    assert done.exit_code == 0, done.output
    read = pd.read_csv(tmp_path / "W.csv")
    wanted = post.transform(new, draws=20).loadings().to_pandas()
    pd.testing.assert_frame_equal(read, wanted, check_exact=False, rtol=1e-6)


def test_rows_are_drawn(fit, tmp_path):
    path, post = fit
    done = call("generate", path, "-n", 7, "--out", tmp_path / "X.csv", "--seed", 3)
    assert done.exit_code == 0, done.output
    read = pd.read_csv(tmp_path / "X.csv")
    assert list(read.columns) == COLUMNS
    np.testing.assert_allclose(read.to_numpy(), post.generate(7, seed=3, latent="aggregated").numpy())


def test_a_judgement_is_for_machines_too(fit):
    path, post = fit
    done = call("diagnose", path, "--json")
    assert json.loads(done.stdout) == json.loads(json.dumps(ppnmf.summary(post).to_dict()))
    assert "bulk ESS" in done.stderr
    assert call("tables", "nothing.nc", "--out", "tables").exit_code == 2


def test_tables_are_parquet_where_that_is_asked_for(fit, tmp_path):
    path, post = fit
    done = call("tables", path, "--out", tmp_path / "tables", "--format", "parquet")
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == 3, done.output
    for name, wanted in (("components", post.components()), ("loadings", post.loadings()), ("imputed", post.imputed())):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "tables" / f"{name}.parquet"), wanted.to_pandas())
    assert call("tables", path, "--out", tmp_path, "--format", "xls").exit_code == 2
    assert call("generate", path, "-n", 7, "--out", tmp_path / "X.parquet").exit_code == 0
    assert list(pd.read_parquet(tmp_path / "X.parquet").columns) == COLUMNS
    with pytest.raises(ValueError, match="ends in .parquet"):
        post.components().to_parquet(tmp_path / "components.csv")
    empty = ppnmf.disk.write_table(tmp_path / "empty.parquet", ["row", "mean"], [])
    assert list(pd.read_parquet(empty).columns) == ["row", "mean"]


def test_outcomes_are_for_machines_and_words_go_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame().to_csv("X.csv")
    short = ["--draws", 20, "--warmup", 20, "--no-progress", "--json"]
    fitted = call("fit", "X.csv", "--rank", 2, "--chains", 2, "--no-page", *short)
    outcome = json.loads(fitted.stdout)
    assert (
        (outcome["file"], outcome["page"]) == ("fit.nc", None)
        and "sentence" in outcome
        and "X: 12 × 6" in fitted.stderr
    )
    ranked = call("rank", "X.csv", "--ranks", "1:2", "--method", "heldout", *short)
    assert json.loads(ranked.stdout)["best"] in (1, 2)
    checked = json.loads(call("data", "check", "X.csv", "--json").stdout)
    assert checked["shape"] == [12, 6] and checked["rows"] == ROWS
    assert checked["models"]["gamma_poisson"].startswith("refuses it")
    failed = call("fit", "nothing.csv", "--rank", 2, "--json")
    assert failed.exit_code == 2 and failed.stdout == ""
