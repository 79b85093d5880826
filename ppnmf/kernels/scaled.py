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
from ppnmf.kernels.cpu.normal import survival_factor
from ppnmf.kernels.lanes import ENTRY, INLINED, INNER, exp, fused, log, select, total_of
from ppnmf.threads import ordered_map

__all__ = ["Component", "log_density"]

STEP = 0.7  # standard deviations between the nodes: the rule errs by 2 exp(-2 π² / STEP²) of a normal's integral
BELOW = 14.0  # standard deviations that the nodes reach below the mode: in log s the density falls more slowly there
ABOVE = 9.0  # and above it
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
        data_precision, data_linear: what the data add to them given w, (B, L, R).
        other_precision, other_linear: a s² and b s at the w at hand, (B, L).
        n: length of w.
    """

    precision: Tensor
    linear: Tensor
    data_precision: Tensor
    data_linear: Tensor
    other_precision: Tensor
    other_linear: Tensor
    n: int


def log_density(at: Tensor, component: Component) -> Tensor:
    """log p(h | u) at the points h = `at` (B, R), shape (B, L), float64.

    The w at hand must be a draw: the search for the mode in c begins there. A component that is `NEGLIGIBLE` beside another
    of the same draw is worked out less closely.
    """
    if kernels_for(at.device) is not cpu:
        return _reference(at, component)
    out = torch.empty(component.other_linear.shape, dtype=torch.float64)
    *tensors, n = component
    precision, linear, *of_draws = (values.contiguous().numpy() for values in tensors)
    points = at.contiguous().numpy()

    def evaluate(draws: slice) -> None:
        own = [values[draws] for values in of_draws]
        _evaluate(points[draws], *own, precision, linear, float(n), out.numpy()[draws])

    lots = [slice(start, start + LOT) for start in range(0, len(at), LOT)]
    ordered_map(evaluate, lots, 1000.0 * LOT * of_draws[0][0].size)
    return out


def _reference(at: Tensor, component: Component) -> Tensor:
    """`log_density` in plain torch, for any device."""
    nodes = torch.arange(-BELOW, ABOVE, STEP, dtype=torch.float64, device=at.device)
    centre, width = _mode(component)
    log_joint = _log_joint_of_scale(component, centre[..., None] + width[..., None] * nodes)
    return _log_above(at[:, None], component, nodes) - (log_joint.logsumexp(-1) + width.log())


def _log_above(at: Tensor, component: Component, nodes: Tensor) -> Tensor:
    """Log of the integral of c's density with h at its point, (B, L); at (B, 1, R)."""
    precision, linear, data_precision, data_linear, a, b, n = component
    a = a + (data_precision * at * at).sum(-1)
    b = b + (data_linear * at).sum(-1)
    root = (b * b + 4 * a * n).sqrt()
    mode = torch.where(b > 0, (b + root) / (2 * a), 2 * n / (root - b))
    deviation = (n + a * mode * mode).rsqrt()
    log_c = mode.log()[..., None] + deviation[..., None] * nodes
    values = n * log_c + b[..., None] * log_c.exp() - 0.5 * a[..., None] * (2 * log_c).exp()
    return values.logsumexp(-1) + deviation.log() + (linear * at - 0.5 * precision * at * at).sum(-1)


def _mode(component: Component) -> tuple[Tensor, Tensor]:
    """Where log c's density with h integrated out is greatest, and its width there, both (B, L)."""
    centre = torch.zeros_like(component.other_precision)
    width = torch.full_like(centre, 0.5 / math.sqrt(component.n))
    thirds = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64, device=centre.device)
    for _ in range(NEWTON):
        values = _log_joint_of_scale(component, centre[..., None] + width[..., None] * thirds)
        low, middle, high = values.unbind(-1)
        slope = (high - low) / width
        curvature = 4 * (2 * middle - low - high) / width.square()
        curvature = torch.maximum(curvature, 1 / (4 * width).square())
        centre = centre + (slope / curvature).clamp(-4 * width, 4 * width)
        width = curvature.rsqrt()
    return centre, width


def _log_joint_of_scale(component: Component, log_c: Tensor) -> Tensor:
    """Log density of log c (B, L, nodes) and u, with h integrated out."""
    precision, linear, data_precision, data_linear, a, b, n = component
    c = log_c.exp()[..., None]
    A = precision[:, None] + c * c * data_precision[:, :, None]
    B = linear[:, None] + c * data_linear[:, :, None]
    masses = RectifiedNormal(A, B, validate_args=False).log_normalizer.sum(-1)
    return masses + n * log_c + b[..., None] * c[..., 0] - 0.5 * a[..., None] * c[..., 0].square()


class One(NamedTuple):
    """A `Component` of one draw and one label, as the compiled functions have it."""

    precision: np.ndarray  # (R,)
    linear: np.ndarray
    data_precision: np.ndarray
    data_linear: np.ndarray
    a: float
    b: float
    n: float


@njit(**ENTRY)
def _evaluate(at, data_precision, data_linear, a, b, precision, linear, n, out):  # type: ignore[no-untyped-def]
    """`_reference` into out (B, L)."""
    masses = np.empty(at.shape[1])
    for d in range(len(at)):
        best = -np.inf  # of the components so far
        for m in range(len(precision)):
            one = One(precision[m], linear[m], data_precision[d, m], data_linear[d, m], a[d, m], b[d, m], n)
            above = _above(at[d], one)
            out[d, m] = above - _below(one, masses, above - best)
            best = max(best, out[d, m])


@njit(**INLINED)
def _above(h, one):  # type: ignore[no-untyped-def]
    """Log of the integral of c's density with h at its point."""
    a = one.a
    b = one.b
    n = one.n
    prior = 0.0
    for j in range(len(h)):
        a += one.data_precision[j] * h[j] * h[j]
        b += one.data_linear[j] * h[j]
        prior += one.linear[j] * h[j] - 0.5 * one.precision[j] * h[j] * h[j]
    root = math.sqrt(b * b + 4 * a * n)
    mode = (b + root) / (2 * a) if b > 0 else 2 * n / (root - b)
    deviation = 1 / math.sqrt(n + a * mode * mode)
    peak = n * math.log(mode) + b * mode - 0.5 * a * mode * mode
    total = 1.0
    for side in (-1.0, 1.0):
        x = math.log(mode)
        for _ in range(MOST):
            x += side * STEP * deviation
            c = math.exp(x)
            fall = n * x + b * c - 0.5 * a * c * c - peak
            if fall < -NEGLIGIBLE:
                break
            total += math.exp(fall)
    return prior + peak + math.log(total * deviation)


@njit(**INLINED)
def _below(one, masses, enough):  # type: ignore[no-untyped-def]
    """Log of the integral of c's density with h integrated out; Laplace's where it is `enough` and more, by far."""
    centre, width = _centre_and_width(one, masses)
    greatest = _log_joint(centre, one, masses)
    if greatest + math.log(width) > enough + NEGLIGIBLE:
        return greatest + math.log(math.sqrt(2 * math.pi) * width / STEP)
    total = 1.0
    for side in (-1.0, 1.0):
        x = centre
        before = greatest
        for _ in range(MOST):
            x += side * STEP * width
            here = _log_joint(x, one, masses)
            if here > greatest:
                total = total * math.exp(greatest - here) + 1.0
                greatest = here
            else:
                total += math.exp(here - greatest)
            if here < before and here < greatest - NEGLIGIBLE:
                break
            before = here
    return greatest + math.log(total * width)


@njit(**INLINED)
def _centre_and_width(one, masses):  # type: ignore[no-untyped-def]
    """`_mode` of one."""
    centre = 0.0
    width = 0.5 / math.sqrt(one.n)
    for _ in range(NEWTON):
        low = _log_joint(centre - 0.5 * width, one, masses)
        middle = _log_joint(centre, one, masses)
        high = _log_joint(centre + 0.5 * width, one, masses)
        slope = (high - low) / width
        curvature = 4 * (2 * middle - low - high) / (width * width)
        curvature = max(curvature, 1 / (16 * width * width))
        step = min(max(slope / curvature, -4 * width), 4 * width)
        centre += step
        width = 1 / math.sqrt(curvature)
        if abs(step) < NEAR * width:
            break
    return centre, width


@njit(**INNER)
def _log_joint(x, one, masses):  # type: ignore[no-untyped-def]
    """Log density of log c = x and u, with h integrated out; masses: room for R numbers."""
    c = math.exp(x)
    for j in range(len(masses)):
        precision = max(fused(c * c, one.data_precision[j], one.precision[j]), SMALLEST)
        masses[j] = _log_mass(precision, fused(c, one.data_linear[j], one.linear[j]))
    normal = 0.5 * math.log(2 * math.pi) * len(masses)
    return normal + total_of(masses) + one.n * x + one.b * c - 0.5 * one.a * c * c


@njit(**INLINED)
def _log_mass(precision, linear):  # type: ignore[no-untyped-def]
    """log ∫ exp(-precision h² / 2 + linear h) dh over h >= 0, less ½ log 2π; without branches."""
    root = 1.0 / math.sqrt(precision)
    bound = -linear * root
    distance = abs(bound)
    factor = survival_factor(distance)  # P(Z > |bound|) exp(bound² / 2)
    half = 0.5 * distance * distance
    inside = 1.0 - factor * exp(select(half < 600.0, -half, -600.0))
    return log(root * select(bound < 0.0, inside, factor)) + select(bound < 0.0, half, 0.0)
