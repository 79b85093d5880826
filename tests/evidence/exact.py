"""Log evidence by other routes than ours: quadrature at rank 1, plain Monte Carlo over the prior, annealing."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy import optimize, special
from torch import Tensor

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.inference.start import start
from ppnmf.kernels import reference
from ppnmf.models import ExponentialGaussian
from ppnmf.protocols import Statistics
from ppnmf.rng import Site, Stream
from tests.scenarios import drawn

LOG_2PI = math.log(2 * math.pi)


def log_half_line(a, b):
    """log ∫_0^∞ exp(-a w²/2 + b w) dw, a > 0."""
    return 0.5 * (LOG_2PI - np.log(a)) + 0.5 * b * b / a + special.log_ndtr(b / np.sqrt(a))


def natural_of(model: Any, site: str, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and linear (size,) of a factor's prior at rank 1, and the log of ∫ exp(-a w²/2 + b w) dw over w >= 0."""
    shape = (size, 1) if site == "W" else (1, size)
    a, b = (values.expand(shape).flatten().numpy() for values in model.prior(site).natural("cpu"))
    return a, b, np.array([log_half_line(p, q) if p > 0 else -math.log(-q) for p, q in zip(a, b, strict=True)])


def log_rows_given_one(x: np.ndarray, seen: np.ndarray, h: np.ndarray, s: np.ndarray, prior: Any) -> np.ndarray:
    """log Π_i ∫ p(w_i) p(x_i | w_i h, s) dw_i at each of the points h (..., D) and s (..., 1), or (..., D) of the columns.

    x (N, D) is zero where `seen` (N, D) is not one; `prior` is w's, from `natural_of`.
    """
    a = (h * h / s) @ seen.T + prior[0]  # (..., N)
    b = (h / s) @ x.T + prior[1]
    alone = seen.sum(0) * (LOG_2PI + np.log(s)) + (x**2).sum(0) / s  # (..., D)
    return (log_half_line(a, b) - prior[2]).sum(-1) - 0.5 * alone.sum(-1)


def rank_one(model: Any, X: Tensor, mask: Tensor | None = None, step: float = 0.6, fall: float = 16.0) -> float:
    """log p(X) at rank 1: W is integrated row by row, h and random variances by the trapezoidal rule in their logarithms.

    Args:
        step: of the grid, in standard deviations.
        fall: of the log integrand along an axis, at which the axis ends.
    """
    (N, D), seen = X.shape, (torch.ones_like(X) if mask is None else mask.double()).numpy()
    x = np.where(seen > 0, X.numpy(), 0.0)
    of_W, of_H = natural_of(model, "W", N), natural_of(model, "H", D)
    alpha, theta, known = model.noise_shape, model.noise_scale, model.sigma2
    variances = 0 if known else D if model.name == "column_noise_gaussian" else 1

    def log_integrand(u: np.ndarray) -> np.ndarray:
        h, s = np.exp(u[..., :D]), np.exp(u[..., D:]) if variances else np.full((*u.shape[:-1], 1), known)
        prior = h @ of_H[1] - 0.5 * (h * h) @ of_H[0] - of_H[2].sum()
        noise = alpha * math.log(theta) - math.lgamma(alpha) - (alpha + 1) * np.log(s) - theta / s
        rows = log_rows_given_one(x, seen, h, s, of_W)
        of_noise = noise.sum(-1) if variances else 0.0
        return prior + of_noise + rows + u.sum(-1)  # the last: the Jacobian of the logarithms

    return trapezoid(log_integrand, D + variances, step, fall)


def by_prior_draws(model: Any, X: Tensor, mask: Tensor | None = None, draws: int = 1_000_000) -> tuple[float, float]:
    """log p(X) and its standard error, everything from the prior."""
    each = model.likelihood(model.prior_draws(tuple(X.shape), draws, Stream.of(3))).log_prob(X)
    logs = (each if mask is None else each * mask).sum((-2, -1)).reshape(20, -1)
    means = logs.logsumexp(1).exp() / logs.shape[1]
    return float(means.mean().log()), float(means.std() / means.mean()) / 20**0.5


def three_of_one(model: Any, X: Tensor, mask: Tensor | None = None) -> float:
    """log p(X) of three factors of one component each: W is integrated row by row, s, g and σ² by the trapezoidal rule."""
    seen = (torch.ones_like(X) if mask is None else mask.double()).numpy()
    x, D = np.where(seen > 0, X.numpy(), 0.0), X.shape[1]
    of_W = natural_of(ExponentialGaussian(1, model.rate_W), "W", len(x))
    alpha, theta = model.noise_shape, model.noise_scale

    def log_integrand(u: np.ndarray) -> np.ndarray:
        s, g, v = (np.exp(own) for own in np.split(u, [1, D + 1], axis=-1))
        prior = (
            math.log(model.rate_S) + D * math.log(model.rate_G) - model.rate_S * s[..., 0] - model.rate_G * g.sum(-1)
        )
        noise = alpha * math.log(theta) - math.lgamma(alpha) - (alpha + 1) * np.log(v) - theta / v
        return prior + noise[..., 0] + log_rows_given_one(x, seen, s * g, v, of_W) + u.sum(-1)

    return trapezoid(log_integrand, D + 2)


def trapezoid(log_integrand: Any, size: int, step: float = 0.6, fall: float = 16.0) -> float:
    """log ∫ exp(log_integrand(u)) du over u in R^size, two or more, by the trapezoidal rule.

    It converges geometrically for an integrand that falls off smoothly on all sides. The grid lies along the axes of the
    curvature at the mode.
    """
    mode, axes = _mode_and_axes(log_integrand, size)
    top = float(log_integrand(mode))
    nodes = [_axis(log_integrand, mode, axes[:, d], top - fall, step) for d in range(size)]
    total = -np.inf
    for lead in product(*nodes[:-2]):
        z = np.stack(np.meshgrid(*[[value] for value in lead], nodes[-2], nodes[-1], indexing="ij"), -1)
        total = np.logaddexp(total, special.logsumexp(log_integrand(mode + z @ axes.T)))
    return float(total + size * math.log(step) + np.linalg.slogdet(axes)[1])


def _mode_and_axes(log_integrand, size):
    found = optimize.minimize(
        lambda u: -float(log_integrand(u)),
        np.zeros(size),
        method="Nelder-Mead",
        options={"xatol": 1e-5, "fatol": 1e-9, "maxiter": 20000, "maxfev": 20000, "adaptive": True},
    )
    mode, e = found.x, 1e-3 * np.eye(size)
    hessian = np.array(
        [
            [
                float(
                    log_integrand(mode + a + b)
                    - log_integrand(mode + a - b)
                    - log_integrand(mode - a + b)
                    + log_integrand(mode - a - b)
                )
                / 4e-6
                for b in e
            ]
            for a in e
        ]
    )
    values, vectors = np.linalg.eigh(-hessian)
    return mode, vectors / np.sqrt(np.maximum(values, 1e-3))


def _axis(log_integrand, mode, axis, floor, step):
    ends = []
    for sign in (-1, 1):
        n = 1
        while n * step < 80 and float(log_integrand(mode + sign * n * step * axis)) > floor:
            n += 1
        ends.append(n + math.ceil(1.5 / step))
    return step * np.arange(-ends[0], ends[1] + 1)


def over_the_prior(model: ExponentialGaussian, X: Tensor, draws: int, seed: int = 0) -> tuple[float, float]:
    """log p(X) at rank 2 and its standard error: H, σ² and W's second column from the prior, W's first integrated."""
    generator, x, (N, D) = np.random.default_rng(seed), X.numpy(), X.shape
    first, second = model.prior("W").rate.expand(1, 2)[0].tolist()
    logs = []
    for _ in range(20):
        size = draws // 20
        H = generator.exponential(size=(size, 2, D)) / model.prior("H").rate.expand(2, D).numpy()
        s = model.noise_scale / generator.gamma(model.noise_shape, size=size)
        left = x - generator.exponential(size=(size, N, 1)) / second * H[:, None, 1]  # (size, N, D)
        a = (H[:, 0] ** 2).sum(-1) / s
        b = (left @ H[:, 0, :, None])[..., 0] / s[:, None] - first
        rows = log_half_line(a[:, None], b) + math.log(first) - 0.5 * (left**2).sum(-1) / s[:, None]
        logs.append(special.logsumexp(rows.sum(-1) - 0.5 * N * D * (LOG_2PI + np.log(s))) - math.log(size))
    means = np.exp(np.array(logs) - max(logs))
    return max(logs) + math.log(means.mean()), means.std(ddof=1) / means.mean() / math.sqrt(20)


def annealed(model: ExponentialGaussian, X: Tensor, particles: int, steps: int, seed: int = 0) -> tuple[float, float]:
    """log p(X) and its standard error by annealed importance sampling (Neal 2001) from the prior, all particles at once.

    Labels need no care: the particles start from the prior, which is symmetric. By the reference kernels.
    """
    data, stream = as_matrix(X), Stream.of(seed, particles)
    params, log_weight = start(model, data, stream, "prior"), torch.zeros(particles, dtype=torch.float64)
    ladder = torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 4
    for step in range(1, steps + 1):
        fit = model.log_likelihood_at(params, data)
        log_weight += (ladder[step] - ladder[step - 1]) * fit
        params = _tempered_sweep(model, params, X, float(ladder[step]), stream, step)
    parts = log_weight.reshape(20, -1).logsumexp(1) - math.log(particles // 20)
    means = (parts - parts.max()).exp()
    return float(parts.max() + means.mean().log()), float(means.std() / means.mean() / math.sqrt(20))


def _tempered_sweep(model, params, X, power, stream, step):
    W, H, weight = params["W"], params["H"], (power / params["sigma2"])[:, None, None]
    prior_W, prior_H = model.prior("W").rectified, model.prior("H").rectified
    natural = (prior_W.precision, prior_W.linear)
    W = reference.half_sweep(W, Statistics(X @ H.mT * weight, H @ H.mT * weight), natural, (stream, step, Site.W))
    natural = (prior_H.precision.mT, prior_H.linear.mT)
    told = Statistics(X.mT @ W * weight, W.mT @ W * weight)
    H = reference.half_sweep(H.mT, told, natural, (stream, step, Site.H)).mT
    squares = (X - W @ H).square().sum((-2, -1))
    sigma2 = reference.inverse_gamma(
        model.noise_shape + power * X.numel() / 2, model.noise_scale + power * squares / 2, stream, step
    )
    rates = (-prior_W.linear, -prior_H.linear)
    W, H = reference.scale_move(W, H, rates, stream, step)
    W, H = reference.shear_move(W, H, rates, stream, step)
    return {"W": W, "H": H, "sigma2": sigma2}


def rank_one_given_H(model: Any, X: Tensor, h: Tensor, mask: Tensor | None = None) -> float:
    """log p(X) at rank 1 where all of H is known, h (D,): W is integrated row by row, and σ² by quadrature in its logarithm."""
    seen = (torch.ones_like(X) if mask is None else mask.double()).numpy()
    u = np.linspace(-12, 12, 8001)
    s = np.exp(u)
    alpha, theta = model.noise_shape, model.noise_scale
    noise = alpha * math.log(theta) - math.lgamma(alpha) - alpha * u - theta / s  # with the Jacobian of the logarithm
    x = np.where(seen > 0, X.numpy(), 0.0)
    points = np.broadcast_to(h.numpy(), (len(u), len(h)))
    rows = log_rows_given_one(x, seen, points, s[:, None], natural_of(model, "W", len(x)))
    return float(special.logsumexp(noise + rows) + math.log(u[1] - u[0]))


def assert_near(evidence: Any, exact: float, error: float = 0.0, least: float = 0.02) -> None:
    """An estimate is within its error, and that of what it is held against, of the latter."""
    assert abs(evidence.log_evidence - exact) < max(least, 4 * math.hypot(evidence.mcse, error))
    assert evidence.mcse < 0.1


def assert_smc_says_the_same(model: Any) -> None:
    """Stepping stones, the model's default, against particles from the prior, on 5 × 4."""
    matrix, options = drawn(5, 4, 2, noise=0.3, seed=3)[0].clamp(min=0), {"seed": 1, "replicates": 6, "progress": False}
    ours = ppnmf.log_evidence(model, matrix, particles=400, warmup=200, draws=1000, **options)
    smc = ppnmf.log_evidence(model, matrix, method="smc", particles=200, **options)
    assert ours.method == "stepping_stone"
    assert_near(ours, smc.log_evidence, smc.mcse, least=0.1)
