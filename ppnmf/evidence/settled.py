"""Where the modes are: chains for methods that do not look for them.

Both begin at the best of a survey's starts, which are chosen by the log mass of their modes as their sweeps tell it
(`inference.mass`). That errs by some tens of nats, by more for a chain that is on its way, and it is too kind to high and narrow
modes where chains mix slowly: on faces at rank 10 one that a climb led to looked 114 nats heavier than one that Gibbs sweeps led
to, and weighs 143 less. So `weighed` makes two surveys, one of climbs and one of Gibbs sweeps alone, begins chains at the best of
each, and leaves those out that are lighter than all that; stepping stones give the masses of the modes of the others. (Draws some
sweeps apart tell less of what correlates entries: a mode 213 nats lighter by all sweeps looked 185 lighter.)
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from ppnmf.inference import gibbs
from ppnmf.inference.beginning import beginning
from ppnmf.inference.clock import Clock
from ppnmf.inference.mass import Seen
from ppnmf.inference.start import SURVEY
from ppnmf.inference.survey import LARGEST
from ppnmf.posterior import Posterior
from ppnmf.protocols import Matrix, Params, Stepping, Sweeping

__all__ = ["CHAINS", "finished", "settled", "weighed"]

CHAINS = 4
LOOKS, APART_BY = 50, 4  # draws of each chain, and the sweeps between them
STARTS, FEWEST, CHOSEN = 96, 24, 8  # of both surveys together at most and at least, and the chains of them
WORK = 2**29  # cells of X times components times starts, by which their number is chosen
LIGHT = 300.0  # nats below the heaviest chain's, as draws tell it, from which a mode's mass is nothing
AHEAD = 2000  # of seeds, so that the random numbers of one survey are not those of the other


def settled(model: Sweeping, X: Matrix, warmup: int, seed: int, progress: bool) -> Posterior:
    """Chains at the posterior, begun as `gibbs` begins them, with a few draws of each.

    Raises KeyboardInterrupt where Ctrl-C ended them.
    """
    return _drawn(model, X, {"draws": LOOKS, "thin": APART_BY, "warmup": warmup, "chains": CHAINS}, seed, progress)


def weighed(model: Stepping, X: Matrix, warmup: int, seed: int, progress: bool) -> Posterior:
    """The same for some chains in the heaviest modes that more starts lead to.

    Without a warm-up, or where so many starts have no room, it is `settled`.
    """
    size = sum(math.prod(dims.values()) for dims in model.sites(*X.shape).values())
    starts = min(STARTS, max(FEWEST, WORK // (math.prod(X.shape) * model.rank)), LARGEST // size)
    if warmup == 0 or starts <= CHOSEN:
        return settled(model, X, warmup, seed, progress)
    each = [_begun(model, X, starts // 2, climbs, seed, progress) for climbs in (True, False)]
    init: Params = {site: torch.cat([own[site] for own in each]) for site in each[0]}
    options = {"draws": LOOKS, "thin": APART_BY, "warmup": warmup // 2, "chains": CHOSEN, "init": init}
    post = _drawn(model, X, options, seed, progress)
    masses = Seen.of(post.draws, post.stats["lp"]).log_mass(model, X)
    return post.select(chains=torch.nonzero(masses >= masses.max() - LIGHT)[:, 0].tolist())


def _begun(model: Stepping, X: Matrix, starts: int, climbs: bool, seed: int, progress: bool) -> Params:
    """Half of the chains at the best of so many starts, those of Gibbs sweeps with other random numbers."""
    own = seed if climbs else seed + AHEAD
    begun = beginning(model, X, own, CHOSEN // 2, SURVEY, starts, None, climbs)
    params, _ = begun.without_record(Clock(X, time.perf_counter(), None), progress)
    assert params is not None
    return params


def _drawn(model: Sweeping, X: Matrix, options: dict[str, Any], seed: int, progress: bool) -> Posterior:
    return finished(gibbs.run(model, X, **options, seed=seed, progress=progress))  # type: ignore[arg-type]


def finished(post: Posterior) -> Posterior:
    """The posterior. Raises KeyboardInterrupt where Ctrl-C ended the run."""
    if post.attrs["interrupted"]:
        raise KeyboardInterrupt
    return post
