"""How commands end: by a signal, with a full disk, into a closed pipe, by an error of a library."""

import ctypes
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import ppnmf
from ppnmf import cli
from ppnmf.cli import guard, signals
from ppnmf.models import ExponentialGaussian
from tests.sessions import running

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
LONG = ["fit", "toy40x30", "--rank", "3", "--warmup", "0", "--draws", "1000000", "--chains", "1", "--out", "part.nc"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def sentence(result, code=2):
    """The one line on standard error of a call that ends so."""
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("ppnmf: warning: ")]
    assert line.startswith("ppnmf: ") and "Traceback" not in result.output
    return line


def start(*arguments):
    """The command in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "ppnmf", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(ppnmf.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(true, seconds=120.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


# --- signals ---


def test_ctrl_c_leaves_what_was_drawn_and_gives_130():
    """One is enough, whatever it finds the program at."""
    process = start(*LONG, "--checkpoint", "run", "--every", "50")
    until(lambda: list(Path("run").glob("draws-*.npz")) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    *before, last = errors.splitlines()
    assert "ppnmf: Ctrl-C: finishing what is drawn; again to lose it" in before
    assert last == "ppnmf: interrupted; saved so far: part.nc; it goes on by --resume run" and "Traceback" not in errors
    assert ppnmf.Posterior.load("part.nc").attrs["interrupted"]


def test_ctrl_c_while_libraries_load_ends_the_program():
    process = start(*LONG)
    process.stdout.readline()  # the heading, before what takes seconds
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert "ppnmf: interrupted; " in errors


@pytest.fixture
def command():
    """A function: what a command does -> the exit code with which it ends."""

    def run(do):
        with pytest.raises(guard.typer.Exit) as ended:
            guard.guarded(lambda: do())()
        return ended.value.exit_code

    return run


def test_an_interruption_that_a_callback_from_c_swallows_is_raised_again(command, capfd):
    def callback():
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

    def do():
        ctypes.CFUNCTYPE(None)(callback)()  # prints KeyboardInterrupt, and forgets it
        time.sleep(20)

    began = time.monotonic()
    assert command(do) == 130 and time.monotonic() - began < 10
    assert capfd.readouterr().err.splitlines() == [
        "ppnmf: Ctrl-C: finishing what is drawn; again to lose it",
        "ppnmf: interrupted; nothing was saved",
    ]


def test_what_a_library_makes_of_an_interruption_is_one(command, capsys):
    def do():
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise SystemError("initialization failed") from error

    assert command(do) == 143 and "interrupted; nothing was saved" in capsys.readouterr().err


def test_a_signal_waits_while_files_are_written(command, capsys):
    done = []

    def do():
        with guard.finishing():
            signal.raise_signal(signal.SIGINT)
            done.append("written")
            guard.note(Path("a.nc"))
        done.append("not reached")

    assert command(do) == 130 and done == ["written"] and "saved so far: a.nc" in capsys.readouterr().err


def test_the_second_signal_ends_at_once_but_not_the_same_one_heard_twice(command, monkeypatch):
    ended = []
    monkeypatch.setattr(signals, "_end", lambda code, kept: ended.append(code) or (_ for _ in ()).throw(SystemError))

    def do():
        with guard.finishing():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # as `timeout` sends it, to the process and to its group
            assert not ended
            monkeypatch.setattr(signals, "SAME", 0.0)
            signal.raise_signal(signal.SIGINT)

    assert command(do) == 143 and ended == [130]


def test_handlers_are_put_back_and_signals_to_be_ignored_stay_so(command):
    before = signal.getsignal(signal.SIGTERM)
    heard = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.heard(str) as ending:
            assert signal.getsignal(signal.SIGTERM) == ending.hear
            signal.raise_signal(signal.SIGHUP)  # under nohup
            assert ending.number is None
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGHUP, heard)


RANK = ["rank", "toy30x20", "--ranks", "1:2", "--method", "bic,chib", "--draws", "1000000", "--warmup", "1"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
def test_no_worker_of_rank_goes_on_after_it(number):
    process = start(*RANK, "--jobs", "2", "--checkpoint", "ranks.json", "--no-progress")
    try:
        scores = lambda: len(json.loads(Path("ranks.json").read_text())["scores"])
        until(lambda: process.poll() is not None or (Path("ranks.json").exists() and scores() == 2))
        assert len(running(process.pid)) > 2
        process.send_signal(number)
        told, errors = process.communicate(timeout=60)
        until(lambda: not running(process.pid), 30)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if number == signal.SIGTERM:
        assert process.returncode == 143 and "By bic" in told and "Interrupted: not all ranks" in told, errors
        for line in (
            "SIGTERM: finishing what is drawn; again to lose it",
            "interrupted; it goes on by --resume ranks.json",
        ):
            assert f"ppnmf: {line}" in errors.splitlines()
    assert scores() == 2


TWICE = """
import pathlib, time
from joblib.externals.loky import get_reusable_executor
from ppnmf import disk
from ppnmf.cli import guard, signals
signals.SAME = 0.0

def do():
    workers = get_reusable_executor(2)
    [workers.submit(time.sleep, 0.01) for _ in range(2)]
    [workers.submit(time.sleep, 600) for _ in range(2)]
    guard.note(pathlib.Path("before.nc"))
    with guard.finishing(), disk.replacing(pathlib.Path("a.nc")) as file:
        print("ready", flush=True)
        while True:
            time.sleep(0.05)  # a signal may come to another thread, and then does not cut a sleep short

if __name__ == "__main__":
    guard.guarded(do)()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_the_second_signal_ends_the_workers_too_and_leaves_no_stump():
    Path("script.py").write_text(TWICE)
    environment = {**os.environ, "PYTHONPATH": str(Path(ppnmf.__file__).parents[1])}
    command = [sys.executable, "script.py"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            assert len(running(process.pid)) > 2 and len(os.listdir()) == 2
            process.send_signal(signal.SIGTERM)
            assert "again to lose it" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == "ppnmf: ended; saved so far: before.nc\n"
            assert process.wait(60) == 130
            until(lambda: not running(process.pid), 30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert os.listdir() == ["script.py"]


# --- one run at a time ---


def test_a_second_rank_on_the_same_file_is_refused():
    first = start(*RANK, "--checkpoint", "r.json", "--no-progress")
    try:
        until(lambda: Path("r.json").exists() or first.poll() is not None)
        result = call(
            "rank", "toy30x20", "--ranks", "1", "--method", "bic", "--checkpoint", "r.json", "--resume", "r.json"
        )
        assert "another run is writing to r.json: wait for it, or end it" in sentence(result)
    finally:
        first.kill()
        first.communicate()
    again = call("rank", "toy30x20", "--ranks", "1,2,3", "--method", "bic", "--restarts", 2, "--checkpoint", "r.json")
    assert "there is a file r.json already: go on from it by --resume, or remove it" in sentence(again)


# --- a full disk, and what cannot be written ---


def test_a_full_disk_is_one_sentence_and_leaves_the_file_before():
    fit = ["fit", "toy9x8x2", "--rank", 2, "--draws", 5, "--warmup", 5, "--no-page"]
    assert call(*fit).exit_code == 0
    before = Path("fit.nc").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", full)
        result = call(*fit, "--seed", 1)
    assert "fit.nc cannot be written: the disk is full (No space left on device): free some space" in sentence(result)
    assert "chain" in result.stdout and Path("fit.nc").read_bytes() == before and os.listdir() == ["fit.nc"]


def full(*args, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("command", [["compare", "toy9x8", "--rank", 2], ["rank", "toy9x8", "--ranks", "1,2"]])
def test_a_table_is_printed_when_it_cannot_be_written(command, monkeypatch):
    from ppnmf import report

    monkeypatch.setattr(report, "write", full)
    monkeypatch.setattr("ppnmf.cli.rank._write_rank", full)
    result = call(*command, "--quick", "--out", "out", *(["--method", "bic"] if command[0] == "rank" else []))
    assert "No space left on device" in sentence(result) and (
        "hidden error" in result.stdout or "By bic" in result.stdout
    )


@pytest.mark.parametrize(
    "command",
    [
        ["fit", "toy9x8", "--rank", 2, "--out", "nowhere/fit.nc"],
        ["fit", "toy9x8", "--rank", 2, "--out", "folder.nc"],
        ["fit", "toy9x8", "--rank", 2, "--out", "page.nc"],
        ["compare", "toy9x8", "--rank", 2, "--out", "file/out"],
        ["rank", "toy9x8", "--out", "file/out"],
        ["rank", "toy9x8", "--checkpoint", "nowhere/ranks.json"],
        ["diagnose", "fit.nc", "--out", "file/out"],
    ],
)
def test_out_that_cannot_be_written_is_noticed_before_the_work(command, monkeypatch):
    def work(*args, **options):
        raise AssertionError("it has begun")

    Path("file").touch()
    Path("fit.nc").touch()
    Path("folder.nc").mkdir()
    Path("page.html").mkdir()
    for name in ("ppnmf.inference.fit", "ppnmf.report.compare_methods", "ppnmf.evidence.rank._attempt"):
        monkeypatch.setattr(name, work)
    monkeypatch.setattr(ppnmf.Posterior, "load", work)
    told = sentence(call(*command))
    assert "cannot be written" in told or "in a folder that is there" in told
    assert sorted(os.listdir()) == ["file", "fit.nc", "folder.nc", "page.html"]


def test_scores_that_cannot_be_written_are_one_warning_and_the_table_comes(monkeypatch):
    from ppnmf.evidence import finished

    monkeypatch.setattr(finished, "write_text", full)
    result = call("rank", "toy9x8", "--ranks", "1:3", "--method", "bic", "--restarts", 2, "--checkpoint", "r.json")
    assert result.exit_code == 0 and "By bic" in result.stdout
    assert len([line for line in result.stderr.splitlines() if "No space left" in line]) == 1


# --- a closed pipe ---


@pytest.mark.parametrize("command", [["fit", "toy9x8x2", "--rank", "2", "--draws", "5", "--warmup", "5", "--no-page"]])
def test_a_closed_pipe_does_not_lose_the_result(command):
    with start(*command) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0 and "Traceback" not in errors and "Broken pipe" not in errors, errors
    assert ppnmf.Posterior.load("fit.nc").n_draws == 5


def test_output_that_cannot_be_written_is_told_at_the_end(monkeypatch, capfd):
    def do():
        guard.note(Path("a.nc"))
        sys.stdout.write("heading")
        sys.stdout.flush()
        sys.stdout.write("table")

    with (
        Path("/dev/full").open("w") as stdout,
        pytest.raises(guard.typer.Exit) as ended,
        pytest.MonkeyPatch.context() as p,
    ):
        p.setattr(sys, "stdout", stdout)
        guard.guarded(do)()
    assert ended.value.exit_code == 2
    assert capfd.readouterr().err == "ppnmf: not all could be printed (No space left on device); saved so far: a.nc\n"


# --- errors ---


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no kernel image\nException raised from f at /x.cpp:1\nframe #0"), "no kernel image"),
        (KeyError("W was not kept"), "W was not kept"),
        (FileNotFoundError(2, "No such file or directory", "a.npy"), "a.npy: No such file or directory"),
        (MemoryError(), "there is not enough memory; ask for a smaller rank, or fewer draws or chains"),
        (RuntimeError("DefaultCPUAllocator: can't allocate: not enough memory"), "fewer draws or chains"),
        (type("BadZipFile", (Exception,), {"__module__": "zipfile"})("no zip"), "no zip"),
        (ValueError("give missing='nan', or resume= and seed=3"), "give --missing nan, or --resume and --seed 3"),
        (ValueError(""), "ValueError"),
    ],
)
def test_errors_of_libraries_become_a_sentence(error, told, capsys):
    def do(missing="", resume=None, seed=0):
        raise error

    with pytest.raises(guard.typer.Exit) as ended:
        guard.guarded(do)()
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.exit_code == 2 and len(lines) == 1 and lines[0].startswith("ppnmf: ") and told in lines[0]
    assert "frame #0" not in lines[0]


def test_a_mistake_of_ours_says_so_and_how_to_see_where(command, capsys, monkeypatch):
    def do():
        raise AttributeError("no attribute 'x'")

    assert command(do) == 3 and "a mistake of ppnmf's own, AttributeError: no attribute 'x'" in capsys.readouterr().err
    monkeypatch.setenv("PPNMF_TRACEBACK", "1")
    with pytest.raises(AttributeError):
        guard.guarded(do)()


def test_files_that_are_no_posterior_are_a_sentence():
    post = ppnmf.fit(ExponentialGaussian(1), [[1.0, 2.0], [2.0, 4.1]], draws=2, warmup=1, progress=False)
    whole = post.save("whole.nc").read_bytes()
    Path("cut.nc").write_bytes(whole[: len(whole) // 2])
    Path("changed.nc").write_bytes(whole.replace(b"exponential_gaussian", b"exponential_gaussiam"))
    assert "cut.nc is cut off, damaged, or no posterior that ppnmf saved" in sentence(call("diagnose", "cut.nc"))
    assert "changed.nc is damaged" in sentence(call("diagnose", "changed.nc"))


# --- memory ---


HUGE = 99_999_999_999  # a rank that no memory holds


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            ["fit", "toy9x8", "--rank", HUGE],
            f"W and H of rank {HUGE} for X 9 × 8 in 1 chain(s) need 13.6 TB",
        ),
        (["fit", "toy9x8", "--rank", HUGE, "--method", "icm"], f"W and H of rank {HUGE}"),
        (["fit", "digits", "--rank", HUGE, "--method", "svi"], f"W and H of rank {HUGE}"),
        (
            ["fit", "toy9x8", "--rank", 2, "--chains", 10**9 * 50],
            "W and H of rank 2 for X 9 × 8 in 50000000000 chain(s) need",
        ),
        (
            ["fit", "toy9x8", "--rank", 2, "--draws", 10**12],
            "1000000000000 draws of W and H of rank 2 for X 9 × 8 in 4 chain(s) need",
        ),
        (["compare", "toy9x8", "--rank", HUGE], f"W and H of rank {HUGE}"),
        (["rank", "toy9x8", "--ranks", f"1,{HUGE}"], f"W and H of rank {HUGE}"),
    ],
)
def test_what_no_memory_could_hold_is_refused_with_its_size(command, told):
    assert told in sentence(call(*command)) and not os.listdir()


def test_memory_that_is_there_is_not_refused(monkeypatch):
    from ppnmf import memory

    X, model = torch.rand(9, 8, dtype=torch.float64), ExponentialGaussian(2)
    draw = 2 * 17 + 1 + 1  # numbers: of W and H, σ² and lp
    monkeypatch.setattr(memory, "SURE", 0)
    for there, fits in ((10 * draw * 8, True), (10 * draw * 8 - 1, False)):  # ten of them
        monkeypatch.setattr(memory, "available", lambda device, there=there: there)
        for options in ({"chains": 10, "draws": 1, "warmup": 1}, {"method": "icm", "restarts": 10, "tol": 0.1}):
            with (
                nullcontext()
                if fits
                else pytest.raises(MemoryError, match="1 draws of W and H of rank 2 for X 9 × 8 in 10 chain")
            ):
                ppnmf.fit(model, X, progress=False, **options)


def test_available_memory_is_that_of_the_machine_or_of_its_container(tmp_path, monkeypatch):
    from ppnmf import memory

    cpu = torch.device("cpu")
    assert memory.available(cpu) > 1e8
    monkeypatch.setattr(memory, "LIMIT", tmp_path / "memory.max")
    memory.LIMIT.write_text("12345\n")
    assert memory.available(cpu) == 12345
    memory.LIMIT.write_text("max\n")
    assert 1e8 < memory.available(cpu) < math.inf
