"""The command line, as a newcomer meets it: from another folder, with files of their own."""

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import ppnmf
from ppnmf import cli
from ppnmf.cli import rank
from ppnmf.data import toy

SHORT = ["--draws", "20", "--warmup", "10", "--chains", "2", "--quick"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def table(tmp_path):
    """A function: entries to change -> a CSV with row and column names."""
    X = toy.draw(20, 12, rank=2, noise=0.05, seed=1).X.clamp(min=0).numpy()

    def write(**changes):
        lines = [",".join(["gene", *(f"sample {j}" for j in range(12))])]
        for i, row in enumerate(X):
            cells = [changes.get(f"cell{i}_{j}", f"{value:.6f}") for j, value in enumerate(row)]
            lines.append(",".join([f"g{i}", *cells]))
        Path("mine.csv").write_text("\n".join(lines) + "\n")
        return "mine.csv"

    return write


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The one sentence on standard error of a call that must be refused."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.strip().splitlines() if not line.startswith("ppnmf: warning: ")]
    assert len(lines) == 1 and lines[0].startswith("ppnmf: ") and "Traceback" not in result.output
    return lines[0]


def test_compare_on_a_csv_with_names(table):
    result = call("compare", table(), "--rank", 2, "--out", "out", *SHORT)
    assert result.exit_code == 0, result.output
    for part in (
        "mine: 20 × 12, rows named, columns named",
        "gibbs",
        "icm",
        "pae",
        "hidden error",
        "chains",
        "files in out",
    ):
        assert part in result.stdout
    facts = json.loads(Path("out/run.json").read_text())
    assert facts["data"]["name"] == "mine" and facts["data"]["shape"] == [20, 12] and facts["options"]["rank"] == 2
    names = ppnmf.Posterior.load("out/gibbs.nc").X.shape
    assert names == (20, 12) and {path.suffix for path in Path("out").iterdir()} == {
        ".html",
        ".json",
        ".nc",
        ".png",
        ".txt",
    }
    page = Path("out/compare.html").read_text()
    assert "The file mine.csv: " in page and "gibbs: " in page and "Comparison of gibbs, icm, pae" in page
    assert page.count("<img ") == len(list(Path("out").glob("*.png")))


def test_the_row_and_column_names_reach_the_netcdf_file(table):
    import xarray

    assert call("fit", table(), "--rank", 2, "--method", "icm", "--no-page").exit_code == 0
    assert not Path("fit.html").exists()
    with xarray.open_datatree("fit.nc", engine="h5netcdf") as tree:
        assert tree["posterior"]["row"].values[1] == "g1" and tree["posterior"]["column"].values[2] == "sample 2"


def test_a_negative_entry_is_refused_unless_told(table):
    path = table(cell3_4="-0.2")
    sentence = refused("compare", path, "--rank", 2, *SHORT)
    assert "X has 1 negative entries (least -0.2)" in sentence and "--allow-negative" in sentence
    for command in (["fit", path, "--rank", 2], ["rank", path]):
        assert "X has 1 negative entries" in refused(*command)
    result = call("compare", path, "--rank", 2, "--out", "out", "--allow-negative", *SHORT)
    assert result.exit_code == 0, result.output
    reason = "pae: left out: X has 1 negative entries (least -0.2); pae_nmf needs data >= 0"
    assert reason in " ".join(result.stdout.split())
    (warning,) = [line for line in result.stderr.splitlines() if "negative" in line]
    assert warning.startswith("ppnmf: warning: X has 1 negative entries")
    assert not Path("out/pae.nc").exists()


def test_missing_entries_are_refused_unless_told(table):
    path = table(cell3_4="", cell0_0="NA")
    assert "2 NaN or empty entries: pass --missing nan" in refused("compare", path, "--rank", 2, *SHORT)
    result = call("compare", path, "--rank", 2, "--missing", "nan", "--out", "out", *SHORT)
    assert result.exit_code == 0, result.output
    assert json.loads(Path("out/run.json").read_text())["data"]["missing"] == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["compare", "nowhere.csv", "--rank", 2], "there is no file nowhere.csv"),
        (["compare", "digit", "--rank", 2], "there is no data set 'digit'; did you mean 'digits'"),
        (["compare", "gdsc", "--rank", 2], "set PPNMF_DATA to the folder"),
        (["compare", "toy9x8", "--rank", 0], "rank is 0; it must be a whole number >= 1"),
        (["compare", "toy9x8", "--rank", 2, "--draws", 0], "draws is 0"),
        (["compare", "toy9x8", "--rank", 2, "--held-out", 1], "held_out is 1"),
        (["compare", "toy9x8", "--rank", 2, "--seed", -1], "seed is -1"),
        (["compare", "toy9x8", "--rank", 2, "--missing", "no"], "--missing is 'no'"),
        (["compare", "toy9x8", "--rank", 2, "--device", "moon"], "--device is 'moon'"),
        (["fit", "toy9x8", "--rank", 2, "--method", "magic"], "method is 'magic'; it must be one of 'gibbs'"),
        (["fit", "toy9x8", "--rank", 2, "--steps", 3], "gibbs has no option steps"),
        (["fit", "toy9x8", "--rank", 2, "--out", "fit.txt"], "ends in .nc"),
        (["fit", "toy9x8", "--rank", 2, "--out", "no/fit.nc"], "there is no folder no"),
        (["rank", "toy9x8", "--ranks", "a:b"], "--ranks is 'a:b'"),
        (["rank", "toy9x8", "--ranks", "3:1"], "holds no rank"),
        (["rank", "toy9x8", "--method", "magic"], "'magic'"),
        (["diagnose", "nowhere.nc"], "there is no file nowhere.nc"),
        (["compare", "toy9x8", "--rank", 2, "--out", "file"], "--out is file, which is not a folder"),
        (["rank", "toy9x8", "--out", "file"], "--out is file, which is not a folder"),
        (["diagnose", "file"], "file is cut off, damaged, or no posterior that ppnmf saved"),
        (["run", "nowhere.toml"], "there is no recipe nowhere.toml"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(arguments, sentence, monkeypatch):
    monkeypatch.delenv("PPNMF_DATA", raising=False)
    Path("file").write_text("neither a folder nor a posterior")
    assert sentence in refused(*arguments)


def test_typers_own_refusals_have_exit_code_2_too():
    result = call("compare", "digits")
    assert result.exit_code == 2 and "--rank" in result.stderr


def test_fit_saves_what_diagnose_reads():
    result = call("fit", "toy20x12x2", "--rank", 2, "--draws", 20, "--warmup", 10, "--out", "mine.nc")
    assert result.exit_code == 0 and "Saved to mine.nc" in result.stdout
    assert (
        "The page about it is mine.html." in result.stdout
        and "<h2>Whether to trust it</h2>" in Path("mine.html").read_text()
    )
    judged = call("diagnose", "mine.nc", "--out", "pictures")
    assert judged.exit_code == 0 and "chains" in judged.stdout and "strength" in judged.stdout
    assert {path.name for path in Path("pictures").iterdir()} == {"components.png", "traces.png"}


def test_fit_goes_on_until_the_chains_agree_unless_told_how_long():
    said = call("fit", "toy20x12x2", "--rank", 2, "--chains", 2, "--out", "agreed.nc", "--no-page")
    assert said.exit_code == 0 and "The run ended after " in said.stdout and "starts were surveyed" in said.stdout
    attrs = ppnmf.Posterior.load("agreed.nc").attrs
    assert attrs["until"] == "agree" and attrs["max_seconds"] == 120
    timed = ["--until", "agree", "--draws", 400, "--max-seconds", "0.01", "--survey", 0]
    assert call("fit", "toy20x12x2", "--rank", 9, *timed, "--out", "timed.nc", "--no-page").exit_code == 0
    timed = ppnmf.Posterior.load("timed.nc")
    assert timed.attrs["ended"] == "time" and timed.survey is None
    assert "max_seconds is 5.0 and until is not given" in refused(
        "fit", "toy9x8", "--rank", 2, "--draws", 5, "--max-seconds", 5
    )


def test_the_same_command_gives_the_same_posterior():
    for name in ("a.nc", "b.nc"):
        call("fit", "toy9x8x2", "--rank", 2, "--draws", 5, "--warmup", 5, "--out", name, "--no-page")
    first, second = (ppnmf.Posterior.load(name) for name in ("a.nc", "b.nc"))
    assert np.array_equal(first.draws["W"], second.draws["W"])


def test_rank_finds_the_rank_of_a_drawn_matrix():
    result = call("rank", "toy30x20x2", "--ranks", "1:3", "--quick", "--out", "out")
    assert result.exit_code == 0, result.output
    assert json.loads(Path("out/run.json").read_text())["table"]["best"] == 2
    assert {path.name for path in Path("out").iterdir()} == {"rank.html", "rank.png", "run.json", "table.txt"}
    for said in (result.stdout, Path("out/table.txt").read_text(), Path("out/rank.html").read_text()):
        assert "; --sensitivity says what" in said and "By stepping_stone" in said
    both = call("rank", "toy9x8", "--ranks", "1,2", "--method", "heldout,chib", "--quick", "--folds", 3)
    assert both.exit_code == 0 and "heldout" in both.stdout and "chib" in both.stdout


def test_rank_goes_on_from_a_file_and_takes_the_criteria():
    command = ("rank", "toy20x12x2", "--ranks", "1:3", "--method", "bic,mdl", "--restarts", 2, "--resume", "r.json")
    first = call(*command, "--checkpoint", "r.json")
    assert first.exit_code == 0, first.output
    assert len(json.loads(Path("r.json").read_text())["scores"]) == 6
    again = call(*command)
    assert again.exit_code == 0 and again.stdout.split("Priors")[0] == first.stdout.split("Priors")[0]
    assert "restarts" in refused(*command, "--restarts", 3)


def test_priors_are_taken_from_the_command_line():
    said = ("--rate", 0.5, "--noise-shape", 2, "--noise-scale", 3)
    short = ("--draws", 3, "--warmup", 3, "--no-page")
    assert call("fit", "toy9x8", "--rank", 2, *short, *said, "--out", "a.nc").exit_code == 0
    model = ppnmf.Posterior.load("a.nc").model
    assert (model.rate_W, model.rate_H, model.noise_shape, model.noise_scale) == (0.5, 0.5, 2.0, 3.0)
    known = call("fit", "toy9x8", "--rank", 2, *short, "--noise-variance", 0.7, "--out", "b.nc")
    assert known.exit_code == 0 and bool((ppnmf.Posterior.load("b.nc").draws["sigma2"] == 0.7).all())
    table = call("rank", "toy9x8", "--ranks", "1,2", "--method", "stepping_stone", "--quick", *said)
    assert (
        table.exit_code == 0 and "Priors: rate_W = 0.5, rate_H = 0.5, noise_shape = 2, noise_scale = 3" in table.stdout
    )
    both = call("compare", "toy9x8", "--rank", 2, "--quick", "--noise-variance", 0.7, "--rate", 2, "--out", "c")
    assert both.exit_code == 0 and "sigma2=0.7" in both.stdout and "rate_W=2" in both.stdout
    assert json.loads(Path("c/run.json").read_text())["options"]["priors"] == {"rate": 2.0, "sigma2": 0.7}


@pytest.mark.parametrize(
    ("command", "said", "sentence"),
    [
        (
            "rank",
            ("--noise-variance", 1, "--noise-scale", 2),
            "--noise-scale, --noise-variance: the noise variance is given, and",
        ),
        ("fit", ("--model", "ard_gaussian", "--rate", 1), "--rate: ard_gaussian has no rate"),
        (
            "compare",
            ("--model", "gamma_poisson", "--noise-variance", 1),
            "--noise-variance: gamma_poisson has no sigma2",
        ),
        ("fit", ("--rate", -1), "--rate: rate_W"),
        ("rank", ("--noise-variance", 0), "--noise-variance: sigma2 is 0"),
    ],
)
def test_priors_that_a_model_has_not_are_refused(command, said, sentence):
    ranks = ("--ranks", "1,2") if command == "rank" else ("--rank", 2)
    assert sentence in refused(command, "toy9x8", *ranks, *said)


def test_ranks_are_read_with_both_ends():
    assert rank._whole_numbers("1:4") == [1, 2, 3, 4]
    assert rank._whole_numbers("2:8:3") == [2, 5, 8]
    assert rank._whole_numbers("7,3") == [7, 3]


def test_the_zoo_is_listed_and_a_recipe_is_run():
    listed = call("zoo")
    assert listed.exit_code == 0 and "exponential_gaussian" in listed.stdout and "pae_nmf" in listed.stdout
    Path("recipe.toml").write_text(
        'model = "exponential_gaussian"\n[data]\ntoy = { N = 12, D = 8, rank = 2, noise = 0.01 }\n[model_options]\nrank = 2\n'
        'scaled = true\n[fit]\nmethod = "icm"\ntol = 1e-3\n'
    )
    done = call("run", "recipe.toml")
    assert done.exit_code == 0 and "sigma2" in done.stdout and "no reference" in done.stdout
    Path("reference.json").write_text('{"replicates": 8, "results": {"sigma2": {"value": 9.0, "error": 0.1}}}')
    off = call("run", "recipe.toml")
    assert off.exit_code == 1 and "sigma2 is" in off.stdout


def test_help_does_not_import_the_heavy_libraries():
    code = "import sys, ppnmf.cli; assert not {'torch', 'pyro', 'numba', 'matplotlib', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_is_installed():
    (found,) = [point for point in entry_points(group="console_scripts") if point.name == "ppnmf"]
    assert found.value == "ppnmf.cli:main"


def test_an_interruption_before_anything_is_saved_says_so(monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(ppnmf, "fit", stop, raising=False)
    result = call("fit", "toy9x8", "--rank", 2)
    assert result.exit_code == 130 and "nothing was saved" in result.stderr


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "ppnmf", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "compare" in done.stdout
