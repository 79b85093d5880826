"""One sweep over the factors of a Gaussian model, drawn or at the mode, in a single pass over the row blocks of X.

For each block: P = X Hᵀ, update its rows of W, add to Wᵀ W and Xᵀ W; then update H. Blocks are the same whatever the
number of threads, each is worked on by one thread, and their sums are added in order, so the bits are the same too.

`swept` is what models offer as `protocols.Sweeping.sweep`: so many whole sweeps, σ² and the moves along the ridge included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.gaussian import collapsed, restricted, ridge, statistics
from ppnmf.gaussian.given import Given
from ppnmf.gaussian.noise import Noise, NoisePrior, log_likelihood
from ppnmf.gaussian.pinned import FLAT, exact, flattened
from ppnmf.kernels import cpu, dense, kernels_for, split
from ppnmf.kernels.masked import Missing
from ppnmf.priors import RectifiedPrior
from ppnmf.protocols import Address, Matrix, Params, Read, Statistics, Sweeps, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import ordered_results, single_threaded

__all__ = [
    "Factors",
    "Story",
    "compiled",
    "complete",
    "flat",
    "groups_of",
    "log_likelihood_of",
    "misfit",
    "passes",
    "sweep_factors",
    "swept",
    "update_H",
    "update_W",
    "whole",
]

Natural = tuple[Tensor, Tensor]
Prior = Callable[[str], RectifiedPrior]
SITES = ("W", "H", "sigma2")
SMALL = 2**14  # entries of X up to which a call costs more than its work
ROWS_AT_ONCE = 1024  # rows of Hᵀ in a task; they are independent, so this changes nothing but who does them
PASS_COST = 3.0  # time of an operation in a pass over a factor, in operations of a product with X
MOST_PASSES = 8
MASKED_WHOLE = 2**20  # entries of X, some of them missing, up to which a chain stays on one thread


class Story(NamedTuple):
    """What a sweep needs of a model."""

    prior: Prior
    noise: Noise


def swept(story: Story, X: Matrix, params: Params, asked: Sweeps, at: Address | None) -> Swept:
    """So many sweeps of every chain; `params` stay as they are.

    Args:
        params: W (C, N, K), H (C, K, D), sigma2 (C,).
        asked: what happens in each of them, and which are kept.
        at: where their random numbers are; not needed for modes.
    """
    if asked.read is Read.MODE:
        return _climbed(story, X, params, asked)
    if asked.read is not Read.DRAW or at is None:
        raise NotImplementedError(f"a Gaussian sweep reads draws, at an address, or modes; asked was {asked.read}")
    problem = compiled(story.prior, X, asked.moves)
    if problem is None or (asked.moves and problem.rates is None) or restricted.is_needed(story.prior):
        return _one_by_one(story, X, params, asked, at)
    if asked.collapsed and problem.missing is not None:  # such shears want one Gram matrix of all rows
        return _one_by_one(story, X, params, asked, at)
    noise = None
    if isinstance(story.noise, NoisePrior) and not asked.held.others:
        noise = story.noise.given(X.n_observed, asked.power)
    first = asked.held.W, asked.held.H
    plan = dense.Plan(asked.power, first, (1, 1), noise, asked.moves, asked.kept, asked.collapsed, fresh=asked.fresh)
    with single_threaded():
        after, kept = dense.sweep(problem, params, asked.number, at, plan)
    draws = {"W": kept.W, "H": kept.H, "sigma2": kept.sigma2}
    return Swept(after, draws, log_likelihood_of(X, kept.misfit, kept.sigma2))


def _one_by_one(story: Story, X: Matrix, params: Params, asked: Sweeps, at: Address) -> Swept:
    """`swept` where sweeps are not compiled whole."""
    draws: list[Params] = []
    fits: list[Tensor] = []
    first = asked.held.W, asked.held.H
    for s in range(asked.number):
        step = at.step + s
        params = collapsed.swept(asked.collapsed, story.prior, X, params, Address(at.stream, step), asked.power)
        W, H, left = sweep_factors(
            story.prior, params, X, Address(at.stream, step), asked.power, first, fresh=asked.fresh
        )
        sigma2 = params["sigma2"]
        if not asked.held.others:
            sigma2 = story.noise.draw(left, X.n_observed, asked.power, at.stream, step).to(W.dtype)
        if asked.moves:
            W, H = restricted.moved(story.prior, X, W, H, at.stream, step, max(first))
        params = {"W": W, "H": H, "sigma2": sigma2}
        if s in asked.kept:
            draws.append(params)
            fits.append(log_likelihood_of(X, left, sigma2))
    if not draws:
        return Swept(params, {}, torch.empty(len(params["W"]), 0, dtype=torch.float64, device=X.device))
    return Swept(params, {site: torch.stack([own[site] for own in draws], 1) for site in SITES}, torch.stack(fits, 1))


def _climbed(story: Story, X: Matrix, params: Params, asked: Sweeps) -> Swept:
    """Sweeps of modes: of W, H and σ², and then the scales of the components; only the last can be kept."""
    left = torch.empty(0)
    first = asked.held.W, asked.held.H
    prior = flattened(story.prior) if asked.flat else story.prior
    for _ in range(asked.number):
        often = passes(X.shape, params["W"].shape[-1])
        W, H, left = sweep_factors(prior, params, X, None, first=first, passes=often)
        sigma2 = params["sigma2"] if asked.held.others else story.noise.mode(left, X.n_observed)
        if asked.moves and not asked.flat:
            W, H = ridge.balanced(story.prior, X, W, H)
        params = {"W": W, "H": H, "sigma2": sigma2.to(W.dtype)}
    draws = {site: values[:, None] for site, values in params.items()}
    return Swept(params, draws, log_likelihood_of(X, left, params["sigma2"])[:, None])


def flat(site: str) -> Any:
    """No prior, of ordinary NMF."""
    return FLAT


def passes(shape: tuple[int, int], rank: int) -> tuple[int, int]:
    """How often a sweep of modes goes through W, and through H: as long as that costs half of the factor's product with X.

    The product of W takes 2 N D K operations and a pass 2 N K², each of which takes `PASS_COST` times as long.
    """
    N, D = shape
    W, H = (min(MOST_PASSES, math.ceil(size / (2 * PASS_COST * rank))) for size in (D, N))
    return W, H


class Factors(NamedTuple):
    """Factors after a sweep, and the residual sum of squares that goes with them."""

    W: Tensor  # (C, N, K)
    H: Tensor  # (C, K, D)
    misfit: Tensor  # (C,), float64


def sweep_factors(
    prior: Prior,
    params: Params,
    X: Matrix,
    draw: tuple[Stream, int] | None,
    power: float = 1.0,
    first: tuple[int, int] = (0, 0),
    passes: tuple[int, int] = (1, 1),
    fresh: int = 1,
) -> Factors:
    """Update W's components and then H's, each from its conditional (or at its mode, where `draw` is None).

    Args:
        prior: site -> its prior, such as `model.prior`.
        params: W (C, N, K), H (C, K, D), sigma2 (C,).
        draw: the stream of the C chains, and the step.
        power: temperature β of the likelihood.
        first: the first component of W, and of H, that is updated; those before stay as they are.
        passes: at the mode, how often W's components, and H's, are gone through with the same products of X.
        fresh: as in `kernels.reference.half_sweep`.
    """
    with single_threaded():
        problem = compiled(prior, X)
        if problem is not None:
            after, kept = dense.sweep(problem, params, 1, draw, dense.Plan(power, first, passes, fresh=fresh))
            W, H, left = after["W"], after["H"], kept.misfit[:, 0]
        else:
            W, H = params["W"], params["H"]
            weight = (power / params["sigma2"]).to(W.dtype)
            W, own = _update_W(prior, W, H, weight, X, draw, first[0], passes[0], fresh)
            of_H = statistics.of_every_process(X, own)
            H = update_H(prior, H, of_H, weight, X, draw, first[1], passes[1], fresh)
            left = misfit(X, W, H, of_H)
        return Factors(exact(prior("W"), W), exact(prior("H"), H), left)


def compiled(prior: Prior, X: Matrix, moves: bool = False) -> dense.Problem | None:
    """What sweeps compiled whole want, with the rates for the moves if asked; None where X is not for them.

    With missing entries a sweep is not divided among threads, so that a larger X is not for them.
    """
    large = X.masked is not None and X.shape[0] * X.shape[1] > MASKED_WHOLE
    return None if large else whole(prior, X, moves)


def whole(prior: Prior, X: Matrix, moves: bool = False) -> dense.Problem | None:
    """The same, however large X is: for as many chains as there are threads, or more."""
    if kernels_for(X.device) is not cpu:
        return None
    values, missing = X.plain, None
    if X.masked is not None:
        values, mask = X.masked
        missing = X.kept["missing"] = X.kept.get("missing") or Missing.of(mask.numpy())
    if values is None:
        return None
    W, H = (prior(site).natural(X.device) for site in ("W", "H"))
    rates = ridge.rates_of(prior, X.device) if moves else None
    return dense.Problem.of(values, len(X.blocks[0]), X.sum_of_squares, W, H, rates, missing)


def complete(prior: Prior, X: Matrix) -> dense.Problem | None:
    """The same where no entry is missing, else None."""
    return None if X.plain is None else compiled(prior, X)


def _update_W(
    prior: Prior,
    W: Tensor,
    H: Tensor,
    weight: Tensor,
    X: Matrix,
    draw: tuple[Stream, int] | None,
    first: int,
    passes: int,
    fresh: int,
) -> tuple[Tensor, Statistics]:
    kernels, natural_W = kernels_for(W.device), prior("W").natural(W.device)
    first_row, plain = X.rows.start, X.here.plain
    if X.here is not X and plain is not None and kernels is cpu:
        return split.rows_of_W(
            plain[0], len(X.blocks[0]), W, H, weight, natural_W, draw, first_row, first, passes, fresh
        )
    given = [statistics.given_H(X, H[group]) for group in groups_of(W, X)]
    return update_W(prior, W, given, weight, X, draw, first, passes, fresh)


def update_W(
    prior: Prior,
    W: Tensor,
    given: list[Given],
    weight: Tensor,
    X: Matrix,
    draw: tuple[Stream, int] | None,
    first: int = 0,
    passes: int = 1,
    fresh: int = 1,
) -> tuple[Tensor, Statistics]:
    """W (C, N, K) after its half of a sweep, block by block of X's rows, and what it then tells about H.

    Args:
        given: of each group of chains (`groups_of`), what its H tells about W.
        weight: what that is taken times, (C,).
        draw, first, passes, fresh: as in `sweep_factors`.
    """
    kernels, natural_W, groups = kernels_for(W.device), prior("W").natural(W.device), groups_of(W, X)
    first_row, updated = X.rows.start, _room(W)

    def update(rows: range, block: Any, g: int) -> Statistics:
        own = slice(rows.start, rows.stop)
        of_W, address = statistics.of_W(block, given[g]), _address(draw, groups[g], Site.W)
        mine = tuple(natural[own] if natural.shape[0] > 1 else natural for natural in natural_W)
        F = W[groups[g], own]
        for _ in range(passes):
            F = kernels.half_sweep(F, of_W, mine, address, first_row + rows.start, first, weight[groups[g]], fresh)
        updated[groups[g], own] = F
        return statistics.of_H(block, F)

    each = X.fold_here(update, range(len(groups)), 4.0 * W.numel() * X.shape[1])
    return updated, Statistics(_joined([s.P.mT for s in each]).mT, _joined([s.Q for s in each]))


def update_H(
    prior: Prior,
    H: Tensor,
    of_H: Statistics,
    weight: Tensor,
    X: Matrix,
    draw: tuple[Stream, int] | None,
    first: int = 0,
    passes: int = 1,
    fresh: int = 1,
) -> Tensor:
    """H (C, K, D) after its half of a sweep; the arguments are those of `update_W`."""
    kernels, natural_H = kernels_for(H.device), tuple(n.mT for n in prior("H").natural(H.device))
    groups, Ht, D = groups_of(H, X), H.mT, H.shape[-1]
    P, Q = of_H

    def update(task: tuple[int, slice]) -> Tensor:
        g, rows = task
        mine = tuple(natural[rows] if natural.shape[0] > 1 else natural for natural in natural_H)
        own = Q[groups[g]] if Q.ndim == P.ndim else Q[groups[g], rows]  # one for all rows, or one each
        F, part, address = Ht[groups[g], rows], Statistics(P[groups[g], rows], own), _address(draw, groups[g], Site.H)
        for _ in range(passes):
            F = kernels.half_sweep(F, part, mine, address, rows.start, first, weight[groups[g]], fresh)
        return F

    at_once = D if H.device.type != "cpu" else ROWS_AT_ONCE
    bands = [slice(start, min(start + at_once, D)) for start in range(0, D, at_once)]
    tasks = [(g, rows) for g in range(len(groups)) for rows in bands]
    updated = _room(Ht)
    operations = 100.0 * min(D, at_once) * H.shape[-2]
    for (g, rows), F in zip(tasks, ordered_results(update, tasks, operations), strict=True):
        updated[groups[g], rows] = F
    return updated.mT


def misfit(X: Matrix, W: Tensor, H: Tensor, of_H: Statistics | None = None) -> Tensor:
    """Residual sum of squares over the observed entries, each over its noise, float64, (C,).

    Read off what W tells about H where given, except where so little of X is left that the subtraction would cancel.
    """
    if of_H is None:
        return _residual_sum_of_squares(X, W, H)
    P, Q, Ht = (t.double() for t in (*of_H, H.mT))
    quadratic = (Ht @ Q * Ht if Q.ndim == P.ndim else (Q @ Ht[..., None]).squeeze(-1) * Ht).sum((-2, -1))
    left = X.sum_of_squares - 2 * (P * Ht).sum((-2, -1)) + quadratic
    least = X.sum_of_squares * dense.cancels(torch.finfo(W.dtype).eps)
    if isinstance(X, Dense) and kernels_for(X.device) is not cpu:  # decided on the device: the host does not wait
        return kernels_for(X.device).residual_where_small(left, least, X.values, X.weights, W, H)
    trusted = left > least
    return left if bool(trusted.all()) else torch.where(trusted, left, _residual_sum_of_squares(X, W, H))


def _residual_sum_of_squares(X: Matrix, W: Tensor, H: Tensor) -> Tensor:
    def of_block(rows: range, block: Any) -> Tensor:
        return statistics.squared_residuals(block, W[:, rows.start : rows.stop], H)

    return X.fold(of_block, 2.0 * W.numel() * X.shape[1])


def log_likelihood_of(X: Matrix, misfit: Tensor, sigma2: Tensor) -> Tensor:
    """log p(X | W, H, σ²) of the observed entries from their residual sum of squares, of any shape, float64."""
    return log_likelihood(misfit, sigma2, X.n_observed) - X.log_noise / 2


def _room(F: Tensor) -> Tensor:
    """Like F (C, R, K), stored a component a row."""
    C, R, K = F.shape
    return torch.empty(C, K, R, dtype=F.dtype, device=F.device).mT


def _joined(parts: list[Tensor], axis: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def groups_of(F: Tensor, X: Matrix) -> list[slice]:
    """Chains that are worked on together: all on an accelerator or where X is small, else one at a time on a thread."""
    together = F.device.type != "cpu" or X.shape[0] * X.shape[1] <= SMALL
    return [slice(0, len(F))] if together else [slice(c, c + 1) for c in range(len(F))]


def _address(draw: tuple[Stream, int] | None, group: slice, site: Site) -> tuple[Stream, int, Site] | None:
    return None if draw is None else (Stream(draw[0].keys[group]), draw[1], site)
