"""Where chains start: what `init=` may be, checked and handed to the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppnmf.checks import borrowed, described
from ppnmf.data.containers import opened
from ppnmf.data.labelled import Labelled, names_of, places_among, taken
from ppnmf.posterior import Posterior
from ppnmf.protocols import Matrix, Sweeping
from ppnmf.rng import Stream

__all__ = ["SCALED", "Start", "in_order", "is_survey", "start"]

SURVEY = "survey"  # the start that a method makes itself (`inference.survey`)
SCALED = "scaled"  # the one of each climb of a survey, and where there is none
Start = str | Mapping[str, Any] | Posterior
FACTORS = ("W", "H")


def is_survey(init: Start) -> bool:
    """Whether chains shall begin at the best of many starts."""
    return isinstance(init, str) and init == SURVEY


def start(
    model: Sweeping, X: Matrix, stream: Stream, init: Start = "scaled", chains: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Starting values (C, *site) of every site, one chain a key of the stream.

    Args:
        init: a start by its name, which the model knows; a dict of arrays of the sites' shapes or with a leading chain axis,
            where sites other than the factors may be left out; or a Posterior, whose last draws are taken, chain by chain.
        chains: the numbers of these chains among those of the run, by which values given per chain are taken (in turn,
            where there are fewer of them); 0, 1, 2 ... by default.

    Raises:
        ValueError: an unknown name, or values of the wrong shape, or negative or not finite ones.
    """
    numbers = list(range(len(stream))) if chains is None else list(chains)
    if isinstance(init, Posterior):
        init = {site: _last(site, init) for site in model.sites(*X.shape)}
    if isinstance(init, Mapping):
        return model.begin(X, stream, _given(model, X, numbers, init))
    if not isinstance(init, str):
        raise ValueError(f"init is {described(init)}; give a start's name, a dict with W and H, or a Posterior")
    return model.begin(X, stream, init)


def _given(model: Sweeping, X: Matrix, chains: list[int], values: Mapping[str, Any]) -> dict[str, Tensor]:
    sites = model.sites(len(X.rows), X.shape[1])
    unknown, absent = set(values) - set(sites), set(FACTORS) - set(values)
    if unknown or absent:
        others = ", ".join(site for site in sites if site not in FACTORS)
        raise ValueError(f"init has {sorted(map(str, values))}; it needs W and H, and may have {others}")
    params = {}
    for site, value in values.items():
        found = in_order(f"init's {site}", site, opened(f"init's {site}", value), X)
        given = torch.as_tensor(borrowed(f"init's {site}", found), dtype=X.dtype, device=X.device)
        wanted = tuple(sites[site].values())
        if given.shape == wanted:
            given = given[None]
        if given.shape[1:] != wanted or len(given) == 0:
            raise ValueError(
                f"init's {site} has shape {tuple(given.shape)}; give {wanted}, or a leading axis with a value a chain"
            )
        least, greatest = map(float, given.aminmax())  # both NaN where an entry is
        positive = least > 0 if len(wanted) < 2 else least >= 0
        if not positive or math.isinf(greatest):
            raise ValueError(f"init's {site} has entries that are negative, zero where it must not be, or not finite")
        params[site] = given[torch.tensor(chains) % len(given)]
    return params


def _last(site: str, post: Posterior) -> Labelled:
    """The last draw of every chain, W's rows and H's columns by the posterior's names."""
    rows, columns = (post.names.get(what) if site == own else None for own, what in (("W", "rows"), ("H", "columns")))
    return Labelled.of(post._kept(site)[:, -1], rows, columns)


def in_order(name: str, site: str, given: Labelled, X: Matrix) -> Any:
    """W with its rows, H with its columns, in the order of X's, by their names; `name` is for the sentence."""
    if site not in FACTORS:
        return given.values
    axis = FACTORS.index(site)
    places = places_among(
        (given.rows, given.columns)[axis],
        names_of(X)[axis],
        (len(X.rows), X.shape[1])[axis],
        f"{name} is not named as X is",
        "give each of X's names once, in any order",
    )
    return given.values if places is None else taken(given.values, axis - 2, places)
