import numpy as np
import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.inference import icm
from ppnmf.inference.gibbs import State
from ppnmf.inference.start import start
from ppnmf.models import ExponentialGaussian
from ppnmf.rng import Stream
from tests.scenarios import drawn, per_entry_model

X = drawn(30, 20, 3, rate=0.3, noise=0.5)[0].abs()


@pytest.mark.parametrize("mask", [None, (torch.arange(600) % 7 != 0).reshape(30, 20)], ids=["full", "masked"])
@pytest.mark.parametrize(
    "model", [ExponentialGaussian(4, 2.0, 0.3), per_entry_model(30, 20, 4), ExponentialGaussian(3, 0.0, 0.0)]
)
def test_icm_never_lowers_the_log_joint(model, mask):
    data = as_matrix(X, mask)
    state = State(start(model, data, Stream.of(0, 2)), 1)
    before = torch.full((2,), -torch.inf, dtype=torch.float64)
    for _ in range(200):
        state, info = icm.step(model, state, data)
        assert bool((info.lp >= before - 1e-9 * info.lp.abs()).all())
        before = info.lp


def test_the_mode_is_a_mode():
    """No small change of one entry, of the noise or of a scale raises the log joint."""
    model = per_entry_model(30, 20, 3)
    mode = ppnmf.fit(model, X, method="icm", tol=1e-13, max_sweeps=50_000, seed=1)
    params = {site: values[:, 0] for site, values in mode.draws.items()}

    def lp(changed):
        misfit = (X - changed["W"] @ changed["H"]).square().sum((-2, -1))
        return float((model.log_likelihood(misfit, changed["sigma2"], X.numel()) + model.log_prior(changed))[0])

    best = lp(params)
    assert best == pytest.approx(float(mode.stats["lp"][0, 0]), rel=1e-12)
    generator = torch.Generator().manual_seed(0)
    for site in ("W", "H", "sigma2"):
        for _ in range(60):
            changed = {name: values.clone() for name, values in params.items()}
            flat = changed[site].reshape(-1)
            at = int(torch.randint(len(flat), (1,), generator=generator))
            flat[at] = (flat[at] + 1e-3 * (2 * torch.rand((), generator=generator) - 1)).clamp(min=0)
            assert lp(changed) <= best + 1e-7


def test_each_restart_is_a_chain_of_one_draw_and_stands_alone():
    three = ppnmf.fit(ExponentialGaussian(3), X, method="icm", restarts=3, tol=1e-6, seed=2)
    one = ppnmf.fit(ExponentialGaussian(3), X, method="icm", restarts=1, tol=1e-6, seed=2)
    assert three.draws["W"].shape == (3, 1, 30, 3) and three.stats["lp"].shape == (3, 1)
    assert torch.equal(three.draws["W"][0], one.draws["W"][0])
    assert three.attrs["converged"] == [True] * 3 and three.attrs["dead_components"] == [0] * 3
    assert float(three.best().stats["lp"]) == float(three.stats["lp"].max())


@pytest.mark.parametrize("rate", [1e-6, 0.3, 1.0])
def test_no_component_dies_on_the_way_from_a_scaled_start(rate):
    """Without the sweeps of ordinary NMF before, a rate of 1 kills components in nearly every restart here."""
    mode = ppnmf.fit(ExponentialGaussian(3, rate, rate), X, method="icm", restarts=20, tol=1e-5, seed=0)
    assert mode.attrs["dead_components"] == [0] * 20


def test_dead_components_are_reported():
    with pytest.warns(UserWarning, match=r"component\(s\) died"):
        mode = ppnmf.fit(ExponentialGaussian(3, 1e4, 1e4), X, method="icm", seed=0)
    assert mode.attrs["dead_components"][0] > 0


def test_a_restart_that_has_not_converged_is_a_warning():
    with pytest.warns(UserWarning, match="1 of 1 restart"):
        mode = ppnmf.fit(ExponentialGaussian(3), X, method="icm", max_sweeps=3, tol=1e-12)
    assert mode.attrs["converged"] == [False] and mode.attrs["sweeps"] == [3]


def test_flat_rates_say_that_the_log_joint_lacks_a_constant():
    assert ppnmf.fit(ExponentialGaussian(2, 0.0, 0.0), X, method="icm").attrs["lp_without_prior_constant"]
    assert not ppnmf.fit(ExponentialGaussian(2), X, method="icm").attrs["lp_without_prior_constant"]


def test_ctrl_c_keeps_the_modes_so_far(monkeypatch):
    calls, step = [], icm.step

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(icm, "step", interrupted)
    mode = ppnmf.fit(ExponentialGaussian(3), X, method="icm", restarts=5, tol=0.0, max_sweeps=20)
    assert mode.attrs["interrupted"] and mode.chains == 2 and mode.attrs["sweeps"] == [20, 9]


def test_leukaemia_reaches_the_published_error_at_three_ranks(real_data):
    """Each sample divided by its maximum; ordinary NMF's optimum, found from every start (design's published figures)."""
    V = real_data("leukemia/all_aml.npz")["V"].astype(np.float64)
    V = V / V.max(0)
    for rank, wanted, floor in ((2, 131.35, 130.89), (3, 103.27, 102.65), (4, 90.56, 89.16)):
        mode = ppnmf.fit(ExponentialGaussian(rank, 1e-9, 1e-9), V, method="icm", tol=1e-8, max_sweeps=5000)
        error = mode.squared_error()
        assert floor < error and float(f"{error:.5g}") == pytest.approx(wanted, abs=0.0051), (rank, error)
        assert mode.attrs["dead_components"] == [0] and mode.attrs["converged"] == [True]


def test_each_restart_takes_its_own_start():
    model = ExponentialGaussian(3, 0.3, 0.3)
    chains = ppnmf.fit(model, X, draws=5, warmup=5, chains=3)
    from_chains = ppnmf.fit(model, X, method="icm", restarts=3, init=chains, max_sweeps=3, tol=1.0)
    assert len(from_chains.stats["lp"].unique()) == 3
    last = {site: chains.draws[site][:, -1] for site in ("W", "H")}
    by_hand = ppnmf.fit(
        model, X, method="icm", restarts=1, init={s: v[2] for s, v in last.items()}, max_sweeps=3, tol=1.0
    )
    from_dict = ppnmf.fit(model, X, method="icm", restarts=3, init=last, max_sweeps=3, tol=1.0)
    assert torch.equal(from_dict.draws["W"][2], by_hand.draws["W"][0])
