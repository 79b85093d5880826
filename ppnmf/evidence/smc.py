"""Log evidence by tempered sequential Monte Carlo (`ppnmf.inference.smc`, where the method is told).

Particles that come from the prior can end in a lesser mode: on the way there is then a phase transition, and few pass it. So
chains begun at the best of a survey's starts are looked at beside them. Where particles end far below the heaviest in log joint,
most of the mass was missed, and the figure is a lower bound in practice.
"""

from __future__ import annotations

import math
import time

import numpy as np
from scipy.special import logsumexp

from ppnmf.checks import whole_numbers
from ppnmf.evidence.estimate import Evidence, priors_of, why_failed
from ppnmf.evidence.sensitivity import to_noise
from ppnmf.evidence.settled import settled
from ppnmf.inference.mass import Seen
from ppnmf.inference.smc import Climb, climbs
from ppnmf.protocols import Matrix, Sweeping

__all__ = ["run"]

AGREE = 3.0  # standard errors between the two estimates of the same runs, above which there is a warning
AT_LEAST = 0.5  # nats that they may differ by in any case
BELOW = (
    3.0  # nats, over one standard deviation of the log joint, below the chain in the heaviest mode that are a warning
)


def run(
    model: Sweeping,
    X: Matrix,
    *,
    particles: int = 500,
    sweeps: int = 3,
    warmup: int = 500,
    replicates: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    """The log of the mean of the runs' estimates of p(X), with the jackknife's error.

    Each run's estimate of p(X) is unbiased, so the mean is too; its logarithm errs low where the runs differ much, which
    is so with few particles. `replicates` of the result are the runs' logs; attrs hold "integrals", what thermodynamic
    integration gives for each of them, and "below", how far the particles end below the chain in the heaviest mode in log joint.

    Args:
        model: offers full conditionals, with proper exponential priors.
        X: data (N, D).
        particles: of each run; the error falls as their square root.
        sweeps: of the Gibbs sampler at each temperature.
        warmup: sweeps of the chains that are looked at beside the particles, begun as `gibbs` begins them; 0 for no chains.
        replicates: runs, at least 2, after the one that finds the ladder.

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count below its least value, an improper prior.
    """
    whole_numbers(replicates=(replicates, 2), warmup=(warmup, 0))
    began = time.perf_counter()
    found = list(climbs(model, X, particles, replicates, sweeps, seed, progress))
    logs = np.array([one.log_evidence for one in found])
    integrals = np.array([one.integral for one in found])
    estimate, error = log_mean(logs), jackknife_error(logs)
    below, room = shortfall(model, X, found, warmup, seed, progress)
    greatest = max(float((one.lp - model.log_prior(one.params)).max()) for one in found)
    return Evidence(
        log_evidence=estimate,
        mcse=error,
        method="smc",
        rank=model.rank,
        replicates=tuple(logs.tolist()),
        priors=priors_of(model),
        seconds=time.perf_counter() - began,
        warnings=(*_doubts(estimate, error, integrals), *_missed(below, room)),
        failed=why_failed("smc", logs.tolist(), greatest),
        attrs={
            "particles": particles,
            "sweeps": sweeps,
            "warmup": warmup,
            "seed": seed,
            "below": below,
            "noise_scale": to_noise(model, max(found, key=lambda one: one.log_evidence).params),
            "integrals": integrals.tolist(),
            "greatest_log_likelihood": greatest,
            "temperatures": len(found[0].ladder),
            "least_effective": min(one.least_effective for one in found),
        },
    )


def shortfall(
    model: Sweeping, X: Matrix, found: list[Climb], warmup: int, seed: int, progress: bool
) -> tuple[float, float]:
    """How far the heaviest run's particles end below the chain in the heaviest mode in log joint; and how far is no warning."""
    if warmup == 0:
        return 0.0, math.inf
    post = settled(model, X, warmup, seed, progress)
    lp = post.stats["lp"].double()
    best = lp[Seen.of(post.draws, lp).log_mass(model, X).argmax()]
    heaviest = max(found, key=lambda one: one.log_evidence)
    return float(best.mean() - heaviest.lp.mean()), BELOW + float(best.std())


def log_mean(logs: np.ndarray) -> float:
    """Log of the mean of what `logs` are the logs of.

    >>> round(math.exp(log_mean(np.log([1.0, 3.0]))), 12)
    2.0
    """
    return float(logsumexp(logs)) - math.log(len(logs))


def jackknife_error(logs: np.ndarray) -> float:
    """The jackknife's standard error of `log_mean`; where one run alone found anything, what its mean errs by, relatively.

    >>> round(jackknife_error(np.array([-1.0, -1.2, -0.9])), 3), jackknife_error(np.array([-math.inf, -7.0, -math.inf]))
    (0.085, 1.0)
    """
    if np.isfinite(logs).sum() == 1:
        return 1.0
    without = np.array([log_mean(np.delete(logs, r)) for r in range(len(logs))])
    return math.sqrt((len(logs) - 1) / len(logs) * float(np.square(without - without.mean()).sum()))


def _doubts(estimate: float, error: float, integrals: np.ndarray) -> tuple[str, ...]:
    integral = float(integrals.mean())
    of_integral = float(integrals.std(ddof=1)) / math.sqrt(len(integrals))
    apart = abs(integral - estimate)
    if apart <= max(AT_LEAST, AGREE * math.hypot(error, of_integral)):
        return ()
    return (
        f"thermodynamic integration over the same runs gives {integral:.2f} ± {of_integral:.2g}, {apart:.2f} nats away: "
        "take more particles or sweeps",
    )


def _missed(below: float, room: float) -> tuple[str, ...]:
    if below <= room:
        return ()
    return (
        f"the particles end {below:.1f} nats below chains begun at the best of a survey's starts, in log joint: they missed a "
        "mode, and the figure is in practice a lower bound; try method='stepping_stone'",
    )
