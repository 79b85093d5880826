r"""Chib's estimate of the log marginal likelihood, made right for components that have no order and no scale.

.. math:: \log p(X) = \log p(X, \theta^*) - \log p(\theta^* \mid X)

holds at any θ*. The ordinate p(θ* | X) is a product of blocks, each the average of a full conditional density at θ* over
the draws of a Gibbs run in which the blocks before it stay at θ* (a reduced run):

1. σ², over the posterior;
2. the K components of the shorter factor (H where D <= N, else W), one at a time, σ² fixed;
3. the other factor. Its rows are independent given the rest, so its columns go one at a time and *a row's* ordinate
   is the product over columns of the row's averages; the last column's conditional is exact.

The posterior does not change when components with equal priors change places, so at stage k of 2 the density is averaged
also over which of the free components plays the k-th. It is then right whether the chain mixes the labels or stays
with one order, and no log K! is added. Without it, a chain that stays is low by log K!.

θ* is the mean of the draws put in one order, strongest component first; it is never rescaled, for the priors have a
scale.

References: Chib (1995), doi:10.1080/01621459.1995.10476635. Labels: Frühwirth-Schnatter (2004),
doi:10.1111/j.1368-423X.2004.00125.x; Marin and Robert (2008), arXiv:0804.2414.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from arviz_stats.base import array_stats
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.data.matrix import Dense
from ppnmf.distributions import RectifiedNormal
from ppnmf.evidence.estimate import Evidence, priors_of
from ppnmf.inference import gibbs
from ppnmf.inference.gibbs import State
from ppnmf.inference.sweep import log_joint, misfit, sweep_factors
from ppnmf.kernels import kernels_for
from ppnmf.kernels.reference import Natural, column
from ppnmf.progress import bar
from ppnmf.protocols import Conjugate, Params, Statistics
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["run"]

AT_ONCE = 2**17  # numbers that are worked on together: they stay in cache
AGREE = 1.01  # R-hat of the log joint over the replicates above which they do not agree


@dataclass(frozen=True, eq=False)
class Problem:
    """What every stage needs; the replicates are the leading axis C of all tensors."""

    model: Conjugate
    X: Dense
    stream: Stream
    tick: Callable[[], Any]

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
    def natural(self) -> dict[str, Natural]:
        """(precision, linear) of each factor's prior, broadcastable to its rows-leading shape (R, K)."""
        pairs = {}
        for site in ("W", "H"):
            prior, device = self.model.prior(site), self.X.device
            pair = (prior.precision.to(device), prior.linear.to(device))
            pairs[site] = pair if site == "W" else (pair[0].mT.contiguous(), pair[1].mT.contiguous())
        return pairs

    @cached_property
    def classes(self) -> list[int]:
        """For each component the first one with its priors in W and in H: the posterior is symmetric among equals."""
        K = self.model.rank
        tables = [values.mT.expand(K, -1) for pair in self.natural.values() for values in pair]
        keys = torch.cat(tables, 1).cpu()
        return [next(m for m in range(k + 1) if bool((keys[m] == keys[k]).all())) for k in range(K)]


class Explored(NamedTuple):
    """What the run over the posterior leaves."""

    state: State
    point: Params  # θ*: W (C, N, K), H (C, K, D), sigma2 (C,)
    log_ordinate: Tensor  # log p(σ²* | X), (C,)
    lp: Tensor  # (C, draws)


def run(
    model: Conjugate,
    X: Dense,
    *,
    draws: int = 500,
    warmup: int = 500,
    replicates: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    """Chib's estimate, from `replicates` independent chains with a θ* of their own; the module's text derives it.

    Above the rank that the data support a component comes and goes, its ordinate is an average over rare events, and
    the estimate errs to high evidence, by some nats; the spread of the replicates shows only part of that.

    Args:
        model: offers full conditionals (`protocols.Conjugate`), with proper priors.
        X: data (N, D).
        draws: sweeps per reduced run, 2 K of them; the error falls as its square root.
        warmup: sweeps before the first run; a reduced run, which starts where the last one ended, has a quarter of it.
        replicates: independent repeats, at least 2.

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count below its least value, an improper prior.
    """
    if not isinstance(model, Conjugate):
        raise TypeError(f"chib needs full conditionals; {getattr(model, 'name', model)} offers only a guide")
    whole_numbers(draws=(draws, 1), warmup=(warmup, 0), replicates=(replicates, 2))
    model.require_proper()
    began, burn = time.perf_counter(), warmup // 4
    K = model.rank
    sweeps = warmup + draws + (2 * K - 1) * (burn + draws)
    with single_threaded(), bar(sweeps, f"chib, rank {K}", progress) as ticker:
        problem = Problem(model, X, Stream.of(seed, replicates=replicates), ticker.update)
        explored = explore(problem, warmup, draws)
        state, of_short = short_ordinate(problem, explored.state, explored.point, burn, draws)
        of_long = long_ordinate(problem, state, explored.point, burn, draws)
        joint = log_joint(model, X, explored.point, misfit(X, explored.point["W"], explored.point["H"]))
        estimates = joint - (explored.log_ordinate + of_short + of_long)
    warnings, rhat = _doubts(explored.lp)
    return Evidence.combine(
        estimates.tolist(),
        method="chib",
        rank=K,
        priors=priors_of(model),
        seconds=time.perf_counter() - began,
        warnings=warnings,
        attrs={"draws": draws, "warmup": warmup, "burn": burn, "seed": seed, "rhat": rhat},
    )


def explore(problem: Problem, warmup: int, draws: int) -> Explored:
    """The run over the posterior: θ*, and the ordinate of σ²."""
    model, X, stream = problem.model, problem.X, problem.stream
    state = gibbs.init(model, X, stream)
    for _ in range(warmup):
        state, _ = gibbs.step(model, state, X, stream)
        problem.tick()
    classes, mean, noise, lp = problem.classes, dict(state.params), [], []
    for n in range(1, draws + 1):
        state, info = gibbs.step(model, state, X, stream)
        aligned = ordered_like(mean, state.params, classes)
        mean = {site: value + (aligned[site] - value) / n for site, value in mean.items()}
        noise.append(model.conditional("sigma2", state.params, X))
        lp.append(info.lp)
        problem.tick()
    point = strongest_first(mean, classes)
    log_ordinate = torch.stack([conditional.log_prob(point["sigma2"].double()) for conditional in noise], -1)
    state = State(ordered_like(point, state.params, classes) | {"sigma2": point["sigma2"]}, state.sweep)
    return Explored(state, point, log_mean(log_ordinate), torch.stack(lp, 1))


def short_ordinate(problem: Problem, state: State, point: Params, burn: int, draws: int) -> tuple[State, Tensor]:
    """log p(short* | σ²*, X), shape (C,), component by component and averaged over labels; and a state at short*."""
    classes, rows = problem.classes, _rows_leading(problem.short, point)
    total = torch.zeros_like(point["sigma2"], dtype=torch.float64)
    for k in range(len(classes)):
        labels = [m for m in range(k, len(classes)) if classes[m] == classes[k]]
        densities = Densities(rows[..., None, :, k], lambda logs: logs.sum(-1))  # the same point for every label
        for n in range(burn + draws):
            state = reduced_step(problem, state, k)
            if n >= burn:
                densities.add(conditionals(problem, problem.short, state.params, labels))
            problem.tick()
        total = total + log_mean(densities.values().movedim(0, -1).flatten(1))  # over labels and draws
        state = State(pinned(problem, state.params, point, k, classes), state.sweep)
    return state, total


def long_ordinate(problem: Problem, state: State, point: Params, burn: int, draws: int) -> Tensor:
    """log p(long* | short*, σ²*, X), shape (C,): column by column, a row's the product over columns of its means."""
    site, K = problem.long, problem.model.rank
    told, prior = weighted(problem, site, point), problem.natural[site]
    F, at = _rows_leading(site, state.params).contiguous(), _rows_leading(site, point)
    kernels, sweep = kernels_for(F.device), state.sweep
    total = torch.zeros_like(at[..., 0], dtype=torch.float64)  # (C, R)
    for k in range(K - 1):
        densities = Densities(at[..., k], lambda logs: logs.logsumexp(0, keepdim=True))
        for n in range(burn + draws):
            F = kernels.half_sweep(F, told, prior, (problem.stream, sweep, Site[site]), first=k)
            sweep += 1
            if n >= burn:
                densities.add(column(k, F, told, prior))
            problem.tick()
        total = total + densities.values().logsumexp(0) - math.log(draws)
        F[..., k] = at[..., k]
    last = column(K - 1, at, told, prior).log_prob(at[..., K - 1].double())
    return (total + last).sum(-1)


def reduced_step(problem: Problem, state: State, first: int) -> State:
    """One sweep with σ² fixed and the short factor's components before `first` too; moves among the others only.

    A move along the ridge changes a component's column of W and row of H together, so both must be free.
    """
    stream, (params, sweep) = problem.stream, state
    W, H = factors_after_sweep(problem, params, sweep, first)
    kernels, K = kernels_for(W.device), problem.model.rank
    rate_W, rate_H = -problem.natural["W"][1], -problem.natural["H"][1].mT
    rates = (rate_W.expand(-1, K)[:, first:].contiguous(), rate_H.expand(K, -1)[first:].contiguous())
    moved = kernels.scale_move(W[..., first:], H[:, first:], rates, stream, sweep)
    moved = kernels.shear_move(*moved, rates, stream, sweep)
    W, H = torch.cat([W[..., :first], moved[0]], -1), torch.cat([H[:, :first], moved[1]], -2)
    return State({**params, "W": W, "H": H}, sweep + 1)


def factors_after_sweep(problem: Problem, params: Params, sweep: int, first: int) -> tuple[Tensor, Tensor]:
    """W and H after a sweep that leaves the short factor's components before `first`; all chains at once where small.

    The shape alone decides which way is taken, for the two may round differently.
    """
    X, stream, start = problem.X, problem.stream, {problem.short: first, problem.long: 0}
    if len(stream) * X.values.numel() > AT_ONCE:
        swept = sweep_factors(problem.model.prior, params, X, (stream, sweep), first=(start["W"], start["H"]))
        return swept.W, swept.H
    kernels = kernels_for(X.device)
    for site in ("W", "H"):
        F, told = _rows_leading(site, params), weighted(problem, site, params)
        F = kernels.half_sweep(F, told, problem.natural[site], (stream, sweep, Site[site]), first=start[site])
        params = {**params, site: F if site == "W" else F.mT.contiguous()}
    return params["W"], params["H"]


def pinned(problem: Problem, params: Params, point: Params, k: int, classes: list[int]) -> dict[str, Tensor]:
    """Components from k on in the order that is most like θ*'s, and then the short factor's k-th set to θ*'s."""
    params = ordered_like(point, params, classes, first=k)
    F = _rows_leading(problem.short, params).clone()
    F[..., k] = _rows_leading(problem.short, point)[..., k]
    return params | {problem.short: F if problem.short == "W" else F.mT.contiguous()}


class Densities:
    """Log densities at one point under many conditionals, evaluated some at a time, each lot reduced when it is full.

    Args:
        at: the point, broadcastable to a conditional's batch shape.
        reduce: of a lot's log densities (draws, *batch), what is kept; it leads with an axis, along which lots join.
    """

    def __init__(self, at: Tensor, reduce: Callable[[Tensor], Tensor]) -> None:
        self.at, self.reduce = at.double(), reduce
        self.waiting: list[RectifiedNormal] = []
        self.kept: list[Tensor] = []

    def add(self, conditional: RectifiedNormal) -> None:
        self.waiting.append(conditional)
        if len(self.waiting) * conditional.linear.numel() >= AT_ONCE:
            self._evaluate()

    def values(self) -> Tensor:
        if self.waiting:
            self._evaluate()
        return torch.cat(self.kept)

    def _evaluate(self) -> None:
        precision = torch.stack([conditional.precision for conditional in self.waiting])
        linear = torch.stack([conditional.linear for conditional in self.waiting])
        self.kept.append(self.reduce(RectifiedNormal(precision, linear, validate_args=False).log_prob(self.at)))
        self.waiting = []


def conditionals(problem: Problem, site: str, params: Params, components: list[int]) -> RectifiedNormal:
    """The conditionals of some components of a factor, each given everything else: batch shape (C, components, R)."""
    told, prior = weighted(problem, site, params), problem.natural[site]
    each = [column(m, _rows_leading(site, params), told, prior) for m in components]
    precision, linear = torch.stack([c.precision for c in each], 1), torch.stack([c.linear for c in each], 1)
    return RectifiedNormal(precision, linear, validate_args=False)


def weighted(problem: Problem, site: str, params: Params) -> Statistics:
    """What X and the other factor tell about a factor, over σ²."""
    X, every = problem.X, range(problem.X.shape[0])
    told = X.row_statistics(every, X.prepare(params["H"])) if site == "W" else X.column_statistics(every, params["W"])
    return told.weighted(1 / params["sigma2"])


def ordered_like(reference: Params, params: Params, classes: list[int], first: int = 0) -> dict[str, Tensor]:
    """The components from `first` on in the order that brings them nearest to the reference's, within their classes.

    Nearest by Σ_k ‖W_k H_k - W_k^ref H_k^ref‖², as in `ppnmf.align`; here each chain has a reference of its own.
    """
    W, H = params["W"][..., first:], params["H"][:, first:]
    likeness = (reference["W"][..., first:].mT @ W) * (reference["H"][:, first:] @ H.mT)  # (C, reference's, own)
    gains = likeness.double().cpu()
    own = torch.tensor(classes[first:])
    apart = own[:, None] != own  # a component may not take a place whose priors are others
    gains = gains - torch.where(apart, 2 * len(classes) * gains.amax((-2, -1), keepdim=True) + 1, 0.0)
    found = np.stack([linear_sum_assignment(gain, maximize=True)[1] for gain in gains.numpy()]) + first
    kept = np.broadcast_to(np.arange(first), (len(found), first))
    order = torch.from_numpy(np.concatenate([kept, found], 1))  # (C, K)
    return reordered(params, order)


def strongest_first(params: Params, classes: list[int]) -> dict[str, Tensor]:
    """The components by falling ‖W_k‖‖H_k‖ within their classes: those the data need, which hardly vary, are pinned first.

    Any order is right. This one leaves the superfluous components to the end, where their ordinates average over far
    fewer rare events: at one rank above the truth it took nats off both the error and the bias.
    """
    strength = (params["W"].norm(dim=-2) * params["H"].norm(dim=-1)).cpu()  # (C, K)
    order = torch.empty_like(strength, dtype=torch.int64)
    for one in set(classes):
        members = torch.tensor([m for m, its in enumerate(classes) if its == one])
        order[:, members] = members[strength[:, members].argsort(-1, descending=True)]
    return reordered(params, order)


def reordered(params: Params, order: Tensor) -> dict[str, Tensor]:
    """Component order[c, k] of chain c in place k."""
    W, H, order = params["W"], params["H"], order.to(params["W"].device)
    W, H = W.gather(2, order[:, None, :].expand_as(W)), H.gather(1, order[:, :, None].expand_as(H))
    return {**params, "W": W, "H": H}


def log_mean(logs: Tensor) -> Tensor:
    """Log of the mean over the last axis of what `logs` are the logs of."""
    return logs.logsumexp(-1) - math.log(logs.shape[-1])


def _rows_leading(site: str, params: Params) -> Tensor:
    """A factor with its rows leading: W (C, N, K), or Hᵀ (C, D, K)."""
    return params[site] if site == "W" else params[site].mT


def _doubts(lp: Tensor) -> tuple[tuple[str, ...], float | None]:
    """Why the estimate may be wrong, and R-hat of the log joint (None where there are too few draws to tell)."""
    if lp.shape[1] < 4:
        return ("too few draws to tell whether the chains agree",), None
    rhat = float(array_stats.rhat(lp.cpu().numpy(), chain_axis=0, draw_axis=1))
    if rhat <= AGREE:
        return (), rhat
    sentence = (
        f"the chains do not agree (R-hat of the log joint is {rhat:.3f}, above {AGREE}): take more warmup and draws"
    )
    return (sentence,), rhat
