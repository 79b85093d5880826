"""Rows of X spread over processes: two draw what one draws, and agree with each other to the bit."""

import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from arviz_stats.base import array_stats

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.data.sharded import shard
from ppnmf.inference import gibbs
from ppnmf.kernels import cpu, split
from ppnmf.models import ExponentialGaussian
from ppnmf.rng import Stream
from tests.inference import ranks

ROOT = Path(__file__).parents[2]
TOLERANCE = {"gibbs in single precision": 1e-3, "svi": 1e-6, "svi with a mask": 1e-6}


def launched(script: Path, *arguments: str, processes: int = 2, seconds: float = 240) -> list[str]:
    """What processes said that were started as torchrun starts them (which itself would take seconds more)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, script, *arguments],
            cwd=ROOT,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        said = [process.communicate(timeout=seconds)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), "\n".join(said)
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the ranks find X on disk and leave what they have found."""
    folder = tmp_path_factory.mktemp("ranks")
    np.save(folder / ranks.ON_DISK, ranks.data().numpy())
    return folder


@pytest.fixture(scope="module")
def told(folder):
    """What each of two ranks found, from one launch."""
    launched(Path(ranks.__file__), str(folder))
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize("name", ranks.RUNS)
def test_two_processes_draw_what_one_draws(told, folder, name):
    one, two = ranks.fitted(name, folder), [theirs[name] for theirs in told]
    rounding = {"rtol": TOLERANCE.get(name, 1e-9), "atol": TOLERANCE.get(name, 1e-9)}
    torch.testing.assert_close(torch.cat([theirs["W"] for theirs in two], 2), one["W"], **rounding)
    for site in ("H", "sigma2", "lp"):
        torch.testing.assert_close(two[0][site], one[site], **rounding)


@pytest.mark.parametrize("name", [*ranks.RUNS, *ranks.APART])
def test_every_rank_has_the_same_bits_of_what_all_share(told, name):
    for site in ("H", "sigma2", "lp"):
        assert torch.equal(told[0][name][site], told[1][name][site])


def test_a_long_run_of_two_processes_has_the_distribution_of_another_in_one(told):
    one = ppnmf.fit(ranks.PLAIN, ranks.data(), draws=600, warmup=100, chains=2, seed=8, progress=False)
    settled = {name: told[0]["gibbs for long"][name][:, 30:] for name in ("sigma2", "lp")}
    for name, alone in (("sigma2", one.draws["sigma2"]), ("lp", one.stats["lp"])):
        errors = [
            float(array_stats.mcse(values.numpy(), chain_axis=0, draw_axis=1)) for values in (alone, settled[name])
        ]
        assert float((alone.mean() - settled[name].mean()).abs()) < 4 * math.hypot(*errors)


def test_a_rank_holds_its_own_rows_and_says_which(told):
    for rank, (theirs, size) in enumerate(zip(told, (7, 4), strict=True)):
        attrs = theirs["gibbs"]["attrs"]
        assert attrs["rank"] == rank and attrs["ranks"] == 2 and attrs["shape"] == [ranks.ROWS, ranks.COLUMNS]
        assert attrs["rows"] == list(ranks.CUTS[rank : rank + 2])
        for name in (*ranks.RUNS, *ranks.APART):
            assert theirs[name]["W"].shape[2] == size and theirs[name]["H"].shape[3] == ranks.COLUMNS
    whole = ranks.rates_of_entries().rate_W
    cut = [theirs["gibbs with a rate per entry"]["model"]["rate_W"] for theirs in told]
    assert torch.equal(torch.cat(cut), whole) and len(cut[0]) == 7


def test_ranks_choose_the_same_starts_of_a_survey(told):
    found = [theirs["gibbs after a survey"]["attrs"]["survey"] for theirs in told]
    assert found[0] == found[1] and len(found[0]["reached"]) == 4 and found[0]["sweeps"][found[0]["chosen"][0]] > 0


def test_a_run_repeats_to_the_bit(told):
    for theirs in told:
        assert all(torch.equal(theirs["gibbs"][site], theirs["again"][site]) for site in ("W", "H", "sigma2", "lp"))


def test_numbers_about_x_are_those_of_the_whole(told):
    whole = as_matrix(ranks.data())
    for theirs in told:
        shape, n, squares, mean, variance, log_noise, rows = theirs["numbers"]
        assert shape == whole.shape and n == whole.n_observed and log_noise == 0.0
        assert np.allclose(
            [squares, mean, variance], [whole.sum_of_squares, whole.mean(), whole.variance()], rtol=1e-13
        )
    assert rows == range(7, 11)
    noisy = as_matrix(ranks.data(), noise=ranks.noise())
    for theirs in told:
        wanted = [noisy.sum_of_squares, noisy.mean(), noisy.variance(), noisy.log_noise]
        assert theirs["noisy"] == pytest.approx(wanted, rel=1e-12)
    config = ExponentialGaussian.scaled_to(ranks.data(), ranks.RANK).config()
    assert told[0]["scaled_to"] == told[1]["scaled_to"] == pytest.approx(config, rel=1e-12)


def test_a_sum_in_pieces_is_the_sum_and_the_same_everywhere(told):
    wanted = sum(torch.from_numpy(np.random.default_rng(rank).random((7, 3))) for rank in (0, 1))
    assert torch.equal(told[0]["sum in pieces"], wanted) and torch.equal(told[1]["sum in pieces"], wanted)


@pytest.mark.parametrize("mistake", ["local row numbers", "no minimum"])
def test_the_comparison_catches(told, folder, mistake):
    one = ranks.fitted("gibbs", folder)
    wrong = torch.cat([theirs[mistake]["W"] for theirs in told], 2)
    assert float((wrong - one["W"]).abs().max()) > 0.01


def test_what_cannot_be_shared_is_refused_on_every_rank(told):
    assert told[0]["refusals"] == told[1]["refusals"]
    said = told[0]["refusals"]
    assert said["columns"].startswith(
        "ValueError: the ranks' rows of X differ in their columns: 6 at rank 0, 5 at rank 1"
    )
    assert (
        "X differ in their names: 'gene 0' at rank 0 and 'gene 1' at rank 1; give all ranks the same" in said["names"]
    )
    assert "differ in their dtype: torch.float32 at rank 0, torch.float64 at rank 1" in said["dtype"]
    assert said["one rank's rows"].startswith("ValueError: rank 1 cannot take its rows of X: X has 1 NaN")
    assert said["nuts"].startswith("TypeError: nuts needs all rows of X in one process")
    assert said["evidence"].startswith("the rows of X are spread over processes, and this needs all of them in one")
    assert said["nndsvd"].startswith("TypeError: the rows of X are spread over processes")


def test_ctrl_c_at_one_rank_ends_all_after_the_same_sweep(told):
    first, second = (theirs["interrupted"] for theirs in told)
    assert first["attrs"]["interrupted"] and second["attrs"]["interrupted"]
    assert first["draws"] == second["draws"] >= 1
    assert first["handler"] == second["handler"] == "default_int_handler"


def test_a_rank_that_dies_ends_the_others_with_a_sentence(told):
    assert told[0]["death"].startswith("rank 0 of 2 lost the others: one has ended or cannot be reached")


def test_a_shard_of_one_process_is_the_matrix_itself():
    X, options = ranks.data(), {"draws": 3, "warmup": 0, "chains": 2, "progress": False}
    alone = ppnmf.fit(ranks.PLAIN, shard(X), **options)
    whole = ppnmf.fit(ranks.PLAIN, X, **options)
    for site in ("W", "H", "sigma2"):
        torch.testing.assert_close(alone.draws[site], whole.draws[site], rtol=1e-9, atol=1e-9)
    assert isinstance(alone.X, type(whole.X)) and float(alone.squared_error()) > 0


def test_a_shard_has_the_names_of_its_rows_and_columns():
    X = pd.DataFrame(ranks.data().numpy()).add_prefix("gene ")
    X.index = [f"cell {i}" for i in range(len(X))]
    post = ppnmf.fit(ranks.PLAIN, shard(X), draws=1, warmup=0, chains=1, progress=False)
    assert post.names == {"rows": list(X.index), "columns": list(X.columns)}
    assert shard(X).excerpt(5).names.columns == tuple(X.columns)


def test_several_processes_without_a_group_are_told_to_make_one(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match=r"call torch.distributed.init_process_group\(\) first"):
        shard(ranks.data())


@pytest.mark.parametrize("kernel", ["", "reference"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_moves_of_a_split_w_are_those_of_a_whole_one(monkeypatch, kernel, dtype):
    monkeypatch.setenv("PPNMF_KERNEL", kernel)
    g = torch.Generator().manual_seed(0)
    N, D, K, C = 11, 6, 5, 3
    W, H = (torch.rand(C, *shape, generator=g, dtype=dtype) for shape in ((N, K), (K, D)))
    rates = tuple(torch.rand(*shape, generator=g, dtype=torch.float64) for shape in ((N, K), (K, D)))
    stream = Stream.of(3, C)
    wanted = cpu.shear_move(*cpu.scale_move(W, H, rates, stream, 5), rates, stream, 6)
    alone = lambda part: part[None]
    moved = split.shear_move(*split.scale_move(W, H, rates, stream, 5, alone, N), rates, stream, 6, alone)
    for got, want in zip(moved, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)


def test_a_row_of_x_is_the_same_row_in_any_share():
    """The share's sweep of W alone, from a row in the middle of a block on."""
    X, stream = as_matrix(ranks.data()), Stream.of(1, 2)
    state = gibbs.init(ranks.PLAIN, X, stream)
    W, H, weight = state.params["W"], state.params["H"], 1 / state.params["sigma2"]
    natural = ranks.PLAIN.prior("W").natural("cpu")
    whole, _ = split.rows_of_W(X.values, 3, W, H, weight, natural, (stream, 1), 0, 0, 1)
    part, told = split.rows_of_W(X.values[4:], 3, W[:, 4:], H, weight, natural, (stream, 1), 4, 0, 1)
    torch.testing.assert_close(part, whole[:, 4:], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(told.P, (part.mT @ X.values[4:]).mT)
    torch.testing.assert_close(told.Q, part.mT @ part)


@pytest.mark.slow
def test_torchrun_runs_the_example(tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        ROOT / "examples" / "distributed_gibbs.py",
    ]
    done = subprocess.run([*command, "--quick"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in done.stdout
