r"""Particles that climb a path of densities, from one that can be drawn from to one whose mass is wanted.

.. math:: \pi_\beta(\theta) \propto \pi_0(\theta)^{1 - \beta} \pi_1(\theta)^\beta, \quad \beta = 0 \dots 1, \quad \int \pi_0 = 1

A step from β to β' weighs the particles by π_β' / π_β, draws them anew where the weights have become uneven, and
moves each by sweeps that leave π_β' as it is. The product of the mean weights is an unbiased estimate of ∫ π₁ once the ladder
of β is fixed. A run that is given no ladder finds one, each step as long as the conditional effective sample size allows.

The same runs give thermodynamic integration, ∫ E_β[log π₁ / π₀] dβ, which checks the estimate within itself.

References: Neal (2001), doi:10.1023/A:1008923215028; Del Moral, Doucet, Jasra (2006),
doi:10.1111/j.1467-9868.2006.00553.x; conditional effective sample size: Zhou, Johansen, Aston (2016),
doi:10.1080/10618600.2015.1060885; the corrected rule for the integral: Friel, Hurn, Wyse (2014),
doi:10.1007/s11222-013-9397-1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ppnmf.protocols import Address, Params
from ppnmf.rng import Site, Stream

__all__ = ["Bent", "Climb", "Pace", "Path", "Raised", "climb", "climb_together"]

LEAST_STEP = 1e-12


class Raised(NamedTuple):
    """Particles after their sweeps at some β."""

    params: Params  # (C, *site)
    lp: Tensor  # log joint of the posterior, (C,)
    log_ratio: Tensor  # log π₁ / π₀, (C,)
    places: Tensor | None = None  # what a path has to say of each particle beside, (C, ...)

    def chosen(self, at: Tensor) -> Raised:
        """Some of them."""
        params = {site: values[at] for site, values in self.params.items()}
        return Raised(params, self.lp[at], self.log_ratio[at], None if self.places is None else self.places[at.cpu()])


class Path(Protocol):
    """Densities from one that can be drawn from, at β = 0, to another at 1."""

    def begin(self, stream: Stream) -> Raised:
        """Independent draws at β = 0, a key of the stream each."""
        ...

    def weighed(self, now: Raised, power: float, to: float, at: Address) -> tuple[Tensor, Raised]:
        """log π_β' / π_β of the particles, (C,), from β = `power` to β' = `to`; and they, where something of them is drawn anew."""
        ...

    def raised(self, now: Raised, power: float, sweeps: int, at: Address) -> Raised:
        """The particles after so many sweeps at β = `power`."""
        ...


@runtime_checkable
class Bent(Path, Protocol):
    """A path whose steps do not go straight towards π₁: thermodynamic integration is along each of them."""

    def rate(self, params: Params) -> Tensor:
        """What a unit of β adds to the log weights in the step at hand, (C,)."""
        ...


class Pace(NamedTuple):
    """How particles climb."""

    sweeps: int  # at each β
    kept: float  # conditional effective sample size, over the particles, that a step of the ladder keeps
    uneven: float = 0.6  # effective sample size, over the particles, below which they are drawn anew
    halvings: int = 60  # towards the length of a step that is found


@dataclass(frozen=True, eq=False)
class Climb:
    """One run from β = 0 to 1.

    Args:
        params: of the particles at β = 1, equally weighted, (C, *site).
        lp: their log joint, (C,).
        log_evidence: the log of the product of mean weights.
        ladder: β after each step, the last one 1.
        integral: the same by thermodynamic integration.
        least_effective: the least effective sample size met, over the particles.
    """

    params: Params
    lp: Tensor
    log_evidence: float
    ladder: tuple[float, ...]
    integral: float
    least_effective: float


def climb(
    path: Path,
    streams: tuple[Stream, Stream],
    pace: Pace,
    ladder: tuple[float, ...] | None = None,
    tick: Callable[[float], Any] = lambda share: None,
) -> Climb:
    """Bring the particles of one run along a path, up a given ladder or one that is found on the way.

    Args:
        streams: of the particles, and one for drawing them anew.
        tick: is told β after each step.
    """
    return climb_together(path, streams, pace, ladder, tick)[0]


def climb_together(
    path: Path,
    streams: tuple[Stream, Stream],
    pace: Pace,
    ladder: tuple[float, ...] | None = None,
    tick: Callable[[float], Any] = lambda share: None,
) -> list[Climb]:
    """Runs side by side, whose particles have nothing to do with each other's; a single one may find its ladder.

    Args:
        streams: of the particles, one run after another, and one a run for drawing them anew.
        tick: is told β after each step.

    Raises:
        ValueError: the path begins at draws that overflow.
    """
    stream, resampling = streams
    runs = len(resampling)
    now = path.begin(stream)
    lost = int(now.log_ratio.isnan().sum())
    if lost:
        raise ValueError(
            f"{lost} of {len(stream)} draws that a run begins with have no log likelihood, since some of their numbers are beyond "
            "the range of X's type: give priors that are less wide, such as a larger noise_shape"
        )
    weights = torch.full_like(now.log_ratio, runs / len(stream)).view(runs, -1)
    rate = path.rate if isinstance(path, Bent) else None
    betas, legs = [0.0], list[Leg]()
    log_evidence, least = [0.0] * runs, [1.0] * runs
    while betas[-1] < 1:
        step = _next(weights[0], now.log_ratio, betas[-1], pace) if ladder is None else ladder[len(betas) - 1]
        at = Address(stream, 1 + (len(betas) - 1) * pace.sweeps)
        log_weights, now = path.weighed(now, betas[-1], step, at)
        increments = log_weights.view(runs, -1)
        before = _moments(weights, now, rate)
        teeth = combs(resampling, len(betas), weights.device)
        chosen: list[Tensor] = []
        for r in range(runs):
            weights[r], gained, effective = _reweighted(weights[r], increments[r])
            log_evidence[r] += gained
            least[r] = min(least[r], effective)
            chosen.append(torch.arange(weights.shape[1], device=weights.device))
            if effective < pace.uneven or step == 1:
                chosen[r] = systematic(weights[r], teeth[r])
                weights[r] = 1 / weights.shape[1]
        now = path.raised(_drawn_anew(now, chosen), step, pace.sweeps, at)
        legs.append(Leg(step - betas[-1], before, _moments(weights, now, rate)))
        betas.append(step)
        tick(step)
    integrals = _integrals(legs)
    return [
        Climb(params, lp, log_evidence[r], tuple(betas[1:]), integrals[r], least[r])
        for r, (params, lp) in enumerate(_by_run(now, runs))
    ]


def _by_run(now: Raised, runs: int) -> list[tuple[Params, Tensor]]:
    each = {site: values.unflatten(0, (runs, -1)) for site, values in now.params.items()}
    lp = now.lp.view(runs, -1)
    return [({site: values[r] for site, values in each.items()}, lp[r]) for r in range(runs)]


def _reweighted(weights: Tensor, increments: Tensor) -> tuple[Tensor, float, float]:
    """A run's weights after a step, what that adds to its log evidence, and the effective sample size over the particles."""
    top = float(increments.max())
    raised = weights * (increments - top).exp()
    total = float(raised.sum())
    weights = raised / raised.sum()
    return weights, top + math.log(total), float(1 / weights.square().sum()) / len(weights)


def _drawn_anew(now: Raised, chosen: list[Tensor]) -> Raised:
    """The particles that were chosen in each run."""
    size = len(chosen[0])
    every = torch.cat([r * size + own for r, own in enumerate(chosen)])
    return now if bool((every == torch.arange(len(every), device=every.device)).all()) else now.chosen(every)


def _next(weights: Tensor, log_ratio: Tensor, beta: float, pace: Pace) -> float:
    """The next β: its step keeps the conditional effective sample size; found by bisection of the step's logarithm."""

    def kept(step: float) -> float:
        raised = (step * (log_ratio - log_ratio.max())).exp()
        return float((weights * raised).sum().square() / (weights * raised.square()).sum())

    if kept(1 - beta) >= pace.kept:
        return 1.0
    low, high = math.log(LEAST_STEP), math.log(1 - beta)
    for _ in range(pace.halvings):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if kept(math.exp(middle)) >= pace.kept else (low, middle)
    return beta + math.exp(low)


def combs(stream: Stream, step: int, device: torch.device) -> Tensor:
    """Where each run's comb is laid on its cumulative weights, a uniform a run, (runs,)."""
    return stream.uniforms(step, Site.RESAMPLING, range(1), 1, device)[:, 0, 0]


def systematic(weights: Tensor, u: Tensor) -> Tensor:
    """Particles drawn by their weights, (C,): the uniform `u` places a comb of equal distances on the cumulative weights."""
    comb = (torch.arange(len(weights), dtype=torch.float64, device=weights.device) + u) / len(weights)
    return torch.searchsorted(weights.cumsum(0), comb).clamp(max=len(weights) - 1)


Moments = list[tuple[float, float]]
Rate = Callable[[Params], Tensor]


def _moments(weights: Tensor, now: Raised, rate: Rate | None) -> Moments:
    """Mean and variance of the log ratio, or of a path's own rate, in each run; weights (runs, particles)."""
    ratios = (now.log_ratio if rate is None else rate(now.params)).view(weights.shape)
    mean = (weights * ratios).sum(1, keepdim=True)
    variance = (weights * (ratios - mean).square()).sum(1)
    return list(zip(mean[:, 0].tolist(), variance.tolist(), strict=True))


class Leg(NamedTuple):
    """A step, and each run's mean and variance of what a unit of β adds to the log weights at its beginning and at its end."""

    width: float
    before: Moments
    after: Moments


def _integrals(legs: list[Leg]) -> list[float]:
    """∫ mean dβ of each run by the trapezoidal rule with its correction: the mean's slope in β is the variance."""
    totals = [0.0] * len(legs[0].before)
    for step, before, after in legs:
        for r, (a, b) in enumerate(zip(before, after, strict=True)):
            totals[r] += 0.5 * step * (a[0] + b[0]) - step * step / 12 * (b[1] - a[1])
    return totals
