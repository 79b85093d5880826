"""The time that a run has."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ppnmf.protocols import Matrix

__all__ = ["Clock"]


@dataclass(frozen=True)
class Clock:
    """The time that a run has, the same for every process that shares X.

    Args:
        X: the data.
        began: `time.perf_counter()` when the run began, less what it had had before it was resumed.
        seconds: how many it has; None for no end.
    """

    X: Matrix
    began: float
    seconds: float | None

    @property
    def gone(self) -> float:
        """Seconds that the run has had."""
        return time.perf_counter() - self.began

    def is_past(self, share: float = 1.0) -> bool:
        """Whether this share of the time is over; the first process decides."""
        if self.seconds is None:
            return False
        past = self.gone >= share * self.seconds
        said = torch.tensor([float(past and self.X.rows.start == 0)], dtype=torch.float64)
        return bool(self.X.add_up(said) > 0)
