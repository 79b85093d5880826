"""`ppnmf rank`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ppnmf.cli.guard import finishing, note, note_checkpoint, saved
from ppnmf.cli.inputs import Input, on_the_command_line, read, say_heading
from ppnmf.cli.machine import answers
from ppnmf.cli.options import (
    Data,
    Device,
    Draws,
    ModelName,
    NoProgress,
    Quick,
    Seed,
    Warmup,
    device_named,
    folder_to_write,
    options_given,
)
from ppnmf.cli.priors import AS_FOR_DATA, Priors, takes_priors
from ppnmf.cli.reading import AS_IT_IS, Reading, reads_data
from ppnmf.disk import write_text

DEFAULT = "exponential_gaussian"
QUICK_CRITERIA: dict[str, dict[str, Any]] = {
    "chib": {"draws": 50, "warmup": 50, "replicates": 3},
    "smc": {"particles": 100, "replicates": 3},
    "stepping_stone": {"particles": 20, "warmup": 100, "replicates": 3},
    "heldout": {"draws": 25, "warmup": 25, "rounds": 1, "used": 2},
    "elbo": {"steps": 300, "restarts": 1},
    "loo": {"draws": 100, "warmup": 100, "cells": 2000},
    "consensus": {"restarts": 10},
}


@answers
@reads_data
@takes_priors
def choose_rank(
    data: Data,
    ranks: Annotated[
        str, typer.Option(help="From:to, both tried (1:10), with a step (2:20:2), or a list (2,5,10).")
    ] = "1:10",
    method: Annotated[
        str | None,
        typer.Option(
            help="One or several with commas, of which the first decides: stepping_stone, chib, smc, heldout, aic, bic, mdl, elbo, "
            "loo, consensus. By default the first of stepping_stone, chib, smc and elbo that the model can."
        ),
    ] = None,
    model: ModelName = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the table, the page rank.html, its picture and run.json.")
    ] = None,
    seed: Seed = 0,
    draws: Draws = None,
    warmup: Warmup = None,
    replicates: Annotated[
        int | None, typer.Option(help="Independent runs of chib, stepping_stone and smc, from which the error comes.")
    ] = None,
    particles: Annotated[int | None, typer.Option(help="Of stepping_stone and smc.")] = None,
    folds: Annotated[int | None, typer.Option(help="Parts of the cells, hidden in turn by heldout.")] = None,
    nested: Annotated[
        bool, typer.Option("--nested", help="Choose the rank inside each fold of heldout too: what the choice errs by.")
    ] = False,
    restarts: Annotated[int | None, typer.Option(help="Starts of aic, bic, mdl, elbo and consensus.")] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="What other rates and noise scales would do to the log evidence.")
    ] = False,
    jobs: Annotated[
        int, typer.Option(help="Ranks worked on at once, in processes; -1 for as many as there are cores.")
    ] = 1,
    checkpoint: Annotated[
        Path | None, typer.Option(help="JSON file that takes each rank's score when it is done.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on from such a file; with the same --checkpoint, begin if there is none.")
    ] = None,
    reading: Reading = AS_IT_IS,
    priors: Priors = AS_FOR_DATA,
    quick: Quick = False,
    device: Device = None,
    no_progress: NoProgress = False,
) -> dict[str, Any]:
    """Choose the number of components of DATA.

    By the log evidence (chib, stepping_stone, smc), which tells how probable the data are at each rank, by the error on
    held-out cells, or by other criteria; side by side in one table, and with --out on a page.
    """
    if jobs == 0:
        raise ValueError("--jobs is 0; give a whole number >= 1, or -1 for as many as there are cores")
    folder = None if out is None else folder_to_write(out)
    source = read(data, reading)
    say_heading(source)
    import torch

    import ppnmf
    from ppnmf.evidence.rank import usual_criterion
    from ppnmf.models import for_data

    X = torch.from_numpy(source.X).to(device_named(device))
    wanted = _whole_numbers(ranks)

    def own(rank: int) -> Any:
        return priors.of(for_data(model or DEFAULT, X, rank, source.mask))

    methods = [usual_criterion([own(wanted[0])])] if method is None else method.split(",")
    chosen = options_given(
        draws=draws, warmup=warmup, replicates=replicates, particles=particles, folds=folds, restarts=restarts,
        nested=nested or None,
    )  # fmt: skip
    options = chosen | (_short_options(methods, chosen) if quick else {})
    note_checkpoint(checkpoint or resume)
    table = ppnmf.select_rank(
        own,
        X,
        wanted,
        method=methods,
        seed=seed,
        mask=source.mask,
        sensitivity=sensitivity,
        n_jobs=jobs,
        checkpoint=checkpoint,
        resume=resume,
        progress=not no_progress,
        **options,
    )
    try:
        if folder is not None:
            with finishing():
                asked = {"ranks": ranks, "model": model or DEFAULT, "method": ",".join(methods), "seed": seed}
                asked |= {"priors": priors.given} if priors.given else {}
                _write_rank(table, folder, source, asked | options)
    finally:
        typer.echo(f"\n{on_the_command_line(str(table))}\n")
    if folder is not None:
        typer.echo(f"{len(saved)} files in {folder}: {', '.join(path.name for path in saved)}")
    if table.interrupted:
        raise KeyboardInterrupt
    return table.to_dict()


def _short_options(methods: list[str], chosen: dict[str, Any]) -> dict[str, Any]:
    """The options of --quick for each method, but for those that were chosen."""
    short = {}
    for name in methods:
        own = QUICK_CRITERIA.get(name)
        if own is not None:
            short[name] = {option: value for option, value in own.items() if option not in chosen}
    return short


def _write_rank(table: Any, folder: Path, data: Input, options: dict[str, Any]) -> None:
    from ppnmf import plots, report

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "table.txt", f"{on_the_command_line(str(table))}\n")
    note(folder / "table.txt")
    facts = {"name": data.name, "about": data.about, **report.describe_data(data.with_gaps())}
    whole = {"table": table.to_dict(), "data": facts, "options": options, **report.environment()}
    note(report.write_json(folder / "run.json", whole))
    note(write_text(folder / "rank.html", on_the_command_line(report.page(table))))
    note(plots.save(plots.rank(table), folder / "rank.png"))


def _whole_numbers(text: str) -> list[int]:
    """The ranks of "1:6" (both ends), "2:20:2" or "2,5,10"."""
    try:
        if ":" not in text:
            return [int(part) for part in text.split(",")]
        first, last, *step = (int(part) for part in text.split(":"))
        found = list(range(first, last + 1, *step))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"--ranks is {text!r}; give from:to (both tried), from:to:step, or a list such as 2,5,10"
        ) from error
    if not found:
        raise ValueError(f"--ranks is {text!r}, which holds no rank; give the smaller number first")
    return found
