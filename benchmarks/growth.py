"""How do the time of a Gibbs sweep and its memory grow with the rows, the columns, the rank, the chains and the non-zeros?

Sweeps with moves, float64, as `fit` makes them; the least over turns in which the sizes follow one another, so that a change of
the machine's speed hits all alike. An exponent is the slope of log time against log size: of all sizes, and of the last
doubling. Chains are held against the same chains one after another. Memory is the most that is anonymous (RssAnon) in a
process of its own, less what it held before it had data: data + x times the factors, while X is checked, while a chain is
started, and while it sweeps. Prints tables, and writes JSON with --out.

    python benchmarks/growth.py [--quick] [--only rows,memory] [--out FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sweep import Sweeps, least
from threadpoolctl import threadpool_limits

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.inference import gibbs
from ppnmf.models import ExponentialGaussian
from ppnmf.progress import bar
from ppnmf.rng import Stream

N, D, K = 2000, 500, 10
SIZES = {
    "rows": [(n, D, K) for n in (500, 1000, 2000, 4000, 8000, 16_000)],
    "columns": [(N, d, K) for d in (125, 250, 500, 1000, 2000, 4000)],
    "rank": [(N, D, k) for k in (5, 10, 20, 40, 80)],
}
QUICK_SIZES = {
    "rows": [(n, 20, 3) for n in (50, 100)],
    "columns": [(50, d, 3) for d in (20, 40)],
    "rank": [(50, 20, k) for k in (2, 4)],
}
AXIS = {"rows": 0, "columns": 1, "rank": 2}
STORED = [(20_000, 2_000, K, each) for each in (2, 4, 8, 16, 32, 64)]  # the last: non-zeros a row
QUICK_STORED = [(500, 50, 3, each) for each in (2, 4)]
CHAINS, THREADS = (1, 2, 4, 8), (1, 2)
CHAINED, QUICK_CHAINED = [(100, 80, 10), (2000, 500, 10), (10_000, 1000, 20)], [(50, 20, 3)]
KINDS = {"dense": 100, "CSR": 2000, "on disk": 400}  # and the columns of its matrix
HELD, QUICK_HELD, HELD_RANK, PER_ROW = (50_000, 100_000, 200_000), (2000, 4000), 20, 20
STAGES = ("check", "start", "sweeps")
SAMPLED = 5e-4  # seconds between two looks at the memory


def dense(N: int, D: int, K: int) -> np.ndarray:
    random = np.random.default_rng(0)
    X = random.exponential(size=(N, K)) @ random.exponential(size=(K, D))
    X += random.exponential(size=(N, D))
    return X


def sparse(N: int, D: int, each: int) -> csr_matrix:
    """CSR with about so many non-zeros in each row."""
    random = np.random.default_rng(0)
    indices = np.sort(random.integers(0, D, (N, each)), axis=1).ravel()
    X = csr_matrix((random.exponential(size=N * each), indices, np.arange(0, N * each + 1, each)), shape=(N, D))
    X.sum_duplicates()
    return X


def exponents(sizes: list[int], seconds: list[float]) -> tuple[float, float]:
    """Slope of log time against log size: of all, and of the last two."""
    x, y = np.log(sizes), np.log(seconds)
    return float(np.polyfit(x, y, 1)[0]), float((y[-1] - y[-2]) / (x[-1] - x[-2]))


def grown(what: str, sizes: list[int], tasks: dict[str, Callable[[int], Any]], turns: int, seconds: float) -> dict:
    times = list(least(tasks, turns, seconds).values())
    overall, last = exponents(sizes, times)
    print(f"\n{what:>24} {'ms a sweep':>12}")
    for shape, size, spent in zip(tasks, sizes, times, strict=True):
        print(f"{size:24d} {1e3 * spent:12.3f}   {shape}")
    print(f"{'exponent':>24} {overall:12.2f}   at the end {last:.2f}", flush=True)
    return {"sizes": sizes, "seconds": times, "exponent": overall, "at the end": last}


def of_axis(name: str, quick: bool, turns: int, seconds: float) -> dict:
    shapes = (QUICK_SIZES if quick else SIZES)[name]
    tasks = {f"{n} x {d}, K={k}": Sweeps(as_matrix(dense(n, d, k)), k) for n, d, k in shapes}
    return grown(name, [shape[AXIS[name]] for shape in shapes], tasks, turns, seconds)  # type: ignore[arg-type]


def of_stored(quick: bool, turns: int, seconds: float) -> dict:
    shapes = QUICK_STORED if quick else STORED
    kept = [sparse(n, d, each) for n, d, _, each in shapes]
    tasks = {
        f"CSR {n} x {d}, K={k}, {each} a row": Sweeps(as_matrix(X), k)
        for X, (n, d, k, each) in zip(kept, shapes, strict=True)
    }
    return grown("non-zeros", [X.nnz for X in kept], tasks, turns, seconds)  # type: ignore[arg-type]


def of_chains(quick: bool, turns: int, seconds: float) -> list[dict]:
    """Time of a sweep of all chains, over that of one chain times their number."""
    rows = []
    print(f"\n{'chains':>24} " + "  ".join(f"{f'ms, {t} thread(s)':>15} {'over one by one':>15}" for t in THREADS))
    for n, d, k in QUICK_CHAINED if quick else CHAINED:
        data = as_matrix(dense(n, d, k))
        tasks = {f"{c} {t}": threaded(Sweeps(data, k, c), t) for c in CHAINS for t in THREADS}
        times = least(tasks, turns, seconds)
        for c in CHAINS:
            own = [times[f"{c} {t}"] for t in THREADS]
            ratios = [spent / (c * times[f"1 {t}"]) for spent, t in zip(own, THREADS, strict=True)]
            told = "  ".join(f"{1e3 * spent:15.3f} {ratio:15.2f}" for spent, ratio in zip(own, ratios, strict=True))
            print(f"{c:24d} {told}   {n} x {d}, K={k}", flush=True)
            rows.append(
                {"shape": (n, d, k), "chains": c, "threads": THREADS, "seconds": own, "over one by one": ratios}
            )
    return rows


def threaded(task: Callable[[int], Any], threads: int) -> Callable[[int], Any]:
    def run(n: int) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        task(n)
        torch.set_num_threads(before)

    return run


def anonymous() -> int:
    """RssAnon of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


def trimmed() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return anonymous()


@contextmanager
def watched() -> Iterator[list[int]]:
    """The most RssAnon inside, seen by a thread that looks every half millisecond."""
    most, over = [anonymous()], threading.Event()

    def look() -> None:
        while not over.wait(SAMPLED):
            most[0] = max(most[0], anonymous())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def held(kind: str, n: int) -> dict[str, float]:
    """Peak memory by stage in this process, less what it held before there was data, and less the data."""
    d, k = KINDS[kind], HELD_RANK
    model, stream = ExponentialGaussian(k), Stream.of(0)
    with tempfile.TemporaryDirectory() as folder:
        small, _ = made(kind, 500, d, Path(folder) / "warm.npy")
        ppnmf.fit(model, small, draws=1, warmup=1, chains=1, progress=False)
        before = trimmed()
        X, size = made(kind, n, d, Path(folder) / "X.npy")
        trimmed()
        with watched() as checking:
            data = as_matrix(X)
            data.sum_of_squares  # noqa: B018  # read once, and kept
        trimmed()
        with watched() as starting:
            state = gibbs.init(model, data, stream)
        trimmed()
        with watched() as sweeping:
            for _ in range(3):
                state, _ = gibbs.step(model, state, data, stream)
    stages = {"check": checking, "start": starting, "sweeps": sweeping}
    return {
        "data": size,
        "factors": 8 * k * (n + d),
        **{name: most[0] - before - size for name, most in stages.items()},
    }


def made(kind: str, n: int, d: int, path: Path) -> tuple[Any, int]:
    """X, and the bytes of memory that it takes."""
    if kind == "CSR":
        X = sparse(n, d, PER_ROW)
        return X, X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    if kind == "dense":
        values = dense(n, d, 5)
        return values, values.nbytes
    file = np.lib.format.open_memmap(path, "w+", np.float64, (n, d))
    for row in range(0, n, 1000):
        file[row : row + 1000] = dense(min(1000, n - row), d, 5)
    file.flush()
    return str(path), 0


def of_memory(quick: bool) -> list[dict]:
    rows = []
    heads = " ".join(f"{f'{stage} MB':>10} {'/ factors':>9}" for stage in STAGES)
    print(f"\n{'memory above the data':>24} {'data MB':>9} {'factors MB':>11} {heads}")
    for kind in list(KINDS)[:1] if quick else KINDS:
        ours = []
        for n in QUICK_HELD if quick else HELD:
            command = [sys.executable, __file__, "--held", kind, str(n)]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            if done.returncode:
                raise RuntimeError(done.stderr)
            told = json.loads(done.stdout.splitlines()[-1])
            cells = " ".join(f"{told[s] / 1e6:10.1f} {told[s] / told['factors']:9.1f}" for s in STAGES)
            sizes = f"{told['data'] / 1e6:9.1f} {told['factors'] / 1e6:11.1f}"
            print(f"{f'{kind} {n} x {KINDS[kind]}':>24} {sizes} {cells}", flush=True)
            ours.append({"N": n, **told})
        factors = [told["factors"] for told in ours]
        slopes = {stage: np.polyfit(factors, [told[stage] for told in ours], 1)[0] for stage in STAGES}
        cells = " ".join(f"{'+':>10} {slopes[stage]:9.1f}" for stage in STAGES)
        print(f"{f'{kind}, with each factor':>24} {'':9} {'':11} {cells}", flush=True)
        rows.append({"kind": kind, "rows": ours, "times the factors": {k: float(v) for k, v in slopes.items()}})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and few turns")
    parser.add_argument("--only", help="of rows, columns, rank, non-zeros, chains, memory: some, with commas")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--held", nargs=2, help=argparse.SUPPRESS)  # one of the processes whose memory is measured
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.held:
        print(json.dumps(held(options.held[0], int(options.held[1]))))
        return
    turns, seconds = (3, 0.005) if options.quick else (11, 0.05)
    parts: dict[str, Callable[[], Any]] = {
        **{name: lambda name=name: of_axis(name, options.quick, turns, seconds) for name in SIZES},  # type: ignore[misc]
        "non-zeros": lambda: of_stored(options.quick, turns, seconds),
        "chains": lambda: of_chains(options.quick, turns, seconds),
    }
    if Path("/proc/self/status").exists():
        parts["memory"] = lambda: of_memory(options.quick)
    else:
        print("There is no /proc here, so memory is not measured.")
    wanted = options.only.split(",") if options.only else list(parts)
    load = os.getloadavg()[0]
    print(f"one chain and one thread where nothing else is said; load average {load:.1f}")
    results: dict[str, Any] = {"load": load}
    with threadpool_limits(1, "blas"), bar(len(wanted), "growth") as ticker:
        for name in wanted:
            results[name] = parts[name]()
            ticker.update()
    if options.out:
        with open(options.out, "w") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
