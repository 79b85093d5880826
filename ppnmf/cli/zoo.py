"""`ppnmf run` and `ppnmf zoo`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ppnmf.cli.options import NoProgress


def run(
    recipe: Annotated[Path, typer.Argument(help="models/<name>/recipe.toml, or one of your own.")],
    seed: Annotated[
        int | None, typer.Option(help="Instead of the recipe's; the results then agree within their errors.")
    ] = None,
    no_progress: NoProgress = False,
) -> None:
    """Follow a recipe of the zoo.

    What comes out is compared with the results that were measured; the exit code is 1 where they disagree.
    """
    from ppnmf import recipes, zoo

    outcome = recipes.run(recipe, seed=seed, progress=not no_progress)
    reference = zoo.reference_beside(recipe)
    typer.echo(f"{'':<32}{'measured':>14} ± error     {'reference':>14} ± error")
    for name, (value, error) in outcome.numbers.items():
        typer.echo(_line(name, value, error, reference.get(name)))
    off = recipes.disagreements(outcome, reference)
    verdict = "There is no reference beside the recipe." if not reference else "It agrees with the reference."
    typer.echo("\n".join(off) if off else f"{verdict} {outcome.seconds:.1f} seconds.")
    if off:
        raise typer.Exit(1)


def _line(name: str, value: float, error: float, known: Mapping[str, float] | None) -> str:
    """A number that was measured, and the reference's where it has it."""
    beside = f"{known['value']:>14.6g} ± {known['error']:<9.2g}" if known else ""
    return f"{name:<32}{value:>14.6g} ± {error:<9.2g} {beside}".rstrip()


def list_zoo() -> None:
    """List the models, and where their cards are."""
    from ppnmf import zoo

    for entry in zoo.entries():
        typer.echo(f"{entry.name:<28}{entry.title}\n{'':<28}{entry.path / 'README.md'}")
