"""Half-normal priors, Gaussian likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from ppnmf.gaussian.model import RectifiedGaussian
from ppnmf.gaussian.scale import data_scale
from ppnmf.priors import SCALE, HalfNormal, Hyper

__all__ = ["HalfNormalGaussian"]


@dataclass(frozen=True, eq=False)
class HalfNormalGaussian(RectifiedGaussian):
    r"""W_ik ~ HalfNormal(scale_W), H_kj ~ HalfNormal(scale_H), σ² ~ InverseGamma, X_ij ~ Normal((WH)_ij, σ²).

    Large entries are rarer than under exponential priors, and zeros are not favoured: components are smoother and denser.

    Args:
        rank: K, the number of components.
        scale_W: root mean square of the prior of W, > 0: a number, one per component (K,), or one per entry (N, K).
        scale_H: the same for H: a number, (K,), or (K, D).
        noise_shape, noise_scale, sigma2: of the noise variance's prior, or itself, as in `ExponentialGaussian`.

    Raises:
        ValueError: a rank below 1, a scale that is not positive or of the wrong shape, noise parameters that are not positive.
    """

    rank: int
    scale_W: Hyper = 1.0
    scale_H: Hyper = 1.0
    noise_shape: float = 1.0
    noise_scale: float = 1.0
    sigma2: float | None = None

    name: ClassVar[str] = "half_normal_gaussian"
    hyper: ClassVar = {"scale": SCALE}

    def prior_of(self, *hyper: Tensor) -> HalfNormal:
        """Half-normal, with the factor's scales."""
        return HalfNormal(*hyper)

    @classmethod
    def for_data(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        """Equal scales such that W @ H has X's mean a priori; noise_shape 1, noise_scale its noise's, estimated."""
        scale = data_scale(X, rank, mask, missing)
        size = math.sqrt(math.pi / 2 * scale.mean / rank)  # the mean of a half-normal is √(2/π) its scale
        return cls(rank, size, size, 1.0, scale.noise)
