r"""What priors on X's scale are made from: its mean, and a robust estimate of its noise variance.

The singular values of noise of variance σ² in a block of n × m entries, m <= n, fill the bulk of Marchenko and Pastur's law, and
signals of a rank far below m add a few above it. So the median singular value over √(n μ), μ the median of that law for the
shape m / n, is near σ whatever the rank and however strong the signals (Gavish and Donoho 2014,
doi:10.1109/TIT.2014.2323359, section III.E). X's variance is no such thing: it is the signal's where that is strong.

Missing entries are filled by the singular values that stand out, again and again, and the noise that is not there is allowed
for. Where the rank is near m, or the block is tiny, signals are taken for noise: the estimate is then too great, never above X's
variance. It never lies below 1e-9 of that.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.checks import whole_number
from ppnmf.data.matrix import as_matrix
from ppnmf.data.sharded import Sharded
from ppnmf.protocols import Matrix
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["DataScale", "data_scale", "noise_variance"]

MOST = 400  # rows, and columns, of the block that is looked at
CHUNKS = 20  # of rows that lie side by side, spread over X
FILLS = 60  # of missing entries, each beginning ahead of where the last one ended (Nesterov 1983)
LEAST = 1e-9  # of X's variance
STANDS_OUT = 1.1  # times the bulk's edge, from which on a singular value is a signal's
POINTS = 100_001


class DataScale(NamedTuple):
    """Of the observed entries of X."""

    mean: float
    noise: float  # a robust estimate of the noise variance


@own_settings()
def data_scale(X: Any, rank: int, mask: Any = None, missing: str = "error") -> DataScale:
    """What priors on X's scale are made from.

    Raises:
        ValueError: a rank below 1; the observed X has a mean or a variance that is not positive.
    """
    whole_number("rank", rank, 1)
    data = as_matrix(X, mask, missing)
    mean, variance = data.mean(), data.variance()
    if mean <= 0 or variance <= 0:
        raise ValueError(
            f"X has mean {mean:.6g} and variance {variance:.6g}; both must be positive to scale the priors to X: "
            "give the priors' parameters yourself"
        )
    return DataScale(mean, noise_variance(data, variance))


def noise_variance(X: Matrix, variance: float) -> float:
    """The estimate, between 1e-9 of X's variance and all of it."""
    with single_threaded():
        found = _of_block(*_block(X))
    return min(max(found, LEAST * variance), variance)


def _block(X: Matrix) -> tuple[Tensor, Tensor | None]:
    """Some rows and columns of X, over the root of their relative noise variances, float64, on the CPU; and what is observed."""
    part = X.excerpt(MOST) if isinstance(X, Sharded) else None
    if part is None:
        parts = [X.part(rows) for rows in _spread(X.shape[0])]
        values = torch.cat(
            [one.values if one.noise is None else one.values / one.noise.variance.sqrt() for one in parts]
        )
        masks = [torch.ones_like(one.values, dtype=torch.bool) if one.mask is None else one.mask for one in parts]
        seen = torch.cat(masks)
    else:
        values, seen = part.values, torch.ones_like(part.values, dtype=torch.bool) if part.mask is None else part.mask
    columns = torch.arange(0, values.shape[1], -(-values.shape[1] // MOST), device=values.device)
    values, seen = values[:, columns].double().cpu(), seen[:, columns].cpu()
    return values, None if bool(seen.all()) else seen


def _spread(N: int) -> list[range]:
    """All rows, or chunks of them spread evenly."""
    if N <= MOST:
        return [range(N)]
    size = MOST // CHUNKS
    return [range(first, first + size) for first in np.linspace(0, N - size, CHUNKS).astype(int).tolist()]


def _of_block(values: Tensor, seen: Tensor | None) -> float:
    """The estimate of a block (n, m) where `seen` says what is observed; 0 where nothing is."""
    if seen is None:
        return (float(torch.linalg.svdvals(values).median()) / _unit(values)) ** 2
    rows, columns = seen.any(1), seen.any(0)
    known, values = seen[rows][:, columns], values[rows][:, columns]
    if known.numel() == 0:
        return 0.0
    before = filled = torch.where(known, values, (values * known).sum(0) / known.sum(0))
    edge = STANDS_OUT * sum(math.sqrt(size) for size in values.shape)  # of the bulk of noise of variance one
    sigma = 0.0
    for n in range(FILLS):
        ahead = filled + n / (n + 3) * (filled - before)
        squares, vectors = torch.linalg.eigh(ahead.mT @ ahead)
        sizes = squares.clamp(min=0).sqrt()
        sigma = _median(sizes, min(values.shape)) / _unit(values)
        signals = vectors[:, sizes > edge * sigma]
        before = filled
        filled = torch.where(known, values, ahead @ signals @ signals.mT)
    return sigma**2 / float(known.double().mean())


def _median(sizes: Tensor, number: int) -> float:
    """Of the `number` greatest; the others are zero but for rounding."""
    return float(sizes.sort().values[-number:].median())


def _unit(values: Tensor) -> float:
    """The median singular value of noise of variance one in a matrix of this shape."""
    m, n = sorted(values.shape)
    return math.sqrt(n * bulk_median(m / n))


@lru_cache(maxsize=64)
def bulk_median(shape: float) -> float:
    """The median of Marchenko and Pastur's law for m / n = `shape` <= 1, of the squares of singular values over n.

    With t = 1 + β + 2 √β cos φ its density is 2 sin² φ / (π t) dφ on [0, π].

    >>> round(bulk_median(1.0), 4)
    0.6528
    """
    phi = (np.arange(POINTS) + 0.5) * (math.pi / POINTS)
    t = 1 + shape + 2 * math.sqrt(shape) * np.cos(phi)
    mass = np.sin(phi) ** 2 / t
    share = np.cumsum(mass[::-1])
    return float(np.interp(0.5, share / share[-1], t[::-1]))
