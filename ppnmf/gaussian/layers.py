r"""Sweeps of X ≈ A_0 A_1 ... A_{L-1} S, all factors drawn given the others, or at their modes.

The first and the last factor are the W and the H of a factorisation whose other side is the product of the rest. A middle
factor A stands between B, the product of those before it, and R, of those behind it. Given its other rows, its row k has the
log likelihood (over σ²) A_k · P_k - ½ A_k Q_k A_kᵀ with

.. math:: Q_k = \sum_i B_{ik}^2 Q^{(i)}, \quad

    P_k = \sum_i B_{ik} \bigl(P^{(i)} - \textstyle\sum_{l \ne k} B_{il} A_l Q^{(i)}\bigr),

where P^{(i)} and Q^{(i)} are what X tells about row i of B A given R: so its entries have rectified-normal conditionals, and masks,
known noise and every kind of X come with `gaussian.statistics`. The moves along the ridge stand between each factor and the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.data.sharded import Sharded
from ppnmf.gaussian import ridge, statistics
from ppnmf.gaussian.noise import Noise
from ppnmf.gaussian.sweep import flat, log_likelihood_of, misfit
from ppnmf.kernels import kernels_for
from ppnmf.priors import Natural, RectifiedPrior
from ppnmf.protocols import Address, Matrix, Params, Read, Statistics, Sweeps, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["Layers", "by_rows", "named", "product", "sites_of", "start_of", "swept", "updated"]

Factors = list[Tensor]  # A_0 (C, N, K_0), A_1 (C, K_0, K_1) ... and S (C, K, D), in order
OfRow = Callable[[Tensor, int], Statistics]
Rule = Callable[[Tensor, Statistics, int], Tensor]  # a row (C, 1, K), what is told about it, and its number -> the row


class Layers(NamedTuple):
    """What a sweep needs of a model: the prior of each factor, in order, and of the noise."""

    priors: tuple[RectifiedPrior, ...]
    noise: Noise


def sites_of(layers: int) -> list[str]:
    """The names of the factors of so many layers, in order: A0, A1 ..., and H, which is S."""
    return [*(f"A{layer}" for layer in range(layers)), "H"]


def product(factors: Sequence[Tensor]) -> Tensor:
    """Of some factors that stand side by side, (*C, rows of the first, columns of the last)."""
    found = factors[0]
    for factor in factors[1:]:
        found = found @ factor
    return found


def named(factors: Factors) -> dict[str, Tensor]:
    """The factors by their sites, and W, the product of all but the last."""
    return {"W": product(factors[:-1]), **dict(zip(sites_of(len(factors) - 1), factors, strict=True))}


def swept(story: Layers, X: Matrix, params: Params, asked: Sweeps, at: Address | None) -> Swept:
    """So many sweeps of every chain: each factor in turn, σ², and moves along the ridges; `params` stay as they are.

    Args:
        params: A0, A1 ..., H, sigma2 (C,); W is computed from them.
        asked: as for any model; components cannot be held, but for all of H.
        at: where the random numbers are; not needed for modes.
    """
    if isinstance(X, Sharded):
        raise X.refusal()
    if asked.read is Read.MOMENTS or asked.held.W:
        raise NotImplementedError(f"a sweep of layers reads draws or modes, of all of W; asked was {asked}")
    kept: list[tuple[Params, Tensor]] = []
    for s in range(asked.number):
        here = None if at is None else Address(at.stream, at.step + s)
        with single_threaded():
            params, fit = _one(story, X, params, asked, here)
        if s in asked.kept or (asked.read is Read.MODE and s == asked.number - 1):
            kept.append((params, fit))
    if not kept:
        return Swept(params, {}, torch.empty(len(params["H"]), 0, dtype=torch.float64, device=X.device))
    draws = {site: torch.stack([own[site] for own, _ in kept], 1) for site in params}
    return Swept(params, draws, torch.stack([fit for _, fit in kept], 1))


def _one(story: Layers, X: Matrix, params: Params, asked: Sweeps, at: Address | None) -> tuple[Params, Tensor]:
    """One sweep, and the log likelihood (C,) after it."""
    draw = at if asked.read is Read.DRAW else None
    weight = (asked.power / params["sigma2"]).to(params["H"].dtype)
    factors = [params[site] for site in sites_of(len(story.priors) - 1)]
    for place in _free(len(factors), asked):
        prior = flat("") if asked.flat else story.priors[place]
        factors[place] = updated(factors, place, Natural(*prior.natural(X.device)), X, weight, draw)
    left = misfit(X, product(factors[:-1]), factors[-1])
    sigma2 = params["sigma2"]
    if not asked.held.others:
        drawn = (
            story.noise.mode(left, X.n_observed) if draw is None else _noise(story.noise, left, X, asked.power, draw)
        )
        sigma2 = drawn.to(sigma2.dtype)
    if asked.moves and not asked.flat and not asked.held.H:
        factors = _moved(story, X, factors, draw)
    return {**named(factors), "sigma2": sigma2}, log_likelihood_of(X, left, sigma2)


def _noise(noise: Noise, left: Tensor, X: Matrix, power: float, draw: Address) -> Tensor:
    return noise.draw(left, X.n_observed, power, *draw)


def _free(count: int, asked: Sweeps) -> range:
    """The places of the factors that are updated: with the others held too, of a given H, A0 alone."""
    if asked.held.others:
        return range(1)
    return range(count - 1 if asked.held.H else count)


def updated(factors: Factors, place: int, prior: Natural, X: Matrix, weight: Tensor, draw: Address | None) -> Tensor:
    """The factor at a place, given the others."""
    half_sweep = kernels_for(X.device).half_sweep
    if place == len(factors) - 1:
        of_H = statistics.of_all_columns(X, product(factors[:-1]))
        turned = (prior.precision.mT, prior.linear.mT)
        address = None if draw is None else (*draw, Site.H)
        return half_sweep(factors[place].mT, of_H, turned, address, 0, 0, weight).mT
    about = statistics.of_all_rows(X, product(factors[place + 1 :]))
    if place == 0:
        address = None if draw is None else (*draw, Site.W)
        return half_sweep(factors[0], about, prior, address, 0, 0, weight)
    first_row = sum(factor.shape[-2] for factor in factors[1:place])
    return _rows(factors[place], product(factors[:place]), about, prior, weight, draw, first_row)


def _rows(
    A: Tensor, B: Tensor, about: Statistics, prior: Natural, weight: Tensor, draw: Address | None, first_row: int
) -> Tensor:
    """A middle factor A (C, J, K), between B (C, N, J) and what X tells about the rows of B A, by its conditionals."""
    half_sweep = kernels_for(A.device).half_sweep
    address = None if draw is None else (*draw, Site.LAYERS)

    def conditional(row: Tensor, told: Statistics, k: int) -> Tensor:
        own = [values[k : k + 1] if values.shape[0] > 1 else values for values in prior]
        return half_sweep(row, told, own, address, first_row + k, 0, weight)

    return by_rows(A, B, about, conditional)


def by_rows(A: Tensor, B: Tensor, about: Statistics, rule: Rule) -> Tensor:
    """A middle factor A (C, J, K) whose rows are updated one after another, each given the others.

    Args:
        B: (C, N, J), the product of the factors before it. about: what X tells about the rows of B A.
    """
    A = A.clone()
    conditions = _shared(B, about) if about.Q.ndim == about.P.ndim else _of_each_row(B, about)
    for k in range(A.shape[-2]):
        A[:, k : k + 1] = rule(A[:, k : k + 1], conditions(A, k), k)
    return A


def _shared(B: Tensor, about: Statistics) -> OfRow:
    """(A, k) -> P_k (C, 1, K) and Q_k (C, K, K), where all rows of X have one Q."""
    gram = B.mT @ B
    P = B.mT @ about.P

    def of_row(A: Tensor, k: int) -> Statistics:
        own = gram[:, k, k, None, None]
        others = gram[:, k : k + 1] @ A - own * A[:, k : k + 1]
        return Statistics(P[:, k : k + 1] - others @ about.Q, own * about.Q)

    return of_row


def _of_each_row(B: Tensor, about: Statistics) -> OfRow:
    """The same where each row of X has a Q (C, N, K, K)."""

    def of_row(A: Tensor, k: int) -> Statistics:
        own = B[..., k]
        Q = torch.einsum("cn,cnij->cij", own.square(), about.Q)
        rest = about.P - torch.einsum("cni,cnij->cnj", B @ A, about.Q)
        return Statistics(torch.einsum("cn,cnj->cj", own, rest)[:, None] + A[:, k : k + 1] @ Q, Q)

    return of_row


def _moved(story: Layers, X: Matrix, factors: Factors, draw: Address | None) -> Factors:
    """The factors after the moves along the ridges between each and the next, or with their scales in balance."""
    moved = list(factors)
    for place, (before, behind) in enumerate(pairwise(story.priors)):
        prior = {"W": before, "H": behind}.__getitem__
        pair = moved[place], moved[place + 1]
        if draw is None:
            moved[place], moved[place + 1] = ridge.balanced(prior, X, *pair)
        else:
            step = draw.step * (len(factors) - 1) + place  # each ridge has random numbers of its own
            moved[place], moved[place + 1] = ridge.moved(prior, X, *pair, draw.stream, step)
    return moved


def start_of(stream: Stream, shapes: Sequence[tuple[int, int]], device: torch.device) -> Factors:
    """Standard exponential draws for factors of these shapes, float64, each row with its own address."""
    drawn = []
    first = 0
    for rows, columns in shapes:
        u = stream.uniforms(0, Site.START, range(first, first + rows), columns, device)
        drawn.append(-u.log())
        first += rows
    return drawn
