"""The ability to have labels of X's rows beside X, as further columns of one factorisation."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from torch import Tensor

from ppnmf.protocols.matrix import Params
from ppnmf.protocols.model import Model

__all__ = ["Labelling", "Scores"]


class Scores(NamedTuple):
    """What the probabilities of an observation's classes are read off, p(c) ∝ exp(values_c / variance) for each draw.

    Args:
        values: (S, n, c). variance: (S,); the smaller it is, the surer they are.
    """

    values: Tensor
    variance: Tensor


@runtime_checkable
class Labelling(Model, Protocol):
    """X ≈ W H and Y ≈ W B as one factorisation of the columns [X, Y] into W and [H, B], Y being labels of weight λ."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The c names of Y's columns, which are the last ones; none in a model without labels."""
        ...

    @property
    def weight(self) -> float:
        """λ; 0 where labels have no say."""
        ...

    @classmethod
    def usual_weight(cls, X: Any, rank: int, labels: Any) -> float:
        """λ where none is asked for.

        Args:
            X: (N, D) in memory, without the labels. labels: `data.labels.Labels` of its rows.
        """
        ...

    @classmethod
    def for_labelled(cls, X: Any, rank: int, labels: Any, weight: float) -> Self:
        """Priors on the scale of X and of the labels; those of `for_data` where λ is 0.

        Args:
            X, labels: as in `usual_weight`. weight: λ.

        Raises:
            ValueError: labels or a weight that the model has no place for.
        """
        ...

    def beside(self, X: Any, labels: Any = None) -> tuple[Self, Any]:
        """The model of these rows, the fitted or new ones, and their data [X, Y] (N, D + c); X alone where λ is 0.

        Args:
            X: (N, D) in memory. labels: of its rows; None where none is known.
        """
        ...

    def label_scores(self, params: Params) -> Scores:
        """Of draws with S first of W (S, n, K), [H, B] (S, K, D + c) and all else."""
        ...

    def loadings(self, X: Any, params: Params) -> Tensor:
        """The most probable ones (S, n, K) of rows of X (n, D) without labels, given S draws of all but W, as labels see them."""
        ...
