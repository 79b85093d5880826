"""What a report says of fits of the same data, beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ppnmf import __version__
from ppnmf.posterior import Kind
from ppnmf.report.comparison import Comparison
from ppnmf.report.document import Alarm, Block, Code, Document, Items, Picture, Rows, Section, Text
from ppnmf.report.fitted import verdict_on

__all__ = ["compared"]


def compared(
    table: Comparison, pictures: Sequence[Picture] = (), options: Mapping[str, Any] | None = None, about: str = ""
) -> Document:
    """The report about a comparison: the table and what predicts best, whether to trust each fit, and what they look like.

    Args:
        pictures: that belong to it, such as those of `plots.overview`.
        options: of `report.compare_methods`, where it made the fits.
        about: the data, in a sentence.
    """
    sections = {
        "The fits beside each other": _table(table, about),
        "Whether to trust each": _verdicts(table),
        "What they found": pictures,
        "To do it again": _again(options),
    }
    written = tuple(Section(title, blocks) for title, found in sections.items() if (blocks := tuple(found)))
    return Document("Comparison of " + ", ".join(row["method"] for row in table.rows), written)


def _table(table: Comparison, about: str) -> Iterator[Block]:
    heading, *rows = table.cells()
    if about:
        yield Text(about)
    yield Text(f"{table.heading}.")
    yield Rows(heading, tuple(rows))
    yield Items(tuple(table.notes))


def _verdicts(table: Comparison) -> Iterator[Block]:
    for row in table.rows:
        if "model" in row:
            yield verdict_on(Kind(row["kind"]), row["agree"], row["remark"], row["method"])
        else:
            yield Text(Alarm(f"{row['method']}: {row['remark']}"))


def _again(options: Mapping[str, Any] | None) -> Iterator[Block]:
    if options is None:
        return
    said = dict(options)
    own = "".join(f", {name}={value!r}" for name, value in said.items() if name not in ("rank", "methods"))
    yield Code(
        f"# ppnmf {__version__}\n"
        f"experiment = ppnmf.report.compare_methods(X, {said['rank']}{own}, options={said['methods']!r})"
    )
