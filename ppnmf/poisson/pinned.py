"""Known entries in sweeps of the Poisson family: they are put in their places after each draw, mode or moment.

Given the components of the counts the entries of a factor are independent, so an entry that is known changes nothing for the
others of its row. What is read off the prior as a density (`energy`, `log_constant`) is that of the other entries alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppnmf.known import Known, known_of
from ppnmf.poisson.allocation import counts_of, log_means
from ppnmf.priors import FactorPrior, Gamma
from ppnmf.protocols import Matrix

__all__ = ["FLAT", "Pinned", "Prior", "flattened", "require_possible"]


class Pinned(FactorPrior):
    """A factor's gamma prior, some of whose entries are known.

    Args:
        prior: of the others.
        known: which they are, for the whole factor.
    """

    def __init__(self, prior: Gamma, known: Known) -> None:
        self.prior = prior
        self.known = known

    def distribution(self, like: Tensor) -> Any:
        """Of all entries as if none were known: the Pyro program puts those that are in their places."""
        return self.prior.distribution(like)

    def energy(self, F: Tensor) -> Tensor:
        """Minus the log density of the entries that are not known, but for its constant, (C,), float64."""
        size, rate = self.prior.on(F.device)
        at = self.known.on(F.device).at
        own = torch.where(at, 1.0, F.double())  # a known zero has no logarithm
        each = rate * own - torch.xlogy(size - 1, own)
        return torch.where(at, 0.0, each).sum((-2, -1))

    def log_constant(self, shape: tuple[int, int]) -> float:
        """That of the entries that are not known."""
        size, rate = self.prior.on(torch.device("cpu"))
        each = torch.xlogy(size, torch.where(rate > 0, rate, 1.0)) - torch.lgamma(size)
        return float(torch.where(self.known.on(each.device).at, 0.0, each).sum())

    @property
    def is_proper(self) -> bool:
        return self.prior.is_proper

    @property
    def has_modes(self) -> bool:
        """Whether no entry that is to be learned has a shape below 1."""
        size, _ = self.prior.on(self.known.at.device)
        return not bool((~self.known.at & (size < 1)).any())

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Shape and rate of the gamma there, as if nothing were known."""
        return self.prior.on(device)


Prior = Callable[[str], Gamma | Pinned]  # of "W" or of "H"
FLAT = Gamma(torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))


def flattened(prior: Prior) -> Prior:
    """No priors, but for what is known."""

    def of(site: str) -> Gamma | Pinned:
        known = known_of(prior(site))
        return FLAT if known is None else Pinned(FLAT, known)

    return of


def require_possible(prior: Prior, rank: int, X: Matrix) -> None:
    """Raise ValueError where X has counts above zero whose means known zeros make zero: no values of the rest give them."""
    W = _may_be_above_zero(known_of(prior("W")), (len(X.rows), rank))
    Ht = _may_be_above_zero(known_of(prior("H")), (rank, X.shape[1])).mT.contiguous()

    def of_block(rows: range, block: Any) -> bool:
        counts = counts_of(block)
        C = len(counts.starts)
        own = W[rows.start : rows.stop].expand(C, -1, -1).contiguous()
        means = log_means(counts, own.to(X.device), Ht.expand(C, -1, -1).to(X.device), (None, None, None))
        return bool(means.isinf().any())

    certain = bool((W.bool().all(0) & Ht.bool().all(0)).any())  # a component of which no zeros are known
    wrong = False if certain else any(X.by_block(of_block))
    if float(X.add_up(torch.tensor(float(wrong), device=X.device))):  # in all processes, whichever rows are theirs
        raise ValueError(
            "X has counts above zero where all components are known to be zero, in W or in H: let one of them be learned there"
        )


def _may_be_above_zero(known: Known | None, shape: tuple[int, int]) -> Tensor:
    """0 where an entry is known to be zero, 1 elsewhere, float64."""
    if known is None:
        return torch.ones(shape, dtype=torch.float64)
    return (~known.at.cpu() | (known.values.cpu() > 0)).double()
