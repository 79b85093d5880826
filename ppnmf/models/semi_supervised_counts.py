"""Labels beside counts: X ≈ W H and Y ≈ W B are one factorisation of counts, a label being λ events of its class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from ppnmf.checks import whole_number
from ppnmf.data.dense import Dense
from ppnmf.data.labels import Labels, joined
from ppnmf.models.gamma_poisson import GammaPoisson
from ppnmf.poisson.loadings import most_probable
from ppnmf.priors import Hyper
from ppnmf.protocols import Params, Scores
from ppnmf.settings import own_settings

__all__ = ["SemiSupervisedCounts"]

LEAST = 1e-300  # a mean of which a logarithm is taken


@dataclass(frozen=True, eq=False)
class SemiSupervisedCounts(GammaPoisson):
    r"""W, H, B ~ Gamma, X_ij ~ Poisson((WH)_ij), λ Y_ic ~ Poisson(λ (WB)_ic / m_i), Y in part unknown, λ a whole number.

    m_i is the mean count of row i of X, taken as known, so that a row of twice the events is not thought to have two labels.
    The divergence of a label counts λ times,

    .. math:: -\log p = D(X \| WH) + \lambda \, D(Y \| WB / m) + \text{const},

    with D the Kullback-Leibler divergence, because :math:`\lambda D(y \| \mu) = D(\lambda y \| \lambda \mu)`: a label is λ events
    of its class, at an exposure of λ. The exposure alone would be no weight, since B takes up any factor of its column; the events
    alone would let B grow with λ. λ equal observations of y have this likelihood, so that with whole λ y the conditionals are
    the exact ones of counts, and all that is read off a fit is that of `GammaPoisson`. Between whole numbers λ the power of a
    Poisson likelihood has no exact sweep.

    Of a row that has one label, p(c | W, B) ∝ (WB)_ic^λ; m_i drops out. The data of this model are made by
    `ppnmf.fit("semi_supervised_counts", X, rank=..., labels=y)`, as for `SemiSupervised`: its H is [H, B], and its `X` is [X, λ Y].

    Args:
        rank: K.
        shape_W, shape_H, rate_W, rate_H: of the gamma priors, as in `GammaPoisson`; of all columns, those of Y among them.
        exposures: of the columns [X, λ Y]: 1, and λ / m_i; `fit` sets them.
        label_names: of Y's columns, which are the last ones.
        weight: λ, a whole number.

    Raises:
        ValueError: as of `GammaPoisson`, or a weight that is no whole number >= 0.

    References: Haddock et al. (2020), "Semi-supervised nonnegative matrix factorization models for document classification",
    arXiv:2010.07956, of which this is the model with two divergences, (D, D), with priors.
    """

    rank: int
    shape_W: Hyper = 1.0
    shape_H: Hyper = 1.0
    rate_W: Hyper = 1.0
    rate_H: Hyper = 1.0
    exposures: Hyper = 1.0
    label_names: tuple[str, ...] = ()
    weight: int = 0

    name: ClassVar[str] = "semi_supervised_counts"

    @own_settings()
    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "label_names", tuple(map(str, self.label_names)))
        object.__setattr__(self, "weight", _whole("weight", self.weight))

    @classmethod
    def usual_weight(cls, X: Dense, rank: int, labels: Labels) -> float:
        """1: a label is one more event of its row."""
        return 1.0

    @classmethod
    def for_labelled(cls, X: Dense, rank: int, labels: Labels, weight: float) -> Self:
        """The priors of `for_data`, and rates of B such that W @ B over the rows' mean counts has the labels' mean a priori.

        Args:
            X: a `Matrix` of counts, without the labels. labels: of its rows. weight: λ; 0 leaves the labels out.

        Raises:
            ValueError: a weight that is not whole, scores that are no counts, or X without events.
        """
        alone = cls.for_data(X, rank)
        events = _whole("label_weight", weight)
        if events == 0:
            return alone
        if bool((labels.scores < 0).any()) or not torch.equal(labels.scores, labels.scores.floor()):
            raise ValueError(f"labels have scores that are no counts; {cls.name} takes names, or whole numbers >= 0")
        rate = float(torch.as_tensor(alone.rate_W))
        of_labels = rate / (float(labels.scores[labels.known].mean()) or 1.0)
        rates = torch.tensor([rate] * X.shape[1] + [of_labels] * len(labels.classes), dtype=torch.float64)
        return cls(rank, 1.0, 1.0, rate, rates.expand(rank, -1), 1.0, labels.classes, events)

    def beside(self, X: Dense, labels: Labels | None = None) -> tuple[Self, Dense]:
        """The model with the exposures of these rows, and [X, λ Y]; both as they are where λ is 0."""
        if self.weight == 0:
            return self, X
        of_labels = (self.weight / _mean_counts(X)).expand(-1, len(self.label_names))
        exposures = torch.cat([of_labels.new_ones(X.shape), of_labels], 1).cpu()
        return replace(self, exposures=exposures), joined(X, labels, len(self.label_names), scale=self.weight)

    def label_scores(self, params: Params) -> Scores:
        """log (W B), which counts λ times."""
        means = params["W"] @ params["H"][..., -len(self.label_names) :]
        return Scores(means.clamp(min=LEAST).log(), means.new_full(means.shape[:1], 1 / self.weight))

    def loadings(self, X: Dense, params: Params) -> Tensor:
        """The most probable ones of rows of X (n, D) without labels over their mean counts, (S, n, K), given H (S, K, D + c)."""
        found = most_probable(self.prior("W"), X, params["H"][..., : X.shape[1]])
        return found / _mean_counts(X).cpu()


def _whole(name: str, weight: float) -> int:
    """λ as a whole number; a float may be one."""
    return whole_number(name, int(weight) if isinstance(weight, float) and weight.is_integer() else weight, 0)


def _mean_counts(X: Dense) -> Tensor:
    """The mean observed count of each row, (N, 1), float64; of a row without events as if it had one."""
    seen = X.values.new_ones(X.shape) if X.mask is None else X.mask
    values = X.values if X.mask is None else torch.where(X.mask, X.values, 0.0)
    return values.double().sum(1, keepdim=True).clamp(min=1) / seen.double().sum(1, keepdim=True).clamp(min=1)
