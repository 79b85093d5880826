r"""Minimum description length (Squires, Prügel-Bennett, Niranjan 2017): the rank whose factors and residual take the fewest bits.

A message that tells X to a given precision says W and H to finite precisions, and then what they leave over:

.. math:: L = -\sum_{ik} \log_2 P(W_{ik}) - \sum_{kj} \log_2 P(H_{kj}) - \sum_{ij} \log_2 [\delta_X N(E_{ij}; 0, s^2)]

- *Factors* are rounded to whole multiples of δ_W and δ_H. One gamma code serves all of W, one all of H: P(w) is the gamma
  distribution's probability of the interval that is rounded to w, [0, δ/2) for zero, with the shape and rate that make
  the code shortest. (The density at w times δ, as in the papers, is no probability where entries are near zero: with a
  shape below 1 it says that a zero takes less than no bits.)
- *Residual* E = X - W H of the rounded factors, normal with mean zero, s² its mean square: ½ log₂(2π e s² / δ_X²) bits an
  entry, and ½ log₂ v more where an entry's noise has the known relative variance v.

*Precisions.* δ_X adds the same number of bits at every rank; it only says what "telling X" means, and is 0.004 of the
greatest entry by default, as in the authors' program of 2019. Those of the factors are a trade: finer factors take more
bits, coarser ones leave more over. Rounding W by ±δ_W/2 adds (N δ_W² / 12) Σ_k ‖H_k‖² to the squared error, so the sum
is least near δ_W² = 12 K s² / Σ_k ‖H_k‖², √12 standard deviations of what X says about an entry, and δ_H likewise. Both are
multiplied by one of 2^(-3 … 1) in steps of √2, whichever makes the message shortest. `factor_precision` sets both instead.

Left out, as nearly the same for each rank: the two gamma codes' parameters, s², and the precisions. Factors are taken at
the scale at which the mode has them, where the priors are most content: it fixes what is free in W_k ↦ c W_k.

References: Squires et al. (2017), doi:10.1162/neco_a_00980; (2019), arXiv:1902.01632. Precision: Wallace and Freeman (1987).
"""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammainc, gammaincc
from torch import Tensor

from ppnmf.evidence import modes
from ppnmf.evidence.estimate import priors_of
from ppnmf.evidence.score import Measure
from ppnmf.gaussian.sweep import misfit
from ppnmf.protocols import Entries, Matrix, Sweeping

__all__ = ["Bits", "description", "gamma_bits", "run"]

OF_GREATEST = 0.004  # δ_X, of the greatest entry
TIMES = tuple(2.0 ** (half / 2) for half in range(-6, 3))  # of the factors' precisions by the formula, that are tried
CLEAR = math.log2(20)  # bits: twenty to one, if bits are taken as probabilities


class Bits(NamedTuple):
    """The parts of a message, in bits, and the precisions of its factors."""

    W: float
    H: float
    residual: float
    precision_W: float
    precision_H: float

    @property
    def total(self) -> float:
        return self.W + self.H + self.residual


def run(
    model: Sweeping,
    X: Matrix,
    *,
    restarts: int = 4,
    precision: float | None = None,
    factor_precision: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Measure:
    """The description length, in bits, of X by the best of `restarts` modes (ICM); less is better.

    Args:
        restarts: modes; the error is how far below the best of them another might come, not one of sampling.
        precision: to which X is told, in its units; by default 0.004 of the greatest entry.
        factor_precision: of W and of H alike; by default chosen for the shortest message.

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count or a precision out of its range.
    """
    for name, given in (("precision", precision), ("factor_precision", factor_precision)):
        if given is not None and not 0 < given < math.inf:
            raise ValueError(f"{name} is {given!r}; it must be a positive number")
    if model.accepts is Entries.COUNTS:
        raise TypeError(
            f"mdl tells X by Gaussian residuals, and {model.name} is a model of counts: take bic, loo or heldout"
        )
    began = time.perf_counter()
    of_X = OF_GREATEST * greatest(X) if precision is None else precision
    fits = modes.found("mdl", model, X, restarts, seed, progress)
    messages = [description(X, W, H, of_X, factor_precision) for W, H in zip(fits.W, fits.H, strict=True)]
    totals = np.array([message.total for message in messages])
    best = messages[int(totals.argmin())]
    noise = math.sqrt(fits.squared_error.min() / X.n_observed)
    doubts = (f"X's precision {of_X:.3g} is coarser than the residual, {noise:.3g}",) if of_X > noise else ()
    return Measure(
        value=best.total,
        error=modes.shortfall(totals),
        label="description length (bits)",
        sign=-1,
        method="mdl",
        rank=model.rank,
        clear=CLEAR,
        priors=priors_of(model),
        seconds=time.perf_counter() - began,
        warnings=doubts,
        attrs={**best._asdict(), "precision": of_X, "restarts": totals.tolist(), "seed": seed},
    )


def description(X: Matrix, W: Tensor, H: Tensor, precision: float, factor_precision: float | None = None) -> Bits:
    """The message that tells X to `precision` by W (N, K) and H (K, D), rounded to `factor_precision` or as is best."""
    if factor_precision is not None:
        return _rounded(X, W, H, precision, factor_precision, factor_precision)
    noise = float(misfit(X, W[None], H[None])) / X.n_observed
    of_W, of_H = (_trade(noise, W.shape[1], other) for other in (H, W))
    return min((_rounded(X, W, H, precision, t * of_W, t * of_H) for t in TIMES), key=lambda message: message.total)


def _trade(noise: float, rank: int, other: Tensor) -> float:
    """δ of a factor at which its rounding adds `noise` an entry of it to the squared error."""
    return math.sqrt(12 * noise * rank / max(float(other.double().square().sum()), 1e-300))


def _rounded(X: Matrix, W: Tensor, H: Tensor, precision: float, of_W: float, of_H: float) -> Bits:
    steps = [(F.double() / size).round() for F, size in ((W, of_W), (H, of_H))]
    rounded = (steps[0] * of_W)[None].to(X.dtype), (steps[1] * of_H)[None].to(X.dtype)
    squared_error = misfit(X, *rounded).double().cpu().numpy()
    nats = 0.5 * float(modes.deviance(squared_error, X)[0]) - X.n_observed * math.log(precision)
    bits_W, bits_H = (gamma_bits(multiples.cpu().numpy()) for multiples in steps)
    return Bits(bits_W, bits_H, nats / math.log(2), of_W, of_H)


def gamma_bits(multiples: np.ndarray) -> float:
    """Bits of rounded entries, told as whole multiples of their precision, by the gamma code that is shortest for them."""
    values, counts = np.unique(multiples, return_counts=True)
    mean = float(counts @ values) / counts.sum()
    if len(values) == 1:  # a code that gives it all its probability
        return 0.0
    spread = float(counts @ (values - mean) ** 2) / counts.sum()
    low, high = np.maximum(values - 0.5, 0.0), values + 0.5

    def bits(logs: np.ndarray) -> float:
        shape, rate = np.exp(logs)  # of the multiples
        left, right = rate * low, rate * high
        below = gammainc(shape, right) - gammainc(shape, left)
        above = gammaincc(shape, left) - gammaincc(shape, right)  # keeps its digits in the upper tail
        cells = np.where(left > shape, above, below)
        return -float(counts @ np.log2(np.maximum(cells, 1e-300)))

    start = np.log([mean**2 / spread, mean / spread])
    return float(minimize(bits, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-3}).fun)


def greatest(X: Matrix) -> float:
    """The greatest observed entry's size, block by block."""
    return max(float(X.part(rows).values.abs().max()) for rows in X.blocks)
