r"""Chains that fell far behind in the warm-up go on from where the best one stands.

A survey that costs little of a run cannot bring each chain into the best mode: on digits a third of the runs of 500 sweeps after
500 had one chain a thousand nats below the others, for good. So, once, halfway through the warm-up of a run with a survey, the
mean log joints of the latest sweeps are compared. A chain whose mean lies further below the best chain's than `FAR` standard
deviations of that chain's log joint takes its state, and warms up from there with random numbers of its own.

That chooses a mode, as the survey does, and samples nothing: no draw from before counts. It also makes agreement easier, since
chains that stood at one place cannot disagree about another; so the summary says which did, and how far behind they had been.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ppnmf.inference.chain import State

__all__ = ["LATEST", "SURVEY", "caught_up", "compared", "judged", "watched"]

FAR = 4.0  # standard deviations: two chains of one mode differ by less, also where a mean of few sweeps errs
PART, LEAST, MOST = 8, 20, 200  # of a warm-up's sweeps, and between which numbers, that are compared
SURVEY, LATEST = "survey", "log joints"  # notes of a record


def watched(warmup: int) -> range:
    """The sweeps of a warm-up, numbered from 0, that are compared; none where it is too short."""
    number = min(MOST, max(LEAST, warmup // PART))
    middle = warmup // 2
    return range(middle - number, middle) if number <= middle else range(middle, middle)


def judged(lp: Tensor) -> tuple[list[bool], list[float]]:
    """Which chains fell far behind, and how far each lies below the best one in nats.

    Args:
        lp: log joints of the latest sweeps, (C, n). Fewer than `LEAST` tell nothing.
    """
    mean = lp.double().mean(1).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    best = int(mean.argmax())
    below = mean[best] - mean
    far = below > FAR * lp[best].double().std()
    return [lp.shape[1] >= LEAST and one for one in far.tolist()], below.tolist()


def compared(notes: Mapping[str, Any], lp: Tensor) -> dict[str, Any]:
    """The notes of a surveyed run once its chains have been compared by their log joints (C, n)."""
    anew, below = judged(lp)
    kept = {name: value for name, value in notes.items() if name != LATEST}
    return {**kept, SURVEY: {**notes[SURVEY], "anew": anew, "behind": below}}


def caught_up(notes: Mapping[str, Any], state: State) -> State:
    """The state from which chains go on that were compared; it stays as it is where that was done before."""
    anew, below = notes[SURVEY]["anew"], notes[SURVEY]["behind"]
    if not any(anew):
        return state
    best = below.index(min(below))
    origin = torch.tensor([best if own else c for c, own in enumerate(anew)])
    return State({site: values[origin.to(values.device)] for site, values in state.params.items()}, state.sweep)
