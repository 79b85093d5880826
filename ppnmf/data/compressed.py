"""Files that may be compressed: what kind lies below the compression, and what it holds."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from pathlib import Path
from typing import Any

__all__ = ["contents", "is_compressed", "kind_of", "stem_of"]

OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def is_compressed(path: Path) -> bool:
    return path.suffix.lower() in OPENERS


def kind_of(path: Path) -> str:
    """The suffix, in lower case; of a compressed file the one below.

    >>> kind_of(Path("counts.TSV.gz"))
    '.tsv'
    """
    inner = Path(path.stem) if is_compressed(path) else path
    return inner.suffix.lower()


def stem_of(path: Path) -> str:
    """The name without its suffixes.

    >>> stem_of(Path("folder/counts.tsv.gz"))
    'counts'
    """
    return Path(path.stem).stem if is_compressed(path) else path.stem


def contents(path: Path) -> bytes:
    """Everything in the file, decompressed. Raises ValueError where it is cut off or damaged."""
    if not is_compressed(path):
        return path.read_bytes()
    try:
        with OPENERS[path.suffix.lower()](path, "rb") as file:
            return file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the file system, not of what the file holds
        raise ValueError(
            f"{path} cannot be decompressed ({error}): it is cut off, or not what its name says"
        ) from error
