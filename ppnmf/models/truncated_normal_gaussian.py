"""Truncated normal priors, Gaussian likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from ppnmf.gaussian.model import RectifiedGaussian
from ppnmf.gaussian.scale import data_scale
from ppnmf.priors import MEAN, SCALE, Hyper, TruncatedNormal

__all__ = ["TruncatedNormalGaussian"]

OF_UNIT = 1.2875999709391783  # the mean of Normal(1, 1) truncated to w >= 0


@dataclass(frozen=True, eq=False)
class TruncatedNormalGaussian(RectifiedGaussian):
    r"""W_ik ~ Normal(mean_W, scale_W²) given W_ik >= 0, H_kj likewise, σ² ~ InverseGamma, X_ij ~ Normal((WH)_ij, σ²).

    A mean per entry says where a known profile lies; a negative mean favours zeros.

    Args:
        rank: K, the number of components.
        mean_W, scale_W: of the normal before it is truncated: numbers, (K,), or (N, K); scales are > 0.
        mean_H, scale_H: the same for H: numbers, (K,), or (K, D).
        noise_shape, noise_scale, sigma2: of the noise variance's prior, or itself, as in `ExponentialGaussian`.

    Raises:
        ValueError: a rank below 1, a scale that is not positive, a shape that does not fit, noise parameters not positive.
    """

    rank: int
    mean_W: Hyper = 0.0
    mean_H: Hyper = 0.0
    scale_W: Hyper = 1.0
    scale_H: Hyper = 1.0
    noise_shape: float = 1.0
    noise_scale: float = 1.0
    sigma2: float | None = None

    name: ClassVar[str] = "truncated_normal_gaussian"
    hyper: ClassVar = {"mean": MEAN, "scale": SCALE}

    def prior_of(self, *hyper: Tensor) -> TruncatedNormal:
        """Truncated normal, with the factor's means and scales."""
        return TruncatedNormal(*hyper)

    @classmethod
    def for_data(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        """Means equal to scales, such that W @ H has X's mean a priori; noise_shape 1, noise_scale its noise's, estimated."""
        scale = data_scale(X, rank, mask, missing)
        size = math.sqrt(scale.mean / rank) / OF_UNIT
        return cls(rank, size, size, size, size, 1.0, scale.noise)
