"""Every formula against an independent one: mpmath in high precision, quadrature, or the law of the draws."""

import math
from functools import cache

import mpmath as mp
import numpy as np
import pyro
import pyro.distributions as pyro_distributions
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from scipy import integrate, special, stats
from torch import Tensor
from torch.distributions import Exponential, Gamma, HalfNormal, Independent, Normal, Weibull, kl_divergence

from ppnmf.distributions import GeneralizedInverseGaussian, RectifiedNormal, gig_from_proposals, gig_from_uniforms

FAR = [-1e12, -1e9, -1e6, -1e4, -1e3, -200.0, -50.0, -20.0, -10.0, -5.0, -1.0, -1e-3, -1e-8, 0.0]
FAR += [1e-8, 1e-3, 1.0, 5.0, 10.0, 20.0, 37.0, 39.0, 50.0, 100.0, 1e3, 1e4, 1e6, 1e8]
RATIOS = sorted(FAR + list(np.linspace(-6.03, 6.03, 68)))  # b / √a; the dense part crosses the joints between formulas
PRECISIONS = [1e-12, 1e-3, 1.0, 7.3, 1e6, 1e12]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(20)


def f64(values) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def on_grid(a: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    precision = torch.full((len(RATIOS),), a, dtype=torch.float64)
    return precision.to(dtype), (precision.sqrt() * f64(RATIOS)).to(dtype)


@cache
def mills(x: mp.mpf) -> mp.mpf:
    """Survival over density of the standard normal, to some 100 digits."""
    with mp.workdps(120):
        if x < 50:
            return mp.sqrt(mp.pi / 2) * mp.exp(x * x / 2) * mp.erfc(x / mp.sqrt(2))
        fraction = mp.mpf(0)
        for n in range(500, 0, -1):
            fraction = n / (x + fraction)
        return 1 / (x + fraction)


def facts(a: float, b: float) -> dict[str, mp.mpf]:
    """The textbook formulas, whose cancellations 120 digits survive."""
    with mp.workdps(120):
        a, b = mp.mpf(a), mp.mpf(b)
        alpha = -b / mp.sqrt(a)
        hazard = 1 / mills(alpha)
        mean = (hazard - alpha) / mp.sqrt(a)
        log_normalizer = mp.log(mills(alpha) / mp.sqrt(a))
        return {
            "mean": mean,
            "variance": (1 - hazard * (hazard - alpha)) / a,
            "mode": max(b / a, mp.mpf(0)),
            "log_normalizer": log_normalizer,
            "entropy": log_normalizer + (1 - b * mean) / 2,
        }


def computed(d: RectifiedNormal) -> dict[str, Tensor]:
    names = ["mean", "variance", "mode", "log_normalizer"]
    return {**{name: getattr(d, name) for name in names}, "entropy": d.entropy()}


def relative_error(got: float, want: mp.mpf, absolute: float = 0.0) -> float:
    """Zero if within `absolute`."""
    error = abs(mp.mpf(got) - want)
    return 0.0 if error <= absolute else float(error / abs(want))


# RectifiedNormal: what it knows


@pytest.mark.parametrize("a", PRECISIONS)
def test_every_summary_keeps_its_relative_accuracy_from_the_far_tail_to_a_far_mode(a):
    precision, linear = on_grid(a)
    got = computed(RectifiedNormal(precision, linear))
    for i, b in enumerate(linear.tolist()):
        for name, want in facts(a, b).items():
            absolute = 1e-13 if name in ("log_normalizer", "entropy") else 0.0
            assert relative_error(got[name][i].item(), want, absolute) < 2e-13, (name, RATIOS[i])


@pytest.mark.parametrize("a", PRECISIONS)
def test_float32_is_right_to_its_last_digits(a):
    precision, linear = on_grid(a, torch.float32)
    got = computed(RectifiedNormal(precision, linear))
    for i, (a32, b32) in enumerate(zip(precision.tolist(), linear.tolist(), strict=True)):
        for name, want in facts(a32, b32).items():
            if want > 1e-37 or name != "variance":  # below it float32 has no normal numbers
                assert got[name].dtype == torch.float32
                assert relative_error(got[name][i].item(), want, 1e-12) < 1.3e-7, (name, RATIOS[i])


@pytest.mark.parametrize(("a", "b"), [(2.0, 3.0), (0.7, -1.3), (1e-4, -2.0), (5.0, 0.0), (3.0, -9.0), (1.0, 8.0)])
def test_summaries_match_quadrature_of_the_density(a, b):
    spread = RectifiedNormal(f64(a), f64(b)).variance.sqrt().item()
    edges = [max(b / a, 0) + i * spread for i in range(-12, 45, 3) if max(b / a, 0) + i * spread > 0]

    def integral(g):
        return mp.quad(lambda w: g(w) * mp.exp(-a * w * w / 2 + b * w), [0, *edges, mp.inf])

    total = integral(lambda w: 1)
    mean = integral(lambda w: w) / total
    want = {
        "mean": mean,
        "variance": integral(lambda w: (w - mean) ** 2) / total,
        "log_normalizer": mp.log(total),
        "entropy": mp.log(total) - integral(lambda w: -a * w * w / 2 + b * w) / total,
    }
    got = computed(RectifiedNormal(f64(a), f64(b)))
    for name, value in want.items():
        assert relative_error(got[name].item(), value) < 1e-12, name


def test_zero_precision_is_the_exponential_and_a_vanishing_one_its_limit():
    rate, w = f64([1e-9, 0.3, 1.0, 4.0, 1e9]), f64([0.0, 1e-3, 1.0, 5.0, 1e-9])
    exponential = Exponential(rate)
    for precision in (0.0, 1e-300):
        d = RectifiedNormal(f64(precision), -rate)
        for name in ("mean", "variance"):
            torch.testing.assert_close(getattr(d, name), getattr(exponential, name), rtol=1e-15, atol=0)
        torch.testing.assert_close(d.log_normalizer, -rate.log(), rtol=1e-15, atol=1e-15)
        torch.testing.assert_close(d.entropy(), exponential.entropy(), rtol=1e-15, atol=1e-15)
        torch.testing.assert_close(d.log_prob(w), exponential.log_prob(w), rtol=1e-15, atol=1e-15)
        torch.testing.assert_close(d.survival_inverse(f64(0.2)), -f64(0.2).log() / rate, rtol=1e-14, atol=0)
        assert (d.mode == 0).all()


def test_zero_linear_is_the_half_normal():
    scale, w = f64([1e-3, 1.0, 20.0]), f64([0.0, 0.5, 30.0])
    d, half_normal = RectifiedNormal(scale**-2, f64(0.0)), HalfNormal(scale)
    for name in ("mean", "variance", "mode"):
        torch.testing.assert_close(getattr(d, name), getattr(half_normal, name), rtol=1e-14, atol=0)
    torch.testing.assert_close(d.log_prob(w), half_normal.log_prob(w), rtol=1e-14, atol=0)
    torch.testing.assert_close(d.entropy(), half_normal.entropy(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("a", [1e-12, 1.0, 1e12])
def test_log_density_keeps_its_accuracy_wherever_the_mass_is(a):
    precision, linear = on_grid(a)
    d = RectifiedNormal(precision, linear)
    for u in (1 - 1e-9, 0.9, 0.3, 1e-3, 1e-12, 1e-200):
        w = d.survival_inverse(f64(u))
        got = d.log_prob(w)
        for i, (b, value) in enumerate(zip(linear.tolist(), w.tolist(), strict=True)):
            with mp.workdps(80):
                want = -mp.mpf(a) * mp.mpf(value) ** 2 / 2 + mp.mpf(b) * mp.mpf(value) - facts(a, b)["log_normalizer"]
            assert relative_error(got[i].item(), want, 1e-12) < 1e-12, (RATIOS[i], u)


def test_log_density_is_minus_infinity_below_zero_and_validation_refuses_such_values():
    assert RectifiedNormal(f64(1.0), f64(2.0), validate_args=False).log_prob(f64(-1e-9)) == -math.inf
    with pytest.raises(ValueError, match="support"):
        RectifiedNormal(f64(1.0), f64(2.0), validate_args=True).log_prob(f64(-1e-9))


def test_mode_of_an_entry_without_any_information_is_zero():
    assert RectifiedNormal(f64(0.0), f64(0.0), validate_args=False).mode == 0


def test_improper_parameters_are_refused_with_a_count():
    with pytest.raises(ValueError, match="2 entries with precision 0 and linear >= 0"):
        RectifiedNormal(f64([0.0, 0.0, 0.0, 1.0]), f64([-1.0, 0.0, 2.0, 0.0]), validate_args=True)
    with pytest.raises(ValueError, match="precision"):
        RectifiedNormal(f64(-1.0), f64(1.0), validate_args=True)


def test_parameters_broadcast_promote_and_expand():
    d = RectifiedNormal(torch.ones(3, 1), f64([-1.0, 2.0]))
    assert d.batch_shape == (3, 2)
    assert d.precision.dtype == d.mean.dtype == torch.float64
    wide = d.expand((4, 3, 2))
    assert wide.batch_shape == (4, 3, 2) and wide.rsample((5,)).shape == (5, 4, 3, 2)
    assert torch.equal(wide.variance, d.variance.expand(4, 3, 2))


def test_summaries_differentiate_without_nan_and_the_normaliser_into_the_moments():
    precision, linear = (torch.cat(pieces).requires_grad_() for pieces in zip(on_grid(1.0), on_grid(0.0), strict=True))
    with torch.no_grad():
        linear[len(RATIOS) :] = -torch.logspace(-6, 6, len(RATIOS), dtype=torch.float64)
    d = RectifiedNormal(precision, linear)
    for summary in (*computed(d).values(), d.log_prob(f64(0.0)), d.log_prob(f64(3.0)), d.rsample()):
        for gradient in torch.autograd.grad(summary.sum(), (precision, linear)):
            assert gradient.isfinite().all()
    by_precision, by_linear = torch.autograd.grad(d.log_normalizer.sum(), (precision, linear))
    torch.testing.assert_close(by_linear, d.mean.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(-2 * by_precision, (d.variance + d.mean**2).detach(), rtol=1e-9, atol=0)
    (mean_by_linear,) = torch.autograd.grad(d.mean.sum(), linear)
    torch.testing.assert_close(mean_by_linear, d.variance.detach(), rtol=1e-9, atol=0)


# RectifiedNormal: its draws


def excess(alpha: float, u: float, start: float) -> mp.mpf:
    """The e with Q(alpha + e) = u Q(alpha) by Newton's method on the log, from a start that is nearly right."""
    with mp.workdps(50):
        alpha, log_u = mp.mpf(alpha), mp.log(mp.mpf(u))
        log_start = mp.log(mills(alpha)) if alpha > -40 else alpha**2 / 2 + mp.log(2 * mp.pi) / 2
        e = mp.mpf(start)
        for _ in range(5):
            x = alpha + e
            ratio = mp.sqrt(mp.pi / 2) * mp.exp(x * x / 2) * mp.erfc(x / mp.sqrt(2)) if x < 50 else mills(x)
            e -= (e * (alpha + e / 2) + log_start - mp.log(ratio) + log_u) * ratio
        return e


@pytest.mark.parametrize(
    "alpha",
    [
        *(-1e8, -1e4, -100.0, -38.0, -30.0, -10.0, -8.0, -6.0, -3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 2.0, 3.0, 4.0),
        *(4.999, 5.0, 5.001, 6.0, 10.0, 20.0, 49.0, 1e3, 1e6, 1e9, 1e12),
    ],
)
def test_survival_inverse_is_accurate_in_both_tails(alpha):
    near = [-math.expm1(-(10**power)) for power in np.linspace(-15, -1, 15)]
    u = [1e-300, 1e-100, 1e-16, 1e-8, 1e-3, 0.1, 0.3, 0.5, 0.7, *(1 - x for x in near), 1 - 2.0**-53]
    w = RectifiedNormal(f64(1.0), f64(-alpha)).survival_inverse(f64(u))
    for survival, got in zip(u, w.tolist(), strict=True):
        assert relative_error(got, excess(alpha, survival, got)) < 2e-11, survival


def test_survival_inverse_falls_with_u_across_the_joints_of_its_formulas():
    u = f64(np.concatenate([np.geomspace(1e-12, 0.5, 4000), 1 - np.geomspace(0.5, 1e-12, 4000)[1:]]))
    for linear in (12.0, 5.0, 0.0, -1.0, -4.999999, -5.000001, -30.0):
        w = RectifiedNormal(f64(1.0), f64(linear)).survival_inverse(u)
        assert (w.diff() < 0).all(), linear
    linear = -f64(np.linspace(4.9, 5.1, 4001))
    w = RectifiedNormal(f64(1.0), linear).survival_inverse(f64(0.37))
    assert (w.diff() < 0).all()


def survival(a: float, b: float, w: np.ndarray) -> np.ndarray:
    if a == 0:
        return np.exp(b * w)
    alpha, e = -b / math.sqrt(a), w * math.sqrt(a)
    if alpha < 0:
        return special.ndtr(-(alpha + e)) / special.ndtr(-alpha)
    ratio = special.erfcx((alpha + e) / math.sqrt(2)) / special.erfcx(alpha / math.sqrt(2))
    return ratio * np.exp(-e * (alpha + e / 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        *((0.0, -1.0), (0.0, -1e5), (1e-8, -2.0), (1.0, -1e3), (4.0, -60.0), (1.0, -9.0), (1.0, -5.1), (1.0, -4.9)),
        *((2.0, -1.0), (1.0, 0.0), (1.0, 1.5), (0.3, 6.0), (1e6, -1e6), (1e6, 0.0), (1e6, 3e3), (1e6, -1e4)),
        (1.0, 50.0),
    ],
)
def test_draws_have_the_law_of_the_density(a, b, dtype):
    draws = RectifiedNormal(torch.tensor(a, dtype=dtype), torch.tensor(b, dtype=dtype)).sample((20_000,))
    assert draws.dtype == dtype
    a, b = torch.tensor([a, b], dtype=dtype).tolist()
    uniforms = survival(a, b, draws.double().numpy())
    assert stats.kstest(uniforms, "uniform").pvalue > 1e-4


def test_draws_stay_positive_and_finite_over_the_whole_range():
    for a in (*PRECISIONS, 0.0):
        precision, linear = on_grid(a)
        draws = RectifiedNormal(precision, linear if a else -f64(RATIOS).abs() - 1e-9).sample((200,))
        assert (draws > 0).all() and draws.isfinite().all()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1.0, 30.0),
        (1.0, 3.0),
        (0.5, 0.0),
        (2.0, -1.0),
        (1.0, -2.4),
        (1.0, -2.6),
        (1.0, -6.0),
        (1e-3, -2.0),
        (4.0, -900.0),
    ],
)
def test_draws_differentiate_as_the_quantile_does(a, b):
    u = f64([1 - 1e-6, 0.99, 0.7, 0.5, 0.2, 1e-3, 1e-9])
    precision, linear = (torch.full_like(u, value).requires_grad_() for value in (a, b))
    u.requires_grad_()
    gradients = torch.autograd.grad(
        RectifiedNormal(precision, linear).survival_inverse(u).sum(), (precision, linear, u)
    )

    def quantile(a, b, value, start):
        root = mp.sqrt(a)
        return excess(-b / root, value, start * float(root)) / root

    with torch.no_grad():
        w = RectifiedNormal(precision, linear).survival_inverse(u)
    for i, (value, start) in enumerate(zip(u.tolist(), w.tolist(), strict=True)):
        with mp.workdps(50):
            at = (mp.mpf(a), mp.mpf(b), mp.mpf(value))
            for gradient, axis in zip(gradients, range(3), strict=True):
                step = mp.mpf("1e-12") * (1 - at[2] if axis == 2 else max(abs(at[axis]), mp.mpf(1)))
                step = min(step, at[2] * mp.mpf("1e-12")) if axis == 2 else step
                up, down = ([x + sign * step * (j == axis) for j, x in enumerate(at)] for sign in (1, -1))
                want = (quantile(*up, start) - quantile(*down, start)) / (2 * step)
                assert relative_error(gradient[i].item(), want) < 1e-8, (value, axis)


@pytest.mark.parametrize(("a", "b"), [(1.0, 2.0), (1.0, -1.0), (0.5, -8.0), (1e-6, -1.0), (0.0, -2.0)])
def test_gradients_of_draws_average_to_the_gradient_of_the_mean(a, b):
    precision, linear = f64(a).requires_grad_(), f64(b).requires_grad_()
    size = 50_000
    wide = RectifiedNormal(precision.expand(size), linear.expand(size))
    parameters = (wide.precision, wide.linear)
    pathwise = torch.autograd.grad(wide.rsample().sum(), parameters)
    exact = torch.autograd.grad(RectifiedNormal(precision, linear).mean, (precision, linear))
    for per_draw, want in zip(pathwise, exact, strict=True):
        assert abs(per_draw.mean() - want) < 4 * per_draw.std() / math.sqrt(size)


def test_a_second_derivative_of_a_draw_is_refused_rather_than_wrong():
    linear = f64(1.0).requires_grad_()
    loss = RectifiedNormal(f64(1.0), linear).rsample().square()
    (gradient,) = torch.autograd.grad(loss, linear, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.backward()


# Weibull divergences


def divergence_by_quadrature(p: Weibull, q) -> float:
    """E_p[log p - log q] over v = (x / scale)^k, which is exponential, by the trapezoidal rule in log v."""
    log_v = torch.linspace(-45, 6.5, 20_001, dtype=torch.float64)
    v = log_v.exp()
    x = p.scale * v ** (1 / p.concentration)
    terms = (p.log_prob(x) - q.log_prob(x)) * v * torch.exp(-v)
    return terms.sum().item() * (log_v[1] - log_v[0]).item()


@pytest.mark.parametrize("weibull", [Weibull, pyro_distributions.Weibull])
@pytest.mark.parametrize(("k", "scale"), [(0.3, 2.0), (0.6, 0.4), (1.0, 3.0), (2.5, 1.2), (20.0, 0.7)])
def test_divergences_from_a_weibull_match_quadrature(k, scale, weibull):
    p = weibull(f64(scale), f64(k))
    for q in (
        weibull(f64(1.7), f64(0.9)),
        weibull(f64(0.5), f64(3.0)),
        weibull(f64(0.8), f64(4.5)),
        Exponential(f64(2.3)),
        pyro_distributions.Exponential(f64(0.2)),
        Gamma(f64(3.1), f64(0.8)),
        pyro_distributions.Gamma(f64(0.4), f64(5.0)),
    ):
        assert kl_divergence(p, q).item() == pytest.approx(divergence_by_quadrature(p, q), rel=1e-9), q


def test_divergence_is_zero_at_equality_grows_quadratically_and_differentiates_over_the_clamped_shapes():
    k, scale = (x.reshape(-1) for x in torch.meshgrid(f64([0.1, 0.5, 1, 7, 100]), f64([1e-3, 1, 1e4]), indexing="ij"))
    p = Weibull(scale, k)
    assert kl_divergence(p, Weibull(scale, k)).abs().max() < 1e-14
    near = kl_divergence(p, Weibull(scale * (1 + 1e-5 / k), k))
    torch.testing.assert_close(near, torch.full_like(near, 0.5e-10), rtol=1e-3, atol=0)
    k.requires_grad_()
    for prior in (Weibull(f64(1.0), f64(1.0)), Exponential(f64(1.0))):
        of_shape = lambda k: kl_divergence(Weibull(scale, k), prior)  # noqa: B023
        (slope,) = torch.autograd.grad(of_shape(k).sum(), k)
        step = 1e-5 * k.detach()
        secant = (of_shape(k + step) - of_shape(k - step)).detach() / (2 * step)
        torch.testing.assert_close(slope, secant, rtol=1e-6, atol=1e-6)


def test_an_exponential_is_a_weibull_of_shape_one_and_a_gamma_of_shape_one():
    p, rate = Weibull(f64([0.3, 2.0]), f64([0.7, 4.0])), f64(1.9)
    want = kl_divergence(p, Exponential(rate))
    torch.testing.assert_close(kl_divergence(p, Weibull(1 / rate, f64(1.0))), want, rtol=1e-12, atol=0)
    torch.testing.assert_close(kl_divergence(p, Gamma(f64(1.0), rate)), want, rtol=1e-12, atol=0)


def test_pyros_mean_field_elbo_uses_the_closed_form_and_has_no_noise():
    pyro.clear_param_store()
    k, scale, prior = f64([[0.7, 2.0], [1.5, 9.0]]), f64([[0.3, 1.0], [2.0, 5.0]]), f64(1.4)

    def model():
        return pyro.sample("W", pyro_distributions.Exponential(prior).expand((2, 2)).to_event(2))

    def guide():
        return pyro.sample("W", pyro_distributions.Weibull(scale, k).to_event(2))

    losses = {TraceMeanField_ELBO().loss(model, guide) for _ in range(3)}
    p = Independent(Weibull(scale, k), 2)
    want = kl_divergence(p, Independent(Exponential(prior.expand(2, 2)), 2)).item()
    assert len(losses) == 1
    assert losses.pop() == pytest.approx(want, rel=1e-14)


# Generalised inverse Gaussian


def torch_uniforms(shape: tuple[int, ...], seed: int = 3):
    def uniforms(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * seed + index)
        return torch.rand((3, *shape), dtype=torch.float64, generator=generator).clamp(min=2.0**-54)

    return uniforms


def log_coordinates(p: float, a: float, b: float):
    """The mode of log x, and the log density of y = log x - mode less its peak, in mpmath, from the density itself."""
    with mp.workdps(60):
        p, a, b = mp.mpf(p), mp.mpf(a), mp.mpf(b)
        root = mp.sqrt(p * p + a * b)
        mode = mp.log((p + root) / a) if p >= 0 else mp.log(b / (root - p))
        left, right = b * mp.exp(-mode) / 2, a * mp.exp(mode) / 2
        return mode, lambda y: p * y - left * mp.expm1(-y) - right * mp.expm1(y)


@pytest.mark.parametrize(
    ("p", "omega"),
    [(0.0, 1.0), (0.5, 0.1), (-0.5, 2.0), (3.0, 0.01), (-7.0, 3.0), (2.5, 100.0), (0.2, 0.3), (40.0, 5.0), (1.0, 0.6)],
)
def test_gig_draws_have_the_law_scipy_states(p, omega):
    scale = 2.5  # x / scale has a = b = omega
    draws = GeneralizedInverseGaussian(f64(p), f64(omega / scale), f64(omega * scale)).sample((10_000,))
    assert stats.kstest(draws.numpy() / scale, lambda x: stats.geninvgauss.cdf(x, p, omega)).pvalue > 1e-4


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.1, -0.5, 1.0, -30.0, 1e4, 1e9, -1e9])
@pytest.mark.parametrize("omega", [1e-6, 0.3, 1e4, 1e9])
def test_gig_draws_have_the_law_of_the_density_at_any_order(p, omega):
    a, b = 3 * omega, omega / 3
    mode, psi = log_coordinates(p, a, b)
    d = GeneralizedInverseGaussian(f64(p), f64(a), f64(b))
    draws = d.sample((10_000,))
    assert (draws > 0).all() and draws.isfinite().all()
    y = np.sort(draws.log().numpy() - float(mode))
    grid = np.linspace(y[0], y[-1], 4001)
    at_nodes = np.array([float(psi(value)) for value in grid[::20]])
    via_log_prob = (d.log_prob(f64(np.exp(grid + float(mode)))) + f64(grid + float(mode))).numpy()
    shift = via_log_prob[::20] - at_nodes
    inside = at_nodes > -20
    assert np.ptp(shift[inside]) < 1e-6 * max(1.0, 1e-3 * np.abs(shift).max())
    cumulative = integrate.cumulative_simpson(np.exp(via_log_prob), x=grid, initial=0)
    assert cumulative[-1] == pytest.approx(1, abs=2e-3)  # the sample's range misses about 2 / 10 000
    assert stats.kstest(y, lambda x: np.interp(x, grid, cumulative / cumulative[-1])).pvalue > 1e-4


@pytest.mark.parametrize(
    ("p", "omega"), [(0, 1e-6), (0.5, 1), (-0.5, 1e-6), (-3, 20), (60, 1e-3), (1000, 300), (0, 1e3)]
)
def test_gig_log_density_and_mean_match_bessel_functions(p, omega):
    a, b = 2.0 * omega, omega / 2
    d = GeneralizedInverseGaussian(f64(p), f64(a), f64(b))
    with mp.workdps(40):
        bessel, order = mp.besselk(p, omega), mp.mpf(p)
        mean = mp.sqrt(mp.mpf(b) / a) * mp.besselk(p + 1, omega) / bessel
        square = (mp.mpf(b) / a) * mp.besselk(p + 2, omega) / bessel
        log_constant = order / 2 * mp.log(mp.mpf(a) / b) - mp.log(2 * bessel)
        for x in (0.01, 0.4, 3.0):
            want = log_constant + (order - 1) * mp.log(mp.mpf(x)) - (a * mp.mpf(x) + b / mp.mpf(x)) / 2
            assert relative_error(d.log_prob(f64(x)).item(), want) < 1e-12
    draws, deviation = d.sample((40_000,)), math.sqrt(float(square - mean**2))
    if deviation < 20 * float(mean):  # with heavier tails the average of the draws proves nothing
        assert abs(draws.mean().item() - float(mean)) < 4.5 * deviation / 200


@pytest.mark.parametrize("p", [1e9, -1e9, 0.0])
@pytest.mark.parametrize("omega", [1e-6, 1.0, 1e9])
def test_gig_moments_of_the_log_hold_at_extreme_orders(p, omega):
    a, b, size = 0.1 * omega, 10 * omega, 100_000
    mode, psi = log_coordinates(p, a, b)
    with mp.workdps(30):
        width = 12 / mp.sqrt(mp.hypot(p, omega)) if max(abs(p), omega) > 100 else mp.mpf(20)
        edges = mp.linspace(-width, width, 17)
        total, first, second = (mp.quad(lambda y, n=n: y**n * mp.exp(psi(y)), edges) for n in range(3))
    mean, variance = float(first / total), float(second / total - (first / total) ** 2)
    y = GeneralizedInverseGaussian(f64(p), f64(a), f64(b)).sample((size,)).log() - float(mode)
    assert abs(y.mean().item() - mean) < 4.5 * math.sqrt(variance / size)
    assert y.var().item() == pytest.approx(variance, rel=0.03)


def test_gig_inverse_swaps_its_parameters_draw_for_draw():
    p, a, b = f64([0.3, 12.0, -4.0, 1e6, -1e9]), f64([1e-6, 2.0, 30.0, 1e-3, 1.0]), f64([1.0, 0.1, 1e-5, 1e3, 1e-9])
    uniforms = torch_uniforms((5,))
    inverse = 1 / gig_from_uniforms(-p, b, a, uniforms)
    torch.testing.assert_close(gig_from_uniforms(p, a, b, uniforms), inverse, rtol=1e-13, atol=0)


def test_gig_draw_is_a_function_of_its_own_uniforms_only():
    p, a, b = f64([-40.0]).expand(500), f64(3.0), f64(5.0)
    whole = gig_from_uniforms(p, a, b, torch_uniforms((500,)))
    part = gig_from_uniforms(p[7:9], a, b, lambda index: torch_uniforms((500,))(index)[:, 7:9])
    assert torch.equal(whole[7:9], part)
    single = gig_from_uniforms(p.float(), a.float(), b.float(), torch_uniforms((500,)))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, whole.float())


def test_gig_from_proposals_all_at_once_is_the_same_draw():
    p, a, b = f64([-40.0, 0.0, 1e6, 0.3]).repeat(200), f64(3.0), f64(5.0)
    uniforms = torch_uniforms((800,))
    at_once = torch.stack([torch.stack(list(uniforms(index)), -1) for index in range(32)])
    assert torch.equal(gig_from_proposals(p, a, b, at_once), gig_from_uniforms(p, a, b, uniforms))


def test_gig_with_a_zero_parameter_is_the_gamma_limit():
    size = 10_000
    gamma = gig_from_uniforms(f64([2.5]).expand(size), f64(3.0), f64(0.0), torch_uniforms((size,)))
    assert stats.kstest(gamma.numpy(), stats.gamma(2.5, scale=2 / 3).cdf).pvalue > 1e-4
    inverse_gamma = gig_from_uniforms(f64([-2.5]).expand(size), f64(0.0), f64(3.0), torch_uniforms((size,)))
    assert stats.kstest(inverse_gamma.numpy(), stats.invgamma(2.5, scale=1.5).cdf).pvalue > 1e-4


def test_gig_accepts_quickly_whatever_the_parameters():
    orders = [0.0, 1e-9, 1e-3, 0.1, 0.5, 1.0, 2.0, 10.0, 1e3, 1e6, 1e9]
    p, omega = torch.meshgrid(f64(orders), f64(10.0 ** np.arange(-6, 13)), indexing="ij")
    p, omega = (x[None].expand(400, *x.shape) for x in (p, omega))
    rounds = 0

    def uniforms(index: int) -> Tensor:
        nonlocal rounds
        rounds = index + 1
        return torch_uniforms(tuple(p.shape))(index)

    gig_from_uniforms(p, omega, omega, uniforms)
    assert rounds < 15  # 80 000 entries, each round taking more than seven tenths of those left


def test_gig_that_never_accepts_is_an_error_not_a_hang():
    never = (f64(0.9999), f64(1e-300), f64(0.9999))
    with pytest.raises(AssertionError, match="no generalised inverse Gaussian draw"):
        gig_from_uniforms(f64(2.0), f64(1.0), f64(1.0), lambda index: never)


def test_gig_expands_and_validates():
    d = GeneralizedInverseGaussian(f64([1.0, -2.0]), f64(1.0), f64(3.0)).expand((3, 2))
    assert d.batch_shape == (3, 2) and d.sample((4,)).shape == (4, 3, 2) and d.log_prob(f64(1.0)).shape == (3, 2)
    with pytest.raises(ValueError, match="parameter b"):
        GeneralizedInverseGaussian(f64(1.0), f64(1.0), f64(0.0), validate_args=True)


def test_normal_truncated_to_the_positive_side_is_written_in_natural_parameters():
    location, scale, w = 0.7, 0.4, f64([0.1, 2.0])
    normal = Normal(f64(location), f64(scale))
    want = normal.log_prob(w) - (1 - normal.cdf(f64(0.0))).log()
    got = RectifiedNormal(f64(scale**-2), f64(location / scale**2)).log_prob(w)
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)
