"""Climbs of a small complete matrix, to a mode or to the least squared error, compiled whole (`kernels.ascent`)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ppnmf.gaussian.descent import unit
from ppnmf.gaussian.noise import NoisePrior
from ppnmf.gaussian.sweep import Prior, Story, complete, flat, passes
from ppnmf.kernels import ascent
from ppnmf.kernels.dense import Problem
from ppnmf.protocols import Ascent, Matrix, Pace, Params, Standing

__all__ = ["climb", "descend"]

COMPILED_WHOLE = 2**19  # entries of X up to which whole climbs are compiled; a larger one's blocks go on threads
OPERATIONS_AT_ONCE = 1e8  # multiplications in compiled sweeps between two looks at the bar and at Ctrl-C


def climb(
    story: Story,
    X: Matrix,
    begun: Standing,
    pace: Pace,
    most: int,
    log_joint: Callable[[Params, Tensor], Tensor],
) -> Ascent | None:
    """`protocols.Climbing.climb`: where the climbs then stand; None where X is large, or its noise variance known.

    Args:
        log_joint: of parameters and their misfit (C,).
    """
    rank = begun.params["W"].shape[-1]
    problem = _problem(story.prior, X)
    if problem is None or not isinstance(story.noise, NoisePrior):
        return None
    sweeps = _at_once(X, rank, most)
    noise = story.noise.scale, story.noise.shape + X.n_observed / 2 + 1
    rules = ascent.Rules(passes(X.shape, rank), noise, _steps(pace), pace.tol, 0.0)
    zero = torch.zeros_like(begun.lp)
    constant = log_joint(begun.params, zero) - ascent.log_joint(problem, rules, begun.params)
    done = ascent.climb(problem, rules, begun._replace(lp=begun.lp - constant), constant, sweeps)
    lp = log_joint(done.params, done.misfit)
    return Ascent(done.params, done.before, lp, done.reach, done.bound, done.sweeps, done.converged, sweeps)


def descend(X: Matrix, begun: Standing, pace: Pace, most: int, often: tuple[int, int]) -> ascent.Climbed | None:
    """Sweeps of ordinary NMF, component after component, which know no prior and no noise; None where X is large.

    Args:
        begun: its lp is minus the squared error as a share of its unit.
        often: how often a sweep goes through W's components, and through H's.
    """
    problem = _problem(flat, X)
    if problem is None:
        return None
    rules = ascent.Rules(often, (0.0, 0.0), _steps(pace), pace.tol, unit(X))
    W, H = begun.params["W"], begun.params["H"]
    given = {"W": W, "H": H, "sigma2": torch.ones_like(begun.lp)}
    sweeps = _at_once(X, W.shape[-1], most)
    return ascent.climb(problem, rules, begun._replace(params=given), torch.zeros_like(begun.lp), sweeps)


def _problem(prior: Prior, X: Matrix) -> Problem | None:
    N, D = X.shape
    return complete(prior, X) if N * D <= COMPILED_WHOLE else None


def _at_once(X: Matrix, rank: int, most: int) -> int:
    """How many sweeps are one compiled piece: as for one climb, since its borders round."""
    N, D = X.shape
    return min(most, max(1, int(OPERATIONS_AT_ONCE / (N * D * rank))))


def _steps(pace: Pace) -> tuple[float, float, float]:
    return pace.growth, pace.bound_growth, pace.retreat
