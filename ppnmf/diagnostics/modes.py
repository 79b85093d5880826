r"""Modes of a posterior: which chains share one, how much mass each has, and weights that follow.

Chains that never meet say nothing about how much mass lies where they are, and a mean over all of them counts each alike. Where
two or more chains share a mode, its *mass* is the part of p(X) that lies around it,

.. math:: m_g = \int_{g} p(X, W, H, \sigma^2), \qquad p(X) = \sum_g m_g \text{ over all modes},

which Chib's identity gives when the chains stay there. Weights in proportion are those of the modes *found*: what no chain
reached has none. Stacking weights are something else: they predict best, whatever the masses.

References: Chib (1995), doi:10.1080/01621459.1995.10476635; Yao, Vehtari, Gelman (2022), Stacking for non-mixing Bayesian
computations, arXiv:2006.12335.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppnmf.checks import whole_number, whole_numbers
from ppnmf.diagnostics.alignment import align
from ppnmf.diagnostics.leave_out import of_cells, some_cells
from ppnmf.evidence import chib
from ppnmf.identified import identified
from ppnmf.matching import furthest_apart
from ppnmf.posterior import Kind, Posterior
from ppnmf.protocols import Blocked, require_ability
from ppnmf.required import require_posterior
from ppnmf.settings import own_settings

__all__ = ["Masses", "groups", "mode_masses", "stacking_weights"]

SHARED = 1.2  # R-hat of two chains up to which they may share a mode; between modes it is 2 and more
MOST = 0.05  # of the entries of W @ H may exceed it: slow ones do within a mode
LIKE = 0.05  # distance of two chains' mean components that is none, whatever they vary within a chain
CELLS, DRAWS = 4000, 250  # entries of X, and draws of each chain, on which stacking weights rest


@dataclass(frozen=True)
class Masses:
    """The modes that chains are in, and how much of p(X) lies in each.

    Args:
        groups: the chains of each mode, the heaviest mode first.
        log_mass: log of the mass of each, by Chib's identity.
        error: its standard error, from the replicates.
        predictive: stacking weight of each; None where it was not asked for.
        failed: why a mode's estimate is none of its mass, in a sentence; empty where it is one. Weights then cannot be told.
        warnings: reasons to doubt the masses, in sentences, each with its mode.
    """

    groups: tuple[tuple[int, ...], ...]
    log_mass: tuple[float, ...]
    error: tuple[float, ...]
    predictive: tuple[float, ...] | None = None
    warnings: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the modes, in proportion to their masses. Raises ValueError where an estimate has failed."""
        if any(self.failed):
            raise ValueError(f"weights cannot be told: {self._failures()[0]}")
        top = max(self.log_mass)
        masses = [math.exp(log - top) for log in self.log_mass]
        return tuple(mass / sum(masses) for mass in masses)

    @property
    def chain_weights(self) -> tuple[float, ...]:
        """Of the chains: a mode's weight is shared equally by those that are in it."""
        return self._shared(self.weights)

    @property
    def predictive_chain_weights(self) -> tuple[float, ...]:
        """The same of stacking weights. Raises ValueError where they were not asked for."""
        if self.predictive is None:
            raise ValueError("stacking weights were not asked for: mode_masses(post, predictive=True)")
        return self._shared(self.predictive)

    def _shared(self, weights: tuple[float, ...]) -> tuple[float, ...]:
        found = [0.0] * sum(map(len, self.groups))
        for group, weight in zip(self.groups, weights, strict=True):
            for chain in group:
                found[chain] = weight / len(group)
        return tuple(found)

    @property
    def below(self) -> tuple[float, ...]:
        """Nats that each mode's mass lies below the heaviest one's."""
        return tuple(max(self.log_mass) - log for log in self.log_mass)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        facts = {"groups": [list(group) for group in self.groups], "warnings": list(self.warnings)}
        return (
            facts
            | {"log_mass": list(self.log_mass), "error": list(self.error)}
            | {"weights": None if any(self.failed) else list(self.weights), "failed": list(self.failed)}
            | {"predictive": None if self.predictive is None else list(self.predictive)}
        )

    def __str__(self) -> str:
        lines = [
            "mode  chains      log mass    error     below    weight" + ("  predictive" if self.predictive else "")
        ]
        for g, group in enumerate(self.groups):
            named = ",".join(map(str, group))
            weight = "-" if any(self.failed) else _weight(self.weights[g], self.below[g])
            line = f"{g:<4}  {named:<8}{self.log_mass[g]:>12.1f}{self.error[g]:>9.2g}{self.below[g]:>10.1f}{weight:>10}"
            lines.append(line + (f"{self.predictive[g]:>12.3f}" if self.predictive else ""))
        said = ["Masses are of the modes found; what no chain reached has none."]
        said += [f"Failed: {failure}." for failure in self._failures()]
        return "\n".join([*lines, *said, *(f"Warning: {warning}." for warning in self.warnings)])

    def _failures(self) -> list[str]:
        return [f"the mass of mode {g} has failed: {why}" for g, why in enumerate(self.failed) if why]


def _weight(weight: float, below: float) -> str:
    return f"{weight:.3f}" if weight >= 1e-3 else f"e^-{below:.0f}"


@own_settings()
def groups(post: Posterior, n: int = 100, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """The chains that share a mode, together.

    Two chains do when R-hat of the two is at most 1.2 for the log joint and for nearly all of n entries of W @ H, and when
    the means of their aligned components lie no further apart than a chain's halves do, about. Who shares one with a third
    shares it with each other.

    Raises:
        TypeError: the draws are not of chains.
        KeyError: W or H was not kept.
    """
    require_posterior("groups", post)
    if post.kind is not Kind.CHAINS:
        raise TypeError(f"modes are told apart by chains; {post.method} left {post.kind.value}")
    post._kept("W"), post._kept("H")
    found = identified(post, n, seed)
    lp, WH = found["lp"].values, found["WH"].values
    distances, within = _distances(post)
    leader = list(range(post.chains))
    for one, other in combinations(range(post.chains), 2):
        near = distances[one, other] <= LIKE + 3 * max(within[one], within[other])
        if near and _agree(lp[[one, other]], WH[[one, other]]):
            old, new = leader[other], leader[one]
            leader = [new if mine == old else mine for mine in leader]
    return tuple(tuple(c for c in range(post.chains) if leader[c] == first) for first in dict.fromkeys(leader))


def _agree(lp: np.ndarray, WH: np.ndarray) -> bool:
    """Whether two chains' log joints (2, draw) and entries of W @ H (2, draw, entry) may be of one mode."""
    from arviz_stats.base import array_stats

    if not float(array_stats.rhat(lp, chain_axis=0, draw_axis=1)) <= SHARED:
        return False
    moving = np.ptp(WH, axis=(0, 1)) > 0
    figures = np.array([float(array_stats.rhat(WH[..., e], chain_axis=0, draw_axis=1)) for e in moving.nonzero()[0]])
    return len(figures) == 0 or float((figures > SHARED).mean()) <= MOST


def _distances(post: Posterior) -> tuple[Tensor, list[float]]:
    """How far the one of the chains' mean components that differs most lies apart, (C, C), the greater of both ways; and so
    for the halves of each chain.
    """
    aligned = align(post)
    W, H = aligned.draws["W"].double(), aligned.draws["H"].double()
    mean_W, mean_H = W.mean(1), H.mean(1)
    each = torch.stack([furthest_apart(mean_W, mean_H, mean_W[c], mean_H[c]) for c in range(post.chains)])
    half = max(1, post.n_draws // 2)
    halves = furthest_apart(W[:, :half].mean(1), H[:, :half].mean(1), W[:, -half:].mean(1), H[:, -half:].mean(1))
    return torch.maximum(each, each.mT), halves.tolist()


@own_settings()
def mode_masses(
    post: Posterior,
    *,
    draws: int = 250,
    thin: int = 4,
    warmup: int = 100,
    replicates: int = 4,
    predictive: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Masses:
    """The modes that the chains of a posterior are in (`groups`), and the mass of each by Chib's local evidence.

    Chib's replicates start at draws of the mode's chains and stay in it, as chains that never met do. A replicate that leaves
    it, as its own draws tell, makes a warning.

    Args:
        draws, thin, warmup, replicates: of `evidence.chib`, in each mode.
        predictive: work out stacking weights too.

    Raises:
        TypeError: the draws are not of chains, or the model has no blocks whose densities are known.
        KeyError: a site was not kept.
    """
    require_posterior("mode_masses", post)
    require_ability("chib", post.model, Blocked)
    whole_number("seed", seed, 0)
    whole_numbers(draws=(draws, 1), replicates=(replicates, 2))
    model: Any = post.model
    found = []
    for number, group in enumerate(groups(post)):
        own = post.select(chains=group)
        init = _spread(own, replicates)
        options: dict[str, Any] = {"draws": draws, "thin": thin, "warmup": warmup, "replicates": replicates}
        evidence = chib.run(model, post.X, **options, init=init, seed=seed + number, progress=progress)
        found.append((group, evidence))
    found.sort(key=lambda pair: -pair[1].log_evidence)
    masses = Masses(
        groups=tuple(group for group, _ in found),
        log_mass=tuple(evidence.log_evidence for _, evidence in found),
        error=tuple(evidence.mcse for _, evidence in found),
        warnings=tuple(f"mode {g}: {doubt}" for g, (_, evidence) in enumerate(found) for doubt in evidence.warnings),
        failed=tuple(evidence.failed for _, evidence in found),
    )
    return replace(masses, predictive=stacking_weights(post, masses.groups)) if predictive else masses


def _spread(post: Posterior, n: int) -> dict[str, Tensor]:
    """n draws (n, *site) of every site, spread evenly over the chains one after another."""
    size = post.chains * post.n_draws
    at = (torch.arange(n) * size + size - 1) // n
    return {site: post._kept(site).flatten(0, 1)[at.clamp(max=size - 1)] for site in post.dimensions}


@own_settings()
def stacking_weights(post: Posterior, chains: tuple[tuple[int, ...], ...]) -> tuple[float, ...]:
    """Weights of groups of chains that predict left-out entries of X best, by `arviz_stats` (stacking of LOO densities).

    They rest on some cells of X, and on some of the draws. They are predictive: not masses.
    """
    import arviz_stats

    if len(chains) == 1:
        return (1.0,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k-hats above their limit: a matter of the entries, not of the weights' sum
        cells = some_cells(post, CELLS, 0)
        found = {str(g): of_cells(post.select(chains=own), cells, DRAWS * len(own)) for g, own in enumerate(chains)}
        table = arviz_stats.compare(found, method="stacking")
    weights: Mapping[str, float] = table["weight"].to_dict()
    return tuple(float(weights[str(g)]) for g in range(len(chains)))
