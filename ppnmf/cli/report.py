"""`ppnmf report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppnmf.cli.guard import note


def report(
    file: Annotated[Path, typer.Argument(metavar="FIT", help="A posterior that `ppnmf fit` or `ppnmf compare` saved.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page; by default the posterior's name with .html. With .md it is Markdown, and NAME_files beside it holds "
            "the pictures."
        ),
    ] = None,
) -> None:
    """Write a page about a saved posterior.

    It says whether to trust the fit, and what was found. Open it in a browser.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    place = out or file.with_suffix(".html")
    from ppnmf.posterior import Posterior
    from ppnmf.report import try_page, write_page

    try_page(place)
    note(write_page(Posterior.load(file), place))
    typer.echo(f"{place}")
