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

from ppnmf.poisson import scale
from ppnmf.poisson.allocation import Place, allocated, counts_of, expected, gamma_draws, log_means
from ppnmf.poisson.exposures import Exposed, exposed
from ppnmf.priors import Gamma
from ppnmf.protocols import Address, Matrix, Params, Read, Sweeps, Swept
from ppnmf.rng import Site
from ppnmf.threads import ordered_results, single_threaded

__all__ = ["Story", "Told", "least", "log_likelihood", "sweep_factors", "swept"]

COST = 30.0  # operations that a component of a count takes, about
FLAT = Gamma(torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))


class Story(NamedTuple):
    """What a sweep needs of a model."""

    prior: Callable[[str], Gamma]
    exposures: Tensor  # (1 | N, 1 | D), float64


class Told(NamedTuple):
    """What rows of W tell about H."""

    shares: Tensor  # Σ_i Z, (D, K)
    exposed: Tensor  # Σ_i e_ij W_ik, (1 | D, K)


# What is drawn, or known, of a block's exposures before its counts are allocated: (rows, block, W, Hᵀ, place) -> exposures
Exposing = Callable[[range, Any, Tensor, Tensor, Place], Exposed]


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

    def known(rows: range, block: Any, W: Tensor, Ht: Tensor, place: Place) -> Exposed:
        return exposed(block, rows, story.exposures)

    draws: list[Params] = []
    fits: list[Tensor] = []
    for s in range(asked.number):
        own = Address(at.stream, at.step + s)
        params, told = sweep_factors(story.prior, X, params, own, known, (asked.held.W, asked.held.H))
        if s in asked.kept:
            fits.append(log_likelihood(story, X, params, told))
        if asked.moves:
            params = scale.moved(story.prior, X, params, own, max(asked.held.W, asked.held.H))
        if s in asked.kept:
            draws.append(params)
    return gathered(params, draws, fits, X)


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
    prior: Callable[[str], Gamma],
    X: Matrix,
    params: Params,
    at: Address,
    exposing: Exposing,
    first: tuple[int, int] = (0, 0),
) -> tuple[dict[str, Tensor], list[Told]]:
    """W and H drawn anew, all else as it was; and what the new W tells about H, chain by chain.

    Args:
        at: of the random numbers.
        exposing: gives the exposures of a block.
        first: the first component of W, and of H, that is drawn; those before stay as they are.
    """
    W, H = params["W"], params["H"]
    C, N, K = W.shape
    updated = torch.empty_like(W, memory_format=torch.contiguous_format)
    columns = [own.mT.double().contiguous() for own in H]
    size, rate = prior("W").on(X.device)

    def of_block(rows: range, block: Any, c: int) -> Told:
        own, Ht = slice(rows.start, rows.stop), columns[c]
        old = W[c, own].double().contiguous()
        place = Place(at.stream, c, at.step, X.rows.start + rows.start)
        e = exposing(rows, block, old, Ht, place)
        shares = allocated(counts_of(block, c), old, Ht, place)
        new = _drawn(shares.of_rows, e.over_columns(Ht), _rows(size, own), _rows(rate, own), place, Site.W, W.dtype)
        updated[c, own] = new
        updated[c, own, : first[0]] = W[c, own, : first[0]]
        return Told(shares.of_columns, e.over_rows(updated[c, own].double()))

    with single_threaded():
        each = X.fold_here(of_block, range(C), COST * C * N * K * X.shape[1])
        told = [X.add_up(own) for own in each]
        H = _drawn_H(prior("H"), H, told, at, first[1])
    return {**params, "W": updated, "H": H}, told


def _drawn_H(prior: Gamma, H: Tensor, told: list[Told], at: Address, first: int) -> Tensor:
    size, rate = (values.mT for values in prior.on(H.device))

    def of_chain(c: int) -> Tensor:
        place = Place(at.stream, c, at.step, 0)
        drawn = _drawn(told[c].shares, told[c].exposed, size, rate, place, Site.H, H.dtype).mT
        return torch.cat([H[c, :first], drawn[first:]])

    return torch.stack(list(ordered_results(of_chain, range(len(H)), COST * H[0].numel())))


def _drawn(
    shares: Tensor, exposed: Tensor, size: Tensor, rate: Tensor, place: Place, site: Site, dtype: torch.dtype
) -> Tensor:
    """A factor's rows (R, K) from their gamma conditionals; never so small that a product of two would be zero."""
    of_rows = (rate + exposed).expand(-1, shares.shape[1])
    return gamma_draws(size + shares, of_rows, place, site, least(dtype)).to(dtype)


def least(dtype: torch.dtype) -> float:
    """The least that an entry of a factor may be: the product of two is a normal number."""
    return float(torch.finfo(dtype).tiny ** 0.48)


def _climbed(story: Story, X: Matrix, params: Params, asked: Sweeps) -> Swept:
    """Sweeps of modes: of W, of H, and then the scales of the components; only the last can be kept."""
    prior = (lambda site: FLAT) if asked.flat else story.prior
    for site in ("W", "H"):
        if bool((prior(site).size < 1).any()):
            raise ValueError(
                f"shape_{site} is below 1 somewhere, where the prior's density is infinite at 0 and has no mode: "
                "give shapes >= 1, or draw by gibbs"
            )
    for _ in range(asked.number):
        params, _told = _mode_of_factors(prior, story.exposures, X, params)
        if not asked.flat:
            params = scale.balanced(prior, X, params)
    draws = {site: values[:, None] for site, values in params.items()}
    return Swept(params, draws, log_likelihood(story, X, params)[:, None])


def _mode_of_factors(
    prior: Callable[[str], Gamma], e: Tensor, X: Matrix, params: Params
) -> tuple[dict[str, Tensor], list[Told]]:
    W, H = (_above_zero(params[site]) for site in ("W", "H"))
    updated = torch.empty_like(W, memory_format=torch.contiguous_format)
    columns = [own.mT.double().contiguous() for own in H]
    size, rate = prior("W").on(X.device)

    def of_block(rows: range, block: Any, c: int) -> Told:
        own, Ht = slice(rows.start, rows.stop), columns[c]
        known, counts, F = exposed(block, rows, e), counts_of(block, c), W[c, own].double().contiguous()
        shares = expected(counts, F, Ht, columns=False)
        updated[c, own] = _mode(shares.of_rows, known.over_columns(Ht), _rows(size, own), _rows(rate, own)).to(W.dtype)
        F = updated[c, own].double()
        return Told(expected(counts, F, Ht).of_columns, known.over_rows(F))

    with single_threaded():
        each = X.fold_here(of_block, range(len(W)), COST * W.numel() * X.shape[1])
        told = [X.add_up(own) for own in each]
        size_H, rate_H = (values.mT for values in prior("H").on(X.device))
        modes = [_mode(own.shares, own.exposed, size_H, rate_H).mT.to(H.dtype) for own in told]
    return {**params, "W": updated, "H": torch.stack(modes)}, told


def _mode(shares: Tensor, exposed: Tensor, size: Tensor, rate: Tensor) -> Tensor:
    """Of the gamma conditional; 0 where nothing is said."""
    below = rate + exposed
    return torch.where(below > 0, (size - 1 + shares) / below, torch.zeros_like(shares))


def _above_zero(F: Tensor) -> Tensor:
    """An update multiplies, so it could not bring back what a step ahead had cut off at zero: it is left next to nothing."""
    return F.clamp(min=1e-4 * torch.finfo(F.dtype).eps * float(F.mean()))


def log_likelihood(story: Story, X: Matrix, params: Params, told: list[Told] | None = None) -> Tensor:
    """log p(X | W, H) of the observed counts, (C,), float64.

    Args:
        told: of the same W, where it is known.
    """
    W, H = params["W"], params["H"]
    columns = [own.mT.double().contiguous() for own in H]

    def of_block(rows: range, block: Any, c: int) -> Tensor:
        F = W[c, rows.start : rows.stop].double().contiguous()
        known, counts = exposed(block, rows, story.exposures), counts_of(block, c)
        found = log_means(counts, F, columns[c], known.of_counts(counts))
        if told is None:
            found -= float((known.over_rows(F) * columns[c]).sum())
        return torch.tensor(found, dtype=torch.float64, device=X.device)

    with single_threaded():
        each = torch.stack(X.fold_here(of_block, range(len(W)), COST * W.numel() * X.shape[1]))
        each = X.add_up(each)
        if told is not None:
            each = each - torch.stack([(own.exposed * Ht).sum() for own, Ht in zip(told, columns, strict=True)])
    return each - log_factorials(X)


def log_factorials(X: Matrix) -> Tensor:
    """Σ log x! of the counts, (), or (C,) where each chain has an X of its own; worked out once."""
    kept: dict[str, Tensor] = X.kept  # type: ignore[attr-defined]
    if "log factorials" not in kept:
        kept["log factorials"] = X.fold(_log_factorials)
    return kept["log factorials"]


def _log_factorials(rows: range, block: Any) -> Tensor:
    values = getattr(block, "values", None)
    if values is not None and values.ndim == 3:
        return torch.stack([counts_of(block, c).log_factorials for c in range(len(values))])
    return counts_of(block).log_factorials


def _rows(values: Tensor, rows: slice) -> Tensor:
    """A hyperparameter (1 | N, 1 | K) of some rows."""
    return values if len(values) == 1 else values[rows]
