"""How long is a Gibbs sweep on a GPU, against the matrix products it contains?

Medians over sweeps and products taken in turn, by CUDA events, warm-up excluded; "sweep" has its moves along the ridge,
"no moves" has not, and the parts are the kernels by themselves. Without a GPU it says so. Prints a table, and writes JSON
with --out.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable

import torch

from ppnmf.data.matrix import as_matrix
from ppnmf.gaussian.ridge import rates_of
from ppnmf.inference import gibbs
from ppnmf.kernels import kernels_for
from ppnmf.models import ExponentialGaussian
from ppnmf.protocols import Statistics
from ppnmf.rng import Site, Stream

SHAPES = [(200_000, 2_000, 50), (10_000, 2_000, 20), (2_429, 361, 49), (100, 80, 10)]


def milliseconds(task: Callable[[], object]) -> float:
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    task()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop)


def measure(N: int, D: int, K: int, dtype: torch.dtype, sweeps: int) -> dict[str, float]:
    device = torch.device("cuda")
    X = torch.rand(N, K, device=device, dtype=dtype) @ torch.rand(K, D, device=device, dtype=dtype)
    data, model, stream = as_matrix(X + torch.rand_like(X)), ExponentialGaussian(K), Stream.of(0)
    state = gibbs.init(model, data, stream)
    kernels, rates = kernels_for(device), rates_of(model.prior, device)
    assert rates is not None

    def sweep(moves: bool) -> None:
        nonlocal state
        state, _ = gibbs.step(model, state, data, stream, moves=moves)

    def products() -> None:
        torch.mm(state.params["H"][0], data.values.mT), torch.mm(state.params["W"][0].mT, data.values)

    def half_sweep() -> None:
        W, H = state.params["W"], state.params["H"]
        kernels.half_sweep(W, Statistics(P, H @ H.mT), prior, (stream, 1, Site.W))

    def move(name: str) -> None:
        getattr(kernels, name)(state.params["W"], state.params["H"], rates, stream, 1)

    P = torch.mm(state.params["H"][0], data.values.mT).mT[None]
    prior = (torch.zeros_like(rates[0]), -rates[0])
    tasks: dict[str, Callable[[], object]] = {
        "products": products,
        "sweep": lambda: sweep(True),
        "no moves": lambda: sweep(False),
        "half-sweep of W": half_sweep,
        "scale move": lambda: move("scale_move"),
        "shear move": lambda: move("shear_move"),
    }
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(sweeps + 3):
        for name, task in tasks.items():
            spent = milliseconds(task)
            if turn >= 3:  # the first ones compile and warm caches
                times[name].append(spent)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes and few sweeps")
    parser.add_argument("--out", help="JSON file for the figures")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no GPU that torch can use here, so nothing is measured.")
        return
    card, rows = torch.cuda.get_device_name(), []
    print(f"medians in ms on {card}, one chain, kernels: {kernels_for(torch.device('cuda')).__name__}")
    for N, D, K in SHAPES[1:] if options.quick else SHAPES:
        for dtype in (torch.float32, torch.float64):
            times = measure(N, D, K, dtype, 5 if options.quick else 30)
            ratio = times["sweep"] / times["products"]
            parts = ", ".join(f"{name} {spent:.3f}" for name, spent in times.items())
            print(f"{N} x {D}, K = {K}, {str(dtype)[6:]}: {parts}; sweep / products {ratio:.2f}", flush=True)
            rows.append({"N": N, "D": D, "K": K, "dtype": str(dtype), "ms": times, "sweep/products": ratio})
    if options.out:
        with open(options.out, "w") as file:
            json.dump({"device": card, "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
