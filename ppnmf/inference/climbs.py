"""Climbs from several starts, side by side, each until a sweep gains nothing more: the loop of every method that climbs.

What a sweep is, and what it raises, is the method's own (`Several`): modes raise the log joint, ordinary NMF lowers the
squared error, coordinate ascent raises the ELBO. The loop lets each climb leave when it has converged or has had its
sweeps, writes checkpoints, and after Ctrl-C leaves every climb where it stands.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import real_number, whole_numbers
from ppnmf.inference import record
from ppnmf.inference.chain import State
from ppnmf.inference.room import require_room
from ppnmf.inference.start import Start
from ppnmf.posterior import Kind, Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Matrix, Params, Sweeping
from ppnmf.threads import single_threaded

__all__ = ["Climb", "Ends", "Plan", "Several", "chosen", "climbed", "dead_components", "of_modes", "warn"]

REACH = 0.5  # Ang and Gillis's β: how far ahead the first sweeps begin
MOST_POINTS = 1000  # of a curve that is kept


class Climb(NamedTuple):
    """Where C climbs stand, and how far ahead of that their next sweep begins."""

    state: State
    before: Params  # W and H a sweep earlier; the state's own where there was none
    lp: Tensor  # what the climb raises, of the state, (C,); -inf where it has not been computed
    reach: Tensor  # the next sweep begins at W + reach · (W - W before), and so for H; (C,)
    bound: Tensor  # the most that reach may grow to, (C,)
    path: Tensor | None = None  # lp after each of the sweeps that led here, (C, n), where many were taken at once

    @classmethod
    def at(cls, state: State) -> Climb:
        """A climb that has not begun."""
        one = state.params["W"].new_ones(len(state.params["W"]), dtype=torch.float64)
        return cls(state, state.params, torch.full_like(one, -torch.inf), torch.full_like(one, REACH), one)

    def after(self, state: State, lp: Tensor) -> Climb:
        """A sweep later; `before` and the reach stay as they are, for climbs that never begin ahead."""
        return self._replace(state=state, before=state.params, lp=lp, path=None)


class Plan(NamedTuple):
    """What a run of climbs is told: each method's `run` has these options.

    Args:
        restarts: how many climbs.
        tol: a climb has converged when an ordinary sweep changes what it raises by less than this, relatively.
        max_sweeps: a climb that has not converged by then is left there, with a warning.
        seed, init: of the starts.
        checkpoint, every, resume: for long runs, see `record.open`.
        progress: show a bar.
    """

    restarts: int
    tol: float
    max_sweeps: int
    seed: int
    init: Start
    checkpoint: str | Path | None
    every: int | None
    resume: str | Path | None
    progress: bool


class Ends(NamedTuple):
    """Where the climbs of a run ended, and how."""

    params: Params
    lp: Tensor  # what each climb raised, (C,)
    sweeps: list[int]
    converged: list[bool]
    interrupted: bool
    curve: Tensor | None  # what each raised, sweep by sweep, (C, at most MOST_POINTS), NaN where there was none


# Some sweeps of every climb, at most so many: how many each has had, and whether it has converged.
Several = Callable[[Any, Climb, Matrix, float, int], tuple[Climb, list[int], list[bool]]]


def climbed(
    method: str,
    several: Several,
    model: Sweeping,
    X: Matrix,
    foot: Callable[[], State],
    plan: Plan,
    curve: bool = False,
    **facts: Any,
) -> Ends:
    """Climb from every start.

    Args:
        method: its name, for the bar and the checkpoint.
        foot: the state before the first sweep.
        curve: keep what each sweep reached; `several` then takes one sweep a call, or leaves the path of all.
        facts: further options of the method, which a checkpoint must agree with.

    Raises:
        ValueError: a count or a tolerance out of its range.
        KeyboardInterrupt: Ctrl-C before the first sweep was done.
    """
    whole_numbers(restarts=(plan.restarts, 1), max_sweeps=(plan.max_sweeps, 1))
    real_number("tol", plan.tol, 0)
    require_room(model, X, plan.restarts, 1)
    told = {name: getattr(plan, name) for name in ("seed", "restarts", "tol", "max_sweeps", "init")}
    recorder = record.open(
        model,
        X,
        lambda: _named(*_at_the_foot(foot(), plan.max_sweeps if curve else 0)),
        sites=(),
        draws=1,
        plan={"method": method, **told, **facts},
        checkpoint=plan.checkpoint,
        every=plan.every,
        resume=plan.resume,
    )
    title = f"{method}, {plan.restarts} start(s)"
    with recorder, bar(plan.restarts * plan.max_sweeps, title, plan.progress) as ticker, single_threaded():
        return _climb(several, model, X, recorder, plan, ticker.update)


def _climb(
    several: Several, model: Sweeping, X: Matrix, recorder: record.Recorder, plan: Plan, tick: Callable[[int], object]
) -> Ends:
    """Advance all climbs; each leaves when it has converged or has had its sweeps."""
    climb, running, ends = _read(*recorder.state)
    params, lp, sweeps, converged, interrupted, curve = ends
    every = -(-plan.max_sweeps // MOST_POINTS)
    tick(sum(sweeps))

    def leave(places: list[int]) -> None:
        for at in places:
            lp[running[at]] = climb.lp[at]
            for site, values in climb.state.params.items():
                params[site][running[at]] = values[at]

    try:
        while running:
            before = climb.state.sweep - 1
            climb, done, near = several(model, climb, X, plan.tol, plan.max_sweeps - before)
            for at, number in enumerate(running):
                sweeps[number], converged[number] = sweeps[number] + done[at], near[at]
            if curve is not None:
                _mark(curve, running, climb, before, every)
            tick(sum(done))
            stay = [at for at in range(len(running)) if not near[at] and climb.state.sweep <= plan.max_sweeps]
            if len(stay) < len(running):
                leave([at for at in range(len(running)) if at not in stay])
                climb, running = chosen(climb, torch.tensor(stay, dtype=torch.int64)), [running[at] for at in stay]
            now = _named(climb, running, Ends(params, lp, sweeps, converged, interrupted, curve))
            recorder.save(record.Snapshot(now, climb.state.sweep))
    except KeyboardInterrupt:
        interrupted = True
        if climb.state.sweep == 1:
            raise
        leave(list(range(len(running))))
    return Ends(params, lp, sweeps, converged, interrupted, curve)


def _mark(curve: Tensor, running: list[int], climb: Climb, before: int, every: int) -> None:
    """Put what the last sweeps reached in its place on the curve, of every so many sweeps one; `before` is how many came before."""
    path = climb.lp[:, None] if climb.path is None else climb.path
    points = path[:, -before % every :: every]
    first = -(-before // every)
    curve[running, first : first + points.shape[1]] = points.to(curve)


def _at_the_foot(state: State, points: int) -> tuple[Climb, list[int], Ends]:
    """All climbs before their first sweep, their numbers, and room for where they end."""
    climb = Climb.at(state)
    C, room = len(climb.lp), {site: torch.empty_like(values) for site, values in state.params.items()}
    curve = torch.full((C, min(points, MOST_POINTS)), torch.nan, dtype=torch.float64) if points else None
    return climb, list(range(C)), Ends(room, climb.lp.clone(), [0] * C, [False] * C, False, curve)


def _named(climb: Climb, running: list[int], ends: Ends) -> Params:
    """Everything a run stands at, as the tensors by name that a checkpoint takes; `_read` reads it back."""
    parts = {"": climb.state.params, "before.": climb.before, "room.": ends.params}
    tensors = {prefix + name: values for prefix, part in parts.items() for name, values in part.items()}
    pace = {"lp": climb.lp, "reach": climb.reach, "bound": climb.bound, "ends.lp": ends.lp}
    counts = {"running": torch.tensor(running, dtype=torch.int64), "ends.sweeps": torch.tensor(ends.sweeps)}
    curve = {} if ends.curve is None else {"ends.curve": ends.curve}
    return {**tensors, **pace, **counts, "ends.converged": torch.tensor(ends.converged), **curve}


def _read(named: Params, sweep: int) -> tuple[Climb, list[int], Ends]:
    before, room = (
        {name.removeprefix(what): values for name, values in named.items() if name.startswith(what)}
        for what in ("before.", "room.")
    )
    state = State({site: named[site] for site in room}, sweep)
    sweeps, converged = named["ends.sweeps"].tolist(), named["ends.converged"].tolist()
    climb = Climb(state, before, named["lp"], named["reach"], named["bound"])
    ends = Ends(room, named["ends.lp"], sweeps, converged, False, named.get("ends.curve"))
    return climb, named["running"].tolist(), ends


def chosen(climb: Climb, at: Tensor) -> Climb:
    """The climbs at these places."""
    state, before, *numbers = climb[:-1]
    at = at.to(climb.lp.device)
    here = State({site: values[at] for site, values in state.params.items()}, state.sweep)
    return Climb(here, {site: values[at] for site, values in before.items()}, *(n[at] for n in numbers))


def of_modes(
    method: str,
    model: Sweeping,
    X: Matrix,
    ends: Ends,
    stats: dict[str, Tensor],
    plan: Plan,
    began: float,
    **facts: Any,
) -> Posterior:
    """The posterior of climbs that end in modes: each restart is a chain of one draw.

    Args:
        stats: "lp", the log joint of the ends (C,), and what else there is to say of each.
        began: when the run began, by `time.perf_counter`.
        facts: for `attrs`.
    """
    dead = dead_components(ends.params["W"], ends.params["H"], X)
    warn(method, ends, dead, plan)
    return Posterior(
        draws={site: values[:, None] for site, values in ends.params.items()},
        stats={name: values[:, None] for name, values in stats.items()},
        model=model,
        X=X,
        method=method,
        kind=Kind.MODES,
        seed=plan.seed,
        timings={"total": time.perf_counter() - began},
        attrs={
            "sweeps": ends.sweeps,
            "converged": ends.converged,
            "dead_components": dead,
            "tol": plan.tol,
            "lp_without_prior_constant": not _is_proper(model),
            "interrupted": ends.interrupted,
            **facts,
        },
    )


def _is_proper(model: Sweeping) -> bool:
    try:
        model.require_proper()
    except ValueError:
        return False
    return True


def dead_components(W: Tensor, H: Tensor, X: Matrix) -> list[int]:
    """How many components of W (C, N, K) and H (C, K, D) are zero throughout, for each chain."""
    dead = (X.add_up(W.sum(-2)) == 0) | (H == 0).all(-1)
    return [int(number) for number in dead.sum(-1)]


def warn(method: str, ends: Ends, dead: list[int], plan: Plan) -> None:
    """Of climbs that had not converged, and of components that died."""
    if not ends.interrupted and not all(ends.converged):
        late = ends.converged.count(False)
        warnings.warn(
            f"{method}: {late} of {len(ends.converged)} restart(s) had not converged to {plan.tol:g} after "
            f"{plan.max_sweeps} sweeps: raise max_sweeps or tol",
            stacklevel=4,
        )
    if any(dead):
        warnings.warn(
            f"{method}: {max(dead)} component(s) died (zero throughout) in the worst restart: the rates may be too high for "
            "this data, or the rank too great",
            stacklevel=4,
        )
