"""Runs put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppnmf.checks import described, one_of
from ppnmf.equality import same
from ppnmf.fingerprints import fingerprint
from ppnmf.posterior import Posterior
from ppnmf.required import require_posterior
from ppnmf.selection import OF_LABELS, ORDERED, PER_CHAIN
from ppnmf.settings import own_settings

__all__ = ["join"]

ALONG = ("chains", "draws")  # by the number of the axis


@own_settings()
def join(posts: Sequence[Posterior], along: str = "chains") -> Posterior:
    """Runs of one model, method and X as one posterior.

    Args:
        posts: the runs; where they are put side by side as chains they have as many draws each, and otherwise as many chains.
        along: "chains": more chains. "draws": more draws of each, as where a run was taken up with `init=post`; see also
            `ppnmf.extend`, which goes on to the same bits.

    Returns: a Posterior; attrs["joined"] says of what. Facts on which the runs do not agree are left out.

    Raises:
        TypeError: not posteriors.
        ValueError: of different models, methods, data or sizes, or the same draws twice.
    """
    if isinstance(posts, Posterior) or not isinstance(posts, Sequence) or len(posts) == 0:
        raise TypeError(f"join takes a list of posteriors, and was given {described(posts)}")
    for post in posts:
        require_posterior("join", post)
    axis = ALONG.index(one_of("along", along, ALONG))
    first = posts[0]
    for number, post in enumerate(posts[1:], 1):
        _require_same(first, post, number, axis)
        _require_new(posts[:number], post, number)
    seeds = [post.seed for post in posts]
    attrs = {name: value for name, value in first.attrs.items() if all(p.attrs.get(name) == value for p in posts)}
    attrs |= _orders(posts, axis)
    if axis == 0:
        attrs |= _one_a_chain(posts)
    sizes = [post.n_draws if axis else post.chains for post in posts]
    return replace(
        first,
        draws={site: _put(axis, [post.draws[site] for post in posts]) for site in first.draws},
        stats={name: _put(axis, [post.stats[name] for post in posts]) for name in first.stats},
        timings=_total([post.timings for post in posts]),
        attrs={
            **attrs,
            "interrupted": any(post.attrs.get("interrupted") for post in posts),
            "joined": {"along": along, "sizes": sizes, "seeds": seeds},
        },
    )


def _put(axis: int, parts: list[Tensor]) -> Tensor:
    return torch.cat([part.to(parts[0].device) for part in parts], axis)


def _total(timings: list[dict[str, float]]) -> dict[str, float]:
    return {stage: sum(each.get(stage, 0.0) for each in timings) for stage in timings[0]}


def _one_a_chain(posts: Sequence[Posterior]) -> dict[str, Any]:
    """The attributes of one a chain, of all the chains, where each run has them."""
    found: dict[str, Any] = {}
    for name in PER_CHAIN:
        values = [post.attrs.get(name) for post in posts]
        if all(isinstance(v, list) and len(v) == post.chains for v, post in zip(values, posts, strict=True)):
            found[name] = [one for value in values for one in value or ()]
    labels = [post.attrs.get("labels") or {} for post in posts]
    rest = [{name: value for name, value in own.items() if name not in OF_LABELS} for own in labels]
    if labels[0] and all(own == rest[0] for own in rest):
        of_each = {name: [one for own in labels for one in own[name]] for name in OF_LABELS if name in labels[0]}
        found["labels"] = {**rest[0], **of_each}
    return found


def _orders(posts: Sequence[Posterior], axis: int) -> dict[str, Any]:
    """The facts that hold an order of components for each draw, where each run has them."""
    found = {}
    for name in ORDERED:
        facts = [post.attrs.get(name, {}) for post in posts]
        if all("order" in own for own in facts):
            orders = [torch.tensor(own["order"]) for own in facts]
            found[name] = {**facts[0], "order": torch.cat(orders, axis).tolist()}
    return found


def _require_same(first: Posterior, post: Posterior, number: int, axis: int) -> None:
    """Raise ValueError, in a sentence, where two runs cannot be put together."""
    of_both = {
        "method": (first.method, post.method),
        "sites": (sorted(first.draws), sorted(post.draws)),
        "stats": (sorted(first.stats), sorted(post.stats)),
        "model": (True, same(first.model, post.model)),
        "data": (fingerprint(first.X), fingerprint(post.X)),
    }
    for what, (ours, theirs) in of_both.items():
        if ours != theirs:
            said = f" ({theirs}, not {ours})" if what in ("method", "sites", "stats") else ""
            raise ValueError(
                f"posterior {number} is of another {what}{said} than the first; join runs of one model, method and X"
            )
    if axis == 0 and first.n_draws != post.n_draws:
        raise ValueError(
            f"posterior {number} has {post.n_draws} draws a chain and the first {first.n_draws}: select as many of each"
        )
    if axis == 1 and first.chains != post.chains:
        raise ValueError(
            f"posterior {number} has {post.chains} chains and the first {first.chains}: join along chains, or select as many"
        )


def _require_new(before: Sequence[Posterior], post: Posterior, number: int) -> None:
    """Raise ValueError where a run has the draws of one before it."""
    lp = post.stats["lp"].cpu()
    for other, own in enumerate(before):
        if torch.equal(own.stats["lp"].cpu(), lp):
            raise ValueError(
                f"posterior {number} has the draws of posterior {other} over again: fit with another seed, and join that"
            )
