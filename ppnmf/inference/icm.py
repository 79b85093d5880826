"""Iterated conditional modes: the mode of the log joint, by the Gibbs sweep with every draw replaced by its mode.

Schmidt, Winther, Hansen (2009), section 4. Each step maximises the log joint over one block, so it never falls. Two
things make the climb quick. Products with X are dear and passes over a factor's components cheap, so a sweep goes
through each factor several times with the same products (Gillis and Glineur 2012, doi:10.1162/NECO_a_00256). And a sweep
begins ahead of where the climb stands, in the direction of its last step, unless that lowers the log joint (Ang and
Gillis 2019, doi:10.1162/neco_a_01157).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppnmf.data.matrix import Dense
from ppnmf.data.sharded import log_prior
from ppnmf.inference import climbs
from ppnmf.inference.chain import Info, State
from ppnmf.inference.climbs import Climb, Plan, dead_components
from ppnmf.inference.start import Start, start
from ppnmf.posterior import Posterior
from ppnmf.protocols import (
    Ascent,
    Climbing,
    Matrix,
    Pace,
    Params,
    Read,
    Standing,
    Sweeping,
    Sweeps,
    offers,
    require_ability,
)
from ppnmf.rng import Stream
from ppnmf.settings import own_settings

__all__ = ["Climb", "advance", "begin", "dead_components", "pace", "reached", "run", "several", "step"]

ORDINARY_SWEEPS = 10
GROWTH, BOUND_GROWTH, RETREAT = 1.01, 1.005, 1.5  # Ang and Gillis's γ, γ̄ and η for HALS

Step = Callable[[Sweeping, State, Matrix], tuple[State, Info]]


@own_settings()
def step(model: Sweeping, state: State, X: Matrix) -> tuple[State, Info]:
    """One sweep of modes: the factors, the noise variance or what else there is, and the scales of the components."""
    return _swept(model, state, X, Sweeps(read=Read.MODE))


def _swept(model: Sweeping, state: State, X: Matrix, asked: Sweeps) -> tuple[State, Info]:
    swept = model.sweep(state.params, X, asked, None)
    lp = swept.log_likelihood[:, -1] + log_prior(model, X, swept.params)
    return State(swept.params, state.sweep + asked.number), Info(lp)


def advance(model: Sweeping, climb: Climb, X: Matrix, tol: float = 0.0, by: Step | None = None) -> tuple[Climb, Info]:
    """One sweep begun ahead of the climb, or an ordinary one where that gains no more than tol, relatively.

    So the log joint never falls, and one that has changed by less than tol has done so in an ordinary sweep.

    Args:
        by: a sweep; `step` where it is not given.
    """
    sweep = step if by is None else by
    state, before, lp, reach, bound = climb[:5]
    ahead = {site: _beyond(before[site], state.params[site], reach) for site in ("W", "H")}
    after, info = sweep(model, State({**state.params, **ahead}, state.sweep), X)
    failed = ~(info.lp - lp > tol * info.lp.abs().clamp(min=1.0))  # NaN fails too
    grown = torch.minimum(GROWTH * reach, bound), (BOUND_GROWTH * bound).clamp(max=1.0)
    if bool(failed.any()):
        ordinary, own = sweep(model, _of(state, failed), X)
        after, info = _replaced(after, failed, ordinary), Info(info.lp.masked_scatter(failed, own.lp))
        grown = torch.where(failed, reach / RETREAT, grown[0]), torch.where(failed, reach, grown[1])
    return Climb(after, state.params, info.lp, *grown), info


def _of(state: State, at: Tensor) -> State:
    return State({site: values[at] for site, values in state.params.items()}, state.sweep)


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
    began = time.perf_counter()
    plan = Plan(restarts, tol, max_sweeps, seed, init, checkpoint, every, resume, progress)
    ends = climbs.climbed(
        "icm", several, model, X, lambda: begin(model, X, Stream.of(seed, restarts), init, range(restarts)), plan
    )
    return climbs.of_modes("icm", model, X, ends, {"lp": ends.lp}, plan, began)


def several(model: Sweeping, climb: Climb, X: Matrix, tol: float, most: int) -> tuple[Climb, list[int], list[bool]]:
    """Some sweeps of every climb, at most so many: how many each has had, and whether it has converged.

    One, by `advance`; many, compiled, where the model has that for X: the same but for rounding.
    """
    state, before, lp, reach, bound = climb[:5]
    own: Any = model
    if offers(own, Climbing):
        found = own.climb(X, Standing(state.params, before, lp, reach, bound), pace(tol), most)
        if found is not None:
            return reached(state, found), found.sweeps, found.converged
    after, info = advance(model, climb, X, tol)
    near = (info.lp - lp).abs() <= tol * info.lp.abs().clamp(min=1.0)
    return after, [1] * len(lp), near.tolist()


def pace(tol: float) -> Pace:
    """How climbs go ahead."""
    return Pace(GROWTH, BOUND_GROWTH, RETREAT, tol)


def reached(state: State, found: Ascent) -> Climb:
    """Climbs after the compiled sweeps that began from a state."""
    after = State(found.params, state.sweep + found.most)
    return Climb(after, found.before, found.lp, found.reach, found.bound, found.path)
