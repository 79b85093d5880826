"""What is found out about a matrix when it is taken in, so that no later question passes through all of X again."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.folded import Folded

__all__ = ["Survey", "Surveyed"]


class Survey(NamedTuple):
    """Of the observed entries of X; squares and squared deviations are over the relative noise variances."""

    n_observed: int
    mean: float
    variance: float
    sum_of_squares: float
    log_noise: float
    n_negative: int
    least: float
    column_means: np.ndarray  # (D,), float64; the overall mean where a column has no observed entry


class Surveyed(Folded):
    """The questions that a survey answers; a kind of matrix that holds one, and has a dtype and a device, adds the rest."""

    survey: Survey

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype: ...

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    n_observed = property(lambda self: self.survey.n_observed)
    sum_of_squares = property(lambda self: self.survey.sum_of_squares)
    log_noise = property(lambda self: self.survey.log_noise)
    n_negative = property(lambda self: self.survey.n_negative)
    least = property(lambda self: self.survey.least)

    def mean(self) -> float:
        """Mean of the observed entries."""
        return self.survey.mean

    def variance(self) -> float:
        """Mean of the squared deviations of the observed entries, each over its relative noise variance."""
        return self.survey.variance

    def column_means(self) -> Tensor:
        """Mean of the observed entries of each column, shape (D,); the overall mean where a column has none."""
        return torch.from_numpy(self.survey.column_means).to(self.device, self.dtype)
