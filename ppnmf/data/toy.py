"""Drawn problems whose factors are known."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings

__all__ = ["Toy", "draw", "named"]

SPECIFICATION = re.compile(r"toy(\d+)x(\d+)(?:x(\d+))?")
RANK = 3  # of a toy whose name does not say


class Toy(NamedTuple):
    """A drawn matrix and what it was drawn from."""

    X: Tensor  # (N, D)
    W: Tensor  # (N, K)
    H: Tensor  # (K, D)


@own_settings()
def draw(N: int, D: int, rank: int, rate: float = 1.0, noise: float = 1.0, seed: int = 0) -> Toy:
    """W, H ~ Exponential(rate), X ~ Normal(W @ H, noise): float64, each number from its own address of the streams.

    Args:
        N, D: the shape of X. Fewer rows of the same seed are the first rows of more.
        rank: K, the true number of components.
        rate: of the exponentials, one over their mean.
        noise: the noise *variance*, in units of X squared; 0 leaves X = W @ H.

    Raises:
        ValueError: a count below 1, a rate that is not positive, a negative variance.

    >>> X, W, H = draw(60, 40, rank=3)
    >>> X.shape, W.shape, H.shape
    (torch.Size([60, 40]), torch.Size([60, 3]), torch.Size([3, 40]))
    """
    whole_numbers(N=(N, 1), D=(D, 1), rank=(rank, 1))
    if not rate > 0 or not noise >= 0:
        raise ValueError(f"rate is {rate!r} and noise {noise!r}; a rate is positive, and a variance is >= 0")
    factors, data = Stream.of(seed, [0]), Stream.of(seed, [1])
    W = -factors.uniforms(0, Site.DATA, range(N), rank)[0].log() / rate
    H = -factors.uniforms(1, Site.DATA, range(D), rank)[0].mT.log() / rate
    X = W @ H + noise**0.5 * torch.special.ndtri(data.uniforms(0, Site.DATA, range(N), D)[0])
    return Toy(X, W, H)


def named(name: str, seed: int = 0) -> Toy | None:
    """The toy that a name such as "toy60x40" (rank 3) or "toy60x40x5" asks for, or None; the noise has variance 1."""
    found = SPECIFICATION.fullmatch(name)
    if found is None:
        return None
    N, D, rank = (int(number) if number else RANK for number in found.groups())
    return draw(N, D, rank, seed=seed)
