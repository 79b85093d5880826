"""Do two processes, each with half of the rows of X, draw what one process draws, and in about half the time?

    torchrun --nproc-per-node 2 examples/distributed_gibbs.py [--quick] [--rows N] [--columns D] [--rank K] [--seed SEED]

On several machines, start it on each with torchrun's --nnodes, --node-rank and --rdzv-endpoint. Without torchrun it runs
as one process. Every process draws the same X and keeps its own rows; a real program would read only those. The script
prints how far the draws of the first sweeps are from those of one process (rounding), and the time of a sweep of each.
"""

import argparse
import os
import time

import torch
import torch.distributed as dist

import ppnmf
from ppnmf.data.sharded import shard
from ppnmf.data.toy import draw


def timed(model: ppnmf.models.ExponentialGaussian, X: object, **options: int) -> tuple[ppnmf.Posterior, float]:
    """A posterior, and the seconds of one of its sweeps."""
    start = time.perf_counter()
    post = ppnmf.fit(model, X, chains=1, progress=False, **options)
    return post, (time.perf_counter() - start) / (options["warmup"] + options["draws"])


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).abs() / b.abs().clamp(min=1e-12)).max())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="a small matrix: a second or two")
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--columns", type=int, default=1_000)
    options.add_argument("--rank", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    N, D = (400, 50) if chosen.quick else (chosen.rows, chosen.columns)

    torch.set_num_threads(1)  # one a process: the comparison is of processes
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        dist.init_process_group("gloo")
    rank, processes = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)

    X = draw(N, D, chosen.rank, seed=chosen.seed)[0].abs()
    mine = X.tensor_split(processes)[rank].clone()
    shared = shard(mine)  # every process calls this, and all that follows on `shared`
    model = ppnmf.models.ExponentialGaussian.scaled_to(shared, chosen.rank)
    timed(model, shared, draws=1, warmup=0, seed=chosen.seed)  # compiles
    few, _ = timed(model, shared, draws=3, warmup=0, seed=chosen.seed)
    _, together = timed(model, shared, draws=1, warmup=20, seed=chosen.seed)
    print_it = rank == 0
    if print_it:
        print(f"{N} x {D}, rank {chosen.rank}, {processes} process(es); this one holds rows {few.attrs['rows']}")
        timed(model, X, draws=1, warmup=0, seed=chosen.seed)
        one, _ = timed(model, X, draws=3, warmup=0, seed=chosen.seed)
        _, alone = timed(model, X, draws=1, warmup=20, seed=chosen.seed)
        own = slice(*few.attrs["rows"])
        apart = {"W": distance(few.draws["W"], one.draws["W"][:, :, own])}
        apart |= {site: distance(few.draws[site], one.draws[site]) for site in ("H", "sigma2")}
        print(
            "greatest relative difference from one process, 3 sweeps:",
            "  ".join(f"{s} {d:.1e}" for s, d in apart.items()),
        )
        print(f"a sweep: {1e3 * together:.1f} ms with {processes} process(es), {1e3 * alone:.1f} ms with one")
    if several:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
