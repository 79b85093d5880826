"""Orders of components on the way from a reference to a posterior: which may change places, and weights that sum over them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.evidence.crossed import Crossed
from ppnmf.evidence.orders import FACTORS, Axes, axes_of, reordered
from ppnmf.evidence.permanent import MOST, log_permanents, stepped
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

    def weighed(
        self, params: Params, log_places: Tensor, power: float, to: float, uniforms: np.ndarray
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What a step from r^power to r^to adds to log weights where r(πθ) is summed over the orders π, and an order drawn by it.

        Returns: log [Σ_π r(πθ)^to / r(θ)^to] - log [Σ_π r(πθ)^power / r(θ)^power] over the orders of the classes that are summed
            over, (C,), and components in an order that has probability in proportion to r(πθ)^to.
        """
        C, K = uniforms.shape
        order, total = torch.arange(K).repeat(C, 1), torch.zeros(C, dtype=torch.float64)
        for members in self.summed:
            logs, u = _among(log_places, members).numpy(), np.ascontiguousarray(uniforms[:, members])
            values, drawn = _of_step(logs, power, to, u)
            own = (to - power) * np.trace(logs, axis1=1, axis2=2)
            total += torch.from_numpy(values[:, 1] - values[:, 0] - own)
            places = torch.tensor(members)
            order.scatter_(1, places[torch.from_numpy(drawn)], places.expand(C, -1))
        return total, reordered(params, order, self.axes)

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


def _of_step(logs: np.ndarray, power: float, to: float, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log permanents to either power, (C, 2), and places drawn at the second; at the power of 0 all orders are alike."""
    if to > 0:
        return stepped(logs, power, to, uniforms)
    every = np.full(len(logs), math.lgamma(logs.shape[1] + 1))
    before = log_permanents(power * logs)[0] if power > 0 else every
    return np.stack([before, every], 1), uniforms.argsort(1)


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

    def weighed(self, now: Raised, power: float, to: float, at: Address) -> tuple[Tensor, Raised]:
        """Of a particle in all its orders; it goes on in one that is drawn."""
        linear = (to - power) * now.log_ratio
        if now.places is None:
            return linear, now
        u = order_uniforms(at, self.places.uniforms)
        orders, params = self.places.weighed(now.params, now.places, 1 - power, 1 - to, u)
        return linear + orders.to(linear.device), now._replace(params=params)

    def raised(self, now: Raised, power: float, sweeps: int, at: Address) -> Raised:
        """Sweeps at β."""
        if self.stepper is not None:
            stood = self.stepper.raised(now.params, power, sweeps, at)
            lp = stood.log_likelihood + stood.log_prior
            return Raised(stood.params, lp, lp - stood.log_reference, stood.places if self.places.summed else None)
        asked = Sweeps(number=sweeps, kept=range(sweeps - 1, sweeps), power=power)
        swept = self.model.sweep_between(self.reference, now.params, self.X, asked, at)
        return self._at(swept.params, swept.log_likelihood[:, 0])

    def _at(self, params: Params, log_likelihood: Tensor) -> Raised:
        lp = log_likelihood + self.model.log_prior(params)
        places = self.reference.log_places(params) if self.places.summed else None
        return Raised(params, lp, lp - self.reference.log_prob(params), places)
