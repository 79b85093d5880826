"""`ppnmf diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppnmf.cli.guard import finishing, note, saved
from ppnmf.cli.machine import answers
from ppnmf.cli.options import folder_to_write

if TYPE_CHECKING:
    from ppnmf.posterior import Posterior


@answers
def diagnose(
    file: Annotated[Path, typer.Argument(metavar="FIT", help="A posterior that `ppnmf fit` or `ppnmf compare` saved.")],
    out: Annotated[Path | None, typer.Option(help="Folder for pictures of the traces and the components.")] = None,
) -> dict[str, Any]:
    """Say whether the chains of a saved posterior agree."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    if out is not None:
        folder_to_write(out)
    from ppnmf.posterior import Posterior

    post = Posterior.load(file)
    try:
        if out is not None:
            with finishing():
                _draw(post, out)
    finally:
        say_diagnosis(post)
    if out is not None:
        typer.echo(f"{len(saved)} pictures in {out}.")
    return outcome_of(post)


def outcome_of(post: Posterior) -> dict[str, Any]:
    """The judgement, for machines."""
    from ppnmf.diagnostics.convergence import summary

    return summary(post).to_dict()


def _draw(post: Posterior, folder: Path) -> None:
    from ppnmf import plots
    from ppnmf.posterior import Kind

    folder.mkdir(parents=True, exist_ok=True)
    note(plots.save(plots.components(post), folder / "components.png"))
    if post.kind is not Kind.MODES and post.n_draws > 1:
        note(plots.save(plots.traces(post), folder / "traces.png"))


def say_diagnosis(post: Posterior) -> None:
    """Print the summary of a posterior; of one that holds some of its draws, what that means for it."""
    from ppnmf.diagnostics.convergence import summary

    typer.echo(str(summary(post)))
    if "kept_every" in post.attrs:
        typer.echo(
            f"The file holds one draw in {post.attrs['kept_every']}; judged by all of them the run may look better."
        )
