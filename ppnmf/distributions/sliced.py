"""A slice step of one number in each of many chains (Neal 2003, doi:10.1214/aos/1056562461)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["slice_step"]

STEPS_OUT, SHRINKAGES = 1000, 200  # at most


def slice_step(
    log_density: Callable[[Tensor], Tensor], at: Tensor, width: float, uniforms: Callable[[int], Tensor]
) -> Tensor:
    """The next numbers (C,): the slice is stepped out by `width`, and shrinks towards `at` where a proposal misses it.

    Args:
        log_density: of numbers (C,), each chain's own, (C,); any constant may be missing.
        at: where the chains stand, (C,).
        uniforms: maps the trial, 0, 1 ..., to pairs of uniforms (C, 2).
    """
    u, v = uniforms(0).unbind(-1)
    level = log_density(at) + u.log()
    low = at - width * v
    high = low + width
    for end, away in ((low, -width), (high, width)):
        for _ in range(STEPS_OUT):
            inside = log_density(end) > level
            if not bool(inside.any()):
                break
            end += torch.where(inside, away, 0.0)
    found, done = at.clone(), torch.zeros_like(at, dtype=torch.bool)
    for trial in range(1, SHRINKAGES):
        y = low + uniforms(trial)[:, 0] * (high - low)
        hit = (log_density(y) > level) & ~done
        found = torch.where(hit, y, found)
        done = done | hit
        if bool(done.all()):
            break
        low, high = torch.where(~done & (y < at), y, low), torch.where(~done & (y >= at), y, high)
    return found
