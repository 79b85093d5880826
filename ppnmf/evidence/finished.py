"""The finished scores of `select_rank` in a JSON file, so that a run that was cut off goes on."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ppnmf.disk import Lock, try_to_write, write_text
from ppnmf.evidence.estimate import Evidence
from ppnmf.evidence.heldout import HeldOut
from ppnmf.evidence.score import Measure
from ppnmf.fingerprints import fingerprint
from ppnmf.protocols import Matrix, Model

__all__ = ["Finished", "identity"]

FORMAT = 2
KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Evidence, HeldOut, Measure)}


def identity(model: Model, options: Mapping[str, Any]) -> dict[str, Any]:
    """What fixes a score beside the data and the seed, as JSON holds it."""
    told = {name: fingerprint(options[name]) for name in sorted(options)}
    return {"model": model.name, "hyperparameters": fingerprint(model.config()), "options": told}


class Finished:
    """Scores by name, each with the identity of what it is a score of; the file is replaced whole or not at all.

    As a context manager it keeps other runs from the file that it writes.

    Args:
        write: the file that takes each further score; None: it is `read`, if that is given.
        read: a file that is there, to go on from; it may also be `write`, which then need not be there.

    Raises:
        ValueError: there is no such file, it cannot be read, or it is of other data or another seed; the file to write
            is there and not read, or another run writes to it.
        OSError: the file cannot be written.
    """

    def __init__(self, write: str | Path | None, read: str | Path | None, X: Matrix, seed: int) -> None:
        self._path = None if write is None and read is None else Path(write if write is not None else read)  # type: ignore[arg-type]
        self._entries: dict[str, dict[str, Any]] = {}
        if self._path is None:
            return
        if self._path.is_dir() or not self._path.parent.is_dir():
            raise ValueError(f"checkpoint is {self._path}; give the name of a JSON file in a folder that is there")
        self._run = {"data": fingerprint(X), "seed": seed}
        self._warned = False  # that a score could not be written, since one last could
        self._lock = Lock(self._path.with_name(f"{self._path.name}.lock"))
        try_to_write(self._path)
        if not self._lock.take():
            raise ValueError(f"another run is writing to {self._path}: wait for it, or end it")
        try:
            if read is not None:
                self._read(Path(read), may_begin=write is not None and Path(write) == Path(read))
            if self._path.exists() and (read is None or Path(read) != self._path):
                raise ValueError(f"there is a file {self._path} already: go on from it by resume=, or remove it")
        except BaseException:
            self._lock.give_back()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is not None:
            self._lock.give_back()

    def get(self, name: str, about: Mapping[str, Any]) -> Any:
        """The score of this name, or None. Raises ValueError when it is of another model or of other options."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        for what, theirs in entry["of"].items():
            if theirs == about[what]:
                continue
            if what == "options":
                options = sorted(o for o in {*theirs, *about[what]} if theirs.get(o) != about[what].get(o))
                raise ValueError(
                    f"{self._path} holds {name} with other options ({', '.join(options)}): ask for the same, or begin a new file"
                )
            raise ValueError(
                f"{self._path} holds {name} of another model (its kind, rates or noise): resume with the same model"
            )
        return _score(entry)

    def add(self, name: str, about: Mapping[str, Any], score: Any) -> None:
        """Write the score, if it is of a kind that we know; where it cannot be, warn and go on."""
        if self._path is None or type(score).__name__ not in KINDS:
            return
        self._entries[name] = {"of": dict(about), "kind": type(score).__name__, "score": dataclasses.asdict(score)}
        try:
            write_text(self._path, json.dumps({"format": FORMAT, **self._run, "scores": self._entries}))
            self._warned = False
        except OSError as error:  # the next one may find room, and takes this one with it
            if not self._warned:
                warnings.warn(f"{error}; the ranks go on, and it is tried again with each", stacklevel=3)
            self._warned = True

    def _read(self, path: Path, may_begin: bool) -> None:
        if not path.exists():
            if may_begin:
                return
            raise ValueError(f"there is no file {path} to resume from: leave resume out to begin anew")
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["format"] != FORMAT:
                raise ValueError(f"it has format {saved['format']}, and this ppnmf reads {FORMAT}")
            run, entries = {"data": saved["data"], "seed": saved["seed"]}, dict(saved["scores"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a file of select_rank's that can be read ({error}): begin anew") from error
        if run["data"] != self._run["data"]:
            raise ValueError(f"{path} is of other data (X, its mask or its floating type): resume with the same X")
        if run["seed"] != self._run["seed"]:
            raise ValueError(
                f"{path} was begun with seed={run['seed']}, and this run has {self._run['seed']}: ask for the same, or begin anew"
            )
        self._entries = entries


def _score(entry: Mapping[str, Any]) -> Any:
    """The score that was written; JSON knows no tuples."""
    kind = KINDS[entry["kind"]]
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    return kind(**{n: tuple(v) if fields[n].startswith("tuple") else v for n, v in entry["score"].items()})
