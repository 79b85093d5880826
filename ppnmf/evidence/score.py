"""What a criterion says of one rank: the protocol of all of them, and the value that most of them give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

__all__ = ["Measure", "Score"]


class Score(Protocol):
    """What a criterion says of one rank. `Evidence`, `HeldOut` and `Measure` are scores; a new criterion may bring its own."""

    @property
    def label(self) -> str: ...
    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        ...

    @property
    def value(self) -> float: ...
    @property
    def error(self) -> float:
        """Standard error of the value, or what stands for it; NaN where it cannot be told."""
        ...

    @property
    def priors(self) -> Mapping[str, Any]: ...
    @property
    def seconds(self) -> float: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    def lead_over(self, other: Any) -> tuple[float, float]:
        """How much better than another rank's score of the same criterion, and that difference's standard error."""
        ...

    def is_clearly_better_than(self, other: Any) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number for one rank, with its error.

    Args:
        value: the criterion's.
        error: its standard error, or what stands for it; NaN where there is none.
        label: what the value is, with its unit.
        sign: 1 where more is better, -1 where less is.
        method: the criterion's name.
        rank: the model's rank.
        clear: how great a lead must be, beyond two errors, before it counts.
        parts: terms whose sum is the value, where ranks are compared term by term: their errors largely cancel.
        priors: the model's hyperparameters.
        seconds: the time it took.
        warnings: reasons to doubt it, in sentences.
        attrs: facts about the run that JSON can hold.
    """

    value: float
    error: float
    label: str
    sign: int
    method: str
    rank: int
    clear: float = 0.0
    parts: tuple[float, ...] = ()
    priors: Mapping[str, Any]
    seconds: float
    warnings: tuple[str, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def lead_over(self, other: Measure) -> tuple[float, float]:
        """How much better than another rank's, and that difference's standard error; paired where both have parts."""
        lead = self.sign * (self.value - other.value)
        if self.parts and len(self.parts) == len(other.parts):
            return lead, error_of_sum(np.subtract(self.parts, other.parts))
        return lead, math.hypot(self.error, other.error)

    def is_clearly_better_than(self, other: Measure) -> bool:
        """Whether the lead is above `clear` and two of its standard errors; never for equals, nor where there is no error."""
        lead, error = self.lead_over(other)
        return lead > self.clear + 2 * error

    def __str__(self) -> str:
        sentence = f"{self.label} {self.value:.6g} ± {self.error:.2g} at rank {self.rank} ({self.seconds:.1f} s)."
        return " ".join([sentence, *(f"Warning: {warning}." for warning in self.warnings)])


def error_of_sum(parts: Sequence[float] | np.ndarray) -> float:
    """Standard error of the sum of terms that are independent draws; NaN for a single one."""
    return math.sqrt(len(parts)) * float(np.std(parts, ddof=1)) if len(parts) > 1 else math.nan
