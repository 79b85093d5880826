r"""One sweep over the factors of a Poisson model, drawn or at the mode, in a single pass over the row blocks of X.

Drawn: the counts are allocated to the components (`allocation`), and given that

.. math:: W_{ik} \sim \text{Gamma}(a_{ik} + \sum_j Z_{ijk}, \; b_{ik} + \sum_j e_{ij} H_{kj}),

and H the same with the new W. At the mode: the shares are expectations, and each factor goes to the mode of that gamma,
which is a step of EM and never lowers the log joint: the multiplicative update for the Kullback-Leibler divergence, with a prior.
It needs shapes >= 1, since below that the density has no mode: it is infinite at 0.

A block is worked on by one thread and the sums are added in order; those of the shares are of whole numbers, so exact.

Reference: Cemgil (2009), "Bayesian inference for nonnegative matrix factorisation models", doi:10.1155/2009/785152.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.known import Known, exact, known_of, put_into
from ppnmf.poisson import scale
from ppnmf.poisson.allocation import Counts, Place, allocated, counts_of, expected, gamma_draws, log_means
from ppnmf.poisson.exposures import Exposed, exposed
from ppnmf.poisson.pinned import Prior, flattened
from ppnmf.protocols import Address, Matrix, Params, Read, Sweeps, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = [
    "Exposing",
    "Story",
    "Told",
    "above_zero",
    "folded",
    "gathered",
    "held",
    "known",
    "known_rows",
    "least",
    "log_factorials",
    "log_likelihood",
    "modes_of_factors",
    "prior_for_modes",
    "require_modes",
    "require_untempered",
    "rows_of",
    "sweep_factors",
    "swept",
]

COST = 30.0  # operations that a component of a count takes, about
SMALL = 2**14  # entries of X up to which a call costs more than its work


class Story(NamedTuple):
    """What a sweep needs of a model."""

    prior: Prior
    exposures: Tensor  # (1 | N, 1 | D), float64


class Told(NamedTuple):
    """What rows of W tell about H."""

    shares: Tensor  # Σ_i Z, (C, D, K)
    exposed: Tensor  # Σ_i e_ij W_ik, (C, 1 | D, K)


# What is drawn, expected or known of a block's exposures: (rows, block, chains, counts, W, Hᵀ, place or None) -> exposures
Exposing = Callable[[range, Any, slice, Counts, Tensor, Tensor, Place | None], Exposed]


def swept(story: Story, X: Matrix, params: Params, asked: Sweeps, at: Address | None) -> Swept:
    """So many sweeps of every chain; `params` stay as they are.

    Args:
        params: W (C, N, K), H (C, K, D).

    Raises:
        ValueError: a temperature other than 1, or modes of priors that have none.
    """
    if asked.read is Read.MODE:
        return _climbed(story, X, params, asked)
    if asked.read is not Read.DRAW or at is None:
        raise NotImplementedError(f"a Poisson sweep reads draws, at an address, or modes; asked was {asked.read}")
    require_untempered(asked.power)

    draws: list[Params] = []
    fits: list[Tensor] = []
    for s in range(asked.number):
        own = Address(at.stream, at.step + s)
        params, told = sweep_factors(story.prior, X, params, own, known(story), (asked.held.W, asked.held.H))
        if s in asked.kept:
            fits.append(log_likelihood(story, X, params, told))
        if asked.moves:
            params = scale.moved(story.prior, X, params, own, max(asked.held.W, asked.held.H))
        if s in asked.kept:
            draws.append(params)
    return gathered(params, draws, fits, X)


def known(story: Story) -> Exposing:
    """The exposures of the model, whatever the counts."""

    def of_block(rows: range, block: Any, *others: Any) -> Exposed:
        return exposed(block, rows, story.exposures)

    return of_block


def require_untempered(power: float) -> None:
    """Raise ValueError for a temperature other than 1."""
    if power != 1.0:
        raise ValueError(
            f"power is {power:g}: a power of a Poisson likelihood has no exact sweep; counts are tempered by time instead"
        )


def gathered(params: Params, draws: list[Params], fits: list[Tensor], X: Matrix) -> Swept:
    """What sweeps leave, from the draws that are kept and their log likelihoods."""
    if not draws:
        return Swept(params, {}, torch.empty(len(params["W"]), 0, dtype=torch.float64, device=X.device))
    return Swept(params, {site: torch.stack([own[site] for own in draws], 1) for site in params}, torch.stack(fits, 1))


def sweep_factors(
    prior: Prior,
    X: Matrix,
    params: Params,
    at: Address,
    exposing: Exposing,
    first: tuple[int, int] = (0, 0),
) -> tuple[dict[str, Tensor], Told]:
    """W and H drawn anew, all else as it was; and what the new W tells about H.

    Args:
        at: of the random numbers.
        exposing: gives the exposures of a block.
        first: the first component of W, and of H, that is drawn; those before stay as they are.
    """
    W, H = params["W"], params["H"]
    updated = torch.empty_like(W, memory_format=torch.contiguous_format)
    columns = H.mT.double().contiguous()
    size, rate = prior("W").on(X.device)
    known = known_of(prior("W"))

    def of_block(rows: range, block: Any, group: slice) -> Told:
        own, Ht = slice(rows.start, rows.stop), columns[group]
        old = W[group, own].double().contiguous()
        place = Place(Stream(at.stream.keys[group]), at.step, X.rows.start + rows.start)
        counts = counts_of(block, group)
        e = exposing(rows, block, group, counts, old, Ht, place)
        shares = allocated(counts, old, Ht, place)
        drawn = _drawn(
            shares.of_rows, e.over_columns(Ht), rows_of(size, own), rows_of(rate, own), place, Site.W, W.dtype
        )
        updated[group, own] = put_into(known_rows(known, own), drawn)
        updated[group, own, : first[0]] = W[group, own, : first[0]]
        return Told(shares.of_columns, e.over_rows(updated[group, own].double()))

    with single_threaded():
        told = folded(X, W, of_block)
        size_H, rate_H = (values.mT for values in prior("H").on(H.device))
        drawn = _drawn(*told, size_H, rate_H, Place(at.stream, at.step, 0), Site.H, H.dtype).mT
        drawn = exact(prior("H"), drawn)
        H = torch.cat([H[:, : first[1]], drawn[:, first[1] :]], 1)
    return {**params, "W": updated, "H": H}, told


def folded(X: Matrix, W: Tensor, function: Callable[[range, Any, slice], Told]) -> Told:
    """What all blocks tell about H, in all processes: of all chains together where X is small, else one after another."""
    C, N, K = W.shape
    together = W.device.type != "cpu" or N * X.shape[1] <= SMALL
    groups = [slice(0, C)] if together else [slice(c, c + 1) for c in range(C)]
    each = X.fold_here(function, groups, COST * C * N * K * X.shape[1])
    return X.add_up(Told(torch.cat([own.shares for own in each]), torch.cat([own.exposed for own in each])))


def _drawn(
    shares: Tensor, exposed: Tensor, size: Tensor, rate: Tensor, place: Place, site: Site, dtype: torch.dtype
) -> Tensor:
    """A factor's rows (C, R, K) from their gamma conditionals; never so small that a product of two would be zero."""
    of_rows = (rate + exposed).expand(-1, -1, shares.shape[2])
    return gamma_draws(size + shares, of_rows, place, site, least(dtype)).to(dtype)


def least(dtype: torch.dtype) -> float:
    """The least that an entry of a factor may be: the product of two is a normal number."""
    return float(torch.finfo(dtype).tiny ** 0.48)


def known_rows(known: Known | None, rows: slice) -> Known | None:
    """The known entries of some rows of W, where any are known."""
    return None if known is None else known.rows(rows)


def prior_for_modes(story: Story, asked: Sweeps) -> Prior:
    """The priors of sweeps of modes. Raises ValueError where they have none."""
    if asked.flat:
        return flattened(story.prior)
    require_modes(story)
    return story.prior


def require_modes(story: Story) -> None:
    """Raise ValueError where a prior has no mode."""
    for site in ("W", "H"):
        if not story.prior(site).has_modes:
            raise ValueError(
                f"shape_{site} is below 1 somewhere, where the prior's density is infinite at 0 and has no mode: "
                "give shapes >= 1, or draw by gibbs"
            )


def _climbed(story: Story, X: Matrix, params: Params, asked: Sweeps) -> Swept:
    """Sweeps of modes: of W, of H, and then the scales of the components; only the last can be kept."""
    prior = prior_for_modes(story, asked)
    for _ in range(asked.number):
        params = held(params, modes_of_factors(prior, X, above_zero(prior, params), known(story))[0], asked)
        if asked.moves and not asked.flat:
            params = scale.balanced(prior, X, params)
    draws = {site: values[:, None] for site, values in params.items()}
    return Swept(params, draws, log_likelihood(story, X, params)[:, None])


def held(before: Params, after: Params, asked: Sweeps) -> dict[str, Tensor]:
    """The parameters after a sweep, the components that stay as they were before it."""
    first_W, first_H = asked.held.W, asked.held.H
    W = torch.cat([before["W"][..., :first_W], after["W"][..., first_W:]], -1) if first_W else after["W"]
    H = torch.cat([before["H"][:, :first_H], after["H"][:, first_H:]], 1) if first_H else after["H"]
    return {**after, "W": W, "H": H}


def modes_of_factors(prior: Prior, X: Matrix, params: Params, exposing: Exposing) -> tuple[dict[str, Tensor], Told]:
    """W and H each at the mode of its conditional under the expected shares, all else as it was; what W tells about H."""
    W, H = params["W"], params["H"]
    updated = torch.empty_like(W, memory_format=torch.contiguous_format)
    columns = H.mT.double().contiguous()
    size, rate = prior("W").on(X.device)
    known = known_of(prior("W"))

    def of_block(rows: range, block: Any, group: slice) -> Told:
        own, Ht, counts = slice(rows.start, rows.stop), columns[group], counts_of(block, group)
        F = W[group, own].double().contiguous()
        e = exposing(rows, block, group, counts, F, Ht, None)
        shares = expected(counts, F, Ht, columns=False)
        new = _mode(shares.of_rows, e.over_columns(Ht), rows_of(size, own), rows_of(rate, own))
        updated[group, own] = put_into(known_rows(known, own), new.to(W.dtype))
        F = updated[group, own].double()
        e = exposing(rows, block, group, counts, F, Ht, None)
        return Told(expected(counts, F, Ht).of_columns, e.over_rows(F))

    with single_threaded():
        told = folded(X, W, of_block)
        size_H, rate_H = (values.mT for values in prior("H").on(X.device))
        H = exact(prior("H"), _mode(*told, size_H, rate_H).mT.to(H.dtype))
    return {**params, "W": updated, "H": H}, told


def _mode(shares: Tensor, exposed: Tensor, size: Tensor, rate: Tensor) -> Tensor:
    """Of the gamma conditional; 0 where nothing is said."""
    below = rate + exposed
    return torch.where(below > 0, (size - 1 + shares) / below, torch.zeros_like(shares))


def above_zero(prior: Prior, params: Params) -> dict[str, Tensor]:
    """An update multiplies, so it could not bring back what a step ahead had cut off at zero: it is left next to nothing."""
    factors = {site: params[site] for site in ("W", "H")}
    lifted = {
        site: F.maximum(1e-4 * torch.finfo(F.dtype).eps * F.mean((-2, -1), keepdim=True)) for site, F in factors.items()
    }
    return {**params, **{site: exact(prior(site), F) for site, F in lifted.items()}}


def log_likelihood(story: Story, X: Matrix, params: Params, told: Told | None = None) -> Tensor:
    """log p(X | W, H) of the observed counts, (C,), float64.

    Args:
        told: of the same W, where it is known.
    """
    W, H = params["W"], params["H"]
    columns = H.mT.double().contiguous()

    def of_block(rows: range, block: Any, group: slice) -> Told:
        F, Ht = W[group, rows.start : rows.stop].double().contiguous(), columns[group]
        known, counts = exposed(block, rows, story.exposures), counts_of(block, group)
        found = log_means(counts, F, Ht, known.of_counts(counts))
        if told is None:
            found = found - (known.over_rows(F) * Ht).sum((-2, -1))
        return Told(found, torch.zeros_like(found))

    with single_threaded():
        each = folded(X, W, of_block).shares
        if told is not None:
            each = each - (told.exposed * columns).sum((-2, -1))
    return each - log_factorials(X)


def log_factorials(X: Matrix) -> Tensor:
    """Σ log x! of the counts, (1,), or (C,) where each chain has an X of its own; worked out once."""
    kept: dict[str, Tensor] = X.kept
    if "log factorials" not in kept:
        kept["log factorials"] = X.fold(lambda rows, block: counts_of(block).log_factorials)
    return kept["log factorials"]


def rows_of(values: Tensor, rows: slice) -> Tensor:
    """A hyperparameter (1 | N, 1 | K) of some rows."""
    return values if len(values) == 1 else values[rows]
