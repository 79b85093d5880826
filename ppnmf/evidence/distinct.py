r"""Evidence over modes: which runs are in one, and where a mode ends and another begins.

The posterior of real data has many modes, far apart, and runs of a sampler stay in theirs. What they estimate is then the mass
of a mode, and

.. math:: \log p(X) = \log \sum_g m_g

over *distinct* modes g: to count one twice errs high, to average two errs low. Runs share a mode where
`diagnostics.modes.groups` says so, and where draws of one go to the other's place: those nearer to another mode's mean
components than to their own (`matching.apart`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from ppnmf.evidence.orders import in_one_order
from ppnmf.matching import apart
from ppnmf.posterior import Posterior
from ppnmf.protocols import Params

__all__ = ["FEWEST", "centre", "distinct", "nearest", "pooled"]

FEWEST = 50  # draws of a run below which its mode cannot be told
CELLS = 30  # entries of W @ H that are looked at
VISITS = 0.05  # of a mode's draws in the other's place, above which the two are one
FACTORS = ("W", "H")


def distinct(post: Posterior) -> list[tuple[int, ...]]:
    """The chains in each distinct mode, that with the greatest log joint first; one mode where draws are too few to tell."""
    if post.chains == 1 or post.n_draws < FEWEST:
        return [tuple(range(post.chains))]
    found = _of_those_that_visit(post, [[c] for c in range(post.chains)])
    if len(found) > 1:
        from ppnmf.diagnostics.modes import groups  # which takes masses from this package

        found = _of_those_that_visit(post, _joined([*found, *groups(post, CELLS)]))
    lp = post.stats["lp"].mean(1)
    return sorted((tuple(sorted(group)) for group in found), key=lambda group: -float(lp[list(group)].max()))


def _of_those_that_visit(post: Posterior, found: list[list[int]]) -> list[list[int]]:
    """Groups of chains, of which those are put together that visit each other's place."""
    while (pair := _one_too_many(post, found)) is not None:
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


def _one_too_many(post: Posterior, found: list[list[int]]) -> tuple[int, int] | None:
    """Two groups of chains of which one visits the other's mode; None where there are none."""
    centres = [centre(pooled(post, group)) for group in found]
    for one, other in combinations(range(len(found)), 2):
        both = [centres[one], centres[other]]
        away = [(nearest(pooled(post, found[g]), both) != n).double().mean() for n, g in enumerate((one, other))]
        if float(max(away)) > VISITS:
            return one, other
    return None


def pooled(post: Posterior, chains: list[int] | tuple[int, ...]) -> dict[str, Tensor]:
    """W (S, N, K) and H (S, K, D) of some chains' draws, one chain after another."""
    return {site: post.draws[site][list(chains)].flatten(0, 1) for site in FACTORS}


def centre(draws: Params) -> dict[str, Tensor]:
    """The means of W (N, K) and H (K, D) over draws (S, *site), their components in one order."""
    last = {site: draws[site][-1] for site in FACTORS}
    ordered = in_one_order({site: draws[site] for site in FACTORS}, last, [0] * last["W"].shape[-1])
    return {site: values.mean(0) for site, values in ordered.items()}


def nearest(draws: Params, centres: list[dict[str, Tensor]]) -> Tensor:
    """Which of several centres each draw's components are nearest to, (S,)."""
    each = [apart(draws["W"], draws["H"], own["W"], own["H"]) for own in centres]
    sizes = [(own["W"].norm(dim=0) * own["H"].norm(dim=1)).square().sum() for own in centres]
    return torch.stack([far * size for far, size in zip(each, sizes, strict=True)]).argmin(0)
