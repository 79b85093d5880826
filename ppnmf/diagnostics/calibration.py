r"""Proofs that a sampler is right, which need no second sampler: Geweke's joint test and simulation-based calibration.

Both rest on one identity: parameters drawn from the prior, data drawn given them, and parameters drawn again from the
posterior of those data have the prior's distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from ppnmf.data.matrix import Dense
from ppnmf.inference.gibbs import State
from ppnmf.inference.gibbs import step as gibbs_step
from ppnmf.posterior import Posterior
from ppnmf.protocols import Conjugate, Matrix, Params
from ppnmf.rng import Site, Stream

__all__ = ["SBC", "Geweke", "geweke", "moments", "prior_draws", "quantities", "sbc"]

Step = Callable[[Conjugate, State, Matrix, Stream], tuple[State, Any]]
Functions = Callable[[Conjugate, Params, Dense], dict[str, Tensor]]  # name -> one value a draw, (S, *any)
CHAIN, PRIOR, DATA, FIT = 0, 1, 2, 3  # replicates that keep the streams of the four uses apart
REFERENCE_DRAWS = 100_000


@dataclass(frozen=True)
class Geweke:
    """Means under the sampler beside those under the prior."""

    names: tuple[str, ...]
    means: Tensor  # (M,), float64, like the others
    expected: Tensor
    errors: Tensor  # of means - expected

    @property
    def z(self) -> dict[str, float]:
        return dict(zip(self.names, ((self.means - self.expected) / self.errors).tolist(), strict=True))

    @property
    def worst(self) -> tuple[str, float]:
        """The function that is furthest off, and its z."""
        return max(self.z.items(), key=lambda item: abs(item[1]))

    batches: int = 50

    @property
    def p_value(self) -> float:
        """Chance that a right sampler has a z this far off, by Student's distribution and Bonferroni's bound."""
        tail = 2 * float(stats.t(self.batches - 1).sf(abs(self.worst[1])))
        return min(1.0, len(self.names) * tail)


def geweke(
    model: Conjugate,
    shape: tuple[int, int],
    step: Step = gibbs_step,
    sweeps: int = 20_000,
    seed: int = 0,
    statistics: Functions | None = None,
    mask: Tensor | None = None,
    batches: int = 50,
) -> Geweke:
    """Alternate X | W, H, σ² and one sweep: a chain whose stationary distribution is the joint one, if the sweep is right.

    The chain starts there too, so there is no warm-up; its means, with errors by batch means, are compared with those
    of independent draws of the joint distribution.

    Args:
        model: with rates and noise that make a misplaced one show: unequal per entry, E σ² far from 1.
        shape: (N, D), a few by a few.
        step: one sweep of one chain, (model, state, X, stream) -> (state, anything).
        statistics: functions of (W, H, σ², X) to compare; `moments` by default.
        mask: boolean (N, D), True where observed.

    Raises:
        ValueError: fewer than two sweeps in a batch, or a single batch.

    References: Geweke (2004), "Getting it right", doi:10.1198/016214504000001132.
    """
    if batches < 2 or sweeps < 2 * batches:
        raise ValueError(f"{sweeps} sweeps in {batches} batches; at least two batches of two sweeps are needed")
    functions = statistics or moments
    own, for_data = (Stream.of(seed, replicates=(use,)) for use in (CHAIN, DATA))
    params, visited, data = prior_draws(model, shape, 1, seed), [], []
    for s in range(1, sweeps + 1):
        X = _drawn_data(model, params, for_data, s, mask)
        params = step(model, State(params, s), X, own)[0].params
        visited.append(params)
        data.append(_drawn_data(model, params, for_data, s + 1, mask).values)
    chain = {site: torch.cat([params[site] for params in visited]) for site in params}
    found = functions(model, chain, Dense(torch.stack(data), mask))
    independent = prior_draws(model, shape, REFERENCE_DRAWS, seed + 1)
    known = functions(model, independent, _drawn_data(model, independent, Stream.of(seed, replicates=(PRIOR,)), 0, mask, True))
    means, squares = _means_and_squares(found, batches)
    expected, reference = _means_and_squares(known, 1000)
    return Geweke(_names(found), means, expected, (squares + reference).sqrt(), batches)
