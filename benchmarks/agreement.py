"""Do chains agree on real data, how soon, and what did the survey of starts leave out?

Each row is a matrix and a rank, fitted by `ppnmf.fit(model, X, until="agree")` with 4 chains and priors on the data's scale, for
some seeds. The table gives the worst R-hat of the log joint, of sigma2, of the sorted strengths and of 100 entries of W @ H,
and the seconds, survey included, and of the processor; in how many modes the chains are (`ppnmf.diagnostics.modes.groups`), and
how many of them fell behind in the warm-up and went on from the best one; then which of the surveyed starts ended where the
chains are, and how much less the others' modes weigh, as sweeps tell it. With --scaled a second run without a survey, 500 sweeps
after 500, shows what a single start a chain gives.

A row and a seed at a time, and then the table of all seeds, median and worst beside what is wanted:

    python benchmarks/agreement.py --rows olivetti --ranks 10 --seeds 0 --out olivetti-10-0.json
    python benchmarks/agreement.py --join *.json

`--rows digits,prices` takes the rows whose names begin so. Data are read from the folder named by PPNMF_DATA (digits come with
scikit-learn); rows whose data are not there are left out. Other work on the machine makes the seconds upper bounds. Prints a
table, progress to standard error, and writes JSON with --out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ppnmf
from ppnmf.diagnostics.modes import groups
from ppnmf.identified import Diagnosis, diagnose
from ppnmf.posterior import Posterior
from ppnmf.report import held_out_mask

GROUPS = ("lp", "sigma2", "strength", "WH")
LATE = 1.1  # a run that its clock ends takes some sweeps and a last look more
Data = tuple[np.ndarray, np.ndarray | None]  # X (N, D), and what is observed of it


class Row(NamedTuple):
    """A matrix, a rank, the worst R-hat that is wanted, and the seconds it may take."""

    name: str
    rank: int
    data: Callable[[], Data]
    wanted: float
    seconds: float


def plain(name: str) -> Callable[[], Data]:
    """A data set with its mask."""

    def load() -> Data:
        found = ppnmf.datasets.load(name)
        return found.X, found.mask

    return load


def partly_hidden() -> Data:
    """Digits without a tenth of the cells, as the demo hides them."""
    X = ppnmf.datasets.load("digits").X
    return X, held_out_mask(ppnmf.as_matrix(X), 0.1).numpy()


def by_maximum() -> Data:
    """Leukaemia, each sample (a column) divided by its maximum."""
    X = ppnmf.datasets.load("leukaemia").X
    return X / X.max(0), None


def drawn() -> Data:
    """A small drawn matrix, for --quick."""
    return ppnmf.datasets.load("toy30x20x3").X, None


ROWS = [
    Row("digits", 10, plain("digits"), 1.01, 30),
    Row("hidden digits", 10, partly_hidden, 1.01, 45),
    *(Row("leukaemia", rank, by_maximum, 1.01, 30) for rank in (3, 4, 6)),
    *(Row("mutations", rank, plain("mutations"), 1.01, 5) for rank in (4, 6)),
    *(Row("gdsc", rank, plain("gdsc"), 1.05, 60) for rank in (5, 10)),
    Row("prices", 5, plain("prices"), 1.05, 60),
    Row("prices", 9, plain("prices"), 1.1, 120),
    *(Row("faces", rank, plain("faces"), 1.05, 120) for rank in (9, 25, 49)),
    Row("olivetti", 10, plain("olivetti"), 1.1, 180),
    Row("mnist", 10, plain("mnist"), 1.1, 180),
]


def worst(found: Diagnosis) -> dict[str, float]:
    """The worst R-hat of each group of quantities."""
    figures = dict.fromkeys(GROUPS, 0.0)
    for quantity in found.quantities:
        group = quantity.name.split("[")[0]
        figures[group] = max(figures[group], quantity.rhat or 0.0)
    return figures


def outcome(post: Posterior, seconds: float, processor: float) -> dict[str, Any]:
    found = diagnose(post)
    survey = post.survey
    here = None if survey is None else sum(survey.here)
    return {
        **worst(found),
        "seconds": seconds,
        "processor": processor,
        "ended": post.attrs.get("ended", "fixed"),
        "sweeps": post.attrs.get("sweeps", post.attrs["warmup"] + post.n_draws),
        "ess": found.least_ess,
        "modes": len(groups(post)),
        "anew": None if survey is None else sum(survey.anew),
        "here": here,
        "starts": None if survey is None else survey.starts,
        "left_out": [] if survey is None else list(survey.left_out),
    }


def run(row: Row, seed: int, max_seconds: float | None, scaled: bool) -> dict[str, dict[str, Any]]:
    """The outcome with a survey, until the chains agree; and perhaps without one."""
    X, mask = row.data()
    observed = X if mask is None else np.where(mask, X, np.nan)
    missing = "nan" if np.isnan(observed).any() else "error"
    model = ppnmf.models.ExponentialGaussian.for_data(observed, row.rank, missing=missing)
    shared: dict[str, Any] = {"missing": missing, "chains": 4, "seed": seed, "progress": sys.stderr.isatty()}
    runs: dict[str, dict[str, Any]] = {"survey": {"until": "agree", "max_seconds": max_seconds or row.seconds}}
    if scaled:
        runs["scaled"] = {"init": "scaled", "draws": 500, "warmup": 500}
    found = {}
    ppnmf.fit(model, observed, draws=2, warmup=0, survey=5, **shared)  # compiles what is not yet
    for name, options in runs.items():
        began = time.perf_counter()
        worked = time.process_time()
        post = ppnmf.fit(model, observed, **options, **shared)
        found[name] = outcome(post, time.perf_counter() - began, time.process_time() - worked)
    return found


def line(row: Row, seed: int, how: str, found: dict[str, Any]) -> str:
    figures = "".join(f"{found[group]:9.3f}" for group in GROUPS)
    left = found["left_out"]
    span = f"{left[0]:.0f} to {left[-1]:.0f} nats" if left else "-"
    starts = "-" if found["starts"] is None else f"{found['here']} of {found['starts']}"
    anew = "-" if found["anew"] is None else str(found["anew"])
    ess = "-" if found["ess"] is None else f"{found['ess']:.0f}"
    return (
        f"{row.name:<14}{row.rank:>4}{seed:>5} {how:<7}{figures}{ess:>7}{found['seconds']:8.1f}{found['processor']:10.1f} "
        f"{found['ended']:<6}{found['sweeps']:>8}{found['modes']:>6}{anew:>5} {starts:>9}  {span}"
    )


def heading() -> str:
    names = "".join(f"{group:>9}" for group in GROUPS)
    return (
        f"{'data':<14}{'rank':>4}{'seed':>5} {'start':<7}{names}{'ESS':>7}{'seconds':>8}{'processor':>10} {'ended':<6}"
        f"{'sweeps':>8}{'modes':>6}{'anew':>5} {'here':>9}  left out, weigh less by about"
    )


def joined(paths: Sequence[Path]) -> list[str]:
    """The table over the seeds of surveyed runs in files: median and worst of each figure, one of ROWS a line."""
    found = [result for path in paths for result in json.loads(path.read_text(encoding="utf-8"))]
    titles = "".join(f"{group:>16}" for group in (*GROUPS, "seconds", "modes"))
    lines = [f"{'data':<14}{'rank':>4}{'seeds':>8}{titles}   wanted", f"{'':26}" + f"{'median  worst':>16}" * 6]
    for row in ROWS:
        own = [r for r in found if (r["data"], r["rank"], r["start"]) == (row.name, row.rank, "survey")]
        if own:
            lines.append(joined_line(row, own))
    return lines


def joined_line(row: Row, own: list[dict[str, Any]]) -> str:
    """One line of `joined`, of the runs of one row."""
    seeds = ",".join(str(r["seed"]) for r in sorted(own, key=lambda r: r["seed"]))
    rhats = "".join(pair([r[group] for r in own], "{:.3f}") for group in GROUPS)
    seconds = pair([r["seconds"] for r in own], "{:.1f}")
    modes = pair([r["modes"] for r in own], "{:.0f}")
    met = all(max(r[group] for group in GROUPS) <= row.wanted and r["seconds"] <= LATE * row.seconds for r in own)
    wanted = f"{row.wanted} in {row.seconds:.0f} s: {'met' if met else 'missed'}"
    return f"{row.name:<14}{row.rank:>4}{seeds:>8}{rhats}{seconds}{modes}   {wanted}"


def pair(values: Sequence[float], form: str) -> str:
    """The median and the greatest, side by side."""
    middle = form.format(statistics.median(values))
    worst = form.format(max(values))
    return f"{middle:>9}{worst:>7}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="names of rows, or how they begin, between commas; all by default")
    parser.add_argument("--ranks", default="", help="of those, the ranks between commas; all by default")
    parser.add_argument("--seeds", default="0,1,2", help="between commas")
    parser.add_argument("--max-seconds", type=float, help="instead of a row's own")
    parser.add_argument("--scaled", action="store_true", help="without a survey too")
    parser.add_argument("--quick", action="store_true", help="a small drawn matrix only")
    parser.add_argument("--join", type=Path, nargs="+", help="files that --out wrote: their table, and no run")
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    if told.join:
        print("\n".join(joined(told.join)))
        return
    rows = chosen(told.rows, told.ranks)
    seeds = [int(seed) for seed in told.seeds.split(",")]
    if told.quick:
        rows, seeds, told.scaled = [Row("drawn", 3, drawn, 1.01, 20)], [0], True
    elif not rows:
        parser.error(f"--rows is {told.rows}; there are {', '.join(sorted({row.name for row in ROWS}))}")
    results = []
    print(heading())
    for row in rows:
        for seed in seeds:
            try:
                found = run(row, seed, told.max_seconds, told.scaled)
            except (ValueError, OSError) as error:
                print(f"{row.name:<14}{row.rank:>4}  left out: {error}", flush=True)
                break
            for how, figures in found.items():
                print(line(row, seed, how, figures), flush=True)
                results.append({"data": row.name, "rank": row.rank, "seed": seed, "start": how, **figures})
    if told.out is not None:
        told.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


def chosen(names: str, ranks: str) -> list[Row]:
    """The rows whose names begin so, and of these ranks; both between commas, all where nothing is said."""
    begins = tuple(name for name in names.split(",") if name) or ("",)
    own = {int(rank) for rank in ranks.split(",") if rank}
    return [row for row in ROWS if row.name.startswith(begins) and (not own or row.rank in own)]


if __name__ == "__main__":
    main()
