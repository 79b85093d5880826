"""How long is a Gibbs sweep, against the matrix products it contains and against a careful NumPy sampler?

Medians of sweeps taken in turn (ours, products, NumPy, ours ...), so that a change of the machine's speed hits all alike.
The NumPy sampler vectorises over the rows of a column and draws its truncated normals by SciPy's ndtri and log_ndtr; it has
no moves along the ridge. Prints a table, and writes JSON with --out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch
from scipy.special import log_ndtr, ndtr, ndtri, ndtri_exp

from ppnmf.data.matrix import as_matrix
from ppnmf.data.toy import draw
from ppnmf.inference import gibbs
from ppnmf.models import ExponentialGaussian
from ppnmf.rng import Stream

SHAPES = [(100, 80, 10), (1797, 64, 10), (400, 4096, 10), (2429, 361, 49), (10_000, 2_000, 20)]
QUICK = SHAPES[:2]


class NumPyGibbs:
    """The same conditionals, one vectorised draw a column."""

    def __init__(self, X: np.ndarray, W: np.ndarray, H: np.ndarray, rate: float) -> None:
        self.X, self.W, self.H, self.rate, self.sigma2 = X, W.copy(), H.copy(), rate, 1.0
        self.square, self.random = float((X**2).sum()), np.random.default_rng(0)

    def columns(self, F: np.ndarray, P: np.ndarray, Q: np.ndarray) -> None:
        for k in range(F.shape[1]):
            precision = Q[k, k] / self.sigma2
            mean = ((P[:, k] - F @ Q[:, k] + F[:, k] * Q[k, k]) / self.sigma2 - self.rate) / precision
            F[:, k] = truncated(mean, precision**-0.5, self.random)

    def sweep(self) -> None:
        self.columns(self.W, self.X @ self.H.T, self.H @ self.H.T)
        P, Q = self.X.T @ self.W, self.W.T @ self.W
        F = np.ascontiguousarray(self.H.T)
        self.columns(F, P, Q)
        self.H = np.ascontiguousarray(F.T)
        misfit = self.square - 2 * (P * F).sum() + ((F @ Q) * F).sum()
        self.sigma2 = (1 + misfit / 2) / self.random.gamma(1 + self.X.size / 2)


def truncated(mean: np.ndarray, sd: float, random: np.random.Generator) -> np.ndarray:
    """Normal draws cut off below zero, by the survival function in its logarithm where the bound lies in the tail."""
    bound, u = -mean / sd, random.random(len(mean))
    near = bound < 5
    z = np.empty_like(mean)
    z[near] = -ndtri(u[near] * ndtr(-bound[near]))
    z[~near] = -ndtri_exp(np.log(u[~near]) + log_ndtr(-bound[~near]))
    return np.maximum(mean + sd * z, 0.0)


def timed(function: object) -> float:
    start = time.perf_counter()
    function()  # type: ignore[operator]
    return time.perf_counter() - start


def measure(N: int, D: int, K: int, sweeps: int) -> dict[str, float]:
    X, W, H = draw(N, D, K)
    data, model, stream = as_matrix(X.abs()), ExponentialGaussian(K), Stream.of(0)
    state = gibbs.init(model, data, stream)
    peer = NumPyGibbs(data.values.numpy(), W.numpy(), H.numpy(), 1.0)

    def ours(moves: bool) -> None:
        nonlocal state
        state, _ = gibbs.step(model, state, data, stream, moves=moves)

    def products() -> None:
        torch.mm(state.params["H"][0], data.values.mT), torch.mm(state.params["W"][0].mT, data.values)

    tasks = {"sweep": lambda: ours(True), "no moves": lambda: ours(False), "products": products, "numpy": peer.sweep}
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(sweeps + 3):
        for name, task in tasks.items():
            seconds = timed(task)
            if turn >= 3:  # the first ones compile and warm caches
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes and few sweeps")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"medians in ms, float64, one chain, {options.threads} thread(s)")
    print(
        f"{'N':>6} {'D':>5} {'K':>3} {'sweep':>9} {'no moves':>9} {'products':>9} {'numpy':>9}   sweep/products  numpy/sweep"
    )
    rows = []
    for N, D, K in QUICK if options.quick else SHAPES:
        sweeps = 10 if options.quick else max(7, min(200, int(2e9 / (N * D * K))))
        times = measure(N, D, K, sweeps)
        ratios = times["sweep"] / times["products"], times["numpy"] / times["sweep"]
        figures = " ".join(f"{1e3 * seconds:9.3f}" for seconds in times.values())
        print(f"{N:6d} {D:5d} {K:3d} {figures}   {ratios[0]:14.2f} {ratios[1]:12.1f}", flush=True)
        rows.append({"N": N, "D": D, "K": K, "seconds": times, "sweep/products": ratios[0], "numpy/sweep": ratios[1]})
    if options.out:
        with open(options.out, "w") as file:
            json.dump({"threads": options.threads, "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
