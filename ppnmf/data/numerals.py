"""Numbers as people write them, and the many ways in which they say that there is none."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "NEARLY",
    "THOUSANDS",
    "WITH_COMMA",
    "WITH_POINT",
    "Numbers",
    "are_whole",
    "first_of",
    "is_number",
    "numbers",
    "plain",
    "some_are",
]

# in lower case, without the spaces around; NaN itself is read as a number
MISSING = [
    "", "na", "nan", "n/a", "null", "none", "<na>", "#n/a", "#na", "#n/a n/a", "-nan", ".", "-", "--", "?",
]  # fmt: skip
DIGITS = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
NUMBER = rf"[+-]?(?:{DIGITS}|(?i:inf|infinity))"
WITH_COMMA = r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?"
WITH_POINT = r"[+-]?(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?"
THOUSANDS = r"[+-]?[1-9]\d{0,2}(?:,\d{3})+"  # 1,234: or is the comma a decimal one?
# 1,234 and 5% and <0.1: what may have been meant as a number
NEARLY = r"[<>~$€£+−-]*\s*(?:\d{1,3}(?:[.,' ]\d{3})+|\d+)(?:[.,]\d*)?\s*%?"


class Numbers(NamedTuple):
    """A column of N cells, read as numbers.

    Args:
        values: (N,) float64, NaN where there is no number.
        texts: boolean (N,), the cells that are neither a number nor missing.
        missing: the spellings of missing that were met, and how often.
    """

    values: np.ndarray
    texts: np.ndarray
    missing: dict[str, int]


def is_number(cell: str, comma: bool = False) -> bool:
    """A number, or a spelling of missing. An underscore makes a name: Python's `float` would take 1_1.

    >>> is_number("1e-3"), is_number("1,5", comma=True), is_number(" NA "), is_number("1_1")
    (True, True, True, False)
    """
    cell = cell.strip()
    if cell.lower() in MISSING:
        return True
    return re.fullmatch(NUMBER, cell.replace(",", ".") if comma else cell) is not None


def are_whole(values: np.ndarray) -> bool:
    """Whole numbers >= 0, each once; NaN is left out.

    >>> are_whole(np.array([1.0, 3.0, 2.0])), are_whole(np.array([1.0, 1.0])), are_whole(np.array([0.5, 1.0]))
    (True, False, False)
    """
    known = values[~np.isnan(values)]
    whole = np.isfinite(known).all() and (known == np.floor(known)).all() and (known >= 0).all()
    return bool(whole) and 0 < len(known) == len(np.unique(known))


def some_are(columns: list[pa.ChunkedArray], pattern: str) -> bool:
    """Whether a cell of these columns of text is written so, but for spaces around it."""
    return any(pc.any(_are(column, pattern)).as_py() for column in columns)


def first_of(columns: list[pa.ChunkedArray], pattern: str, but: str | None = None) -> str | None:
    """The first cell that is written so, and not as `but`; None where there is none."""
    for column in columns:
        found = column.filter(_are(column, pattern))
        left = found if but is None else found.filter(pc.invert(_are(found, but)))
        if len(left):
            return str(left[0].as_py()).strip()
    return None


def _are(column: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    """Which cells of a column of text are written so, but for spaces around them."""
    return pc.match_substring_regex(column, rf"^\s*(?:{pattern})\s*$")


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without categories and views, which not every function of pyarrow takes."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string()) if pa.types.is_string_view(column.type) else column


def numbers(column: pa.ChunkedArray, comma: bool = False) -> Numbers:
    """The numbers of a column of text, or of a column that holds numbers already.

    Raises:
        TypeError: it holds neither, such as dates or lists.
    """
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return _numeric(column)
    try:
        return _clean(column)
    except pa.ArrowInvalid:
        return _mixed(column, comma)


def _numeric(column: pa.ChunkedArray) -> Numbers:
    known = pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null
    if not any(is_type(column.type) for is_type in known):
        raise TypeError(f"{column.type}")
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    values = column.cast(pa.float64(), safe=False).to_numpy().astype(float)
    empty = int(np.isnan(values).sum())
    return Numbers(values, np.zeros(len(values), bool), {"null or NaN": empty} if empty else {})


def _clean(column: pa.ChunkedArray) -> Numbers:
    """Of a column in which every cell is a number, or NaN. Raises ArrowInvalid where one is not."""
    values = column.cast(pa.float64()).to_numpy()
    return Numbers(values, np.zeros(len(values), bool), {"NaN": nan} if (nan := int(np.isnan(values).sum())) else {})


def _mixed(column: pa.ChunkedArray, comma: bool) -> Numbers:
    cells = pc.utf8_trim_whitespace(column)
    empty = pc.is_in(pc.utf8_lower(cells), pa.array(MISSING))
    spellings = pc.value_counts(cells.filter(empty)).to_pylist()
    missing = {repr(entry["values"]) if entry["values"] else "empty": entry["counts"] for entry in spellings}
    if comma:
        cells = pc.replace_substring(cells, ",", ".")
    good = pc.match_substring_regex(cells, f"^{NUMBER}$")
    values = pc.if_else(pc.and_not(good, empty), cells, None).cast(pa.float64()).to_numpy()
    return Numbers(values, ~pc.or_(good, empty).to_numpy(), missing)
