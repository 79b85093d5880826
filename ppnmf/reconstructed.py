"""The mean of W @ H over draws, and how far it lies from X; W @ H of a draw is never formed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ppnmf.checks import described
from ppnmf.data.dense import Dense
from ppnmf.protocols import exposed

if TYPE_CHECKING:
    from ppnmf.posterior import Posterior

__all__ = ["mean_product", "reconstruction", "root_mean_square", "squared_error"]

AT_ONCE = 2**22  # entries of W, H or W @ H that are worked on at a time when averaging over draws


def mean_product(post: Posterior, own: slice = slice(None)) -> Tensor:
    """The mean of W @ H over chains and draws, of some rows, without the model's exposures; float64."""
    W, H = (post._kept(site).flatten(0, 1) for site in ("W", "H"))
    return _sum_of_products(W[:, own], H) / len(W)


def reconstruction(post: Posterior, rows: range | None = None) -> Tensor:
    """What `Posterior.reconstruction` gives."""
    own = slice(None) if rows is None else _rows(rows, post._kept("W").shape[2])
    return exposed(post.model, mean_product(post, own), own).to(post._kept("W").dtype)


def squared_error(post: Posterior) -> float:
    """What `Posterior.squared_error` gives."""
    return sum(float(part.observed_over_noise(squared).sum()) for part, squared in _squares(post))


def root_mean_square(post: Posterior, columns: int) -> float:
    """Of X - reconstruction over the observed entries of the first so many columns, in X's own units."""
    total, count = 0.0, 0
    for part, squared in _squares(post):
        seen = torch.ones_like(squared, dtype=torch.bool) if part.mask is None else part.mask
        total += float(torch.where(seen, squared, 0.0)[:, :columns].sum())
        count += int(seen[:, :columns].sum())
    return math.sqrt(total / count) if count else math.nan


def _squares(post: Posterior) -> Iterator[tuple[Dense, Tensor]]:
    """Some rows of X at a time, and (X - reconstruction)² of them, float64."""
    for rows in post.X.blocks:
        size = max(1, AT_ONCE // post.X.shape[1])
        for start in range(rows.start, rows.stop, size):
            own = range(start, min(start + size, rows.stop))
            part = post.X.part(own)
            yield part, (part.values.double() - reconstruction(post, own).double()).square()


def _sum_of_products(W: Tensor, H: Tensor) -> Tensor:
    """Σ_s W_s H_s in float64, (N, D), of W (S, N, K) and H (S, K, D).

    The draws' components side by side make it one product, (N, S K) @ (S K, D), taken a block of rows and of draws at a
    time: W @ H of each draw is never formed.
    """
    (S, N, K), D = W.shape, H.shape[2]
    total = torch.zeros(N, D, dtype=torch.float64, device=W.device)
    at_once = min(S, max(1, AT_ONCE // (K * D)))
    height = max(1, AT_ONCE // max(D, at_once * K))
    for left, right in zip(W.split(at_once), H.split(at_once), strict=True):
        below = right.reshape(-1, D).double()
        for block, beside in zip(total.split(height), left.split(height, dim=1), strict=True):
            block.addmm_(beside.permute(1, 0, 2).reshape(len(block), len(below)).double(), below)
    return total


def _rows(rows: Any, N: int) -> slice:
    """The rows of a range. Raises ValueError when it is none, or goes beyond X's."""
    if not isinstance(rows, range) or rows.step != 1 or not 0 <= rows.start <= rows.stop <= N:
        raise ValueError(f"rows is {described(rows)}; give a range of step 1 within 0 to {N}, such as range(0, {N})")
    return slice(rows.start, rows.stop)
