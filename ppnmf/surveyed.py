"""What a survey of starts found: where chains could begin, and where they did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

__all__ = ["Survey"]


class Survey(NamedTuple):
    """What each of a survey's starts reached, and which of them the chains began at.

    Args:
        climbed: log joint at the end of each start's climb, or of the Gibbs sweeps that it had in place of one.
        reached: log mass of its mode by the last Gibbs sweeps that it had (`inference.mass`), up to what all modes share.
        below: how far that lies below the best start's in the same sweeps.
        sweeps: how many of the race it had; those that fell behind had fewer.
        apart: how far its components lie from those of the nearest chain's start (`matching.apart`).
        near: up to where `apart` counts as the same mode: half as much again as Gibbs sweeps move one start.
        chosen: the start of each chain.
        anew: whether each chain fell far behind in its warm-up, and went on from the best one's state; empty where chains were
            not compared (`inference.behind`).
        behind: how far each lay below the best one then, in nats of log mass.
    """

    climbed: tuple[float, ...]
    reached: tuple[float, ...]
    below: tuple[float, ...]
    sweeps: tuple[int, ...]
    apart: tuple[float, ...]
    near: float
    chosen: tuple[int, ...]
    anew: tuple[bool, ...] = ()
    behind: tuple[float, ...] = ()

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
        if left:
            said += f"; the other {len(left)}, left out, weigh {_span(left)} nats less, about"
        return f"{said}.{self._of_those_behind()}"

    def _of_those_behind(self) -> str:
        """Which chains did not find their mode themselves."""
        behind = sorted(below for below, anew in zip(self.behind, self.anew, strict=True) if anew)
        if not behind:
            return ""
        return (
            f" In the warm-up {len(behind)} of {len(self.anew)} chains were in a mode {_span(behind)} nats lighter than the "
            "best one's, and went on from its state: R-hat does not count the mode in which they had been."
        )


def _span(values: Sequence[float]) -> str:
    """The least and the greatest of sorted numbers, or the one that both are.

    >>> _span([2.2, 3.1, 7.9]), _span([5.0])
    ('2 to 8', '5')
    """
    ends = [f"{value:.0f}" for value in (values[0], values[-1])]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
