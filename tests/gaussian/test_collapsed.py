"""Shears with a row of one factor integrated out: the density, both builds, invariance, and where they pay."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke
from ppnmf.gaussian import collapsed
from ppnmf.gaussian.collapsed import Side, reference
from ppnmf.inference import chain
from ppnmf.kernels import dense
from ppnmf.models import REGISTRY, ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian
from ppnmf.protocols import Address, Sweeps
from ppnmf.rng import Stream
from tests.scenarios import LUCK, mask_of, uneven

N, D, K, C = 9, 7, 4, 3
MODELS = [ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian]
CAUGHT = 1e-9  # what a mistake must be less likely than
BOTH = ("W", "H")


def problem(noise=0.1, dtype=torch.float64, mask=None):
    """X near a product, and chains of which the first is at that product."""
    u = Stream.of(0, C).uniforms(0, 0, range(N + D), K)
    W, H = -u[:, :N].log(), -u[:, N:].log().mT
    X = W[0] @ H[0] + noise * torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    params = {"W": W, "H": H, "sigma2": torch.full((C,), 3 * noise**2, dtype=torch.float64)}
    return as_matrix(X.to(dtype), mask), {site: values.to(dtype) for site, values in params.items()}


def test_compiled_shears_of_nearly_noiseless_data_are_the_reference_s():
    X, params = problem(noise=0.001)
    model, at = uneven(ExponentialGaussian, N, D, K), Address(Stream.of(3, C), 7)
    for site in BOTH:
        side = Side.of(site, model.prior, X, params, 1.0)
        ours, wanted = collapsed._compiled(side, at), reference(side, at)
        torch.testing.assert_close(ours.jumps[0], wanted.jumps[0], rtol=1e-5, atol=1e-9)  # of the chain at the product
        assert bool((ours.jumps[:, ~torch.eye(K, dtype=torch.bool)] != 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("kind", MODELS)
def test_compiled_shears_are_the_reference_s(kind, masked, dtype):
    X, params = problem(dtype=dtype, mask=mask_of((N, D)) if masked else None)
    model, at = uneven(kind, N, D, K), Address(Stream.of(3, C), 7)
    rtol = 2e-2 if dtype == torch.float32 else 1e-7
    for site in BOTH:
        side = Side.of(site, model.prior, X, params, 1.0)
        ours, wanted = collapsed._compiled(side, at), reference(side, at)
        for values, expected in zip(ours, wanted, strict=True):
            torch.testing.assert_close(values, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("sites", [("W",), ("H",), BOTH], ids=str)
def test_whole_sweeps_are_sweeps_after_shears_or_before(sites):
    """W's shears come before a compiled sweep, H's after its factors; one sweep on several threads gives the same bits."""
    X, params = problem()
    model, stream = uneven(ExponentialGaussian, N, D, K), Stream.of(3, C)
    ours, _, _ = chain.several(model, chain.State(params, 7), X, stream, Sweeps(moves=False, collapsed=sites))
    alone = chain.State({site: values[:1] for site, values in params.items()}, 7)
    whole = dense.Problem.of(X.plain, 4, X.sum_of_squares, *(model.prior(site).natural("cpu") for site in BOTH))
    plan = dense.Plan(noise=(30.0, 1.0), collapsed=sites)
    run = dense._Run.of(whole, alone.params, (Stream(stream.keys[:1]), 7), plan)
    other = dense._Run.of(whole, alone.params, (Stream(stream.keys[:1]), 7), plan)
    run.together(range(1), 1)
    other.divided(0)
    for one, two in zip(run.chains[:3], other.chains[:3], strict=True):
        assert np.array_equal(one, two)
    again, _, _ = chain.several(model, alone, X, Stream(stream.keys[:1]), Sweeps(moves=False, collapsed=sites))
    for site, values in again.params.items():
        assert torch.equal(values[0], ours.params[site][0])


def test_the_misfit_of_a_kept_draw_is_that_of_its_factors():
    X, params = problem()
    model = uneven(ExponentialGaussian, N, D, K)
    asked = Sweeps(number=3, kept=range(3), collapsed=BOTH)
    swept = model.sweep(params, X, asked, Address(Stream.of(0, C), 1))
    for n in range(3):
        draw = {site: values[:, n] for site, values in swept.draws.items()}
        torch.testing.assert_close(swept.log_likelihood[:, n], model.log_likelihood_at(draw, X))


@pytest.mark.parametrize(("kind", "noise"), [*((kind, 0.5) for kind in MODELS), (ExponentialGaussian, 0.001)])
def test_t_follows_the_posterior_with_the_row_integrated_out(kind, noise):
    """Against quadrature of the likelihood and priors over t and, entry by entry, over H_k.

    With little noise the log density is a line, or nearly so, up to a wall: nothing at t = 0 tells how wide it is.
    """
    n, (X, params) = 4000, problem(noise=noise)
    model = uneven(kind, N, D, K)
    one = {site: values[:1] for site, values in params.items()}
    repeated = {site: values.expand(n, *values.shape[1:]) for site, values in one.items()}
    k, l = 0, 1  # the first pair that is moved
    side = Side.of("H", model.prior, X, repeated, 1.0)
    drawn = collapsed._compiled(side, Address(Stream.of(1, n), 2)).jumps[:, k, l].numpy()
    W, H, sigma2 = (one[site][0].numpy() for site in ("W", "H", "sigma2"))
    a, b = (values.expand(K, D).numpy() for values in model.prior("H").natural("cpu"))

    def log_density(t):
        moved = {"W": torch.from_numpy(W.copy())[None], "H": torch.zeros(1, K, D, dtype=torch.float64)}
        moved["W"][0, :, l] += t * moved["W"][0, :, k]
        rest = X.values.numpy() - np.delete(moved["W"][0].numpy(), k, 1) @ np.delete(H, k, 0)
        precision = a[k] + W[:, k] @ W[:, k] / sigma2
        linear = b[k] + W[:, k] @ rest / sigma2
        z = linear / np.sqrt(precision)
        of_row = (stats.norm.logcdf(z) + z * z / 2).sum() - (rest**2).sum() / (2 * sigma2)
        return of_row + float(model.prior("W").distribution(torch.zeros(())).log_prob(moved["W"][0]).sum())

    low = -float((W[:, l] / W[:, k]).min())
    grid = np.linspace(low, low + 40 * drawn.std(), 4001)
    logs = np.array([log_density(t) for t in grid[1:]])
    mass = np.concatenate([[0], integrate.cumulative_trapezoid(np.exp(logs - logs.max()), grid[1:], initial=0)])
    assert stats.kstest(drawn, lambda t: np.interp(t, grid, mass / mass[-1])).pvalue > LUCK


def shears_alone(model, state, X, stream):
    """No sweep, which would forget most of what they did wrong."""
    params = collapsed.swept(BOTH, model.prior, X, state.params, Address(stream, state.sweep))
    return chain.State(params, state.sweep + 1), None


def judged(kind, shape=(3, 5), step=shears_alone, sweeps=60, chains=200, mask=None):
    """With little noise: much of it hides where a row was not drawn."""
    model = uneven(kind, *shape, 2, noise_scale=0.5)
    return geweke(model, shape, step, sweeps, 1, chains=chains, mask=mask)


@pytest.mark.parametrize("kind", MODELS)
def test_sweeps_with_the_shears_leave_the_joint_invariant(kind):
    found = judged(kind, (4, 3), partial(chain.step, collapsed=BOTH))
    assert found.p_value > LUCK, found.worst


@pytest.mark.parametrize("kind", MODELS)
def test_so_do_the_shears_alone_with_missing_entries(kind):
    found = judged(kind, mask=mask_of((3, 5)))
    assert found.p_value > LUCK, found.worst


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 3), (3, 5)], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("kind", MODELS)
def test_long_runs_leave_the_joint_invariant(kind, shape, masked):
    found = judged(kind, shape, partial(chain.step, collapsed=BOTH), 500, 400, mask_of(shape) if masked else None)
    assert found.p_value > LUCK, found.worst


def with_half_the_row_s_precision(right, side, at):
    """The prior of H_k taken for a wider one."""
    return right(side._replace(of_F=side.of_F._replace(precision=side.of_F.precision / 2)), at)


def without_drawing_the_row(right, side, at):
    """H_k ← H_k - t H_l in place of a draw: W @ H stays, but t does not know of the wall."""
    found = right(side, at)
    return found._replace(F=side.F)


def with_another_weight(right, side, at):
    """The noise's variance doubled."""
    return right(side._replace(weight=side.weight / 2), at)


@pytest.mark.parametrize("mistake", [with_half_the_row_s_precision, without_drawing_the_row, with_another_weight])
def test_a_planted_mistake_is_found(mistake, monkeypatch):
    monkeypatch.setattr(collapsed, "_sheared", partial(mistake, collapsed._compiled))
    assert judged(HalfNormalGaussian).p_value < CAUGHT


def tall(sigma=0.05):
    """Few columns, some entries of H near zero, and a chain at the factors: the rows of W, far from zero, have room."""
    generator = torch.Generator().manual_seed(0)
    W = torch.rand(400, 3, generator=generator, dtype=torch.float64).add(1.0)
    H = torch.rand(3, 5, generator=generator, dtype=torch.float64).sub(0.2).clamp(min=0)
    X = W @ H + sigma * torch.randn(400, 5, generator=generator, dtype=torch.float64)
    return X, {"W": W, "H": H + sigma / 4}


@pytest.mark.parametrize("name", ["exponential_gaussian", "ard_gaussian"])
def test_they_pay_where_many_rows_have_room(name):
    X, factors = tall()
    model = REGISTRY[name].for_data(X, 3)
    data, stream = as_matrix(X), Stream.of(0, 2)
    state = chain.init(model, data, stream, {site: F.expand(2, -1, -1) for site, F in factors.items()})
    state, _, _ = chain.several(model, state, data, stream, Sweeps(number=200))
    assert "W" in model.longer_steps(state.params, data)


def test_they_do_not_pay_where_data_are_noisy_or_there_is_no_pair():
    data, params = problem(noise=1.0)
    stream = Stream.of(0, C)
    for rank in (1, K):
        model = ExponentialGaussian(rank)
        begin = {site: params[site].narrow(2 if site == "W" else 1, 0, rank) for site in BOTH}
        state, _, _ = chain.several(model, chain.init(model, data, stream, begin), data, stream, Sweeps(number=50))
        assert model.longer_steps(state.params, data) == ()


def test_a_run_until_chains_agree_takes_them_unless_moves_are_off():
    X = tall()[0].clamp(min=0)
    model = ExponentialGaussian.for_data(X, 3)
    shared = {"seed": 0, "chains": 2, "until": "agree", "survey": 0, "progress": False, "target_ess": 50}
    post = ppnmf.fit(model, X, **shared)
    assert "W" in post.attrs["collapsed"]
    assert math.isfinite(float(post.stats["lp"].sum()))
    plain = ppnmf.fit(model, X, moves=False, max_seconds=1, **shared)
    assert plain.attrs["collapsed"] == []
