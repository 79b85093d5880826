"""`ppnmf report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppnmf.cli.guard import note
from ppnmf.disk import try_to_write


def report(
    file: Annotated[Path, typer.Argument(help="A posterior that `ppnmf fit` or `ppnmf compare` saved.")],
    out: Annotated[Path | None, typer.Option(help="The page; by default the posterior's name with .html.")] = None,
) -> None:
    """Write one page about a saved posterior: whether to trust it, and what was found. Open it in a browser."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    place = out or file.with_suffix(".html")
    try_to_write(place)
    from ppnmf.posterior import Posterior
    from ppnmf.report import write_page

    note(write_page(Posterior.load(file), place))
    typer.echo(f"{place}")
