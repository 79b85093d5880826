"""How long are four chains on two cores, against one chain on one?

Gibbs sweeps with moves as `fit` makes them, in seconds on the wall: turns of one chain by one thread and of four chains by two
threads, so that a change of the machine's speed hits both alike; the least of each counts. Wants cores on which nothing else
runs. Prints a table.

    python benchmarks/cores.py [--quick] [--chains 4] [--threads 2] [--turns 12]
"""

from __future__ import annotations

import argparse
import os
import time

import torch
from sweep import Sweeps

from ppnmf.data.matrix import as_matrix
from ppnmf.data.toy import draw

SHAPES = ((100, 80, 10), (1797, 64, 10), (2429, 361, 20), (400, 4096, 10))
SECONDS = 0.5  # of one chain, in a turn


def on_threads(count: int, sweeps: Sweeps, number: int) -> float:
    """Seconds of so many sweeps by so many threads."""
    torch.set_num_threads(count)
    began = time.perf_counter()
    sweeps(number)
    return time.perf_counter() - began


def measured(N: int, D: int, K: int, chains: int, threads: int, turns: int, seconds: float) -> tuple[float, float]:
    """Seconds of a sweep of one chain by one thread, and of all chains by several."""
    X = as_matrix(draw(N, D, K).X.abs())
    one = Sweeps(X, K)
    all_ = Sweeps(X, K, chains)
    on_threads(threads, all_, 20)  # compiles, and warms caches
    number = max(1, int(seconds * 20 / on_threads(1, one, 20)))
    pairs = [(on_threads(1, one, number), on_threads(threads, all_, number)) for _ in range(turns)]
    alone, together = (min(times) / number for times in zip(*pairs, strict=True))
    return alone, together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes and few turns")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=12)
    options = parser.parse_args()
    print(f"ms a sweep, float64; load average {os.getloadavg()[0]:.1f}")
    print(
        f"{'N':>6} {'D':>5} {'K':>3}   one chain, one thread   {options.chains} chains, {options.threads} threads   ratio"
    )
    for N, D, K in SHAPES[:2] if options.quick else SHAPES:
        turns, seconds = (3, 0.02) if options.quick else (options.turns, SECONDS)
        alone, together = measured(N, D, K, options.chains, options.threads, turns, seconds)
        print(
            f"{N:6d} {D:5d} {K:3d}   {1e3 * alone:21.3f}   {1e3 * together:19.3f}   {together / alone:5.2f}", flush=True
        )


if __name__ == "__main__":
    main()
