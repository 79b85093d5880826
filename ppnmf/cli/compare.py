"""`ppnmf compare`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ppnmf.cli.guard import finishing, note
from ppnmf.cli.inputs import read, say_heading
from ppnmf.cli.machine import answers
from ppnmf.cli.options import (
    Chains,
    Data,
    Device,
    Draws,
    MaxSeconds,
    ModelName,
    NoProgress,
    Quick,
    Rank,
    Seed,
    Until,
    Warmup,
    device_named,
    folder_to_write,
    length_given,
    options_given,
)
from ppnmf.cli.priors import AS_FOR_DATA, Priors, takes_priors
from ppnmf.cli.reading import AS_IT_IS, Reading, reads_data

DRAWS = 500  # of each chain that are kept, at most: half of what a fit keeps, for all of them are looked at


@answers
@reads_data
@takes_priors
def compare(
    data: Data,
    rank: Rank,
    model: ModelName = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page compare.html, pictures, posteriors and run.json.")
    ] = None,
    seed: Seed = 0,
    held_out: Annotated[float, typer.Option(help="Share of the cells that no method sees.")] = 0.1,
    draws: Draws = None,
    warmup: Warmup = None,
    chains: Chains = None,
    until: Until = None,
    max_seconds: MaxSeconds = None,
    reading: Reading = AS_IT_IS,
    priors: Priors = AS_FOR_DATA,
    quick: Quick = False,
    device: Device = None,
    no_progress: NoProgress = False,
) -> dict[str, Any]:
    """Fit DATA by three methods, and compare them.

    Gibbs, the mode by ICM, and PAE-NMF see the same cells of DATA, and are scored on those that none of them saw.
    """
    began = time.perf_counter()
    if out is not None:
        folder_to_write(out)
    source = read(data, reading)
    folder = out or folder_to_write(Path(f"ppnmf-{source.name}-rank{rank}"))
    say_heading(source)
    from ppnmf import report
    from ppnmf.data.labelled import Labelled
    from ppnmf.models import for_data

    if priors.given:
        priors.of(for_data(model or report.DEFAULT, source.X, rank, source.mask))

    of_fixed_length = options_given(quick, draws=draws, warmup=warmup)
    of_gibbs = (
        {"draws": DRAWS} | length_given(until, max_seconds, **of_fixed_length) | options_given(quick, chains=chains)
    )
    of_icm = {"restarts": 4} | options_given(quick, restarts=None)
    of_pae = {"draws": 200} | options_given(quick, steps=None)
    experiment = report.compare_methods(
        Labelled.of(source.X, source.rows, source.columns),
        rank,
        mask=source.mask,
        model=model or report.DEFAULT,
        priors=priors.given,
        held_out=held_out,
        options={"gibbs": of_gibbs, "icm": of_icm, "pae": of_pae},
        seed=seed,
        device=device_named(device),
        progress=not no_progress,
    )
    try:
        with finishing():
            files = report.write(
                experiment,
                folder,
                data={"name": source.name, "about": source.about},
                rows=source.rows,
                columns=source.columns,
                picture=source.picture,
                order=source.order,
                written=note,
            )
    finally:
        typer.echo(f"\n{experiment.table}\n")
    names = ", ".join(path.name for path in files)
    typer.echo(f"{len(files)} files in {folder} ({time.perf_counter() - began:.0f} s): {names}")
    if experiment.interrupted:
        raise KeyboardInterrupt
    return experiment.table.to_dict() | {"folder": str(folder)}
