"""Exponential priors, Gaussian likelihood (Schmidt, Winther, Hansen 2009; their A, B are our W, H)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from ppnmf.gaussian.model import RectifiedGaussian
from ppnmf.gaussian.scale import data_scale
from ppnmf.priors import RATE, Exponential, Hyper

__all__ = ["ExponentialGaussian"]


@dataclass(frozen=True, eq=False)
class ExponentialGaussian(RectifiedGaussian):
    r"""W_ik ~ Exponential(rate_W), H_kj ~ Exponential(rate_H), σ² ~ InverseGamma, X_ij ~ Normal((WH)_ij, σ²).

    A frozen value: its fields are the hyperparameters, and calling it runs the Pyro program. Models with equal
    hyperparameters are equal, have one hash, and come back equal from `pickle`.

    Args:
        rank: K, the number of components.
        rate_W: rate of the prior of W (one over its mean): a number, one per component (K,), or one per entry (N, K).
        rate_H: the same for H: a number, (K,), or (K, D). A rate of 0 is a flat, improper prior, which only ICM takes.
        noise_shape: α of the noise variance's prior, density θ^α / Γ(α) · s^(-α-1) · exp(-θ/s).
        noise_scale: θ of the same, in units of X squared.
        sigma2: the noise variance where it is known; it is then no longer random, and the two above play no part.

    Raises:
        ValueError: a rank below 1, a negative rate or one of the wrong shape, noise parameters that are not positive.

    References: Schmidt, Winther, Hansen (2009), "Bayesian non-negative matrix factorization",
        doi:10.1007/978-3-642-00599-2_68. (Their noise conditional has one too many in its shape; ours is α + N D / 2.)
    """

    rank: int
    rate_W: Hyper = 1.0
    rate_H: Hyper = 1.0
    noise_shape: float = 1.0
    noise_scale: float = 1.0
    sigma2: float | None = None

    name: ClassVar[str] = "exponential_gaussian"
    hyper: ClassVar = {"rate": RATE}

    def prior_of(self, *hyper: Tensor) -> Exponential:
        """Exponential, with the factor's rates."""
        return Exponential(*hyper)

    @classmethod
    def for_data(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        """Priors on the data's scale: rate_W = rate_H = √(rank / mean of X), so that W @ H has X's mean a priori.

        noise_shape is 1 and noise_scale a robust estimate of the noise variance, whatever the rank (`gaussian.scale`).

        Raises:
            ValueError: the observed X has a mean or a variance that is not positive.
        """
        scale = data_scale(X, rank, mask, missing)
        rate = math.sqrt(rank / scale.mean)
        return cls(rank, rate, rate, 1.0, scale.noise)
