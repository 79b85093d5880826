"""How long chains run: for a number of sweeps, or until they agree or the time is up, in memory that does not grow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import one_of, real_number, whole_number
from ppnmf.identified import ESS_PER_CHAIN, LEAST_DRAWS, MIXED, judged
from ppnmf.inference import behind
from ppnmf.inference.chain import State, several, sweeps_at_once, whole
from ppnmf.inference.clock import Clock
from ppnmf.inference.mass import Seen
from ppnmf.inference.record import Recorder, Snapshot
from ppnmf.posterior import Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Collapsing, Matrix, Params, Sweeping, Sweeps
from ppnmf.rng import Stream

__all__ = ["Chains", "Ended", "Fixed", "Goal", "goal", "run", "run_until"]

UNTIL = ("agree",)
FIRST_LOOK, GROWTH = (
    200,
    1.3,
)  # sweeps until the chains are first looked at, and how many times as many until the next look
WARMUPS = (4, 2)  # a quarter of the sweeps is left out as warm-up, or a half, whichever agrees first
FRESH = 4  # of so many sweeps one draws the factors, and the others reflect them: more serve strengths, fewer W @ H
LEAST_KEPT = (
    1000  # draws of all chains, fewer of which could not show it: R-hat of one in a hundred quantities errs by more
)


class Fixed(NamedTuple):
    """Sweeps of a run whose length is known.

    Args:
        collapsed: take longer steps from halfway through the warm-up on (`Chains.with_longer_steps`).
    """

    warmup: int
    draws: int
    thin: int
    collapsed: bool = False


class Goal(NamedTuple):
    """When a run of unknown length may end.

    Args:
        target_ess: bulk and tail effective draws of everything that is judged.
        max_seconds: time of the whole run, its survey and what went before it was resumed included; None for no end.
        draws: kept of each chain, at most.
        warmup: sweeps before the first that is kept. thin: how far apart kept ones are at first.
    """

    target_ess: float
    max_seconds: float | None
    draws: int
    warmup: int
    thin: int


def goal(
    until: str | None,
    max_seconds: float | None,
    target_ess: float | None,
    draws: int,
    warmup: int | None,
    thin: int,
    chains: int,
) -> Goal | None:
    """What `until=` and its companions ask for; None for a run of fixed length.

    Raises:
        ValueError: a value out of its range, a companion without `until`, or draws too few to show it.
    """
    if until is None:
        for name, value in (("max_seconds", max_seconds), ("target_ess", target_ess)):
            if value is not None:
                raise ValueError(f"{name} is {value!r} and until is not given: give until='agree' too")
        return None
    one_of("until", until, UNTIL)
    if max_seconds is not None:
        real_number("max_seconds", max_seconds)
    wanted = ESS_PER_CHAIN * chains if target_ess is None else real_number("target_ess", target_ess)
    if chains * whole_number("draws", draws, 1) < LEAST_KEPT:
        raise ValueError(
            f"draws is {draws}; with until='agree' so many are kept at most, and {chains} chain(s) need "
            f"{math.ceil(LEAST_KEPT / chains)}"
        )
    if wanted > chains * draws / 2:
        raise ValueError(
            f"target_ess is {wanted:g}, and {chains} chain(s) keep {chains * draws} draws at most: raise draws to "
            f"{math.ceil(2 * wanted / chains)}"
        )
    return Goal(wanted, max_seconds, draws, warmup or 0, thin)


@dataclass(frozen=True, eq=False)
class Chains:
    """Chains that are run, and the record that they keep.

    Args:
        sites: whose draws are kept. moves: along the ridge.
        every: sweeps between checkpoints, if that was said.
        collapsed, fresh: as in `protocols.Sweeps`.
    """

    model: Sweeping
    X: Matrix
    stream: Stream
    recorder: Recorder
    sites: list[str]
    moves: bool
    every: int | None
    collapsed: tuple[str, ...] = ()
    fresh: int = 1

    @property
    def at_once(self) -> int:
        """Sweeps that are made together: many where they are compiled whole, and one costs little."""
        if not whole(self.X):
            return 1
        most = sweeps_at_once(self.X, self.model.rank, len(self.stream))
        return most if self.every is None else min(most, self.every)

    def asked(self, number: int, kept: range) -> Sweeps:
        """So many sweeps, of which some are kept, as these chains make them."""
        return Sweeps(number=number, kept=kept, moves=self.moves, collapsed=self.collapsed, fresh=self.fresh)

    def advance(self, state: State, kept: range, number: int) -> State:
        """So many sweeps, of which some are kept."""
        state, drawn, lp = several(self.model, state, self.X, self.stream, self.asked(number, kept))
        self._keep(drawn, lp)
        self.recorder.save(state)
        return state

    def _keep(self, drawn: Params, lp: Tensor) -> None:
        if lp.shape[1]:
            self.recorder.keep({site: drawn[site] for site in self.sites}, lp)

    @property
    def surveyed(self) -> bool:
        """Whether the chains began at the best of a survey's starts."""
        return behind.SURVEY in self.recorder.notes

    def watch(self, state: State, seen: Seen | None, kept: range, number: int, ends: bool) -> tuple[State, Seen | None]:
        """So many sweeps, of which some are kept and all are seen; what they say is noted where half of the watched ones ends.

        Args:
            seen: of the sweeps before, in this half.
        """
        state, drawn, lp = several(self.model, state, self.X, self.stream, self.asked(number, range(number)))
        own = slice(kept.start, kept.stop, kept.step)
        self._keep({site: values[:, own] for site, values in drawn.items()}, lp[:, own])
        seen = Seen.of(drawn, lp) if seen is None else seen.after(drawn, lp)
        if ends:
            self.recorder.notes = behind.noted(self.recorder.notes, seen, seen.log_mass(self.model, self.X))
            self.recorder.save(state)
            return state, None
        self.recorder.save(Snapshot({**state.params, **seen.named()}, state.sweep))
        return state, seen

    def caught_up(self, state: State) -> State:
        """The state from which the chains go on, those that lie far below the best one from that one's."""
        if not self.recorder.notes[behind.SURVEY].get("anew"):
            self.recorder.notes = behind.compared(self.recorder.notes)
        return behind.caught_up(self.recorder.notes, state)

    def with_longer_steps(self, state: State | None = None) -> Chains:
        """The chains with the longer steps that pay from a state on; without one, with those that the record knows of.

        They are chosen once, and the same after a run is resumed: from there on the chains are of one kind.
        """
        notes = self.recorder.notes
        if state is not None and "collapsed" not in notes:
            found: tuple[str, ...] = ()
            fresh = 1
            if self.moves and isinstance(self.model, Collapsing):
                found = self.model.longer_steps(state.params, self.X)
                fresh = FRESH if self.model.can_reflect() else 1
            self.recorder.notes = {**notes, "collapsed": list(found), "fresh": fresh}
        notes = self.recorder.notes
        return replace(self, collapsed=tuple(notes.get("collapsed", ())), fresh=notes.get("fresh", 1))

    def posterior(self, first: int) -> Posterior:
        """The draws from a number on, of this process's rows."""
        draws = {site: values[:, first:] for site, values in self.recorder.draws().items()}
        lp = self.recorder.lp()[:, first:]
        return Posterior(draws=draws, stats={"lp": lp}, model=self.model, X=self.X.here, method="gibbs", seed=0)


class Ended(NamedTuple):
    """How a run ended: the first draw that counts, what is to be said of it, and seconds by stage."""

    first: int
    attrs: dict[str, Any]
    seconds: dict[str, float]


def run(chains: Chains, state: State, length: Fixed, clock: Clock, progress: bool, seen: Seen | None = None) -> Ended:
    """The sweeps of a run of fixed length. Raises KeyboardInterrupt before the first draw is kept.

    Args:
        seen: of the sweeps before, where those are watched.
    """
    warmup, draws, thin, longer = length
    watched = behind.watched(warmup) if chains.surveyed else ()
    middle = warmup // 2
    stops = (*(at for half in watched for at in (half.start, half.stop)), middle, warmup, warmup + draws * thin)
    if longer:
        chains = chains.with_longer_steps()
    seconds = {"start": clock.gone} if state.sweep == 1 else {}
    with bar(warmup + draws * thin, f"gibbs, {len(chains.stream)} chain(s)", progress) as ticker:
        ticker.update(state.sweep - 1)
        try:
            for lot in _lots(state.sweep - 1, stops, chains.at_once):
                if lot.start == warmup:
                    seconds["warmup"] = clock.gone
                if watched and lot.start == middle:
                    state = chains.caught_up(state)
                if longer and lot.start == middle:
                    chains = chains.with_longer_steps(state)
                half = next((half for half in watched if lot.start in half), None)
                if half is not None:
                    state, seen = chains.watch(state, seen, range(0), len(lot), lot.stop == half.stop)
                else:
                    first = (thin - 1 - (lot.start - warmup)) % thin if lot.start >= warmup else len(lot)
                    state = chains.advance(state, range(first, len(lot), thin), len(lot))
                ticker.update(len(lot))
        except KeyboardInterrupt:
            if chains.recorder.done == 0:
                raise
    attrs: dict[str, Any] = {"warmup": warmup, "thin": thin, "interrupted": chains.recorder.done < draws}
    if longer:
        attrs["collapsed"] = list(chains.collapsed)
        attrs["fresh"] = chains.fresh
    return Ended(0, attrs, seconds)


def _lots(done: int, stops: Sequence[int], at_once: int) -> Iterator[range]:
    """The sweeps after the `done` first, some at a time; no lot goes on past one of the stops, which rise.

    >>> list(_lots(3, (4, 9), 3))
    [range(3, 4), range(4, 7), range(7, 9)]
    """
    for begin, stop in pairwise((done, *stops)):
        for lot in range(max(done, begin), stop, at_once):
            yield range(lot, min(lot + at_once, stop))


def run_until(chains: Chains, state: State, goal: Goal, clock: Clock, progress: bool, seen: Seen | None) -> Ended:
    """Sweeps until the chains agree or the time is up. Raises KeyboardInterrupt before the first draw is kept.

    Every `thin`-th sweep after the warm-up is kept. When the room is full, every second draw goes, and `thin` is doubled.
    The chains are looked at after 200 sweeps, 1.3 times as many, and so on, which a resumed run does at the same sweeps. The
    first look also chooses the longer steps (`Chains.with_longer_steps`), and which chains fell behind (`inference.behind`).
    """
    recorder = chains.recorder
    seconds = {"start": clock.gone} if state.sweep == 1 else {}
    with bar(None, f"gibbs, {len(chains.stream)} chain(s), until they agree", progress) as ticker:
        ticker.update(state.sweep - 1)
        try:
            ended, first = _until_ended(chains, state, seen, goal, clock, ticker)
        except KeyboardInterrupt:
            if recorder.done == 0:
                raise
            recorder.end_halving()
            ended, first = "interrupted", _first(goal, recorder, 2)
    thin = _thin(goal, recorder)
    attrs = {
        "warmup": goal.warmup + first * thin,
        "thin": thin,
        "interrupted": ended == "interrupted",
        "until": UNTIL[0],
        "ended": ended,
        "sweeps": recorder.latest_sweep - 1,
        "collapsed": recorder.notes.get("collapsed", []),
        "fresh": recorder.notes.get("fresh", 1),
        "target_ess": goal.target_ess,
        "max_seconds": goal.max_seconds,
    }
    return Ended(first, attrs, seconds)


def _until_ended(
    chains: Chains, state: State, seen: Seen | None, goal: Goal, clock: Clock, ticker: Any
) -> tuple[str, int]:
    """How the run ended, "agree" or "time", and the first draw that counts."""
    recorder = chains.recorder
    watched = behind.halves(range(FIRST_LOOK // 2, FIRST_LOOK)) if chains.surveyed else ()
    chains = chains.with_longer_steps()
    doubt = Doubt()
    while True:
        done = state.sweep - 1 - goal.warmup
        look = _next_look(done)
        if done == look:
            first, doubt = _verdict(chains, goal, doubt)
            if first is not None:
                return "agree", first
            ticker.set_postfix_str(str(doubt))
            if done == FIRST_LOOK and chains.surveyed:
                state = chains.caught_up(state)
            chains = chains.with_longer_steps(state)
            look = _next_look(done + 1)
        if recorder.done > _begun(goal, recorder) and clock.is_past():
            return "time", _first(goal, recorder, 2)
        if recorder.done == goal.draws:
            recorder.halve()
        half = next((half for half in watched if done in half), None)
        stop = min([look, *(half.start for half in watched if done < half.start)]) if half is None else half.stop
        number, kept = _next_sweeps(goal, recorder, done, min(chains.at_once, stop - done))
        if half is None:
            state = chains.advance(state, kept, number)
        else:
            state, seen = chains.watch(state, seen, kept, number, done + number == half.stop)
        ticker.update(number)


def _next_sweeps(goal: Goal, recorder: Recorder, done: int, most: int) -> tuple[int, range]:
    """How many sweeps may follow `done` of them after the warm-up, at most so many, and which are kept."""
    if done < 0:
        number = min(most, -done)
        return number, range(number, number)
    thin = _thin(goal, recorder)
    number = min(most, (goal.draws - recorder.done) * thin - done % thin)
    return number, range((thin - 1 - done) % thin, number, thin)


def _thin(goal: Goal, recorder: Recorder) -> int:
    """Sweeps from one kept draw to the next."""
    return int(goal.thin * 2 ** recorder.notes.get("halved", 0))


def _begun(goal: Goal, recorder: Recorder) -> int:
    """How many of the draws are from before chains that fell behind went on from the best one; none where none did."""
    anew = recorder.notes.get(behind.SURVEY, {}).get("anew", [])
    return -(-FIRST_LOOK // _thin(goal, recorder)) if any(anew) else 0


def _first(goal: Goal, recorder: Recorder, part: int) -> int:
    """The first draw that counts where at least the first of so many parts of all is left out."""
    return max(0, min(max(recorder.done // part, _begun(goal, recorder)), recorder.done - 1))


def _next_look(done: int) -> int:
    """The first look after so many sweeps or more.

    >>> [_next_look(done) for done in (-5, 200, 201, 261)]
    [200, 200, 260, 338]
    """
    look = float(FIRST_LOOK)
    while int(look) < done:
        look *= GROWTH
    return int(look)


class Doubt(NamedTuple):
    """A quantity that is not yet known well enough, and why; none where its name is empty."""

    name: str = ""
    why: str = ""
    by_rhat: bool = False

    def __str__(self) -> str:
        return f"{self.why} of {self.name}" if self.name else ""


def _verdict(chains: Chains, goal: Goal, before: Doubt) -> tuple[int | None, Doubt]:
    """The first draw that counts where the chains agree from it on, or what is in doubt; `before` is asked about first.

    A longer warm-up is tried where R-hat is too great, not where there are too few effective draws already.
    """
    doubt = before
    for part in WARMUPS:
        first = _first(goal, chains.recorder, part)
        doubt = _doubt(chains, goal, first, doubt.name)
        here = torch.tensor([float(bool(doubt.name)), float(doubt.by_rhat)], dtype=torch.float64)
        in_doubt, by_rhat = (chains.X.add_up(here) > 0).tolist()
        if not in_doubt:
            return first, Doubt()
        if not by_rhat:
            break
    return None, doubt


def _doubt(chains: Chains, goal: Goal, first: int, asked: str) -> Doubt:
    """The first quantity found that is not yet known well enough; `asked` is looked at before the others."""
    if chains.recorder.done - first < 4 * LEAST_DRAWS:
        return Doubt("all", "few draws")
    for quantity in judged(chains.posterior(first), first=asked):
        if quantity.rhat is not None and quantity.rhat > MIXED:
            return Doubt(quantity.name, f"R-hat {quantity.rhat:.3f}", by_rhat=True)
        few = [ess for ess in (quantity.ess_bulk, quantity.ess_tail) if ess is not None and ess < goal.target_ess]
        if few:
            return Doubt(quantity.name, f"{few[0]:.0f} effective draws")
    return Doubt()
