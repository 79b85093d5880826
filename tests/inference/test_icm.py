import warnings

import numpy as np
import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.gaussian import ascent
from ppnmf.gaussian.noise import log_likelihood
from ppnmf.gaussian.sweep import passes, sweep_factors
from ppnmf.inference import icm
from ppnmf.inference.gibbs import State, log_joint
from ppnmf.inference.start import start
from ppnmf.models import ExponentialGaussian
from ppnmf.rng import Stream
from tests.scenarios import drawn, per_entry_model

X = drawn(30, 20, 3, rate=0.3, noise=0.5)[0].abs()


HIDDEN = (torch.arange(600) % 7 != 0).reshape(30, 20)
MODELS = [ExponentialGaussian(4, 2.0, 0.3), per_entry_model(30, 20, 4), ExponentialGaussian(3, 0.0, 0.0)]


@pytest.mark.parametrize("mask", [None, HIDDEN], ids=["full", "masked"])
@pytest.mark.parametrize("model", MODELS)
def test_icm_never_lowers_the_log_joint(model, mask):
    data = as_matrix(X, mask)
    state = State(start(model, data, Stream.of(0, 2)), 1)
    before = torch.full((2,), -torch.inf, dtype=torch.float64)
    for _ in range(200):
        state, info = icm.step(model, state, data)
        assert bool((info.lp >= before - 1e-9 * info.lp.abs()).all())
        before = info.lp


@pytest.mark.parametrize("mask", [None, HIDDEN], ids=["full", "masked"])
@pytest.mark.parametrize("model", MODELS)
def test_a_sweep_begun_ahead_never_lowers_the_log_joint(model, mask, monkeypatch):
    """Some of them would, and are taken back: then there is a second step, from where the climb stood."""
    data, steps, step = as_matrix(X, mask), [], icm.step
    monkeypatch.setattr(
        icm, "step", lambda model, state, X: steps.append(len(state.params["W"])) or step(model, state, X)
    )
    climb = icm.Climb.at(icm.begin(model, data, Stream.of(0, 2), "scaled", range(2)))
    for _ in range(200):
        before, (climb, info) = climb.lp, icm.advance(model, climb, data)
        assert bool((info.lp >= before - 1e-10 * info.lp.abs()).all())
    assert 200 * 2 < sum(steps) < 300 * 2


@pytest.mark.parametrize("model", MODELS)
def test_compiled_climbs_never_lower_the_log_joint_and_go_the_way_of_single_sweeps(model, monkeypatch):
    data = as_matrix(X)
    alone = together = icm.Climb.at(icm.begin(model, data, Stream.of(0, 2), "scaled", range(2)))
    monkeypatch.setattr(ascent, "OPERATIONS_AT_ONCE", 0.0)  # one compiled sweep a call
    for _ in range(60):
        before = together.lp
        together, done, _ = icm.several(model, together, data, 0.0, 100)
        alone, _ = icm.advance(model, alone, data)
        assert done == [1, 1] and bool((together.lp >= before - 1e-10 * together.lp.abs()).all())
        for ours, theirs in ((together.lp, alone.lp), (together.reach, alone.reach), (together.bound, alone.bound)):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
        for site in ("W", "H", "sigma2"):
            torch.testing.assert_close(together.state.params[site], alone.state.params[site], rtol=1e-6, atol=1e-8)
    monkeypatch.undo()
    begun = icm.Climb.at(icm.begin(model, data, Stream.of(0, 2), "scaled", range(2)))
    at_once, done, near = icm.several(model, begun, data, 0.0, 60)
    assert done == [60, 60] and near == [False, False] and at_once.state.sweep == 61
    torch.testing.assert_close(at_once.lp, together.lp, rtol=1e-12, atol=0)


@pytest.mark.parametrize("mask", [None, HIDDEN], ids=["compiled", "step by step"])
@pytest.mark.parametrize("model", MODELS)
def test_a_climb_ends_where_the_gradient_says(model, mask):
    """The derivative of the log joint is zero by an entry that is positive, and not above zero by one that is zero."""
    mode = ppnmf.fit(model, X, method="icm", mask=mask, tol=1e-15, max_sweeps=50_000, seed=3)
    params = {site: mode.draws[site][0, 0].clone().requires_grad_() for site in ("W", "H")}
    residual = (X - params["W"] @ params["H"]) * (1 if mask is None else mask)
    noise = {"sigma2": mode.draws["sigma2"][0, 0]}
    lp = log_likelihood(residual.square().sum(), noise["sigma2"], int(mode.X.n_observed))
    (lp + model.log_prior(params | noise)).backward()
    products = {"W": X @ params["H"].detach().mT, "H": params["W"].detach().mT @ X}
    for site, values in params.items():
        small = 1e-6 * float(products[site].max() / noise["sigma2"])  # beside the terms that balance
        assert float((values.grad.abs() * (values > 0)).max()) < small, site
        assert float((values.grad * (values == 0)).max()) < small, site


@pytest.mark.parametrize("shape", [(30, 20), (700, 500)], ids=["compiled", "blocks"])
def test_the_mode_does_not_depend_on_threads(shape):
    data, threads = drawn(*shape, 4, rate=0.3, noise=0.5)[0].abs(), torch.get_num_threads()

    def fitted():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it need not converge
            return ppnmf.fit(ExponentialGaussian(4, 0.3, 0.3), data, method="icm", restarts=3, max_sweeps=40, seed=1)

    try:
        torch.set_num_threads(1)
        alone = fitted()
        torch.set_num_threads(2)
        together = fitted()
    finally:
        torch.set_num_threads(threads)
    assert alone.attrs["sweeps"] == together.attrs["sweeps"]
    for site in ("W", "H", "sigma2"):
        assert torch.equal(alone.draws[site], together.draws[site])


def test_passes_are_more_where_products_are_dearer_and_never_none():
    assert passes((38, 5000), 3) == (8, 3)
    assert passes((2429, 361), 49) == (2, 8)
    assert passes((10, 10), 20) == (1, 1)


def test_convergence_is_judged_by_an_ordinary_sweep(real_data):
    """What is left at the stop is no more than that of a climb without passes, or with sweeps begun ahead, at theirs."""
    V = real_data("leukemia/all_aml.npz")["V"].astype(np.float64)
    data, model = as_matrix(V / V.max(0)), ExponentialGaussian(3, 1e-9, 1e-9)
    state, lp, before = icm.begin(model, data, Stream.of(0), "scaled", [0]), torch.zeros(1), torch.ones(1)
    while abs(float(lp - before)) > 1e-6 * abs(float(lp)):
        before = lp
        W, H, misfit = sweep_factors(model.prior, state.params, data, None)
        state = State({"W": W, "H": H, "sigma2": model.noise.mode(misfit, data.n_observed)}, state.sweep + 1)
        lp = log_joint(model, data, state.params)
    mode = ppnmf.fit(model, data, method="icm", tol=1e-6)
    assert float(mode.stats["lp"]) >= float(lp) * (1 - 1e-6)
    assert mode.attrs["sweeps"][0] < state.sweep


def test_the_mode_is_a_mode():
    """No small change of one entry, of the noise or of a scale raises the log joint."""
    model = per_entry_model(30, 20, 3)
    mode = ppnmf.fit(model, X, method="icm", tol=1e-13, max_sweeps=50_000, seed=1)
    params = {site: values[:, 0] for site, values in mode.draws.items()}

    def lp(changed):
        misfit = (X - changed["W"] @ changed["H"]).square().sum((-2, -1))
        return float((log_likelihood(misfit, changed["sigma2"], X.numel()) + model.log_prior(changed))[0])

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


@pytest.mark.parametrize("mask", [None, HIDDEN], ids=["compiled", "step by step"])
def test_ctrl_c_leaves_every_restart_where_it_stands(mask, monkeypatch):
    calls, several = [], icm.several

    def interrupted(model, climb, X, tol, most):
        calls.append(climb.state.sweep)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return several(model, climb, X, tol, min(most, 1))

    monkeypatch.setattr(icm, "several", interrupted)
    mode = ppnmf.fit(ExponentialGaussian(3), X, mask=mask, method="icm", restarts=5, tol=0.0, max_sweeps=20)
    assert mode.attrs["interrupted"] and mode.chains == 5 and mode.attrs["sweeps"] == [9] * 5
    assert bool(mode.stats["lp"].isfinite().all()) and mode.attrs["converged"] == [False] * 5


def test_ctrl_c_before_the_first_sweep_is_passed_on(monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(icm, "several", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ppnmf.fit(ExponentialGaussian(3), X, method="icm")


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


@pytest.mark.parametrize(
    "kind", [ExponentialGaussian, ppnmf.models.HalfNormalGaussian, ppnmf.models.TruncatedNormalGaussian]
)
def test_whole_climbs_go_where_sweeps_one_by_one_go(kind, monkeypatch):
    """Compiled whole, and by the plain kernels: scales in balance under priors of either kind."""
    X = drawn(12, 9, 2)[0].abs()
    options = {"method": "icm", "restarts": 2, "max_sweeps": 15, "tol": 0.0, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = ppnmf.fit(kind(2), X, **options)
        monkeypatch.setenv("PPNMF_KERNEL", "reference")
        plain = ppnmf.fit(kind(2), X, **options)
    torch.testing.assert_close(whole.stats["lp"], plain.stats["lp"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(whole.draws["W"], plain.draws["W"], rtol=1e-4, atol=1e-6)
