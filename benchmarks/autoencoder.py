"""How low does PAE-NMF's training come, how fast, and what does a step cost against a hand-written loop and Pyro's SVI?

The objective is the paper's, exact: expected squared error + divergence to the prior, that is the negative ELBO at σ² = 1/2
without ½ N D log π. X is scaled as the authors scale it: faces by the greatest value, share prices and genes each row by its
own. "published" is `PAENMF.paper` with the released uniforms; its objective is the same exact one, at the guide it ends with.
"the fifth" are rows that the training of "four fifths" never saw. The steps' costs are medians over turns
(ours, by hand, Pyro, ours ...), warm. Prints tables, and writes JSON with --out. Data are read from the folder PPNMF_DATA.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from sklearn.decomposition import NMF
from torch import Tensor
from torch.nn.functional import softplus

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.data.toy import draw
from ppnmf.distributions import EULER
from ppnmf.inference import svi
from ppnmf.inference.svi.training import Course, train
from ppnmf.models import PAENMF
from ppnmf.models.encoding import LEAST, MOST, SHARPNESS
from ppnmf.posterior import Posterior
from ppnmf.threads import single_threaded

SIGMA2 = 0.5
POLISH = 200  # steps
AUTHORS = {"genes": "371 in 140 s", "prices": "diverged", "faces": "115 222 in 335 s"}  # their code, their settings
BATCH = 500
TYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Task:
    """X (N, D), scaled; the rank; the rank at which a step is timed."""

    name: str
    X: np.ndarray
    rank: int
    timed_at: int

    def on(self, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(self.X).to(dtype)


def tasks(quick: bool) -> list[Task]:
    if quick:
        X = draw(60, 40, 3).X.abs().numpy()
        return [Task("drawn", X / X.max(), 3, 3)]
    found = {name: ppnmf.datasets.load(name).X for name in ("genes", "prices", "faces")}
    found = {name: X / (X.max() if name == "faces" else X.max(1, keepdims=True)) for name, X in found.items()}
    ranks = {"genes": (4, 4), "prices": (5, 9), "faces": (80, 81)}
    return [Task(name, found[name], *ranks[name]) for name in found]


def objective(elbo: float, size: int) -> float:
    return -elbo - 0.5 * size * math.log(2 * math.pi * SIGMA2)


def fit(task: Task, X: Tensor, model: PAENMF | None = None, **options: Any) -> tuple[Posterior, float]:
    """A fit, and the objective at its guide."""
    own = model or PAENMF(task.rank, sigma2=SIGMA2)
    post = ppnmf.fit(own, X, method="svi", draws=1, seed=0, progress=False, **options)
    return post, objective(post.attrs["elbo"], X.numel())


def reached(task: Task, dtype: torch.dtype, quick: bool) -> dict[str, Any]:
    """What our training and the published one reach, and our squared error with the divergence switched off."""
    X, few = task.on(dtype), {"steps": 60} if quick else {}
    post, polished = fit(task, X, polish=20 if quick else POLISH, **few)
    gap = post.attrs["amortisation_gap"]
    free, _ = fit(task, X, divergence=False, **few)
    mean = free.model.decode(free.model.encode(X).mean)  # type: ignore[attr-defined]
    theirs, published = fit(task, X, PAENMF.paper(task.rank, released=True), steps=60 if quick else 1000)
    return {
        "data": task.name,
        "rank": task.rank,
        "type": str(dtype),
        "objective": polished + gap,
        "steps": post.attrs["steps"],
        "seconds": post.timings["train"],
        "polished": polished,
        "gap": gap,
        "its seconds": post.timings["polish"],
        "published": published,
        "its s": theirs.timings["train"],
        "authors' code": AUTHORS.get(task.name, ""),
        "error, no KL": float((X - mean).double().square().sum()),
        "floor": float(np.square(np.linalg.svd(task.X, compute_uv=False)[task.rank :]).sum()),
        "NMF": ordinary(task, quick),
    }


def ordinary(task: Task, quick: bool) -> float:
    """The squared error of scikit-learn's NMF."""
    machine = NMF(task.rank, init="nndsvda", max_iter=300, tol=1e-2 if quick else 1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may stop before its tolerance
        return float(machine.fit(task.X).reconstruction_err_ ** 2)


def variants(task: Task, quick: bool) -> Iterator[dict[str, Any]]:
    """Single and double precision, mini-batches, and the objective of rows that the training has seen and has not."""
    few: dict[str, Any] = {"steps": 60} if quick else {}
    whole = task.on(torch.float32)
    unseen = torch.arange(len(whole)) % 5 == 4
    for name, X, told in (
        ("float32", whole, {}),
        ("float64", task.on(torch.float64), {}),
        ("mini-batches", whole, {"batch_size": min(BATCH, len(whole) // 2)}),
        ("four fifths", whole[~unseen], {}),
    ):
        post, found = fit(task, X, **few, **told)
        row = {"data": task.name, "rank": task.rank, "fit": name, "objective": found, "of a row": found / len(X)}
        yield row | {"steps": post.attrs["steps"], "seconds": post.timings["train"]}
    began = time.perf_counter()
    rest = objective(svi.elbo(post.model, as_matrix(whole[unseen])), whole[unseen].numel())  # type: ignore[arg-type]
    yield row | {
        "fit": "the fifth",
        "objective": rest,
        "of a row": rest / int(unseen.sum()),
        "steps": 0,
        "seconds": time.perf_counter() - began,
    }


def by_hand(X: Tensor, model: PAENMF) -> Callable[[int], None]:
    """The same objective from the same start, written as one would: Adam, autograd, H clamped."""
    Z = model.coordinates(X)
    layers = (model.to_scale.weight, model.to_scale.bias, model.to_concentration.weight, model.to_concentration.bias)
    A, a, B, b, H = (part.detach().clone().requires_grad_() for part in (*layers, model.H))
    adam, log_range = torch.optim.Adam([A, a, B, b, H], lr=0.01), math.log(MOST / LEAST)

    def loss() -> Tensor:
        scale = softplus(Z @ A.T + a, beta=1 / SHARPNESS)
        k = (math.log(LEAST) + log_range * torch.sigmoid(Z @ B.T + b)).exp()
        first, second = torch.lgamma(1 + 1 / k).exp(), torch.lgamma(1 + 2 / k).exp()
        mean, variance = scale * first, scale**2 * (second - first**2)
        error = ((X - mean @ H) ** 2).sum() + (variance.sum(0) * (H**2).sum(1)).sum()
        divergence = k.log() - k * scale.log() + (k - 1) * (scale.log() - EULER / k) + mean - 1
        return error + divergence.sum()

    first = objective(svi.elbo(model, as_matrix(X)), X.numel())
    assert abs(float(loss().detach()) / first - 1) < 1e-3, "it is not the same objective"

    def steps(n: int) -> None:
        for _ in range(n):
            adam.zero_grad()
            loss().div(X.numel()).backward()
            adam.step()
            with torch.no_grad():
                H.clamp_(min=0)

    return steps


def by_pyro(X: Tensor, model: PAENMF) -> Callable[[int], None]:
    """Pyro's SVI of the model's own program; its guide is given the coordinates, as ours is."""
    Z, own = model.coordinates(X), PAENMF(**model.config())
    own.load_state_dict(model.state_dict())

    def story(X: Tensor) -> None:
        pyro.module("pae_nmf", own)
        own(X)

    def guide(X: Tensor) -> None:
        found = own.posterior(Z)
        with pyro.plate("row", len(X), dim=-2), pyro.plate("component", own.rank, dim=-1):
            pyro.sample("W", pyro.distributions.Weibull(found.scale, found.concentration))

    pyro.clear_param_store()
    machine = SVI(story, guide, pyro.optim.Adam({"lr": 0.01}), TraceMeanField_ELBO())

    def steps(n: int) -> None:
        for _ in range(n):
            machine.step(X)
            own.project()

    return steps


def costs(task: Task, dtype: torch.dtype, turns: int, seconds: float) -> dict[str, Any]:
    """Seconds of a step of each."""
    X = task.on(dtype)
    data, (N, D) = as_matrix(X), X.shape
    model = PAENMF(task.timed_at, sigma2=SIGMA2).initialise(data)

    def ours(n: int) -> None:
        with single_threaded():
            train(model, data, model.recipe, Course(n, None, 0.0, 0, False))

    rivals = {"ours": ours, "by hand": by_hand(X, model), "pyro": by_pyro(X, model)}
    times: dict[str, list[float]] = {name: [] for name in rivals}
    counts = {}
    for name, steps in rivals.items():
        steps(2)
        counts[name] = max(5, int(seconds / timed(steps, 3)))
    for turn in range(turns):
        names = list(rivals)
        for name in [*names[turn % 3 :], *names[: turn % 3]]:  # each begins equally often
            times[name].append(timed(rivals[name], counts[name]))
    ms = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    ratios = {f"{name} / by hand": ms[name] / ms["by hand"] for name in ("ours", "pyro")}
    return {
        "N": N,
        "D": D,
        "K": task.timed_at,
        "type": str(dtype),
        **{f"{name}, ms": ms[name] for name in ms},
        **ratios,
    }


def timed(steps: Callable[[int], None], n: int) -> float:
    start = time.perf_counter()
    steps(n)
    return (time.perf_counter() - start) / n


def table(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print the rows as they come; the same rows."""
    told = []
    for row in rows:
        if not told:
            print("  ".join(f"{head:>{max(9, len(head))}}" for head in row))
        cells = (f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values())
        told.append(row)
        print("  ".join(f"{cell:>{max(9, len(head))}}" for head, cell in zip(row, cells, strict=True)), flush=True)
    print()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small drawn matrix, few steps")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the fits; a step is timed on one")
    options = parser.parse_args()
    quick, load, told = options.quick, os.getloadavg()[0], tasks(options.quick)
    turns, seconds = (3, 0.02) if quick else (9, 1.0)
    print(f"{options.threads} thread(s), load average {load:.1f}")
    torch.set_num_threads(options.threads)
    of_both = [(task, dtype) for task in told for dtype in TYPES]
    figures: dict[str, Any] = {"threads": options.threads, "load": load}
    figures["reached"] = table(reached(task, dtype, quick) for task, dtype in of_both)
    figures["variants"] = table(variants(told[-1], quick))
    torch.set_num_threads(1)
    figures["costs"] = table(costs(task, dtype, turns, seconds) for task, dtype in of_both)
    if options.out:
        with open(options.out, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
