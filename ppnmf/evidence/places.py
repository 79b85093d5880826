"""Orders of components on the way from a reference to a posterior: which may change places, and weights that sum over them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.evidence.orders import reordered
from ppnmf.evidence.permanent import MOST, drawn_orders, log_permanents
from ppnmf.evidence.smc import log_mean
from ppnmf.inference.particles import Raised
from ppnmf.protocols import Address, Matrix, Params, Reference, Stepping, Sweeps
from ppnmf.rng import Site, Stream

__all__ = ["Fitted", "Places"]


class Places(NamedTuple):
    """Which components may change places.

    Args:
        summed: classes of equal priors whose orders are summed over, those of several components.
        kept: those with too many components.
    """

    summed: list[list[int]]
    kept: list[list[int]]

    @classmethod
    def of(cls, classes: list[int]) -> Places:
        """From the first component of each one's class."""
        each = [[k for k, own in enumerate(classes) if own == first] for first in sorted(set(classes))]
        several = [members for members in each if len(members) > 1]
        return cls([m for m in several if len(m) <= MOST], [m for m in several if len(m) > MOST])

    def log_orders(self, log_places: Tensor, power: float) -> Tensor:
        """log Σ_π r(πθ)^power / r(θ)^power over the orders of the classes that are summed over, (C,)."""
        total = torch.zeros(len(log_places), dtype=torch.float64)
        for members in self.summed:
            logs = power * log_places[:, members][:, :, members]
            values, _ = log_permanents(logs.numpy())
            total += torch.from_numpy(values) - logs.diagonal(dim1=1, dim2=2).sum(-1)
        return total

    def drawn(self, log_places: Tensor, power: float, uniforms: Tensor) -> Tensor:
        """Which component comes in each place, (C, K), in proportion to r(πθ)^power."""
        C, K = uniforms.shape
        order = torch.arange(K).repeat(C, 1)
        for members in self.summed:
            logs = power * log_places[:, members][:, :, members]
            places = torch.from_numpy(drawn_orders(logs.numpy(), uniforms[:, members].numpy()))
            own = torch.tensor(members)
            order.scatter_(1, own[places], own.expand(C, -1))
        return order

    def log_left(self, reference: Reference, params: Params) -> tuple[float, bool]:
        """Log of what the other classes' orders are to the estimate: their number times mean s; and whether s is exact."""
        total, exact = torch.zeros(1, dtype=torch.float64), True
        for members in self.kept:
            logs = reference.log_places(params)[:, members][:, :, members]
            values, all_counted = log_permanents(logs.numpy())
            exact = exact and all_counted
            shares = logs.diagonal(dim1=1, dim2=2).sum(-1) - torch.from_numpy(values)
            total = total + math.lgamma(len(members) + 1) + shares
        return log_mean(total.numpy()), exact


class Fitted(NamedTuple):
    """The path from a reference to the posterior."""

    model: Stepping
    X: Matrix
    reference: Reference
    places: Places

    def begin(self, stream: Stream) -> Raised:
        """Draws of the reference."""
        params = self.reference.draws(self.X, stream)
        return self._at(params, self.model.log_likelihood_at(params, self.X))

    def log_weights(self, now: Raised, power: float, to: float) -> Tensor:
        """Of a particle in all its orders."""
        linear = (to - power) * now.log_ratio
        if not self.places.summed:
            return linear
        logs = self.reference.log_places(now.params)
        orders = self.places.log_orders(logs, 1 - to) - self.places.log_orders(logs, 1 - power)
        return linear + orders.to(linear.device)

    def raised(self, params: Params, power: float, sweeps: int, at: Address) -> Raised:
        """The order drawn anew, and sweeps at β."""
        if self.places.summed:
            u = at.stream.uniforms(at.step, Site.SWAP, range(1), self.model.rank)[:, 0]
            params = reordered(params, self.places.drawn(self.reference.log_places(params), 1 - power, u))
        asked = Sweeps(number=sweeps, kept=range(sweeps - 1, sweeps), power=power)
        swept = self.model.sweep_between(self.reference, params, self.X, asked, at)
        return self._at(swept.params, swept.log_likelihood[:, 0])

    def _at(self, params: Params, log_likelihood: Tensor) -> Raised:
        lp = log_likelihood + self.model.log_prior(params)
        return Raised(params, lp, lp - self.reference.log_prob(params))
