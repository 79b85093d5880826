"""Chains that fell far behind in the warm-up go on from where the best one stands.

A survey that costs little of a run cannot bring each chain into the heaviest mode: on digits a third of the runs of 500 sweeps
after 500 had one chain in a mode of a thousand nats less, for good. So, once, halfway through the warm-up of a run with a survey,
chains are compared by what their latest sweeps say of the log mass of their mode (`inference.mass`), in two halves. One that lies
below the best by more than `FAR` standard errors of a difference, as the halves tell them, and by half a standard deviation of that
chain's log joint, takes its state, and warms up from there with random numbers of its own.

That chooses a mode, as the survey does, and samples nothing: no draw from before counts. It also makes agreement easier, since
chains that stood at one place cannot disagree about another; so the summary says which did, and how far behind they had been.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ppnmf.inference.chain import State
from ppnmf.inference.mass import Seen

__all__ = ["SURVEY", "caught_up", "compared", "halves", "judged", "noted", "watched"]

FAR = 4.0  # standard errors of a difference, which halves of the sweeps tell
DEVIATIONS = 0.5  # of the best chain's log joint: modes that differ by less are not told apart
PART, LEAST, MOST = 8, 20, 200  # of a warm-up's sweeps, and between which numbers, that are compared
SURVEY, HALVES = "survey", "halves"  # notes of a record


def watched(warmup: int) -> tuple[range, ...]:
    """Both halves of the sweeps of a warm-up, numbered from 0, that are compared; none where it is too short.

    >>> watched(500), watched(30)
    ((range(188, 219), range(219, 250)), ())
    """
    number = min(MOST, max(LEAST, warmup // PART))
    end = warmup // 2
    return halves(range(end - number, end)) if number <= end else ()


def halves(sweeps: range) -> tuple[range, range]:
    """The first half of some sweeps, and the second."""
    middle = sweeps.start + len(sweeps) // 2
    return range(sweeps.start, middle), range(middle, sweeps.stop)


def noted(notes: Mapping[str, Any], seen: Seen, log_mass: Tensor) -> dict[str, Any]:
    """The notes of a run with what half of the watched sweeps say."""
    half = {"log_mass": log_mass.tolist(), "lp_deviation": seen.lp_deviation.tolist()}
    return {**notes, HALVES: [*notes.get(HALVES, []), half]}


def judged(log_mass: Tensor, lp_deviation: Tensor) -> tuple[list[bool], list[float]]:
    """Which chains fell far behind, and how far each lies below the best one in nats.

    Args:
        log_mass: by either half of the sweeps, (2, C).
        lp_deviation: standard deviations of the log joint in them, (2, C).
    """
    mean = log_mass.mean(0)
    best = int(mean.argmax())
    below = (mean[best] - mean).nan_to_num(math.inf)
    error = (0.5 * (log_mass[0] - log_mass[1]).nan_to_num(0.0, 0.0, 0.0).square().mean()).sqrt()  # of a difference
    far = below > torch.maximum(FAR * error, DEVIATIONS * lp_deviation[:, best].mean())
    return far.tolist(), below.tolist()


def compared(notes: Mapping[str, Any]) -> dict[str, Any]:
    """The notes of a surveyed run once its chains have been compared."""
    told = notes[HALVES]
    log_mass, deviation = (
        torch.tensor([half[what] for half in told], dtype=torch.float64) for what in ("log_mass", "lp_deviation")
    )
    anew, below = judged(log_mass, deviation)
    kept = {name: value for name, value in notes.items() if name != HALVES}
    return {**kept, SURVEY: {**notes[SURVEY], "anew": anew, "behind": below}}


def caught_up(notes: Mapping[str, Any], state: State) -> State:
    """The state from which chains go on that were compared; it stays as it is where that was done before."""
    anew, below = notes[SURVEY]["anew"], notes[SURVEY]["behind"]
    if not any(anew):
        return state
    best = below.index(min(below))
    origin = torch.tensor([best if own else c for c, own in enumerate(anew)])
    return State({site: values[origin.to(values.device)] for site, values in state.params.items()}, state.sweep)
