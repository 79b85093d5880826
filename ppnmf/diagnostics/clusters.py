r"""Clusters of the observations: which component has most of each, in every draw, and how firm that is.

In a draw, an observation belongs to the component that it is most typical of: row i to the k with the greatest W_ik / ‖W_k‖,
column j to the one with the greatest H_kj / ‖H_k‖. (Or, if asked, to the one that contributes most to it, W_ik Σ_j H_kj, as
`evidence.consensus` has it: components that are strong everywhere then draw observations to them.) Scales and orders of
components, which the data do not know, have no say in who is *together*: the share of draws in which two observations share a
component is their co-clustering probability. Of draws from a posterior it is a posterior probability; of modes from many starts
it is the consensus matrix of Brunet et al. (2004), which says how stable the starts are and not how sure the data.

References: Brunet et al. (2004), doi:10.1073/pnas.0308531101; Hubert and Arabie (1985), doi:10.1007/BF01908075, for the adjusted
Rand index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from ppnmf.checks import one_of, whole_number
from ppnmf.data.labelled import AXES
from ppnmf.evidence import consensus
from ppnmf.posterior import Kind, Posterior
from ppnmf.required import require_posterior
from ppnmf.settings import own_settings

__all__ = ["Clusters", "Spread", "clusters"]

DRAWS = 1000  # that are looked at, at most
LOT = 2**22  # loadings that are compared together


class Spread(NamedTuple):
    """A number over the draws: its mean, and bounds that hold a share of them."""

    mean: float
    lower: float
    upper: float


@dataclass(frozen=True, eq=False)
class Clusters:
    """What draws say of who belongs together; N observations, which are rows of X, or its columns.

    Attributes:
        assigned: (S, N), each observation's component in each of S draws; components of different draws have no common order.
        together: (N, N), the share of draws in which two observations are together.
        consensus: (N,), the clusters 0, 1, ... that average linkage on 1 - `together` finds, as many as components.
        names: of the observations, or their numbers.
        kind: of the posterior; of modes the shares are over starts.
    """

    assigned: np.ndarray
    together: np.ndarray
    consensus: np.ndarray
    names: tuple[str, ...]
    kind: Kind

    @property
    def firmness(self) -> np.ndarray:
        """Of each observation (N,), how much likelier it is to be with its own cluster than with any other, from -1 to 1."""
        members = [self.consensus == cluster for cluster in np.unique(self.consensus)]
        size = len(self.consensus)
        shares = np.full((size, len(members)), -1.0)
        for m, inside in enumerate(members):
            others = inside[None] & ~np.eye(size, dtype=bool)
            count = others.sum(1)
            found = (self.together * others).sum(1) / np.maximum(count, 1)
            shares[:, m] = np.where(count > 0, found, np.where(inside, 1.0, 0.0))  # alone in its cluster
        own = np.array([np.flatnonzero([inside[i] for inside in members])[0] for i in range(size)])
        mine = shares[np.arange(size), own]
        shares[np.arange(size), own] = -1.0
        return mine - np.maximum(shares.max(1), 0.0)

    def adjusted_rand(self, labels: Any, level: float = 0.9) -> Spread:
        """The adjusted Rand index of each draw's clusters against labels (N,): 1 where they agree, 0 on average by chance."""
        known = self._labels(labels)
        return _spread([float(adjusted_rand_score(known, own)) for own in self.assigned], level)

    def right(self, labels: Any, level: float = 0.9) -> Spread:
        """How many observations have the label of most in their cluster, over the draws."""
        known = self._labels(labels)
        return _spread([float(_agrees(own, known).sum()) for own in self.assigned], level)

    def wrong(self, labels: Any) -> tuple[str, ...]:
        """The names of those whose label is not that of most in their cluster of the consensus."""
        return tuple(np.array(self.names)[~_agrees(self.consensus, self._labels(labels))].tolist())

    def _labels(self, labels: Any) -> list[str]:
        known = [str(label) for label in labels]
        if len(known) != len(self.consensus):
            raise ValueError(f"there are {len(known)} labels and {len(self.consensus)} observations: give one for each")
        return known

    def __str__(self) -> str:
        over = "starts" if self.kind is Kind.MODES else "draws"
        sizes = ", ".join(str(int((self.consensus == cluster).sum())) for cluster in np.unique(self.consensus))
        doubtful = [name for name, firm in zip(self.names, self.firmness, strict=True) if firm < 0.5]
        doubt = f"; in doubt: {', '.join(doubtful)}" if doubtful else ""
        return f"{len(self.names)} observations in clusters of {sizes}, over {len(self.assigned)} {over}{doubt}"


@own_settings()
def clusters(post: Posterior, axis: str = "rows", number: int | None = None, by: str = "typical") -> Clusters:
    """Who belongs together, over the draws of a posterior or over modes from many starts.

    Args:
        post: with at least two components; of many draws a thousand are looked at, evenly spread.
        axis: "rows" or "columns" of X, whichever are the observations; at most 5000 of them.
        number: of clusters in `consensus`; as many as components by default.
        by: "typical", the component that an observation is most typical of, or "share", the one that contributes most to it.

    Raises:
        KeyError: W or H was not kept.
        ValueError: another axis, one component, too many observations.
    """
    require_posterior("clusters", post)
    one_of("axis", axis, AXES)
    one_of("by", by, RULES)
    at = AXES.index(axis)
    size = post.X.shape[at]
    if post.model.rank < 2:
        raise ValueError(
            "clusters says nothing at rank 1, where all observations are together: fit 2 components or more"
        )
    if size > consensus.MOST:
        raise ValueError(f"X has {size} {axis}, and clusters takes {consensus.MOST} at most: cluster the other axis")
    wanted = post.model.rank if number is None else whole_number("number", number, 1)
    assigned = _assigned(post, axis, RULES[by])
    together = consensus.consensus_matrix(assigned)
    found = consensus.clusters(together, min(wanted, size)) if size > 1 else np.zeros(1, dtype=int)
    names = post.names.get(axis) or [str(n) for n in range(size)]
    return Clusters(assigned, together, found, tuple(names), post.kind)


def _typical(W: Tensor, H: Tensor, axis: str) -> np.ndarray:
    """The component of each observation in each draw of W (S, N, K) and H (S, K, D), (S, N) or (S, D)."""
    loadings = W if axis == "rows" else H.mT
    length = loadings.norm(dim=-2, keepdim=True)
    return (loadings / torch.where(length > 0, length, 1.0)).argmax(-1).cpu().numpy()


Rule = Callable[[Tensor, Tensor, str], np.ndarray]
RULES: dict[str, Rule] = {"typical": _typical, "share": consensus.assignments}


def _assigned(post: Posterior, axis: str, rule: Rule) -> np.ndarray:
    """Each observation's component in each draw that is looked at, (S, N)."""
    every = post.chains * post.n_draws
    at = torch.linspace(0, every - 1, min(every, DRAWS)).round().long()
    sites = {site: post._kept(site).flatten(0, 1) for site in post.dimensions}
    lot = max(1, LOT // (sum(post.X.shape) * post.model.rank))
    lots = []
    for some in at.split(lot):
        W, H = post.model.factors({site: values[some.to(values.device)] for site, values in sites.items()})
        lots.append(rule(W, H, axis))
    return np.concatenate(lots)


def _agrees(clusters: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Whether each observation has the label of most in its cluster, (N,)."""
    most: dict[int, str] = {}
    for cluster in np.unique(clusters).tolist():
        inside = [label for label, own in zip(labels, clusters.tolist(), strict=True) if own == cluster]
        most[cluster] = Counter(inside).most_common(1)[0][0]
    return np.array([most[own] == label for label, own in zip(labels, clusters.tolist(), strict=True)])


def _spread(values: list[float], level: float) -> Spread:
    tail = (1 - level) / 2
    lower, upper = np.quantile(values, [tail, 1 - tail])
    return Spread(float(np.mean(values)), float(lower), float(upper))
