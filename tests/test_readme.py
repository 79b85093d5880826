"""What the README promises: its code runs, its table of dependencies is the project's, its files are there."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from typer.testing import CliRunner

from ppnmf.cli import app
from tests import pairs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def code_of(page):
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)


@pytest.mark.filterwarnings("ignore:(icm|mu|vb):UserWarning", "ignore:Estimated shape parameter:UserWarning")
def test_the_code_runs(capsys, tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    monkeypatch.chdir(tmp_path)
    names = {}
    ten_lines, for_arviz, estimator = code_of("README.md")
    (family,), (long_run,) = code_of("docs/choosing.md"), code_of("docs/data.md")
    quick = ten_lines.replace("draws=500, warmup=500", "draws=20, warmup=20").replace(
        "restarts=4", "restarts=1, max_sweeps=20"
    )
    quick = quick.replace('method="svi"', 'method="svi", steps=30, draws=20').replace(").X ", ").X[:100] ")
    assert quick.count("=20") >= 3 and "steps=30" in quick and "[:100]" in quick
    exec(compile(quick, "README.md", "exec"), names)
    assert "gibbs" in capsys.readouterr().out
    exec(compile(for_arviz, "README.md", "exec"), names)
    plt.close("all")
    exec(compile(estimator.replace("n_components=10", "n_components=3"), "README.md", "exec"), names)
    assert names["W"].shape == (100, 3)
    quick = long_run.replace("draws=100_000", "draws=20, warmup=20")
    for _ in range(2):  # "run it again until it is done"
        exec(compile(quick, "README.md", "exec"), names)
    assert names["post"].n_draws == 20 and (tmp_path / "draws.zarr").exists()
    quick = family.replace("=200", "=5").replace("restarts=4", "max_sweeps=5, draws=20")
    quick = quick.replace("rank=20", "rank=12, draws=10, warmup=10, chains=1")
    names |= {"W0": np.ones((100, 10)), "H0": np.ones((10, 64))}
    exec(compile(quick, "README.md", "exec"), names)
    assert names["mode"].attrs["sweeps"] == [5] and names["live"].counts.shape == (1, 10)


def test_the_table_of_models_and_methods_is_the_computed_one():
    assert pairs.table() in README, "paste what `python -m tests.pairs` prints"


def test_the_demo_runs_in_a_clone(tmp_path, monkeypatch):
    (tmp_path / "ppnmf").mkdir()
    monkeypatch.chdir(tmp_path)
    (recipe,) = re.findall(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    commands = [shlex.split(line.split("/ppnmf ")[1]) for line in recipe.splitlines() if "/ppnmf " in line]
    assert len(commands) == 3
    for words in commands:
        small = {words[1]: "toy20x12", "10": "2", "1:6": "1:2", "10,15,20,25": "1,2", "50": "10"}
        done = CliRunner().invoke(app, [*(small.get(word, word) for word in words), "--quick", "--no-progress"])
        assert done.exit_code == 0, done.output
        assert (tmp_path / words[words.index("--out") + 1] / "run.json").exists()


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", line).group() for line in project["dependencies"]}
    (table,) = re.findall(r"\| dependency \| why \|\n\| --- \| --- \|\n(.*?)\n\n", README, re.S)
    explained = {name.strip() for row in table.splitlines() for name in row.split("|")[1].split(",")}
    assert explained == needed
    for extra in project["optional-dependencies"]:
        assert f"`{extra}`" in README


def test_links_lead_to_files():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_importing_the_package_is_quick():
    code = (
        "import sys, ppnmf; assert not {'torch', 'pyro', 'numba', 'matplotlib'} & set(sys.modules); print(dir(ppnmf))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'fit'" in out and "'select_rank'" in out
