"""Half a sweep, and the noise variance, each in one launch."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ppnmf.kernels import reference
from ppnmf.kernels.cuda.draws import first_accepted, quantile, survival_inverse, uniform_pair
from ppnmf.kernels.cuda.language import constant, device_function, kernel, sum_of
from ppnmf.kernels.reference import GAMMA_PROPOSALS, Natural
from ppnmf.protocols import Statistics
from ppnmf.rng import LOW, Site, Stream

__all__ = ["half_sweep", "inverse_gamma"]

ROWS = 32  # of a factor in a half-sweep's program: one warp, a row a thread
SITE_SIGMA2 = constant(int(Site.SIGMA2))


@device_function
def _explained(F, Q, F_component, Q_component, start, stop, total):  # type: ignore[no-untyped-def]
    """total + Σ Q_l F_l over start <= l < stop."""
    for l in tl.range(start, stop, loop_unroll_factor=4):
        total += tl.load(Q + l * Q_component) * tl.load(F + l * F_component)
    return total


@device_function
def _mode(a, b, old):  # type: ignore[no-untyped-def]
    """max(b / a, 0), or what was there where neither prior nor data say anything."""
    mode = tl.where(b > 0, b / tl.where(b > 0, a, 1.0), 0.0)
    return tl.where((a > 0) | (b != 0), mode, old)


@kernel
def _half_sweep(  # type: ignore[no-untyped-def]
    F, P, Q, precision, linear, keys,
    R: tl.int64, K: tl.int64, first: tl.int64, first_row: tl.int64, step: tl.int64,
    Q_chain: tl.int64, Q_row: tl.int64, Q_from: tl.int64, Q_to: tl.int64,
    precision_row: tl.int64, precision_component: tl.int64, linear_row: tl.int64, linear_component: tl.int64,
    SITE: tl.constexpr, DRAW: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """F (C, K, R) in place; P (C, K, R). Threads past the last row repeat it, and write nothing."""
    chain = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < R
    row = tl.minimum(row, R - 1)
    F = F + chain * K * R + row
    P = P + chain * K * R + row
    Q = Q + chain * Q_chain + row * Q_row
    keys = keys + 2 * chain
    even = tl.full((ROWS,), 0.5, tl.float64)
    odd = even
    for k in tl.range(first, K):
        others = tl.full((ROWS,), 0.0, F.dtype.element_ty)
        others = _explained(F, Q + k * Q_from, R, Q_to, 0, k, others)
        others = _explained(F, Q + k * Q_from, R, Q_to, k + 1, K, others)
        a = tl.load(precision + row * precision_row + k * precision_component).to(tl.float64)
        b = tl.load(linear + row * linear_row + k * linear_component).to(tl.float64)
        a += tl.load(Q + k * Q_from + k * Q_to).to(tl.float64)
        b += tl.load(P + k * R).to(tl.float64) - others.to(tl.float64)
        if DRAW:
            if (k % 2 == 0) | (k == first):
                even, odd = uniform_pair(keys, k // 2, first_row + row, step, SITE)
            w = survival_inverse(a, b, tl.where(k % 2 == 0, even, odd))
        else:
            w = _mode(a, b, tl.load(F + k * R).to(tl.float64))
        tl.store(F + k * R, w.to(F.dtype.element_ty), mask=inside)


def half_sweep(
    F: Tensor,
    statistics: Statistics,
    prior: Natural,
    draw: tuple[Stream, int, Site] | None,
    first_row: int = 0,
    first: int = 0,
    weight: Tensor | None = None,
    fresh: int = 1,
) -> Tensor:
    """`reference.half_sweep`, in one launch, but for steps that reflect; factors and statistics are best stored a component a row.

    Args:
        F: (C, R, K). statistics: P (C, R, K), and Q (C, K, K) or (C, R, K, K).
        prior: precision and linear, (1 | R, 1 | K); on F's device.
        draw, first_row, first, weight, fresh: as there.
    """
    if draw is not None and draw[1] % fresh != 0:
        return reference.half_sweep(F, statistics, prior, draw, first_row, first, weight, fresh)
    C, R, K = F.shape
    if weight is not None:
        statistics = statistics.weighted(weight)
    out = F.mT.clone(memory_format=torch.contiguous_format)
    P = statistics.P.mT.contiguous()
    Q = statistics.Q if statistics.Q.ndim > F.ndim else statistics.Q[:, None].expand(C, R, K, K)
    precision, linear = (natural.expand(R, K) for natural in prior)
    stream, step, site = draw if draw is not None else (None, 0, Site.W)
    keys = out if stream is None else stream.keys_on(F.device)
    _half_sweep[triton.cdiv(R, ROWS), C](
        out, P, Q, precision, linear, keys, R, K, first, first_row, step & LOW, *Q.stride(),
        *precision.stride(), *linear.stride(), int(site), stream is not None, ROWS, num_warps=1, num_stages=1,
    )  # fmt: skip
    return out.mT


@kernel
def _inverse_gamma(  # type: ignore[no-untyped-def]
    scale, out, keys, step: tl.int64, d: tl.float64, spread: tl.float64, power: tl.float64, COUNT: tl.constexpr
):
    chain = tl.program_id(0)
    keys += 2 * chain
    u, v = uniform_pair(keys, 0, tl.arange(0, COUNT), step, SITE_SIGMA2)
    q = u - 0.5
    z = quantile(q, tl.sqrt(-tl.log(tl.where(q < 0, u, 1.0 - u))), q < 0)
    root = 1.0 + z * spread
    cube = root * root * root
    log_cube = tl.log(tl.where(cube > 0, cube, 1.0))
    is_accepted = (cube > 0) & (tl.log(v) < 0.5 * z * z + d * (1.0 - cube + log_cube))
    extra, _ = uniform_pair(keys, 0, tl.full((1,), COUNT, tl.int32), step, SITE_SIGMA2)
    g = first_accepted(cube, is_accepted, COUNT) * d * sum_of(tl.exp(tl.log(extra) * power), 0)
    tl.store(out + chain, tl.load(scale + chain) / g)


def inverse_gamma(shape: float, scale: Tensor, stream: Stream, step: int) -> Tensor:
    """`reference.inverse_gamma`, in one launch: σ² of each chain, (C,) float64; scale (C,)."""
    scale = scale.double().contiguous()
    out = torch.empty_like(scale)
    d = (shape if shape >= 1 else shape + 1) - 1 / 3
    power = 0.0 if shape >= 1 else 1 / shape
    keys = stream.keys_on(scale.device)
    _inverse_gamma[(len(scale),)](scale, out, keys, step & LOW, d, (9 * d) ** -0.5, power, GAMMA_PROPOSALS, num_warps=1)
    return out
