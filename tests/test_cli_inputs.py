"""Files on the command line: how they are read, and what is advised where they cannot be."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from typer.testing import CliRunner

import ppnmf
from ppnmf import cli
from ppnmf.cli import inputs
from ppnmf.cli.reading import Reading

QUESTION = "patient,g0,g1\n1,.7,1\n2,.5,1.6\n3,2.8,6\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def refused(*arguments):
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.strip().splitlines() if not line.startswith("ppnmf: warning: ")]
    return line


def read(name, missing="error", dense=True, **reading):
    return inputs.read(name, Reading(missing=missing, **reading), dense)


def test_row_names_that_are_whole_numbers_are_a_question_that_an_option_answers():
    Path("mine.csv").write_text(QUESTION)
    sentence = refused("fit", "mine.csv", "--rank", 2)
    assert sentence == (
        "ppnmf: mine.csv: column 'patient' holds distinct whole numbers: row names? pass --row-names patient or --no-row-names"
    )
    done = call("fit", "mine.csv", "--rank", 1, "--method", "icm", "--restarts", 1, "--row-names", "patient")
    assert done.exit_code == 0, done.output
    heading = "mine: 3 × 2, rows named, columns named. The file mine.csv: cells separated by commas; "
    assert heading + "column 'patient' names the rows; rows 1, 2, 3; columns g0, g1." in done.stdout
    post = ppnmf.Posterior.load("fit.nc")
    assert post.names["rows"] == ["1", "2", "3"] and "column 'patient' names the rows" in post.attrs["data"]
    assert read("mine.csv", row_names="none").X.shape == (3, 3)
    assert read("mine.csv", no_row_names=True).X.shape == (3, 3)
    assert read("mine.csv", row_names="1", transpose=True, header=True).X.shape == (2, 3)


def test_how_a_file_was_read_stands_in_run_json():
    Path("mine.csv").write_text("id;g0;g1\na;0,7;1\nb;0,5;1,6\nc;2,8;6\n")
    asked = ("--ranks", "1:2", "--method", "mdl", "--restarts", 1, "--transpose", "--out", "out")
    done = call("rank", "mine.csv", *asked)
    assert done.exit_code == 0, done.output
    facts = json.loads(Path("out/run.json").read_text())["data"]
    assert facts["shape"] == [2, 3] and "semicolons; decimal commas" in facts["about"]
    assert facts["about"].endswith("rows a, b, c; columns g0, g1, then transposed.")


def test_options_that_do_not_go_together_are_refused():
    Path("mine.csv").write_text(QUESTION)
    assert "give one of them" in refused("fit", "mine.csv", "--rank", 1, "--row-names", "patient", "--no-row-names")
    assert "--header is for files" in refused("fit", "toy9x8", "--rank", 1, "--header")
    assert "no column 'x' to name the rows" in refused("rank", "mine.csv", "--row-names", "x")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("0,1,2\n.7,1,2\n", "pass --header or --no-header"),
        ("1,.7\n2,.5\n3,2.8\n", "pass --row-names 1 or --no-row-names"),
        ("my id,b\n1,2\n2,.5\n", "pass --row-names 'my id' or --no-row-names"),
        (
            "id,b\nr,2\ns,\n",
            "X has 1 NaN or empty entries: pass --missing nan if they are missing values, or fill them in",
        ),
        (
            "id,b\nr,2\ns,inf\n",
            "the first (inf) in row 's', column 'b': mend them, or write NaN there and pass --missing nan",
        ),
        (
            "id,b\nr,2\ns,-.5\n",
            "X has 1 negative entries (least -0.5), the first in row 's', column 'b': check mine.csv",
        ),
        ("id,b\nr,2\ns,2\n", "every entry of mine.csv is 2, so there is nothing to factorise"),
        ("id,b\nr,2\ns,1_5\n", "mine.csv: '1_5' in line 3, column 'b' is not a number"),
    ],
)
def test_what_is_advised_can_be_done_there(content, sentence):
    Path("mine.csv").write_text(content)
    for command in ("fit", "compare"):
        said = refused(command, "mine.csv", "--rank", 1)
        assert sentence in said
        assert "mask" not in said and "say " not in said and "='" not in said


def matrix_market(*entries):
    X = scipy.sparse.coo_array((list(entries), ([0, 1, 2], [0, 1, 0])), shape=(3, 2))
    scipy.io.mmwrite("mine.mtx", X)


def test_missing_and_infinite_entries_of_a_matrix_market_file():
    matrix_market(1.5, np.nan, 2)
    sentence = refused("fit", "mine.mtx", "--rank", 1)
    assert (
        "pass --missing nan" in sentence and "the first in row 2, column 2" in sentence and "unstored" not in sentence
    )
    found = read("mine.mtx", "nan", dense=False)
    assert np.array_equal(found.X, [[1.5, 0], [0, np.nan], [2, 0]], equal_nan=True) and found.mask.sum() == 5
    matrix_market(1.5, np.inf, 2)
    assert "1 infinite entries, the first (inf) in row 2, column 2" in refused("fit", "mine.mtx", "--rank", 1)
    matrix_market(1.5, -1, 2)
    assert "X has 1 negative entries (least -1): check mine.mtx" in refused("fit", "mine.mtx", "--rank", 1)


def test_a_big_file_with_missing_entries_is_advised_in_options(monkeypatch):
    monkeypatch.setattr("ppnmf.data.files.BIG", 10)
    np.save("mine.npy", [[1.5, np.nan], [2, 3]])
    assert "X has 1 NaN entries; if they are missing, pass --missing nan" in refused("fit", "mine.npy", "--rank", 1)
    np.save("mine.npy", [[1.5, np.inf], [2, 3]])
    assert refused("fit", "mine.npy", "--rank", 1).endswith("finite numbers are needed: check the input")
    np.save("mine.npy", np.full((3, 4), 2.0))
    assert "every entry of mine.npy is 2" in refused("fit", "mine.npy", "--rank", 1)


def test_the_layer_of_an_archive_is_chosen():
    np.savez("mine.npz", a=np.eye(3), b=np.eye(2) + 1)
    assert "pass --layer a" in refused("fit", "mine.npz", "--rank", 1)
    found = read("mine.npz", layer="b")
    assert found.name == "mine" and found.X.tolist() == [[2, 1], [1, 2]]


def test_names_that_come_twice_are_kept():
    Path("mine.csv").write_text("id,a,a\nr,.7,1\nr,.5,1.6\ns,2.8,6\n")
    assert call("fit", "mine.csv", "--rank", 1, "--method", "icm", "--restarts", 1).exit_code == 0
    assert ppnmf.Posterior.load("fit.nc").names == {"rows": ["r", "r", "s"], "columns": ["a", "a"]}
    assert call("diagnose", "fit.nc", "--out", "pictures").exit_code == 0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere.csv", "there is no file nowhere.csv"),
        ("no/where", "there is no file no/where"),
        ("notes.docx", "notes.docx has the suffix '.docx'"),
        ("digit", "did you mean 'digits'"),
        ("words.csv", "'b' in line 2 is not a number"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_heavy_is_imported(name, sentence):
    Path("notes.docx").write_text("words")
    Path("words.csv").write_text("a\nb\nc\n")
    code = (
        "import sys, ppnmf.cli\n"
        f"sys.argv = ['ppnmf', 'fit', {name!r}, '--rank', '2']\n"
        "try:\n    ppnmf.cli.main()\n"
        "finally:\n    print({'torch', 'pyro', 'numba', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and sentence in done.stderr and done.stdout.strip() == "set()"


def test_a_method_is_advised_in_the_command_line_s_words():
    assert inputs.on_the_command_line("try method='stepping_stone'") == "try --method stepping_stone"
