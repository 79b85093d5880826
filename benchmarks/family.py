"""How do the methods of ordinary NMF, and the family's sweeps, compare in time with scikit-learn, torchnmf and nimfa?

Two tables from one run, everybody from the same start and in float64. First, on five shapes without a penalty, the time to
come within 0.1 % of the best squared error that anyone found: `icm` with rates of zero, `hals` accelerated, and plain
`hals`, beside scikit-learn's `cd` (as `benchmarks/modes.py` measures it, whose curves and clocks these are). Then the
milliseconds of a sweep of each method on one shape, and of each model by Gibbs and variational Bayes, beside scikit-learn's
`mu` and `cd` and what else is installed.

With --quick the shapes are small. Prints tables, progress to standard error, and writes JSON with --out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from modes import ICM, Factors, Peer, ScikitLearn, ScikitLearnMU, Task, TorchNMF, curve, needed, timed
from threadpoolctl import threadpool_limits

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.data.toy import draw
from ppnmf.inference import descents, icm
from ppnmf.inference.chain import State
from ppnmf.models import REGISTRY, ExponentialGaussian
from ppnmf.protocols import Sweeping, Variational
from ppnmf.rng import Stream

NEAR = 1e-3  # how near the best squared error, relatively
SHAPES = ((300, 200, 10), (1000, 500, 20), (38, 5000, 3), (2429, 361, 40), (10_000, 100, 10))
SMALL = ((60, 40, 3), (100, 80, 5))
SWEEPS = 100  # of which one's time is a share


class Ours(Peer):
    """A method of `ppnmf.fit` as people call it."""

    def __init__(self, task: Task, method: str, **options: Any) -> None:
        super().__init__(task)
        self.method, self.options = method, options

    def call(self, start: Factors, iterations: int) -> Factors:
        told = {"init": {"W": start[0], "H": start[1]}, "max_sweeps": iterations, "tol": 0.0, "progress": False}
        mode = ppnmf.fit(ExponentialGaussian(self.task.rank), self.task.X, method=self.method, **told, **self.options)
        return mode.draws["W"][0, 0].numpy(), mode.draws["H"][0, 0].numpy()


class Ahead(Ours):
    """`hals` accelerated; its curve is climbed as `fit` does, sweep by sweep."""

    def __init__(self, task: Task) -> None:
        super().__init__(task, "hals", accelerated=True)

    def climb(self, start: Factors, lots: Iterator[int]) -> Iterator[tuple[int, float, Factors]]:
        X, model = as_matrix(self.task.X), ExponentialGaussian(self.task.rank)
        params = model.begin(
            X, Stream.of(0), {site: torch.from_numpy(own)[None] for site, own in zip("WH", start, strict=True)}
        )
        step, climb = descents.stepping(partial(model.by_components, repeatedly=True)), icm.Climb.at(State(params, 1))
        for lot in lots:
            began = time.perf_counter()
            for _ in range(lot):
                climb, _ = icm.advance(model, climb, X, by=step)
            params = climb.state.params
            yield lot, time.perf_counter() - began, (params["W"][0].numpy(), params["H"][0].numpy())


class Plain(Ours):
    """`hals`, in the same way."""

    def __init__(self, task: Task) -> None:
        super().__init__(task, "hals")

    def climb(self, start: Factors, lots: Iterator[int]) -> Iterator[tuple[int, float, Factors]]:
        X, model = as_matrix(self.task.X), ExponentialGaussian(self.task.rank)
        own = {site: torch.from_numpy(values)[None] for site, values in zip("WH", start, strict=True)}
        params: Any = model.begin(X, Stream.of(0), own)
        for lot in lots:
            began = time.perf_counter()
            for _ in range(lot):
                params = model.by_components(params, X).params
            yield lot, time.perf_counter() - began, (params["W"][0].numpy(), params["H"][0].numpy())


class Nimfa(Peer):
    """Its V is our X, its W and H ours; it runs least squares by projected gradients ("lsnmf")."""

    def call(self, start: Factors, iterations: int) -> Factors:
        import nimfa

        fit = nimfa.Lsnmf(self.task.X, seed=None, W=start[0], H=start[1], rank=self.task.rank, max_iter=iterations)()
        return np.asarray(fit.basis()), np.asarray(fit.coef())


def solvers(task: Task) -> dict[str, Any]:
    """Ours, scikit-learn's, and others that can be imported."""
    found: dict[str, Any] = {
        "icm": ICM(task),
        "hals ahead": Ahead(task),
        "hals": Plain(task),
        "mu": Ours(task, "mu"),
        "nnls": Ours(task, "nnls"),
        "sklearn cd": ScikitLearn(task),
        "sklearn mu": ScikitLearnMU(task),
    }
    for name, make in (("torchnmf", TorchNMF), ("nimfa", Nimfa)):
        try:
            __import__(name)
        except ImportError:
            print(f"{name} is not installed: left out", file=sys.stderr)
            continue
        found[name] = make(task)
    return found


def race(task: Task, budget: float) -> dict[str, tuple[int | None, float]]:
    """Iterations and seconds of those that are quick to come near the best squared error of them all."""
    start = task.start(0)
    quick = {
        name: solver for name, solver in solvers(task).items() if name in ("icm", "hals ahead", "hals", "sklearn cd")
    }
    curves = {}
    for name, solver in quick.items():
        solver.call(start, 2)  # compiles, and warms caches
        next(solver.climb(start, iter([2])))
        curves[name] = curve(task, solver, start, budget)
        print(f"{task.name}: {name} {curves[name][-1]}", file=sys.stderr)
    best = min(seen[-1][1] for seen in curves.values())
    counts = {name: needed(seen, best * (1 + NEAR)) for name, seen in curves.items()}
    calls = {name: (lambda s=quick[name], n=count: s.call(start, n)) for name, count in counts.items() if count}
    seconds = timed(calls, 5)
    return {name: (counts[name], seconds.get(name, float("inf"))) for name in quick}


def per_sweep(call: Callable[[int], Any]) -> float:
    """Milliseconds of a sweep: of many, less those of one."""
    call(1)
    seconds = []
    for _ in range(3):
        times = []
        for sweeps in (1, 1 + SWEEPS):
            began = time.perf_counter()
            call(sweeps)
            times.append(time.perf_counter() - began)
        seconds.append((times[1] - times[0]) / SWEEPS)
    return 1e3 * min(seconds)


def sweeps_of(task: Task) -> Iterator[tuple[str, float]]:
    """(what, milliseconds of a sweep)."""
    start = task.start(0)
    for name, solver in solvers(task).items():
        yield name, per_sweep(lambda n, own=solver: own.call(start, n))
    for name, kind in REGISTRY.items():
        model: Any = kind(rank=task.rank)  # type: ignore[call-arg]
        if isinstance(model, Sweeping):
            yield f"{name}, gibbs", per_sweep(partial(sampled, model, task.X))
        if isinstance(model, Variational):
            yield f"{name}, vb", per_sweep(partial(ascended, model, task.X))


def sampled(model: Any, X: np.ndarray, draws: int) -> None:
    ppnmf.fit(model, X, draws=draws, chains=1, warmup=0, init="scaled", keep=[], progress=False)


def ascended(model: Any, X: np.ndarray, sweeps: int) -> None:
    ppnmf.fit(model, X, method="vb", draws=1, max_sweeps=sweeps, tol=0.0, progress=False)


def cell(own: tuple[int | None, float], theirs: float) -> str:
    """Iterations, milliseconds, and their ratio to scikit-learn's where both came near."""
    count, seconds = own
    if count is None:
        return "never"
    beside = "" if theirs == float("inf") else f" ({seconds / theirs:.2f} of cd)"
    return f"{count} {1e3 * seconds:.1f}{beside}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for a solver's long run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # everybody is stopped before convergence
    torch.set_num_threads(options.threads)
    shapes, budget = (SMALL, 0.5) if options.quick else (SHAPES, options.budget)
    tasks = [Task(f"{N} x {D}, rank {K}", draw(N, D, K)[0].abs().numpy(), K, 0.0) for N, D, K in shapes]
    found: dict[str, Any] = {"threads": options.threads, "races": {}, "sweeps": {}}
    with threadpool_limits(options.threads):
        print(f"iterations and ms to come within {NEAR:g} of the best squared error, {options.threads} thread(s)")
        for task in tasks:
            reached = found["races"][task.name] = race(task, budget)
            cells = [f"{name} {cell(own, reached['sklearn cd'][1])}" for name, own in reached.items()]
            print(f"{task.name:24} " + "; ".join(cells), flush=True)
        print(f"ms a sweep, {tasks[0].name}")
        for name, milliseconds in sweeps_of(tasks[0]):
            found["sweeps"][name] = milliseconds
            print(f"{name:40} {milliseconds:9.3f}", flush=True)
    if options.out:
        with open(options.out, "w") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
