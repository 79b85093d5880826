"""The kernels for NVIDIA GPUs, in Triton: what `reference` defines, chains, replicates or particles as an axis of the grid.

A half-sweep gives each thread one row of a factor, which it takes through its K components without a word to the others;
rows lie side by side (a component a row), so the threads of a warp read and write together, and what a warp re-reads for
the next component is in its cache. A scale move is one launch, a round of shear moves one. Nothing waits for the host.

Sums over components are taken in the factor's own type, as in the reference, without the component that is drawn; the
draw itself is always in float64. Its uniform has 52 bits, which u near 0 and 1 and a bound far in the tail need, and
float32 would take a second set of formulas. A data-centre card has double precision at half its single rate; with a
consumer card's 1/64 the draws are, by count of operations, of the order of reading X. A draw is the tail-safe inverse of
one uniform, not rejection: so it is the reference's to rounding, address by address, and the threads of a warp do the
same work. The tail's steps are skipped by a warp that has no row there.

Triton's interpreter runs the same code on the CPU; it knows no libdevice, hence expm1 and log1p by plain arithmetic.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs  # older versions have none: an ImportError, as without Triton

from ppnmf.kernels import cpu
from ppnmf.kernels.reference import GAMMA_PROPOSALS, GIG_PROPOSALS, Natural, shear_rounds
from ppnmf.protocols import Statistics
from ppnmf.rng import LOW, MULTIPLIERS, WEYL, Site, Stream

__all__ = ["half_sweep", "inverse_gamma", "moved", "residual_where_small", "scale_move", "shear_move"]

ROWS = 32  # of a factor in a half-sweep's program: one warp, a row a thread
SLICE = 1024  # entries of a component that a scale move reads at once
TILE = 1024  # entries of both columns of all pairs that a shear move reads at once
PROGRAMS = 256  # at most, that share a factor in a shear move; each reads what all of them found
GROUP = 8  # of them whose findings are read at once
SIDE = 32  # of a square of X whose residuals a program forms at once

INTERPRETED = knobs.runtime.interpret


def device_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that kernels call: compiled into them, or plain Python in the interpreter, which is slow to enter one."""
    return function if INTERPRETED else triton.jit(function)


def kernel(function: Callable[..., Any]) -> Any:
    """A function to launch; no version of it is compiled for special values of a whole number, such as 1."""
    return triton.jit(do_not_specialize=[n for n, kind in function.__annotations__.items() if kind is tl.int64])(
        function
    )


def constant(value: Any) -> Any:
    return value if INTERPRETED else tl.constexpr(value)


(MULTIPLIER_0, MULTIPLIER_1), (WEYL_0, WEYL_1) = map(constant, MULTIPLIERS), map(constant, WEYL)
SITE_SIGMA2, SITE_SCALE = constant(int(Site.SIGMA2)), constant(int(Site.SCALE))
SITE_SHEAR, SITE_PAIRS = constant(int(Site.SHEAR)), constant(int(Site.SHEAR_PAIRS))
CENTRE_ABOVE, CENTRE_BELOW = constant(cpu.CENTRE[0]), constant(cpu.CENTRE[1])
SHOULDER_ABOVE, SHOULDER_BELOW = constant(cpu.SHOULDER[0]), constant(cpu.SHOULDER[1])
FAR_ABOVE, FAR_BELOW = constant(cpu.FAR[0]), constant(cpu.FAR[1])
MILLS = constant(cpu.MILLS)
TAIL = constant(cpu.TAIL)
BEYOND_LINE = constant(tuple(2 / math.factorial(n) for n in range(13, 1, -1)))  # of (eʸ - 1 - y) / (y²/2)
COSH_1, E = constant(math.cosh(1)), constant(math.e)

# A number in a formula takes the type of what it meets, but one that is assigned to a name or chosen by `tl.where` may
# become float32: such numbers are 0, 1 or infinity here, or stand in `tl.full`.


@device_function
def _sum(x, axis: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.reduce(x, axis, tl.standard._sum_combine)


@device_function
def _least(x, axis: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.reduce(x, axis, tl.standard._elementwise_min)


@device_function
def _polynomial(x, coefficients: tl.constexpr):  # type: ignore[no-untyped-def]
    """By Horner's rule, highest power first."""
    total = x * coefficients[0] + coefficients[1]
    for i in tl.static_range(2, len(coefficients)):
        total = total * x + coefficients[i]
    return total


@device_function
def _unit(high, low):  # type: ignore[no-untyped-def]
    return (high.to(tl.float64) * 1048576.0 + (low >> 12).to(tl.float64) + 0.5) * 2.220446049250313e-16


@device_function
def _uniform_pair(keys, pair, row, step, site: tl.constexpr):  # type: ignore[no-untyped-def]
    """The uniforms of columns 2 pair and 2 pair + 1, bit for bit those of `Stream.uniforms`; keys points at a chain's."""
    k0, k1 = tl.load(keys).to(tl.uint32), tl.load(keys + 1).to(tl.uint32)
    c0, c1, c2, c3 = (
        tl.cast(pair, tl.uint32),
        tl.cast(row, tl.uint32),
        tl.cast(step, tl.uint32),
        tl.cast(site, tl.uint32),
    )
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, MULTIPLIER_0), tl.mul(c0, MULTIPLIER_0, sanitize_overflow=False)
        high1, low1 = tl.umulhi(c2, MULTIPLIER_1), tl.mul(c2, MULTIPLIER_1, sanitize_overflow=False)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = tl.add(k0, WEYL_0, sanitize_overflow=False), tl.add(k1, WEYL_1, sanitize_overflow=False)
    return _unit(c0, c1), _unit(c2, c3)


@device_function
def _quantile(q, r, is_below):  # type: ignore[no-untyped-def]
    """Φ⁻¹(½ + q) (Wichura 1988, AS 241), given √(-log p) of the smaller side's p and whether that is the lower one."""
    c, s, f = 0.180625 - q * q, r - 1.6, r - 5.0
    is_central, is_far = tl.abs(q) <= 0.425, r > 5.0
    above = tl.where(is_far, _polynomial(f, FAR_ABOVE), _polynomial(s, SHOULDER_ABOVE))
    below = tl.where(is_far, _polynomial(f, FAR_BELOW), _polynomial(s, SHOULDER_BELOW))
    above = tl.where(is_central, q * _polynomial(c, CENTRE_ABOVE), tl.where(is_below, -above, above))
    return above / tl.where(is_central, _polynomial(c, CENTRE_BELOW), below)


@device_function
def _survival_factor(x):  # type: ignore[no-untyped-def]
    """P(Z > x) exp(x²/2) for a standard normal Z and x >= 0."""
    return _polynomial((x - 5.6) / (x + 5.6), MILLS) / (1.0 + 1.4142135623730951 * x)


@device_function
def _excess_in_the_tail(bound, target):  # type: ignore[no-untyped-def]
    """e with log P(Z > bound) - log P(Z > bound + e) = target: two steps of Halley's, as in `distributions.rectified_normal`."""
    alpha = tl.maximum(bound, TAIL)
    mills = 2.5066282746310002 * _survival_factor(alpha)
    e = 2.0 * target / (1.0 / mills + tl.sqrt(1.0 / (mills * mills) + 2.0 * target))
    for _ in tl.static_range(2):
        x = alpha + e
        mills_x = 2.5066282746310002 * _survival_factor(x)
        newton = (e * (alpha + 0.5 * e) + tl.log(mills / mills_x) - target) * mills_x
        e -= newton / (1.0 - 0.5 * newton * (1.0 / mills_x - x))
    return e


@device_function
def _survival_inverse(precision, linear, u):  # type: ignore[no-untyped-def]
    """The w with P(w' > w) = u under the density ∝ exp(-precision w²/2 + linear w) on w >= 0."""
    root = tl.maximum(tl.sqrt(precision), -1e-10 * linear)  # a smaller one changes no digit
    bound = -linear / root  # in standard deviations past the mode
    x = tl.abs(bound)
    fall = tl.maximum(-0.5 * x * x, -600.0)  # clear of denormals
    beyond = _survival_factor(x) * tl.exp(fall)  # P(Z > |bound|)
    p = u * tl.where(bound > 0, beyond, 1.0 - beyond)  # P(Z > z)
    q = p - 0.5
    other = tl.where(bound < 0, (1.0 - u) + u * beyond, 1.0 - p)
    r = tl.sqrt(-tl.log(tl.where(q < 0, p, other)))
    e = _quantile(-q, r, q > 0) - bound
    if tl.reduce(bound, 0, tl.standard._elementwise_max) > TAIL:
        e = tl.where(bound > TAIL, _excess_in_the_tail(bound, -tl.log(u)), e)
    return tl.maximum(e, 0.0) / root


@device_function
def _explained(F, Q, F_component, Q_component, start, stop, total):  # type: ignore[no-untyped-def]
    """total + Σ Q_l F_l over start <= l < stop."""
    for l in tl.range(start, stop, loop_unroll_factor=4):
        total += tl.load(Q + l * Q_component) * tl.load(F + l * F_component)
    return total


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
    F, P = F + chain * K * R + row, P + chain * K * R + row
    Q, keys = Q + chain * Q_chain + row * Q_row, keys + 2 * chain
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
                even, odd = _uniform_pair(keys, k // 2, first_row + row, step, SITE)
            w = _survival_inverse(a, b, tl.where(k % 2 == 0, even, odd))
        else:
            old = tl.load(F + k * R).to(tl.float64)
            mode = tl.where(b > 0, b / tl.where(b > 0, a, 1.0), 0.0)
            w = tl.where((a > 0) | (b != 0), mode, old)
        tl.store(F + k * R, w.to(F.dtype.element_ty), mask=inside)


def half_sweep(
    F: Tensor,
    statistics: Statistics,
    prior: Natural,
    draw: tuple[Stream, int, Site] | None,
    first_row: int = 0,
    first: int = 0,
    weight: Tensor | None = None,
) -> Tensor:
    """`reference.half_sweep`, in one launch; factors and statistics are best stored a component a row."""
    C, R, K = F.shape
    if weight is not None:
        statistics = statistics.weighted(weight)
    out, P = F.mT.clone(memory_format=torch.contiguous_format), statistics.P.mT.contiguous()
    Q = statistics.Q if statistics.Q.ndim > F.ndim else statistics.Q[:, None].expand(C, R, K, K)
    precision, linear = (natural.expand(R, K) for natural in prior)
    stream, step, site = draw if draw is not None else (None, 0, Site.W)
    keys = out if stream is None else stream.keys_on(F.device)
    _half_sweep[triton.cdiv(R, ROWS), C](
        out, P, Q, precision, linear, keys, R, K, first, first_row, step & LOW, *Q.stride(),
        *precision.stride(), *linear.stride(), int(site), stream is not None, ROWS, num_warps=1, num_stages=1,
    )  # fmt: skip
    return out.mT


@device_function
def _first_accepted(values, is_accepted, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The first of the values that is accepted; the first of all where none is."""
    place = tl.arange(0, COUNT)
    index = _least(tl.where(is_accepted, place, COUNT), 0) % COUNT
    return _sum(tl.where(place == index, values, 0.0), 0)


@kernel
def _inverse_gamma(  # type: ignore[no-untyped-def]
    scale, out, keys, step: tl.int64, d: tl.float64, spread: tl.float64, power: tl.float64, COUNT: tl.constexpr
):
    chain = tl.program_id(0)
    keys += 2 * chain
    u, v = _uniform_pair(keys, 0, tl.arange(0, COUNT), step, SITE_SIGMA2)
    q = u - 0.5
    z = _quantile(q, tl.sqrt(-tl.log(tl.where(q < 0, u, 1.0 - u))), q < 0)
    root = 1.0 + z * spread
    cube = root * root * root
    log_cube = tl.log(tl.where(cube > 0, cube, 1.0))
    is_accepted = (cube > 0) & (tl.log(v) < 0.5 * z * z + d * (1.0 - cube + log_cube))
    extra, _ = _uniform_pair(keys, 0, tl.full((1,), COUNT, tl.int32), step, SITE_SIGMA2)
    g = _first_accepted(cube, is_accepted, COUNT) * d * _sum(tl.exp(tl.log(extra) * power), 0)
    tl.store(out + chain, tl.load(scale + chain) / g)


def inverse_gamma(shape: float, scale: Tensor, stream: Stream, step: int) -> Tensor:
    """`reference.inverse_gamma`, in one launch."""
    scale = scale.double().contiguous()
    out, d = torch.empty_like(scale), (shape if shape >= 1 else shape + 1) - 1 / 3
    power = 0.0 if shape >= 1 else 1 / shape
    keys = stream.keys_on(scale.device)
    _inverse_gamma[(len(scale),)](scale, out, keys, step & LOW, d, (9 * d) ** -0.5, power, GAMMA_PROPOSALS, num_warps=1)
    return out


@device_function
def _beyond_line(y):  # type: ignore[no-untyped-def]
    """eʸ - 1 - y, keeping its relative accuracy near zero."""
    near = 0.5 * y * y * _polynomial(y, BEYOND_LINE)
    return tl.where(tl.abs(y) < 0.0625, near, (tl.exp(y) - 1.0) - y)


@device_function
def _expm1(y):  # type: ignore[no-untyped-def]
    near = y + 0.5 * y * y * _polynomial(y, BEYOND_LINE)
    return tl.where(tl.abs(y) < 0.0625, near, tl.exp(y) - 1.0)


@device_function
def _log1p(x):  # type: ignore[no-untyped-def]
    """log(1 + x): the rounding of 1 + x is divided out."""
    rounded = 1.0 + x
    step = rounded - 1.0
    return tl.where(step == 0, x, tl.log(rounded) * (x / tl.where(step == 0, 1.0, step)))


@device_function
def _psi(order, alpha, y):  # type: ignore[no-untyped-def]
    """`distributions.inverse_gaussian._psi`; 2 sinh²(y/2) = (eʸ - 1)² / (2 eʸ)."""
    grown = _expm1(y)
    return -0.5 * alpha * grown * grown / (1.0 + grown) - order * _beyond_line(y)


@device_function
def _psi_slope(order, alpha, y):  # type: ignore[no-untyped-def]
    grown = _expm1(y)
    return -0.5 * alpha * (grown + grown / (1.0 + grown)) - order * grown


@device_function
def _log_generalized_inverse_gaussian(order, rate, omega, u, v, w, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """log X of the density ∝ x^(order - 1) exp(-(rate x + omega² / (rate x)) / 2): `_shape` there and `_propose`."""
    radius = tl.sqrt(omega * omega + order * order)
    alpha = omega * (omega / (radius + order))

    drop = alpha * (COSH_1 - 1.0) + order * (E - 2.0)  # -ψ(1)
    right = tl.where(drop < 0.5, tl.log(4.0 / (alpha + 2.0 * order)), 1.0)
    right = tl.where(drop > 2, tl.sqrt(2.0 / (alpha + order)), right)
    drop = alpha * (COSH_1 - 1.0) + order / E  # -ψ(-1)
    far = tl.log(1.0 + 1.0 / alpha + (1.0 / alpha) * tl.sqrt(1.0 + 2.0 * alpha))
    left = tl.where(drop < 0.5, tl.minimum(1.0 / order, far), 1.0)
    left = tl.where(drop > 2, tl.sqrt(4.0 / (alpha * COSH_1 + order)), left)

    width_right, width_left = -1.0 / _psi_slope(order, alpha, right), 1.0 / _psi_slope(order, alpha, -left)
    end = right + width_right * _psi(order, alpha, right)
    start = left + width_left * _psi(order, alpha, -left)
    flat = start + end
    place = u * (width_left + flat + width_right)
    in_flat, tail = place < flat, tl.log(v)
    outside = tl.where(place < flat + width_right, end - width_right * tail, width_left * tail - start)
    y = tl.where(in_flat, flat * v - start, outside)
    is_accepted = tl.log(w) + tl.where(in_flat, 0.0, tail) <= _psi(order, alpha, y)
    return _first_accepted(y, is_accepted, COUNT) + tl.log(order + radius) - tl.log(rate)


@device_function
def _rated_sum(F, rate, rate_row, length, SLICE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Σ rate_i F_i, float64."""
    total = tl.full((SLICE,), 0.0, tl.float64)
    for start in tl.range(0, length, SLICE):
        i = start + tl.arange(0, SLICE).to(tl.int64)
        inside = i < length
        total += tl.load(F + i, mask=inside, other=0.0).to(tl.float64) * tl.load(rate + i * rate_row, inside, other=0.0)
    return _sum(total, 0)


@device_function
def _multiplied(F, out, factor, length, SLICE: tl.constexpr):  # type: ignore[no-untyped-def]
    for start in tl.range(0, length, SLICE):
        i = start + tl.arange(0, SLICE).to(tl.int64)
        values = tl.load(F + i, mask=i < length, other=0.0).to(tl.float64) * factor
        tl.store(out + i, values.to(out.dtype.element_ty), mask=i < length)


@kernel
def _scale_move(  # type: ignore[no-untyped-def]
    W, H, out_W, out_H, rate_W, rate_H, keys, step: tl.int64, N: tl.int64, D: tl.int64, K: tl.int64,
    rate_W_row: tl.int64, rate_W_component: tl.int64, rate_H_component: tl.int64, rate_H_row: tl.int64,
    COUNT: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    """A program a chain and component: W (C, K, N), H (C, K, D)."""
    k, chain = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    column = chain * K + k
    a = 2.0 * _rated_sum(W + column * N, rate_W + k * rate_W_component, rate_W_row, N, SLICE)
    b = 2.0 * _rated_sum(H + column * D, rate_H + k * rate_H_component, rate_H_row, D, SLICE)
    is_alive = (a > 0) & (b > 0)
    a, b = tl.where(is_alive, a, 1.0), tl.where(is_alive, b, 1.0)
    p = tl.cast(N - D, tl.float64)
    trial = tl.arange(0, COUNT) * K + k
    u, v = _uniform_pair(keys + 2 * chain, 0, trial, step, SITE_SCALE)
    w, _ = _uniform_pair(keys + 2 * chain, 1, trial, step, SITE_SCALE)
    rate, omega = tl.where(p < 0, b, a), tl.sqrt(a) * tl.sqrt(b)
    log_c = _log_generalized_inverse_gaussian(tl.abs(p), rate, omega, u, v, w, COUNT)
    log_c = tl.where(is_alive, tl.where(p < 0, -log_c, log_c), 0.0)
    _multiplied(W + column * N, out_W + column * N, tl.exp(log_c), N, SLICE)
    _multiplied(H + column * D, out_H + column * D, tl.exp(-log_c), D, SLICE)


def scale_move(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """`reference.scale_move`, in one launch."""
    (C, N, K), D = W.shape, H.shape[-1]
    W, H = W.mT.contiguous(), H.contiguous()
    out_W, out_H = torch.empty_like(W), torch.empty_like(H)
    rate_W, rate_H = rates[0].double().expand(N, K), rates[1].double().expand(K, D)
    _scale_move[K, C](
        W, H, out_W, out_H, rate_W, rate_H, stream.keys_on(W.device), step & LOW, N, D, K,
        *rate_W.stride(), *rate_H.stride(), GIG_PROPOSALS, SLICE, num_warps=8,
    )  # fmt: skip
    return out_W.mT, out_H


@kernel
def _pairing_uniforms(out, keys, step: tl.int64, K: tl.int64, rounds: tl.int64, PAIRS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The uniforms (C, rounds, K) whose order pairs the components."""
    turn, chain = tl.program_id(0), tl.program_id(1).to(tl.int64)
    pair = tl.arange(0, PAIRS)
    even, odd = _uniform_pair(keys + 2 * chain, pair, turn, step, SITE_PAIRS)
    out += (chain * rounds + turn) * K + 2 * pair
    tl.store(out, even, mask=2 * pair < K)
    tl.store(out + 1, odd, mask=2 * pair + 1 < K)


@device_function
def _truncated_exponential(slope, low, high, u):  # type: ignore[no-untyped-def]
    """`reference._truncated_exponential`."""
    steep, width = tl.abs(slope), high - low
    is_flat = steep * width < 1e-12
    curved = -_log1p(u * _expm1(-steep * width)) / tl.where(is_flat, 1.0, steep)
    e = tl.minimum(tl.where(is_flat, u * width, curved), width)
    t = tl.where(slope >= 0, low + e, high - e)
    return tl.where(t - t == 0, t, 0.0)


@device_function
def _shears(found, keys, turn, step, programs_W, programs, PAIRS: tl.constexpr, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]
    """t of each pair, from the slopes and least ratios that the programs found: (programs, 2, PAIRS)."""
    infinity = tl.full((GROUP, PAIRS), float("inf"), tl.float64)
    slope = tl.full((GROUP, PAIRS), 0.0, tl.float64)
    in_W, in_H = infinity, infinity
    pair = tl.arange(0, PAIRS)
    for start in tl.range(0, programs, GROUP):
        program = start + tl.arange(0, GROUP)[:, None]
        place = found + 2 * PAIRS * program + pair[None, :]
        inside = (program < programs) & (pair >= 0)[None, :]
        slope += tl.load(place, mask=inside, other=0.0)
        ratio = tl.load(place + PAIRS, mask=inside, other=float("inf"))
        in_W = tl.minimum(in_W, tl.where(program < programs_W, ratio, infinity))
        in_H = tl.minimum(in_H, tl.where(program < programs_W, infinity, ratio))
    even, odd = _uniform_pair(keys, pair // 2, turn, step, SITE_SHEAR)
    u = tl.where(pair % 2 == 0, even, odd)
    return _truncated_exponential(_sum(slope, 0), -_least(in_W, 0), _least(in_H, 0), u)


@device_function
def _shear_rows(  # type: ignore[no-untyped-def]
    F, rate, rate_row, rate_component, length, begin, end, turn, rounds, sign,
    before_from, before_to, t, now_from, now_to, is_pair, found, PAIRS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """F_to ← F_to + t F_from for the pairs of the round before; then slope and least ratio of the present one's."""
    slope = tl.full((PAIRS, ROWS), 0.0, tl.float64)
    infinity = tl.full((PAIRS, ROWS), float("inf"), F.dtype.element_ty)
    least = infinity
    for start in tl.range(begin, end, ROWS):
        row = start + tl.arange(0, ROWS)[None, :]
        inside = is_pair[:, None] & (row < length)
        if turn > 0:
            place = F + before_to[:, None] * length + row
            added = tl.load(F + before_from[:, None] * length + row, mask=inside, other=0.0).to(tl.float64)
            moved = tl.load(place, mask=inside, other=0.0).to(tl.float64) + sign * t[:, None] * added
            tl.store(place, tl.maximum(moved, 0.0).to(F.dtype.element_ty), mask=inside)
            tl.debug_barrier()  # the present pairs are others: a thread reads what its neighbours wrote
        if turn < rounds:
            below = tl.load(F + now_from[:, None] * length + row, mask=inside, other=0.0)
            above = tl.load(F + now_to[:, None] * length + row, mask=inside, other=0.0)
            rates = tl.load(rate + now_to[:, None] * rate_component + row * rate_row, mask=inside, other=0.0)
            slope += rates * below.to(tl.float64)
            is_bound = below > 0
            least = tl.minimum(least, tl.where(is_bound, above / tl.where(is_bound, below, 1.0), infinity))
    if turn < rounds:
        pair = tl.arange(0, PAIRS)
        tl.store(found + pair, sign * _sum(slope, 1))
        tl.store(found + PAIRS + pair, _least(least, 1).to(tl.float64))


@kernel
def _shear_round(  # type: ignore[no-untyped-def]
    W, H, rate_W, rate_H, order, found, keys,
    step: tl.int64, turn: tl.int64, rounds: tl.int64, N: tl.int64, D: tl.int64, K: tl.int64,
    programs_W: tl.int64, span_W: tl.int64, span_H: tl.int64,
    rate_W_row: tl.int64, rate_W_component: tl.int64, rate_H_component: tl.int64, rate_H_row: tl.int64,
    PAIRS: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """End the round before `turn` and begin that one, in place: W (C, K, N), H (C, K, D), order (C, rounds, K).

    found (2, C, programs, 2, PAIRS) is written for one round and read for the next by every program. In W a pair (k, l)
    adds t W_k to W_l; in H it subtracts t H_l from H_k, which is the same with k and l, t and -t swapped.
    """
    program, chain = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    programs, chains = tl.num_programs(0).to(tl.int64), tl.num_programs(1).to(tl.int64)
    pair = tl.arange(0, PAIRS)
    is_pair = 2 * pair + 1 < K
    written = found + ((turn % 2) * chains + chain) * programs * 2 * PAIRS + program * 2 * PAIRS
    read = found + (((turn + 1) % 2) * chains + chain) * programs * 2 * PAIRS
    pairs = order + (chain * rounds + turn) * K + 2 * pair
    now = is_pair & (turn < rounds)
    now_k, now_l = tl.load(pairs, mask=now, other=0), tl.load(pairs + 1, mask=now, other=0)
    before = is_pair & (turn > 0)
    before_k, before_l = tl.load(pairs - K, mask=before, other=0), tl.load(pairs + 1 - K, mask=before, other=0)
    t = tl.full((PAIRS,), 0.0, tl.float64)
    if turn > 0:
        t = _shears(read, keys + 2 * chain, turn - 1, step, programs_W, programs, PAIRS, GROUP)
    if program < programs_W:
        begin = program * span_W
        _shear_rows(
            W + chain * K * N, rate_W, rate_W_row, rate_W_component, N, begin, tl.minimum(begin + span_W, N), turn,
            rounds, 1.0, before_k, before_l, t, now_k, now_l, is_pair, written, PAIRS, ROWS,
        )  # fmt: skip
    else:
        begin = (program - programs_W) * span_H
        _shear_rows(
            H + chain * K * D, rate_H, rate_H_row, rate_H_component, D, begin, tl.minimum(begin + span_H, D), turn,
            rounds, -1.0, before_l, before_k, t, now_l, now_k, is_pair, written, PAIRS, ROWS,
        )  # fmt: skip


def shear_move(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """`reference.shear_move`, in a launch a round and one more.

    A round ends where the next begins, in the same launch: all programs read what each found and draw the same t.
    """
    (C, N, K), D = W.shape, H.shape[-1]
    W, H = (F.clone(memory_format=torch.contiguous_format) for F in (W.mT, H))
    rounds = shear_rounds(K)
    if rounds == 0:
        return W.mT, H
    keys, pairs = stream.keys_on(W.device), triton.next_power_of_2(K // 2)
    rate_W, rate_H = rates[0].double().expand(N, K), rates[1].double().expand(K, D)
    uniforms = torch.empty(C, rounds, K, dtype=torch.float64, device=W.device)
    _pairing_uniforms[rounds, C](uniforms, keys, step & LOW, K, rounds, triton.next_power_of_2(K), num_warps=1)
    rows = min(TILE // pairs, 256)
    (programs_W, span_W), (programs_H, span_H) = _shares(N, rows), _shares(D, rows)
    found = torch.empty(2, C, programs_W + programs_H, 2, pairs, dtype=torch.float64, device=W.device)
    order = uniforms.argsort(-1)
    for turn in range(rounds + 1):
        _shear_round[programs_W + programs_H, C](
            W, H, rate_W, rate_H, order, found, keys, step & LOW, turn, rounds, N, D, K, programs_W, span_W, span_H,
            *rate_W.stride(), *rate_H.stride(), pairs, rows, GROUP, num_warps=8, num_stages=1,
        )  # fmt: skip
    return W.mT, H


def _shares(length: int, rows: int) -> tuple[int, int]:
    """How many programs share the rows of a factor, and how many each has: whole tiles."""
    span = rows * triton.cdiv(triton.cdiv(length, rows), PROGRAMS)
    return triton.cdiv(length, span), span


@kernel
def _residual_where_small(  # type: ignore[no-untyped-def]
    left, least, X, weight, W, H, out, N: tl.int64, D: tl.int64, K: tl.int64,
    weight_row: tl.int64, weight_column: tl.int64,
    WEIGHTED: tl.constexpr, SIDE: tl.constexpr, COMPONENTS: tl.constexpr,
):  # fmt: skip
    """Σ weight (x - (WH))² of SIDE rows, unless left > least; W (C, K, N), H (C, K, D), out (C, programs)."""
    program, chain = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    dtype = X.dtype.element_ty
    total = tl.full((SIDE, SIDE), 0.0, tl.float64)
    if (tl.load(left + chain) > tl.load(least)) == 0:  # NaN too
        row = (program * SIDE + tl.arange(0, SIDE))[:, None]
        for start in tl.range(0, D, SIDE):
            column = (start + tl.arange(0, SIDE).to(tl.int64))[None, :]
            modelled = tl.full((SIDE, SIDE), 0.0, dtype)
            for first in tl.range(0, K, COMPONENTS):
                k = first + tl.arange(0, COMPONENTS)
                in_W, in_H = (row < N) & (k < K)[None, :], (k < K)[:, None] & (column < D)
                part_W = tl.load(W + (chain * K + k[None, :]) * N + row, mask=in_W, other=0.0)
                part_H = tl.load(H + (chain * K + k[:, None]) * D + column, mask=in_H, other=0.0)
                modelled = tl.dot(part_W, part_H, modelled, input_precision="ieee", out_dtype=dtype)
            inside = (row < N) & (column < D)
            residual = (tl.load(X + row * D + column, mask=inside, other=0.0) - modelled).to(tl.float64)
            square = residual * residual
            if WEIGHTED:
                square *= tl.load(weight + row * weight_row + column * weight_column, mask=inside, other=0.0).to(
                    tl.float64
                )
            total += tl.where(inside, square, 0.0)
    tl.store(out + chain * tl.num_programs(0) + program, _sum(_sum(total, 1), 0))


def residual_where_small(left: Tensor, least: float, X: Tensor, weight: Tensor | None, W: Tensor, H: Tensor) -> Tensor:
    """`reference.residual_where_small`, in one launch whose programs stop at once where nothing is to be done."""
    (C, N, K), D = W.shape, H.shape[-1]
    X, W, H = X.contiguous(), W.mT.contiguous(), H.contiguous()
    weights = (X if weight is None else weight).expand(N, D)
    bound = torch.full((1,), least, dtype=torch.float64, device=X.device)
    anew = torch.empty(C, triton.cdiv(N, SIDE), dtype=torch.float64, device=X.device)
    _residual_where_small[anew.shape[1], C](
        left, bound, X, weights, W, H, anew, N, D, K, *weights.stride(), weight is not None, SIDE, 16,
        num_warps=4, num_stages=1,
    )  # fmt: skip
    return torch.where(left > least, left, anew.sum(-1))


def moved(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """`reference.moved`: both moves."""
    W, H = scale_move(W, H, rates, stream, step)
    return shear_move(W, H, rates, stream, step)
