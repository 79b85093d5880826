"""Do the estimates of log p(X) agree, which rank does each criterion choose on drawn and on real data, and at what cost?

The work is cut into pieces (`--piece`, one or several; `--list` names them), each for one seed: of the drawn matrix where there is
one, and of the criteria. A file PIECE-SEED.json in the folder `--out` is written anew after every rank, and an interrupted piece
goes on from it. `--join` prints the tables of all files in that folder: of each rank and seed the value ± its error, the spread
of its replicates in the heaviest mode, processor and wall seconds, and the best rank of each seed. Models are those of `for_data`,
with default settings, unless the piece says otherwise. Run it with OMP_NUM_THREADS=1; real data are read from the folder named
by PPNMF_DATA.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import log_ndtr, logsumexp

import ppnmf
from ppnmf.data.toy import draw
from ppnmf.models import ExponentialGaussian

LOG_2PI = math.log(2 * math.pi)
LOTS = 20  # of draws, from which the error of plain Monte Carlo is computed
STONES = {"stepping stones": {"method": "stepping_stone"}}
CHIB = {"chib": {"method": "chib"}}
HIDDEN = {"hidden cells": {"method": "heldout"}}
INFORMATION = {name: {"method": name} for name in ("aic", "bic")}
PRIOR_SMC = {"method": "smc", "replicates": 4}
LONG_STONES = {"method": "stepping_stone", "particles": 400, "sweeps": 3}
BRUTE_FORCE = "brute force"


class Problem(NamedTuple):
    """Data, the models to compare, and what scores them.

    Args:
        X: (N, D), NaN where an entry is missing.
        model: a registered model's name, for `for_data`; or a function of the rank.
        criteria: name -> the method and its options, as `ppnmf.select_rank` takes them.
    """

    X: Any
    model: str | Callable[[int], ExponentialGaussian]
    ranks: range | list[int]
    criteria: Mapping[str, dict[str, Any]]


Problems = dict[str, Problem]


def exact(seed: int) -> Problems:
    """Matrices so small that plain Monte Carlo over the prior is the truth."""
    model = partial(ExponentialGaussian, noise_shape=3.0, noise_scale=3.0)
    smc = {"smc": {**PRIOR_SMC, "particles": 500}}
    criteria = {BRUTE_FORCE: {"draws": 2_000_000}, **STONES, **CHIB, **smc}
    X = draw(4, 2, 2, seed=seed)[0]
    return {"4 × 2": Problem(X, model, [1, 2, 3], criteria)}


def small(seed: int) -> Problems:
    """50 × 40 of rank 4 at two noises, against a long run from the prior."""
    criteria = {"long smc": {**PRIOR_SMC, "particles": 2000}, **STONES, **CHIB, "smc": PRIOR_SMC}
    drawn = {variance: draw(50, 40, 4, noise=variance, seed=seed)[0] for variance in (1.0, 25.0)}
    return {
        f"50 × 40, noise variance {v:g}": Problem(X, ExponentialGaussian, range(1, 7), criteria)
        for v, X in drawn.items()
    }


def strong(seed: int) -> Problems:
    """30 × 20 of rank 3, whose signal is three hundred times the noise."""
    random = np.random.default_rng(seed)
    X = random.exponential(10, (30, 3)) @ random.exponential(10, (3, 20)) + random.normal(0, 1, (30, 20))
    long = {"long stones": LONG_STONES, "long smc": {**PRIOR_SMC, "particles": 1000, "sweeps": 10}}
    model = partial(ExponentialGaussian, rate_W=0.1, rate_H=0.1)
    return {"30 × 20": Problem(X, model, [2, 3, 4], STONES | CHIB | long)}


def labels(seed: int) -> Problems:
    """Labels that swap freely and labels that stay."""
    swap = partial(ExponentialGaussian, noise_shape=3.0, noise_scale=50.0)
    stay = partial(ExponentialGaussian, noise_shape=3.0, noise_scale=0.15)
    criteria = {**STONES, "long smc": {**PRIOR_SMC, "particles": 2000, "sweeps": 10}}
    return {
        "10 × 3, labels swap": Problem(draw(10, 3, 3, noise=25.0, seed=seed)[0], swap, [3], criteria),
        "20 × 5, labels stay": Problem(draw(20, 5, 2, noise=0.05, seed=seed)[0], stay, [2], criteria),
    }


def seed_toy(seed: int) -> Problems:
    """100 × 80 of rank 10, noise variance 2.5."""
    X = draw(100, 80, 10, noise=2.5, seed=seed)[0]
    return {"seed article's toy": Problem(X, "exponential_gaussian", range(8, 13), STONES | INFORMATION | CHIB)}


def toy(seed: int) -> Problems:
    return _real("toy100x80", range(1, 15), STONES | INFORMATION)


def digits_one(seed: int) -> Problems:
    """Digits at rank 10 under the priors of the reported -301 707 ± 5."""
    X = ppnmf.datasets.load("digits").X
    rate = (10 / X.mean()) ** 0.5
    model = partial(ExponentialGaussian, rate_W=rate, rate_H=rate, noise_shape=1.0, noise_scale=float(X.var()))
    return {"digits, noise (1, Var X)": Problem(X, model, [10], STONES)}


def large(seed: int) -> Problems:
    """10 000 × 500."""
    X = draw(10_000, 500, 10, seed=seed)[0]
    return {"10 000 × 500": Problem(X, "exponential_gaussian", [10], STONES)}


def _real(name: str, ranks: range | list[int], criteria: Mapping[str, dict[str, Any]] = STONES | HIDDEN) -> Problems:
    return {name: Problem(ppnmf.datasets.load(name).X, "exponential_gaussian", ranks, criteria)}


PIECES: dict[str, Callable[[int], Problems]] = {
    "exact": exact,
    "labels": labels,
    "strong": strong,
    "digits10": digits_one,
    "leukaemia": lambda seed: _real("leukaemia", range(1, 7)),
    "seed-toy": seed_toy,
    "toy100x80": toy,
    "small": small,
    "gdsc": lambda seed: _real("gdsc", range(5, 16)),
    "digits": lambda seed: _real("digits", range(5, 21)),
    "large": large,
    "faces": lambda seed: _real("faces", [5, 10, 20, 40]),
}


def brute_force(model: ExponentialGaussian, X: torch.Tensor, draws: int, seed: int) -> tuple[float, float]:
    """log p(X) and its error: H, σ² and W but for its first column from the prior, that column integrated row by row."""
    random = np.random.default_rng(seed)
    each = draws // LOTS
    logs = np.array([logsumexp(_given_draws(model, X.numpy(), each, random)) - math.log(each) for _ in range(LOTS)])
    means = np.exp(logs - logs.max())
    error = means.std(ddof=1) / means.mean() / math.sqrt(LOTS)
    return float(logs.max() + math.log(means.mean())), float(error)


def _given_draws(model: ExponentialGaussian, X: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """log p(X | the draws), (draws,)."""
    (N, D), K = X.shape, model.rank
    H = random.exponential(size=(draws, K, D)) / model.rate_H
    W = random.exponential(size=(draws, N, K - 1)) / model.rate_W
    sigma2 = model.noise_scale / random.gamma(model.noise_shape, size=draws)
    left = X - W @ H[:, 1:]  # (draws, N, D)
    a = (H[:, 0] ** 2).sum(1) / sigma2
    b = (left @ H[:, 0, :, None])[..., 0] / sigma2[:, None] - model.rate_W
    half_line = 0.5 * (LOG_2PI - np.log(a[:, None]) + b * b / a[:, None]) + log_ndtr(b / np.sqrt(a)[:, None])
    rows = half_line + math.log(model.rate_W) - 0.5 * (left**2).sum(2) / sigma2[:, None]
    return rows.sum(1) - 0.5 * N * D * (LOG_2PI + np.log(sigma2))


def score(problem: Problem, rank: int, criterion: str, options: dict[str, Any], seed: int) -> dict[str, Any]:
    """What the criterion says of a rank, as JSON holds it."""
    wall, processor = time.perf_counter(), time.process_time()
    found = _scored(problem, rank, criterion, options, seed)
    return {
        **found,
        "wall": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _scored(problem: Problem, rank: int, criterion: str, options: dict[str, Any], seed: int) -> dict[str, Any]:
    if criterion == BRUTE_FORCE:
        model: Any = problem.model
        value, error = brute_force(model(rank), problem.X, options["draws"], seed)
        return {"value": value, "error": error, "sign": 1}
    shown = sys.stderr.isatty()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they stand in the score
        try:
            table = ppnmf.select_rank(
                problem.model, problem.X, [rank], seed=seed, missing="nan", progress=shown, **options
            )
        except (ValueError, ArithmeticError) as error:
            return {"value": math.nan, "error": math.nan, "sign": 1, "failed": str(error)}
    said = table.scores[options["method"]][rank]
    modes = getattr(said, "modes", ())
    return {
        "value": said.value,
        "error": said.error,
        "sign": said.sign,
        "failed": getattr(said, "failed", ""),
        "replicates": list(modes[0].replicates if modes else getattr(said, "replicates", ())),
        "modes": [mode.log_evidence for mode in modes],
        "gap": getattr(said, "gap", 0.0),
        "warnings": list(said.warnings),
    }


def work(piece: str, seed: int, folder: Path) -> Path:
    """Do what is left of a piece, and write what is there after every rank."""
    path = folder / f"{piece}-{seed}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    done = {(row["data"], row["criterion"], row["rank"]) for row in rows}
    for name, problem in PIECES[piece](seed).items():
        for criterion, options in problem.criteria.items():
            for rank in problem.ranks:
                if (name, criterion, rank) in done:
                    continue
                about = {"data": name, "seed": seed, "rank": rank, "criterion": criterion}
                rows.append(about | score(problem, rank, criterion, options, seed))
                _write(path, rows)
                print(f"{name}, seed {seed}, rank {rank}, {criterion}: {_cell(rows[-1])}", flush=True)
    return path


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Whole or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(rows, indent=1))
    os.replace(unfinished, path)


def tables(folder: Path) -> Iterator[str]:
    """Of each data set, from all files."""
    read = [row for path in sorted(folder.glob("*.json")) for row in json.loads(path.read_text())]
    read.sort(key=lambda row: row["data"])
    for name, of_data in groupby(read, key=lambda row: row["data"]):
        yield from _table(name, list(of_data))


def _table(name: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    criteria = list(dict.fromkeys(row["criterion"] for row in rows))
    cells = {(row["rank"], row["seed"], row["criterion"]): row for row in rows}
    places = sorted({(row["rank"], row["seed"]) for row in rows})
    texts = [[_cell(cells.get((*place, criterion))) for criterion in criteria] for place in places]
    widths = [max(len(text) for text in column) for column in zip(criteria, *texts, strict=True)]
    yield f"\n{name}: value ± error (spread of the replicates; processor, wall seconds)"
    yield "rank seed  " + "  ".join(f"{c:>{w}}" for c, w in zip(criteria, widths, strict=True))
    for (rank, seed), own in zip(places, texts, strict=True):
        yield f"{rank:4d} {seed:4d}  " + "  ".join(f"{text:>{w}}" for text, w in zip(own, widths, strict=True))
    for criterion in criteria:
        of_criterion = [row for row in rows if row["criterion"] == criterion]
        total = sum(row["processor"] for row in of_criterion)
        peak = max(row["peak_mb"] for row in of_criterion)
        best = ", ".join(f"{rank} (seed {seed})" for seed, rank in _best(of_criterion).items())
        yield f"{criterion}: best rank {best or 'none'}; {total:.1f} s of processor in all, peak {peak:.0f} MB"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    spread = max(row["replicates"]) - min(row["replicates"]) if row.get("replicates") else 0.0
    apart = f"{spread:.2f}; " if spread else ""
    failed = " failed" if row.get("failed") else ""
    return f"{row['value']:.2f} ± {row['error']:.2f}{failed} ({apart}{row['processor']:.1f}, {row['wall']:.1f} s)"


def _best(rows: list[dict[str, Any]]) -> dict[int, int]:
    """Seed -> the best rank of those whose estimates have not failed."""
    judged: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if not row.get("failed"):
            judged.setdefault(row["seed"], []).append(row)
    best = {seed: max(own, key=lambda row: row["sign"] * row["value"]) for seed, own in judged.items()}
    return {seed: row["rank"] for seed, row in sorted(best.items())}


def quick(seed: int) -> Problems:
    few = {
        BRUTE_FORCE: {"draws": 20_000},
        "stepping stones": {"method": "stepping_stone", "particles": 10, "draws": 20, "warmup": 20, "replicates": 2},
    }
    whole = exact(seed)["4 × 2"]
    return {"4 × 2": whole._replace(ranks=[1, 2], criteria=few)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--piece", nargs="+", choices=PIECES, default=[], metavar="NAME", help="what to work on")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="one or several")
    parser.add_argument("--out", type=Path, help="the folder of the JSON files")
    parser.add_argument("--join", action="store_true", help="print the tables of all files in the folder")
    parser.add_argument("--list", action="store_true", help="name the pieces")
    parser.add_argument("--quick", action="store_true", help="a tiny piece in a folder that is not kept")
    options = parser.parse_args()
    if options.list:
        print("\n".join(PIECES))
    if options.quick:
        PIECES["quick"] = quick
        with tempfile.TemporaryDirectory() as folder:
            work("quick", 0, Path(folder))
            print("\n".join(tables(Path(folder))))
        return
    if (options.piece or options.join) and options.out is None:
        parser.error("--out: name the folder of the JSON files")
    for piece in options.piece:
        options.out.mkdir(parents=True, exist_ok=True)
        for seed in options.seed:
            work(piece, seed, options.out)
    if options.join:
        print("\n".join(tables(options.out)))


if __name__ == "__main__":
    main()
