"""Steps from a fitted reference to a Gaussian posterior, all particles in one compiled call (`kernels.stones`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.gaussian import path, restricted, ridge
from ppnmf.gaussian.noise import NoisePrior
from ppnmf.gaussian.path import Fitted
from ppnmf.gaussian.sweep import Story, log_likelihood_of, whole
from ppnmf.kernels import stones
from ppnmf.protocols import Address, Matrix, Params, Stood

__all__ = ["Stepper"]


class Stepper(NamedTuple):
    """The sweeps of `sweep_between`, and what is asked of the particles after them."""

    story: Story
    reference: Fitted
    X: Matrix
    way: stones.Way
    constant: float  # of the factors' log prior, beside what the compiled one has

    @classmethod
    def of(cls, story: Story, reference: Fitted, X: Matrix) -> Stepper | None:
        """None where X is not in memory on the CPU, its entries differ in their noise, or entries of factors are known."""
        problem = whole(story.prior, X)
        if problem is None or restricted.is_needed(story.prior):
            return None
        of_W, of_H = path.unpinned(reference.W), path.unpinned(reference.H)
        (N, K), D = of_W.shape, of_H.shape[1]
        shapes = {"W": (N, K), "H": (K, D)}
        log_peaks = -of_W.log_normalizer.sum(0) - of_H.log_normalizer.sum(1)
        way = stones.Way(
            problem,
            _component_a_row(of_W.precision.mT, of_W.linear.mT),
            _component_a_row(of_H.precision, of_H.linear),
            log_peaks.numpy(),
            ridge.all_free(torch.empty(N, K), torch.empty(K, D)),
        )
        logs = [story.prior(site).rectified.log_normalizer.expand(shape).sum() for site, shape in shapes.items()]
        return cls(story, reference, X, way, -float(sum(logs)))

    def raised(self, params: Params, power: float, sweeps: int, at: Address) -> Stood:
        """Particles after so many sweeps at β = `power`."""
        target = path.between(self.story, self.reference, power)
        of_W, of_H = (target.prior(site).natural("cpu") for site in ("W", "H"))
        noise = None
        if isinstance(target.noise, NoisePrior):
            noise = target.noise.given(self.X.n_observed, power)
        own = stones.Between(power, _component_a_row(of_W.precision.mT, of_W.linear.mT), _component_a_row(*of_H), noise)
        after = stones.swept(self.way, params, own, sweeps, at)
        sigma2 = after.params["sigma2"]
        log_prior = after.log_prior + self.constant + self.story.noise.log_prob(sigma2)
        diagonal = after.places.diagonal(dim1=1, dim2=2).sum(-1)
        return Stood(
            after.params,
            log_likelihood_of(self.X, after.misfit, sigma2),
            log_prior,
            diagonal + self.reference.noise.log_prob(sigma2),
            after.places,
        )


def _component_a_row(precision: Tensor, linear: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return precision.contiguous().numpy(), linear.contiguous().numpy()
