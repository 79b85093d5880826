"""What the methods of ordinary NMF share: `mu`, `hals` and `nnls` lower a loss sweep by sweep."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ppnmf.inference import climbs, icm
from ppnmf.inference.chain import Info, State, log_joint
from ppnmf.inference.climbs import Climb, Ends, Plan
from ppnmf.inference.start import start
from ppnmf.posterior import Posterior
from ppnmf.protocols import Ascent, Lowered, Matrix, Params, Sweeping
from ppnmf.rng import Stream

__all__ = ["Whole", "run", "stepping"]

# Climbs, X, tol, the most sweeps -> where they lead; None where X is not for it
Whole = Callable[[Climb, Matrix, float, int], Ascent | None]


def run(
    method: str,
    sweep: Callable[[Params, Matrix], Lowered],
    model: Sweeping,
    X: Matrix,
    plan: Plan,
    accelerated: bool = False,
    unit: float | None = None,
    whole: Whole | None = None,
) -> Posterior:
    """The posterior of descents from each start; a restart is a chain of one draw, and `lp` its log joint.

    The plan's `tol` is the share of the loss's unit by which a sweep must lower the loss for a descent to go on. A start that
    is given is taken as it is.

    Args:
        method: its name.
        sweep: parameters and X -> the parameters after a sweep, and their loss as a share of the unit.
        unit: of the loss; Σ x² (over the noise) where it is not given.
        accelerated: begin sweeps ahead, as `icm.advance` does.
        whole: many sweeps in one compiled piece, where X is for it.

    Returns: a Posterior, whose stats hold "lp" and "loss"; attrs hold "sweeps", "converged" and "dead_components" of each
        restart, and "loss_curve", its loss after each sweep (of many, a thousand); after Ctrl-C every restart is where it
        stood.
    """
    began, step = time.perf_counter(), stepping(sweep)

    def several(
        own: Sweeping, climb: Climb, data: Matrix, tol: float, most: int
    ) -> tuple[Climb, list[int], list[bool]]:
        found = None if whole is None else whole(climb, data, tol, most)
        if found is not None:
            return icm.reached(climb.state, found), found.sweeps, found.converged
        if accelerated:
            after, info = icm.advance(own, climb, data, tol, step)
        else:
            state, info = step(own, climb.state, data)
            after = climb.after(state, info.lp)
        near = (info.lp - climb.lp).abs() <= tol * info.lp.abs().clamp(min=1.0)
        return after, [1] * len(info.lp), near.tolist()

    foot = lambda: _foot(model, X, plan)  # noqa: E731
    ends = climbs.climbed(method, several, model, X, foot, plan, curve=True, accelerated=accelerated)
    size = X.sum_of_squares if unit is None else unit
    stats = {"lp": log_joint(model, X, ends.params), "loss": -size * ends.lp}
    return climbs.of_modes(method, model, X, ends, stats, plan, began, loss_curve=_curves(ends, size))


def stepping(sweep: Callable[[Params, Matrix], Lowered]) -> icm.Step:
    """A sweep as a step of a climb, which raises minus the loss."""

    def step(model: Sweeping, state: State, X: Matrix) -> tuple[State, Info]:
        params, loss = sweep(state.params, X)
        return State(params, state.sweep + 1), Info(-loss)

    return step


def _foot(model: Sweeping, X: Matrix, plan: Plan) -> State:
    """The starts of all restarts, each by its own stream."""
    stream, numbers = Stream.of(plan.seed, plan.restarts), range(plan.restarts)
    each: Sequence[Params] = [
        start(model, X, Stream((key,)), plan.init, [number]) for key, number in zip(stream.keys, numbers, strict=True)
    ]
    return State({site: torch.cat([own[site] for own in each]) for site in each[0]}, 1)


def _curves(ends: Ends, size: float) -> list[list[float]]:
    """Each restart's loss by sweep."""
    assert ends.curve is not None
    curves: list[Tensor] = list(-size * ends.curve)
    return [own[own.isfinite()].tolist() for own in curves]
