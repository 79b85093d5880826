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

import time

import torch
from arviz_stats.base import array_stats
from torch import Tensor

from ppnmf import memory
from ppnmf.checks import whole_numbers, yes_or_no
from ppnmf.evidence.chib.runs import Problem, explore
from ppnmf.evidence.chib.stages import long_ordinate, short_stages
from ppnmf.evidence.estimate import Evidence, priors_of, why_failed
from ppnmf.inference import gibbs
from ppnmf.inference.room import require_room
from ppnmf.inference.start import Start
from ppnmf.progress import bar
from ppnmf.protocols import Blocked, Matrix, require_ability
from ppnmf.rng import Stream
from ppnmf.threads import single_threaded

__all__ = ["run"]

WIDE, WIDE_SUM = 3.0, 10.0  # nats between the ends of the bracket, of a stage and in all, that are a warning
FEW = 50  # draws that an average must at least be worth
AGREE = 1.01  # R-hat of the log joint over the replicates above which they do not agree


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
