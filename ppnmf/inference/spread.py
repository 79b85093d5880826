"""A method run by several processes, each on its own rows of X (`ppnmf.data.sharded`)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ppnmf.data.sharded import Sharded, own_rows
from ppnmf.posterior import Posterior
from ppnmf.protocols import Model

__all__ = ["run_spread", "said_once"]

METHODS = ("gibbs", "icm", "svi")


def run_spread(
    method: str, run: Callable[..., Posterior], model: Model, X: Sharded, progress: bool, **options: Any
) -> Posterior:
    """This rank's part of what all ranks find: its rows of W and X, and H, σ² and lp of the whole.

    Only rank 0 shows a bar and warns. `attrs` say which rows these are, of how many.

    Raises:
        TypeError: the method needs all of X in one place.
    """
    if method not in METHODS:
        raise TypeError(f"{method} needs all rows of X in one process; {', '.join(METHODS)} take rows that are spread")
    with X.ranks.interrupted_together(), said_once(X):
        post = run(own_rows(model, X.rows), X, progress=progress and X.rank == 0, **options)
    _warn_unless_equal(X, post)
    where = {"rank": X.rank, "ranks": X.ranks.count, "rows": [X.rows.start, X.rows.stop], "shape": list(X.shape)}
    return replace(post, X=X.local, attrs={**post.attrs, **where})


@contextmanager
def said_once(X: Any) -> Iterator[None]:
    """Inside, of several processes that share X rank 0 alone warns: what is to be said is said of the whole."""
    if not (isinstance(X, Sharded) and X.rank > 0):
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _warn_unless_equal(X: Sharded, post: Posterior) -> None:
    """What all ranks share was worked out by each of them, which gives the same bits on machines of one kind."""
    own = {"row"}  # what each rank has of its own
    sites = post.model.sites(*X.shape)
    shared = [values for site, values in post.draws.items() if not own & set(sites[site])] + [post.stats["lp"]]
    sums = torch.stack([values.double().sum() for values in shared])
    differ = bool((X.ranks.gathered(sums) != sums).any())
    if differ and X.rank == 0:
        warnings.warn(
            "the ranks do not hold the same H and sigma2: their machines round differently (another processor, or "
            "other versions of libraries); run all of them on machines of one kind",
            stacklevel=4,
        )
