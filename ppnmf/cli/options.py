"""Options that several commands have, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

QUICK = {"draws": 50, "warmup": 50, "chains": 2, "restarts": 2, "steps": 200}  # for a first look
Data = Annotated[str, typer.Argument(metavar="DATA", help="A data set's name (digits, toy60x40, ...) or a file.")]
Rank = Annotated[int, typer.Option("--rank", "-k", help="Number of components.")]
ModelName = Annotated[
    str | None, typer.Option("--model", help="A model of the zoo, by its name (ppnmf zoo); priors are on DATA's scale.")
]
Seed = Annotated[int, typer.Option(help="Of every random number.")]
AllowNegative = Annotated[bool, typer.Option("--allow-negative", help="Take a file with negative entries.")]
Missing = Annotated[
    str, typer.Option(help="'nan': empty cells and NaN are missing values; 'error': they are a mistake.")
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header", help="The first line of a text names the columns, or it does not.", show_default=False
    ),
]
RowNames = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="The column that names the rows, by its name or its number from 1; or none."),
]
NoRowNames = Annotated[bool, typer.Option("--no-row-names", help="No column names the rows.")]
Transpose = Annotated[bool, typer.Option("--transpose", help="Columns of the file are observations.")]
Layer = Annotated[str | None, typer.Option(help="Of an .h5ad file, or the array of an .npz file.")]
Device = Annotated[str | None, typer.Option(help="Where to work, such as cuda; the CPU by default.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Show no bars.")]
Draws = Annotated[int | None, typer.Option(help="Draws kept in each chain.")]
Warmup = Annotated[int | None, typer.Option(help="Sweeps before them.")]
Chains = Annotated[int | None, typer.Option(help="Chains.")]
Quick = Annotated[bool, typer.Option("--quick", help="Short runs, for a first look.")]


def device_named(name: str | None) -> str | None:
    """The device, if it can be worked on."""
    if name is not None:
        from ppnmf.checks import require_device

        require_device("--device", name)
    return name


def options_given(quick: bool = False, **options: Any) -> dict[str, Any]:
    """The options that were given, over those of --quick."""
    short = {name: QUICK[name] for name in options if name in QUICK} if quick else {}
    return short | {name: value for name, value in options.items() if value is not None}


def reading_given(
    header: bool | None, row_names: str | None, no_row_names: bool, transpose: bool, layer: str | None
) -> dict[str, Any]:
    """What was said about how to read the file."""
    if no_row_names and row_names is not None:
        raise ValueError(f"--row-names is {row_names}, and there is --no-row-names: give one of them")
    names = False if no_row_names or row_names == "none" else row_names
    return options_given(header=header, row_names=names, transpose=transpose or None, layer=layer)


def folder_to_write(path: Path) -> Path:
    """The folder to write to, checked before the work that would be lost."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out is {path}, which is not a folder")
    return path
