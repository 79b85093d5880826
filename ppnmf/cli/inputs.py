"""The data that a command is given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from ppnmf.cli.reading import AS_IT_IS, Reading

if TYPE_CHECKING:
    import numpy as np

    from ppnmf.data.datasets import Dataset

__all__ = ["Input", "on_the_command_line", "read", "say_heading"]

WORDS: tuple[
    tuple[str, str | Callable[[re.Match[str]], str]], ...
] = (  # Python's way to say it, and the command line's
    (r"row_names=(['\"])(.*?)\1", lambda found: f"--row-names {shlex.quote(found[2])}"),
    (r"layer=(['\"])(.*?)\1", lambda found: f"--layer {shlex.quote(found[2])}"),
    (r"row_names=False", "--no-row-names"),
    (r"\bmethod='(\w+)'", r"--method \1"),
    (r"sensitivity=True", "--sensitivity"),
    (r"header=True", "--header"),
    (r"header=False", "--no-header"),
    (r"missing='nan'(?: or a mask \(True where observed\))?", "--missing nan"),
    (r", or mask them", ""),
    (r"\bsay (?:so with |which by )?--", "pass --"),
)


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

    def with_gaps(self) -> np.ndarray:
        """X as an array, NaN where the mask hides it."""
        import numpy as np

        return self.X if self.mask is None else np.where(self.mask, self.X, np.nan)


def read(name: str, reading: Reading = AS_IT_IS, dense: bool = True) -> Input:
    """The data that DATA names. A file's surprises are refused unless allowed: negative entries, missing values.

    Args:
        dense: in memory as one array; otherwise a sparse matrix stays one, and a big .npy file stays on disk.

    Raises:
        ValueError: the name is nothing that is known, the file cannot be read, or it holds such a surprise; the sentence
            advises in the command line's words.
    """
    if reading.missing not in ("error", "nan"):
        raise ValueError(f"--missing is {reading.missing!r}; it must be 'error' or 'nan'")
    for_files = reading.for_files()
    found = _named(name)
    if found is not None:
        _refuse_options(name, for_files)
        return Input(name, found.X, found.mask, found.about, found.rows, found.columns, found.picture, found.order)
    try:
        return _from_file(Path(name), reading, dense)
    except ValueError as error:
        raise ValueError(on_the_command_line(str(error))) from error


def _named(name: str) -> Dataset | None:
    """The data set of that name, or None where it is a path."""
    if Path(name).suffix or len(Path(name).parts) > 1:
        return None
    from ppnmf.data import datasets

    if Path(name).exists() and name not in datasets.names() and not re.fullmatch(r"toy[\dx]+", name):
        return None
    return datasets.load(name)  # where there is none, its sentence says what names there are


def _refuse_options(name: str, for_files: dict[str, Any]) -> None:
    if for_files:
        options = ", ".join("--" + option.replace("_", "-") for option in for_files)
        raise ValueError(f"{name} is a data set's name, and {options} is for files: leave it out")


def _from_file(path: Path, reading: Reading, dense: bool) -> Input:
    import numpy as np

    from ppnmf.data import files
    from ppnmf.data.compressed import stem_of

    X, rows, columns, about = files.read(path, missing=reading.missing, dense=dense, **reading.for_files())
    given = Input(stem_of(path) or path.name, X, None, about, rows, columns)
    if isinstance(X, np.memmap) or not isinstance(X, np.ndarray):
        return _as_it_lies(path, given, reading)
    nan = np.isnan(X)
    if not reading.allow_negative and (X < 0).any():
        i, j = np.argwhere(X < 0)[0]
        _refuse_negative(path, int((X < 0).sum()), np.nanmin(X), files.place(i, j, rows, columns))
    known = X[~nan]
    if len(known) and known.min() == known.max():
        _refuse_constant(path, known[0])
    return given._replace(mask=~nan if nan.any() else None)


def _as_it_lies(path: Path, given: Input, reading: Reading) -> Input:
    """A sparse matrix or a memory map, checked without making it an array."""
    from ppnmf.data.matrix import as_matrix

    X = as_matrix(given.X, missing=reading.missing)
    if X.n_negative and not reading.allow_negative:
        _refuse_negative(path, X.n_negative, X.least)
    if X.variance() == 0:
        _refuse_constant(path, X.mean())
    return given._replace(X=X)


def _refuse_negative(path: Path, count: int, least: float, first: str = "") -> None:
    where = f", the first in {first}" if first else ""
    raise ValueError(
        f"X has {count} negative entries (least {least:.6g}){where}: check {path}, or pass --allow-negative to fit a "
        "Gaussian model to them all the same"
    )


def _refuse_constant(path: Path, value: float) -> None:
    raise ValueError(
        f"every entry of {path} is {value:.6g}, so there is nothing to factorise: check that this is the file"
    )


def on_the_command_line(sentence: str) -> str:
    """What a sentence advises, in the command line's words."""
    for said, there in WORDS:
        sentence = re.sub(said, there, sentence)
    return sentence


def say_heading(data: Input) -> None:
    """Print the data's name, shape, names and how they were read, in a line."""
    N, D = data.X.shape
    rows = "" if data.rows is None else ", rows named"
    columns = "" if data.columns is None else ", columns named"
    typer.echo(f"{data.name}: {N} × {D}{rows}{columns}. {data.about}")
