"""Matrix Market files, and the folders of 10x Genomics, which hold one with its names beside it."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ppnmf.data.compressed import contents, is_compressed
from ppnmf.data.found import Found, Reading

__all__ = ["folder", "mtx"]

PARTS = {"cells": ("barcodes",), "genes": ("features", "genes")}


def mtx(path: Path, reading: Reading) -> Found:
    """The matrix, sparse where the file is."""
    return Found(_matrix(path))


def _matrix(path: Path) -> Any:
    from scipy.io import mmread

    with path.open("rb") as file:
        banner = file.readline(200)
    source: Any = path
    if is_compressed(path) or b"integer" in banner.lower():
        # SciPy cuts 2.9 to 2 in a file that says it holds integers; read as real numbers it stays what it is
        text = contents(path)
        first, newline, rest = text.partition(b"\n")
        first = re.sub(rb"integer", b"real", first, flags=re.IGNORECASE)
        source = io.BytesIO(first + newline + rest)
    try:
        return mmread(source)
    except (ValueError, OSError, OverflowError) as error:
        raise ValueError(f"{path} is not a Matrix Market file that can be read ({error})") from error


def folder(path: Path, reading: Reading) -> Found:
    """A folder as 10x Genomics writes it: matrix.mtx, barcodes.tsv, features.tsv (or genes.tsv), compressed or not.

    Cells are rows of X, named by their barcodes; genes are columns, named by their symbols. Genes that share a symbol
    have their identifier behind it.

    Raises:
        ValueError: the folder does not hold one of each, or they do not fit.
    """
    matrix = _part(path, ("matrix",), "mtx")
    prefix = matrix.name.split("matrix.mtx")[0]
    cells, genes = (_part(path, names, "tsv", prefix) for names in PARTS.values())
    X = _matrix(matrix).T
    rows = [line[0] for line in _lines(cells)]
    columns = _symbols(_lines(genes))
    if X.shape != (len(rows), len(columns)):
        raise ValueError(
            f"{path}: {matrix.name} has {X.shape[1]} genes and {X.shape[0]} cells; {genes.name} names {len(columns)} and "
            f"{cells.name} {len(rows)}"
        )
    return Found(X, np.array(rows), np.array(columns), [f"cells are rows, from {matrix.name}"])


def _part(path: Path, names: tuple[str, ...], suffix: str, prefix: str = "*") -> Path:
    found = sorted(file for name in names for file in path.glob(f"{prefix}{name}.{suffix}*"))
    if len(found) != 1:
        wanted = " or ".join(f"{name}.{suffix}" for name in names)
        raise ValueError(
            f"{path} is a folder with {len(found)} files {wanted}; give a file, or a folder with one matrix.mtx, barcodes.tsv and "
            "features.tsv (10x Genomics), compressed or not"
        )
    return found[0]


def _lines(path: Path) -> list[list[str]]:
    text = contents(path).decode("utf-8-sig", errors="replace")
    return [line for line in csv.reader(io.StringIO(text), delimiter="\t") if line]


def _symbols(genes: list[list[str]]) -> list[str]:
    symbols = [line[1] if len(line) > 1 else line[0] for line in genes]
    times = Counter(symbols)
    return [
        symbol if times[symbol] == 1 else f"{symbol} ({line[0]})" for symbol, line in zip(symbols, genes, strict=True)
    ]
