"""Orders of components of several kinds on the way from a reference to a posterior: all of each kind may change places.

What `places.Places` is for one kind. Of all kinds but the one with the most components the orders are listed, and for each of them
those of that kind are summed by a permanent (`gaussian.chained_path` has the tables). Where the list is long, it is gone through at
the end of the path alone: with the share s(θ) = r(θ) / Σ r of the order that particles end in, p(X) is the number of orders
times Ẑ · mean s.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ppnmf.evidence.orders import Axes, axes_of, reordered
from ppnmf.evidence.permanent import MOST, stepped
from ppnmf.evidence.smc import log_mean
from ppnmf.matching import crossed_orders
from ppnmf.protocols import Params, Reference

__all__ = ["Crossed", "Kind"]

MOST_LISTED = 4  # components whose orders are as many as are listed at most, where they are summed over at each step
WORK = MOST * 2**MOST  # steps of a particle's sums, beyond which its orders are not all counted
AT_ONCE = 2**22  # entries of tables that are looked at together


class Kind(NamedTuple):
    """A kind of components: how many, and where sites have them."""

    size: int
    axes: Axes

    @classmethod
    def of(cls, model: Any, dimension: str) -> Self:
        """By the name that the model's sites have for it."""
        sizes = [dims[dimension] for dims in model.sites(1, 1).values() if dimension in dims]
        return cls(sizes[0], axes_of(model, dimension))


class Crossed(NamedTuple):
    """Components of several kinds."""

    other: Kind  # whose orders are summed by permanents
    listed: list[Kind]

    @classmethod
    def of(cls, model: Any) -> Self:
        """The model's `kinds`; that with the most components is not listed, the first where several have as many."""
        kinds = [Kind.of(model, dimension) for dimension in model.kinds]
        other = max(kinds, key=lambda kind: kind.size)
        return cls(other, [kind for kind in kinds if kind is not other])

    @property
    def combinations(self) -> int:
        """How many orders there are of the listed kinds together."""
        return math.prod(math.factorial(kind.size) for kind in self.listed)

    @property
    def summed(self) -> bool:
        """Whether orders are summed over at each step."""
        return self.combinations <= math.factorial(MOST_LISTED) and self.countable

    @property
    def countable(self) -> bool:
        """Whether sums over all orders are to be had: up to seven of each of two kinds."""
        return self.combinations * self.other.size * 2**self.other.size <= WORK

    @property
    def uniforms(self) -> int:
        """How many an order is drawn by."""
        return self.other.size + 1

    @property
    def _log_number(self) -> float:
        return math.lgamma(self.other.size + 1) + math.log(self.combinations)

    def weighed(
        self, params: Params, log_places: Tensor, power: float, to: float, uniforms: np.ndarray
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Places.weighed`; uniforms (C, J + 1)."""
        before, after = _each(log_places, power, to)
        gained = after.logsumexp(1) - before.logsumexp(1) - (to - power) * _own(log_places)
        chosen = (after.softmax(1).cumsum(1)[:, :-1] < torch.from_numpy(uniforms[:, -1:].copy())).sum(1)
        u = np.ascontiguousarray(uniforms[:, :-1])
        tables = log_places[torch.arange(len(chosen)), chosen]
        places = torch.from_numpy(stepped(tables.numpy(), to, to, u)[1] if to else u.argsort(1))
        params = reordered(params, places.argsort(1), self.other.axes)
        for kind, orders in zip(self.listed, crossed_orders([kind.size for kind in self.listed]), strict=True):
            params = reordered(params, orders[chosen].argsort(1), kind.axes)
        return gained, params

    def log_orders(self, log_places: Tensor, power: float) -> Tensor:
        """log Σ_π,τ r(π, τ θ)^power / r(θ)^power over all orders, (C,), from tables (C, T, J, J)."""
        return _each(log_places, power, power)[1].logsumexp(1) - power * _own(log_places)

    def log_left(self, reference: Reference, params: Params) -> tuple[float, bool]:
        """As `Places.log_left`: nothing where all were summed at each step."""
        if self.summed:
            return 0.0, True
        if not self.countable:
            return self._log_number, False
        C = len(params["W"])
        size = self.combinations * self.other.size**2
        lots = torch.arange(C).split(max(1, AT_ONCE // size))
        logs = [self._log_shares(reference, {site: own[lot] for site, own in params.items()}) for lot in lots]
        return self._log_number + log_mean(torch.cat(logs).numpy()), True

    def _log_shares(self, reference: Reference, params: Params) -> Tensor:
        return -self.log_orders(reference.log_places(params), 1.0)


def _own(log_places: Tensor) -> Tensor:
    """log r(θ) as far as orders change it, (C,)."""
    return log_places[:, 0].diagonal(dim1=1, dim2=2).sum(-1)


def _each(log_places: Tensor, power: float, to: float) -> tuple[Tensor, Tensor]:
    """The logs of the sums over the orders that are not listed, (C, T), at either power; all alike at the power of 0."""
    C, T, J, _ = log_places.shape
    alike = torch.full((C, T), math.lgamma(J + 1), dtype=torch.float64)
    if to == 0:
        return (_each(log_places, power, power)[1] if power else alike), alike
    values, _ = stepped(log_places.reshape(C * T, J, J).numpy(), power, to, np.empty((C * T, 0)))
    before, after = torch.from_numpy(values).view(C, T, 2).unbind(-1)
    return before, after
