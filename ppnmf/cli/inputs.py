"""The data that a command is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Input", "read", "say_heading"]


class Input(NamedTuple):
    """A data matrix from the command line, and what is known about it."""

    name: str
    X: Any  # (N, D), NaN where missing: an array, or for `fit` also a sparse matrix or a memory map
    mask: np.ndarray | None
    about: str
    rows: Any = None
    columns: Any = None
    picture: tuple[int, int] | None = None
    order: str = "C"


def read(name: str, allow_negative: bool, missing: str, dense: bool = True) -> Input:
    """The data that DATA names. A file's surprises are refused unless told: negative entries, missing values.

    Args:
        dense: in memory as one array; otherwise a sparse matrix stays one, and a big .npy file stays on disk.
    """
    import numpy as np

    from ppnmf.data import datasets, files, toy

    if missing not in ("error", "nan"):
        raise ValueError(f"--missing is {missing!r}; it must be 'error' or 'nan'")
    if name in datasets.names() or toy.named(name) is not None:
        found = datasets.load(name)
        return Input(name, found.X, found.mask, found.about, found.rows, found.columns, found.picture, found.order)
    if not Path(name).exists() and not Path(name).suffix:
        datasets.load(name)  # its sentence says what names there are
    X, rows, columns = files.read(name, dense)
    if isinstance(X, np.memmap) or not isinstance(X, np.ndarray):
        return _as_it_lies(
            Input(Path(name).stem, X, None, f"The file {Path(name).name}.", rows, columns), allow_negative, missing
        )
    nan, negative = int(np.isnan(X).sum()), int((X < 0).sum())
    if nan and missing == "error":
        raise ValueError(
            f"X has {nan} NaN or empty entries: pass --missing nan if they are missing values, or fill them in"
        )
    if negative and not allow_negative:
        raise ValueError(
            f"X has {negative} negative entries (least {np.nanmin(X):.6g}): check the input, or pass --allow-negative to fit a "
            "Gaussian model to them all the same"
        )
    return Input(Path(name).stem, X, ~np.isnan(X) if nan else None, f"The file {Path(name).name}.", rows, columns)


def _as_it_lies(given: Input, allow_negative: bool, missing: str) -> Input:
    """A sparse matrix or a memory map, checked without making it an array."""
    from ppnmf.data.matrix import as_matrix

    try:
        X = as_matrix(given.X, missing=missing)
    except ValueError as error:
        raise ValueError(str(error).replace("missing='nan'", "--missing nan")) from error
    if X.n_negative and not allow_negative:
        raise ValueError(
            f"X has {X.n_negative} negative entries (least {X.least:.6g}): check the input, or pass --allow-negative to fit a "
            "Gaussian model to them all the same"
        )
    return given._replace(X=X)


def say_heading(data: Input) -> None:
    N, D = data.X.shape
    names = "".join(
        f", {what} named" for what, given in (("rows", data.rows), ("columns", data.columns)) if given is not None
    )
    typer.echo(f"{data.name}: {N} × {D}{names}. {data.about}")
