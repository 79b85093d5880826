"""What the main job leaves in its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ppnmf.data.datasets import picture_facts
from ppnmf.disk import write_text
from ppnmf.posterior import Posterior
from ppnmf.report.compared import compared
from ppnmf.report.document import Picture
from ppnmf.report.experiment import Experiment
from ppnmf.report.facts import describe_data, environment, write_json
from ppnmf.report.page import write_page
from ppnmf.settings import own_settings

__all__ = ["thinned", "write"]

FILE_ENTRIES = 5_000_000  # numbers of W and H that a NetCDF file may hold: 40 MB


@own_settings()
def thinned(post: Posterior, entries: int = FILE_ENTRIES) -> Posterior:
    """Every s-th draw, so that W and H hold at most about so many numbers; attrs["kept_every"] says s when it is not 1."""
    held = sum(post.draws[site].numel() for site in ("W", "H") if site in post.draws)
    every = min(-(-held // entries), post.n_draws)
    return post if every <= 1 else post.select(thin=every)


def _facts(experiment: Experiment, data: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json holds."""
    return {
        "table": experiment.table.to_dict(),
        "data": {**data, **describe_data(experiment.X)},
        "options": experiment.options,
        "seconds": {"all": experiment.seconds, **{name: post.timings for name, post in experiment.fits.items()}},
        "device": str(next(iter(experiment.fits.values())).X.device),
        "interrupted": experiment.interrupted,
        **environment(),
    }


def write(
    experiment: Experiment,
    folder: str | Path,
    *,
    data: Mapping[str, Any] | None = None,
    rows: Any = None,
    columns: Any = None,
    picture: tuple[int, int] | None = None,
    order: str = "C",
    written: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Write the experiment's folder: table.txt, run.json, posteriors as NetCDF, pictures as PNG, and the page compare.html.

    Returns: the files.

    Args:
        data: facts about the data for run.json, such as its name.
        rows, columns: names of X's rows and columns.
        picture, order: shape of a row that is a picture, and how it lies in its row (`datasets.Dataset`).
        written: called with each path when it is there.

    Raises:
        OSError: a file cannot be written, in a sentence; those before it are there.
    """
    from ppnmf import plots

    folder = Path(folder)
    files = []
    folder.mkdir(parents=True, exist_ok=True)

    def done(path: Path) -> None:
        files.append(path)
        if written is not None:
            written(path)

    done(write_text(folder / "table.txt", f"{experiment.table}\n"))
    done(write_json(folder / "run.json", _facts(experiment, data or {})))
    for name, post in experiment.fits.items():
        pictured = replace(post, attrs=post.attrs | picture_facts(picture, order))
        done(thinned(pictured).save(folder / f"{name}.nc", rows=rows, columns=columns))
    figures = plots.overview(experiment.fits, experiment.X, experiment.seen, picture, order, rows, columns)
    for name, figure in figures.items():
        done(plots.save(figure, folder / f"{name}.png"))
    drawn = [Picture(name, _in_words(name), (folder / f"{name}.png").read_bytes()) for name in figures]
    document = compared(experiment.table, drawn, experiment.options, str((data or {}).get("about", "")))
    done(write_page(document, folder / "compare.html"))
    return files


def _in_words(name: str) -> str:
    """What a picture of `plots.overview` shows."""
    what, _, whose = name.partition("-")
    return f"{what.capitalize()} of {whose}" if whose else f"{what.capitalize()} of some rows, by each fit"
