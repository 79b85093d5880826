"""The moves along the ridge (`ridge`) that leave known entries as they are.

The scale of a component moves where all that is known of it is zeros, which a scale leaves; the Jacobian's power counts the
entries that are not known. A shear W_l ← W_l + t W_k, H_k ← H_k - t H_l is made where it changes no known entry: it may take
from a known row of H what a new one has too much of.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.gaussian import ridge
from ppnmf.gaussian.pinned import Pinned, own_natural
from ppnmf.kernels import cpu, kernels_for
from ppnmf.kernels.natural import Free
from ppnmf.known import Known
from ppnmf.rng import Stream

__all__ = ["free", "is_needed", "moved", "untouched"]

Prior = Callable[[str], Any]


def is_needed(prior: Prior) -> bool:
    """Whether any entry is known."""
    return isinstance(prior("W"), Pinned) or isinstance(prior("H"), Pinned)


def moved(
    prior: Prior, X: Any, W: Tensor, H: Tensor, stream: Stream, step: int, first: int = 0
) -> tuple[Tensor, Tensor]:
    """W (C, N, K) and H (C, K, D) moved along the ridge, their components from `first` on, known entries left alone."""
    if not is_needed(prior):
        return ridge.moved(prior, X, W, H, stream, step, first)
    priors = ridge.Priors(*(own_natural(prior(site), W.device) for site in ("W", "H")))
    made = _after(free(prior, X, W, H), first)
    gather = X.gather
    if gather is None and kernels_for(W.device) is cpu:
        return ridge.compiled(W, H, priors, stream, step, made)
    W, H = ridge.scale_move(W, H, priors, stream, step, gather, X.shape[0], made)
    return ridge.shear_move(W, H, priors, stream, step, gather, made)


def untouched(prior: Prior, like: Tensor) -> Tensor:
    """The components of which nothing is known, (K,), on the device of `like`."""
    own = {site: prior(site) for site in ("W", "H")}
    known = [
        pinned.known.at.any(axis) for site, axis in (("W", 0), ("H", 1)) if isinstance(pinned := own[site], Pinned)
    ]
    return ~torch.stack(known).any(0).to(like.device)


class Told(NamedTuple):
    """What is known of a factor's components, in sums over its rows, float64."""

    learned: Tensor  # entries that are not known, (K,)
    pinned: Tensor  # entries known to be above zero, (K,)
    changed: Tensor  # at [k, l], known entries of component l that change when a share of component k is added, (K, K)


def free(prior: Prior, X: Any, W: Tensor, H: Tensor) -> Free:
    """Which moves there are, of the rows of all processes."""
    known_W, known_H = (own.known if isinstance(own, Pinned) else None for own in (prior("W"), prior("H")))
    of_W = _told(known_W, W.shape[-2], W.shape[-1], False)
    of_H = _told(known_H, H.shape[-1], W.shape[-1], True)
    if X.gather is not None:
        of_W = Told(*(X.gather(part.to(W.device)).sum(0).cpu() for part in of_W))
    learned = of_W.learned - of_H.learned
    pinned = of_W.pinned + of_H.pinned
    changed = of_W.changed + of_H.changed.mT  # what W_l gains of W_k, H_k loses of H_l
    return Free((pinned == 0).numpy(), learned.numpy(), (changed == 0).numpy())


@lru_cache(maxsize=16)
def _told(known: Known | None, rows: int, rank: int, turned: bool) -> Told:
    """Of a factor with so many rows: of W, or `turned`, of Hᵀ."""
    if known is None:
        nothing = torch.zeros(rank, dtype=torch.float64)
        return Told(nothing + rows, nothing, nothing + nothing[:, None])
    at = known.at.cpu()
    zero = at & (known.values.cpu() == 0)
    if turned:
        at, zero = at.mT, zero.mT
    changed = (~zero).double().mT @ at.double()
    return Told((~at).sum(0).double(), (at & ~zero).sum(0).double(), changed)


def _after(own: Free, first: int) -> Free:
    """Those among the components from `first` on."""
    if first == 0:
        return own
    late = np.arange(len(own.size)) >= first
    return Free(own.scaled & late, own.size, own.sheared & late & late[:, None])
