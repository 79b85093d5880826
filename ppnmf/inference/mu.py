"""Multiplicative updates (Lee and Seung 2001): ordinary NMF, a sweep of which never raises the loss.

Every factor is multiplied by a quotient, so that zeros stay zeros and nothing becomes negative. They look at X alone: the
priors of the model do not enter, but for its other sites, which are at their modes. For a Gaussian model the loss is the
squared error, over known noise variances and under the mask; for Poisson counts it is the Kullback-Leibler divergence of X from
their means, exposures among them. From the same start they are scikit-learn's `NMF(solver="mu")` and its
`beta_loss="kullback-leibler"`, sweep by sweep.

Reference: Lee and Seung (2001), "Algorithms for non-negative matrix factorization", NIPS 13.
"""

from __future__ import annotations

from pathlib import Path

from ppnmf.data.matrix import Dense
from ppnmf.inference import descents
from ppnmf.inference.climbs import Plan
from ppnmf.inference.start import Start
from ppnmf.posterior import Posterior
from ppnmf.protocols import Multiplicative, require_ability
from ppnmf.settings import own_settings

__all__ = ["run"]


@own_settings()
def run(
    model: Multiplicative,
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
    """Lower the loss from each of `restarts` starts; what the options and the posterior's attrs are, `descents.run` says.

    Raises:
        TypeError: the model has no multiplicative updates.
        ValueError: a count or a tolerance out of its range.
    """
    require_ability("mu", model, Multiplicative)
    plan = Plan(restarts, tol, max_sweeps, seed, init, checkpoint, every, resume, progress)
    return descents.run("mu", model.multiplied, model, X, plan, unit=model.loss_unit(X))
