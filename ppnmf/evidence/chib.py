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
with one order, and no log K! is added. Without it, a chain that stays is low by log K!. Components whose priors differ
are not exchangeable, and the chain itself must go through the orders in which they share the data: there it also proposes to
exchange two of them, which leaves the likelihood as it is.

θ* is the mean of the draws put in one order, strongest component first; it is never rescaled, for the priors have a
scale.

**Scale.** W_k H_k stays where W_k grows and H_k shrinks, and along that line the posterior is many times wider than the
density of H_k given W_k. So in 2 the density is the one given W_k's direction alone, its length integrated out
(`kernels.scaled`): as good a conditional density for Chib's identity, and far steadier over the draws.

**Bridge.** Let r be the density of block k at θ*_k given the rest, A the draws of its stage, and B those of the next one,
where the block stays at θ*_k. The distribution of the rest in B is that in A times r / p*, p* the ordinate, so

.. math:: p^* = \operatorname{mean}_A \frac{r}{n_A + n_B r / p^*} \bigg/ \operatorname{mean}_B \frac{1}{n_A + n_B r / p^*},

n_A counting draws times labels: Bennett's estimate with its best weights, solved by iteration. The draws of the next stage
are there anyway. Where a component is superfluous, r is great at few draws of A, and the plain mean misses them.

**Bracket.** log mean_A r, the forward one, errs to a small ordinate and so to high evidence; the reverse one,
-log mean_B(1/r) - log(number of labels), to low, in expectation and where labels do not mix. A wide bracket is a warning.

References: Chib (1995), doi:10.1080/01621459.1995.10476635. Labels: Frühwirth-Schnatter (2004),
doi:10.1111/j.1368-423X.2004.00125.x; Marin and Robert (2008), arXiv:0804.2414. Bridge: Bennett (1976),
doi:10.1016/0021-9991(76)90078-4; Meng and Wong (1996); Mira and Nicholls (2004).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import torch
from arviz_stats.base import array_stats
from torch import Tensor
from torch.nn.functional import softplus

from ppnmf import memory
from ppnmf.checks import whole_numbers, yes_or_no
from ppnmf.evidence.estimate import Evidence, priors_of, why_failed
from ppnmf.evidence.orders import ordered_like, reordered, strongest_first
from ppnmf.inference import gibbs
from ppnmf.inference.gibbs import State
from ppnmf.inference.room import require_room
from ppnmf.inference.start import Start
from ppnmf.progress import bar
from ppnmf.protocols import Address, Blocked, Held, Matrix, Params, Reduced, Sweeps, require_ability
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["run"]

AT_ONCE = 2**20  # densities that are evaluated together
ITERATIONS = 200  # of the bridge; it takes a dozen
FACTORS = ("W", "H")
FAR = 40.0  # nats
WIDE, WIDE_SUM = 3.0, 10.0  # nats between the ends of the bracket, of a stage and in all, that are a warning
EXCHANGE = 8  # sweeps from one proposal to exchange components whose priors differ to the next
FEW = 50  # draws that an average must at least be worth
AGREE = 1.01  # R-hat of the log joint over the replicates above which they do not agree


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
    def classes(self) -> list[int]:
        """For each component the first one with its priors in W and in H: the posterior is symmetric among equals."""
        return self.model.classes()


class Explored(NamedTuple):
    """What the run over the posterior leaves."""

    state: State
    point: Params  # θ*: W (C, N, K), H (C, K, D), sigma2 (C,)
    densities: Tensor  # of σ²*, or whatever is no factor, given the draws, (C, draws)
    lp: Tensor  # (C, draws)
    greatest: float  # log likelihood of a draw


def run(
    model: Blocked,
    X: Matrix,
    *,
    draws: int = 1000,
    thin: int = 4,
    warmup: int = 1000,
    bridge: bool = True,
    replicates: int = 8,
    seed: int = 0,
    init: Start = "scaled",
    progress: bool = True,
) -> Evidence:
    """Chib's estimate, from `replicates` independent chains with a θ* of their own; the module's text derives it.

    attrs hold "forward" and "reverse", the evidence by either end of the bracket; "gap", how far apart they are, summed
    over the stages; and "stages", each stage's own gap.

    Args:
        model: offers full conditionals (`protocols.Blocked`), with proper priors.
        X: data (N, D).
        draws: of each reduced run, 2 K + 1 of them; the error falls as its square root.
        thin: sweeps from one draw to the next. They cost less than what is worked out at a draw, and above the data's rank
            a run must have the time to go from one way of sharing the data among the components to another.
        warmup: sweeps before the first run; a reduced run, which starts where the last one ended, has a quarter of it.
        bridge: take the bridge; else the plain average of Chib (1995), some nats too high above the data's rank.
        replicates: independent repeats, at least 2.
        init: where they start, as chains do (`ppnmf.inference.start.start`): at draws of one mode it is that mode's mass.

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count below its least value, an improper prior.
    """
    require_ability("chib", model, Blocked)
    whole_numbers(draws=(draws, 1), thin=(thin, 1), warmup=(warmup, 0), replicates=(replicates, 2))
    yes_or_no(bridge=bridge)
    model.require_proper()
    require_room(model, X, replicates, 1)
    densities = draws * replicates * (2 * model.rank + 1)
    memory.require(densities, torch.float64, X.device, f"The densities at {draws} draws", "take fewer draws")
    began, burn = time.perf_counter(), warmup // 4
    K = model.rank
    sweeps = warmup + draws * thin + (K + 1) * (burn + draws * thin) + (K - 1) * (burn + draws)
    with single_threaded(), bar(sweeps, f"chib, rank {K}", progress) as ticker:
        problem = Problem(model, X, Stream.of(seed, replicates=replicates), ticker.update, thin)
        explored = explore(problem, warmup, draws, init)
        state, stages = short_stages(problem, explored, burn, draws)
        of_long = long_ordinate(problem, state, explored.point, burn, draws)
        joint = gibbs.log_joint(model, X, explored.point)
    rest = joint - of_long
    forward, reverse = (rest - sum(values) for values in ([s.forward for s in stages], [s.reverse for s in stages]))
    estimates = rest - sum(stage.bridge for stage in stages) if bridge else forward
    gaps = [float((stage.forward - stage.reverse).abs().mean()) for stage in stages]
    warnings, rhat = _doubts(explored.lp)
    return Evidence.combine(
        estimates.tolist(),
        method="chib",
        rank=K,
        priors=priors_of(model),
        seconds=time.perf_counter() - began,
        warnings=(*warnings, *_bracket_doubts(gaps, [stage.effective for stage in stages])),
        gap=sum(gaps),
        failed=why_failed("chib", estimates.tolist(), explored.greatest, sum(gaps)),
        attrs={
            "draws": draws,
            "thin": thin,
            "warmup": warmup,
            "burn": burn,
            "seed": seed,
            "rhat": rhat,
            "bridge": bridge,
            "greatest_log_likelihood": explored.greatest,
            "forward": float(forward.mean()),
            "reverse": float(reverse.mean()),
            "stages": gaps,
        },
    )


def explore(problem: Problem, warmup: int, draws: int, init: Start = "scaled") -> Explored:
    """The run over the posterior: θ*, and the densities of σ²."""
    model, X = problem.model, problem.X
    start = gibbs.init(model, X, problem.stream, init)
    classes, mean, noise, lps, seen = problem.classes, dict(start.params), [], [], 0
    state, greatest = start, -math.inf
    for reached, kept, lp in sampled(problem, start, warmup, draws, 0, noise=True):
        state = reached
        for n in range(lp.shape[1]):
            seen += 1
            params = {site: values[:, n] for site, values in kept.items()}
            aligned = ordered_like(mean, params, [0] * len(classes)) if seen > 1 else params
            mean = {site: value + (aligned[site] - value) / seen for site, value in mean.items()}
        noise.append(model.log_density_of_others(kept, X))
        lps.append(lp)
        log_priors = model.log_prior({site: values.flatten(0, 1) for site, values in kept.items()})
        greatest = max(greatest, float((lp.flatten() - log_priors).max()))
    point = strongest_first(mean, classes)
    densities = torch.cat([log_density(point) for log_density in noise], -1)
    others = {site: values for site, values in point.items() if site not in FACTORS}
    state = State(ordered_like(point, state.params, classes) | others, state.sweep)
    return Explored(state, point, densities, torch.cat(lps, 1), greatest)


@dataclass(frozen=True, eq=False)
class Stage:
    """What is known of one block's ordinate.

    Args:
        before: log densities at the block's point given draws of its own stage, (C, draws × labels).
        after: the same given draws of the next stage, where the block stays at its point, (C, draws).
        labels: how many components may play the block's part.
    """

    before: Tensor
    after: Tensor
    labels: int = 1

    @cached_property
    def forward(self) -> Tensor:
        """Log mean over the block's own stage, (C,)."""
        return log_mean(self.before)

    @cached_property
    def reverse(self) -> Tensor:
        """Minus the log mean of the inverse over the next stage, less the labels', (C,)."""
        return -log_mean(-self.after) - math.log(self.labels)

    @cached_property
    def bridge(self) -> Tensor:
        """The bridge's log ordinate, (C,): where the shares of the next stage at A and of this one at B are as many.

        Their difference falls in p, so Newton's steps are kept between what is known to lie below and above.
        """
        odds = math.log(self.after.shape[1] / self.before.shape[1])
        low = torch.minimum(self.before.amin(1), self.after.amin(1)) + odds - FAR
        high = torch.maximum(self.before.amax(1), self.after.amax(1)) + odds + FAR
        p = self.forward
        for _ in range(ITERATIONS):
            here, there = torch.sigmoid(odds + self.before - p[:, None]), torch.sigmoid(p[:, None] - odds - self.after)
            excess = here.sum(1) - there.sum(1)
            low, high = torch.where(excess > 0, p, low), torch.where(excess > 0, high, p)
            moved = p + excess / ((here * (1 - here)).sum(1) + (there * (1 - there)).sum(1))
            moved = torch.where((moved > low) & (moved < high), moved, (low + high) / 2)
            if bool(((moved - p).abs() <= 1e-9 * moved.abs().clamp(min=1)).all()):
                break
            p = moved
        return moved

    @cached_property
    def effective(self) -> float:
        """How many equally weighted draws the bridge's means are worth, the least of both and over the chains."""
        log_a, log_b = (math.log(r.shape[1]) for r in (self.before, self.after))
        at_a, at_b = (softplus(log_b - log_a + r - self.bridge[:, None]) for r in (self.before, self.after))
        worth = ((2 * logs.logsumexp(1) - (2 * logs).logsumexp(1)).exp().min() for logs in (self.before - at_a, -at_b))
        return float(min(worth))


def short_stages(problem: Problem, explored: Explored, burn: int, draws: int) -> tuple[State, list[Stage]]:
    """σ² and the shorter factor's components: each a stage, whose next run holds it; and a state at the factor's point."""
    state, point, classes, stages = explored.state, explored.point, problem.classes, []
    before, labels = explored.densities, [0]  # of the block that the run at hand is the first to hold
    K = problem.model.rank
    for k in range(K + 1):
        free, own, after = [m for m in range(k, K) if classes[m] == classes[k]] if k < K else [], [], []
        likely = None
        for reached, kept, _ in sampled(problem, state, burn, draws, k):
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
    return state, stages


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
    alike = len(set(problem.classes)) == 1
    for lot in lots(burn + draws * problem.thin, problem.at_once * problem.thin if alike else EXCHANGE):
        state = state if alike else exchanged(problem, state, held)
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


def _bracket_doubts(gaps: list[float], effective: list[float]) -> tuple[str, ...]:
    """Sentences about stages whose bracket is wide, or whose average hangs on few draws."""
    doubts = []
    widest = max(gaps)
    if widest > WIDE or sum(gaps) > WIDE_SUM:
        stage = gaps.index(widest)
        what = "of the noise" if stage == 0 else f"of component {stage} of {len(gaps) - 1}"
        doubts.append(
            f"forward and reverse ordinates lie {sum(gaps):.1f} nats apart in all, {widest:.1f} at the stage {what} "
            f"(limits {WIDE_SUM:g} and {WIDE:g}): take more draws"
        )
    if min(effective) < FEW:
        doubts.append(f"an ordinate hangs on {min(effective):.0f} draws (limit {FEW}): take more draws")
    return tuple(doubts)
