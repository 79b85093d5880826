"""Draws of positive numbers by rejection: gamma, inverse gamma and generalised inverse Gaussian."""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit, types
from numba.core.typing import Signature
from torch import Tensor

from ppnmf.kernels.cpu.normal import quantile
from ppnmf.kernels.cpu.uniforms import pair_of_uniforms
from ppnmf.kernels.lanes import COMPILED, INLINED, INNER
from ppnmf.kernels.parts import address_of, called_by_address
from ppnmf.kernels.reference import GAMMA_PROPOSALS
from ppnmf.rng import Site, Stream

__all__ = [
    "address_of_standard_gamma",
    "call_standard_gamma",
    "generalized_inverse_gaussian",
    "inverse_gamma",
    "standard_gamma",
]

# NumPy's numbers: one of Python's would be part of the type of the function called, and each be compiled for itself
SITE_SIGMA2 = np.int64(Site.SIGMA2)
SITE_SCALE = np.int64(Site.SCALE)
FIRST_PAIR = np.int64(0)
SECOND_PAIR = np.int64(1)
EXTRA_ROW = np.int64(GAMMA_PROPOSALS)
MOST_PROPOSALS = 1000  # of a generalised inverse Gaussian; more than two are seldom taken


@njit(**COMPILED)
def standard_gamma(shape: float, key0: int, key1: int, step: int) -> float:
    """A draw from Gamma(shape, 1), for σ² of a step: Marsaglia and Tsang (2000), doi:10.1145/358407.358414.

    Their proposals are accepted with probability above 0.95; at most `GAMMA_PROPOSALS` are made, and all fail less than
    once in 1e20. A shape below 1 is drawn as shape + 1, times U^(1 / shape).

    Args:
        key0, key1: the words of the stream's key. step: the proposals lie at its rows of the site SIGMA2.
    """
    boosted = shape if shape >= 1 else shape + 1
    d = boosted - 1 / 3
    v = 0.0
    for trial in range(GAMMA_PROPOSALS):
        u, w = pair_of_uniforms(key0, key1, FIRST_PAIR, trial, step, SITE_SIGMA2)
        z = quantile(u)
        v = (1 + z / math.sqrt(9 * d)) ** 3
        if v > 0 and math.log(w) < 0.5 * z * z + d * (1 - v + math.log(v)):
            break
    if shape < 1:
        return d * v * pair_of_uniforms(key0, key1, FIRST_PAIR, EXTRA_ROW, step, SITE_SIGMA2)[0] ** (1 / shape)
    return d * v


def inverse_gamma(shape: float, scale: Tensor, stream: Stream, step: int) -> Tensor:
    """`reference.inverse_gamma`, compiled: σ² of each chain, (C,) float64.

    Args:
        shape: one for all chains. scale: (C,).
    """
    draws = [standard_gamma(float(shape), *key, step) for key in stream.keys]
    return scale.double() / torch.tensor(draws, dtype=torch.float64)


@njit(**INNER)
def _psi(x: float, alpha: float, order: float) -> float:
    """Log density of log X past its mode, Devroye (2014); its two terms are written so that neither cancels near 0."""
    half = math.sinh(0.5 * x)
    growth = (
        math.expm1(x) - x if abs(x) > 0.01 else x * x * (0.5 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x / 720))))
    )
    return -2.0 * alpha * half * half - order * growth


@njit(**INLINED)
def _right(alpha: float, order: float) -> float:
    """Where the exponential tail of the cover begins, to the right of the mode."""
    fall = -_psi(1.0, alpha, order)
    if fall > 2:
        return math.sqrt(2 / (alpha + order))
    if fall < 0.5:
        return math.log(4 / (alpha + 2 * order))
    return 1.0


@njit(**INLINED)
def _left(alpha: float, order: float) -> float:
    """The same to its left, as a distance."""
    fall = -_psi(-1.0, alpha, order)
    if fall > 2:
        return math.sqrt(4 / (alpha * math.cosh(1.0) + order))
    if fall < 0.5:
        distance = math.log(1 + 1 / alpha + math.sqrt(1 / (alpha * alpha) + 2 / alpha))
        return min(1 / order, distance) if order > 0 else distance
    return 1.0


@njit(**INLINED)
def _log_past_the_mode(alpha, order, key0, key1, step, k, K):  # type: ignore[no-untyped-def]
    """A draw of log X less its mode, from under a cover that is flat in the middle and exponential in both tails."""
    t = _right(alpha, order)
    s = _left(alpha, order)
    eta = -_psi(t, alpha, order)
    zeta = alpha * math.sinh(t) + order * math.expm1(t)
    theta = -_psi(-s, alpha, order)
    xi = alpha * math.sinh(s) - order * math.expm1(-s)
    left = 1 / xi
    right = 1 / zeta
    t_in = t - right * eta
    s_in = s - left * theta
    middle = t_in + s_in
    x = 0.0
    for trial in range(MOST_PROPOSALS):
        u, v = pair_of_uniforms(key0, key1, FIRST_PAIR, trial * K + k, step, SITE_SCALE)
        w, _ = pair_of_uniforms(key0, key1, SECOND_PAIR, trial * K + k, step, SITE_SCALE)
        u *= left + middle + right
        log_cover = 0.0
        if u < middle:
            x = -s_in + middle * v
        elif u < middle + right:
            x = t_in - right * math.log(v)
            log_cover = -eta - zeta * (x - t)
        else:
            x = -s_in + left * math.log(v)
            log_cover = -theta + xi * (x + s)
        if math.log(w) + log_cover <= _psi(x, alpha, order):
            break
    return x


@njit(**COMPILED)
def generalized_inverse_gaussian(p, a, b, key0, key1, step, k, K):  # type: ignore[no-untyped-def]
    """Density ∝ x^(p-1) exp(-(a x + b / x) / 2): Devroye (2014), doi:10.1007/s11222-012-9367-z.

    Args:
        p: real. a, b: positive.
        key0, key1, step: the words of the stream's key, and the step.
        k, K: the component and their number; its proposals lie at rows k, K + k, 2 K + k ... of the site SCALE.
    """
    order = abs(p)
    omega = math.sqrt(a) * math.sqrt(b)
    radius = math.hypot(omega, order)
    alpha = omega * (omega / (radius + order))
    log_mode = math.log((order + radius) / omega) + _log_past_the_mode(alpha, order, key0, key1, step, k, K)
    return math.sqrt(b / a) * math.exp(log_mode if p >= 0 else -log_mode)


def _signature_of_standard_gamma(_: types.Float) -> Signature:
    return types.float64(types.float64, types.int64, types.int64, types.int64)


call_standard_gamma = called_by_address(_signature_of_standard_gamma)


def address_of_standard_gamma() -> int:
    """For `call_standard_gamma`."""
    return address_of(standard_gamma, _signature_of_standard_gamma, np.dtype(np.float64))
