"""How long until a mode is reached by ICM, scikit-learn's NMF (`cd`, `mu`) and torchnmf, from the same start?

Everybody gets the same W and H, and minimises ½‖X - WH‖² + λ (ΣW + ΣH), once with λ = 0 and once with a penalty (ours is
rate · σ²: σ² is held where it is by a noise prior that is all but certain). Each solver first runs for `--budget` seconds
of its own, a few iterations at a time, and the objective after each lot is computed outside what is timed: that gives
its curve, and the best objective found by anyone. Then the call that users make (`ppnmf.fit`, `non_negative_factorization`,
`NMF.fit`) is timed afresh from the start, with just the iterations it needs to come within 0.1 % (and 1 %) of that best;
the median of repeats, solvers taken in turn. "never" is a solver that did not come so near in its budget, mostly because
it stays in a poorer local optimum; its ratio is then a bound that takes the whole budget for its time.

Reads the data sets from the folder named by PPNMF_DATA; without it, and with --quick, drawn data stand in. torchnmf is
left out where it is not installed. Prints a table, progress to standard error, and writes JSON with --out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import non_negative_factorization
from threadpoolctl import threadpool_limits

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.data.toy import draw
from ppnmf.inference import icm
from ppnmf.models import ExponentialGaussian
from ppnmf.rng import Stream

NEAR = (1e-2, 1e-3)  # how near the best objective, relatively
CERTAIN = 1e6  # the noise prior's shape for each entry of X
Factors = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Task:
    """X (N, D), the rank, and the weight λ of the penalty."""

    name: str
    X: np.ndarray
    rank: int
    penalty: float

    def objective(self, W: np.ndarray, H: np.ndarray) -> float:
        return 0.5 * float(((self.X - W @ H) ** 2).sum()) + self.penalty * float(W.sum() + H.sum())

    def start(self, seed: int) -> Factors:
        """Half-normal entries scaled to X's mean, as scikit-learn's "random" start."""
        random, (N, D) = np.random.default_rng(seed), self.X.shape
        size = (self.X.mean() / self.rank) ** 0.5
        return size * abs(random.standard_normal((N, self.rank))), size * abs(random.standard_normal((self.rank, D)))


class ICM:
    """`climb` is what `call` does, sweep by sweep."""

    def __init__(self, task: Task) -> None:
        self.task = task
        sigma2 = float(task.X.var()) / 10
        certain = CERTAIN * task.X.size
        noise = {"noise_shape": certain, "noise_scale": sigma2 * (certain + 1)} if task.penalty else {}
        self.model = ExponentialGaussian(task.rank, task.penalty / sigma2, task.penalty / sigma2, **noise)

    def call(self, start: Factors, iterations: int) -> Factors:
        init = {"W": start[0], "H": start[1]}
        mode = ppnmf.fit(
            self.model, self.task.X, method="icm", init=init, max_sweeps=iterations, tol=0.0, progress=False
        )
        return mode.draws["W"][0, 0].numpy(), mode.draws["H"][0, 0].numpy()

    def climb(self, start: Factors, lots: Iterator[int]) -> Iterator[tuple[int, float, Factors]]:
        X = as_matrix(self.task.X)
        climb = icm.Climb.at(icm.begin(self.model, X, Stream.of(0), {"W": start[0], "H": start[1]}, [0]))
        for lot in lots:
            began = time.perf_counter()
            for _ in range(lot):
                climb, _ = icm.advance(self.model, climb, X)
            seconds = time.perf_counter() - began
            yield lot, seconds, (climb.state.params["W"][0].numpy(), climb.state.params["H"][0].numpy())


class Peer:
    """A solver that goes on from the factors it is given: a lot of iterations is a call."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def call(self, start: Factors, iterations: int) -> Factors:
        raise NotImplementedError

    def climb(self, start: Factors, lots: Iterator[int]) -> Iterator[tuple[int, float, Factors]]:
        for lot in lots:
            began = time.perf_counter()
            start = self.call(start, lot)
            yield lot, time.perf_counter() - began, start


class ScikitLearn(Peer):
    """`alpha_W` is taken times the number of columns, `alpha_H` times that of rows."""

    solver = "cd"

    def call(self, start: Factors, iterations: int) -> Factors:
        (N, D), penalty = self.task.X.shape, self.task.penalty
        W, H, _ = non_negative_factorization(
            self.task.X, start[0].copy(), start[1].copy(), n_components=self.task.rank, init="custom", tol=0.0,
            solver=self.solver, max_iter=iterations, alpha_W=penalty / D, alpha_H=penalty / N, l1_ratio=1.0,
        )  # fmt: skip
        return W, H


class ScikitLearnMU(ScikitLearn):
    solver = "mu"


class TorchNMF(Peer):
    """Its W is our Hᵀ, its H our W; the penalty is the same for both."""

    def call(self, start: Factors, iterations: int) -> Factors:
        from torchnmf.nmf import NMF

        net = NMF(W=torch.from_numpy(start[1].T.copy()), H=torch.from_numpy(start[0].copy())).double()
        net.W.data.copy_(torch.from_numpy(start[1].T.copy()))  # its constructor rounds to single precision
        net.H.data.copy_(torch.from_numpy(start[0]))
        V = torch.from_numpy(self.task.X)
        net.fit(V, beta=2, tol=-np.inf, max_iter=iterations, alpha=self.task.penalty, l1_ratio=1.0)
        return net.H.detach().numpy(), net.W.detach().numpy().T


def solvers() -> dict[str, Callable[[Task], Any]]:
    named: dict[str, Callable[[Task], Any]] = {"icm": ICM, "cd": ScikitLearn, "mu": ScikitLearnMU}
    try:
        import torchnmf  # noqa: F401
    except ImportError:
        print("torchnmf is not installed: left out", file=sys.stderr)
        return named
    return named | {"torchnmf": TorchNMF}


def lots() -> Iterator[int]:
    """Iterations between two looks at the objective: one by one up to 30, then a thirtieth of what has been done."""
    done = 0
    while True:
        lot = max(1, done // 30)
        done += lot
        yield lot


def curve(task: Task, solver: Any, start: Factors, budget: float) -> list[tuple[int, float]]:
    """(iterations, objective) until the budget is spent or a third of the iterations have gained less than 1e-6."""
    seen, done, spent = [(0, task.objective(*start))], 0, 0.0
    for lot, seconds, factors in solver.climb(start, lots()):
        done, spent = done + lot, spent + seconds
        seen.append((done, task.objective(*factors)))
        earlier = next(objective for iterations, objective in seen if iterations >= done * 2 // 3)
        if spent > budget or (done >= 60 and earlier - seen[-1][1] < 1e-6 * seen[-1][1]):
            break
    return seen


def needed(seen: list[tuple[int, float]], wanted: float) -> int | None:
    return next((iterations for iterations, objective in seen if objective <= wanted), None)


def timed(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Medians of seconds, calls taken in turn; those that take longer than 2 s are made once."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            if not times[name] or times[name][0] < 2.0:
                began = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def compare(task: Task, seed: int, budget: float, repeats: int) -> dict[str, Any]:
    """One start: iterations and seconds of every solver to come near the best objective found."""
    start, named = task.start(seed), {name: make(task) for name, make in solvers().items()}
    for solver in named.values():
        solver.call(start, 2)  # compiles, and warms caches
        next(solver.climb(start, iter([2])))
    curves = {}
    for name, solver in named.items():
        curves[name] = curve(task, solver, start, budget)
        print(f"{task.name}, start {seed}: {name} {curves[name][-1]}", file=sys.stderr)
    best = min(seen[-1][1] for seen in curves.values())
    result: dict[str, Any] = {"best": best, "last": {name: seen[-1][1] / best - 1 for name, seen in curves.items()}}
    for near in NEAR:
        counts = {name: needed(seen, best * (1 + near)) for name, seen in curves.items()}
        calls = {
            name: (lambda solver=named[name], n=count: solver.call(start, n)) for name, count in counts.items() if count
        }
        seconds = timed(calls, repeats)
        result[f"{near:g}"] = {name: (counts[name], seconds.get(name, float("inf"))) for name in named}
    return result


def tasks(quick: bool) -> Iterator[Task]:
    for name, X, rank in drawn() if quick or not os.environ.get("PPNMF_DATA") else stored():
        yield Task(name, X, rank, 0.0)
        yield Task(f"{name}, penalty", X, rank, float(X.var()) / 10 * (rank / X.mean()) ** 0.5)


def drawn() -> Iterator[tuple[str, np.ndarray, int]]:
    for N, D, K in ((100, 80, 10), (300, 200, 5)):
        yield f"drawn {N} x {D}", draw(N, D, K)[0].abs().numpy(), K


def stored() -> Iterator[tuple[str, np.ndarray, int]]:
    folder = Path(os.environ["PPNMF_DATA"])
    genes = np.load(folder / "leukemia/all_aml.npz")["V"].astype(np.float64)
    yield "leukaemia", np.ascontiguousarray((genes / genes.max(0)).T), 3
    yield "Olivetti", np.load(folder / "orl_faces/olivetti_64x64.npz")["X"] / 242.0, 10
    yield "CBCL faces", np.ascontiguousarray(np.load(folder / "cbcl_faces/cbcl_faces.npz")["V"].T / 255.0), 49
    yield "MNIST test", np.load(folder / "mnist/mnist_t10k.npz")["X"] / 255.0, 20


def ratio(reached: dict[str, tuple[int | None, float]], peer: str, budget: float) -> tuple[str, float]:
    """Our time over the peer's: as text, and as a number for medians."""
    ours, theirs = reached["icm"][1], reached[peer][1]
    if ours == float("inf"):
        return "never", float("inf")
    return (
        (f"{ours / theirs:.3f}", ours / theirs) if theirs < float("inf") else (f"<{ours / budget:.3f}", ours / budget)
    )


def line(reached: dict[str, tuple[int | None, float]], budget: float) -> str:
    cells = [f"{count:6d} {1e3 * seconds:9.1f}" if count else " never         -" for count, seconds in reached.values()]
    return "  ".join(cells) + f"   {ratio(reached, 'cd', budget)[0]:>7}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small drawn problems, one start")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for a solver's long run from a start")
    parser.add_argument("--only", help="data sets whose name holds this")
    options = parser.parse_args()
    starts, budget = (1, 2.0) if options.quick else (options.starts, options.budget)
    warnings.simplefilter("ignore")  # everybody is stopped before convergence
    torch.set_num_threads(options.threads)
    print(f"iterations and ms to come near the best of all, float64, {options.threads} thread(s)")
    print(f"{'':24} {'start':>5} {'near':>5}  " + "  ".join(f"{name:>16}" for name in solvers()) + "   icm/cd")
    rows = []
    with threadpool_limits(options.threads):
        for task in tasks(options.quick):
            if options.only and options.only.lower() not in task.name.lower():
                continue
            of_task = [compare(task, seed, budget, repeats=5) for seed in range(starts)]
            for near in (f"{near:g}" for near in NEAR):
                for seed, result in enumerate(of_task):
                    print(f"{task.name:24} {seed:5d} {near:>5}  {line(result[near], budget)}", flush=True)
                median = statistics.median(ratio(result[near], "cd", budget)[1] for result in of_task)
                print(f"{task.name:24} {'all':>5} {near:>5}  median of icm/cd {median:.3f}", flush=True)
            rows.append({"task": task.name, "penalty": task.penalty, "starts": of_task})
    if options.out:
        with open(options.out, "w") as file:
            json.dump({"threads": options.threads, "budget": budget, "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
