"""Alternating non-negative least squares: ordinary NMF, each factor in turn at its minimum given the other.

A sweep costs more than one of `hals` and lowers the squared error by more; it never raises it. They look at X alone: the
priors of the model do not enter, but for its other sites, which are at their modes.

Reference: Kim and Park (2008), doi:10.1137/07069239X.
"""

from __future__ import annotations

from pathlib import Path

from ppnmf.data.matrix import Dense
from ppnmf.inference import descents
from ppnmf.inference.climbs import Plan
from ppnmf.inference.start import Start
from ppnmf.posterior import Posterior
from ppnmf.protocols import LeastSquares, require_ability
from ppnmf.settings import own_settings

__all__ = ["run"]


@own_settings()
def run(
    model: LeastSquares,
    X: Dense,
    *,
    restarts: int = 1,
    tol: float = 1e-8,
    max_sweeps: int = 2000,
    seed: int = 0,
    init: Start = "scaled",
    checkpoint: str | Path | None = None,
    every: int | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
) -> Posterior:
    """Lower the squared error from each of `restarts` starts; what the options and attrs are, `descents.run` says.

    Raises:
        TypeError: the model has no squared error.
        ValueError: a count or a tolerance out of its range.
    """
    require_ability("nnls", model, LeastSquares)
    plan = Plan(restarts, tol, max_sweeps, seed, init, checkpoint, every, resume, progress)
    return descents.run("nnls", model.by_rows, model, X, plan)
