"""`ppnmf run`, and `ppnmf zoo` with its commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppnmf.cli.guard import guarded
from ppnmf.cli.options import NoProgress

if TYPE_CHECKING:
    from ppnmf.zoo import Entry


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


def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Models; all by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipes' own.")] = None,
    no_progress: NoProgress = False,
) -> None:
    """Follow the recipes of the zoo, and compare each with its reference.

    A line a model; what disagrees is said, and the exit code is then 1.
    """
    from ppnmf import recipes

    wrong = 0
    for entry in _entries(names):
        outcome = recipes.run(entry.recipe, seed=seed, progress=not no_progress)
        off = recipes.disagreements(outcome, entry.reference)
        wrong += bool(off)
        verdict = "; ".join(off) if off else f"agrees in {len(entry.reference)} numbers"
        typer.echo(f"{entry.name:<28}{outcome.seconds:>7.1f} s  {verdict}")
    if wrong:
        raise typer.Exit(1)


def measure(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models.")],
    replicates: Annotated[int, typer.Option(help="Fits, each with a seed of its own, from which the errors come.")] = 8,
    no_progress: NoProgress = False,
) -> None:
    """Measure anew what recipes give, and write it to the models' reference.json and to their cards."""
    from ppnmf import cards

    for entry in _entries(names):
        cards.write(entry, cards.measured(entry, replicates, progress=not no_progress))
        typer.echo(f"{entry.path / 'reference.json'}\n{entry.path / 'README.md'}")


def _entries(names: list[str] | None) -> list[Entry]:
    """The entries of these names. Raises ValueError for a name that there is not."""
    from ppnmf import zoo

    found = {entry.name: entry for entry in zoo.entries()}
    unknown = [name for name in names or () if name not in found]
    if unknown:
        raise ValueError(f"there is no model {unknown[0]!r}; there are {', '.join(found)}")
    return [found[name] for name in names or found]


app = typer.Typer(invoke_without_command=True, help="List the models; check their recipes, or measure them anew.")


@app.callback()
def listed(context: typer.Context) -> None:
    """List the models, and where their cards are; or do more by a command."""
    if context.invoked_subcommand is None:
        guarded(list_zoo)()


app.command("check")(guarded(check))
app.command("measure")(guarded(measure))
