"""Delimited text cut into cells: its encoding, its comments, its separator. What the cells mean is for `tables`."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv

from ppnmf.data.compressed import contents, kind_of
from ppnmf.data.numerals import is_number

__all__ = ["Text", "cut"]

SPACES = " "  # as a separator: any run of spaces and tabs
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", SPACES: "spaces"}
LOOKED_AT = 100  # lines from which the separator is found
SAID = re.compile(rb'"?sep=(.)"?\s*')  # Excel's first line
SKIPPED = re.compile(rb" *(?:#|$)")  # a comment, or a blank line; tabs alone are empty cells
UNEVEN = (b"\n#", b"\n ", b"\n\n")  # without them there is no line to skip
BOMS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "UTF-16LE", b"\xfe\xff": "UTF-16BE"}
LARGEST_BLOCK = 2**31 - 1  # bytes that pyarrow takes at once; a line must fit


class Text(NamedTuple):
    """A file cut into cells.

    Args:
        first: cells of the first line that is no comment.
        body: the lines below it, a column of strings for each of W cells; None where there is none.
        comment: cells of the comment right above the first line, where there is one.
        separator: what divides cells.
        remarks: what else a reader should know, in words.
        content: the file as UTF-8, for the numbers of lines.
    """

    first: list[str]
    body: pa.Table | None
    comment: list[str] | None
    separator: str
    remarks: list[str]
    content: bytes

    def line(self, row: int) -> int:
        """The number in the file, from 1, of a row; row 0 is the first line."""
        numbers = (number for number, _ in _kept(self.content))
        return next(itertools.islice(numbers, row, None))


def cut(path: Path) -> Text:
    """Cut a file into cells.

    The separator is the one of `, ; tab | spaces` that cuts the first lines into equally many cells, most of them numbers. Lines
    that begin with # are comments. A file that is not in UTF-8 or UTF-16 is read as Windows-1252, in which only names can differ.

    Raises:
        ValueError: this is no text, it is empty, or its lines have unequal numbers of cells.
    """
    content, encoding = _decoded(path)
    lines = [line for _, line in itertools.islice(_kept(content), LOOKED_AT + 1)]
    said = SAID.fullmatch(lines[0]) if lines else None
    if said:
        content = content.replace(lines.pop(0), b"", 1)
    if not lines:
        raise ValueError(f"{path} is empty; a matrix with at least one row and column is needed")
    texts = [line.decode() for line in lines]
    separator = said.group(1).decode() if said else _separator(texts, kind_of(path))
    comments = _comments(content)
    remarks = [f"cells separated by {SEPARATORS.get(separator, separator)}"]
    remarks += [f"{comments} line{'s' * (comments > 1)} of comments left out"] if comments else []
    remarks += [f"read as {encoding}"] if encoding != "utf-8" else []
    first = _cells(texts[0], separator)
    return Text(first, _body(path, content, separator), _comment_above(content, separator), separator, remarks, content)


def _decoded(path: Path) -> tuple[bytes, str]:
    """The file as UTF-8 with newlines alone, and the encoding that it is in."""
    raw = contents(path)
    mark = next((mark for mark in BOMS if raw.startswith(mark)), b"")
    encoding = BOMS.get(mark, "utf-8")
    raw = raw[len(mark) :]
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if mark or b"\0" in raw:
            raise ValueError(f"{path} is not a text file ({error.reason} at byte {error.start})") from error
        encoding = "Windows-1252"
        text = raw.decode("cp1252", errors="replace")
    if "\0" in text:
        raise ValueError(f"{path} is not a text file (a zero byte at {text.index(chr(0))})")
    content = raw if encoding == "utf-8" else text.encode()
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return content.rstrip(b"\n"), encoding


def _lines(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        end = content.find(b"\n", at)
        end = len(content) if end < 0 else end
        yield content[at:end]
        at = end + 1


def _kept(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that are neither blank nor comments, with their numbers from 1."""
    for number, line in enumerate(_lines(content), start=1):
        if not SKIPPED.match(line):
            yield number, line


def _comments(content: bytes) -> int:
    return sum(line.lstrip().startswith(b"#") for line in _lines(content)) if b"#" in content else 0


def _comment_above(content: bytes, separator: str) -> list[str] | None:
    last = None
    for line in _lines(content):
        if not SKIPPED.match(line):
            break
        last = line
    text = "" if last is None else last.decode().strip()
    return _cells(text.lstrip("# "), separator) if text.startswith("#") else None


def _cells(line: str, separator: str) -> list[str]:
    if separator == SPACES:
        line = line.replace("\t", SPACES).strip()
    if '"' not in line:
        return line.split() if separator == SPACES else line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=separator == SPACES))
    except csv.Error:  # longer than a cell can be: cut in the wrong places
        return [line]


def _separator(lines: list[str], kind: str) -> str:
    """The separator that fits best; of equals the first, which in .tsv and .tab is the tab."""
    order = (
        sorted(SEPARATORS, key=lambda separator: separator != "\t") if kind in (".tsv", ".tab") else list(SEPARATORS)
    )
    return max(order, key=lambda separator: _fit(lines, separator))


def _fit(lines: list[str], separator: str) -> tuple[bool, float, int]:
    """How well a separator fits: whether it cuts lines into equally many cells, the share of numbers, how many cells."""
    first, *others = (_cells(line, separator) for line in lines)
    rows = others or [first]
    width, count = Counter(map(len, rows)).most_common(1)[0]
    equal = width > 1 and count == len(rows) and abs(len(first) - width) <= 1
    inner = [cell for row in rows for cell in (row[1:] or row)]
    comma = separator != "," and not any(is_number(cell) and "." in cell for cell in inner)
    return equal, sum(is_number(cell, comma) for cell in inner) / len(inner), width


def _body(path: Path, content: bytes, separator: str) -> pa.Table | None:
    """The lines below the first one."""
    line_by_line = separator == SPACES or content[:1] in b"# \n" or any(mark in content for mark in UNEVEN)
    kept = [line for _, line in _kept(content)] if line_by_line else content.split(b"\n", 1)
    if len(kept) == 1:
        return None
    if separator == SPACES:
        kept = [b"\t".join(_words(line)) for line in kept]
    joined = b"\n".join([*kept[1:], b""])
    longest = max(len(line) for line in itertools.islice(_lines(joined), LOOKED_AT))
    width = len(_cells(next(_lines(joined)).decode(), "\t" if separator == SPACES else separator))
    try:
        return pyarrow.csv.read_csv(
            pa.py_buffer(joined),
            pyarrow.csv.ReadOptions(
                autogenerate_column_names=True, block_size=min(max(2**24, 4 * longest), LARGEST_BLOCK)
            ),
            pyarrow.csv.ParseOptions(
                delimiter="\t" if separator == SPACES else separator, newlines_in_values=b'"' in joined
            ),
            pyarrow.csv.ConvertOptions(
                column_types={f"f{j}": pa.string() for j in range(width)}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        _refuse_ragged(path, content, separator)
        raise ValueError(f"{path} cannot be cut into cells ({' '.join(str(error).split())[:200]})") from error


def _words(line: bytes) -> list[bytes]:
    if b'"' not in line:
        return line.split()
    return [cell.replace("\t", " ").encode() for cell in _cells(line.decode(), SPACES)]


def _refuse_ragged(path: Path, content: bytes, separator: str) -> None:
    """Name the first line below the first one that has another number of cells than the one before."""
    rows = ((number, len(_cells(line.decode(), separator))) for number, line in _kept(content))
    next(rows)
    begin, width = next(rows)
    for number, own in rows:
        if own != width:
            raise ValueError(
                f"{path}: line {number} has {own} cells and line {begin} has {width}; cells are separated by "
                f"{SEPARATORS.get(separator, separator)}, and every line must have equally many"
            )
