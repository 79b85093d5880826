"""Options that several commands have, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ppnmf.disk import try_folder

QUICK = {"draws": 50, "warmup": 50, "chains": 2, "restarts": 2, "steps": 200}  # for a first look
SECONDS = 120.0  # that gibbs has for its chains to agree
Data = Annotated[str, typer.Argument(metavar="DATA", help="A data set's name (digits, toy60x40, ...) or a file.")]
Rank = Annotated[int, typer.Option("--rank", "-k", help="Number of components.")]
ModelName = Annotated[
    str | None, typer.Option("--model", help="A model of the zoo, by its name (ppnmf zoo); priors are on DATA's scale.")
]
Seed = Annotated[int, typer.Option(help="Of every random number.")]
Device = Annotated[str | None, typer.Option(help="Where to work, such as cuda; the CPU by default.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Show no bars.")]
Draws = Annotated[int | None, typer.Option(help="Draws kept in each chain.")]
Warmup = Annotated[int | None, typer.Option(help="Sweeps before them.")]
Until = Annotated[
    str | None,
    typer.Option(
        help="'agree': gibbs goes on until its chains agree; so it does unless --draws, --warmup or the like is given."
    ),
]
MaxSeconds = Annotated[float | None, typer.Option(help=f"After which it ends all the same; {SECONDS:g} by default.")]
Survey = Annotated[
    int | None, typer.Option(help="Starts that gibbs surveys for the chains to begin at the best; 0 for none.")
]
Chains = Annotated[int | None, typer.Option(help="Chains.")]
Quick = Annotated[bool, typer.Option("--quick", help="Short runs, for a first look.")]


def device_named(name: str | None) -> str | None:
    """The device, if it can be worked on. Raises ValueError where there is none of that name."""
    if name is not None:
        from ppnmf.checks import require_device

        require_device("--device", name)
    return name


def options_given(quick: bool = False, **options: Any) -> dict[str, Any]:
    """The options that were given, over those of --quick.

    Args:
        options: name -> value, None where it was not given; --quick sets those of these names that `QUICK` has.
    """
    short = {name: QUICK[name] for name in options if name in QUICK} if quick else {}
    return short | {name: value for name, value in options.items() if value is not None}


def length_given(until: str | None, max_seconds: float | None, **fixed: Any) -> dict[str, Any]:
    """How long gibbs shall go on: until its chains agree, in a stated time, unless the options of a fixed length are given."""
    given = options_given(until=until, max_seconds=max_seconds, **fixed)
    if until is None and options_given(**fixed):
        return given
    return {"until": "agree", "max_seconds": SECONDS} | given


def folder_to_write(path: Path) -> Path:
    """The folder to write to, tried before the work that would be lost.

    Raises:
        ValueError: it is a file.
        OSError: nothing can be written there.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out is {path}, which is not a folder")
    try_folder(path)
    return path
