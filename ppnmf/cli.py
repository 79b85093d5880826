"""The command line. Bad input gets one sentence and exit code 2; Ctrl-C leaves what was done and gives 130."""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    import numpy as np

    from ppnmf.posterior import Posterior

__all__ = ["app", "main"]

app = typer.Typer(
    help="Probabilistic non-negative matrix factorisation: fit, compare, choose the rank, and say whether to believe it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BAD_INPUT, INTERRUPTED = 2, 130
QUICK = {"draws": 50, "warmup": 50, "chains": 2, "restarts": 2, "steps": 200}  # for a first look
QUICK_CRITERIA: dict[str, dict[str, Any]] = {
    "chib": {"draws": 50, "warmup": 50, "replicates": 3},
    "smc": {"particles": 100, "replicates": 3},
    "heldout": {"draws": 25, "warmup": 25, "used": 2},
    "elbo": {"steps": 300, "restarts": 1},
    "loo": {"draws": 100, "warmup": 100, "cells": 2000},
    "consensus": {"restarts": 10},
}

Data = Annotated[str, typer.Argument(metavar="DATA", help="A data set's name (digits, toy60x40, ...) or a file.")]
Rank = Annotated[int, typer.Option("--rank", "-k", help="Number of components.")]
Seed = Annotated[int, typer.Option(help="Of every random number.")]
AllowNegative = Annotated[bool, typer.Option("--allow-negative", help="Take a file with negative entries.")]
Missing = Annotated[
    str, typer.Option(help="'nan': empty cells and NaN are missing values; 'error': they are a mistake.")
]
Device = Annotated[str | None, typer.Option(help="Where to work, such as cuda; the CPU by default.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Show no bars.")]
Draws = Annotated[int | None, typer.Option(help="Draws kept in each chain.")]
Warmup = Annotated[int | None, typer.Option(help="Sweeps before them.")]
Chains = Annotated[int | None, typer.Option(help="Chains.")]
Quick = Annotated[bool, typer.Option("--quick", help="Short runs, for a first look.")]


class Input(NamedTuple):
    """A data matrix from the command line, and what is known about it."""

    name: str
    X: Any  # (N, D), NaN where missing: an array, or for `fit` also a sparse matrix or a memory map
    mask: np.ndarray | None
    about: str
    rows: Any = None
    columns: Any = None
    picture: tuple[int, int] | None = None
    order: str = "C"


_saved: list[Path] = []


def main() -> None:
    """The entry point of the `ppnmf` command."""
    app()


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with our answers to bad input, warnings and Ctrl-C."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        _saved.clear()
        try:
            with warnings.catch_warnings():
                _say_warnings()
                command(*args, **options)
        except KeyboardInterrupt:
            _stop_interrupted()
        except (ValueError, TypeError, OSError, ModuleNotFoundError, MemoryError) as error:
            if os.environ.get("PPNMF_TRACEBACK"):
                raise
            _stop(error)

    return run


def _stop(error: Exception) -> None:
    sentence = " ".join(str(error).split()) or type(error).__name__
    typer.echo(f"ppnmf: {sentence}", err=True)
    raise typer.Exit(BAD_INPUT)


def _stop_interrupted() -> None:
    what = f"saved so far: {', '.join(map(str, _saved))}" if _saved else "nothing was saved"
    typer.echo(f"ppnmf: interrupted; {what}", err=True)
    raise typer.Exit(INTERRUPTED)


def _say_warnings() -> None:
    """Each warning as one plain line, once; those of other libraries about themselves not at all."""
    said = set()

    def show(message: Any, *where: Any) -> None:
        text = " ".join(str(message).split())
        if text not in said:
            said.add(text)
            typer.echo(f"ppnmf: warning: {text}", err=True)

    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", category=UserWarning)
    warnings.filterwarnings("ignore", message="Found chain dimension to be longer than draw dimension")
    warnings.showwarning = show  # type: ignore[assignment]


def _read(name: str, allow_negative: bool, missing: str, dense: bool = True) -> Input:
    """The data that DATA names. A file's surprises are refused unless told: negative entries, missing values.

    Args:
        dense: in memory as one array; otherwise a sparse matrix stays one, and a big .npy file stays on disk.
    """
    import numpy as np

    from ppnmf.data import datasets, files, toy

    if missing not in ("error", "nan"):
        raise ValueError(f"--missing is {missing!r}; it must be 'error' or 'nan'")
    if name in datasets.names() or toy.named(name) is not None:
        found = datasets.load(name)
        return Input(name, found.X, found.mask, found.about, found.rows, found.columns, found.picture, found.order)
    if not Path(name).exists() and not Path(name).suffix:
        datasets.load(name)  # its sentence says what names there are
    X, rows, columns = files.read(name, dense)
    if isinstance(X, np.memmap) or not isinstance(X, np.ndarray):
        return _as_it_lies(
            Input(Path(name).stem, X, None, f"The file {Path(name).name}.", rows, columns), allow_negative, missing
        )
    nan, negative = int(np.isnan(X).sum()), int((X < 0).sum())
    if nan and missing == "error":
        raise ValueError(
            f"X has {nan} NaN or empty entries: pass --missing nan if they are missing values, or fill them in"
        )
    if negative and not allow_negative:
        raise ValueError(
            f"X has {negative} negative entries (least {np.nanmin(X):.6g}): check the input, or pass --allow-negative to fit a "
            "Gaussian model to them all the same"
        )
    return Input(Path(name).stem, X, ~np.isnan(X) if nan else None, f"The file {Path(name).name}.", rows, columns)


def _as_it_lies(given: Input, allow_negative: bool, missing: str) -> Input:
    """A sparse matrix or a memory map, checked without making it an array."""
    from ppnmf.data.matrix import as_matrix

    try:
        X = as_matrix(given.X, missing=missing)
    except ValueError as error:
        raise ValueError(str(error).replace("missing='nan'", "--missing nan")) from error
    if X.n_negative and not allow_negative:
        raise ValueError(
            f"X has {X.n_negative} negative entries (least {X.least:.6g}): check the input, or pass --allow-negative to fit a "
            "Gaussian model to them all the same"
        )
    return given._replace(X=X)


def _device(name: str | None) -> str | None:
    import torch

    if name is None:
        return None
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ValueError(f"--device is {name!r}; give cpu or cuda") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, and there is no CUDA device here: leave it out")
    return name


def _given(quick: bool = False, **options: Any) -> dict[str, Any]:
    """The options that were given, over those of --quick."""
    short = {name: QUICK[name] for name in options if name in QUICK} if quick else {}
    return short | {name: value for name, value in options.items() if value is not None}


def _folder(path: Path) -> Path:
    """The folder to write to, checked before the work that would be lost."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out is {path}, which is not a folder")
    return path


def _note(path: Path) -> None:
    _saved.append(path)


def _heading(data: Input) -> None:
    N, D = data.X.shape
    names = "".join(
        f", {what} named" for what, given in (("rows", data.rows), ("columns", data.columns)) if given is not None
    )
    typer.echo(f"{data.name}: {N} × {D}{names}. {data.about}")


@app.command()
@_guarded
def compare(
    data: Data,
    rank: Rank,
    out: Annotated[Path | None, typer.Option(help="Folder for pictures, posteriors and run.json.")] = None,
    seed: Seed = 0,
    held_out: Annotated[float, typer.Option(help="Share of the cells that no method sees.")] = 0.1,
    draws: Draws = None,
    warmup: Warmup = None,
    chains: Chains = None,
    allow_negative: AllowNegative = False,
    missing: Missing = "error",
    quick: Quick = False,
    device: Device = None,
    no_progress: NoProgress = False,
) -> None:
    """Fit DATA by three methods, and compare them.

    Gibbs, the mode by ICM, and PAE-NMF see the same cells of DATA, and are scored on those that none of them saw.
    """
    began, given = time.perf_counter(), _read(data, allow_negative, missing)
    folder = _folder(out or Path(f"ppnmf-{given.name}-rank{rank}"))
    _heading(given)
    from ppnmf import report

    options = {
        "gibbs": {"draws": 300, "warmup": 300} | _given(quick, draws=draws, warmup=warmup, chains=chains),
        "icm": {"restarts": 4} | _given(quick, restarts=None),
        "pae": {"draws": 200} | _given(quick, steps=None),
    }
    experiment = report.compare_methods(
        given.X,
        rank,
        mask=given.mask,
        held_out=held_out,
        options=options,
        seed=seed,
        device=_device(device),
        progress=not no_progress,
    )
    typer.echo(f"\n{experiment.table}\n")
    files = report.write(
        experiment,
        folder,
        data={"name": given.name, "about": given.about},
        rows=given.rows,
        columns=given.columns,
        picture=given.picture,
        order=given.order,
        written=_note,
    )
    typer.echo(
        f"{len(files)} files in {folder} ({time.perf_counter() - began:.0f} s): {', '.join(path.name for path in files)}"
    )
    if experiment.interrupted:
        raise KeyboardInterrupt


@app.command()
@_guarded
def fit(
    data: Data,
    rank: Rank,
    method: Annotated[str, typer.Option(help="gibbs, icm, nuts (exponential-Gaussian), or svi (PAE-NMF).")] = "gibbs",
    out: Annotated[Path, typer.Option(help="NetCDF file for the posterior.")] = Path("fit.nc"),
    seed: Seed = 0,
    draws: Draws = None,
    warmup: Warmup = None,
    chains: Chains = None,
    thin: Annotated[int | None, typer.Option(help="Keep every so many-th sweep.")] = None,
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
    allow_negative: AllowNegative = False,
    missing: Missing = "error",
    device: Device = None,
    no_progress: NoProgress = False,
) -> None:
    """Fit DATA by one method, and save the posterior."""
    given = _read(data, allow_negative, missing, dense=False)
    import ppnmf
    from ppnmf.models import PAENMF, ExponentialGaussian

    if out.suffix != ".nc":
        raise ValueError(f"--out is {out}; a posterior is saved to a file that ends in .nc")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out is {out}, and there is no folder {out.parent}")
    model = PAENMF(rank) if method == "svi" else ExponentialGaussian.scaled_to(given.X, rank, given.mask)
    options = _given(draws=draws, warmup=warmup, chains=chains, thin=thin, restarts=restarts, steps=steps)
    options |= _given(checkpoint=checkpoint, every=every, resume=resume, store=store)
    _heading(given)
    post = ppnmf.fit(
        model,
        given.X,
        method=method,
        mask=given.mask,
        seed=seed,
        device=_device(device),
        progress=not no_progress,
        **options,
    )
    _note(post.save(out, rows=given.rows, columns=given.columns))
    _diagnose(post)
    typer.echo(f"Saved to {out}.")
    if post.attrs.get("interrupted"):
        raise KeyboardInterrupt


@app.command("rank")
@_guarded
def choose_rank(
    data: Data,
    ranks: Annotated[
        str, typer.Option(help="From:to, both tried (1:10), with a step (2:20:2), or a list (2,5,10).")
    ] = "1:10",
    method: Annotated[
        str,
        typer.Option(
            help="One or several with commas, of which the first decides: chib, smc, heldout, aic, bic, mdl, elbo, loo, consensus."
        ),
    ] = "chib",
    out: Annotated[Path | None, typer.Option(help="Folder for the table, the picture and run.json.")] = None,
    seed: Seed = 0,
    draws: Draws = None,
    warmup: Warmup = None,
    replicates: Annotated[
        int | None, typer.Option(help="Independent runs of chib and smc, from which the error comes.")
    ] = None,
    particles: Annotated[int | None, typer.Option(help="Of smc.")] = None,
    folds: Annotated[int | None, typer.Option(help="Parts of the cells, hidden in turn by heldout.")] = None,
    nested: Annotated[
        bool, typer.Option("--nested", help="Choose the rank inside each fold of heldout too: what the choice errs by.")
    ] = False,
    restarts: Annotated[int | None, typer.Option(help="Starts of aic, bic, mdl, elbo and consensus.")] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="What twice and half the rates would do to chib and smc.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Ranks worked on at once, in processes.")] = 1,
    checkpoint: Annotated[
        Path | None, typer.Option(help="JSON file that takes each rank's score when it is done.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on from such a file; with the same --checkpoint, begin if there is none.")
    ] = None,
    allow_negative: AllowNegative = False,
    missing: Missing = "error",
    quick: Quick = False,
    device: Device = None,
    no_progress: NoProgress = False,
) -> None:
    """Choose the number of components of DATA.

    By the log evidence (chib, smc), which tells how probable the data are at each rank, by the error on held-out cells, or
    by other criteria; side by side in one table, and with --out in a picture.
    """
    given, folder = _read(data, allow_negative, missing), None if out is None else _folder(out)
    _heading(given)
    import torch

    import ppnmf
    from ppnmf.models import ExponentialGaussian

    X = torch.from_numpy(given.X).to(_device(device))
    methods = method.split(",")
    given_options = _given(
        draws=draws, warmup=warmup, replicates=replicates, particles=particles, folds=folds, restarts=restarts,
        nested=nested or None,
    )  # fmt: skip
    short = {name: QUICK_CRITERIA[name] for name in methods if quick and name in QUICK_CRITERIA}
    options: dict[str, Any] = given_options | {
        name: {option: value for option, value in own.items() if option not in given_options}
        for name, own in short.items()
    }
    table = ppnmf.select_rank(
        lambda rank: ExponentialGaussian.scaled_to(X, rank, given.mask),
        X,
        _whole_numbers(ranks),
        method=methods,
        seed=seed,
        mask=given.mask,
        sensitivity=sensitivity,
        n_jobs=jobs,
        checkpoint=checkpoint,
        resume=resume,
        progress=not no_progress,
        **options,
    )
    typer.echo(f"\n{table}\n")
    if folder is not None:
        _write_rank(table, folder, given, {"ranks": ranks, "method": method, "seed": seed, **options})
    if table.interrupted:
        raise KeyboardInterrupt


def _write_rank(table: Any, folder: Path, data: Input, options: dict[str, Any]) -> None:
    from ppnmf import plots, report

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.txt").write_text(f"{table}\n", encoding="utf-8")
    facts = {"name": data.name, "about": data.about, **report.describe_data(data.X)}
    _note(folder / "table.txt")
    _note(
        report.write_json(
            folder / "run.json", {"table": table.to_dict(), "data": facts, "options": options, **report.environment()}
        )
    )
    _note(plots.save(plots.rank(table), folder / "rank.png"))
    typer.echo(f"{len(_saved)} files in {folder}: {', '.join(path.name for path in _saved)}")


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


@app.command()
@_guarded
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
    _diagnose(post)
    if out is not None:
        from ppnmf import plots

        out.mkdir(parents=True, exist_ok=True)
        _note(plots.save(plots.components(post), out / "components.png"))
        if post.n_draws > 1:
            _note(plots.save(plots.traces(post), out / "traces.png"))
        typer.echo(f"{len(_saved)} pictures in {out}.")


def _diagnose(post: Posterior) -> None:
    from ppnmf.diagnostics.convergence import summary

    typer.echo(str(summary(post)))
    if "kept_every" in post.attrs:
        typer.echo(
            f"The file holds one draw in {post.attrs['kept_every']}; judged by all of them the run may look better."
        )


@app.command()
@_guarded
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
    from ppnmf import zoo

    outcome = zoo.run(recipe, seed=seed, progress=not no_progress)
    reference = zoo.reference_beside(recipe)
    typer.echo(f"{'':<32}{'measured':>14} ± error     {'reference':>14} ± error")
    for name, (value, error) in outcome.numbers.items():
        known = reference.get(name)
        beside = f"{known['value']:>14.6g} ± {known['error']:<9.2g}" if known else ""
        typer.echo(f"{name:<32}{value:>14.6g} ± {error:<9.2g} {beside}".rstrip())
    off = zoo.disagreements(outcome, reference)
    verdict = "There is no reference beside the recipe." if not reference else "It agrees with the reference."
    typer.echo("\n".join(off) if off else f"{verdict} {outcome.seconds:.1f} seconds.")
    if off:
        raise typer.Exit(1)


@app.command("zoo")
@_guarded
def list_zoo() -> None:
    """List the models, and where their cards are."""
    from ppnmf import zoo

    for entry in zoo.entries():
        typer.echo(f"{entry.name:<24}{entry.title}\n{'':<24}{entry.path / 'README.md'}")


if __name__ == "__main__":
    main()
