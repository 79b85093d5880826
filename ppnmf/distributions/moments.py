"""Densities with the moments of draws."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["LEAST_SPREAD", "Matched", "matched_gammas"]

LEAST_SPREAD = 1e-6  # of a number over its mean: draws that do not move say nothing of how wide a density is


class Matched(NamedTuple):
    """Gamma(shape, rate), density ∝ x^(shape - 1) exp(-rate x), of each number."""

    shape: Tensor
    rate: Tensor


def matched_gammas(draws: Tensor, width: float, most: float = 1.0) -> Matched:
    """Gammas with the means of positive draws (S, *each), and `width` times their variances.

    Args:
        most: the greatest variance over the mean's square; at 1, none spreads more than an exponential.
    """
    mean = draws.mean(0)
    spread = (width * draws.var(0) / mean.square()).clamp(LEAST_SPREAD**2, most)
    return Matched(1 / spread, 1 / (spread * mean))
