r"""Tempered sequential Monte Carlo: particles go from the prior to the posterior, and log p(X) falls out on the way.

.. math:: \pi_\beta(W, H, \sigma^2) \propto p(W, H, \sigma^2) \, p(X \mid W, H, \sigma^2)^\beta, \quad \beta = 0 \dots 1

The path of `inference.particles`, moved along by sweeps of the Gibbs sampler at β, moves along the ridge included. The first
run finds the ladder of temperatures; the runs that count climb the same one. It needs no point θ* and no order of the
components, so it checks Chib's estimate. Counts are tempered by time instead of by a power (`ppnmf.poisson.arrivals`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.inference import particles as particles_of
from ppnmf.inference.chain import State, init, log_joint, several
from ppnmf.inference.particles import Climb, Pace, Raised
from ppnmf.inference.room import require_room
from ppnmf.posterior import Kind, Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Address, Matrix, Params, Sweeping, Sweeps, Timed, require_ability
from ppnmf.rng import Stream
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["Climb", "climb", "climbs", "run"]

KEPT_EFFICIENCY = 0.95  # conditional effective sample size, over the particles, that a step of the ladder keeps


class Tempered(NamedTuple):
    """From the prior to the posterior, by the likelihood's power."""

    model: Sweeping
    X: Matrix

    def begin(self, stream: Stream) -> Raised:
        """Draws of the prior."""
        params = init(self.model, self.X, stream, "prior").params
        lp = log_joint(self.model, self.X, params)
        return Raised(params, lp, lp - self.model.log_prior(params))

    def weighed(self, now: Raised, power: float, to: float, at: Address) -> tuple[Tensor, Raised]:
        """By the likelihood to the power that is added."""
        return (to - power) * now.log_ratio, now

    def raised(self, now: Raised, power: float, sweeps: int, at: Address) -> Raised:
        """Sweeps of the Gibbs sampler at temperature β."""
        asked = Sweeps(number=sweeps, kept=range(sweeps - 1, sweeps), power=power)
        state, _, lp = several(self.model, State(now.params, at.step), self.X, at.stream, asked)
        return Raised(state.params, lp[:, 0], lp[:, 0] - self.model.log_prior(state.params))


class ByTime:
    """From the prior to the posterior, by the time at which data arrive."""

    def __init__(self, model: Timed, X: Matrix, stream: Stream) -> None:
        self.model, self.X = model, X
        self.arrivals = model.arrivals(X, stream)
        self.steps = 0

    def begin(self, stream: Stream) -> Raised:
        """Draws of the prior."""
        params = init(self.model, self.X, stream, "prior").params
        return Raised(params, self.model.log_prior(params), self.arrivals.expected(params))

    def weighed(self, now: Raised, power: float, to: float, at: Address) -> tuple[Tensor, Raised]:
        """By the data that arrive in the step, which this lets happen."""
        self.steps += 1
        self.arrivals.advance(to, self.steps)
        return (to - power) * self.rate(now.params), now

    def rate(self, params: Params) -> Tensor:
        """What a unit of time adds to the log weights in the step at hand."""
        return self.arrivals.seen(params) + self.arrivals.constant

    def raised(self, now: Raised, power: float, sweeps: int, at: Address) -> Raised:
        """Sweeps of the Gibbs sampler given what has arrived."""
        asked = Sweeps(number=sweeps, kept=range(sweeps - 1, sweeps))
        model, data = self.model.at_time(power), self.arrivals.data()
        state, _, lp = several(model, State(now.params, at.step), data, at.stream, asked)
        ahead = torch.zeros_like(lp[:, 0]) if power == 1 else self.arrivals.expected(state.params)
        return Raised(state.params, lp[:, 0], ahead)


@own_settings()
def climb(
    model: Sweeping,
    X: Matrix,
    seed: int,
    replicate: int,
    particles: int,
    sweeps: int,
    ladder: tuple[float, ...] | None = None,
    tick: Callable[[float], Any] = lambda share: None,
) -> Climb:
    """Bring particles from the prior to the posterior, up a given ladder or one that is found on the way.

    Args:
        replicate: with the seed, fixes every random number.
        sweeps: of the Gibbs sampler at each temperature.
        tick: is told β after each step.
    """
    streams = Stream.of(seed, particles, [replicate]), Stream.of(seed, [particles], [replicate])
    path = ByTime(model, X, streams[1]) if isinstance(model, Timed) else Tempered(model, X)
    return particles_of.climb(path, streams, Pace(sweeps, KEPT_EFFICIENCY), ladder, tick)


def climbs(
    model: Sweeping, X: Matrix, particles: int, replicates: int, sweeps: int, seed: int, progress: bool
) -> Iterator[Climb]:
    """One run that finds the ladder, which is not given, and then `replicates` that climb it.

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count below its least value, an improper prior.
    """
    require_ability("smc", model, Sweeping)
    whole_numbers(particles=(particles, 2), sweeps=(sweeps, 1), replicates=(replicates, 1))
    model.require_proper()
    require_room(model, X, particles, replicates)
    ladder = None
    with single_threaded(), bar(1 + replicates, f"smc, rank {model.rank}", progress) as ticker:
        for replicate in range(1 + replicates):
            done = 0.0

            def tick(beta: float) -> None:
                nonlocal done
                share = 1 + math.log10(max(beta, 1e-6)) / 6  # the first steps are the smallest by far
                ticker.update(share - done)
                done = share

            one = climb(model, X, seed, replicate, particles, sweeps, ladder, tick)
            ladder = one.ladder
            if replicate > 0:
                yield one


@own_settings()
def run(
    model: Sweeping,
    X: Matrix,
    *,
    particles: int = 500,
    replicates: int = 4,
    sweeps: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """Independent runs of `particles` each; a run is a chain, a particle a draw, all equally weighted.

    Args:
        model: with full conditionals and proper priors.
        X: data (N, D).
        particles: with few of them the evidence errs low.
        replicates: runs, after one more that finds the ladder of temperatures.
        sweeps: of the Gibbs sampler at each temperature.

    Returns: a Posterior; attrs hold "log_evidence", one a run, and "ladder".

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count below its least value, an improper prior.
    """
    began = time.perf_counter()
    found = list(climbs(model, X, particles, replicates, sweeps, seed, progress))
    return Posterior(
        draws={site: torch.stack([one.params[site] for one in found]) for site in found[0].params},
        stats={"lp": torch.stack([one.lp for one in found])},
        model=model,
        X=X,
        method="smc",
        kind=Kind.INDEPENDENT,
        seed=seed,
        timings={"total": time.perf_counter() - began},
        attrs={
            "particles": particles,
            "sweeps": sweeps,
            "ladder": list(found[0].ladder),
            "log_evidence": [one.log_evidence for one in found],
            "interrupted": False,
        },
    )
