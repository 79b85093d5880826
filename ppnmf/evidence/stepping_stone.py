r"""Log evidence by stepping stones from a fitted reference to the posterior.

Sweeps without moves from a draw of the posterior stay near it; with their components in one order they give a reference
r(θ): independent rectified normals and an inverse gamma with their moments. Particles drawn from r climb the densities

.. math:: \pi_\beta(\theta) \propto [p(X \mid \theta) \, p(\theta)]^\beta \, r(\theta)^{1 - \beta}

to the posterior (`inference.particles`), moved along by the model's own sweeps (`gaussian.path`), moves along the ridge
included. The mean weights multiply to an unbiased estimate of the mass that the particles can reach. No point θ* is
needed, and no phase transition lies on the way as it does from the prior.

*Where the path begins.* Along the ridge W @ H = constant the posterior is many times wider than across it. A reference with the
moments of draws that moved along the ridge is that wide in every entry, and the path has to narrow all (N + D) K of them; one
that is as narrow as the posterior is across has to widen along K² directions, which the moves do. On a 100 × 80 matrix of rank 10
and low noise that is 495 steps for 1125, and both give one number. Without the moves on the path the narrow one would miss mass.

*Labels.* The posterior does not change when components with equal priors change places, and r does. So a particle
stands for all orders π of its components that leave the posterior as it is: their mass under π_β has the density

.. math:: [p(X \mid \theta) \, p(\theta)]^\beta \sum_\pi r(\pi\theta)^{1 - \beta},

a permanent (`evidence.permanent`) of which the weights are made; before the sweeps the order is drawn anew, in
proportion to r(πθ)^(1-β). At β = 1 the sum is the number of orders, and the estimate that of p(X): whether draws would
stay with one order or mix them plays no part. Where a class has more than `MOST` components its order is not drawn; with
the share s(θ) = r(θ) / Σ_π r(πθ) of the order that particles end in, p(X) is the number of orders times Ẑ · mean s.

*Errors.* The estimate of each replicate is unbiased for p(X) once the ladder is fixed; its logarithm errs low, by about half of its
variance. The log of the replicates' mean and the jackknife's error are given. What all replicates miss is a mode that is
not the chain's: the chains begin where `gibbs` begins, and their best mode is taken.

References: Fan, Wu, Chen, Kuo, Lewis (2011), doi:10.1093/molbev/msq224, the generalised stepping stone; Neal (2001);
Del Moral, Doucet, Jasra (2006). Labels: Marin and Robert (2008), arXiv:0804.2414.
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.checks import real_number, whole_numbers
from ppnmf.evidence.estimate import Evidence, priors_of, why_failed
from ppnmf.evidence.orders import ordered_like, reordered
from ppnmf.evidence.permanent import MOST, drawn_orders, log_permanents
from ppnmf.evidence.smc import jackknife_error, log_mean
from ppnmf.inference import gibbs
from ppnmf.inference.particles import Climb, Pace, Raised, climb
from ppnmf.inference.room import require_room
from ppnmf.posterior import Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Address, Matrix, Params, Reference, Stepping, Sweeps, require_ability
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["run"]

KEPT_EFFICIENCY = 0.95  # conditional effective sample size, over the particles, that a step of the ladder keeps
WIDTH = 1.5  # of the reference's variances, over those of the draws
ENTRIES = 160_000  # of all particles' factors together, by which their number is chosen
FEWEST, USUAL = 16, 100  # particles
DRAWS = 20  # for each particle
CHAINS = 4
LOOKS, APART_BY = 20, 10  # draws of each chain by which the best one is told, and the sweeps between them
ROOM = 2**27  # bytes of the draws that the reference is fitted to
SPREAD = 3.0  # nats between the replicates that are a warning


def run(
    model: Stepping,
    X: Matrix,
    *,
    particles: int | None = None,
    sweeps: int = 1,
    draws: int | None = None,
    warmup: int = 1000,
    width: float = WIDTH,
    replicates: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    """The log of the mean of the replicates' estimates, with the jackknife's error; the module's text derives it.

    `replicates` of the result are the runs' logs. attrs hold "temperatures", how many steps the ladder has, and
    "least_effective", the least share of the particles that the weights were worth.

    Args:
        model: has sweeps from a reference to its posterior (`protocols.Stepping`), with proper priors.
        X: data (N, D).
        particles: of each replicate; by default 100, and fewer, down to 16, where the factors are large.
        sweeps: at each β.
        draws: sweeps without moves of each of four chains, from one draw of the posterior, that the reference is fitted
            to; by default 20 times the particles. Where components are superfluous, few make it too narrow.
        warmup: sweeps of the chains, begun as `gibbs` begins them, of which the best one has that draw.
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
    whole_numbers(particles=(particles, 2), sweeps=(sweeps, 1), draws=(draws, 4), warmup=(warmup, 0))
    whole_numbers(replicates=(replicates, 2))
    width = real_number("width", width)
    model.require_proper()
    require_room(model, X, particles, 2)
    began = time.perf_counter()
    post = settled(model, X, warmup, seed, progress)
    near = around(post, draws, seed, progress)
    path = Fitted(model, X, model.reference(near, width), Places.of(model.classes()))
    found = climbs(path, particles, replicates, sweeps, seed, progress)
    ends = [path.places.log_left(path.reference, one.params) for one in found]
    logs = np.array([one.log_evidence + log_left for one, (log_left, _) in zip(found, ends, strict=True)])
    greatest = max(float((one.lp - model.log_prior(one.params)).max()) for one in found)
    return Evidence(
        log_evidence=log_mean(logs),
        mcse=jackknife_error(logs),
        method="stepping_stone",
        rank=model.rank,
        replicates=tuple(logs.tolist()),
        priors=priors_of(model),
        seconds=time.perf_counter() - began,
        warnings=_doubts(logs, all(exact for _, exact in ends)),
        failed=why_failed("stepping_stone", logs.tolist(), greatest),
        attrs={
            "particles": particles,
            "sweeps": sweeps,
            "draws": draws,
            "warmup": warmup,
            "width": width,
            "seed": seed,
            "greatest_log_likelihood": greatest,
            "temperatures": len(found[0].ladder),
            "least_effective": min(one.least_effective for one in found),
        },
    )


class Places(NamedTuple):
    """Which components may change places.

    Args:
        summed: classes of equal priors whose orders are summed over, those of several components.
        kept: those with too many components.
    """

    summed: list[list[int]]
    kept: list[list[int]]

    @classmethod
    def of(cls, classes: list[int]) -> Places:
        """From the first component of each one's class."""
        each = [[k for k, own in enumerate(classes) if own == first] for first in sorted(set(classes))]
        several = [members for members in each if len(members) > 1]
        return cls([m for m in several if len(m) <= MOST], [m for m in several if len(m) > MOST])

    def log_orders(self, log_places: Tensor, power: float) -> Tensor:
        """log Σ_π r(πθ)^power / r(θ)^power over the orders of the classes that are summed over, (C,)."""
        total = torch.zeros(len(log_places), dtype=torch.float64)
        for members in self.summed:
            logs = power * log_places[:, members][:, :, members]
            values, _ = log_permanents(logs.numpy())
            total += torch.from_numpy(values) - logs.diagonal(dim1=1, dim2=2).sum(-1)
        return total

    def drawn(self, log_places: Tensor, power: float, uniforms: Tensor) -> Tensor:
        """Which component comes in each place, (C, K), in proportion to r(πθ)^power."""
        C, K = uniforms.shape
        order = torch.arange(K).repeat(C, 1)
        for members in self.summed:
            logs = power * log_places[:, members][:, :, members]
            places = torch.from_numpy(drawn_orders(logs.numpy(), uniforms[:, members].numpy()))
            own = torch.tensor(members)
            order.scatter_(1, own[places], own.expand(C, -1))
        return order

    def log_left(self, reference: Reference, params: Params) -> tuple[float, bool]:
        """Log of what the other classes' orders are to the estimate: their number times mean s; and whether s is exact."""
        total, exact = torch.zeros(1, dtype=torch.float64), True
        for members in self.kept:
            logs = reference.log_places(params)[:, members][:, :, members]
            values, all_counted = log_permanents(logs.numpy())
            exact = exact and all_counted
            shares = logs.diagonal(dim1=1, dim2=2).sum(-1) - torch.from_numpy(values)
            total = total + math.lgamma(len(members) + 1) + shares
        return log_mean(total.numpy()), exact


class Fitted(NamedTuple):
    """The path from a reference to the posterior."""

    model: Stepping
    X: Matrix
    reference: Reference
    places: Places

    def begin(self, stream: Stream) -> Raised:
        """Draws of the reference."""
        params = self.reference.draws(self.X, stream)
        return self._at(params, self.model.log_likelihood_at(params, self.X))

    def log_weights(self, now: Raised, power: float, to: float) -> Tensor:
        """Of a particle in all its orders."""
        linear = (to - power) * now.log_ratio
        if not self.places.summed:
            return linear
        logs = self.reference.log_places(now.params)
        orders = self.places.log_orders(logs, 1 - to) - self.places.log_orders(logs, 1 - power)
        return linear + orders.to(linear.device)

    def raised(self, params: Params, power: float, sweeps: int, at: Address) -> Raised:
        """The order drawn anew, and sweeps at β."""
        if self.places.summed:
            u = at.stream.uniforms(at.step, Site.SWAP, range(1), self.model.rank)[:, 0]
            params = reordered(params, self.places.drawn(self.reference.log_places(params), 1 - power, u))
        asked = Sweeps(number=sweeps, kept=range(sweeps - 1, sweeps), power=power)
        swept = self.model.sweep_between(self.reference, params, self.X, asked, at)
        return self._at(swept.params, swept.log_likelihood[:, 0])

    def _at(self, params: Params, log_likelihood: Tensor) -> Raised:
        lp = log_likelihood + self.model.log_prior(params)
        return Raised(params, lp, lp - self.reference.log_prob(params))


def settled(model: Stepping, X: Matrix, warmup: int, seed: int, progress: bool) -> Posterior:
    """Chains at the posterior, begun as `gibbs` begins them, with a few draws of each."""
    options: dict[str, Any] = {"draws": LOOKS, "thin": APART_BY, "warmup": warmup, "chains": CHAINS}
    return _finished(gibbs.run(model, X, **options, seed=seed, progress=progress))  # type: ignore[arg-type]


def around(post: Posterior, draws: int, seed: int, progress: bool) -> dict[str, Tensor]:
    """Draws (S, *site) near the last one of the chain with the greatest log joint, their components in one order."""
    model, X = post.model, post.X
    best = int(post.stats["lp"].mean(1).argmax())
    middle = {site: values[best, -1] for site, values in post.draws.items()}
    bytes_of_one = sum(values.numel() * values.element_size() for values in middle.values())
    thin = max(1, -(-draws * CHAINS * bytes_of_one // ROOM))
    number = max(4, draws // thin)
    options: dict[str, Any] = {"draws": number, "thin": thin, "warmup": 0, "chains": CHAINS, "moves": False}
    near = _finished(gibbs.run(model, X, **options, init=middle, seed=seed + 1, progress=progress))  # type: ignore[arg-type]
    flat = {site: values.flatten(0, 1) for site, values in near.draws.items()}
    classes = model.classes()  # type: ignore[attr-defined]
    first = ordered_like({site: values[None] for site, values in middle.items()}, flat, classes)
    return ordered_like({site: values.mean(0, keepdim=True) for site, values in first.items()}, first, classes)


def _finished(post: Posterior) -> Posterior:
    """The posterior. Raises KeyboardInterrupt where Ctrl-C ended the run."""
    if post.attrs["interrupted"]:
        raise KeyboardInterrupt
    return post


@own_settings()
def climbs(path: Fitted, particles: int, replicates: int, sweeps: int, seed: int, progress: bool) -> list[Climb]:
    """One run with half of the particles that finds the ladder, which is not given, and then `replicates` that climb it."""
    found: list[Climb] = []
    title = f"stepping stones, rank {path.model.rank}"
    with single_threaded(), bar(1 + replicates, title, progress) as ticker:
        ladder = None
        for replicate in range(1 + replicates):
            number = [1 + replicate]  # the chains have 0
            size = particles if replicate > 0 else max(2, particles // 2)
            streams = Stream.of(seed, size, number), Stream.of(seed, [size], number)
            done = 0.0

            def tick(beta: float) -> None:
                nonlocal done
                ticker.update(beta - done)
                done = beta

            one = climb(path, streams, Pace(sweeps, KEPT_EFFICIENCY), ladder, tick)
            ladder = one.ladder
            if replicate > 0:
                found.append(one)
    return found


def _doubts(logs: np.ndarray, exact: bool) -> tuple[str, ...]:
    doubts = []
    apart = float(np.ptp(logs))
    if apart > SPREAD:
        doubts.append(f"the replicates lie {apart:.1f} nats apart (limit {SPREAD:g}): take more particles or sweeps")
    if not exact:
        doubts.append(f"more than {MOST} components can change places: some of their orders were not counted")
    return tuple(doubts)
