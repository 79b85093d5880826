"""Labels beside the data: X ≈ W H and Y ≈ W B are one factorisation, of the columns of both, with exponential priors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ppnmf.checks import real_number
from ppnmf.data.dense import Dense
from ppnmf.data.labels import Labels, joined
from ppnmf.gaussian.loadings import most_probable
from ppnmf.gaussian.model import RectifiedGaussian
from ppnmf.gaussian.scale import data_scale
from ppnmf.priors import RATE, Exponential, Hyper
from ppnmf.protocols import Params, Scores
from ppnmf.settings import own_settings

__all__ = ["SemiSupervised"]


@dataclass(frozen=True, eq=False)
class SemiSupervised(RectifiedGaussian):
    r"""W_ik, H_kj, B_kc ~ Exponential, X_ij ~ Normal((WH)_ij, σ²), Y_ic ~ Normal((WB)_ic, σ² / λ), Y in part unknown.

    `ppnmf.fit("semi_supervised", X, rank=..., labels=y)` makes the data of this model: the columns of X and of Y side by side,
    those of Y with the known relative noise 1 / λ and a mask. Its H is [H, B], and its `X` is [X, Y]. So the program, the
    sweeps and all that is read off a fit are those of the exponential model; `ppnmf.predicted_labels` reads W B.

    Args:
        rank: K.
        rate_W, rate_H: of the exponential priors, as in `ExponentialGaussian`; rate_H of all columns, those of Y among them.
        noise_shape, noise_scale: of the noise variance's prior.
        sigma2: the noise variance where it is known.
        label_names: of Y's columns, which are the last ones.
        weight: λ; what follows from it is in the data.

    Raises:
        ValueError: as of `ExponentialGaussian`, or a weight below 0.

    References: Lee, Yoo, Choi (2010), "Semi-supervised nonnegative matrix factorization", doi:10.1109/LSP.2009.2027163.
    """

    rank: int
    rate_W: Hyper = 1.0
    rate_H: Hyper = 1.0
    noise_shape: float = 1.0
    noise_scale: float = 1.0
    sigma2: float | None = None
    label_names: tuple[str, ...] = ()
    weight: float = 0.0

    name: ClassVar[str] = "semi_supervised"
    hyper: ClassVar = {"rate": RATE}

    @own_settings()
    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "label_names", tuple(map(str, self.label_names)))
        object.__setattr__(self, "weight", real_number("weight", self.weight, 0))

    def prior_of(self, *hyper: Tensor) -> Exponential:
        """Exponential, with the factor's rates."""
        return Exponential(*hyper)

    @classmethod
    def for_data(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        """The priors of `ExponentialGaussian.for_data`, without labels.

        Raises:
            ValueError: the observed X has a mean or a variance that is not positive.
        """
        scale = data_scale(X, rank, mask, missing)
        rate = math.sqrt(rank / scale.mean)
        return cls(rank, rate, rate, 1.0, scale.noise)

    @classmethod
    def usual_weight(cls, X: Dense, rank: int, labels: Labels) -> float:
        """The estimate of σ² over the variance of the known scores: a label is no more than as noisy as it is variable."""
        known = labels.scores[labels.known]
        variance = float((known - known.mean(0)).square().mean())
        return data_scale(X, rank).noise / max(variance, 1e-12)

    @classmethod
    def for_labelled(cls, X: Dense, rank: int, labels: Labels, weight: float) -> Self:
        """The same for the columns of X and of the labels, whose rates are such that W @ B has the scores' mean a priori.

        Args:
            X: a `Matrix`, without the labels. labels: of its rows. weight: λ; 0 leaves the labels out.

        Raises:
            ValueError: the observed X has a mean or a variance that is not positive.
        """
        alone = cls.for_data(X, rank)
        if weight == 0:
            return alone
        rate = math.sqrt(rank / data_scale(X, rank).mean)
        mean = float(labels.scores[labels.known].abs().mean()) or 1.0
        of_labels = rank / (rate * mean)
        c = len(labels.classes)
        rates = torch.tensor([rate] * X.shape[1] + [of_labels] * c, dtype=torch.float64).expand(rank, -1)
        return cls(rank, rate, rates, 1.0, alone.noise_scale, None, labels.classes, weight)

    def beside(self, X: Dense, labels: Labels | None = None) -> tuple[Self, Dense]:
        """The model itself, and [X, Y] with the relative noise 1 / λ of Y; X as it is where λ is 0."""
        if self.weight == 0:
            return self, X
        return self, joined(X, labels, len(self.label_names), noise=1 / self.weight)

    def label_scores(self, params: Params) -> Scores:
        """W B, and the variance σ² / λ of the labels about it: unit vectors e_c have one length, so p(c) ∝ exp(e_c · s / τ²)."""
        return Scores(params["W"] @ params["H"][..., -len(self.label_names) :], params["sigma2"] / self.weight)

    def loadings(self, X: Dense, params: Params) -> Tensor:
        """The most probable ones (S, n, K) of rows of X (n, D) without labels, given H (S, K, D + c) and σ² (S,)."""
        return most_probable(self.prior("W"), X, params["H"][..., : X.shape[1]], params["sigma2"])
