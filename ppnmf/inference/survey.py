r"""The survey: where chains begin on real data, whose posterior has many modes far apart.

A random start decides which mode a chain stays in, and most weigh many nats less than the heaviest. So climbs of ICM, cheap and
independent, come first. They find high modes, and a mode's mass is its height and its width: of a full survey's starts every other
one has Gibbs sweeps in place of a climb, which lead to wide modes more often. What decides is a race of Gibbs sweeps, by what
they say of the log mass of their mode (`inference.mass`). All starts run a few sweeps, the better half twice as many more, and so
on, until the chains' number is left. Chains begin there, each at another start, with random numbers of their own, and warm up;
what the survey left out is reported.

References: accelerated climbs as in `icm`; for the race, Karnin, Koren, Somekh (2013), sequential halving.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.inference import chain, icm
from ppnmf.inference.chain import State
from ppnmf.inference.clock import Clock
from ppnmf.inference.mass import Seen
from ppnmf.inference.record import Snapshot
from ppnmf.inference.start import SCALED
from ppnmf.matching import apart
from ppnmf.protocols import Matrix, Params, Sweeping, Sweeps
from ppnmf.rng import Stream
from ppnmf.surveyed import Survey

__all__ = ["Plan", "begin", "is_under_way", "planned", "run", "streams"]

STARTS, A_CHAIN = 24, 6  # starts by default: so many, and as many for each chain
SHARE = 0.4  # of the warm-up's sweeps; a warm-up is by default half of a run, of which this is a fifth
LEAST, FULL = 20, 400  # sweeps of each start, below which a survey tells nothing and above which no more
CLIMB = 0.5  # of a start's sweeps at least; the race has the rest
RACE = 100  # sweeps at most, which a long climb does not lengthen: of large X the best modes tell late
UNCLIMBED = 2  # every so many-th start of a full survey
LEVEL = 1e-6  # gain of a sweep, relatively, below which a climb of full length has ended
LARGEST = 2**26  # numbers in all starts' factors together, by default
REPLICATE = 2**20  # under which the starts have their streams, apart from every chain's
FACTORS = ("W", "H")
OF_THE_TIME = 1 / 2  # at most, where a run's is limited
PREFIX = "survey."


class Plan(NamedTuple):
    """How many starts, and what they do.

    Args:
        starts: how many. chains: how many of them are chosen.
        climb: sweeps of a climb at most, the ordinary ones it begins with included.
        rounds: of the race, the number that runs and their sweeps.
    """

    starts: int
    chains: int
    climb: int
    rounds: tuple[tuple[int, int], ...]

    @property
    def level(self) -> float:
        """Gain of a sweep, relatively, below which a climb has ended; a short one goes its whole way."""
        return LEVEL if self.is_full else 0.0

    @property
    def is_full(self) -> bool:
        """Whether there are sweeps enough for climbs to end, and for Gibbs sweeps to lead into a mode."""
        return self.climb > RACE

    @property
    def climbing(self) -> list[bool]:
        """Which starts climb; the others have Gibbs sweeps until the climbs end."""
        return [not self.is_full or start % UNCLIMBED != UNCLIMBED - 1 for start in range(self.starts)]

    @property
    def total(self) -> int:
        """Sweeps of a start that stays to the end."""
        return self.climb + sum(sweeps for _, sweeps in self.rounds)

    def round_at(self, done: int) -> tuple[int, range]:
        """The number that runs in the round that comes after so many sweeps, and which sweeps that round has."""
        begun = self.climb
        for count, sweeps in self.rounds:
            if done < begun + sweeps:
                return count, range(begun, begun + sweeps)
            begun += sweeps
        raise AssertionError("the race is over")


def planned(
    model: Sweeping, X: Matrix, chains: int, warmup: int | None, asked: int | None, climbs: bool = True
) -> Plan | None:
    """The survey of a run; None where the run is too short for one, or there would be no choice.

    Args:
        warmup: sweeps of each chain's warm-up; None: as many as it takes.
        asked: how many starts, each of the full length; by default the greater of 24 and 6 a chain, and of them and
            of their length as much as a share of the run's sweeps allows, and the memory.
        climbs: False for Gibbs sweeps alone.
    """
    budget = SHARE * chains * warmup if asked is None and warmup is not None else math.inf
    starts = asked
    if starts is None:
        sizes = model.sites(*X.shape).values()
        size = sum(math.prod(dims.values()) for dims in sizes)
        starts = int(min(max(STARTS, A_CHAIN * chains), budget / LEAST, LARGEST // size))
    if (starts <= chains and asked is None) or starts == 0:
        return None
    starts = max(starts, chains)
    each = int(max(LEAST, min(FULL, budget / starts)))
    climb, race = _split(each, climbs and _has_modes(model))
    counts = _halved(starts, chains)
    unit = max(1, race // len(counts))
    return Plan(starts, chains, climb, tuple((count, unit * 2**r) for r, count in enumerate(counts)))


def _split(each: int, climbs: bool) -> tuple[int, int]:
    """Sweeps of a start's climb, and those that the race has; without a climb ordinary NMF and a race as long as a short one.

    >>> _split(60, True), _split(400, True), _split(400, False)
    ((30, 30), (300, 100), (10, 190))
    """
    if not climbs:
        return icm.ORDINARY_SWEEPS, min(each, 2 * RACE) - icm.ORDINARY_SWEEPS
    climb = max(icm.ORDINARY_SWEEPS + 2, int(each * CLIMB), each - RACE)
    return climb, each - climb


def _has_modes(model: Sweeping) -> bool:
    """Whether there is anything to climb to: where priors are infinite at zero, the race begins after ordinary NMF."""
    try:
        model.require_modes()
    except ValueError:
        return False
    return True


def _halved(starts: int, chains: int) -> list[int]:
    """How many run in each round, so that each costs the same.

    >>> _halved(24, 4)
    [24, 12, 6]
    """
    counts = [starts]
    while counts[-1] // 2 > chains:
        counts.append(counts[-1] // 2)
    return counts


def streams(seed: int, plan: Plan) -> Stream:
    """The random numbers of the starts."""
    return Stream.of(seed, plan.starts, (REPLICATE,))


class Field(NamedTuple):
    """Where all starts of a survey stand; the leading axis S counts them.

    Args:
        params: of every start. before: W and H a sweep earlier in a climb, where its round began in the race.
        lp: log joint of a climb, in the end of the whole climb, (S,). reach, bound: as in `icm.Climb`.
        reached: the log mass by the sweeps that count, in the last round that a start ran in, (S,).
        below: how far that lies below the best of the round, (S,). sweeps: of the race, of each, (S,).
        running: the numbers of the starts that run.
        done: sweeps of those.
    """

    params: Params
    before: Params
    lp: Tensor
    reach: Tensor
    bound: Tensor
    reached: Tensor
    below: Tensor
    sweeps: Tensor
    running: Tensor
    done: int


def begin(model: Sweeping, X: Matrix, plan: Plan, stream: Stream) -> Params:
    """A survey before its first sweep, as the tensors by name that a checkpoint takes; those of the chains come first."""
    climb = icm.Climb.at(icm.begin(model, X, stream, SCALED, range(plan.starts)))
    nothing = torch.zeros_like(climb.lp)
    field = Field(
        *(climb.state.params, _factors(climb.before), climb.lp, climb.reach, climb.bound),
        *(nothing, nothing, nothing, torch.arange(plan.starts)),
        icm.ORDINARY_SWEEPS,
    )
    return _named(field, plan)


def is_under_way(params: Params) -> bool:
    """Whether what a record stands at is a survey, and not yet the chains."""
    return any(name.startswith(PREFIX) for name in params)


def run(
    model: Sweeping,
    X: Matrix,
    plan: Plan,
    stream: Stream,
    params: Params,
    save: Callable[[Snapshot], None],
    clock: Clock,
    tick: Callable[[int], Any],
) -> tuple[Params, Survey]:
    """Go on with a survey from where it stands: where the chains begin, (C, *site), and what was found.

    Args:
        params: as `begin` gives them. save: is told where the survey stands, now and then.
        clock: when a part of a run's time is over, the survey ends where it stands.
    """
    field = _read(params)
    seen: Seen | None = None
    tick(field.done)
    while field.done < plan.total and not (field.done > icm.ORDINARY_SWEEPS and clock.is_past(OF_THE_TIME)):
        before = field.done
        if field.done < plan.climb:
            field = _climbed(model, X, plan, stream, field)
        else:
            field, seen = _raced(model, X, plan, stream, field, seen)
        tick(field.done - before)
        if seen is None:
            save(Snapshot(_named(field, plan), 1 + field.done - plan.total))
    return _ended(X, plan, field)


def _climbed(model: Sweeping, X: Matrix, plan: Plan, stream: Stream, field: Field) -> Field:
    """Some sweeps of all climbs, and as many of the other starts; the race comes next where half of the climbs gain no more."""
    climbing = torch.tensor(plan.climbing)
    at, others = torch.nonzero(climbing)[:, 0], torch.nonzero(~climbing)[:, 0]
    begun, before = _of(field.params, at), _of(field.before, at)
    own = (values[_on(at, values)] for values in (field.lp, field.reach, field.bound))
    after, _, ended = icm.several(
        model, icm.Climb(State(begun, field.done), before, *own), X, plan.level, plan.climb - field.done
    )
    done = after.state.sweep
    field = field._replace(
        params=_put(field.params, at, after.state.params),
        before=_put(field.before, at, after.before),
        lp=field.lp.index_copy(0, _on(at, field.lp), after.lp.to(field.lp)),
        reach=field.reach.index_copy(0, _on(at, field.reach), after.reach),
        bound=field.bound.index_copy(0, _on(at, field.bound), after.bound),
    )
    while len(others) and field.done < done:
        number = min(_at_once(model, X, len(others)), done - field.done)
        field, _, lp = _swept(model, X, stream, field, others, number, range(number - 1, number))
        field = field._replace(lp=field.lp.index_copy(0, _on(others, field.lp), lp[:, -1].to(field.lp)))
    return field._replace(done=plan.climb if 2 * sum(ended) >= len(ended) else done)


def _raced(
    model: Sweeping, X: Matrix, plan: Plan, stream: Stream, field: Field, seen: Seen | None
) -> tuple[Field, Seen | None]:
    """Some Gibbs sweeps of those that run; the second half of a round's count, and are all that is seen of it."""
    count, sweeps = plan.round_at(field.done)
    if field.done == sweeps.start:
        field = _selected(field, count)
    number = min(_at_once(model, X, count), sweeps.stop - field.done)
    counted = sweeps[len(sweeps) // 2 :]
    kept = range(max(0, counted.start - field.done), number)
    field, draws, lp = _swept(model, X, stream, field, field.running, number, kept)
    if len(kept):
        seen = Seen.of(draws, lp) if seen is None else seen.after(draws, lp)
    if field.done < sweeps.stop or seen is None:
        return field, seen
    return _judged(field, len(sweeps), seen.log_mass(model, X)), None


def _swept(
    model: Sweeping, X: Matrix, stream: Stream, field: Field, at: Tensor, number: int, kept: range
) -> tuple[Field, Params, Tensor]:
    """Some Gibbs sweeps of the starts `at`; also their draws and log joints in those that are kept."""
    own = Stream(tuple(stream.keys[s] for s in at.tolist()))
    state = State(_of(field.params, at), 1 + field.done)
    state, draws, lp = chain.several(model, state, X, own, Sweeps(number=number, kept=kept))
    return field._replace(params=_put(field.params, at, state.params), done=field.done + number), draws, lp


def _at_once(model: Sweeping, X: Matrix, count: int) -> int:
    return chain.sweeps_at_once(X, model.rank, count) if chain.whole(X) else 1


def _selected(field: Field, count: int) -> Field:
    """The best of those that ran go on; all do in the first round."""
    best = _best(field.reached, field.running, count).sort().values
    return field._replace(running=best, before=_factors(field.params))


def _judged(field: Field, sweeps: int, log_mass: Tensor) -> Field:
    """What a round says of those that ran in it."""
    at = _on(field.running, field.reached)
    reached = log_mass.to(field.reached)
    return field._replace(
        reached=field.reached.index_copy(0, at, reached),
        below=field.below.index_copy(0, at, reached.max() - reached),
        sweeps=field.sweeps.index_add(0, at, torch.full_like(reached, sweeps)),
    )


def _best(reached: Tensor, running: Tensor, count: int) -> Tensor:
    """The numbers of the `count` best of those that run, best first; of equals the one with the lower number."""
    order = reached.cpu()[running].argsort(descending=True, stable=True)
    return running[order[:count]]


def _ended(X: Matrix, plan: Plan, field: Field) -> tuple[Params, Survey]:
    """The chains' beginnings and the report; what ended in its climb is judged by that."""
    unraced = field.sweeps == 0
    climbed = field.lp.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    field = field._replace(
        reached=torch.where(unraced, climbed, field.reached),
        below=torch.where(unraced, climbed.max() - climbed, field.below),
    )
    chosen = _best(field.reached, field.running, plan.chains)
    begun = {site: values.clone() for site, values in _of(field.params, chosen).items()}
    W, H = (field.params[site] for site in FACTORS)
    each = [apart(W, H, W[c], H[c], X.add_up) for c in chosen.tolist()]
    at = _on(chosen, W)
    moved = apart(W[at], H[at], field.before["W"][at], field.before["H"][at], X.add_up)
    found = Survey(
        climbed=tuple(field.lp.tolist()),
        reached=tuple(field.reached.tolist()),
        below=tuple(field.below.tolist()),
        sweeps=tuple(int(n) for n in field.sweeps),
        apart=tuple(torch.stack(each).min(0).values.tolist()),
        near=1.5 * float(moved.median()) + 0.02,
        chosen=tuple(chosen.tolist()),
    )
    return begun, found


def _factors(params: Params) -> Params:
    return {site: params[site] for site in FACTORS}


def _of(params: Params, at: Tensor) -> dict[str, Tensor]:
    """Of these starts."""
    return {site: values[_on(at, values)] for site, values in params.items()}


def _put(params: Params, at: Tensor, own: Params) -> dict[str, Tensor]:
    """With the values of these starts in their places."""
    return {site: values.index_copy(0, _on(at, values), own[site]) for site, values in params.items()}


def _on(at: Tensor, values: Tensor) -> Tensor:
    return at.to(values.device)


def _named(field: Field, plan: Plan) -> Params:
    """A field as tensors by name, behind those of as many chains; `_read` reads it back."""
    chains = {site: values[: plan.chains] for site, values in field.params.items()}
    whole = {f"{PREFIX}params.{site}": values for site, values in field.params.items()}
    before = {f"{PREFIX}before.{site}": values for site, values in field.before.items()}
    rest = {f"{PREFIX}{name}": getattr(field, name) for name in Field._fields[2:-1]}
    return {**chains, **whole, **before, **rest, f"{PREFIX}done": torch.tensor([field.done])}


def _read(named: Params) -> Field:
    parts = {
        what: {
            name.removeprefix(f"{PREFIX}{what}."): values
            for name, values in named.items()
            if name.startswith(f"{PREFIX}{what}.")
        }
        for what in ("params", "before")
    }
    rest: dict[str, Any] = {name: named[f"{PREFIX}{name}"] for name in Field._fields[2:]}
    rest |= {"running": rest["running"].cpu(), "done": int(rest["done"]), **parts}
    return Field(**rest)
