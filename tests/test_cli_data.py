"""`ppnmf data`."""

import numpy as np
import pytest
from typer.testing import CliRunner

from ppnmf.cli import app
from ppnmf.data import datasets
from ppnmf.models import REGISTRY


def said(*arguments):
    done = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_table_is_described_as_it_was_understood(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("gene,a,b,c\ng1,1,0,3\ng2,,0,7\ng3,0,0,\n")
    text = said("check", path)
    assert "rows: 3, g1, g2, g3" in text and "columns: 3, a, b, c" in text
    assert "orientation: 3 observations (rows) of 3 variables (columns)" in text
    assert "entries: whole numbers from 0 to 7, mean 1.57143" in text
    assert "zeros: 4 (57.1%)" in text and "negative: none" in text
    assert "missing: 2 (22.2%); 0 row(s), 0 column(s) with nothing observed" in text
    assert "zero throughout: 1 row(s), 1 column(s)" in text
    assert f"{', '.join(REGISTRY)}: take it; --missing nan leaves out what is missing" in text
    assert (
        text.splitlines()[-1] == f"next: ppnmf rank {path} --missing nan --model gamma_poisson --ranks 1:8 --out rank"
    )


def test_what_a_model_refuses_is_said(tmp_path):
    np.savetxt(tmp_path / "x.txt", [[0.5, -1.25], [2.5, 1.5]])
    text = said("check", tmp_path / "x.txt")
    assert "rows: 2, without names" in text and "negative: 1 (25.0%)" in text and "real numbers from -1.25" in text
    (taken,) = [line for line in text.splitlines() if line.startswith("exponential_gaussian, ")]
    assert taken.endswith("hierarchical: take it with --allow-negative; W @ H cannot follow negative entries")
    assert "\ngamma_poisson, negative_binomial_gamma, semi_supervised_counts: refuse it: they need counts" in text
    assert "\npae_nmf: refuses it: it needs data >= 0" in text
    assert "x.txt --allow-negative --ranks" in text


def test_a_data_set_is_described_by_its_name():
    assert "entries: " in said("check", "toy20x12")


def test_the_data_sets_are_listed():
    assert said("list").split() == datasets.names()


@pytest.mark.parametrize("path", ["nowhere.csv", "nothing"])
def test_what_is_not_there_is_one_sentence(path):
    done = CliRunner().invoke(app, ["data", "check", path])
    assert done.exit_code == 2 and "there is no" in done.output


def test_the_advice_repeats_what_was_said_of_the_file(tmp_path):
    path = tmp_path / "years.csv"
    path.write_text("2001,2002,2004\n1.5,2.5,3.5\n2.5,1.5,0.5\n")
    done = CliRunner().invoke(app, ["data", "check", str(path), "--header", "--no-row-names"])
    assert f"next: ppnmf rank {path} --header --no-row-names --ranks" in done.output


def test_a_file_with_nothing_observed_gets_no_advice(tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text("a,b\nNA,NA\nNA,NA\n")
    done = CliRunner().invoke(app, ["data", "check", str(path)])
    assert done.exit_code == 0 and "none is observed" in done.output and "next:" not in done.output
