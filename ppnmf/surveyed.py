"""What a survey of starts found: where chains could begin, and where they did."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

__all__ = ["Survey"]


class Survey(NamedTuple):
    """What each of a survey's starts reached, and which of them the chains began at.

    Args:
        climbed: log joint at the end of each start's climb.
        reached: mean log joint of the last Gibbs sweeps that it had.
        below: how far that lies below the best start's in the same sweeps.
        sweeps: how many Gibbs sweeps it had; those that fell behind had fewer.
        apart: how far its components lie from those of the nearest chain's start (`matching.apart`).
        near: up to where `apart` counts as the same mode: half as much again as Gibbs sweeps move one start.
        chosen: the start of each chain.
    """

    climbed: tuple[float, ...]
    reached: tuple[float, ...]
    below: tuple[float, ...]
    sweeps: tuple[int, ...]
    apart: tuple[float, ...]
    near: float
    chosen: tuple[int, ...]

    @property
    def starts(self) -> int:
        """How many there were."""
        return len(self.reached)

    @property
    def here(self) -> tuple[bool, ...]:
        """Whether each start ended in the mode of a chain."""
        return tuple(value <= self.near for value in self.apart)

    @property
    def left_out(self) -> tuple[float, ...]:
        """How far those that did not lie below, nearest first."""
        return tuple(sorted(below for below, here in zip(self.below, self.here, strict=True) if not here))

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Self:
        """What `to_dict` gave."""
        parts: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in facts.items()}
        return cls(**parts)

    def __str__(self) -> str:
        said = f"{self.starts} starts were surveyed, and {sum(self.here)} ended in the mode or modes of the chains"
        left = self.left_out
        if not left:
            return f"{said}."
        span = f"{left[0]:.0f}" if left[0] == left[-1] else f"{left[0]:.0f} to {left[-1]:.0f}"
        return f"{said}; the other {len(left)}, left out, lie {span} nats below in log joint."
