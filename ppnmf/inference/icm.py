"""Iterated conditional modes: the mode of the log joint, by the Gibbs sweep with every draw replaced by its mode.

Schmidt, Winther, Hansen (2009), section 4. Each step maximises the log joint over one block, so it never falls. Two
things make the climb quick. Products with X are dear and passes over a factor's components cheap, so a sweep goes
through each factor several times with the same products (Gillis and Glineur 2012, doi:10.1162/NECO_a_00256). And a sweep
begins ahead of where the climb stands, in the direction of its last step, unless that lowers the log joint (Ang and
Gillis 2019, doi:10.1162/neco_a_01157).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import real_number, whole_numbers
from ppnmf.data.matrix import Dense
from ppnmf.data.sharded import log_prior
from ppnmf.inference import record
from ppnmf.inference.chain import Info, State
from ppnmf.inference.room import require_room
from ppnmf.inference.start import Start, start
from ppnmf.posterior import Kind, Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Climbing, Matrix, Pace, Params, Read, Sweeping, Sweeps, require_ability
from ppnmf.rng import Stream
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["Climb", "advance", "begin", "dead_components", "run", "several", "step"]

ORDINARY_SWEEPS = 10
REACH, GROWTH, BOUND_GROWTH, RETREAT = 0.5, 1.01, 1.005, 1.5  # Ang and Gillis's β, γ, γ̄ and η for HALS


class Climb(NamedTuple):
    """Where C climbs stand, and how far ahead of that their next sweep begins."""

    state: State
    before: Params  # W and H a sweep earlier; the state's own where there was none
    lp: Tensor  # log joint of the state, (C,); -inf where it has not been computed
    reach: Tensor  # the next sweep begins at W + reach · (W - W before), and so for H; (C,)
    bound: Tensor  # the most that reach may grow to, (C,)

    @classmethod
    def at(cls, state: State) -> Climb:
        """A climb that has not begun."""
        one = state.params["W"].new_ones(len(state.params["W"]), dtype=torch.float64)
        return cls(
            state,
            state.params,
            torch.full_like(one, -torch.inf),
            torch.full_like(one, REACH),
            one,
        )


@own_settings()
def step(model: Sweeping, state: State, X: Matrix) -> tuple[State, Info]:
    """One sweep of modes: the factors, the noise variance or what else there is, and the scales of the components."""
    return _swept(model, state, X, Sweeps(read=Read.MODE))


def _swept(model: Sweeping, state: State, X: Matrix, asked: Sweeps) -> tuple[State, Info]:
    swept = model.sweep(state.params, X, asked, None)
    lp = swept.log_likelihood[:, -1] + log_prior(model, X, swept.params)
    return State(swept.params, state.sweep + asked.number), Info(lp)


def advance(model: Sweeping, climb: Climb, X: Matrix, tol: float = 0.0) -> tuple[Climb, Info]:
    """One sweep begun ahead of the climb, or an ordinary one where that gains no more than tol, relatively.

    So the log joint never falls, and one that has changed by less than tol has done so in an ordinary sweep.
    """
    state, before, lp, reach, bound = climb
    ahead = {site: _beyond(before[site], state.params[site], reach) for site in ("W", "H")}
    after, info = step(model, State({**state.params, **ahead}, state.sweep), X)
    failed = ~(info.lp - lp > tol * info.lp.abs().clamp(min=1.0))  # NaN fails too
    grown = torch.minimum(GROWTH * reach, bound), (BOUND_GROWTH * bound).clamp(max=1.0)
    if bool(failed.any()):
        ordinary, own = step(model, _of(state, failed), X)
        after, info = _replaced(after, failed, ordinary), Info(info.lp.masked_scatter(failed, own.lp))
        grown = torch.where(failed, reach / RETREAT, grown[0]), torch.where(failed, reach, grown[1])
    return Climb(after, state.params, info.lp, *grown), info


def _replaced(state: State, chosen: Tensor, by: State) -> State:
    """The state with the chains that are True in `chosen` (C,) taken from `by`, which holds no others."""
    if bool(chosen.all()):
        return by
    at = chosen.nonzero()[:, 0]
    return State({site: v.index_copy(0, at, by.params[site]) for site, v in state.params.items()}, by.sweep)


def _beyond(before: Tensor, now: Tensor, reach: Tensor) -> Tensor:
    """now + reach · (now - before), cut off at zero."""
    return torch.lerp(before, now, (1 + reach[:, None, None]).to(now.dtype)).clamp_(min=0)


def begin(model: Sweeping, X: Matrix, stream: Stream, init: Start, restarts: Sequence[int]) -> State:
    """The state before the first sweep: a named start, then ten sweeps of ordinary NMF (flat priors).

    At the start the noise looks as large as the data; a prior would shrink components to zero against it, and zero is
    absorbing: W_k = 0 makes H_k = 0. Given values are taken as they are.

    Args:
        stream: a key for each of the `restarts`, which are their numbers in the run.
    """
    starts = [
        start(model, X, Stream((key,)), init, [number]) for key, number in zip(stream.keys, restarts, strict=True)
    ]
    params: Params = {site: torch.cat([own[site] for own in starts]) for site in starts[0]}
    if isinstance(init, str):
        params = model.sweep(params, X, Sweeps(read=Read.MODE, number=ORDINARY_SWEEPS, flat=True), None).params
    return State(params, 1)


@own_settings()
def run(
    model: Sweeping,
    X: Dense,
    *,
    restarts: int = 1,
    tol: float = 1e-6,
    max_sweeps: int = 2000,
    seed: int = 0,
    init: Start = "scaled",
    checkpoint: str | Path | None = None,
    every: int | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
) -> Posterior:
    """Climb to a mode from each of `restarts` starts, side by side; each is a chain of one draw.

    Args:
        model: a Gaussian model; its rates may be zero (then `lp` drops the prior's constant).
        tol: a restart has converged when an ordinary sweep changes its log joint by less than this, relatively.
        max_sweeps: a restart that has not converged by then is left there, with a warning. (A sweep begun ahead that
            had to be taken back does not count.)
        checkpoint, every, resume: for long runs, see `record.open`.

    Returns: a Posterior; attrs hold "sweeps", "converged" and "dead_components" of each restart, and "interrupted":
        after Ctrl-C every restart is where it stood.

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count or a tolerance out of its range.
        KeyboardInterrupt: Ctrl-C before the first sweep was done.
    """
    require_ability("icm", model, Sweeping)
    whole_numbers(restarts=(restarts, 1), max_sweeps=(max_sweeps, 1))
    real_number("tol", tol, 0)
    require_room(model, X, restarts, 1)
    began = time.perf_counter()
    recorder = record.open(
        model,
        X,
        lambda: _named(*_at_the_foot(begin(model, X, Stream.of(seed, restarts), init, range(restarts)))),
        sites=(),
        draws=1,
        plan={"method": "icm", "seed": seed, "restarts": restarts, "tol": tol, "max_sweeps": max_sweeps, "init": init},
        checkpoint=checkpoint,
        every=every,
        resume=resume,
    )
    with recorder, bar(restarts * max_sweeps, f"icm, {restarts} start(s)", progress) as ticker, single_threaded():
        ends = _climb(model, X, recorder, tol, max_sweeps, ticker.update)
    dead = dead_components(ends.params["W"], ends.params["H"], X)
    _warn(ends.converged, dead, ends.interrupted, tol, max_sweeps)
    return Posterior(
        draws={site: values[:, None] for site, values in ends.params.items()},
        stats={"lp": ends.lp[:, None]},
        model=model,
        X=X,
        method="icm",
        kind=Kind.MODES,
        seed=seed,
        timings={"total": time.perf_counter() - began},
        attrs={
            "sweeps": ends.sweeps,
            "converged": ends.converged,
            "dead_components": dead,
            "tol": tol,
            "lp_without_prior_constant": not _is_proper(model),
            "interrupted": ends.interrupted,
        },
    )


class _Ends(NamedTuple):
    """Where the restarts of a run ended, and how."""

    params: Params
    lp: Tensor
    sweeps: list[int]
    converged: list[bool]
    interrupted: bool


def _climb(
    model: Sweeping, X: Matrix, recorder: record.Recorder, tol: float, max_sweeps: int, tick: Callable[[int], object]
) -> _Ends:
    """Advance all climbs; each leaves when it has converged or has had its sweeps."""
    climb, running, ends = _read(*recorder.state)
    params, lp, sweeps, converged, interrupted = ends
    tick(sum(sweeps))

    def leave(places: list[int]) -> None:
        for at in places:
            lp[running[at]] = climb.lp[at]
            for site, values in climb.state.params.items():
                params[site][running[at]] = values[at]

    try:
        while running:
            climb, done, near = several(model, climb, X, tol, max_sweeps + 1 - climb.state.sweep)
            for at, number in enumerate(running):
                sweeps[number], converged[number] = sweeps[number] + done[at], near[at]
            tick(sum(done))
            stay = [at for at in range(len(running)) if not near[at] and climb.state.sweep <= max_sweeps]
            if len(stay) < len(running):
                leave([at for at in range(len(running)) if at not in stay])
                climb, running = _chosen(climb, torch.tensor(stay, dtype=torch.int64)), [running[at] for at in stay]
            now = _named(climb, running, _Ends(params, lp, sweeps, converged, interrupted))
            recorder.save(record.Snapshot(now, climb.state.sweep))
    except KeyboardInterrupt:
        interrupted = True
        if climb.state.sweep == 1:
            raise
        leave(list(range(len(running))))
    return _Ends(params, lp, sweeps, converged, interrupted)


def _at_the_foot(state: State) -> tuple[Climb, list[int], _Ends]:
    """All climbs before their first sweep, their numbers, and room for where they end."""
    climb = Climb.at(state)
    C, room = len(climb.lp), {site: torch.empty_like(values) for site, values in state.params.items()}
    return climb, list(range(C)), _Ends(room, climb.lp.clone(), [0] * C, [False] * C, False)


def _named(climb: Climb, running: list[int], ends: _Ends) -> Params:
    """Everything a run stands at, as the tensors by name that a checkpoint takes; `_read` reads it back."""
    parts = {"": climb.state.params, "before.": climb.before, "room.": ends.params}
    tensors = {prefix + name: values for prefix, part in parts.items() for name, values in part.items()}
    pace = {"lp": climb.lp, "reach": climb.reach, "bound": climb.bound, "ends.lp": ends.lp}
    counts = {"running": torch.tensor(running, dtype=torch.int64), "ends.sweeps": torch.tensor(ends.sweeps)}
    return {**tensors, **pace, **counts, "ends.converged": torch.tensor(ends.converged)}


def _read(named: Params, sweep: int) -> tuple[Climb, list[int], _Ends]:
    before, room = (
        {name.removeprefix(what): values for name, values in named.items() if name.startswith(what)}
        for what in ("before.", "room.")
    )
    state = State({site: named[site] for site in room}, sweep)
    sweeps, converged = named["ends.sweeps"].tolist(), named["ends.converged"].tolist()
    climb = Climb(state, before, named["lp"], named["reach"], named["bound"])
    return climb, named["running"].tolist(), _Ends(room, named["ends.lp"], sweeps, converged, False)


def several(model: Sweeping, climb: Climb, X: Matrix, tol: float, most: int) -> tuple[Climb, list[int], list[bool]]:
    """Some sweeps of every climb, at most so many: how many each has had, and whether it has converged.

    One, by `advance`; many, compiled, where the model has that for X: the same but for rounding.
    """
    state, before, lp, *reach = climb
    if isinstance(model, Climbing):
        pace = Pace(GROWTH, BOUND_GROWTH, RETREAT, tol)
        found = model.climb(X, state.params, before, (reach[0], reach[1]), lp, pace, most)
        if found is not None:
            after = Climb(
                State(found.params, state.sweep + found.most), found.before, found.lp, found.reach, found.bound
            )
            return after, found.sweeps, found.converged
    after, info = advance(model, climb, X, tol)
    near = (info.lp - lp).abs() <= tol * info.lp.abs().clamp(min=1.0)
    return after, [1] * len(lp), near.tolist()


def _is_proper(model: Sweeping) -> bool:
    try:
        model.require_proper()
    except ValueError:
        return False
    return True


def _chosen(climb: Climb, at: Tensor) -> Climb:
    """The climbs at these places."""
    state, before, *numbers = climb
    at = at.to(climb.lp.device)
    return Climb(_of(state, at), {site: values[at] for site, values in before.items()}, *(n[at] for n in numbers))


def _of(state: State, at: Tensor) -> State:
    return State({site: values[at] for site, values in state.params.items()}, state.sweep)


def dead_components(W: Tensor, H: Tensor, X: Matrix) -> list[int]:
    """How many components of W (C, N, K) and H (C, K, D) are zero throughout, for each chain."""
    dead = (X.add_up(W.sum(-2)) == 0) | (H == 0).all(-1)
    return [int(number) for number in dead.sum(-1)]


def _warn(converged: list[bool], dead: list[int], interrupted: bool, tol: float, max_sweeps: int) -> None:
    if not interrupted and not all(converged):
        late = converged.count(False)
        warnings.warn(
            f"icm: {late} of {len(converged)} restart(s) had not converged to {tol:g} after {max_sweeps} sweeps: "
            "raise max_sweeps or tol",
            stacklevel=3,
        )
    if any(dead):
        warnings.warn(
            f"icm: {max(dead)} component(s) died (zero throughout) in the worst restart: the rates may be too high for "
            "this data, or the rank too great",
            stacklevel=3,
        )
