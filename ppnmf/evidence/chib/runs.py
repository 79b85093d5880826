"""Gibbs runs in which the blocks before one stay at θ*: the draws of Chib's stages, and of the run that θ* is taken from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.evidence.distinct import FEWEST
from ppnmf.evidence.orders import ordered_like, reordered, strongest_first
from ppnmf.inference import gibbs
from ppnmf.inference.gibbs import State
from ppnmf.inference.start import Start
from ppnmf.posterior import Posterior
from ppnmf.protocols import Blocked, Held, Matrix, Params, Sweeps
from ppnmf.rng import Site, Stream

__all__ = ["Explored", "Problem", "exchanged", "explore", "lots", "sampled"]

WATCHED = 100  # draws of a replicate by which its mode is told
ROOM = 2**27  # bytes of theirs
AT_ONCE = 2**20  # densities that are evaluated together
EXCHANGE = 8  # sweeps from one proposal to exchange components whose priors differ to the next
FACTORS = ("W", "H")


@dataclass(frozen=True, eq=False)
class Problem:
    """What every stage needs; the replicates are the leading axis C of all tensors."""

    model: Blocked
    X: Matrix
    stream: Stream
    tick: Callable[[int], Any]
    thin: int = 1

    @cached_property
    def short(self) -> str:
        """The factor whose components are the blocks."""
        N, D = self.X.shape
        return "H" if D <= N else "W"

    @cached_property
    def long(self) -> str:
        """The factor whose rows are the blocks."""
        return "W" if self.short == "H" else "H"

    @cached_property
    def at_once(self) -> int:
        """Sweeps that are made, and whose densities are evaluated, together."""
        (N, D), K, C = self.X.shape, self.model.rank, len(self.stream)
        return max(1, min(gibbs.sweeps_at_once(self.X, K, C), AT_ONCE // (C * K * min(N, D))))

    @cached_property
    def watched(self) -> int:
        """Draws of each replicate by which it is told what mode it is in."""
        bytes_of_one = len(self.stream) * sum(self.X.shape) * self.model.rank * 8
        return min(WATCHED, max(FEWEST, ROOM // bytes_of_one))

    @cached_property
    def classes(self) -> list[int]:
        """For each component the first one with its priors in W and in H: the posterior is symmetric among equals."""
        return self.model.classes()

    @cached_property
    def alike(self) -> bool:
        """Whether all components may change places."""
        return len(set(self.classes)) == 1


class Explored(NamedTuple):
    """What the run over the posterior leaves."""

    state: State
    point: Params  # θ*: W (C, N, K), H (C, K, D), sigma2 (C,)
    densities: Tensor  # of σ²*, or whatever is no factor, given the draws, (C, draws)
    lp: Tensor  # (C, draws)
    greatest: Tensor  # log likelihood of a draw, (C,)
    watched: Posterior  # some of the draws, by which replicates are told to share a mode


def explore(problem: Problem, warmup: int, draws: int, init: Start = "scaled") -> Explored:
    """The run over the posterior: θ*, and the densities of σ²."""
    model, X = problem.model, problem.X
    every, watched = max(1, draws // problem.watched), list[Params]()
    start = gibbs.init(model, X, problem.stream, init)
    classes, mean, noise, lps, seen = problem.classes, dict(start.params), [], [], 0
    state, greatest = start, torch.full((len(problem.stream),), -math.inf, dtype=torch.float64, device=X.device)
    for reached, kept, lp in sampled(problem, start, warmup, draws, 0, noise=True):
        state = reached
        for n in range(lp.shape[1]):
            seen += 1
            params = {site: values[:, n] for site, values in kept.items()}
            aligned = ordered_like(mean, params, [0] * len(classes)) if seen > 1 else params
            mean = {site: value + (aligned[site] - value) / seen for site, value in mean.items()}
            if seen % every == 0:
                watched.append({"lp": lp[:, n], **{site: values.clone() for site, values in params.items()}})
        noise.append(model.log_density_of_others(kept, X))
        lps.append(lp)
        log_priors = model.log_prior({site: values.flatten(0, 1) for site, values in kept.items()})
        greatest = torch.maximum(greatest, (lp - log_priors.unflatten(0, lp.shape)).amax(1))
    point = strongest_first(mean, classes)
    densities = torch.cat([log_density(point) for log_density in noise], -1)
    others = {site: values for site, values in point.items() if site not in FACTORS}
    state = State(ordered_like(point, state.params, classes) | others, state.sweep)
    return Explored(state, point, densities, torch.cat(lps, 1), greatest, _posterior(problem, watched))


def _posterior(problem: Problem, draws: list[Params]) -> Posterior:
    """Draws, each (C, *site) with its "lp", as a posterior whose chains are the replicates."""
    each = {site: torch.stack([own[site] for own in draws], 1) for site in draws[0]}
    lp = each.pop("lp")
    return Posterior(draws=each, stats={"lp": lp}, model=problem.model, X=problem.X, method="chib", seed=0)


def sampled(
    problem: Problem, state: State, burn: int, draws: int, held: int, noise: bool = False
) -> Iterator[tuple[State, dict[str, Tensor], Tensor]]:
    """The draws after `burn` sweeps, some at a time: the state, the draws (C, n, *site), and their log joints (C, n).

    Args:
        held: the shorter factor's components before this one stay, and are left out of the moves.
        noise: draw σ² too.
    """
    model, X, stream = problem.model, problem.X, problem.stream
    stay = Held(W=held, others=not noise) if problem.short == "W" else Held(H=held, others=not noise)
    for lot in lots(burn + draws * problem.thin, problem.at_once * problem.thin if problem.alike else EXCHANGE):
        state = state if problem.alike else exchanged(problem, state, held)
        due = burn + problem.thin - 1 - lot.start
        kept = range(due if due >= 0 else due % problem.thin, len(lot), problem.thin)
        asked = Sweeps(number=len(lot), kept=kept, held=stay, moves=held < model.rank)
        state, own, lp = gibbs.several(model, state, X, stream, asked)
        problem.tick(len(lot))
        if len(kept):
            yield state, own, lp


def exchanged(problem: Problem, state: State, held: int) -> State:
    """Metropolis steps that exchange two free components: the likelihood stays, so the priors alone decide."""
    model, params, K = problem.model, dict(state.params), problem.model.rank
    u = problem.stream.uniforms(state.sweep, Site.SWAP, range(K), K, params["W"].device)  # (C, K, K)
    for k, l in combinations(range(held, K), 2):
        order = torch.arange(K)
        order[k], order[l] = l, k
        other = reordered(params, order.expand(len(u), K))
        accepted = u[:, k, l].log() < model.log_prior(other) - model.log_prior(params)
        for site in ("W", "H"):
            params[site] = torch.where(accepted[:, None, None], other[site], params[site])
    return State(params, state.sweep)


def lots(sweeps: int, at_once: int) -> list[range]:
    return [range(start, min(start + at_once, sweeps)) for start in range(0, sweeps, at_once)]
