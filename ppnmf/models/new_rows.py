"""New rows of X for a fitted encoder: checked, and their columns found by name."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ppnmf.data.containers import BOOLEANS, opened
from ppnmf.data.labelled import Labelled, beside, listed, places_among, taken
from ppnmf.data.matrix import Dense, as_mask, as_tensor

__all__ = ["Fitted", "new_rows", "observed", "one_row", "require_width"]


class Fitted(Protocol):
    """What is asked of the model."""

    name: ClassVar[str]

    @property
    def columns(self) -> tuple[str, ...] | None: ...

    @property
    def H(self) -> Tensor: ...


def new_rows(model: Fitted, given: Labelled, mask: Any) -> Dense:
    """New rows in the type of the model's H (K, D), their columns in the order of the fit; zero where missing.

    Warns: they have names and those of the fit had none.

    Raises:
        ValueError: no matrix; another number of columns, or other names; an observed entry that is negative or not finite.
    """
    X = given.values
    seen = given.mask if mask is None else beside("mask", opened("mask", mask, BOOLEANS), given)
    places = _places(model, given)
    if places is not None:
        X = taken(X, 1, places)
        seen = None if seen is None else taken(seen, 1, places)
    values = torch.as_tensor(as_tensor(X), dtype=model.H.dtype, device=model.H.device)
    if values.ndim != 2:
        raise ValueError(f"X has shape {tuple(values.shape)}; rows (N, D) are needed: pass X[None] for a single one")
    require_width(model, values.shape[1])
    values, own_mask = observed(values, None if seen is None else as_mask(seen, values))
    if not bool(values.isfinite().all()):
        raise ValueError("X has entries that are not finite; hide them with a mask (True where observed)")
    if bool((values < 0).any()):
        raise ValueError(f"X has {int((values < 0).sum())} negative entries; {model.name} needs data >= 0")
    return Dense(values, own_mask)


def require_width(model: Fitted, D: int) -> None:
    """Raise ValueError where the model's weights are for another number of columns."""
    if model.H.shape[1] != D:
        raise ValueError(f"{D} columns are asked of a PAENMF with weights for {model.H.shape[1]}")


def _places(model: Fitted, X: Labelled) -> list[int] | None:
    """Where in X the columns of the fit are; None: X has them in their order, or has no names for them."""
    names = X.names.columns
    places = places_among(
        X.columns,
        model.columns,
        model.H.shape[1],
        f"X's columns are not those that {model.name} was fitted to",
        "give each of these once and no others, in any order",
    )
    if names is not None and model.columns is None and places is None:
        warnings.warn(
            f"X's columns have names ({listed(names)}), and those that {model.name} was fitted to had none: they are "
            "taken by position",
            stacklevel=5,
        )
    return places


def one_row(row: Any) -> Labelled:
    """A row as a matrix (1, D). Raises ValueError for more than one."""
    given = opened("a row", row)
    if given.names.rows is not None and given.columns is None:  # a series
        given = Labelled(given.values, None, given.rows)
    values = as_tensor(given.values)
    if values.ndim == 2 and len(values) != 1:
        raise ValueError(f"{len(values)} rows are given where one is needed: pass one of them")
    return given._replace(values=values if values.ndim == 2 else values[None], rows=None)


def observed(X: Any, mask: Tensor | None, rows: Tensor | None = None) -> tuple[Any, Tensor | None]:
    """The chosen rows of X and of its mask, X zero where missing: what lies there must not leak, NaN least of all.

    X (N, D) is a tensor, or None where it is to be drawn; then there is nothing to mask.
    """
    if X is None:
        return None, None
    if rows is not None:
        X = X[rows]
        mask = None if mask is None else mask[rows]
    return X if mask is None else torch.where(mask, X, 0.0), mask
