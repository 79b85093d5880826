"""Chains that begin at the best of a survey's starts: where the modes are, for methods that do not look for them."""

from __future__ import annotations

from typing import Any

from ppnmf.inference import gibbs
from ppnmf.posterior import Posterior
from ppnmf.protocols import Matrix, Sweeping

__all__ = ["CHAINS", "finished", "settled"]

CHAINS = 4
LOOKS, APART_BY = 50, 4  # draws of each chain, and the sweeps between them


def settled(model: Sweeping, X: Matrix, warmup: int, seed: int, progress: bool) -> Posterior:
    """Chains at the posterior, begun as `gibbs` begins them, with a few draws of each.

    Raises KeyboardInterrupt where Ctrl-C ended them.
    """
    options: dict[str, Any] = {"draws": LOOKS, "thin": APART_BY, "warmup": warmup, "chains": CHAINS}
    return finished(gibbs.run(model, X, **options, seed=seed, progress=progress))  # type: ignore[arg-type]


def finished(post: Posterior) -> Posterior:
    """The posterior. Raises KeyboardInterrupt where Ctrl-C ended the run."""
    if post.attrs["interrupted"]:
        raise KeyboardInterrupt
    return post
