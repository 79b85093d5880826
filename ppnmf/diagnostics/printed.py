"""A judgement as a table and a sentence, in a terminal and in a notebook."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ppnmf.diagnostics.names import shortened

__all__ = ["Summary"]

LONGEST = 48  # characters of a quantity's name that are printed
SHOWN = {"strength": 12, "WH": 3}  # rows of a group that are printed, the worst ones
HEADINGS = {"name": "", "rhat": "R-hat", "ess_bulk": "bulk ESS", "ess_tail": "tail ESS", "below_best": "below best"}


class Shown(NamedTuple):
    """A table in words: its heading, its rows, and how many rows were left out because they fare better."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int


@dataclass(frozen=True)
class Summary:
    """A judgement to print: a table, and a sentence in words.

    Args:
        heading: what was fitted, and how.
        table: the rows, in order; one a quantity, or one a restart.
        sentence: whether the chains agree.
        agree: True, False, or None where it cannot be judged.
        worst_rhat: of the quantities in the table; None where R-hat means nothing (modes, independent draws).
        least_ess: the least bulk ESS of them; None for modes.
    """

    heading: str
    table: tuple[dict[str, Any], ...]
    sentence: str
    agree: bool | None
    worst_rhat: float | None
    least_ess: float | None

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return _finite(asdict(self))

    def __str__(self) -> str:
        return "\n".join([self.heading, *_printed(self.table), self.sentence])

    def shown(self) -> Shown:
        """The table in words, of long groups of quantities the worst rows alone."""
        return _shown(self.table)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"


def _shown(table: tuple[dict[str, Any], ...]) -> Shown:
    rows, left = list(table), 0
    if rows and "rhat" in rows[0]:
        rows = _worst_of_groups(rows)
        left = len(table) - len(rows)
    heading = tuple(HEADINGS.get(key, key) for key in rows[0])
    cells = tuple(tuple(_cell(key, value) for key, value in row.items()) for row in rows)
    return Shown(heading, cells, left)


def _printed(table: tuple[dict[str, Any], ...]) -> list[str]:
    """The table as lines; of long groups the worst rows only."""
    heading, rows, left = _shown(table)
    cells = [heading, *rows]
    widths = [max(len(line[j]) for line in cells) for j in range(len(heading))]
    lines = [
        "  ".join(c.ljust(w) if j == 0 else c.rjust(w) for j, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]
    return lines + ([f"({left} more that fare better)"] if left else [])


def _worst_of_groups(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = []
    for group in dict.fromkeys(row["name"].split("[")[0] for row in rows):
        own = [row for row in rows if row["name"].split("[")[0] == group]
        worst = sorted(own, key=lambda row: -(row["rhat"] or 0.0))[: SHOWN.get(group, 1)]
        kept += [row for row in own if row in worst]
    return kept


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "name":
        return shortened(value, LONGEST)
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    if key == "rhat":
        return f"{value:.3f}" if value < 100 else f"{value:.3g}"
    return f"{value:.0f}" if key.startswith("ess") else f"{value:.5g}"


def _finite(value: Any) -> Any:
    """Numbers that JSON lacks become strings."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
