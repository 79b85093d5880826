"""`ppnmf tables`, `ppnmf transform` and `ppnmf generate`: what a saved posterior says, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppnmf.cli.guard import finishing, note, saved
from ppnmf.cli.inputs import read, say_heading
from ppnmf.cli.options import Data, Seed, folder_to_write
from ppnmf.cli.reading import AS_IT_IS, Reading, reads_data
from ppnmf.disk import require_table, try_to_write, write_table

if TYPE_CHECKING:
    from ppnmf.posterior import Posterior

__all__ = ["generate", "tables", "transform"]

File = Annotated[Path, typer.Argument(metavar="FIT", help="A posterior that `ppnmf fit` or `ppnmf compare` saved.")]
Level = Annotated[float, typer.Option(help="The share of the draws between the bounds.")]


def tables(
    file: File,
    out: Annotated[
        Path, typer.Option(help="Folder for components.csv, loadings.csv and, of missing cells, imputed.csv.")
    ],
    level: Level = 0.9,
    form: Annotated[str, typer.Option("--format", help="csv or parquet.")] = "csv",
) -> None:
    """Write what a saved posterior says as tables.

    They hold the components, the loadings and, where X has some, the missing cells, each with its bounds.
    """
    if form not in ("csv", "parquet"):
        raise ValueError(f"--format is {form!r}; give csv or parquet")
    post = _loaded(file)
    folder_to_write(out)
    out.mkdir(parents=True, exist_ok=True)
    with finishing():
        note(post.components(level=level).to_csv(out / f"components.{form}"))
        note(post.loadings(level=level).to_csv(out / f"loadings.{form}"))
        if post.X.n_observed < post.X.shape[0] * post.X.shape[1]:
            note(post.imputed(level).to_csv(out / f"imputed.{form}"))
    for path in saved:
        typer.echo(f"{path}")


@reads_data
def transform(
    file: File,
    data: Data,
    out: Annotated[Path, typer.Option(help="Table of the new rows' loadings, .csv or .parquet.")] = Path(
        "loadings.csv"
    ),
    level: Level = 0.9,
    draws: Annotated[int | None, typer.Option(help="Draws of the fit that are used, at most.")] = None,
    seed: Seed = 0,
    reading: Reading = AS_IT_IS,
) -> None:
    """Write the loadings of new rows under a saved posterior.

    Its components stay as they are, and have the names that they have in its tables; of modes it is the best. The columns of
    DATA are found by their names.
    """
    post = _loaded(file).typical()
    require_table(out)
    try_to_write(out)
    source = read(data, reading)
    from ppnmf.data.labelled import Labelled

    say_heading(source)
    rows = Labelled.of(source.X, source.rows, source.columns)
    found = post.transform(rows, mask=source.mask, draws=draws, seed=seed)
    with finishing():
        note(found.loadings(level=level).to_csv(out))
    typer.echo(f"{out}")


def generate(
    file: File,
    rows: Annotated[int, typer.Option("--rows", "-n", help="How many.")] = 10,
    out: Annotated[Path, typer.Option(help="Table of the new rows, .csv or .parquet.")] = Path("generated.csv"),
    latent: Annotated[
        str, typer.Option(help="'prior', or 'aggregated': at the loadings of the fit's rows.")
    ] = "aggregated",
    seed: Seed = 0,
) -> None:
    """Draw new rows of X from a saved posterior."""
    post = _loaded(file)
    from ppnmf.tables import columns_of

    require_table(out)
    try_to_write(out)
    drawn = post.generate(rows, seed=seed, latent=latent).tolist()
    with finishing():
        note(write_table(out, columns_of(post), drawn))
    typer.echo(f"{out}")


def _loaded(file: Path) -> Posterior:
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    from ppnmf.posterior import Posterior

    return Posterior.load(file)
