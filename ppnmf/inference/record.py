"""The record of a run: its draws, in memory or on disk, and checkpoints from which it goes on to the same bits."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from ppnmf import __version__
from ppnmf.checks import whole_number
from ppnmf.data.sharded import Sharded
from ppnmf.disk import FULL
from ppnmf.inference.checkpoint import Checkpoint, Saved, identity, refuse_other
from ppnmf.inference.store import Memory, Zarr
from ppnmf.protocols import Matrix, Model, Params

__all__ = ["Recorder", "Snapshot", "open"]

SECONDS = 60.0  # between checkpoints, where `every` does not say


class State(Protocol):
    """What a method's next step needs, such as `gibbs.State`."""

    @property
    def params(self) -> Params: ...
    @property
    def sweep(self) -> int: ...


class Snapshot(NamedTuple):
    """A state as the record knows it: parameters, and the number of the next sweep, from 1."""

    params: Params
    sweep: int


class _Halving(NamedTuple):
    """The next place to be filled, of how many draws before, and the how-manieth time it is."""

    place: int
    before: int
    times: int


class Recorder:
    """Keeps the draws of a run and, where it has a checkpoint, writes one now and then; made by `open`.

    As a context manager it writes a last checkpoint on leaving, also by Ctrl-C or another exception.

    Attributes:
        done: draws kept so far, in each chain.
        state: where the run goes on.
        seconds: spent on the run before this process took it up.
        notes: what the method wants to know again when the run goes on, as JSON can hold it; checkpoints keep it.
    """

    def __init__(
        self,
        kept: Memory | Zarr,
        facts: Mapping[str, Any],
        begin: Snapshot,
        checkpoint: Checkpoint | None = None,
        every: int | None = None,
        done: int = 0,
        seconds: float = 0.0,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        self._kept, self._facts, self._checkpoint, self._every = kept, facts, checkpoint, every
        self.state, self.done, self.seconds = begin, done, seconds
        self.notes: dict[str, Any] = dict(notes or {})
        self._latest: tuple[State, int] = begin, done  # a state, and the draws that were kept when it was reached
        self._written: tuple[State, int] | None = self._latest if checkpoint else None  # what the checkpoint holds
        self._began = time.monotonic()
        self._tried = self._began, begin.sweep  # when a checkpoint was last written, or could not be
        self._warned = False  # that it could not be, since it last could
        self._halving: _Halving | None = None  # begun, and perhaps not ended

    def keep(self, draws: Mapping[str, Tensor], lp: Tensor) -> None:
        """Keep n more draws (C, n, *site) of each site, and their log joint (C, n).

        Raises:
            OSError: the disk of the store is full; the draws before stay readable.
        """
        with _room(f"after {self.done} draw(s) of each chain, which stay readable"):
            self._kept.write(self.done, {**draws, "lp": lp})
        self.done += lp.shape[1]

    def save(self, state: State) -> None:
        """Tell the state to which the draws kept so far belong; a checkpoint is written when it is time."""
        self._latest = state, self.done
        if self._checkpoint is None:
            return
        if self._is_due(state.sweep):
            self._try_to_write()

    def _is_due(self, sweep: int) -> bool:
        if self._every is None:
            return time.monotonic() - self._tried[0] >= SECONDS
        return not 0 <= sweep - self._tried[1] < self._every

    def halve(self) -> None:
        """Leave every first one of two draws out, in place: the second, fourth ... become the first, second ...

        An interrupted call is ended by `end_halving`, which whoever reads the draws next, or writes them, calls.
        """
        self._halving = _Halving(0, self.done, self.notes.get("halved", 0) + 1)
        self.end_halving()

    def end_halving(self) -> None:
        """What `halve` has begun, and perhaps an interruption has left. Every step may be done again: a place is filled from
        one behind it, which is filled later."""
        if self._halving is None:
            return
        assert isinstance(self._kept, Memory), "the draws of a store cannot change"
        begun, before, times = self._halving
        for place in range(begun, before // 2):
            self._halving = _Halving(place, before, times)
            self._kept.write(place, self._kept.read(2 * place + 1, 2 * place + 2))
        self._halving = _Halving(before // 2, before, times)
        self.done = before // 2
        self.notes = {**self.notes, "halved": times}
        self._latest = self._latest[0], self.done
        if self._checkpoint is not None:
            self._checkpoint.anew(times)
        self._halving = None

    @property
    def latest_sweep(self) -> int:
        """The number of the next sweep, as the state that was told last has it."""
        return self._latest[0].sweep

    def draws(self) -> dict[str, Tensor]:
        """The draws kept so far (C, done, *site) of each site; those of a store are mapped from the disk, not read."""
        self.end_halving()
        return {name: values for name, values in self._kept.read(0, self.done).items() if name != "lp"}

    def lp(self) -> Tensor:
        """Their log joint, (C, done)."""
        self.end_halving()
        return self._kept.read(0, self.done)["lp"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.end_halving()
            if self._checkpoint is not None and self._latest is not self._written:
                self._try_to_write()
        finally:
            self.close()

    def close(self) -> None:
        self._kept.close()
        if self._checkpoint is not None:
            self._checkpoint.close()

    def _write(self) -> None:
        """Write a checkpoint of the state that was told last. Raises OSError when it cannot."""
        assert self._checkpoint is not None
        state, done = latest = self._latest
        in_files = isinstance(self._kept, Memory)
        fresh = self._kept.read(self._checkpoint.saved, done) if in_files else None
        self._kept.sync()
        seconds = self.seconds + time.monotonic() - self._began
        facts = {**self._facts, "sweep": state.sweep, "done": done, "seconds": seconds, "notes": self.notes}
        self._checkpoint.write(facts, state.params, fresh, done)
        self._written = latest

    def _try_to_write(self) -> None:
        """A run is not ended for want of a checkpoint: the next one may find room."""
        assert self._checkpoint is not None
        try:
            self._write()
            self._warned = False
        except OSError as error:
            if not self._warned:
                warnings.warn(
                    f"no checkpoint could be written to {self._checkpoint.path} ({_reason(error)}): the one before "
                    "is whole, and the run goes on, trying again; free some space",
                    stacklevel=4,
                )
            self._warned = True
        self._tried = time.monotonic(), self._latest[0].sweep


def open(
    model: Model,
    X: Matrix,
    begin: Callable[[], Params],
    *,
    sites: Sequence[str],
    draws: int,
    plan: Mapping[str, Any],
    checkpoint: str | Path | None = None,
    every: int | None = None,
    resume: str | Path | None = None,
    store: str | Path | None = None,
) -> Recorder:
    """The record of a new run, or of one that goes on.

    Args:
        begin: makes the parameters before the first sweep, where nothing is resumed.
        sites: whose draws are kept; draws: how many, in each chain.
        plan: the other options that fix the draws: method, seed, chains, warmup, thin ...
        checkpoint: the folder of the checkpoint.
        every: sweeps from one to the next; about a minute by default. When it is written changes no draw.
        resume: the folder of the checkpoint that the run goes on from, and keeps up. It must be of the same data, model
            and plan, but may ask for more draws, or for fewer if it has no more yet. Given as `checkpoint` too, the
            run begins where nothing is there: one command, however often it is killed.
        store: a Zarr store that takes the draws as they come, for which draws cannot change afterwards; a checkpoint
            then holds the state alone.

    Raises:
        TypeError: X is spread over processes.
        ValueError: the checkpoint or the store is not this run's, or is there and `resume` does not say to use it.
        OSError: they cannot be written.
    """
    if every is not None:
        whole_number("every", every, 1)
    folder = resume if checkpoint is None else checkpoint
    if folder is None and every is not None:
        raise ValueError(f"every is {every}, and there is no checkpoint to write: give checkpoint= too")
    if folder is None and store is None:
        params = begin()
        return Recorder(Memory(*_layout(params, sites, draws, X), X.device), {}, Snapshot(params, 1))
    if isinstance(X, Sharded):
        raise TypeError("checkpoint= and store= keep a run of one process, and the rows of X are spread over several")
    told = identity(model, X, {**plan, "keep": list(sites)})
    dims = {site: list(own) for site, own in model.sites(*X.shape).items()}
    with _room("at the beginning"):
        if folder is None:
            params = begin()
            kept = Zarr(store, *_layout(params, sites, draws, X), dims, told)  # type: ignore[arg-type]
            return Recorder(kept, {}, Snapshot(params, 1))
        if resume is not None and Path(resume).absolute() != Path(folder).absolute():
            raise ValueError(f"checkpoint is {checkpoint} and resume {resume}: a run goes on in one folder, give that")
        point = Checkpoint(folder)
        if resume is None and point:
            raise ValueError(f"there is a checkpoint in {folder} already: go on from it by resume=, or remove it")
        point.hold(must_exist=checkpoint is None)
        held: Checkpoint | Recorder = point
        try:
            held = recorder = _opened(point, told, X, begin, sites, dims, draws, every, store, again=resume is not None)
            if not point:
                recorder._write()  # now, so that a folder in which nothing can be written is known at once
        except BaseException:
            held.close()
            raise
        return recorder


def _opened(
    point: Checkpoint,
    told: Mapping[str, Any],
    X: Matrix,
    begin: Callable[[], Params],
    sites: Sequence[str],
    dims: Mapping[str, list[str]],
    draws: int,
    every: int | None,
    store: str | Path | None,
    again: bool,
) -> Recorder:
    """The record of a run with a checkpoint, which may be there."""
    saved: Saved | None = None
    facts: dict[str, Any] = {"identity": told, "ppnmf": __version__, "device": X.device.type}
    if point:
        saved = point.read()
        refuse_other(f"the checkpoint in {point.path}", saved.facts["identity"], told)
        _warn_of_other_bits(point.path, saved.facts, facts)
        store = _store_of(saved.facts, store, point.path)
        if draws < saved.facts["done"]:
            raise ValueError(
                f"draws is {draws}, and the checkpoint in {point.path} holds {saved.facts['done']}: ask for more"
            )
    params = begin() if saved is None else {site: values.to(X.device) for site, values in saved.params.items()}
    layout = _layout(params, sites, draws, X)
    done = 0 if saved is None else saved.facts["done"]
    kept: Memory | Zarr
    if store is None:
        kept = Memory(*layout, X.device)
        for first, values in point.draws():
            kept.write(first, values)
    else:
        kept = Zarr(store, *layout, dims, told, again)
        if not kept.holds(done):
            kept.close()
            raise ValueError(f"store is {store}, which lacks some of the {done} draws that the checkpoint has noted")
    facts["store"] = None if store is None else str(Path(store).absolute())
    sweep, seconds = (1, 0.0) if saved is None else (saved.facts["sweep"], saved.facts["seconds"])
    notes = {} if saved is None else saved.facts.get("notes", {})
    return Recorder(kept, facts, Snapshot(params, sweep), point, every, done, seconds, notes)


def _layout(
    params: Params, sites: Sequence[str], draws: int, X: Matrix
) -> tuple[dict[str, tuple[int, ...]], int, int, dict[str, torch.dtype]]:
    """Shapes of a draw, chains, draws, types."""
    shapes = {site: tuple(params[site].shape[1:]) for site in sites}
    dtypes = {site: params[site].dtype for site in sites}
    return {**shapes, "lp": ()}, len(next(iter(params.values()))), draws, {**dtypes, "lp": torch.float64}


def _store_of(saved: Mapping[str, Any], store: str | Path | None, path: Path) -> str | Path | None:
    """The store that goes with a checkpoint: the one that is given (it may have moved), or the one it notes."""
    if saved["store"] is None and store is not None:
        raise ValueError(f"the checkpoint in {path} keeps its draws itself: leave store out")
    found = saved["store"] if store is None else store
    if found is not None and not Path(found).is_dir():
        raise ValueError(f"the draws of the checkpoint in {path} are not in {found}: give their place as store=")
    return found


def _warn_of_other_bits(path: Path, saved: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    changed = [f"{name} {saved[name]}, not {facts[name]}" for name in ("ppnmf", "device") if saved[name] != facts[name]]
    if changed:
        warnings.warn(
            f"the checkpoint in {path} was written with {' and '.join(changed)}: the run goes on, but its draws may not "
            "be the bits of an uninterrupted one",
            stacklevel=5,
        )


def _reason(error: OSError) -> str:
    return str(error) if error.errno is None else os.strerror(error.errno)


@contextmanager
def _room(when: str) -> Iterator[None]:
    """A full disk in one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        full = OSError(f"the disk is full ({_reason(error)}) {when}: free some space, and resume or begin anew")
        full.errno = error.errno
        raise full from error
