r"""Consensus over restarts: whether modes from different starts put the observations into the same clusters.

Each of R modes (ICM) assigns an observation, a row of X, to the component that contributes most to it: the k with the
greatest W_ik Σ_j H_kj. The consensus matrix C holds the share of modes in which two rows are together. With clear
clusters its entries are 0 or 1.

- *Cophenetic correlation* (Brunet et al. 2004), the value: between 1 - C and the distances at which average linkage on
  1 - C joins two rows; 1 where the modes agree.
- *Dispersion* (Kim and Park 2007), in attrs: Σ 4 (C_ij - 1/2)² / N², 1 where every entry is 0 or 1.

Both say how stable the clusters are, not how many there are: many ranks can be near 1, and the custom is to take the
rank after which the correlation begins to fall. Equal values go to the least rank. At rank 1 all rows are together and
the criterion says nothing. (Where rows are genes and columns are samples, `axis="columns"` clusters the samples, by
H_kj Σ_i W_ik.)

References: Brunet et al. (2004), doi:10.1073/pnas.0308531101; Kim and Park (2007), doi:10.1093/bioinformatics/btm134.
"""

from __future__ import annotations

import math
import time

import numpy as np
from scipy.cluster.hierarchy import cophenet, cut_tree, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.evidence import modes
from ppnmf.evidence.estimate import priors_of
from ppnmf.evidence.score import Measure
from ppnmf.protocols import Matrix, Sweeping

__all__ = ["assignments", "clusters", "consensus_matrix", "cophenetic_correlation", "dispersion", "run"]

MOST = 5000  # observations: the consensus matrix has their number squared
DIGITS = 12  # to which values are rounded, so that equal ones are equal


def run(
    model: Sweeping,
    X: Matrix,
    *,
    restarts: int = 20,
    axis: str = "rows",
    seed: int = 0,
    progress: bool = True,
) -> Measure:
    """The cophenetic correlation of the consensus matrix over `restarts` modes, with the jackknife's error over them.

    Args:
        model: offers full conditionals, and has at least 2 components.
        X: data (N, D); `axis`, "rows" or "columns", says which are clustered, at most 5000.
        restarts: modes, at least 3.

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count out of its range, rank 1, too many observations.
    """
    whole_numbers(restarts=(restarts, 3))
    if axis not in ("rows", "columns"):
        raise ValueError(f"axis is {axis!r}; it must be 'rows' or 'columns'")
    size = X.shape[axis == "columns"]
    if model.rank < 2:
        raise ValueError("consensus says nothing at rank 1, where all observations are together: begin at rank 2")
    if not 3 <= size <= MOST:
        raise ValueError(
            f"X has {size} {axis}, and consensus takes from 3 to {MOST}: cluster the other axis, or a sample"
        )
    began = time.perf_counter()
    fits = modes.found("consensus", model, X, restarts, seed, progress)
    labels = assignments(fits.W, fits.H, axis)
    total = _times_together(labels)
    value = cophenetic_correlation(total / restarts)
    without = np.array([cophenetic_correlation((total - _together(own)) / (restarts - 1)) for own in labels])
    error = math.sqrt((restarts - 1) / restarts * float(np.square(without - without.mean()).sum()))
    used = len(np.unique(labels[int(fits.deviance.argmin())]))
    return Measure(
        value=value,
        error=error,
        label="cophenetic correlation",
        sign=1,
        method="consensus",
        rank=model.rank,
        priors=priors_of(model),
        seconds=time.perf_counter() - began,
        warnings=_doubts(used, model.rank),
        attrs={
            "dispersion": dispersion(total / restarts),
            "clusters": used,
            "restarts": restarts,
            "axis": axis,
            "seed": seed,
        },
    )


def assignments(W: Tensor, H: Tensor, axis: str = "rows") -> np.ndarray:
    """The component of each observation in each of the modes W (R, N, K), H (R, K, D): (R, N) or (R, D)."""
    loadings = W * H.sum(-1)[:, None] if axis == "rows" else H.mT * W.sum(-2)[:, None]
    return loadings.argmax(-1).cpu().numpy()


def consensus_matrix(labels: np.ndarray) -> np.ndarray:
    """The share of modes in which two observations are together, (N, N), of their components in each mode (R, N)."""
    return _times_together(labels) / len(labels)


def clusters(consensus: np.ndarray, number: int) -> np.ndarray:
    """The cluster of each observation, (N,), by average linkage on a consensus matrix, as many as asked for."""
    distances = squareform(1 - consensus, checks=False)
    return cut_tree(linkage(distances, "average"), n_clusters=number)[:, 0]


def cophenetic_correlation(consensus: np.ndarray) -> float:
    """Of a consensus matrix (N, N); 1 where all its entries are equal."""
    distances = squareform(1 - consensus, checks=False)
    if np.ptp(distances) == 0:
        return 1.0
    return round(float(cophenet(linkage(distances, "average"), distances)[0]), DIGITS)


def dispersion(consensus: np.ndarray) -> float:
    """Of a consensus matrix (N, N)."""
    return round(float(np.mean(4 * (consensus - 0.5) ** 2)), DIGITS)


def _times_together(labels: np.ndarray) -> np.ndarray:
    total = np.zeros((labels.shape[1],) * 2)
    for own in labels:
        total += _together(own)
    return total


def _together(labels: np.ndarray) -> np.ndarray:
    return (labels[:, None] == labels).astype(np.float64)


def _doubts(used: int, rank: int) -> tuple[str, ...]:
    return (f"the best mode puts the observations into {used} clusters, fewer than its rank",) if used < rank else ()
