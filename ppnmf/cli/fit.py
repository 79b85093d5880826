"""`ppnmf fit`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppnmf.cli.diagnose import outcome_of, say_diagnosis
from ppnmf.cli.guard import finishing, note, note_checkpoint
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
    Rank,
    Seed,
    Survey,
    Until,
    Warmup,
    device_named,
    length_given,
    options_given,
)
from ppnmf.cli.priors import AS_FOR_DATA, Priors, takes_priors
from ppnmf.cli.reading import AS_IT_IS, Reading, reads_data
from ppnmf.disk import try_to_write

if TYPE_CHECKING:
    from ppnmf.posterior import Posterior


@answers
@reads_data
@takes_priors
def fit(
    data: Data,
    rank: Rank,
    method: Annotated[
        str,
        typer.Option(
            help="gibbs, icm, vb, nuts, smc, mu, hals or nnls (Gaussian models), svi (PAE-NMF), layerwise, deep or neural "
            "(hierarchical)."
        ),
    ] = "gibbs",
    model: ModelName = None,
    out: Annotated[
        Path, typer.Option(help="NetCDF file for the posterior; its page has the same name with .html.")
    ] = Path("fit.nc"),
    with_page: Annotated[
        bool, typer.Option("--page/--no-page", help="Write the page about it too, as `ppnmf report` does.")
    ] = True,
    seed: Seed = 0,
    draws: Draws = None,
    warmup: Warmup = None,
    chains: Chains = None,
    thin: Annotated[int | None, typer.Option(help="Keep every so many-th sweep.")] = None,
    until: Until = None,
    max_seconds: MaxSeconds = None,
    survey: Survey = None,
    restarts: Annotated[int | None, typer.Option(help="Starts of icm.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of svi, at most.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder in which gibbs and icm keep what they need to go on after a crash.")
    ] = None,
    every: Annotated[int | None, typer.Option(help="Sweeps between checkpoints; a minute's worth by default.")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on from the checkpoint in this folder; with the same --checkpoint, begin if it has none."
        ),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Zarr store that takes the draws of gibbs as they come, not the memory.")
    ] = None,
    reading: Reading = AS_IT_IS,
    priors: Priors = AS_FOR_DATA,
    device: Device = None,
    no_progress: NoProgress = False,
) -> dict[str, Any]:
    """Fit DATA by one method, and write a page about it.

    The posterior goes to a file, from which `report`, `tables`, `transform` and `generate` start. The page says whether to
    trust it, and what was found. Open it in a browser.
    """
    if out.suffix != ".nc":
        raise ValueError(f"--out is {out}; a posterior is saved to a file that ends in .nc")
    try_to_write(out)
    page = out.with_suffix(".html") if with_page else None
    if page is not None:
        try_to_write(page)
    source = read(data, reading, dense=False)
    import ppnmf
    from ppnmf.data.datasets import picture_facts
    from ppnmf.data.labelled import Labelled
    from ppnmf.inference import default_model
    from ppnmf.models import for_data

    chosen = priors.of(for_data(model or default_model(method), source.X, rank, source.mask))
    options = options_given(chains=chains, survey=survey, restarts=restarts, steps=steps)
    options |= options_given(checkpoint=checkpoint, every=every, resume=resume)
    lasting = length_given if method == "gibbs" else options_given
    options |= lasting(until=until, max_seconds=max_seconds, draws=draws, warmup=warmup, thin=thin, store=store)
    say_heading(source)
    note_checkpoint(checkpoint or resume)
    post = ppnmf.fit(
        chosen,
        Labelled.of(source.X, source.rows, source.columns),
        method=method,
        mask=source.mask,
        seed=seed,
        device=device_named(device),
        progress=not no_progress,
        **options,
    )
    facts = {"data": source.about} | picture_facts(source.picture, source.order)
    post = replace(post, attrs=post.attrs | facts)
    try:
        with finishing():
            note(post.save(out, rows=source.rows, columns=source.columns))
    finally:
        say_diagnosis(post)
    typer.echo(f"Saved to {out}.")
    if post.attrs.get("interrupted"):
        raise KeyboardInterrupt
    if page is not None:
        _write_page(post, page)
    return {"file": str(out), "page": page and str(page)} | outcome_of(post)


def _write_page(post: Posterior, page: Path) -> None:
    from ppnmf.report import write_page

    with finishing():
        note(write_page(post, page))
    typer.echo(f"The page about it is {page}.")
