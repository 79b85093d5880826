"""Tables, from delimited text and from Parquet: the numbers, and the names of rows and columns."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ppnmf.data.delimited import Text, cut
from ppnmf.data.found import Found, Reading
from ppnmf.data.naming import Table, chosen, is_header, names_rows, text_of
from ppnmf.data.numerals import (
    THOUSANDS,
    WITH_COMMA,
    WITH_POINT,
    Numbers,
    first_of,
    is_number,
    numbers,
    plain,
    some_are,
)

__all__ = ["delimited", "parquet"]


def delimited(path: Path, reading: Reading) -> Found:
    """A matrix from delimited text."""
    text = cut(path)
    first, columns, left_out = _without_empty(text)
    short = len(first) == len(columns) - 1  # as R writes a table: no name for the column of row names
    first = [""] * short + first
    if len(first) != len(columns):
        raise _uneven(path, text, len(columns))
    names = [cell.strip() for cell in first]
    at = chosen(path, names, str(reading.row_names)) if reading.row_names else 0
    order = [at, *(j for j in range(len(columns)) if j != at)]
    values = [j for j in range(len(columns)) if not (reading.row_names and j == at)]
    cells = [pa.chunked_array([[first[j]], *columns[j].chunks]) for j in values]
    comma = _comma_is_decimal(path, text, cells, reading)
    body = [numbers(columns[j], comma) for j in order]
    header = reading.header
    if header is None:
        below = [columns[j] for j in order]
        by_name = names[at] == reading.row_names and not names[at].isdecimal()
        header = by_name or _is_header(path, [first[j] for j in order], below, body, comma)
    if short and not header:
        raise _uneven(path, text, len(columns))
    if header and text.body is None:
        raise ValueError(f"{path} holds one line of names and no numbers")
    given = names if header else _names_above(text, reading)
    if not header:
        columns = [pa.chunked_array([[cell], *column.chunks]) for cell, column in zip(first, columns, strict=True)]
        body = [numbers(columns[j], comma) for j in order]
    table = Table(
        path,
        [repr(given[j]) if given and given[j] else str(j + 1) for j in order],
        None if given is None else [given[j] for j in order],
        [columns[j] for j in order],
        body,
        lambda i: f"line {text.line(i + header)}",
    )
    return _found(table, reading, short, text.remarks + ["decimal commas"] * comma + left_out)


def _is_header(path: Path, first: list[str], columns: list[pa.ChunkedArray], body: list[Numbers], comma: bool) -> bool:
    if len(columns[0]):
        return is_header(path, first, columns, body, comma)
    return not all(is_number(cell, comma) for cell in first[1:] or first)


def _without_empty(text: Text) -> tuple[list[str], list[pa.ChunkedArray], list[str]]:
    """Without what separators at the ends leave: nameless empty columns, and lines of empty cells at the end of the file.

    Returns: the first line, the columns below it, and remarks on what was left out.
    """
    first = text.first
    if text.body is None:
        while len(first) > 1 and not first[-1].strip():
            first = first[:-1]
        return first, [pa.chunked_array([], pa.string()) for _ in first], []
    columns = list(text.body.columns)
    width, length = len(columns), len(columns[0])
    while len(columns[0]) > 1 and all(column[-1].as_py() == "" for column in columns):
        columns = [column.slice(0, len(column) - 1) for column in columns]
    while len(columns) > 1 and _is_empty(columns[-1]) and (len(first) < len(columns) or not first[-1].strip()):
        columns, first = columns[:-1], first[: len(columns) - 1]
    while len(first) > len(columns) and not first[-1].strip():
        first = first[:-1]
    if len(first) == len(columns) > 1 and not first[0].strip() and _is_empty(columns[0]):
        columns, first = columns[1:], first[1:]
    lines, sides = length - len(columns[0]), width - len(columns)
    remarks = [f"{lines} empty line{'s' * (lines > 1)} at the end left out"] if lines else []
    remarks += [f"{sides} empty column{'s' * (sides > 1)} at the sides left out"] if sides else []
    return first, columns, remarks


def _is_empty(column: pa.ChunkedArray) -> bool:
    return column.unique().to_pylist() == [""]


def _uneven(path: Path, text: Text, width: int) -> ValueError:
    return ValueError(
        f"{path}: line {text.line(0)} has {len(text.first)} cells and line {text.line(1)} has {width}; they must be equal in "
        "number, or one name fewer where the first column names the rows"
    )


def _comma_is_decimal(path: Path, text: Text, columns: list[pa.ChunkedArray], reading: Reading) -> bool:
    """Whether numbers are written 1,5. Raises ValueError where others are written 1.5, or all as 1,234, which may be thousands.

    Args:
        columns: with their cells of the first line; without what names the rows, where that is known.
    """
    if text.separator == "," or b"," not in text.content:
        return False
    if first_of(columns, WITH_COMMA, but=THOUSANDS) is None:
        doubtful = first_of(columns, THOUSANDS)
        if doubtful is None:
            return False
        raise ValueError(
            f"{path}: the comma of {doubtful!r} and of all other such numbers may divide thousands: write the numbers without "
            "commas, or with a decimal point"
        )
    if not some_are([column.slice(1) for column in columns], WITH_POINT):
        return True
    if reading.row_names:
        return False
    raise ValueError(
        f"{path}: some numbers have a decimal comma and others a decimal point: mend them, or say row_names='1' if those in the "
        "first column are names"
    )


def _names_above(text: Text, reading: Reading) -> list[str] | None:
    """Names in a comment right above the numbers, as NumPy's `savetxt` writes them."""
    above = text.comment
    if reading.header is False or above is None or not len(above) == len(text.first) > 1:
        return None
    return None if all(map(is_number, above)) else [name.strip() for name in above]


def parquet(path: Path, reading: Reading) -> Found:
    """A matrix from Parquet: an index that pandas wrote names the rows, unless another column, or none, is to."""
    import pyarrow.parquet

    try:
        frame = pyarrow.parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a Parquet file that can be read ({error})") from error
    about = (frame.schema.pandas_metadata or {}).get("index_columns", [])
    index = [name for name in about if isinstance(name, str) and name in frame.column_names]
    if reading.row_names is not None and reading.row_names not in index:
        frame, index = frame.drop_columns(index), []
    if len(index) > 1:
        raise ValueError(f"{path} has an index of {len(index)} levels: say row_names=False, or write it with one")
    names = index + [name for name in frame.column_names if name not in index]
    at = chosen(path, names, str(reading.row_names)) if reading.row_names else 0
    names.insert(0, names.pop(at))
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{path} has several columns named {twice!r}: give each a name of its own")
    columns = [plain(frame.column(name)) for name in names]
    if columns and (index or reading.row_names):
        columns[0] = pa.chunked_array([[_named(cell) for cell in columns[0].to_pylist()]], pa.string())
    if not columns or not len(frame):
        raise ValueError(f"{path} holds {len(frame)} rows and {len(columns)} columns; a matrix needs one of each")
    body = [_numbers(path, name, column) for name, column in zip(names, columns, strict=True)]
    table = Table(path, [repr(name) for name in names], names, columns, body, lambda i: f"row {i + 1}")
    return _found(table, reading, bool(index), [])


def _named(cell: Any) -> str:
    """A cell as the name of a row; of a date without a time, the date alone."""
    return text_of(cell).removesuffix(" 00:00:00")


def _numbers(path: Path, name: str, column: pa.ChunkedArray) -> Numbers:
    try:
        return numbers(column)
    except TypeError as error:
        raise ValueError(f"{path}: column {name!r} holds {error} and not numbers; leave it out") from error


def _found(table: Table, reading: Reading, indexed: bool, remarks: list[str]) -> Found:
    """The matrix of a table. `indexed`: the first column names the rows for certain."""
    asked = reading.row_names is not None
    named = bool(reading.row_names) if asked else indexed or names_rows(table)
    kept = range(named, len(table.cells))
    if not kept:
        raise ValueError(f"{table.path} holds names and no numbers")
    for j in kept:
        _refuse_text(table, j)
    X = np.stack([table.numbers[j].values for j in kept], axis=1)
    missing: Counter[str] = Counter()
    for j in kept:
        missing.update(table.numbers[j].missing)
    rows = np.array([text_of(cell) for cell in table.cells[0].to_pylist()]) if named else None
    columns = None if table.names is None else np.array(table.names[named:])
    if named and table.names is not None and table.names[0]:
        remarks = [*remarks, f"column {table.titles[0]} names the rows"]
    return Found(X, rows, columns, remarks, missing)


def _refuse_text(table: Table, j: int) -> None:
    """Name the first cell of a column that is no number."""
    texts = table.numbers[j].texts
    if not texts.any():
        return
    i = int(texts.argmax())
    cell, where, title = text_of(table.cells[j][i].as_py()), table.where(i), table.titles[j]
    if len(table.cells) == 1 and texts.all():
        raise ValueError(
            f"{table.path}: {cell!r} in {where} is not a number, and there is one column: cells are to be separated by commas, "
            "semicolons, tabs, bars or spaces"
        )
    if texts.all():
        name = table.names[j] if table.names is not None else title
        raise ValueError(
            f"{table.path}: column {title} holds text ({cell!r} in {where}) where numbers are needed: leave it out, or say "
            f"row_names={name!r} if it names the rows"
        )
    raise ValueError(f"{table.path}: {cell!r} in {where}, column {title} is not a number")
