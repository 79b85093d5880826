r"""Log evidence by stepping stones from a fitted reference to the posterior.

Sweeps without moves from draws of the posterior stay near them; with their components in one order they give a reference
r(θ): independent rectified normals and an inverse gamma with their moments. Particles drawn from r climb the densities

.. math:: \pi_\beta(\theta) \propto [p(X \mid \theta) \, p(\theta)]^\beta \, r(\theta)^{1 - \beta}

to the posterior (`inference.particles`), moved along by the model's own sweeps (`gaussian.path`), moves along the ridge
included. The mean weights multiply to an unbiased estimate of the mass that the particles can reach. No point θ* is
needed, and no phase transition lies on the way as it does from the prior.

*Where the path begins.* Along the ridge W @ H = constant the posterior is many times wider than across it. A reference with the
moments of draws that moved along the ridge is that wide in every entry, and the path has to narrow all (N + D) K of them; one
that is as narrow as the posterior is across has to widen along K² directions, which the moves do. On a 100 × 80 matrix of rank 10
and low noise that is 495 steps for 1125, and both give one number. Without the moves on the path the narrow one would miss mass.
Three factors have two ridges, along which a narrow one widens too slowly (2.4 nats short at 30 × 20, K = L = 3): theirs is wide.

*Where it ends.* In the last tenth the reference lets go of the particles, and they spread along the ridge. Sweeps need longer for
that than the weights tell: on digits at rank 10 half of the estimates' variance came from a twelfth of the steps.
So the steps there are cut (`refined`). Elsewhere a sweep forgets where it came from, and particles are drawn anew after nearly
every step.

*Labels.* The posterior does not change when components with equal priors change places, and r does. So a particle
stands for all orders π of its components that leave the posterior as it is: their mass under π_β has the density

.. math:: [p(X \mid \theta) \, p(\theta)]^\beta \sum_\pi r(\pi\theta)^{1 - \beta},

a permanent (`evidence.permanent`) of which the weights are made; before the sweeps the order is drawn anew, in
proportion to r(πθ)^(1-β). At β = 1 the sum is the number of orders, and the estimate that of p(X): whether draws would
stay with one order or mix them plays no part. Where a class has more than `MOST` components its order is not drawn; with
the share s(θ) = r(θ) / Σ_π r(πθ) of the order that particles end in, p(X) is the number of orders times Ẑ · mean s.

*Modes.* The chains begin at those of a survey's starts that are in the modes of the greatest masses (`evidence.settled`). Each
distinct mode that they are in (`evidence.distinct`) has a reference and a path of its own, and log p(X) is the log of the sum of
what they give. One whose mass by its first run, which finds the ladder, is nothing beside another's (`LIGHT`) has that estimate
alone. Particles that end nearer to another of these modes are left out of a mode's mass, so that none is counted twice.

*Errors.* The estimate of each replicate is unbiased for what its particles can reach once the ladder is fixed; its logarithm errs
low, by about half of its variance. The log of the replicates' mean and the jackknife's error are given. What is missed is a
mode that no chain is in.

*Known entries.* Both densities are over the learned entries alone, and components are of one class only where the same is
known of them, entry by entry. In another order of other components the posterior has another mode (`evidence.exchanged`).

References: Fan, Wu, Chen, Kuo, Lewis (2011), doi:10.1093/molbev/msq224, the generalised stepping stone; Neal (2001);
Del Moral, Doucet, Jasra (2006). Labels: Marin and Robert (2008), arXiv:0804.2414.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.checks import real_number, whole_numbers
from ppnmf.data.matrix import Dense, Sparse, in_dtype
from ppnmf.evidence.distinct import centre, distinct, nearest
from ppnmf.evidence.estimate import HEAVY, Evidence, Mode, priors_of, why_failed
from ppnmf.evidence.exchanged import classes_apart, with_exchanged
from ppnmf.evidence.orders import axes_of, in_one_order
from ppnmf.evidence.places import Fitted
from ppnmf.evidence.sensitivity import to_noise
from ppnmf.evidence.settled import CHAINS, finished, weighed
from ppnmf.evidence.smc import jackknife_error, log_mean
from ppnmf.inference import gibbs
from ppnmf.inference.particles import Climb, Pace, climb, climb_together
from ppnmf.inference.room import require_room
from ppnmf.posterior import Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Crossing, Entries, Matrix, Stepping, require_ability
from ppnmf.rng import Stream
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["run"]

KEPT_EFFICIENCY = 0.95  # conditional effective sample size, over the particles, that a step of the ladder keeps
HALVINGS = 20  # towards a step's length: it is then right to some hundred-thousandths
UNEVEN = 0.95  # effective sample size below which particles are drawn anew: sweeps forget where they were, and weights do not
WIDTH = 1.0  # of the reference's variances, over those of the draws
ENTRIES = 160_000  # of all particles' factors together, by which their number is chosen
TOGETHER = 4 * ENTRIES  # of runs side by side
FEWEST, USUAL = 24, 100  # particles
DRAWS = 40  # for each particle
ROOM = 2**27  # bytes of the draws that the reference is fitted to
LIGHT = 10.0  # nats below the heaviest mode, by runs that err by a few, alike, from which a mode is nothing
TWO_RIDGES = 3  # sweeps at each β of three factors: one left the estimate .7 nats short at 30 × 20, K = L = 3 and 4
LATE, PIECES = 0.9, 4  # β from which the ladder's steps are cut into so many
SPREAD = 3.0  # nats between the replicates that are a warning


def run(
    model: Stepping,
    X: Matrix,
    *,
    particles: int | None = None,
    sweeps: int | None = None,
    draws: int | None = None,
    warmup: int = 500,
    width: float = WIDTH,
    replicates: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    """The log of the mean of the replicates' estimates, with the jackknife's error; the module's text derives it.

    `replicates` of the result are the runs' logs, and `modes` the modes that the chains are in, of which those that weigh
    nothing have one estimate, whose error is infinite. attrs hold "temperatures", how
    many steps the ladder has, and "least_effective", the least share of the particles that the weights were worth.

    Args:
        model: has sweeps from a reference to its posterior (`protocols.Stepping`), with proper priors.
        X: data (N, D).
        particles: of each replicate; by default 100, and fewer, down to 24, where the factors are large.
        sweeps: at each β; by default 1, and 3 where components are of two kinds.
        draws: sweeps without moves of each of four chains, from the last draws of those in a mode, that the reference is fitted
            to; by default 40 times the particles. Where components are superfluous, few make it too narrow.
        warmup: of the chains that say where the modes are, half of which those have that are chosen of 24 to 96 starts; 0 for four
            chains without a survey.
        width: what the variances of the reference are multiplied by.
        replicates: runs, at least 2, after a shorter one that finds the ladder.

    Raises:
        TypeError: the model has no such sweeps.
        ValueError: a count below its least value, an improper prior.
    """
    require_ability("stepping_stone", model, Stepping)
    size = sum(X.shape) * model.rank
    particles = min(USUAL, max(FEWEST, ENTRIES // size)) if particles is None else particles
    draws = DRAWS * particles if draws is None else draws
    if sweeps is None:
        sweeps = TWO_RIDGES if isinstance(model, Crossing) else 1
    whole_numbers(particles=(particles, 2), sweeps=(sweeps, 1), draws=(draws, 4), warmup=(warmup, 0))
    whole_numbers(replicates=(replicates, 2))
    width = real_number("width", width)
    model.require_proper()
    if model.accepts is Entries.COUNTS and isinstance(X, Dense | Sparse):
        # in single precision draws of a small shape end at the least number
        X = in_dtype(X, torch.float64, "stepping_stone")
    require_room(model, X, particles, 2)
    began = time.perf_counter()
    classes = classes_apart(model)
    post = with_exchanged(weighed(model, X, warmup, seed, progress), classes, seed, progress)
    near = [around(post, chains, draws, seed + 1 + g, progress) for g, chains in enumerate(distinct(post, classes))]
    paths = [Fitted.of(model, X, model.reference(own, width)) for own in near]
    effort = Effort(particles, replicates, sweeps)
    first = [first_climb(path, effort, seed, g, progress) for g, path in enumerate(paths)]
    light = too_light([one.log_evidence for one in first])
    found = [
        [first[g]] if light[g] else climbs(path, effort, first[g].ladder, seed, g, progress)
        for g, path in enumerate(paths)
    ]
    centres = [centre(own, classes) for own in near] if len(near) > 1 else []
    each = [of_mode(path, runs, centres, g) for g, (path, runs) in enumerate(zip(paths, found, strict=True))]
    modes = [one.mode for one in each if one.mode.log_evidence > -math.inf]
    heaviest = max(each, key=lambda one: one.mode.log_evidence)
    counted = [one for one in each if one.mode.log_evidence >= heaviest.mode.log_evidence - HEAVY]
    greatest = max(one.greatest for one in each)
    why = [why_failed("stepping_stone", one.stayed or one.mode.replicates, greatest) for one in counted]
    return Evidence.over(
        modes,
        method="stepping_stone",
        rank=model.rank,
        priors=priors_of(model),
        seconds=time.perf_counter() - began,
        warnings=tuple(dict.fromkeys(doubt for one in counted for doubt in one.doubts())),
        failed=next(filter(None, why), ""),
        attrs={
            "particles": particles,
            "sweeps": sweeps,
            "draws": draws,
            "warmup": warmup,
            "width": width,
            "seed": seed,
            "noise_scale": to_noise(model, found[each.index(heaviest)][0].params),
            "greatest_log_likelihood": greatest,
            "temperatures": max(len(own.ladder) for runs in found for own in runs),
            "least_effective": min(own.least_effective for runs in found for own in runs),
        },
    )


class Stood(NamedTuple):
    """What the runs of a mode say of it.

    Args:
        exact: whether all orders of the components were counted.
        greatest: the greatest log likelihood of a particle.
    """

    mode: Mode
    exact: bool
    greatest: float

    @property
    def stayed(self) -> list[float]:
        """The replicates in which particles ended in their own mode; the others count as no mass."""
        return [log for log in self.mode.replicates if log != -math.inf]

    def doubts(self) -> Iterator[str]:
        left, of = len(self.mode.replicates) - len(self.stayed), len(self.mode.replicates)
        if left:
            yield f"no particle of {left} of {of} replicates of one mode ended there: take more particles"
        apart = max(self.stayed, default=0.0) - min(self.stayed, default=0.0)
        if apart > SPREAD:
            yield f"the replicates lie {apart:.1f} nats apart (limit {SPREAD:g}): take more particles or sweeps"
        if not self.exact:
            yield "components can change places in too many ways to count: the estimate may be too high"


def of_mode(path: Fitted, runs: list[Climb], centres: list[dict[str, Tensor]], own: int) -> Stood:
    """What the runs from the reference of mode `own` say: of their particles, those that end nearest to that mode count."""
    left = [path.places.log_left(path.reference, one.params) for one in runs]
    logs = np.array([one.log_evidence + log_left for one, (log_left, _) in zip(runs, left, strict=True)])
    if len(centres) > 1:
        shares = [
            float((nearest(one.params, centres, classes_apart(path.model)) == own).double().mean()) for one in runs
        ]
        logs += [math.log(share) if share > 0 else -math.inf for share in shares]
    error = math.inf if len(logs) == 1 else jackknife_error(logs) if np.isfinite(logs).any() else math.nan
    lp = float(torch.stack([one.lp.mean() for one in runs]).mean())
    greatest = max(float((one.lp - path.model.log_prior(one.params)).max()) for one in runs)
    mode = Mode(log_mean(logs), error, tuple(logs.tolist()), lp)
    return Stood(mode, all(exact for _, exact in left), greatest)


def around(post: Posterior, chains: tuple[int, ...], draws: int, seed: int, progress: bool) -> dict[str, Tensor]:
    """Draws (S, *site) near the last ones of the chains, their components in the order of that with the greatest log joint.

    They make no moves along the ridge, unless the path begins wide.
    """
    model, X = post.model, post.X
    best = max(chains, key=lambda chain: float(post.stats["lp"][chain].mean()))
    from_each = [best, *(chain for chain in chains if chain != best)][:CHAINS]
    middle = {site: values[best, -1] for site, values in post.draws.items()}
    bytes_of_one = sum(values.numel() * values.element_size() for values in middle.values())
    thin = max(1, -(-draws * CHAINS * bytes_of_one // ROOM))
    number = max(4, draws // thin)
    options: dict[str, Any] = {"draws": number, "thin": thin, "warmup": 0, "chains": CHAINS}
    options["moves"] = isinstance(model, Crossing)
    near = finished(gibbs.run(model, X, **options, init=post.select(chains=from_each), seed=seed, progress=progress))  # type: ignore[arg-type]
    flat = {site: values.flatten(0, 1) for site, values in near.draws.items()}
    return in_one_order(flat, middle, model.classes(), axes_of(model))  # type: ignore[attr-defined]


class Effort(NamedTuple):
    """How much is done for each mode; the arguments of `run`."""

    particles: int
    replicates: int
    sweeps: int

    @property
    def pace(self) -> Pace:
        """How particles climb."""
        return Pace(self.sweeps, KEPT_EFFICIENCY, UNEVEN, HALVINGS)


def too_light(logs: list[float]) -> list[bool]:
    """Which modes' masses, whose first estimates these are the logs of, are nothing beside the greatest.

    >>> too_light([-1000.0, -1009.0, -1011.0])
    [False, False, True]
    """
    return [log < max(logs) - LIGHT for log in logs]


@own_settings()
def first_climb(path: Fitted, effort: Effort, seed: int, mode: int, progress: bool) -> Climb:
    """A run with half of the particles, which finds the ladder."""
    few = max(2, effort.particles // 2)
    first = _first_replicate(effort, mode)
    streams = Stream.of(seed, few, [first]), Stream.of(seed, [few], [first])
    with single_threaded(), bar(1, f"the ladder, rank {path.model.rank}", progress) as ticker:
        return climb(path, streams, effort.pace, None, _told(ticker, 1))


def refined(ladder: tuple[float, ...]) -> tuple[float, ...]:
    """The ladder (β after each step), its last steps cut into `PIECES`.

    There the reference lets go of the particles, and they spread along the ridge, which takes more sweeps than the weights tell.

    >>> refined((0.5, 1.0))
    (0.5, 0.625, 0.75, 0.875, 1.0)
    """
    found: list[float] = []
    for low, high in pairwise((0.0, *ladder)):
        pieces = PIECES if high > LATE else 1
        found += [low + (high - low) * piece / pieces for piece in range(1, pieces)] + [high]
    return tuple(found)


@own_settings()
def climbs(
    path: Fitted, effort: Effort, ladder: tuple[float, ...], seed: int, mode: int, progress: bool
) -> list[Climb]:
    """So many `replicates` that climb a ladder, refined.

    They go side by side, as many as have room: that changes no number.
    """
    particles, replicates = effort.particles, effort.replicates
    first = _first_replicate(effort, mode) + 1
    ladder = refined(ladder)
    N, D = path.X.shape
    together = max(1, TOGETHER // (particles * (N + D) * path.model.rank))
    found: list[Climb] = []
    with single_threaded(), bar(replicates, f"stepping stones, rank {path.model.rank}", progress) as ticker:
        for start in range(0, replicates, together):
            several = range(first + start, first + min(start + together, replicates))
            streams = Stream.of(seed, particles, several), Stream.of(seed, [particles], several)
            found += climb_together(path, streams, effort.pace, ladder, _told(ticker, len(several)))
    return found


def _first_replicate(effort: Effort, mode: int) -> int:
    """The number of the run that finds a mode's ladder; the chains have 0."""
    return mode * (1 + effort.replicates) + 1


def _told(ticker: Any, runs: int) -> Callable[[float], None]:
    """What tells the bar how far so many runs have come."""
    done = 0.0

    def tick(beta: float) -> None:
        nonlocal done
        ticker.update(runs * (beta - done))
        done = beta

    return tick
