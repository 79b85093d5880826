"""Sweeps of Metropolis steps, an entry of W and of H at a time, which leave a power of the likelihood as it is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.kernels import metropolis as compiled
from ppnmf.poisson import scale
from ppnmf.poisson.allocation import Counts, counts_of
from ppnmf.poisson.exposures import exposed
from ppnmf.poisson.sweep import Story, least
from ppnmf.priors import Gamma
from ppnmf.protocols import Address, Matrix, Params
from ppnmf.rng import Site
from ppnmf.threads import ordered_map, single_threaded

__all__ = ["of_columns", "swept"]

COST = 10.0  # operations that a component of a count takes, about


class Half(NamedTuple):
    """What the rows of a factor are told: their counts, and what their components are exposed to."""

    counts: Counts
    exposed: Tensor  # (C, R | 1, K)
    prior: Gamma  # of the factor with its rows leading
    site: Site
    first_row: int


def swept(story: Story, X: Matrix, params: Params, at: Address, power: float, moves: bool = True) -> dict[str, Tensor]:
    """A sweep that leaves p(X | W, H)^power times the priors as it is: every entry of W, of H, and the scales.

    Args:
        X: in memory, in one process, on the CPU.
        params: W (C, N, K), H (C, K, D).
    """
    own = exposed(X, range(X.shape[0]), power * story.exposures)
    W, Ht = params["W"].double().contiguous(), params["H"].mT.double().contiguous()
    turned = Gamma(*(values.mT for values in story.prior("H").on(W.device)))
    with single_threaded():
        rows = Half(counts_of(X), own.over_columns(Ht), Gamma(*story.prior("W").on(W.device)), Site.W, 0)
        W = _stepped(rows, W, Ht, at, power, params["W"].dtype)
        columns = Half(of_columns(X), own.over_rows(W), turned, Site.H, 0)
        Ht = _stepped(columns, Ht, W, at, power, params["H"].dtype)
    after = {**params, "W": W.to(params["W"].dtype), "H": Ht.mT.contiguous().to(params["H"].dtype)}
    return scale.moved(story.prior, X, after, at) if moves else after


def _stepped(half: Half, F: Tensor, G: Tensor, at: Address, power: float, dtype: torch.dtype) -> Tensor:
    """F (C, R, K) after a step of every entry, G (C, S, K) as it is."""
    out = torch.empty_like(F)
    size, rate = (values.expand(F.shape[1:]).contiguous().numpy() for values in half.prior.on(F.device))
    data, indices, starts = half.counts.arrays()

    def of_chain(c: int) -> None:
        own = half.exposed[c].contiguous().numpy()
        address = (*at.stream.keys[c], at.step, int(half.site), half.first_row)
        factors = F[c].numpy(), G[c].numpy()
        given = (own, size, rate, power, address, least(dtype))
        compiled.stepped(data, indices, starts[0], *factors, *given, out[c].numpy())

    ordered_map(of_chain, range(len(F)), COST * len(data) * F.shape[2])
    return out


def of_columns(X: Matrix) -> Counts:
    """The counts of X's columns, kept with it."""
    kept: dict[str, Counts] = X.kept
    if "counts of columns" not in kept:
        counts = counts_of(X)
        order = torch.sort(counts.columns.long(), stable=True).indices
        number = torch.bincount(counts.columns.long(), minlength=X.shape[1])
        starts = torch.cat([number.new_zeros(1), number.cumsum(0)])[None]
        kept["counts of columns"] = Counts(counts.data[order], counts.rows[order].int(), starts)
    return kept["counts of columns"]
