"""How much quicker is a Gibbs sweep, moves included, on two processes of one thread each than on one?

Starts itself as one process and as two (by torchrun, gloo on this machine), in turn, so that a change of the machine's
speed hits both alike; each prints the median of its sweeps, and the best of the rounds counts. Also says what a sweep sends,
which depends on D and K alone. Prints a table, and writes JSON with --out.

    python benchmarks/distributed.py [--quick] [--processes R] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from ppnmf.data.matrix import as_matrix
from ppnmf.data.sharded import shard
from ppnmf.inference import gibbs
from ppnmf.kernels.reference import shear_rounds
from ppnmf.models import ExponentialGaussian
from ppnmf.rng import Stream

SHAPE, QUICK = (40_000, 2_000, 20), (2_000, 200, 5)
HUGE = (10**8, 2_000, 20)


def bytes_sent(D: int, K: int, masked: bool = False, moves: bool = True) -> int:
    """What a rank tells in a sweep of one chain, in double precision: the sums for H, the moves, log p(W)."""
    grams = D * K * K if masked else K * K
    rounds = shear_rounds(K) * 2 * (K // 2) + K if moves else 0
    return 8 * (grams + K * D + 1 + rounds + 2)  # sums carry one number more: whether to stop


def measured(N: int, D: int, K: int, sweeps: int) -> dict[str, float]:
    """Seconds of a sweep in this process, which holds its share of the rows."""
    torch.set_num_threads(1)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        dist.init_process_group("gloo", timeout=timedelta(minutes=5))
    rank, count = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)
    generator, n = torch.Generator().manual_seed(rank), N // count
    W, H = torch.rand(n, K, generator=generator).double(), torch.rand(K, D, generator=torch.Generator().manual_seed(9))
    rows = (W @ H.double()).add_(torch.rand(n, D, generator=generator))
    X = shard(rows) if several else as_matrix(rows)
    model, stream = ExponentialGaussian.scaled_to(X, K), Stream.of(0)
    state, times = gibbs.init(model, X, stream), []
    for _ in range(3 + sweeps):
        start = time.perf_counter()
        state, _ = gibbs.step(model, state, X, stream)
        times.append(time.perf_counter() - start)
    told = {"median": statistics.median(times[3:]), "least": min(times[3:])}
    if several:
        talk = []
        part = torch.zeros(1, K // 2, 2, dtype=torch.float64)
        for _ in range(200):
            start = time.perf_counter()
            X.ranks.gathered(part)
            talk.append(time.perf_counter() - start)
        told["gathering"] = statistics.median(talk)
        dist.barrier()
        dist.destroy_process_group()
    return told


def launched(processes: int, shape: tuple[int, int, int], sweeps: int) -> dict[str, float]:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, __file__, "--shape", *map(str, shape), "--sweeps", str(sweeps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="a small matrix, one round")
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--rounds", type=int, default=2, help="how often each is started")
    options.add_argument("--sweeps", type=int, default=15, help="that are timed in each")
    options.add_argument("--out", help="write the figures here, as JSON")
    options.add_argument("--shape", type=int, nargs=3, help=argparse.SUPPRESS)  # one of the processes
    chosen = options.parse_args()
    if chosen.shape:
        told = measured(*chosen.shape, chosen.sweeps)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(told))
        return
    shape = QUICK if chosen.quick else SHAPE
    one, more = [], []
    for _ in range(1 if chosen.quick else chosen.rounds):
        one.append(measured(*shape, chosen.sweeps) if chosen.quick else launched(1, shape, chosen.sweeps))
        more.append(launched(chosen.processes, shape, chosen.sweeps))
    best = [min(told["median"] for told in rounds) for rounds in (one, more)]
    gathering = min(told["gathering"] for told in more)
    N, D, K = shape
    print(f"Gibbs sweep with moves, {N} x {D}, K={K}, one thread a process")
    print(f"  1 process            {1e3 * best[0]:8.1f} ms")
    print(f"  {chosen.processes} processes          {1e3 * best[1]:8.1f} ms   {best[0] / best[1]:.2f} x")
    print(f"  one small gathering  {1e3 * gathering:8.2f} ms   of which a sweep has {shear_rounds(K) + 3}")
    N, D, K = HUGE
    plain, masked = bytes_sent(D, K), bytes_sent(D, K, masked=True)
    print(
        f"On paper, {N:.0e} x {D}, K={K}: a rank tells {plain / 1e6:.2f} MB a sweep and chain ({masked / 1e6:.1f} MB with a "
        f"mask or noise per entry), whatever N; X itself is {8e-12 * N * D:.1f} TB"
    )
    if chosen.out:
        figures = {"shape": shape, "one": one, "more": more, "ratio": best[0] / best[1]}
        with open(chosen.out, "w") as file:
            json.dump({**figures, "bytes": plain, "bytes_masked": masked}, file, indent=1)


if __name__ == "__main__":
    main()
