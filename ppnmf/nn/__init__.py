"""Layers for any torch program."""

from ppnmf.nn.least_squares import NonNegativeLeastSquares, non_negative_least_squares

__all__ = ["NonNegativeLeastSquares", "non_negative_least_squares"]
