"""`ppnmf data`: which data sets there are, and how a file is understood."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from ppnmf.cli.guard import guarded
from ppnmf.cli.inputs import read, say_heading
from ppnmf.cli.machine import answers
from ppnmf.cli.options import Data
from ppnmf.cli.reading import AS_IT_IS, Reading, reads_data

if TYPE_CHECKING:
    import numpy as np

__all__ = ["app"]

SHOWN = 5  # names

app = typer.Typer(no_args_is_help=True, help="Which data sets there are, and how a file is understood.")


def check(data: Data, reading: Reading = AS_IT_IS) -> dict[str, Any]:
    """Say how DATA is understood.

    That is its shape, its names, its surprises, and which models take it, before anything is fitted.
    """
    import numpy as np

    source = read(data, reading._replace(missing="nan", allow_negative=True))
    say_heading(source)
    X = source.with_gaps()
    models = dict(_models(X))
    for line in [*_named(source), *_described(X), *_by_answer(models)]:
        typer.echo(line)
    if np.isfinite(X).any():
        typer.echo(f"next: {_advice(data, X, reading)}")
    from ppnmf.report import describe_data

    facts = {"name": source.name, "about": source.about, **describe_data(X), "models": models}
    return facts | {"rows": _listed(source.rows), "columns": _listed(source.columns)}


def _advice(data: str, X: np.ndarray, reading: Reading) -> str:
    """The command that chooses a rank, with the options that this file needs."""
    import numpy as np

    counts = _whole(X) and not (X < 0).any()
    needed = {"--missing nan": np.isnan(X).any(), "--allow-negative": (X < 0).any()}
    options = [option for option, is_needed in needed.items() if is_needed]
    options += [*_said(reading), *(["--model gamma_poisson"] if counts else [])]
    return " ".join(["ppnmf rank", shlex.quote(data), *options, "--ranks 1:8 --out rank"])


def _said(reading: Reading) -> Iterator[str]:
    """The options that were given of how the file lies."""
    if reading.header is not None:
        yield "--header" if reading.header else "--no-header"
    if reading.row_names is not None:
        yield f"--row-names {shlex.quote(reading.row_names)}"
    if reading.no_row_names:
        yield "--no-row-names"
    if reading.transpose:
        yield "--transpose"
    if reading.layer is not None:
        yield f"--layer {shlex.quote(reading.layer)}"


def _by_answer(models: dict[str, str]) -> Iterator[str]:
    """A line an answer, with the models that give it."""
    for said in dict.fromkeys(models.values()):
        names = [name for name, own in models.items() if own == said]
        several = said.replace("takes", "take").replace("refuses", "refuse").replace("it needs", "they need")
        yield f"{', '.join(names)}: {said if len(names) == 1 else several}"


def _listed(names: Any) -> list[str] | None:
    return None if names is None else [str(name) for name in names]


def list_sets() -> None:
    """List the data sets that a name stands for."""
    from ppnmf.data import datasets

    for name in datasets.names():
        typer.echo(name)


app.command("check")(guarded(answers(reads_data(check))))
app.command("list")(guarded(list_sets))


def _named(source: Any) -> Iterator[str]:
    for what, names, size in (("rows", source.rows, source.X.shape[0]), ("columns", source.columns, source.X.shape[1])):
        if names is None:
            yield f"{what}: {size}, without names"
            continue
        more = f" … {names[size - 1]}" if size > SHOWN else ""
        yield f"{what}: {size}, {', '.join(map(str, list(names)[:SHOWN]))}{more}"
    N, D = source.X.shape
    yield f"orientation: {N} observations (rows) of {D} variables (columns); --transpose if it is the other way round"


def _described(X: np.ndarray) -> Iterator[str]:
    import numpy as np

    seen = np.isfinite(X)
    known = X[seen]
    if not len(known):
        yield "entries: none is observed"
        return
    kind = "whole numbers" if _whole(X) else "real numbers"
    yield f"entries: {kind} from {known.min():.6g} to {known.max():.6g}, mean {known.mean():.6g}"
    yield f"zeros: {_share(int((known == 0).sum()), known.size)}"
    yield f"negative: {_share(int((known < 0).sum()), known.size)}"
    yield f"missing: {_share(int((~seen).sum()), X.size)}; {_empty(seen)} with nothing observed"
    yield f"zero throughout: {_empty((X != 0) & seen)}"


def _models(X: np.ndarray) -> Iterator[tuple[str, str]]:
    """Of each model its name, and whether it takes X."""
    import numpy as np

    from ppnmf.models import REGISTRY
    from ppnmf.protocols import Entries

    negative = int((X < 0).sum())
    whole = _whole(X)
    for name, kind in REGISTRY.items():
        accepts = kind(rank=1).accepts  # type: ignore[call-arg]
        said = "takes it"
        if accepts is Entries.REAL and negative:
            said = "takes it with --allow-negative; W @ H cannot follow negative entries"
        elif accepts is not Entries.REAL and negative:
            said = f"refuses it: it needs {accepts.value}"
        elif accepts is Entries.COUNTS and not whole:
            said = "refuses it: it needs counts, whole numbers"
        missing = "; --missing nan leaves out what is missing" if np.isnan(X).any() and said.startswith("takes") else ""
        yield name, said + missing


def _whole(X: np.ndarray) -> bool:
    import numpy as np

    known = X[np.isfinite(X)]
    return bool((known == np.round(known)).all())


def _share(count: int, of: int) -> str:
    return f"{count} ({count / of:.1%})" if count else "none"


def _empty(there: np.ndarray) -> str:
    """How many rows and columns have nothing there."""
    return f"{int((~there.any(1)).sum())} row(s), {int((~there.any(0)).sum())} column(s)"
