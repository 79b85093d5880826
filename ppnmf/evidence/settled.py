"""Chains that begin at the best of a survey's starts: where the modes are, for methods that do not look for them."""

from __future__ import annotations

import time
from typing import Any

from ppnmf.inference import gibbs
from ppnmf.inference.beginning import beginning
from ppnmf.inference.clock import Clock
from ppnmf.inference.start import SCALED, SURVEY
from ppnmf.posterior import Posterior
from ppnmf.protocols import Matrix, Sweeping

__all__ = ["CHAINS", "finished", "settled"]

CHAINS = 4
SURVEYED = 12  # times the warm-up, for which the survey is as long: modes of their own weigh more than draws that are better
LOOKS, APART_BY = 50, 4  # draws of each chain, and the sweeps between them


def settled(model: Sweeping, X: Matrix, warmup: int, seed: int, progress: bool) -> Posterior:
    """Chains at the posterior with a few draws of each, begun at the best of a survey.

    Raises KeyboardInterrupt where Ctrl-C ended them.
    """
    begun = beginning(model, X, seed, CHAINS, SURVEY, None, SURVEYED * warmup)
    where, _ = begun.without_record(Clock(X, time.perf_counter(), None), progress)
    options: dict[str, Any] = {"draws": LOOKS, "thin": APART_BY, "warmup": warmup, "chains": CHAINS}
    options["init"] = SCALED if where is None else where
    return finished(gibbs.run(model, X, **options, seed=seed, progress=progress))  # type: ignore[arg-type]


def finished(post: Posterior) -> Posterior:
    """The posterior. Raises KeyboardInterrupt where Ctrl-C ended the run."""
    if post.attrs["interrupted"]:
        raise KeyboardInterrupt
    return post
