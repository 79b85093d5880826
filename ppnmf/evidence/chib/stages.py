"""The blocks' stages, one after another: σ², the shorter factor's components, and then the other factor."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.evidence.chib.bridge import Stage
from ppnmf.evidence.chib.runs import Explored, Problem, sampled
from ppnmf.evidence.orders import ordered_like, reordered
from ppnmf.inference.gibbs import State
from ppnmf.protocols import Address, Params, Reduced
from ppnmf.rng import Site

__all__ = ["Likely", "densities", "long_ordinate", "picked", "pinned", "short_stages"]


def short_stages(problem: Problem, explored: Explored, burn: int, draws: int) -> tuple[State, Params, list[Stage]]:
    """σ² and the shorter factor's components: each a stage, whose next run holds it; a state at the factor's point; and θ*.

    θ*_k is taken anew in the burn-in of its stage, where the components before it stay at theirs, and the other factor from
    the last run, where the shorter one stays at its own: W* @ H* is then where the data are.
    """
    state, point, classes, stages = explored.state, explored.point, problem.classes, []
    before, labels = explored.densities, [0]  # of the block that the run at hand is the first to hold
    K = problem.model.rank
    for k in range(K + 1):
        free, own, after = [m for m in range(k, K) if classes[m] == classes[k]] if k < K else [], [], []
        likely = None
        state, point, left = anew(problem, state, point, k, burn)
        for reached, kept, _ in sampled(problem, state, left, draws, k):
            state = reached
            after.append(_held(problem, kept, point, k))
            if free:
                logs = densities(problem, kept, point, k, free)
                own.append(logs.flatten(1))
                likely = picked(problem, likely, logs, kept, free, state.sweep)
        stages.append(Stage(before, torch.cat(after, 1), len(labels)))
        if likely:
            before, labels = torch.cat(own, 1), free
            state = State(pinned(problem, likely, point, k, classes), state.sweep)
    return state, point, stages


def anew(problem: Problem, state: State, point: Params, k: int, burn: int) -> tuple[State, Params, int]:
    """A burn-in of run k, and θ* with the mean of its second half: of the components from k on, and of the whole longer factor.

    Where components are superfluous, draws of the posterior go through several ways to share the data among them; the mean
    over all of them is like none, and they are met one at a time. Where priors differ, θ* stays: the orders that components are
    in matter there, and a short run may have seen the lesser one.

    Returns: the state, θ*, and how many sweeps of burn-in are left.
    """
    number = burn // 2 // problem.thin
    if number == 0 or not problem.alike:
        return state, point, burn
    mean, seen = dict(point), 0
    for reached, kept, _ in sampled(problem, state, burn - number * problem.thin, number, k):
        state = reached
        for n in range(kept["W"].shape[1]):
            seen += 1
            draw = ordered_like(point, {site: values[:, n] for site, values in kept.items()}, problem.classes, first=k)
            mean = {site: value + (draw[site] - value) / seen for site, value in mean.items()}
    short = _rows_leading(problem.short, mean).clone()
    short[..., :k] = _rows_leading(problem.short, point)[..., :k]
    own = short if problem.short == "W" else short.mT.contiguous()
    return state, {**point, problem.long: mean[problem.long], problem.short: own}, 0


def _held(problem: Problem, kept: Params, point: Params, k: int) -> Tensor:
    """Log density of the block that run k is the first to hold at its point, given the run's draws, (C, n)."""
    if k > 0:
        return densities(problem, kept, point, k - 1, [k - 1])[..., 0]
    return problem.model.log_density_of_others(kept, problem.X)(point)


def densities(problem: Problem, kept: Params, point: Params, k: int, labels: list[int]) -> Tensor:
    """Log density of θ*'s k-th component of the shorter factor, played by each of `labels`, (C, n, labels).

    Args:
        kept: draws, (C, n, *site).
    """
    at = point[problem.short][..., k] if problem.short == "W" else point[problem.short][:, k]  # (C, R)
    return problem.model.log_density_of_component(problem.short, at, kept, labels, problem.X)


def long_ordinate(problem: Problem, state: State, point: Params, burn: int, draws: int) -> Tensor:
    """log p(long* | all else at θ*, X), shape (C,)."""
    reduced = Reduced(Address(problem.stream, state.sweep), burn, draws, problem.tick)
    return problem.model.log_density_of_factor(problem.long, point, state.params, problem.X, reduced)


class Likely(NamedTuple):
    """A draw of each chain, and which of its components shall be pinned."""

    keys: Tensor  # (C,)
    params: Params
    label: Tensor  # (C,)


def picked(
    problem: Problem, before: Likely | None, logs: Tensor, kept: Params, labels: list[int], sweep: int
) -> Likely:
    """One of a stage's draws and labels, with probability proportional to the density r.

    With many draws it is a draw of the next stage, but for the length of the component's other column, which the first
    sweep draws anew. What is greatest when each log density has a Gumbel variate added is such a pick, so the draws may
    come some at a time. The chain that goes on from its last draw instead can be far from where r is, and not find there
    in its burn-in.

    Args:
        logs: log densities at this lot of draws, (C, n, labels).
    """
    C, n, L = logs.shape
    u = problem.stream.uniforms(sweep, Site.RESAMPLING, range(n), L, logs.device)
    best, at = (logs - (-u.log()).log()).flatten(1).max(1)
    chain, draw = torch.arange(C, device=logs.device), at // L
    now = Likely(
        best, {site: v[chain, draw] for site, v in kept.items()}, torch.tensor(labels, device=at.device)[at % L]
    )
    if before is None:
        return now
    newer = now.keys > before.keys
    mixed = {
        site: torch.where(newer.view(-1, *[1] * (v.ndim - 1)), v, before.params[site]) for site, v in now.params.items()
    }
    keys, label = torch.where(newer, now.keys, before.keys), torch.where(newer, now.label, before.label)
    return Likely(keys, mixed, label)


def pinned(problem: Problem, likely: Likely, point: Params, k: int, classes: list[int]) -> dict[str, Tensor]:
    """Each chain's chosen component in place k, set to θ*'s in the shorter factor; those after it as most like θ*'s."""
    order = torch.arange(len(classes), device=likely.label.device).repeat(len(likely.label), 1)
    order.scatter_(1, likely.label[:, None], k)
    order[:, k] = likely.label
    params = ordered_like(point, reordered(likely.params, order), classes, first=k + 1)
    F = _rows_leading(problem.short, params).clone()
    F[..., k] = _rows_leading(problem.short, point)[..., k]
    return params | {problem.short: F if problem.short == "W" else F.mT.contiguous()}


def _rows_leading(site: str, params: Params) -> Tensor:
    """A factor with its rows leading: W (C, N, K), or Hᵀ (C, D, K)."""
    return params[site] if site == "W" else params[site].mT
