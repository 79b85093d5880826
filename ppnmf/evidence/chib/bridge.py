"""One block's log ordinate by the bridge between the draws of its stage and of the next, and by either end of its bracket."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["Stage", "log_mean"]

ITERATIONS = 200  # it takes a dozen
FAR = 40.0  # nats


@dataclass(frozen=True, eq=False)
class Stage:
    """What is known of one block's ordinate.

    Args:
        before: log densities at the block's point given draws of its own stage, (C, draws × labels).
        after: the same given draws of the next stage, where the block stays at its point, (C, draws).
        labels: how many components may play the block's part.
    """

    before: Tensor
    after: Tensor
    labels: int = 1

    @cached_property
    def forward(self) -> Tensor:
        """Log mean over the block's own stage, (C,)."""
        return log_mean(self.before)

    @cached_property
    def reverse(self) -> Tensor:
        """Minus the log mean of the inverse over the next stage, less the labels', (C,)."""
        return -log_mean(-self.after) - math.log(self.labels)

    @cached_property
    def bridge(self) -> Tensor:
        """The bridge's log ordinate, (C,): where the shares of the next stage at A and of this one at B are as many.

        Their difference falls in p, so Newton's steps are kept between what is known to lie below and above.
        """
        odds = math.log(self.after.shape[1] / self.before.shape[1])
        low = torch.minimum(self.before.amin(1), self.after.amin(1)) + odds - FAR
        high = torch.maximum(self.before.amax(1), self.after.amax(1)) + odds + FAR
        p = self.forward
        for _ in range(ITERATIONS):
            here, there = torch.sigmoid(odds + self.before - p[:, None]), torch.sigmoid(p[:, None] - odds - self.after)
            excess = here.sum(1) - there.sum(1)
            low, high = torch.where(excess > 0, p, low), torch.where(excess > 0, high, p)
            moved = p + excess / ((here * (1 - here)).sum(1) + (there * (1 - there)).sum(1))
            moved = torch.where((moved > low) & (moved < high), moved, (low + high) / 2)
            if bool(((moved - p).abs() <= 1e-9 * moved.abs().clamp(min=1)).all()):
                break
            p = moved
        return moved

    @cached_property
    def gap(self) -> Tensor:
        """Between the ends of the bracket, (C,)."""
        return (self.forward - self.reverse).abs()

    @cached_property
    def effective(self) -> Tensor:
        """How many equally weighted draws the bridge's means are worth, the least of both, (C,)."""
        log_a, log_b = (math.log(r.shape[1]) for r in (self.before, self.after))
        at_a, at_b = (softplus(log_b - log_a + r - self.bridge[:, None]) for r in (self.before, self.after))
        worth = ((2 * logs.logsumexp(1) - (2 * logs).logsumexp(1)).exp() for logs in (self.before - at_a, -at_b))
        return torch.minimum(*worth)


def log_mean(logs: Tensor) -> Tensor:
    """Log of the mean over the last axis of what `logs` are the logs of."""
    return logs.logsumexp(-1) - math.log(logs.shape[-1])
