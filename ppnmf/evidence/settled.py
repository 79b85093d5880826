"""Where the modes are: chains for methods that do not look for them.

Both begin at the best of a survey's starts, which are chosen by the log mass of their modes as their sweeps tell it
(`inference.mass`). That errs by some tens of nats, and by more for a chain that is on its way: so `weighed` has more starts, and
keeps every chain of the last round that is not lighter than all that; stepping stones give the masses of their modes.
"""

from __future__ import annotations

import math
import time
from typing import Any

from ppnmf.inference import gibbs
from ppnmf.inference.beginning import beginning
from ppnmf.inference.clock import Clock
from ppnmf.inference.start import SURVEY
from ppnmf.inference.survey import LARGEST
from ppnmf.posterior import Posterior
from ppnmf.protocols import Matrix, Params, Stepping, Sweeping

__all__ = ["CHAINS", "finished", "settled", "weighed"]

CHAINS = 4
LOOKS, APART_BY = 50, 4  # draws of each chain, and the sweeps between them
STARTS, FEWEST, CHOSEN = 96, 24, 8  # of a survey at most and at least, and the chains of them
WORK = 2**29  # cells of X times components times starts, by which their number is chosen
LIGHT = 200.0  # nats below the heaviest chain's, as sweeps tell it, from which a mode's mass is nothing


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
    begun = beginning(model, X, seed, CHOSEN, SURVEY, starts, None)
    params, found = begun.without_record(Clock(X, time.perf_counter(), None), progress)
    assert params is not None
    below = [found["survey"]["below"][start] for start in found["survey"]["chosen"]]
    heavy = [chain for chain, by in enumerate(below) if by <= LIGHT]
    init: Params = {site: values[heavy] for site, values in params.items()}
    options = {"draws": LOOKS, "thin": APART_BY, "warmup": warmup // 2, "chains": len(heavy), "init": init}
    return _drawn(model, X, options, seed, progress)


def _drawn(model: Sweeping, X: Matrix, options: dict[str, Any], seed: int, progress: bool) -> Posterior:
    return finished(gibbs.run(model, X, **options, seed=seed, progress=progress))  # type: ignore[arg-type]


def finished(post: Posterior) -> Posterior:
    """The posterior. Raises KeyboardInterrupt where Ctrl-C ended the run."""
    if post.attrs["interrupted"]:
        raise KeyboardInterrupt
    return post
