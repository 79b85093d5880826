"""Which line of a table names its columns, and which column names its rows.

What the table does not prove itself is a question to the user, never a guess: names read as data, or data read as names, are
wrong in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ppnmf.data.found import first_few
from ppnmf.data.numerals import NEARLY, Numbers, are_whole, is_number, some_are

__all__ = ["Table", "chosen", "is_header", "names_rows", "text_of"]

RUN = 3  # this many of 0, 1, 2 ... or 1, 2, 3 ... may number rows or columns
SURE_RUN = 10  # and this many do, even beside whole numbers
EVEN = 1e-9  # of the greatest of some numbers: steps that differ by less are equal
DIGITS = 6  # behind the point, to which a number is told to be a multiple of another
# words that stand above names of rows
HEADINGS = {
    "id", "ids", "name", "names", "key", "label", "labels", "index", "row", "rows", "sample", "samples", "gene",
    "genes", "symbol", "feature", "features", "variable", "protein", "probe", "cell", "cells", "barcode", "patient",
    "patients", "subject", "donor", "case", "user", "users", "customer", "item", "items", "product", "movie",
    "document", "word", "term", "species", "taxon", "site", "station", "country", "state", "region", "city", "year",
    "month", "day", "date", "time", "company", "ticker", "compound", "drug", "spectrum", "well", "run", "batch",
    "group", "class", "type",
}  # fmt: skip


class Table(NamedTuple):
    """Columns of equal length; what could name the rows is the first.

    Args:
        path: of the file, for sentences.
        titles: what to call the columns in sentences.
        names: of the columns, "" where there is none; None: there is no line of names.
        cells: as they are in the file.
        numbers: the same, read as numbers.
        where: a function that says where row i is in the file, in words.
    """

    path: Path
    titles: list[str]
    names: list[str] | None
    cells: list[pa.ChunkedArray]
    numbers: list[Numbers]
    where: Callable[[int], str]


def text_of(cell: Any) -> str:
    """A cell as a name."""
    return "" if cell is None else str(cell).strip()


def chosen(path: Path, names: list[str], wanted: str) -> int:
    """Where the column of that number is, counted from 1, or of that name. Raises ValueError where there is none."""
    if wanted.isdecimal() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    count = names.count(wanted)
    if count > 1:
        raise ValueError(f"{path}: {count} columns are called {wanted!r}; give the number of one, counted from 1")
    if count:
        return names.index(wanted)
    raise ValueError(f"{path} has no column {wanted!r} to name the rows; the first line is {first_few(names)}")


def is_header(path: Path, first: list[str], cells: list[pa.ChunkedArray], body: list[Numbers], comma: bool) -> bool:
    """Whether the first line names the columns below it. Raises ValueError where it cannot be told.

    Args:
        first: cells of the line, as many as there are columns.
        cells, body: the columns below it, as text and as numbers.
        comma: numbers have decimal commas.
    """
    corner, labels = first[0].strip(), [cell.strip() for cell in (first[1:] or first)]
    texts = [label for label in labels if not is_number(label, comma)]
    rows_named = bool(body[0].texts.any())
    if texts:
        data = _counted_alike(corner, cells[0]) if rows_named else corner != "" and is_number(corner, comma)
        if data and len(first) > 1 and len(texts) <= len(labels) / 2:
            raise ValueError(
                f"{path}: {texts[0]!r} in the first line ({first_few(first)}) is not a number, and others are: mend it, or say "
                "header=True if the line holds names"
            )
        return True
    if len(first) == 1:
        return False
    values = np.array([_value(label, comma) for label in labels])
    if corner == "":
        return rows_named or _numbers_above_numbers(path, first, values, body)
    if rows_named:
        return not is_number(corner, comma) and _names_above_names(path, first, values, cells, body)
    if not is_number(corner, comma):
        return True
    every = np.array([_value(corner, comma), *values])
    if _is_run(every, body) or _are_even(every, body):
        raise _unclear(path, first)
    return False


def _unclear(path: Path, first: list[str]) -> ValueError:
    shown = first_few([cell for cell in first if cell])
    return ValueError(f"{path}: the first line ({shown}) may hold names or data: say header=True or header=False")


def _names_above_names(
    path: Path, first: list[str], labels: np.ndarray, cells: list[pa.ChunkedArray], body: list[Numbers]
) -> bool:
    """Whether numbers right of a text are names of columns, where texts below it name the rows."""
    if _counted_alike(first[0], cells[0]) or not _are_labels(labels):
        return False  # r1,1,2.5,0 above r2,3,4,0.5; or a number that comes twice or is missing
    apart = _are_apart(labels, body[1:])
    if not apart and not are_whole(labels):
        return False  # TP53,1.5,.5 above BRCA1,.7,1.9
    even = len(labels) >= (RUN if apart else SURE_RUN) and _step(labels) != 0
    if are_whole(labels) and (apart or _have_fractions(body)) and (even or _is_heading(first[0], cells[0])):
        return True  # id,2001,2002 above a,.7,1; but Alice,3,5 above Bob,2.5,4 may be another row
    raise _unclear(path, first)


def _numbers_above_numbers(path: Path, first: list[str], labels: np.ndarray, body: list[Numbers]) -> bool:
    """Whether numbers right of an empty corner are names of columns, where numbers below it could name the rows."""
    index = body[0].values
    if not _are_labels(labels) or not are_whole(index):
        return False  # the first cell is missing
    proved = _counts(index) or _counts(labels) or _are_apart(labels, body[1:])
    if proved or (are_whole(labels) and _have_fractions(body[1:])):
        return True  # as pandas writes a table
    raise _unclear(path, first)


def _is_heading(corner: str, names: pa.ChunkedArray) -> bool:
    """Whether it has a word that is usual above names of rows, as gene_id, and the name below it, such as Gene B, has none."""
    above, below = (re.findall(r"[a-z]+", name.lower()) for name in (corner, text_of(names[0].as_py())))
    return not HEADINGS.isdisjoint(above) and HEADINGS.isdisjoint(below)


def _step(values: np.ndarray) -> float:
    """By which each number differs from the one before it, to rounding; 0 where they do not step evenly."""
    if not np.isfinite(values).all():
        return 0.0
    steps = np.diff(values)
    even = len(steps) > 0 and bool((np.abs(steps - steps[0]) <= EVEN * np.abs(values).max()).all())
    return float(steps[0]) if even else 0.0


def _are_apart(labels: np.ndarray, body: list[Numbers]) -> bool:
    """Whether no number of the body lies among the labels."""
    values = np.concatenate([column.values for column in body])
    known = values[~np.isnan(values)]
    return not len(known) or bool(labels.min() > known.max() or labels.max() < known.min())


def _are_far(labels: np.ndarray, body: list[Numbers]) -> bool:
    """Whether the labels lie farther from the numbers of the body than these do from one another."""
    values = np.concatenate([column.values for column in body])
    known = values[np.isfinite(values)]
    gap = max(labels.min() - known.max(), known.min() - labels.max()) if len(known) else 0.0
    return bool(gap > 0 and gap > np.ptp(known))


def _counted_alike(corner: str, names: pa.ChunkedArray) -> bool:
    """Whether a name differs from the one below it by its digits alone, as g1 from g2: it names a row too."""
    below = text_of(names[0].as_py())
    return bool(re.search(r"\d", corner)) and re.sub(r"\d+", "#", corner.strip()) == re.sub(r"\d+", "#", below)


def _are_labels(values: np.ndarray) -> bool:
    """None is missing, and none comes twice."""
    return not np.isnan(values).any() and len(np.unique(values)) == len(values)


def _value(label: str, comma: bool) -> float:
    try:
        return float(label.replace(",", ".") if comma else label)
    except ValueError:
        return np.nan


def _have_fractions(body: list[Numbers]) -> bool:
    return any(bool((column.values % 1 > 0).any()) for column in body)


def _are_multiples(body: list[Numbers], unit: float) -> bool:
    values = np.concatenate([column.values for column in body]) / unit
    known = values[np.isfinite(values)]
    return bool((np.abs(known - known.round()) <= 10.0**-DIGITS).all())


def _is_run(values: np.ndarray, others: list[Numbers]) -> bool:
    """0, 1, 2 ... or 1, 2, 3 ... of a length that is no chance, given what the others are; or years, which are far from those."""
    if len(values) < RUN or not bool((np.diff(values) == 1).all()):
        return False
    counted = _counts(values) and (len(values) >= SURE_RUN or _have_fractions(others))
    return counted or (are_whole(values) and not _counts(values) and _are_apart(values, others))


def _are_even(values: np.ndarray, body: list[Numbers]) -> bool:
    """400, 402, 404 ..., far from the numbers below them; or 0, 0.5, 1.0 ... of which those below are no multiples."""
    step = _step(values)
    if step == 0 or (step == 1 and _counts(values)):
        return False
    if len(values) < RUN:
        return step == 1 and _are_far(values, body)
    if not _counts((values / step).round(DIGITS)):
        return _are_apart(values, body)
    if step % 1 == 0:
        return len(values) >= SURE_RUN or _have_fractions(body)
    return not _are_multiples(body, step)


def _counts(values: np.ndarray) -> bool:
    count = np.arange(len(values))
    return np.array_equal(values, count) or np.array_equal(values, count + 1)


def names_rows(table: Table) -> bool:
    """Whether the first column names the rows. Raises ValueError where it cannot be told."""
    first, named = table.numbers[0], table.names is not None
    if len(table.cells) == 1:
        return False
    if table.names is not None and not table.names[0]:
        return True
    name = table.names[0] if table.names is not None else "1"
    answers = f"say row_names={name!r} or row_names=False"
    if first.texts.any():
        if (~np.isnan(first.values)).sum() < first.texts.sum() and not _nearly_numbers(table):
            return True
        i = int(first.texts.argmax())
        cell = text_of(table.cells[0][i].as_py())
        raise ValueError(
            f"{table.path}: {cell!r} in {table.where(i)}, column {table.titles[0]} is not a number: mend it, or say "
            f"row_names={name!r} if the column names the rows"
        )
    if named and are_whole(first.values):
        raise ValueError(f"{table.path}: column {table.titles[0]} holds distinct whole numbers: row names? {answers}")
    if not named and _is_run(first.values, table.numbers):
        raise ValueError(f"{table.path}: column {table.titles[0]} counts the rows: row names? {answers}")
    return False


def _nearly_numbers(table: Table) -> bool:
    return some_are([table.cells[0].filter(pa.array(table.numbers[0].texts))], NEARLY)
