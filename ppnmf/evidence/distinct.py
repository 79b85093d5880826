r"""Evidence over modes: which runs are in one, and where a mode ends and another begins.

The posterior of real data has many modes, far apart, and runs of a sampler stay in theirs. What they estimate is then the mass
of a mode, and

.. math:: \log p(X) = \log \sum_g m_g

over *distinct* modes g: to count one twice errs high, to average two errs low. Runs share a mode where
`diagnostics.modes.groups` says so, and where draws of one go to the other's place: those nearer to another mode's mean
components than to their own (`matching.apart`).

Components of different classes, whose priors differ or of which not the same is known, do not change places freely: in another
order they are another mode, with a mass of its own, even where W @ H is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from ppnmf.evidence.orders import in_one_order, ordered_like
from ppnmf.matching import apart, best_orders
from ppnmf.posterior import Posterior
from ppnmf.protocols import Params

__all__ = ["FEWEST", "centre", "distinct", "nearest", "pooled"]

FEWEST = 50  # draws of a run below which its mode cannot be told
CELLS = 30  # entries of W @ H that are looked at
VISITS = 0.05  # of a mode's draws in the other's place, above which the two are one
FACTORS = ("W", "H")


def distinct(post: Posterior, classes: list[int] | None = None) -> list[tuple[int, ...]]:
    """The chains in each distinct mode, that with the greatest log joint first; one mode where draws are too few to tell.

    Args:
        classes: for each component the first one of its class; by default all may change places.
    """
    classes = [0] * post.draws["W"].shape[-1] if classes is None else classes
    if post.chains == 1 or post.n_draws < FEWEST:
        return [tuple(range(post.chains))]
    found = _of_those_that_visit(post, [[c] for c in range(post.chains)], classes)
    if len(found) > 1:
        from ppnmf.diagnostics.modes import groups  # which takes masses from this package

        agreeing = [part for group in groups(post, CELLS) for part in _of_one_order(post, group, classes)]
        found = _of_those_that_visit(post, _joined([*found, *agreeing]), classes)
    lp = post.stats["lp"].mean(1)
    return sorted((tuple(sorted(group)) for group in found), key=lambda group: -float(lp[list(group)].max()))


def _of_one_order(post: Posterior, group: Sequence[int], classes: list[int]) -> list[list[int]]:
    """The chains of a group, apart where their components correspond to such of other classes."""
    if len(set(classes)) == 1:
        return [list(group)]
    centres = {c: centre(pooled(post, (c,)), classes) for c in group}
    found: list[list[int]] = []
    for c, own in centres.items():
        like = [part for part in found if _corresponds(own, centres[part[0]], classes)]
        if like:
            like[0].append(c)
        else:
            found.append([c])
    return found


def _of_those_that_visit(post: Posterior, found: list[list[int]], classes: list[int]) -> list[list[int]]:
    """Groups of chains, of which those are put together that visit each other's place."""
    while (pair := _one_too_many(post, found, classes)) is not None:
        one, other = pair
        found[one] += found.pop(other)
    return found


def _joined(groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """The finest groups in which whoever shares one of these shares one still."""
    found: list[list[int]] = []
    for own in groups:
        shared = [other for other in found if set(other) & set(own)]
        found = [other for other in found if other not in shared]
        found.append(sorted(set(own).union(*shared)))
    return found


def _one_too_many(post: Posterior, found: list[list[int]], classes: list[int]) -> tuple[int, int] | None:
    """Two groups of chains of which one visits the other's mode; None where there are none."""
    centres = [centre(pooled(post, group), classes) for group in found]
    for one, other in combinations(range(len(found)), 2):
        both = [centres[one], centres[other]]
        away = [
            (nearest(pooled(post, found[g]), both, classes) != n).double().mean() for n, g in enumerate((one, other))
        ]
        if float(max(away)) > VISITS:
            return one, other
    return None


def pooled(post: Posterior, chains: list[int] | tuple[int, ...]) -> dict[str, Tensor]:
    """W (S, N, K) and H (S, K, D) of some chains' draws, one chain after another."""
    return {site: post.draws[site][list(chains)].flatten(0, 1) for site in FACTORS}


def centre(draws: Params, classes: list[int]) -> dict[str, Tensor]:
    """The means of W (N, K) and H (K, D) over draws (S, *site), their components in one order."""
    last = {site: draws[site][-1] for site in FACTORS}
    ordered = in_one_order({site: draws[site] for site in FACTORS}, last, classes)
    return {site: values.mean(0) for site, values in ordered.items()}


def nearest(draws: Params, centres: list[dict[str, Tensor]], classes: list[int]) -> Tensor:
    """Which of several centres each draw's components are nearest to, in an order that their classes allow, (S,)."""
    return torch.stack([_away(draws, own, classes) for own in centres]).argmin(0)


def _away(draws: Params, own: Params, classes: list[int]) -> Tensor:
    """Σ_k ‖W_k H_k - V_k G_k‖² of draws from a centre V (N, K), G (K, D), (S,), float64."""
    size = (own["W"].norm(dim=0) * own["H"].norm(dim=1)).square().sum()
    if len(set(classes)) == 1:
        return apart(draws["W"], draws["H"], own["W"], own["H"]) * size
    placed = ordered_like({site: own[site][None] for site in FACTORS}, {site: draws[site] for site in FACTORS}, classes)
    W, H, V, G = (values.double() for values in (placed["W"], placed["H"], own["W"], own["H"]))
    sizes = (W.square().sum(-2) * H.square().sum(-1)).sum(-1)
    return sizes + size - 2 * ((W * V).sum(-2) * (H * G).sum(-1)).sum(-1)


def _corresponds(one: Params, other: Params, classes: list[int]) -> bool:
    """Whether the components of two factorisations (*site) match best within their classes."""
    order = best_orders(one["W"][None], one["H"][None], other["W"], other["H"])[0]
    return all(classes[k] == own for k, own in zip(order.tolist(), classes, strict=True))
