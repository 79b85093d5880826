"""Checkpoints of a run in a folder, each written whole or not at all, and the identity of a run."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.disk import Lock, replacing
from ppnmf.fingerprints import SIMPLE, fingerprint
from ppnmf.protocols import Matrix, Model, Params

__all__ = ["Checkpoint", "Saved", "identity", "refuse_other"]

STATE, FORMAT = "state.npz", 1
OWN = re.compile(r"(draws-\d{9,}-\d{9,}(-\d+)?|state)\.npz(\.\S*new)?")  # the names of the files that we make


class Saved(NamedTuple):
    """What a checkpoint holds beside the draws."""

    facts: dict[str, Any]
    params: dict[str, Tensor]


class Checkpoint:
    """A folder with files of draws, draws-<first>-<last>.npz, and `state.npz`, which names those that count.

    Draws that were changed go into new files, draws-<first>-<last>-<edition>.npz, and those before are removed once the
    state names the new ones.

    Every file is written under another name, brought to the disk, and then renamed; the state comes last. So whenever
    a process is killed, the folder holds the checkpoint before or the one after, and files that do not count.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._files: list[tuple[int, int]] = []  # (first, last) of each file that counts
        self._edition = 0  # of the draws in them
        self._lock = Lock(self.path / "lock")

    def __bool__(self) -> bool:
        """Whether there is something to resume."""
        return (self.path / STATE).is_file()

    def hold(self, must_exist: bool) -> None:
        """Make the folder, and keep other processes out of it until `close`."""
        if must_exist and not self:
            raise ValueError(f"there is no checkpoint in {self.path}: leave resume out to begin anew")
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"checkpoint is {self.path}, which is not a folder: give the name of one")
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._lock.take():
            raise ValueError(f"another run is writing to the checkpoint {self.path}: wait for it, or end it")
        for path in self.path.glob("*.new"):
            if OWN.fullmatch(path.name):  # of a run that was killed
                path.unlink(missing_ok=True)

    def close(self) -> None:
        self._lock.give_back()

    def read(self) -> Saved:
        """The facts and the state. Raises ValueError when they cannot be read."""
        arrays = self._load(STATE)
        try:
            facts = json.loads(arrays.pop("facts").tobytes())
            if facts["format"] != FORMAT:
                raise ValueError(f"it has format {facts['format']}, and this ppnmf reads {FORMAT}")
            self._files = [(first, last) for first, last in facts["files"]]
            self._edition = facts.get("edition", 0)
            orders = facts["orders"]
        except (KeyError, ValueError) as error:
            raise self._unreadable(STATE, error) from error
        params = {
            site: torch.from_numpy(values).permute(*np.argsort(orders[site]).tolist())
            for site, values in arrays.items()
        }
        return Saved(facts, params)

    def draws(self) -> list[tuple[int, dict[str, Tensor]]]:
        """The number of the first draw, and the draws (C, n, ...), of each file; other files are removed."""
        self._remove_others()
        return [
            (first, {name: torch.from_numpy(values) for name, values in self._load(self._file(first, last)).items()})
            for first, last in self._files
        ]

    def anew(self, edition: int) -> None:
        """The draws have changed: the next `write` takes all of them."""
        self._files, self._edition = [], edition

    def _remove_others(self) -> None:
        """Files that do not count."""
        told = {self._file(first, last) for first, last in self._files}
        for path in self.path.iterdir():
            if OWN.fullmatch(path.name) and path.name not in {*told, STATE}:
                path.unlink(missing_ok=True)

    def _file(self, first: int, last: int) -> str:
        edition = f"-{self._edition}" if self._edition else ""
        return f"draws-{first:09}-{last:09}{edition}.npz"

    def write(self, facts: Mapping[str, Any], params: Params, draws: Mapping[str, Tensor] | None, done: int) -> None:
        """Replace the checkpoint.

        Args:
            facts: what JSON can hold.
            params: the state's tensors.
            draws: those (C, n, ...) that no file holds yet, up to number `done`; None when they lie elsewhere.

        Raises:
            OSError: the disk is full, or worse; the checkpoint before is as it was.
        """
        files, saved = self._files, self.saved
        if draws is not None and done > saved:
            self._replace(self._file(saved, done), {name: _array(values) for name, values in draws.items()})
            files = [*files, (saved, done)]
        orders = {site: _order(values) for site, values in params.items()}
        about = {**facts, "format": FORMAT, "files": files, "edition": self._edition, "orders": orders}
        arrays = {site: _array(values.permute(*orders[site])) for site, values in params.items()}
        self._replace(STATE, {"facts": np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays})
        changed = bool(files) and files[0] not in self._files and self._edition > 0
        self._files = files
        if changed:
            self._remove_others()

    @property
    def saved(self) -> int:
        """How many draws the files hold."""
        return self._files[-1][1] if self._files else 0

    def _replace(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        with replacing(self.path / name) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def _load(self, name: str) -> dict[str, np.ndarray]:
        try:
            with (self.path / name).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: Exception) -> ValueError:
        return ValueError(f"{self.path / name} is not a checkpoint's file that can be read ({error}): begin anew")


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _order(values: Tensor) -> list[int]:
    """The axes from the slowest to the fastest in memory: a product of the same numbers otherwise laid out may round
    differently."""
    strides = values.stride()
    return sorted(range(values.ndim), key=lambda axis: (-strides[axis], axis))


def identity(model: Model, X: Matrix, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What fixes every draw of a run, as JSON holds it: data, model, and the plan (seed, chains, ...)."""
    told = {"data": fingerprint(X), "model": model.name, "hyperparameters": fingerprint(model.config())}
    return told | {
        name: value if isinstance(value, SIMPLE) else fingerprint(getattr(value, "draws", value))
        for name, value in plan.items()
    }


def refuse_other(what: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise ValueError, in one sentence, when a run of one identity cannot go on as the other."""
    for name, value in ours.items():
        if theirs.get(name) == value:
            continue
        if name == "data":
            raise ValueError(f"{what} is of other data (X, its mask or its floating type): resume with the same X")
        if name == "model":
            raise ValueError(
                f"{what} is of another model ({theirs.get(name)}, not {value}): resume with the same model"
            )
        if name == "hyperparameters":
            raise ValueError(f"{what} is of another model (rank, rates or noise differ): resume with the same model")
        raise ValueError(
            f"{what} was begun with {name}={theirs.get(name)!r}, and this run has {value!r}: ask for the same, or begin anew"
        )
