"""A posterior's file: whole, or the one before; damage is seen; other files are told apart."""

import json
import multiprocessing
import random
import resource
import signal
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse
import torch
import xarray as xr

import ppnmf
from ppnmf import saving
from ppnmf.data.labelled import Labelled, Names
from ppnmf.models import ExponentialGaussian
from tests.scenarios import drawn

X = drawn(8, 6, 2, rate=0.3)[0].abs()


@pytest.fixture(scope="module")
def post():
    return ppnmf.fit(ExponentialGaussian(2), X, draws=6, warmup=3, chains=2, progress=False)


@pytest.fixture
def path(post, tmp_path):
    return post.save(tmp_path / "fit.nc", rows=[f"gene {i}" for i in range(8)])


def change_facts(path, change):
    """Change the facts in a file, which takes its seal off."""
    with h5py.File(path, "r+") as file:
        facts = json.loads(file.attrs["ppnmf"])
        change(facts)
        file.attrs["ppnmf"] = json.dumps(facts)


def refusal(path):
    """The one sentence by which a file is refused."""
    with pytest.raises(ValueError, match=path.name) as caught:
        ppnmf.Posterior.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- whole or not at all ---


def save_in_less_and_less_room(path):
    post, before = ppnmf.Posterior.load(path), path.read_bytes()
    for room in range(0, len(before), len(before) // 15):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, -1))
        with pytest.raises(OSError, match="fit.nc cannot be written: the disk is full .* as it was"):
            post.save(path)
        assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    post.save(path)


def test_without_room_at_any_point_the_file_before_stays_and_no_other_is_left(path):
    """HDF5 ends the process where a write of its own fails."""
    processes = multiprocessing.get_context("forkserver")
    worker = processes.Process(target=save_in_less_and_less_room, args=(path,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0


def test_ctrl_c_while_saving_leaves_the_file_before(post, path, monkeypatch):
    """HDF5 ends the process where it is interrupted itself."""
    before, write = path.read_bytes(), saving._Patient.write
    for at in (1, 5, 20):
        calls = []

        def interrupted(self, data, at=at, calls=calls):
            calls.append(self)
            if len(calls) == at:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                until(lambda: self._failure is not None)
            return write(self, data)

        with monkeypatch.context() as patch:
            patch.setattr(saving._Patient, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                post.save(path)
        assert len(calls) > at and path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_ctrl_c_while_the_writing_thread_starts_leaves_no_writer_behind(post, path, monkeypatch):
    before, start = path.read_bytes(), threading.Thread.start
    threads, writers = [], []

    def interrupted(self):
        threads.append(self)
        start(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        patch.setattr(xr.DataTree, "to_netcdf", lambda *parts, **options: writers.append(parts))
        with pytest.raises(KeyboardInterrupt):
            post.save(path)
        for thread in threads:
            thread.join(20)
    assert threads and not writers and path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def until(true):
    end = time.monotonic() + 20
    while not true() and time.monotonic() < end:
        time.sleep(0.001)


# --- the seal ---


def test_a_saved_file_is_sealed_and_opens_with_others(path):
    assert path.read_bytes()[-saving.SEALED :].startswith(saving.SEAL)
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert list(tree["posterior"]["row"].values[:2]) == ["gene 0", "gene 1"]
    with xr.open_dataset(path, group="posterior", engine="h5netcdf") as group:
        assert group["W"].shape == (2, 6, 8, 2)
    with h5py.File(path) as file:
        assert file["posterior/H"].shape == (2, 6, 2, 6)


def test_a_single_changed_byte_is_seen_wherever_it_is(path):
    whole = path.read_bytes()
    places = random.Random(0).sample(range(len(whole) - saving.SEALED), 300)
    for at in [*places, len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert "is damaged: it does not hold the bytes that were saved" in refusal(path)


def test_a_file_that_is_cut_is_seen(path):
    whole = path.read_bytes()
    body = len(whole) - saving.SEALED
    for size in [0, 1, 8, 512, *range(1000, body, body // 8), body - 1]:
        path.write_bytes(whole[:size])
        assert "is cut off, damaged, or no posterior that ppnmf saved" in refusal(path)
    for size in (body, body + 1, len(whole) - 1):  # all of the content is there
        path.write_bytes(whole[:size])
        with pytest.warns(UserWarning, match="whether it is whole cannot be checked"):
            ppnmf.Posterior.load(path)


def test_a_file_that_another_program_wrote_to_is_read_with_a_warning(path, post):
    with h5py.File(path, "r+") as file:
        file["posterior"].attrs["note"] = "the second run"
    with pytest.warns(UserWarning, match="was changed or written anew by another program") as told:
        back = ppnmf.Posterior.load(path)
    assert torch.equal(back.draws["W"], post.draws["W"]) and Path(told[0].filename) == Path(__file__)


# --- other files ---


def test_a_file_of_version_0_1_0_is_read(path, post):
    """It has no seal, no format and no version."""
    change_facts(path, lambda facts: [facts.pop("format"), facts.pop("version")])
    back = ppnmf.Posterior.load(path)
    assert torch.equal(back.draws["H"], post.draws["H"]) and back.names["rows"][3] == "gene 3"
    change_facts(path, lambda facts: facts.pop("X"))  # as the first ones
    assert torch.equal(ppnmf.Posterior.load(path).X.values, X)


def test_a_later_format_and_an_unknown_model_are_told(path):
    change_facts(path, lambda facts: facts.update(format=3, version="9.9"))
    assert "has format 3, written by version 9.9 of ppnmf, and this one" in refusal(path)
    change_facts(path, lambda facts: facts.update(format=2, model="astrology"))
    assert "is of the model 'astrology', written by version 9.9 of ppnmf; this one" in refusal(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.pop("config"),
        lambda facts: facts.pop("seed"),
        lambda facts: facts["config"].update(rank="two"),
        lambda facts: facts["config"].update(flavour=1),
        lambda facts: facts.update(X={"kind": "dense"}, names=None, attrs=None) or facts.pop("timings"),
    ],
)
def test_facts_that_make_no_sense_are_a_sentence(path, change):
    change_facts(path, change)
    assert "is cut off, damaged, or no posterior" in refusal(path)


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array])
def test_names_that_x_holds_come_back(kind, tmp_path):
    X = Labelled.of(kind(np.eye(4) + 1.0), list("abcd"), None)
    post = ppnmf.fit("exponential_gaussian", X, rank=1, method="icm", restarts=1, progress=False)
    loaded = ppnmf.Posterior.load(post.save(tmp_path / "x.nc"))
    assert loaded.X.names == post.X.names == Names(tuple("abcd"), None)


def test_files_of_other_programs_are_told(tmp_path):
    other = tmp_path / "other.nc"
    other.write_bytes(b"CDF\x01" + bytes(400))  # the older kind of NetCDF
    assert "or no posterior that ppnmf saved" in refusal(other)
    xr.Dataset({"a": ("n", np.ones(3))}).to_netcdf(other, engine="h5netcdf")
    assert "holds no ppnmf posterior" in refusal(other)
    with h5py.File(other, "w") as file:
        file.attrs["ppnmf"] = "3"
    assert "or no posterior that ppnmf saved" in refusal(other)
    with pytest.raises(IsADirectoryError):
        ppnmf.Posterior.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        ppnmf.Posterior.load(tmp_path / "none.nc")
