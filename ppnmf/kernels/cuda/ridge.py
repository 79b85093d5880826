"""The moves along the ridge: the scales in one launch, the shears in a launch a round and one more."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ppnmf.kernels.cuda.draws import log_generalized_inverse_gaussian, truncated_exponential, uniform_pair
from ppnmf.kernels.cuda.language import constant, device_function, kernel, least_of, sum_of
from ppnmf.kernels.reference import GIG_PROPOSALS, shear_rounds
from ppnmf.rng import LOW, Site, Stream

__all__ = ["moved", "scale_move", "shear_move"]

SLICE = 1024  # entries of a component that a scale move reads at once
TILE = 1024  # entries of both columns of all pairs that a shear move reads at once
PROGRAMS = 256  # at most, that share a factor in a shear move; each reads what all of them found
GROUP = 8  # of them whose findings are read at once
SITE_SCALE = constant(int(Site.SCALE))
SITE_SHEAR = constant(int(Site.SHEAR))
SITE_PAIRS = constant(int(Site.SHEAR_PAIRS))


@device_function
def _rated_sum(F, rate, rate_row, length, SLICE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Σ rate_i F_i, float64."""
    total = tl.full((SLICE,), 0.0, tl.float64)
    for start in tl.range(0, length, SLICE):
        i = start + tl.arange(0, SLICE).to(tl.int64)
        inside = i < length
        total += tl.load(F + i, mask=inside, other=0.0).to(tl.float64) * tl.load(rate + i * rate_row, inside, other=0.0)
    return sum_of(total, 0)


@device_function
def _multiplied(F, out, factor, length, SLICE: tl.constexpr):  # type: ignore[no-untyped-def]
    """out = factor F, so many entries of both."""
    for start in tl.range(0, length, SLICE):
        i = start + tl.arange(0, SLICE).to(tl.int64)
        values = tl.load(F + i, mask=i < length, other=0.0).to(tl.float64) * factor
        tl.store(out + i, values.to(out.dtype.element_ty), mask=i < length)


@device_function
def _drawn_log_scale(p, a, b, keys, step, k, K, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """log c of component k of K, c with density ∝ c^(p - 1) exp(-(a c + b / c) / 2)."""
    trial = tl.arange(0, COUNT) * K + k
    u, v = uniform_pair(keys, 0, trial, step, SITE_SCALE)
    w, _ = uniform_pair(keys, 1, trial, step, SITE_SCALE)
    rate = tl.where(p < 0, b, a)
    omega = tl.sqrt(a) * tl.sqrt(b)
    log_c = log_generalized_inverse_gaussian(tl.abs(p), rate, omega, u, v, w, COUNT)
    return tl.where(p < 0, -log_c, log_c)


@kernel
def _scale_move(  # type: ignore[no-untyped-def]
    W, H, out_W, out_H, rate_W, rate_H, keys, step: tl.int64, N: tl.int64, D: tl.int64, K: tl.int64,
    rate_W_row: tl.int64, rate_W_component: tl.int64, rate_H_component: tl.int64, rate_H_row: tl.int64,
    COUNT: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    """A program a chain and component: W (C, K, N), H (C, K, D)."""
    k = tl.program_id(0).to(tl.int64)
    chain = tl.program_id(1).to(tl.int64)
    column = chain * K + k
    a = 2.0 * _rated_sum(W + column * N, rate_W + k * rate_W_component, rate_W_row, N, SLICE)
    b = 2.0 * _rated_sum(H + column * D, rate_H + k * rate_H_component, rate_H_row, D, SLICE)
    is_alive = (a > 0) & (b > 0)
    a = tl.where(is_alive, a, 1.0)
    b = tl.where(is_alive, b, 1.0)
    log_c = _drawn_log_scale(tl.cast(N - D, tl.float64), a, b, keys + 2 * chain, step, k, K, COUNT)
    log_c = tl.where(is_alive, log_c, 0.0)
    _multiplied(W + column * N, out_W + column * N, tl.exp(log_c), N, SLICE)
    _multiplied(H + column * D, out_H + column * D, tl.exp(-log_c), D, SLICE)


def scale_move(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """`reference.scale_move`, in one launch; W (C, N, K), H (C, K, D), rates broadcastable to (N, K) and (K, D)."""
    C, N, K = W.shape
    D = H.shape[-1]
    W = W.mT.contiguous()
    H = H.contiguous()
    out_W = torch.empty_like(W)
    out_H = torch.empty_like(H)
    rate_W = rates[0].double().expand(N, K)
    rate_H = rates[1].double().expand(K, D)
    _scale_move[K, C](
        W, H, out_W, out_H, rate_W, rate_H, stream.keys_on(W.device), step & LOW, N, D, K,
        *rate_W.stride(), *rate_H.stride(), GIG_PROPOSALS, SLICE, num_warps=8,
    )  # fmt: skip
    return out_W.mT, out_H


@kernel
def _pairing_uniforms(out, keys, step: tl.int64, K: tl.int64, rounds: tl.int64, PAIRS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The uniforms (C, rounds, K) whose order pairs the components."""
    turn = tl.program_id(0)
    chain = tl.program_id(1).to(tl.int64)
    pair = tl.arange(0, PAIRS)
    even, odd = uniform_pair(keys + 2 * chain, pair, turn, step, SITE_PAIRS)
    out += (chain * rounds + turn) * K + 2 * pair
    tl.store(out, even, mask=2 * pair < K)
    tl.store(out + 1, odd, mask=2 * pair + 1 < K)


@device_function
def _shears(found, keys, turn, step, programs_W, programs, PAIRS: tl.constexpr, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]
    """t of each pair (PAIRS,), from the slopes and least ratios that the programs found: (programs, 2, PAIRS).

    The first `programs_W` of them have looked at W, the others at H.
    """
    infinity = tl.full((GROUP, PAIRS), float("inf"), tl.float64)
    slope = tl.full((GROUP, PAIRS), 0.0, tl.float64)
    in_W = infinity
    in_H = infinity
    pair = tl.arange(0, PAIRS)
    for start in tl.range(0, programs, GROUP):
        program = start + tl.arange(0, GROUP)[:, None]
        place = found + 2 * PAIRS * program + pair[None, :]
        inside = (program < programs) & (pair >= 0)[None, :]
        slope += tl.load(place, mask=inside, other=0.0)
        ratio = tl.load(place + PAIRS, mask=inside, other=float("inf"))
        in_W = tl.minimum(in_W, tl.where(program < programs_W, ratio, infinity))
        in_H = tl.minimum(in_H, tl.where(program < programs_W, infinity, ratio))
    even, odd = uniform_pair(keys, pair // 2, turn, step, SITE_SHEAR)
    u = tl.where(pair % 2 == 0, even, odd)
    return truncated_exponential(sum_of(slope, 0), -least_of(in_W, 0), least_of(in_H, 0), u)


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
        tl.store(found + pair, sign * sum_of(slope, 1))
        tl.store(found + PAIRS + pair, least_of(least, 1).to(tl.float64))


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
    program = tl.program_id(0).to(tl.int64)
    chain = tl.program_id(1).to(tl.int64)
    programs = tl.num_programs(0).to(tl.int64)
    chains = tl.num_programs(1).to(tl.int64)
    pair = tl.arange(0, PAIRS)
    is_pair = 2 * pair + 1 < K
    written = found + ((turn % 2) * chains + chain) * programs * 2 * PAIRS + program * 2 * PAIRS
    read = found + (((turn + 1) % 2) * chains + chain) * programs * 2 * PAIRS
    pairs = order + (chain * rounds + turn) * K + 2 * pair
    now = is_pair & (turn < rounds)
    now_k = tl.load(pairs, mask=now, other=0)
    now_l = tl.load(pairs + 1, mask=now, other=0)
    before = is_pair & (turn > 0)
    before_k = tl.load(pairs - K, mask=before, other=0)
    before_l = tl.load(pairs + 1 - K, mask=before, other=0)
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
    C, N, K = W.shape
    D = H.shape[-1]
    W, H = (F.clone(memory_format=torch.contiguous_format) for F in (W.mT, H))
    rounds = shear_rounds(K)
    if rounds == 0:
        return W.mT, H
    keys = stream.keys_on(W.device)
    pairs = triton.next_power_of_2(K // 2)
    rate_W = rates[0].double().expand(N, K)
    rate_H = rates[1].double().expand(K, D)
    uniforms = torch.empty(C, rounds, K, dtype=torch.float64, device=W.device)
    _pairing_uniforms[rounds, C](uniforms, keys, step & LOW, K, rounds, triton.next_power_of_2(K), num_warps=1)
    rows = min(TILE // pairs, 256)
    programs_W, span_W = _shares(N, rows)
    programs_H, span_H = _shares(D, rows)
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


def moved(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """`reference.moved`: both moves."""
    W, H = scale_move(W, H, rates, stream, step)
    return shear_move(W, H, rates, stream, step)
