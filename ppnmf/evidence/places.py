"""Orders of components on the way from a reference to a posterior: which may change places, and weights that sum over them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.evidence.crossed import Crossed
from ppnmf.evidence.orders import FACTORS, Axes, axes_of, reordered
from ppnmf.evidence.permanent import MOST, drawn_orders, log_permanents
from ppnmf.evidence.smc import log_mean
from ppnmf.inference.particles import Raised
from ppnmf.kernels.stones import order_uniforms
from ppnmf.protocols import Address, Crossing, Matrix, Params, Reference, Stepper, Stepping, SteppingWhole, Sweeps
from ppnmf.rng import Stream

__all__ = ["Fitted", "Places"]


class Places(NamedTuple):
    """Which components may change places.

    Args:
        summed: classes of equal priors whose orders are summed over, those of several components.
        kept: those with too many components.
        size: components in all.
        axes: where the sites have them.
    """

    summed: list[list[int]]
    kept: list[list[int]]
    size: int
    axes: Axes = FACTORS

    @classmethod
    def of(cls, classes: list[int], axes: Axes = FACTORS) -> Places:
        """From the first component of each one's class."""
        each = [[k for k, own in enumerate(classes) if own == first] for first in sorted(set(classes))]
        several = [members for members in each if len(members) > 1]
        few = [members for members in several if len(members) <= MOST]
        return cls(few, [members for members in several if len(members) > MOST], len(classes), axes)

    @property
    def uniforms(self) -> int:
        """How many an order is drawn by."""
        return self.size

    def log_orders(self, log_places: Tensor, power: float) -> Tensor:
        """log Σ_π r(πθ)^power / r(θ)^power over the orders of the classes that are summed over, (C,)."""
        if power == 0:
            every = sum(math.lgamma(len(members) + 1) for members in self.summed)
            return torch.full((len(log_places),), every, dtype=torch.float64)
        total = torch.zeros(len(log_places), dtype=torch.float64)
        for members in self.summed:
            logs = power * _among(log_places, members).numpy()
            values, _ = log_permanents(logs)
            total += torch.from_numpy(values - np.trace(logs, axis1=1, axis2=2))
        return total

    def drawn(self, log_places: Tensor, power: float, uniforms: np.ndarray) -> Tensor:
        """Which component comes in each place, (C, K), in proportion to r(πθ)^power."""
        C, K = uniforms.shape
        order = torch.arange(K).repeat(C, 1)
        for members in self.summed:
            u = np.ascontiguousarray(uniforms[:, members])
            drawn = drawn_orders(power * _among(log_places, members).numpy(), u) if power else u.argsort(1)
            places = torch.from_numpy(drawn)
            own = torch.tensor(members)
            order.scatter_(1, own[places], own.expand(C, -1))
        return order

    def reordered(self, params: Params, log_places: Tensor, power: float, uniforms: np.ndarray) -> dict[str, Tensor]:
        """Components in an order that is drawn in proportion to r(πθ)^power; uniforms (C, K)."""
        return reordered(params, self.drawn(log_places, power, uniforms), self.axes)

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


def _among(log_places: Tensor, members: list[int]) -> Tensor:
    """Those of some components, (C, m, m)."""
    return log_places if len(members) == log_places.shape[1] else log_places[:, members][:, :, members]


class Fitted(NamedTuple):
    """The path from a reference to the posterior.

    Args:
        stepper: its steps compiled whole, where there are such.
    """

    model: Stepping
    X: Matrix
    reference: Reference
    places: Places | Crossed
    stepper: Stepper | None

    @classmethod
    def of(cls, model: Stepping, X: Matrix, reference: Reference) -> Fitted:
        """With the orders that the model's classes allow."""
        stepper = model.stepper(reference, X) if isinstance(model, SteppingWhole) else None
        one = not isinstance(model, Crossing)
        places = Places.of(model.classes(), axes_of(model)) if one else Crossed.of(model)
        return cls(model, X, reference, places, stepper)

    def begin(self, stream: Stream) -> Raised:
        """Draws of the reference."""
        params = self.reference.draws(self.X, stream)
        return self._at(params, self.model.log_likelihood_at(params, self.X))

    def log_weights(self, now: Raised, power: float, to: float) -> Tensor:
        """Of a particle in all its orders."""
        linear = (to - power) * now.log_ratio
        if now.places is None:
            return linear
        orders = self.places.log_orders(now.places, 1 - to) - self.places.log_orders(now.places, 1 - power)
        return linear + orders.to(linear.device)

    def raised(self, now: Raised, power: float, sweeps: int, at: Address) -> Raised:
        """The order drawn anew, and sweeps at β."""
        params = now.params
        if now.places is not None:
            u = order_uniforms(at, self.places.uniforms)
            params = self.places.reordered(params, now.places, 1 - power, u)
        if self.stepper is not None:
            stood = self.stepper.raised(params, power, sweeps, at)
            lp = stood.log_likelihood + stood.log_prior
            return Raised(stood.params, lp, lp - stood.log_reference, stood.places if self.places.summed else None)
        asked = Sweeps(number=sweeps, kept=range(sweeps - 1, sweeps), power=power)
        swept = self.model.sweep_between(self.reference, params, self.X, asked, at)
        return self._at(swept.params, swept.log_likelihood[:, 0])

    def _at(self, params: Params, log_likelihood: Tensor) -> Raised:
        lp = log_likelihood + self.model.log_prior(params)
        places = self.reference.log_places(params) if self.places.summed else None
        return Raised(params, lp, lp - self.reference.log_prob(params), places)
