"""Climbs to a mode of a small complete matrix, many accelerated sweeps in one compiled piece (`kernels.ascent`)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ppnmf.gaussian.noise import NoisePrior
from ppnmf.gaussian.sweep import Story, compiled, passes
from ppnmf.kernels import ascent
from ppnmf.protocols import Ascent, Matrix, Pace, Params

__all__ = ["climb"]

COMPILED_WHOLE = 2**19  # entries of X up to which whole climbs are compiled; a larger one's blocks go on threads
OPERATIONS_AT_ONCE = 1e8  # multiplications in compiled sweeps between two looks at the bar and at Ctrl-C


def climb(
    story: Story,
    X: Matrix,
    params: Params,
    before: Params,
    reach: tuple[Tensor, Tensor],
    lp: Tensor,
    pace: Pace,
    most: int,
    log_joint: Callable[[Params, Tensor], Tensor],
) -> Ascent | None:
    """`protocols.Climbing.climb`: where the climbs then stand; None where X is large, or its noise variance known.

    Args:
        log_joint: of parameters and their misfit (C,).
    """
    (N, D), rank = X.shape, params["W"].shape[-1]
    problem = compiled(story.prior, X) if N * D <= COMPILED_WHOLE else None
    if problem is None or not isinstance(story.noise, NoisePrior):
        return None
    sweeps = min(most, max(1, int(OPERATIONS_AT_ONCE / (N * D * rank))))  # as for one climb: its borders round
    noise = story.noise.scale, story.noise.shape + X.n_observed / 2 + 1
    rules = ascent.Rules(passes(X.shape, rank), noise, (pace.growth, pace.bound_growth, pace.retreat), pace.tol)
    constant = log_joint(params, torch.zeros_like(lp)) - ascent.log_joint(problem, rules, params)
    done = ascent.climb(problem, rules, params, before, reach, lp - constant, constant, sweeps)
    lp = log_joint(done.params, done.misfit)
    return Ascent(done.params, done.before, lp, done.reach, done.bound, done.sweeps, done.converged, sweeps)
