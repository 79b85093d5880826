"""Sweeps compiled whole, against the sweep that any matrix takes with the reference kernels."""

import importlib
from dataclasses import replace

import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.data.toy import draw
from ppnmf.diagnostics.calibration import SideBySide
from ppnmf.gaussian.sweep import compiled, sweep_factors
from ppnmf.inference import gibbs, length
from ppnmf.models import ExponentialGaussian
from ppnmf.protocols import Held
from ppnmf.rng import Stream

SHAPES = {"tall": (23, 9, 4), "wide": (7, 31, 3), "one component": (6, 5, 1)}
STREAM = Stream.of(3, 3)


def problem(shape, dtype=torch.float64, per_entry=False, missing=0.0):
    N, D, K = SHAPES[shape]
    X, W, H = draw(N, D, K, seed=1)
    if missing:
        X = torch.where(torch.rand(N, D, generator=torch.Generator().manual_seed(1)) < missing, torch.nan, X)
    rates = {"rate_W": 0.5 + W / W.max(), "rate_H": 0.5 + H / H.max()} if per_entry else {"rate_W": 2.0, "rate_H": 0.5}
    return as_matrix(X.abs().to(dtype), missing="nan"), ExponentialGaussian(K, **rates)


def steps(model, X, n=3, begin="scaled", **options):
    state = gibbs.init(model, X, STREAM, begin)
    for _ in range(n):
        state, info = gibbs.step(model, state, X, STREAM, **options)
    return {**state.params, "lp": info.lp}


def both(monkeypatch, function):
    """What the function gives with sweeps compiled whole, and with the reference kernels."""
    fast = function()
    monkeypatch.setenv("PPNMF_KERNEL", "reference")
    return fast, function()


def count_calls(monkeypatch, name):
    """What a function is called with, from now on."""
    module, own = name.rsplit(".", 1)
    function = getattr(importlib.import_module(module), own)
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return function(*arguments)

    monkeypatch.setattr(name, counted)
    return calls


def assert_close(fast, slow, **tolerance):
    for name in slow:
        torch.testing.assert_close(fast[name], slow[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_entry", [False, True], ids=["a rate for all", "a rate an entry"])
@pytest.mark.parametrize(
    ("block", "small"), [(None, 10**6), (9, 10**6), (9, 0)], ids=["one block", "many blocks", "a lot of blocks at once"]
)
def test_the_draws_are_the_reference_ones(monkeypatch, shape, per_entry, block, small):
    monkeypatch.setattr("ppnmf.kernels.cpu.room.SMALL", small)
    if block:
        monkeypatch.setattr("ppnmf.data.dense.BLOCK_ENTRIES", block)
    X, model = problem(shape, per_entry=per_entry)
    assert compiled(model.prior, X) is not None
    fast, slow = both(monkeypatch, lambda: steps(model, X))
    assert_close(fast, slow, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"power": 0.3},
        {"moves": False},
        {"moves": False, "held": Held(1, 2)},
        {"held": Held(2, 0)},
        {"held": Held(others=True)},
        {"fresh": 2},
    ],
    ids=["tempered", "no moves", "components pinned", "moves among the free ones", "noise held", "reflected"],
)
@pytest.mark.parametrize("missing", [0.0, 0.2, 0.6])
def test_every_kind_of_step_is_the_reference_one(monkeypatch, options, missing):
    X, model = problem("tall", missing=missing)
    fast, slow = both(monkeypatch, lambda: steps(model, X, **options))
    assert_close(fast, slow, rtol=1e-7, atol=1e-10)


def test_single_precision_agrees_to_its_rounding(monkeypatch):
    X, model = problem("tall", torch.float32)
    fast, slow = both(monkeypatch, lambda: steps(model, X, n=1, moves=False))
    assert fast["W"].dtype == fast["sigma2"].dtype == torch.float32
    assert_close(fast, slow, rtol=5e-3, atol=1e-4)


def test_missing_entries_are_worked_on_in_one_piece(monkeypatch):
    """Both ways lead to the reference's draws; which is taken depends on the size of X alone."""
    X, model = problem("wide", per_entry=True, missing=0.2)
    sweeps = count_calls(monkeypatch, "ppnmf.kernels.dense.sweep_masked_chains")
    whole = steps(model, X)
    assert sweeps
    monkeypatch.setattr("ppnmf.gaussian.sweep.MASKED_WHOLE", 0)
    done = len(sweeps)
    assert_close(whole, steps(model, X), rtol=1e-9, atol=1e-12)
    assert len(sweeps) == done


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("passes", [(1, 1), (3, 2)])
def test_modes_are_the_reference_ones(monkeypatch, passes, missing):
    X, model = problem("wide", missing=missing)
    start = gibbs.init(model, X, STREAM).params
    fast, slow = both(monkeypatch, lambda: sweep_factors(model.prior, start, X, None, passes=passes)._asdict())
    assert_close(fast, slow, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("hidden", [0, 1])
def test_a_misfit_that_subtraction_would_lose_is_summed_directly(monkeypatch, hidden):
    X, W, H = draw(30, 20, 2)
    values = W @ H + 1e-9 * X
    values[:, 3][:hidden] = torch.nan
    exact = as_matrix(values, missing="nan")
    start = {"W": W[None], "H": H[None], "sigma2": torch.full((1,), 1e-30, dtype=W.dtype)}
    model = ExponentialGaussian(2, 1e-9, 1e-9)
    fast, slow = both(monkeypatch, lambda: sweep_factors(model.prior, start, exact, None)._asdict())
    assert 0 < float(slow["misfit"]) < 1e-12
    torch.testing.assert_close(fast["misfit"], slow["misfit"], rtol=1e-6, atol=0)


def test_the_start_is_left_as_it_was():
    X, model = problem("tall")
    state = gibbs.init(model, X, STREAM)
    before = {site: values.clone() for site, values in state.params.items()}
    gibbs.step(model, state, X, STREAM)
    assert all(torch.equal(state.params[site], before[site]) for site in before)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_each_chain_may_have_a_matrix_of_its_own(monkeypatch, missing):
    """So the calibration tests, which lay many data sets side by side, judge these sweeps."""
    X, model = problem("tall", missing=missing)
    sweeps = count_calls(monkeypatch, f"ppnmf.kernels.dense.sweep_{'masked_' if missing else ''}chains")
    others = SideBySide((X, replace(X, values=2 * X.values), replace(X, values=X.values.square())))
    together = steps(model, others, begin="prior")
    for c, own in enumerate(others.each):
        state, stream = gibbs.init(model, others, STREAM, "prior"), Stream(STREAM.keys[c : c + 1])
        state = gibbs.State({site: values[c : c + 1] for site, values in state.params.items()}, 1)
        for _ in range(3):
            state, _ = gibbs.step(model, state, own, stream)
        assert torch.equal(state.params["W"][0], together["W"][c])
    assert sweeps


@pytest.mark.parametrize(
    ("chains", "small", "missing"),
    [(1, 10**6, 0), (3, 10**6, 0), (1, 0, 0), (3, 10**6, 9)],
    ids=["a chain", "three", "a lot of blocks at once", "three with missing entries"],
)
def test_bits_do_not_depend_on_threads_or_on_how_many_sweeps_go_together(monkeypatch, chains, small, missing):
    monkeypatch.setattr("ppnmf.kernels.cpu.room.SMALL", small)
    monkeypatch.setattr("ppnmf.threads.WORTH_A_THREAD", 0)
    monkeypatch.setattr("ppnmf.data.dense.BLOCK_ENTRIES", 200)
    monkeypatch.setattr("ppnmf.kernels.dense.BAND", 16)
    X = draw(120, 50, 4)[0].abs()
    X[:missing] = torch.where(X[:missing] > X.mean(), torch.nan, X[:missing])
    found = []
    before = torch.get_num_threads()
    try:
        for threads, at_once in ((1, 7), (2, 7), (3, 1)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(length, "sweeps_at_once", lambda *shape, n=at_once: n)
            options = {"draws": 6, "warmup": 5, "thin": 2, "missing": "nan", "progress": False}
            found.append(ppnmf.fit(ExponentialGaussian(4), X, chains=chains, **options))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(other.draws[site], found[0].draws[site]) for site in found[0].draws)
        assert torch.equal(other.stats["lp"], found[0].stats["lp"])
