"""`ppnmf diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppnmf.cli.guard import note, saved

if TYPE_CHECKING:
    from ppnmf.posterior import Posterior


def diagnose(
    file: Annotated[Path, typer.Argument(help="A posterior that `ppnmf fit` or `ppnmf compare` saved.")],
    out: Annotated[Path | None, typer.Option(help="Folder for pictures of the traces and the components.")] = None,
) -> None:
    """Say whether the chains of a saved posterior agree."""
    from ppnmf.posterior import Posterior

    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        post = Posterior.load(file)
    except OSError as error:
        raise ValueError(f"{file} is not a posterior that can be read ({error})") from error
    say_diagnosis(post)
    if out is not None:
        from ppnmf import plots

        out.mkdir(parents=True, exist_ok=True)
        note(plots.save(plots.components(post), out / "components.png"))
        if post.n_draws > 1:
            note(plots.save(plots.traces(post), out / "traces.png"))
        typer.echo(f"{len(saved)} pictures in {out}.")


def say_diagnosis(post: Posterior) -> None:
    from ppnmf.diagnostics.convergence import summary

    typer.echo(str(summary(post)))
    if "kept_every" in post.attrs:
        typer.echo(
            f"The file holds one draw in {post.attrs['kept_every']}; judged by all of them the run may look better."
        )
