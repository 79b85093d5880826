"""Compiling is announced, once and only where it happens; kernels work where they cannot be kept."""

import importlib.util
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ppnmf
from ppnmf import compilation, evidence, inference
from ppnmf.evidence import rank
from ppnmf.models import ExponentialGaussian
from tests.scenarios import drawn

KERNEL = """
from numba import njit
@njit(cache=True)
def double(x):
    return 2 * x
"""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A function that makes standard error a terminal, in a process that has said nothing yet."""
    monkeypatch.setattr(compilation, "_announcer", compilation._Announcer())

    def turned_on():  # by the test itself: pytest puts its own standard error in place after the fixtures
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        return screen

    return turned_on


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A function that loads a kernel anew, as a new process does; its cache is empty at first."""
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "cache"))

    def load(name="ppnmf_kernel"):
        path = tmp_path / f"{name}.py"
        path.write_text(KERNEL)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.double

    return load


def test_compiling_is_announced_once(terminal, kernel):
    screen = terminal()
    with compilation.announced():
        double = kernel()
        assert double(2) == 4 and double(2.5) == 5.0
    with compilation.announced():
        assert double(2j) == 4j
    assert screen.getvalue() == compilation.LINE + "\n"


def test_what_comes_from_the_cache_is_not_announced(terminal, kernel):
    screen = terminal()
    assert kernel()(2) == 4  # not announced either: nobody asked
    with compilation.announced():
        assert kernel()(2) == 4
    assert screen.getvalue() == ""


def test_kernels_of_others_are_theirs_to_announce(terminal, kernel):
    screen = terminal()
    with compilation.announced():
        assert kernel("another_kernel")(2) == 4
    assert screen.getvalue() == ""


def test_nothing_is_announced_where_bars_are_silent(terminal, kernel, monkeypatch):
    screen = terminal()
    with compilation.announced(progress=False):
        assert kernel()(2) == 4
    monkeypatch.setattr(screen, "isatty", lambda: False)
    with compilation.announced():
        assert kernel()(2.5) == 5.0
    assert screen.getvalue() == ""


@pytest.mark.parametrize("progress", [True, False])
@pytest.mark.parametrize("entry", ["fit", "log_evidence", "select_rank"])
def test_every_entry_announces_what_it_compiles(entry, progress, terminal, kernel, monkeypatch):
    screen = terminal()

    class Stopped(Exception):
        """The kernel was compiled."""

    def run(model, X, seed, progress=True, **options):
        kernel()(2)
        raise Stopped

    def as_they_come(calls, n_jobs):
        run(None, None, 0)

    monkeypatch.setattr(inference, "method_named", lambda name: run)
    monkeypatch.setattr(evidence, "method_named", lambda name: run)
    monkeypatch.setattr(rank, "_as_they_come", as_they_come)
    ranks = {"ranks": [1]} if entry == "select_rank" else {}
    with pytest.raises(Stopped):
        getattr(ppnmf, entry)(ExponentialGaussian(1), drawn(6, 5, 1)[0].abs(), progress=progress, **ranks)
    assert (compilation.LINE in screen.getvalue()) is progress


def test_the_package_works_where_no_folder_can_be_written(tmp_path):
    """A package folder and a home that cannot be written: a container's user without a home, say."""
    package = tmp_path / "ppnmf"
    shutil.copytree(Path(ppnmf.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "_models"))
    for folder in (package, package / "kernels", package / "kernels" / "cpu", package / "data"):
        (folder / "__pycache__").touch()  # a file, in which not even root can write a cache
    code = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        "    from ppnmf.kernels import cpu\n"
        "    import ppnmf.kernels.csr\n"
        "print(cpu.__file__)\n"
        "print(*[one.message for one in said])\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    environment |= {"HOME": os.devnull, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    where, said = done.stdout.splitlines()
    assert where.startswith(str(package))
    assert said.count("compiled kernels cannot be kept") == 1 and "set NUMBA_CACHE_DIR" in said
