"""Draws drawn anew by the weights of their chains."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ppnmf.checks import borrowed, described
from ppnmf.rng import Site, Stream
from ppnmf.selection import reordered

if TYPE_CHECKING:
    from ppnmf.posterior import Posterior

__all__ = ["weighted"]


def weighted(post: Posterior, weights: Any, seed: int) -> Posterior:
    """What `Posterior.weighted` does."""
    given = getattr(weights, "chain_weights", weights)
    own = borrowed("weights", given).double().flatten()
    if len(own) != post.chains or not bool(own.isfinite().all()) or bool((own < 0).any()) or not bool(own.sum() > 0):
        raise ValueError(f"weights is {described(given)}; give {post.chains} numbers >= 0, one a chain, not all zero")
    own = (own / own.sum()).cpu()
    at = _drawn_by(own, post.n_draws, Stream.of(seed))
    shape = (post.chains, post.n_draws)

    def taken(values: Tensor) -> Tensor:
        return values.flatten(0, 1)[at.to(values.device)].unflatten(0, shape)

    places = [[divmod(number, post.n_draws) for number in chain] for chain in at.unflatten(0, shape).tolist()]
    return replace(
        post,
        draws={name: taken(values) for name, values in post.draws.items()},
        stats={name: taken(values) for name, values in post.stats.items()},
        attrs={**post.attrs, **reordered(post, places), "weighted": own.tolist()},
    )


def _drawn_by(weights: Tensor, n: int, stream: Stream) -> Tensor:
    """Numbers of draws out of chains of n each, as many as there are, each chain by its weight (C,), in random order.

    A comb of equal distances on the cumulative weights: a chain has its share to one draw, and its draws evenly.
    """
    total = len(weights) * n
    u = stream.uniforms(0, Site.RESAMPLING, range(1 + total), 1)[0, :, 0]
    comb = (torch.arange(total, dtype=torch.float64) + u[0]) / total
    each = weights.repeat_interleave(n) / n
    at = torch.searchsorted(each.cumsum(0), comb).clamp(max=total - 1)
    return at[u[1:].argsort()]
