"""Files that are written whole or not at all, and locks that keep other processes from them."""

from __future__ import annotations

import csv
import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FULL",
    "Lock",
    "is_parquet",
    "remove_unfinished",
    "replacing",
    "require_table",
    "try_folder",
    "try_to_write",
    "write_table",
    "write_text",
]

FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}

OTHERS = {
    ".xlsx",
    ".xls",
    ".ods",
    ".json",
    ".html",
    ".nc",
    ".npy",
    ".npz",
    ".h5ad",
    ".gz",
    ".bz2",
    ".xz",
    ".zip",
    ".zst",
}  # ends of files that are no table's, or compressed

_numbers = itertools.count()
_unfinished: set[Path] = set()  # the new files that stand beside those whose place they will take


def write_text(path: str | Path, text: str) -> Path:
    """Replace a file by this text. Raises OSError as `replacing` does."""
    with replacing(path) as file:
        file.write(text.encode())
    return Path(path)


def require_table(path: str | Path) -> None:
    """Raise ValueError where a file's name ends as those of another kind do."""
    if Path(path).suffix.lower() in OTHERS:
        raise ValueError(f"path is {path}, and a table is written as text or Parquet: end its name in .csv or .parquet")


def is_parquet(path: str | Path) -> bool:
    """Whether the name says that a table is written as Parquet."""
    return Path(path).suffix.lower() == ".parquet"


def write_table(path: str | Path, heading: Iterable[Any], rows: Iterable[Iterable[Any]]) -> Path:
    """Replace a file by a table: Parquet where its name ends so, else text, separated by commas or, in .tsv, by tabs.

    Raises ValueError where the name is no table's, or Parquet would have two columns of one name; OSError as `replacing` does.
    """
    require_table(path)
    if is_parquet(path):
        return _write_parquet(Path(path), list(heading), list(rows))
    with replacing(path, lambda place: open(place, "x", encoding="utf-8", newline="")) as file:  # type: ignore[arg-type, return-value]
        lines = csv.writer(file, delimiter="\t" if Path(path).suffix.lower() in (".tsv", ".tab") else ",")
        lines.writerow(heading)
        lines.writerows(rows)
    return Path(path)


def _write_parquet(path: Path, heading: list[Any], rows: list[Iterable[Any]]) -> Path:
    import pyarrow
    from pyarrow import parquet

    names = [str(name) for name in heading]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise ValueError(
            f"path is {path}, and several columns are named {twice!r}, which Parquet cannot tell apart: write .csv"
        )
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(heading)
    table = pyarrow.table({name: list(column) for name, column in zip(names, columns, strict=True)})
    with replacing(path) as file:
        parquet.write_table(table, file)
    return path


@contextmanager
def replacing(path: str | Path, opened: Callable[[Path], IO[bytes]] | None = None) -> Iterator[Any]:
    """A new file that takes the place of `path` when the block is left; after an exception what was there stays.

    Until then it lies in the same folder under another name, and it has reached the disk before it is renamed. So
    whenever the process is killed, there is the file before or the one after.

    Args:
        opened: opens the new file, for writing.

    Raises:
        OSError: it cannot be written; the sentence names `path`, and says so when the disk is full.
    """
    target = Path(os.path.realpath(path))  # through a link, as `open` goes
    new = target.with_name(f"{target.name}.{os.getpid()}-{next(_numbers)}.new")
    _unfinished.add(new)
    try:
        _refuse_what_cannot_be_replaced(target)
        with opened(new) if opened is not None else new.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, new)
        os.replace(new, target)
    except OSError as error:
        _remove(new)
        raise _in_a_sentence(Path(path), error) from error
    except BaseException:
        _remove(new)
        raise
    _unfinished.discard(new)
    _sync(target.parent)


def try_to_write(path: str | Path) -> None:
    """Find out, before the work whose result it will hold, whether a file can be written. Nothing is left.

    Raises:
        OSError: it cannot, in a sentence that names `path`.
    """
    target = Path(os.path.realpath(path))
    new = target.with_name(f"{target.name}.{os.getpid()}-{next(_numbers)}.new")
    try:
        _refuse_what_cannot_be_replaced(target)
        new.open("xb").close()
    except OSError as error:
        raise _in_a_sentence(Path(path), error) from error
    finally:
        _remove(new)


def try_folder(path: str | Path) -> None:
    """Find out whether files can be written to a folder, or to the one in which it would be made. Nothing is left.

    Raises:
        OSError: they cannot, in a sentence that names `path`.
    """
    there = Path(os.path.abspath(path))
    while not there.exists():
        there = there.parent
    try:
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
        try_to_write(there / f"ppnmf-{os.getpid()}-is-there-room")  # no name that somebody uses
    except OSError as error:
        raise _in_a_sentence(Path(path), error) from error


def remove_unfinished() -> None:
    """Remove the files that are being written, where the process is about to end without leaving their blocks."""
    for path in list(_unfinished):
        _remove(path)


class Lock:
    """A file that one process holds at a time. The lock ends with the process; the file goes when it is given back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def take(self) -> bool:
        """Take the lock; False when another process has it. On systems without such locks it is always taken."""
        while True:
            file = self.path.open("ab")
            if fcntl is None:
                self._file = file
                return True
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            except OSError:  # a file system without locks
                pass
            if self._is_still(file):
                self._file = file
                return True
            file.close()  # the one before gave it back in between

    def give_back(self) -> None:
        """Let others take the lock; nothing happens where it was not taken."""
        if self._file is None:
            return
        with suppress(OSError):
            self.path.unlink(missing_ok=True)  # while it is ours, so that nobody else's is removed
        self._file.close()
        self._file = None

    def _is_still(self, file: IO[bytes]) -> bool:
        """Whether the file that was opened is the one that has the name."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False


def _refuse_what_cannot_be_replaced(target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not os.access(target, os.W_OK):  # a rename would not ask
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


def _in_a_sentence(path: Path, error: OSError) -> OSError:
    why = error.strerror or str(error)
    if error.errno in FULL:
        why = f"the disk is full ({why}): free some space, or give another place"
    elif not path.parent.is_dir():
        why = f"there is no folder {path.parent}"
    kept = "; the file that was there is as it was" if path.is_file() else ""
    sentence = type(error)(f"{path} cannot be written: {why}{kept}")
    sentence.errno = error.errno  # not strerror, beside which Python would leave the sentence out
    return sentence


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)  # what it took is wanted by others
    _unfinished.discard(path)


def _sync(folder: Path) -> None:
    """Bring a new name to the disk too."""
    if os.name != "posix":
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
