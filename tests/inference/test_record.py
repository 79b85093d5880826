import errno
import itertools
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

import ppnmf
from ppnmf.inference import checkpoint as checkpoints
from ppnmf.inference import record, survey
from ppnmf.inference import store as stores
from ppnmf.models import ExponentialGaussian
from tests.scenarios import drawn

X = drawn(30, 20, 3, rate=0.3, noise=0.5)[0].abs()
MASK = (torch.arange(600) % 7 != 3).reshape(30, 20)
MODEL = ExponentialGaussian(3, 0.3, 0.3)
PLAN = {"draws": 12, "warmup": 9, "thin": 3, "chains": 2, "seed": 4}
LONG = {"draws": 700, "warmup": 100, "thin": 2, "chains": 2, "seed": 4}
SWEEPS = 9 + 12 * 3


def fit(where=None, X=X, **options):
    paths = {} if where is None else {"checkpoint": where, "resume": where}
    return ppnmf.fit(MODEL, X, **{**PLAN, **paths, **options}, progress=False)


def same(a, b):
    return a.draws.keys() == b.draws.keys() and all(
        torch.equal(x, y)
        for x, y in zip([*a.draws.values(), a.stats["lp"]], [*b.draws.values(), b.stats["lp"]], strict=True)
    )


class Stop(BaseException):
    """The end of a process, as far as one can be played in another."""


def cut(monkeypatch, sweep, where, **options):
    """A run that ends by an exception once the state before `sweep` has been told."""
    save = record.Recorder.save

    def stopping(self, state):
        save(self, state)
        if state.sweep >= sweep:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(record.Recorder, "save", stopping)
        patch.setattr(record.Recorder, "__exit__", lambda self, *error: self.close())  # no last word
        with pytest.raises(Stop):
            fit(where, **options)


@pytest.fixture
def zarr():
    return pytest.importorskip("zarr")


# --- to the same bits ---


@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("chains", [1, 3])
@pytest.mark.parametrize("at", [2, 7, 10, 11, 23, SWEEPS], ids=lambda at: f"cut at {at}")
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(at, chains, masked, tmp_path, monkeypatch):
    options = {"chains": chains, "mask": MASK if masked else None, "every": 5}
    cut(monkeypatch, at, tmp_path / "run", **options)
    assert same(fit(tmp_path / "run", **options), fit(**{**options, "every": None}))


def test_a_run_may_be_cut_many_times(tmp_path, monkeypatch):
    for at in (4, 12, 13, 20, 30):
        cut(monkeypatch, at, tmp_path / "run", every=2)
    assert same(fit(tmp_path / "run", every=3), fit())


@pytest.mark.parametrize("at", [5, 12, 31])
@pytest.mark.parametrize("chains", [1, 3])
def test_a_resumed_run_with_a_store_has_the_same_bits(at, chains, tmp_path, monkeypatch, zarr):
    options = {"store": tmp_path / "draws.zarr", "chains": chains, "every": 4}
    cut(monkeypatch, at, tmp_path / "run", **options)
    whole = fit(chains=chains)
    assert same(fit(tmp_path / "run", **options), whole)
    options.pop("store")  # the checkpoint knows it
    assert same(fit(tmp_path / "run", **options), whole)


def test_float32_and_chosen_sites_are_resumed_too(tmp_path, monkeypatch):
    options = {"X": X.float(), "keep": ["H"], "moves": False, "init": "nndsvd"}
    cut(monkeypatch, 17, tmp_path / "run", every=3, **options)
    assert same(fit(tmp_path / "run", **options), fit(**options))


def test_values_that_start_a_run_belong_to_its_identity(tmp_path):
    first, other = ({"sigma2": torch.tensor([value, 1.0])} | fit_start() for value in (1.0, 2.0))
    fit(tmp_path / "run", init=first)
    assert fit(tmp_path / "run", init=first).n_draws == 12
    with pytest.raises(ValueError, match="init="):
        fit(tmp_path / "run", init=other)


def fit_start():
    return {"W": torch.ones(2, 30, 3, dtype=X.dtype), "H": torch.ones(2, 3, 20, dtype=X.dtype)}


def test_a_run_that_is_over_can_be_asked_for_more_draws(tmp_path):
    short = fit(tmp_path / "run", draws=5)
    seconds = checkpoints.Checkpoint(tmp_path / "run").read().facts["seconds"]
    longer = fit(tmp_path / "run")
    assert same(longer, fit()) and torch.equal(longer.draws["W"][:, :5], short.draws["W"])
    assert longer.timings["total"] > seconds > 0


def test_checkpoints_change_no_draw_and_neither_do_stores(tmp_path, zarr):
    plain = fit()
    assert same(plain, fit(tmp_path / "run", every=1)) and same(plain, fit(store=tmp_path / "draws.zarr"))


# --- killed ---


def started(work, *args):
    """Another process, forked from one that has imported what takes long and has no threads."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["ppnmf.inference.gibbs", "ppnmf.models", "zarr", __name__])
    worker = processes.Process(target=work, args=args)
    worker.start()
    return worker


def endure(where, store, every, out):
    post = fit(where, store=store, every=every, **LONG)
    if out is not None:
        torch.save({**post.draws, "lp": post.stats["lp"]}, out)


@pytest.mark.parametrize("stored", [False, True], ids=["files", "store"])
def test_a_process_killed_at_random_moments_resumes_to_the_same_bits(stored, tmp_path):
    if stored:
        pytest.importorskip("zarr")
    rng, every = random.Random(5), 25
    where, store, out = tmp_path / "run", tmp_path / "draws.zarr" if stored else None, tmp_path / "out.pt"
    kills, sweeps = 0, []
    for _ in range(4):
        worker = started(endure, where, store, every, None)
        until = time.monotonic() + 600  # it may have kernels to compile, on a machine that does much else
        before = sweeps[-1] if sweeps else -1
        while worker.is_alive() and chains_of(where) <= before and time.monotonic() < until:
            time.sleep(0.01)  # it has come up and has gone on
        time.sleep(rng.uniform(0, 0.05))
        worker.kill()
        worker.join()
        kills += worker.exitcode == -9
        sweeps.append(chains_of(where))
    assert kills >= 1 and sweeps == sorted(sweeps)
    worker = started(endure, where, store, every, out)
    worker.join()
    assert worker.exitcode == 0
    found, whole = torch.load(out), fit(**LONG)
    assert all(torch.equal(found[site], values) for site, values in {**whole.draws, "lp": whole.stats["lp"]}.items())


def chains_of(where):
    """How far the chains of a checkpoint are; 0 before they begin, while starts are surveyed, and -1 where there is none."""
    point = checkpoints.Checkpoint(where)
    if not point:
        return -1
    saved = point.read()
    return 0 if survey.is_under_way(saved.params) else saved.facts["sweep"]


def sweep_of(where):
    point = checkpoints.Checkpoint(where)
    return point.read().facts["sweep"] if point else 0


@pytest.mark.parametrize("stored", [False, True], ids=["files", "store"])
def test_every_step_of_every_write_leaves_something_to_resume(stored, tmp_path, monkeypatch):
    """What a kill before and after each step would leave, half-written files too, is resumed to the same bits."""
    if stored:
        pytest.importorskip("zarr")
    where, store, seen = tmp_path / "run", tmp_path / "draws.zarr", []

    def photograph(half=False):
        if not where.exists() or (stored and not store.exists()):
            return
        copy = tmp_path / f"seen{len(seen)}"
        shutil.copytree(where, copy / "run")
        if stored:
            shutil.copytree(store, copy / "draws.zarr")
        for path in copy.glob("run/*.new") if half else []:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        seen.append(copy)

    def watched(function, half=False, of=1):
        calls = itertools.count()

        def call(*args):
            look = next(calls) % of == 0
            if look:
                photograph(half)
            result = function(*args)
            if look:
                photograph()
            return result

        return call

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", watched(os.replace))
        patch.setattr("os.fsync", watched(os.fsync, half=True, of=5 if stored else 1))
        if stored:
            patch.setattr(stores, "_write", watched(stores._write, of=23))
        fit(where, every=14, store=store if stored else None)
    whole = fit()
    assert len(seen) > 15
    for copy in seen:
        assert same(fit(copy / "run", store=copy / "draws.zarr" if stored else None, every=7), whole), copy.name
        assert not list(copy.glob("run/*.new"))


@pytest.mark.parametrize(("name", "first"), [("replace", 1), ("fsync", 2)])
def test_a_step_that_fails_leaves_the_checkpoint_before(name, first, tmp_path, monkeypatch):
    """Every step after those of the first write fails once; the run goes on with a warning, and can be resumed."""
    whole, step = fit(), getattr(os, name)
    for failing in range(first, 8 * first):
        calls = iter(range(100))

        def fails(*args, calls=calls, failing=failing):
            if next(calls) == failing:
                raise OSError(errno.EIO, "Input/output error")
            return step(*args)

        where = tmp_path / str(failing)
        with monkeypatch.context() as patch:
            patch.setattr(f"os.{name}", fails)
            with pytest.warns(UserWarning, match="no checkpoint could be written .*Input/output error.* is whole"):
                post = fit(where, every=9)
            assert next(calls) > failing
        assert same(post, whole) and same(fit(where), whole)


@pytest.mark.parametrize("before", [True, False], ids=["before a draw is kept", "after it"])
def test_ctrl_c_writes_a_last_checkpoint(before, tmp_path, monkeypatch):
    keep = record.Recorder.keep

    def interrupted(self, draws, lp):
        if before and self.done >= 4:
            raise KeyboardInterrupt
        keep(self, draws, lp)
        if self.done > 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(record.Recorder, "keep", interrupted)
        post = fit(tmp_path / "run", every=5)
    whole = fit()
    assert post.attrs["interrupted"] and 4 <= post.n_draws < 12
    assert torch.equal(post.draws["W"], whole.draws["W"][:, : post.n_draws])
    assert 0 < checkpoints.Checkpoint(tmp_path / "run").read().facts["done"] <= post.n_draws
    assert same(fit(tmp_path / "run"), whole)


def test_ctrl_c_before_the_first_draw_writes_one_too(tmp_path, monkeypatch):
    def interrupted(self, draws, lp):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(record.Recorder, "keep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "run")
    assert sweep_of(tmp_path / "run") > 1
    assert same(fit(tmp_path / "run"), fit())


# --- refused ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    where = tmp_path_factory.mktemp("finished") / "run"
    fit(where, draws=6)
    return where


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"X": X + 1e-12}, "is of other data"),
        ({"X": X.float()}, "is of other data"),
        ({"X": X[:, :19]}, "is of other data"),
        ({"mask": MASK}, "is of other data"),
        ({"seed": 5}, "begun with seed=4, and this run has 5"),
        ({"chains": 3}, "begun with chains=2"),
        ({"warmup": 10}, "begun with warmup=9"),
        ({"thin": 2}, "begun with thin=3"),
        ({"keep": ["W"]}, "begun with keep="),
        ({"moves": False}, "begun with moves=True"),
        ({"init": "prior"}, "begun with init='survey'"),
        ({"draws": 5}, "draws is 5, and the checkpoint in .* holds 6"),
        ({"store": "x.zarr"}, "keeps its draws itself"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_checkpoint_of_another_run_is_refused(change, sentence, finished):
    with pytest.raises(ValueError, match=sentence):
        fit(finished, **change)


def test_a_checkpoint_of_another_model_is_refused(finished):
    for model in (
        ExponentialGaussian(2, 0.3, 0.3),
        ExponentialGaussian(3, 0.3, torch.full((3,), 0.3)),
        Renamed(3, 0.3, 0.3),
    ):
        with pytest.raises(ValueError, match="is of another model"):
            ppnmf.fit(model, X, **PLAN, resume=finished)


class Renamed(ExponentialGaussian):
    name = "renamed"


def test_rows_that_are_spread_over_processes_are_refused(tmp_path):
    from ppnmf.data.sharded import Sharded

    spread = object.__new__(Sharded)
    with pytest.raises(TypeError, match="the rows of X are spread"):
        record.open(MODEL, spread, dict, sites=["sigma2"], draws=1, plan={}, checkpoint=tmp_path / "run")


def test_paths_that_cannot_be_meant_are_refused(finished, tmp_path, zarr):
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        fit(resume=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="already: go on from it by resume="):
        fit(checkpoint=finished)
    with pytest.raises(ValueError, match="goes on in one folder"):
        fit(checkpoint=tmp_path / "new", resume=finished)
    with pytest.raises(ValueError, match="there is no checkpoint to write"):
        fit(every=10)
    with pytest.raises(ValueError, match="every is 0"):
        fit(tmp_path / "new", every=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="not a folder"):
        fit(tmp_path / "file")
    with pytest.raises(ValueError, match="no store of a run"):
        (tmp_path / "empty").mkdir()
        fit(tmp_path / "new", store=tmp_path / "empty")


def test_the_store_of_another_run_is_refused(tmp_path, zarr):
    store = tmp_path / "draws.zarr"
    fit(tmp_path / "run", store=store, draws=4)
    with pytest.raises(ValueError, match="there already"):
        fit(store=store)
    with pytest.raises(ValueError, match="for more or fewer draws"):
        fit(tmp_path / "run", draws=5)
    with pytest.raises(ValueError, match="for another run"):
        fit(tmp_path / "other", store=store, draws=4, seed=5)
    store.rename(tmp_path / "moved.zarr")
    with pytest.raises(ValueError, match="are not in"):
        fit(tmp_path / "run", draws=4)
    assert same(fit(tmp_path / "run", draws=4, store=tmp_path / "moved.zarr"), fit(draws=4))
    shutil.rmtree(tmp_path / "moved.zarr")
    fit(store=store, draws=4)
    with (store / "posterior/W/c/0/0/0/0").open("r+b") as file:
        file.seek(16 * 3)
        file.write(b"\xff" * 16)  # chain 0's last draw is not there
    with pytest.raises(ValueError, match="lacks some of the 4 draws"):
        fit(tmp_path / "run", draws=4, store=store)


def test_a_checkpoint_is_held_by_one_run_at_a_time(finished, tmp_path):
    point = checkpoints.Checkpoint(finished)
    point.hold(must_exist=True)
    with pytest.raises(ValueError, match="another run is writing"):
        fit(finished)
    point.close()
    assert fit(finished).n_draws == 12


@pytest.mark.parametrize("name", ["state.npz", "draws-*.npz"])
def test_a_damaged_file_is_a_sentence(name, tmp_path):
    fit(tmp_path / "run", draws=2)
    path = next((tmp_path / "run").glob(name))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="not a checkpoint's file that can be read"):
        fit(tmp_path / "run")
    path.unlink()
    if name != "state.npz":
        with pytest.raises(ValueError, match="not a checkpoint's file that can be read"):
            fit(tmp_path / "run")


def test_another_version_is_told(tmp_path, monkeypatch):
    fit(tmp_path / "run", draws=2)
    monkeypatch.setattr(record, "__version__", "99")
    with pytest.warns(UserWarning, match="was written with ppnmf .*not 99: the run goes on"):
        assert same(fit(tmp_path / "run"), fit())
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    with pytest.raises(ValueError, match="it has format 1, and this ppnmf reads 2"):
        fit(tmp_path / "run")


# --- a full disk ---


def short_of_room(where):
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        post = fit(where, every=SWEEPS - 1)  # one file of 30 kB
    assert any("no checkpoint could be written" in str(warning.message) for warning in told)
    assert post.n_draws == 12


def test_without_room_for_a_checkpoint_the_run_goes_on_and_the_last_one_stays(tmp_path):
    worker = started(short_of_room, tmp_path / "run")
    worker.join()
    assert worker.exitcode == 0
    assert sweep_of(tmp_path / "run") == 1 and not list((tmp_path / "run").glob("*.new"))
    assert same(fit(tmp_path / "run"), fit())


def test_a_disk_that_stays_full_is_one_warning(tmp_path, monkeypatch):
    write, writes = checkpoints.Checkpoint.write, itertools.count()

    def full(*args):
        if next(writes) > 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args)

    monkeypatch.setattr(checkpoints.Checkpoint, "write", full)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert same(fit(tmp_path / "run", every=1), fit())
    assert len(told) == 1 and next(writes) > 10
    assert "no checkpoint could be written" in str(told[0].message)


def test_without_room_at_the_beginning_no_run_is_begun(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="the disk is full .* at the beginning: free some space") as caught:
        fit(tmp_path / "run")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("failing", range(0, 40, 3))
def test_a_store_without_room_is_a_sentence_and_stays_readable(failing, tmp_path, monkeypatch, zarr):
    """Whichever write of a draw fails, those before are there, and the run goes on when there is room."""
    calls, write, store = iter(range(10_000)), stores._write, tmp_path / "draws.zarr"

    def full(*args):
        if next(calls) >= failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(stores, "_write", full)
        with pytest.raises(OSError, match="disk is full .* draw.s. of each chain, which stay readable") as caught:
            fit(tmp_path / "run", store=store, every=3)
    assert caught.value.errno == errno.ENOSPC
    whole, group = fit(), zarr.open_group(store, mode="r")
    done = int(str(caught.value).split("after ")[1].split()[0])
    for site, values in {
        **{f"posterior/{k}": v for k, v in whole.draws.items()},
        "sample_stats/lp": whole.stats["lp"],
    }.items():
        found = group[site][:]
        assert np.array_equal(found[:, :done], values[:, :done])
        there = ~np.isnan(found.reshape(*found.shape[:2], -1)).any(-1)
        assert np.array_equal(found[there], values.numpy()[there]) and there.sum() <= 2 * (done + SWEEPS)
    assert same(fit(tmp_path / "run"), whole)


# --- the store ---


def test_a_store_is_read_by_zarr_and_xarray(tmp_path, zarr):
    import xarray as xr

    whole, store = fit(store=tmp_path / "draws.zarr"), tmp_path / "draws.zarr"
    group = zarr.open_group(store, mode="r")
    assert np.array_equal(group["posterior/W"][1, 3], whole.draws["W"][1, 3])
    assert np.array_equal(group["sample_stats/lp"][:], whole.stats["lp"])
    with xr.open_datatree(store, engine="zarr", consolidated=False) as tree:
        assert tree["posterior"]["H"].dims == ("chain", "draw", "component", "column")
        assert np.array_equal(tree["posterior"]["H"].values, whole.draws["H"])


def test_a_posterior_with_a_store_is_as_usable_as_any(tmp_path, zarr):
    post, whole = fit(store=tmp_path / "draws.zarr"), fit()
    assert str(ppnmf.summary(post)) == str(ppnmf.summary(whole))
    torch.testing.assert_close(post.reconstruction(), whole.reconstruction(), rtol=0, atol=0)
    assert same(ppnmf.Posterior.load(post.save(tmp_path / "fit.nc")), whole)
    assert "posterior" in post.to_datatree()
    post.draws["W"].zero_()  # a change stays in memory
    assert same(fit_from(tmp_path / "draws.zarr"), whole)


def fit_from(store):
    kept = stores.Zarr(
        store,
        {"W": (30, 3), "H": (3, 20), "sigma2": (), "lp": ()},
        2,
        12,
        dict.fromkeys(["W", "H", "sigma2", "lp"], torch.float64),
        {site: list(dims) for site, dims in MODEL.sites(30, 20).items()},
        {k: v for k, v in stores._facts(store).items() if k != "draws"},
        again=True,
    )
    draws = kept.read(0, 12)
    kept.close()
    return ppnmf.Posterior(draws=draws, stats={"lp": draws.pop("lp")}, model=MODEL, X=None, method="gibbs", seed=4)


GROWTH = """
import sys
from pathlib import Path
import ppnmf
from ppnmf.models import ExponentialGaussian
from tests.scenarios import drawn

def anonymous_megabytes():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024

tall = drawn(300, 10, 4)[0].abs()
options = {"warmup": 0, "chains": 1, "progress": False}
folder = Path(sys.argv[1])
ppnmf.fit(ExponentialGaussian(4), tall, draws=10, store=folder / "first.zarr", **options)
before = anonymous_megabytes()
post = ppnmf.fit(ExponentialGaussian(4), tall, draws=2500, store=folder / "draws.zarr", **options)
assert post.draws["W"].numel() * 8 / 2**20 > 22
assert float(post.draws["W"][0, -1].sum()) > 0
print(anonymous_megabytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_with_a_store_memory_does_not_grow_with_the_draws(tmp_path, zarr):
    """In a process of its own: what tests before have freed, and the allocator kept, would be counted otherwise."""
    command = [sys.executable, "-c", GROWTH, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 8


def test_without_zarr_a_store_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ModuleNotFoundError, match="store= needs zarr: pip install"):
        fit(store=tmp_path / "draws.zarr")


def test_a_store_greater_than_the_disk_is_told_at_once(tmp_path, monkeypatch, zarr):
    monkeypatch.setattr(stores.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.warns(UserWarning, match="the draws need .* GB and the disk of"):
        fit(store=tmp_path / "draws.zarr")


# --- the command line ---


def test_the_command_line_begins_and_goes_on(tmp_path, monkeypatch, zarr):
    from typer.testing import CliRunner

    from ppnmf.cli import app

    monkeypatch.chdir(tmp_path)
    words = ["fit", "toy9x8x2", "--rank", "2", "--draws", "6", "--warmup", "4", "--no-progress"]
    long = [*words, "--checkpoint", "run", "--resume", "run", "--every", "3", "--store", "draws.zarr"]
    plain, first, again = (
        ["--no-page", "--out", "plain.nc"],
        [*long[len(words) :], "--out", "a.nc"],
        ["--no-page", "--resume", "run", "--out", "b.nc"],
    )
    for more in (plain, first, again):
        assert CliRunner().invoke(app, [*words, *more]).exit_code == 0
    plain, first, again = (ppnmf.Posterior.load(name) for name in ("plain.nc", "a.nc", "b.nc"))
    assert same(plain, first) and same(plain, again)
    refused = CliRunner().invoke(app, [*words, "--seed", "5", "--resume", "run"])
    assert refused.exit_code == 2 and "begun with --seed 0, and this run has 5" in refused.stderr


# --- the fingerprint ---


def test_a_fingerprint_does_not_hold_a_place_in_memory():
    assert checkpoints.fingerprint({"of": object()}) == checkpoints.fingerprint({"of": object()})
    assert checkpoints.fingerprint({"of": 1}) != checkpoints.fingerprint({"of": 2})


def test_a_fingerprint_tells_values_of_data_frames_apart():
    pandas = pytest.importorskip("pandas")
    told = [checkpoints.fingerprint({"H": pandas.DataFrame({"a": [1.0], "b": [second]})}) for second in (2.0, 3.0, 2.0)]
    assert told[0] == told[2] != told[1]


def test_a_fingerprint_tells_values_shapes_types_masks_and_noise_apart_and_not_blocks(monkeypatch):
    from ppnmf.data.matrix import as_matrix

    arrays = [X, X.T.contiguous(), X.reshape(20, 30), X.float(), X + 1e-12]
    matrices = [as_matrix(array) for array in arrays] + [as_matrix(X, MASK), as_matrix(X, ~MASK)]
    matrices += [as_matrix(X, noise=torch.full((20,), v, dtype=X.dtype)) for v in (2.0, 2.0 + 1e-12)] + [
        as_matrix(X, noise=1 + X)
    ]
    told = [checkpoints.fingerprint(matrix) for matrix in matrices]
    assert len(set(told)) == len(told)
    monkeypatch.setattr("ppnmf.fingerprints.AT_ONCE", 333)
    assert checkpoints.fingerprint(as_matrix(X)) == told[0]
    assert checkpoints.fingerprint(as_matrix(X.T.contiguous().T)) == told[0]


def sparse(change=0.0):
    values = torch.where(MASK, X, 0.0)
    values[3, 3] += change
    return scipy.sparse.csr_array(values.numpy())


def mapped(tmp_path, change=0.0):
    values = X.numpy().copy()
    values[29, 11] += change
    np.save(tmp_path / f"{change}.npy", values)
    return tmp_path / f"{change}.npy"


@pytest.mark.parametrize("missing", ["error", "unstored"])
def test_a_sparse_matrix_is_resumed_and_another_one_refused(missing, tmp_path, monkeypatch):
    cut(monkeypatch, 14, tmp_path / "run", X=sparse(), missing=missing)
    assert same(fit(tmp_path / "run", X=sparse(), missing=missing), fit(X=sparse(), missing=missing))
    with pytest.raises(ValueError, match="is of other data"):
        fit(tmp_path / "run", X=sparse(1e-9), missing=missing)
    with pytest.raises(ValueError, match="is of other data"):
        fit(tmp_path / "run", X=sparse(), missing="unstored" if missing == "error" else "error")


def test_a_matrix_on_disk_is_resumed_wherever_it_lies_and_another_one_refused(tmp_path, monkeypatch):
    cut(monkeypatch, 14, tmp_path / "run", X=mapped(tmp_path))
    moved = mapped(tmp_path).rename(tmp_path / "moved.npy")
    assert same(fit(tmp_path / "run", X=moved), fit(X=moved))
    with pytest.raises(ValueError, match="is of other data"):
        fit(tmp_path / "run", X=mapped(tmp_path, 1e-9))


# --- icm ---


def climb(where=None, **options):
    paths = {} if where is None else {"checkpoint": where, "resume": where}
    plan = {"method": "icm", "restarts": 4, "tol": 1e-6, "seed": 1, "progress": False}
    return ppnmf.fit(MODEL, X, **{**plan, **paths, **options})


@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
def test_icm_resumes_to_the_same_bits_wherever_it_is_cut(masked, tmp_path, monkeypatch):
    """In the first sweeps, when some restarts have left, when all but one have, and when it is over."""
    monkeypatch.setattr("ppnmf.gaussian.ascent.OPERATIONS_AT_ONCE", 4 * 600 * 3 * 4)  # four compiled sweeps of all
    options = {"mask": MASK if masked else None}
    whole = climb(**options)
    sweeps = sorted(whole.attrs["sweeps"])
    save = record.Recorder.save
    assert sweeps[0] < sweeps[-1]
    for at in (2, sweeps[0], sweeps[0] + 1, sweeps[-1], sweeps[-1] + 1):

        def stopping(self, state, at=at):
            save(self, state)
            if state.sweep >= at:
                raise Stop

        with monkeypatch.context() as patch:
            patch.setattr(record.Recorder, "save", stopping)
            with pytest.raises(Stop):
                climb(tmp_path / str(at), **options)
        found = climb(tmp_path / str(at), **options)
        assert same(found, whole) and found.attrs == whole.attrs


def test_icm_refuses_the_checkpoint_of_another_climb(tmp_path):
    climb(tmp_path / "run")
    with pytest.raises(ValueError, match="begun with tol=1e-06"):
        climb(tmp_path / "run", tol=1e-5)
    with pytest.raises(ValueError, match="begun with restarts=4"):
        climb(tmp_path / "run", restarts=5)
    with pytest.raises(ValueError, match="begun with method='icm'"):
        fit(tmp_path / "run")
