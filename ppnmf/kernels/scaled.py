r"""The density of a component at a point, its scale integrated out.

A component is a row of one factor, h (R,), and the column of the other that goes with it, w = s u with s = ‖w‖. Given
everything else and the direction u alone,

.. math::
    p(s, h \mid u) \propto s^{n-1} e^{-\frac{1}{2} a s^2 + b s} \prod_j e^{-\frac{1}{2} A_j(s) h_j^2 + B_j(s) h_j},
    \quad A_j = a_j + s^2 \alpha_j, \quad B_j = b_j + s \beta_j,

n the length of w, whose prior gives a and b, and h's prior gives a_j and b_j. So p(h | u) at a point is a ratio of two
integrals over s alone, the one below with the masses ∫ exp(-A_j h² / 2 + B_j h) dh in the product. Both are taken by the
trapezoidal rule in log s, which is exact to far below the Monte Carlo error once its step is below a standard deviation.

The conditional density given w itself is far narrower than the posterior along the scale, so its average over draws
hangs on few of them; this one's does not. The scale is counted from the w at hand: c = s / ‖w‖.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.distributions import RectifiedNormal
from ppnmf.kernels import cpu, kernels_for
from ppnmf.kernels.cpu import survival_factor
from ppnmf.kernels.lanes import COMPILED, INNER, exp, fused, log, select, total_of
from ppnmf.threads import ordered_map

__all__ = ["Component", "log_density"]

STEP = 0.7  # standard deviations between the nodes: the rule errs by 2 exp(-2 π² / STEP²) of a normal's integral
BELOW, ABOVE = (
    14.0,
    9.0,
)  # standard deviations that the nodes reach; in log s the density falls more slowly below its mode
NEGLIGIBLE = (
    25.0  # nats below the greatest at which the compiled rule takes no more nodes, and no more care of a component
)
NEWTON = 8  # steps towards the mode, at most; the w at hand is a draw, so it is not far
NEAR = 0.5  # standard deviations: a step after which the compiled rule takes no other
MOST = 10_000  # nodes on a side; some dozens are taken
SMALLEST = 1e-260  # precision that stands for none
LOT = 64  # draws a task


class Component(NamedTuple):
    """What p(s, h | u) is made of, float64; B draws, L components that may play the part.

    Args:
        precision, linear: of h's prior, (L, R).
        told_precision, told_linear: what the data add to them given w, (B, L, R).
        other_precision, other_linear: a s² and b s at the w at hand, (B, L).
        n: length of w.
    """

    precision: Tensor
    linear: Tensor
    told_precision: Tensor
    told_linear: Tensor
    other_precision: Tensor
    other_linear: Tensor
    n: int


def log_density(at: Tensor, component: Component) -> Tensor:
    """log p(h | u) at the points h = `at` (B, R), shape (B, L), float64.

    The w at hand must be a draw: the search for the mode in c begins there.
    """
    if kernels_for(at.device) is not cpu:
        return _reference(at, component)
    out = torch.empty(component.other_linear.shape, dtype=torch.float64)
    *tensors, n = component
    own = [values.contiguous().numpy() for values in (at, *tensors)]

    def evaluate(draws: slice) -> None:
        shared, each = own[1:3], [own[0], *own[3:]]
        _evaluate(*(values[draws] for values in each), *shared, float(n), out.numpy()[draws])

    lots = [slice(start, start + LOT) for start in range(0, len(at), LOT)]
    ordered_map(evaluate, lots, 1000.0 * LOT * own[3][0].size)
    return out


def _reference(at: Tensor, component: Component) -> Tensor:
    """In plain torch, for any device."""
    precision, linear, told_precision, told_linear, a, b, n = component
    nodes = torch.arange(-BELOW, ABOVE, STEP, dtype=torch.float64, device=at.device)

    def log_joint(log_c: Tensor) -> Tensor:  # (B, L, nodes): of c and u, with h integrated out
        c = log_c.exp()[..., None]
        A = precision[:, None] + c * c * told_precision[:, :, None]
        B = linear[:, None] + c * told_linear[:, :, None]
        masses = RectifiedNormal(A, B, validate_args=False).log_normalizer.sum(-1)
        return masses + n * log_c + b[..., None] * c[..., 0] - 0.5 * a[..., None] * c[..., 0].square()

    at = at[:, None]
    a_here, b_here = a + (told_precision * at * at).sum(-1), b + (told_linear * at).sum(-1)
    root = (b_here * b_here + 4 * a_here * n).sqrt()
    mode = torch.where(b_here > 0, (b_here + root) / (2 * a_here), 2 * n / (root - b_here))
    deviation = (n + a_here * mode * mode).rsqrt()
    log_c = mode.log()[..., None] + deviation[..., None] * nodes
    above = n * log_c + b_here[..., None] * log_c.exp() - 0.5 * a_here[..., None] * (2 * log_c).exp()
    above = above.logsumexp(-1) + deviation.log() + (linear * at - 0.5 * precision * at * at).sum(-1)

    centre, width = torch.zeros_like(a), torch.full_like(a, 0.5 / math.sqrt(n))
    thirds = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64, device=at.device)
    for _ in range(NEWTON):
        low, middle, high = log_joint(centre[..., None] + width[..., None] * thirds).unbind(-1)
        slope, curvature = (high - low) / width, 4 * (2 * middle - low - high) / width.square()
        curvature = torch.maximum(curvature, 1 / (4 * width).square())
        centre = centre + (slope / curvature).clamp(-4 * width, 4 * width)
        width = curvature.rsqrt()
    below = log_joint(centre[..., None] + width[..., None] * nodes).logsumexp(-1) + width.log()
    return above - below


@njit(**COMPILED)
def _evaluate(at, told_precision, told_linear, a, b, precision, linear, n, out):  # type: ignore[no-untyped-def]
    """`_reference` into out (B, L)."""
    masses = np.empty(at.shape[1])
    for d in range(len(at)):
        best = -np.inf  # of the components so far
        for m in range(len(precision)):
            own = (precision[m], linear[m], told_precision[d, m], told_linear[d, m], a[d, m], b[d, m], n)
            above = _above(at[d], own)
            out[d, m] = above - _below(own, masses, above - best)
            best = max(best, out[d, m])


@njit(**INNER)
def _above(h, own):  # type: ignore[no-untyped-def]
    """Log of the integral of c's density with h at its point."""
    precision, linear, told_precision, told_linear, a, b, n = own
    prior = 0.0
    for j in range(len(h)):
        a += told_precision[j] * h[j] * h[j]
        b += told_linear[j] * h[j]
        prior += linear[j] * h[j] - 0.5 * precision[j] * h[j] * h[j]
    root = math.sqrt(b * b + 4 * a * n)
    mode = (b + root) / (2 * a) if b > 0 else 2 * n / (root - b)
    deviation, centre = 1 / math.sqrt(n + a * mode * mode), math.log(mode)
    peak, total = n * centre + b * mode - 0.5 * a * mode * mode, 1.0
    for side in (-1.0, 1.0):
        x = centre
        for _ in range(MOST):
            x += side * STEP * deviation
            c = math.exp(x)
            fall = n * x + b * c - 0.5 * a * c * c - peak
            if fall < -NEGLIGIBLE:
                break
            total += math.exp(fall)
    return prior + peak + math.log(total * deviation)


@njit(**INNER)
def _below(own, masses, enough):  # type: ignore[no-untyped-def]
    """Log of the integral of c's density with h integrated out; Laplace's where it is `enough` and more, by far."""
    n, centre = own[6], 0.0
    width = 0.5 / math.sqrt(n)
    for _ in range(NEWTON):
        low, middle, high = (
            _log_joint(centre - 0.5 * width, own, masses),
            _log_joint(centre, own, masses),
            _log_joint(centre + 0.5 * width, own, masses),
        )
        slope, curvature = (high - low) / width, 4 * (2 * middle - low - high) / (width * width)
        curvature = max(curvature, 1 / (16 * width * width))
        step = min(max(slope / curvature, -4 * width), 4 * width)
        centre += step
        width = 1 / math.sqrt(curvature)
        if abs(step) < NEAR * width:
            break
    greatest = _log_joint(centre, own, masses)
    if greatest + math.log(width) > enough + NEGLIGIBLE:
        return greatest + math.log(math.sqrt(2 * math.pi) * width / STEP)
    total = 1.0
    for side in (-1.0, 1.0):
        x, before = centre, greatest
        for _ in range(MOST):
            x += side * STEP * width
            here = _log_joint(x, own, masses)
            if here > greatest:
                total, greatest = total * math.exp(greatest - here) + 1.0, here
            else:
                total += math.exp(here - greatest)
            if here < before and here < greatest - NEGLIGIBLE:
                break
            before = here
    return greatest + math.log(total * width)


@njit(**INNER)
def _log_joint(x, own, masses):  # type: ignore[no-untyped-def]
    """Log density of log c = x and u, with h integrated out; masses: room for R numbers."""
    precision, linear, told_precision, told_linear, a, b, n = own
    c = math.exp(x)
    for j in range(len(masses)):
        root = 1.0 / math.sqrt(max(fused(c * c, told_precision[j], precision[j]), SMALLEST))
        bound = -fused(c, told_linear[j], linear[j]) * root
        distance = abs(bound)
        factor, half = survival_factor(distance), 0.5 * distance * distance  # P(Z > |bound|) exp(bound² / 2)
        inside = 1.0 - factor * exp(select(half < 600.0, -half, -600.0))
        masses[j] = log(root * select(bound < 0.0, inside, factor)) + select(bound < 0.0, half, 0.0)
    normal = 0.5 * math.log(2 * math.pi) * len(masses)
    return normal + total_of(masses) + n * x + b * c - 0.5 * a * c * c
