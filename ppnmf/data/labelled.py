"""The names of a matrix's rows and columns: what a container says of them, and how one is matched with another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "AXES",
    "NO_NAMES",
    "Labelled",
    "Labels",
    "Names",
    "beside",
    "listed",
    "names_of",
    "noise_beside",
    "order",
    "places_among",
    "taken",
]

SHOWN = 3  # names in a sentence
AXES = ("rows", "columns")

# A range is the container's own count of its rows or columns: it can be matched with another one, but names nothing.
Labels = range | tuple[str, ...]


class Names(NamedTuple):
    """The names of X's rows (N of them) and columns (D), or None where they have none."""

    rows: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, list[str]]:
        """Those there are, as `Posterior.names` holds them."""
        return {axis: list(names) for axis, names in self._asdict().items() if names is not None}


NO_NAMES = Names()


class Labelled(NamedTuple):
    """What a container holds: an array of any kind, and the labels of its rows and columns.

    Args:
        values: what `ppnmf.as_matrix` takes without asking for names, (N, D); of a series (N,).
        rows, columns: labels, or None where the container has none. A series has rows only.
        dims: xarray's names of the axes, or None.
        mask: the container's own, boolean (N, D), True where observed, or None.
    """

    values: Any
    rows: Labels | None = None
    columns: Labels | None = None
    dims: tuple[str, ...] | None = None
    mask: Any = None

    @classmethod
    def of(cls, values: Any, rows: Iterable[Any] | None, columns: Iterable[Any] | None) -> Labelled:
        """An array and the names that somebody else holds: `ppnmf.fit` takes it as X."""
        row_names, column_names = (None if names is None else tuple(map(str, names)) for names in (rows, columns))
        return cls(values, row_names, column_names)

    @property
    def names(self) -> Names:
        rows, columns = (labels if isinstance(labels, tuple) else None for labels in (self.rows, self.columns))
        return Names(rows, columns)


def names_of(X: Any) -> Names:
    """Of a `Matrix`, which need not know any."""
    return getattr(X, "names", NO_NAMES)


def order(given: Labels, wanted: Labels, what: str, advice: str) -> list[int] | None:
    """Where in `given` each label of `wanted` is; None where the two are equal already.

    Args:
        what: begins the sentence of an error, such as "X's columns are not those of the fit".
        advice: ends it.

    Raises:
        ValueError: labels are missing, or unknown, or stand twice so that nobody can say which is which.
    """
    ours, theirs = _texts(given), _texts(wanted)
    if given == wanted or ours == theirs:
        return None
    here, there = Counter(ours), Counter(theirs)
    faults = {
        "missing": [name for name in there if name not in here],
        "unknown": [name for name in here if name not in there],
        "there twice": [name for name, count in here.items() if count > 1],
        "wanted twice": [name for name, count in there.items() if count > 1],
    }
    told = [f"{listed(names)} {'is' if len(names) == 1 else 'are'} {fault}" for fault, names in faults.items() if names]
    if told:
        raise ValueError(f"{what}: {' and '.join(told)}; {advice}")
    place = {name: number for number, name in enumerate(ours)}
    return [place[name] for name in theirs]


def places_among(given: Labels | None, wanted: Labels | None, size: int, what: str, advice: str) -> list[int] | None:
    """As `order`, where both have names; 0, 1, 2 ... name nothing, but are put in order where they are in another one.

    Args:
        wanted: names, or None where there are none of these `size` rows or columns.
    """
    if given is None:
        return None
    known = range(size) if wanted is None else wanted
    if (isinstance(given, tuple) and wanted is not None) or set(_texts(given)) == set(_texts(known)):
        return order(given, known, what, advice)
    return None


def beside(name: str, given: Labelled, X: Labelled) -> Any:
    """The values of a mask, noise or exposures in the order of X's rows and columns; without labels they go by position.

    Raises:
        ValueError: both are labelled, and not by the same labels.
    """
    given = _turned(name, given, X)
    values = given.values
    for axis, (ours, theirs) in enumerate(((given.rows, X.rows), (given.columns, X.columns))):
        if ours is None or theirs is None or values.ndim != 2:
            continue
        if name != "mask" and values.shape[axis] == 1:  # one for all
            continue
        what = f"{name}'s {AXES[axis]} are not X's"
        places = order(ours, theirs, what, f"give it X's names, or pass {name}.to_numpy() to go by position")
        values = values if places is None else taken(values, axis, places)
    return values


def noise_beside(noise: Labelled, X: Labelled, name: str = "noise") -> Any:
    """Noise or exposures in the order of X's rows and columns; a series goes to that axis of X whose labels, or dim, it has.

    Raises:
        ValueError: as `beside`; a series has the labels of neither axis, or of both.
    """
    by_dim = noise.dims is not None and len(noise.dims) == 1 and X.dims is not None
    if not by_dim and (noise.rows is None or noise.columns is not None or (X.rows is None and X.columns is None)):
        return beside(name, noise, X)
    if by_dim:
        axes = [axis for axis in (0, 1) if X.dims[axis] == noise.dims[0]]  # type: ignore[index]
    else:
        own = set(_texts(noise.rows or ()))
        axes = [axis for axis, labels in enumerate((X.rows, X.columns)) if labels and own == set(_texts(labels))]
    if len(axes) != 1:
        which = "both X's rows and its columns" if axes else "neither X's rows nor its columns"
        raise ValueError(
            f"{name} has the labels of {which}, so that it is not known what it belongs to: pass {name}.to_numpy() for the "
            f"columns, or {name}.to_numpy()[:, None] for the rows"
        )
    labels = X.columns if axes == [1] else X.rows
    places = None
    if noise.rows is not None and labels is not None:
        places = order(noise.rows, labels, f"{name}'s labels are not X's", "give each of them once")
    values = noise.values if places is None else taken(noise.values, 0, places)
    return values if axes == [1] else values[:, None]


def taken(values: Any, axis: int, places: Sequence[int]) -> Any:
    """What lies at these places of an axis of an array, a tensor or a SciPy matrix, in their order."""
    if isinstance(values, Tensor):
        return values.index_select(axis, torch.tensor(places, device=values.device))
    if hasattr(values, "tocsr"):
        values = values.tocsr()
        return values[list(places)] if axis == 0 else values[:, list(places)]
    return np.take(np.asarray(values), places, axis)


def listed(names: Sequence[str]) -> str:
    """The first few of many names, for a sentence."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def _texts(labels: Labels) -> tuple[str, ...]:
    return labels if isinstance(labels, tuple) else tuple(map(str, labels))


def _turned(name: str, given: Labelled, X: Labelled) -> Labelled:
    """With its axes in the order of X's dims, where both have them."""
    if given.dims is None or X.dims is None or given.dims == X.dims or len(given.dims) != 2:
        return given
    if given.dims != X.dims[::-1]:
        raise ValueError(f"{name} has the dims {given.dims} and X {X.dims}; they must be the same: rename them")
    return Labelled(given.values.T, given.columns, given.rows, X.dims)
