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

**Modes.** Replicates begin at the best of a survey's starts, and stay in the mode they begin in; what each estimates is that
mode's mass. So the estimates of one mode are averaged, and log p(X) is the log of the sum over distinct modes
(`evidence.distinct`): a replicate in a lesser mode lowers nothing. A mode that counts and has one replicate is given more.

References: Chib (1995), doi:10.1080/01621459.1995.10476635. Labels: Frühwirth-Schnatter (2004),
doi:10.1111/j.1368-423X.2004.00125.x; Marin and Robert (2008), arXiv:0804.2414. Bridge: Bennett (1976),
doi:10.1016/0021-9991(76)90078-4; Meng and Wong (1996); Mira and Nicholls (2004).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf import memory
from ppnmf.checks import whole_numbers, yes_or_no
from ppnmf.evidence.chib.found import Found
from ppnmf.evidence.chib.runs import Problem, explore
from ppnmf.evidence.chib.stages import long_ordinate, short_stages
from ppnmf.evidence.distinct import distinct
from ppnmf.evidence.estimate import HEAVY, Evidence, priors_of, why_failed
from ppnmf.evidence.sensitivity import to_noise
from ppnmf.inference import gibbs
from ppnmf.inference.beginning import beginning
from ppnmf.inference.clock import Clock
from ppnmf.inference.room import require_room
from ppnmf.inference.start import SCALED, Start
from ppnmf.posterior import Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Blocked, Matrix, require_ability
from ppnmf.rng import Stream
from ppnmf.threads import single_threaded

__all__ = ["run"]

MORE = 2  # replicates that a mode is given which counts and has one


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
    init: Start = "survey",
    survey: int | None = None,
    progress: bool = True,
) -> Evidence:
    """Chib's estimate, from `replicates` independent chains with a θ* of their own; the module's text derives it.

    `modes` of the result are the distinct modes that the replicates are in. attrs hold "forward" and "reverse", the evidence
    by either end of the bracket; "gap", how far apart they are, summed over the stages; and "stages", each stage's own gap;
    all of the replicates in modes that count.

    Args:
        model: offers full conditionals (`protocols.Blocked`), with proper priors.
        X: data (N, D).
        draws: of each reduced run, 2 K + 1 of them; the error falls as its square root.
        thin: sweeps from one draw to the next. They cost less than what is worked out at a draw, and above the data's rank
            a run must have the time to go from one way of sharing the data among the components to another.
        warmup: sweeps before the first run; a reduced run, which starts where the last one ended, has a quarter of it.
        bridge: take the bridge; else the plain average of Chib (1995), some nats too high above the data's rank.
        replicates: independent repeats, at least 2.
        init: where they start, as in `gibbs.run`: at the best of a survey's starts, or what
            `ppnmf.inference.start.start` takes. At draws of one mode the estimate is that mode's mass.
        survey: how many starts are surveyed, as in `gibbs.run`.

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
    began = time.perf_counter()
    length = Length(draws, thin, warmup, bridge)
    begun = beginning(model, X, seed, replicates, init, survey, warmup)
    start, facts = begun.without_record(Clock(X, began, None), progress)
    stream = Stream.of(seed, replicates=replicates)
    found, watched = estimated(model, X, length, stream, SCALED if start is None else start, progress)
    groups = distinct(watched)
    each = [found.some(group) for group in groups]
    for lone in _lone(each)[: replicates // 2]:
        stream = Stream.of(seed, replicates=range(replicates, replicates := replicates + MORE))
        there = {site: values[groups[lone][0]] for site, values in watched.draws.items()}
        each[lone] = each[lone].beside(estimated(model, X, length, stream, _spread(there, MORE), progress)[0])
    heaviest = max(range(len(each)), key=lambda g: float(each[g].estimates.mean()))
    there = {site: values[list(groups[heaviest])].flatten(0, 1) for site, values in watched.draws.items()}
    facts |= {"seed": seed, "noise_scale": to_noise(model, there)}
    return _evidence(model, each, length, facts, time.perf_counter() - began)


class Length(NamedTuple):
    """How long the runs are, and what is made of them; the arguments of `run`."""

    draws: int
    thin: int
    warmup: int
    bridge: bool

    @property
    def burn(self) -> int:
        """Sweeps before a reduced run."""
        return self.warmup // 4

    def sweeps(self, K: int) -> int:
        """Of each replicate, at rank K."""
        run = self.draws * self.thin
        return self.warmup + run + (K + 1) * (self.burn + run) + (K - 1) * (self.burn + self.draws)


def estimated(
    model: Blocked, X: Matrix, length: Length, stream: Stream, init: Start, progress: bool
) -> tuple[Found, Posterior]:
    """What the replicates find, a key of the stream each, and some of their draws of the posterior."""
    K, (draws, thin, warmup, bridge) = model.rank, length
    with single_threaded(), bar(length.sweeps(K), f"chib, rank {K}", progress) as ticker:
        problem = Problem(model, X, stream, ticker.update, thin)
        explored = explore(problem, warmup, draws, init)
        state, point, stages = short_stages(problem, explored, length.burn, draws)
        of_long = long_ordinate(problem, state, point, length.burn, draws)
        joint = gibbs.log_joint(model, X, point)
    return Found.of(joint - of_long, stages, explored, bridge), explored.watched


def _lone(each: list[Found]) -> list[int]:
    """The modes that count and have one replicate, the heaviest first."""
    levels = [float(one.estimates.mean()) for one in each]
    order = sorted(range(len(each)), key=lambda mode: -levels[mode])
    return [mode for mode in order if len(each[mode].estimates) == 1 and not levels[mode] < max(levels) - HEAVY]


def _spread(draws: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """n of a chain's draws (S, *site), spread evenly."""
    return {site: values[torch.linspace(0, len(values) - 1, n).long()] for site, values in draws.items()}


def _evidence(model: Blocked, each: list[Found], length: Length, facts: dict[str, Any], seconds: float) -> Evidence:
    """Over the modes, with what speaks against those that count."""
    several = [one.estimates.numpy(force=True) for one in each if len(one.estimates) > 1]
    free = sum(len(own) - 1 for own in several)
    pooled = math.sqrt(sum(float(np.square(own - own.mean()).sum()) for own in several) / free) if free else math.nan
    modes = [one.mode(pooled) for one in each]
    top = max(mode.log_evidence for mode in modes)
    counted = [one for one, mode in zip(each, modes, strict=True) if not mode.log_evidence < top - HEAVY]
    best = max(counted, key=lambda one: float(one.estimates.mean()))
    greatest = max(float(one.greatest.max()) for one in each)
    gap = max(sum(one.stage_gaps) for one in counted)
    why = [why_failed("chib", one.estimates.tolist(), greatest, max(one.stage_gaps)) for one in counted]
    return Evidence.over(
        modes,
        method="chib",
        rank=model.rank,
        priors=priors_of(model),
        seconds=seconds,
        warnings=tuple(dict.fromkeys(doubt for one in counted for doubt in one.doubts())),
        gap=gap,
        failed=next(filter(None, why), ""),
        attrs={
            "draws": length.draws,
            "thin": length.thin,
            "warmup": length.warmup,
            "burn": length.burn,
            "rhat": best.rhat,
            "bridge": length.bridge,
            "greatest_log_likelihood": greatest,
            "forward": float(best.forward.mean()),
            "reverse": float(best.reverse.mean()),
            "stages": best.stage_gaps,
            **facts,
        },
    )
