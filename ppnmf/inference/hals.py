"""Hierarchical alternating least squares, also known as coordinate descent: ordinary NMF, a component at a time.

It is `icm` without priors, under the name that people know: each column of W, and then each row of H, goes to its least
squared error given the rest. From the same start it is scikit-learn's `NMF(solver="cd")`, sweep by sweep; `accelerated`
takes the passes and the reach ahead of `icm`, which get there sooner on another way.

References: Cichocki, Zdunek, Amari (2007), doi:10.1007/978-3-540-74494-8_22; accelerated: Gillis and Glineur (2012),
doi:10.1162/NECO_a_00256, Ang and Gillis (2019), doi:10.1162/neco_a_01157.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from ppnmf.checks import yes_or_no
from ppnmf.data.matrix import Dense
from ppnmf.inference import descents, icm
from ppnmf.inference.climbs import Climb, Plan
from ppnmf.inference.start import Start
from ppnmf.posterior import Posterior
from ppnmf.protocols import Ascent, Descending, LeastSquares, Matrix, Standing, offers, require_ability
from ppnmf.settings import own_settings

__all__ = ["run"]


@own_settings()
def run(
    model: LeastSquares,
    X: Dense,
    *,
    accelerated: bool = False,
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

    Args:
        accelerated: go through a factor several times a sweep where products with X are dear, and begin sweeps ahead.

    Raises:
        TypeError: the model has no squared error.
        ValueError: a count or a tolerance out of its range.
    """
    require_ability("hals", model, LeastSquares)
    yes_or_no(accelerated=accelerated)
    plan = Plan(restarts, tol, max_sweeps, seed, init, checkpoint, every, resume, progress)
    sweep = partial(model.by_components, repeatedly=accelerated)
    return descents.run("hals", sweep, model, X, plan, accelerated, whole=_whole(model, accelerated))


def _whole(model: LeastSquares, accelerated: bool) -> descents.Whole | None:
    """Many sweeps at once, where the model has that: the same as one by one but for rounding."""
    own: Any = model
    if not offers(own, Descending):
        return None

    def descended(climb: Climb, X: Matrix, tol: float, most: int) -> Ascent | None:
        state, before, lp, reach, bound = climb[:5]
        ahead = reach if accelerated else torch.zeros_like(reach)
        return own.descend(X, Standing(state.params, before, lp, ahead, bound), icm.pace(tol), most, accelerated)

    return descended
