"""Modes in which components of which not the same is known have changed places.

Where W @ H hardly changes when two components give each other what is learned of them, the posterior has a mode in either
order, and chains seldom go from one to the other. So chains are begun in the order that the others are not in; those that
stay far below them are of no mode that counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from ppnmf.evidence.orders import axes_of, reordered
from ppnmf.evidence.settled import APART_BY, LOOKS, finished
from ppnmf.inference import gibbs
from ppnmf.known import Holding
from ppnmf.posterior import Posterior
from ppnmf.protocols import Stepping

__all__ = ["classes_apart", "with_exchanged"]

MOST = 8  # chains that are begun: those with the greatest log joint
WARMUP = 200  # their sweeps, from what is nearly a mode or none
APART = 1000  # of seeds, so that their random numbers are not those of the other chains
FAR = 20.0  # nats of log joint below the best chain, above which a chain is in no mode that counts


def classes_apart(model: Stepping) -> list[int]:
    """The model's classes where entries are known; else one of all components, whose priors alone set no two modes apart."""
    holds = isinstance(model, Holding) and model.holds
    return model.classes() if holds else [0] * model.rank


def with_exchanged(post: Posterior, classes: list[int], seed: int, progress: bool) -> Posterior:
    """Chains, and beside them those begun where two components of different classes have changed places, if they stay near.

    Args:
        classes: for each component the first one of its class.
    """
    if len(set(classes)) == 1:
        return post
    starts = sorted(_starts(post, classes), key=lambda start: -start[0])[:MOST]
    init = {site: torch.stack([params[site] for _, params in starts]) for site in starts[0][1]}
    options: dict[str, Any] = {"draws": LOOKS, "thin": APART_BY, "warmup": WARMUP, "chains": len(starts), "survey": 0}
    found = finished(gibbs.run(post.model, post.X, **options, init=init, seed=seed + APART, progress=progress))  # type: ignore[arg-type]
    near = found.stats["lp"].mean(1) > float(post.stats["lp"].mean(1).max()) - FAR
    draws = {site: torch.cat([values, found.draws[site][near]]) for site, values in post.draws.items()}
    return replace(post, draws=draws, stats={"lp": torch.cat([post.stats["lp"], found.stats["lp"][near]])})


def _starts(post: Posterior, classes: list[int]) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """The best chain's last draw (*site) with two components exchanged but for what is known, and its log joint."""
    model: Any = post.model
    best = int(post.stats["lp"].mean(1).argmax())
    last = {site: values[best, -1:] for site, values in post.draws.items()}
    for k, l in combinations(range(len(classes)), 2):
        if classes[k] == classes[l]:
            continue
        order = torch.arange(len(classes))
        order[[k, l]] = order[[l, k]]
        params = reordered(last, order[None], axes_of(model))
        params |= {site: model.hold(site, params[site]) for site in ("W", "H")}
        lp = float(model.log_likelihood_at(params, post.X) + model.log_prior(params))
        yield lp, {site: values[0] for site, values in params.items()}
