"""How long is a Gibbs sweep, against the matrix products it contains and against a careful NumPy sampler?

The least over turns (ours, products, NumPy, ours ...) of processor time, which others on the machine change little; of several
threads, of seconds. In a turn each goes for a twentieth of a second, warm, and compiling is not counted. "sweep" is what `fit`
runs, lots of sweeps in one call, "step" one call a sweep. "products" are the two products with X as the fastest of five ways
that a person would try forms them: by NumPy's, SciPy's (through Numba) or torch's `dot`, X on the right or on the left, one
thread each. The NumPy sampler draws a component's rows together, and a round's disjoint shears.

Then draws alone: nanoseconds of a truncated normal and its uniform, by where zero lies in standard deviations past the mode, and
how long sweeps in single precision are beside those in double. Prints tables, and writes JSON with --out.

What bounds a sweep. At 2429 x 361, K = 49, of 7.0 ms the products take 4.2 (as fast as NumPy's whole ones), the Gram matrices
0.4, and the rows 2.0: 0.6 of them with modes in place of draws, and 137 000 draws of 6 to 10 ns, which are some 150 cycles of
arithmetic for each eight (67 fused steps, three divisions and a root). A product that writes half of a Gram matrix (`syrk`) would
save 0.1 ms, and takes twice as long at K = 10.

In single precision the rows take as long as in double, since lanes compute in double: the tail of a truncated normal needs more
than 24 bits. A sweep at 10000 x 2000, K = 20, then takes 28 ms for 50; but where less than 3 % of the sum of squares is left, as in
these drawn matrices, the misfit cannot be had by subtraction and costs a third product: 43 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit
from scipy.special import log_ndtr, ndtr, ndtri, ndtri_exp
from threadpoolctl import threadpool_limits

from ppnmf.data.matrix import as_matrix
from ppnmf.data.toy import draw
from ppnmf.inference import gibbs, length
from ppnmf.kernels.cpu.normal import draw_lanes
from ppnmf.kernels.cpu.uniforms import uniforms_of_rows
from ppnmf.kernels.reference import shear_rounds
from ppnmf.models import ExponentialGaussian
from ppnmf.progress import bar
from ppnmf.protocols import Matrix
from ppnmf.protocols import Sweeps as Asked
from ppnmf.rng import Stream
from ppnmf.threads import single_threaded

SHAPES = [(100, 80, 10), (1797, 64, 10), (400, 4096, 10), (2429, 361, 49), (10_000, 2_000, 20)]
QUICK = SHAPES[:2]
COLUMNS = ("sweep", "no moves", "step", "numpy", "numpy moves")
WAYS = ("by numba", "by numpy", "by numpy, X first", "by torch", "by torch, X first")  # to form the products
FAR = 30.0  # standard deviations past the mode from which the tail needs its logarithm


class NumPyGibbs:
    """The same conditionals and, if asked, the same moves, in NumPy and SciPy.

    Args:
        X: (N, D). W: (N, K), H: (K, D), where it starts.
        rate: of both exponential priors; noise: shape and scale of the noise variance's prior.
        moves: move along the ridge after each sweep, by as many pairs as ours.
    """

    def __init__(
        self,
        X: np.ndarray,
        W: np.ndarray,
        H: np.ndarray,
        rate: float = 1.0,
        noise: tuple[float, float] = (1.0, 1.0),
        moves: bool = False,
        seed: int = 0,
    ) -> None:
        self.X, self.W, self.H = X, np.ascontiguousarray(W.T), H.copy()  # W (K, N): a component a row
        self.rate, self.noise, self.moves, self.sigma2 = rate, noise, moves, 1.0
        self.square, self.misfit, self.random = float(np.vdot(X, X)), 0.0, np.random.default_rng(seed)

    def sweep(self) -> None:
        self.components(self.W, self.H @ self.X.T, self.H @ self.H.T)
        P, Q = self.W @ self.X, self.W @ self.W.T
        self.components(self.H, P, Q)
        self.misfit = self.square - 2 * np.vdot(P, self.H) + np.vdot(Q @ self.H, self.H)
        shape, scale = self.noise[0] + self.X.size / 2, self.noise[1] + self.misfit / 2
        self.sigma2 = scale / self.random.standard_gamma(shape)
        if self.moves:
            self.scale()
            self.shear()

    def components(self, F: np.ndarray, P: np.ndarray, Q: np.ndarray) -> None:
        """F (K, R), in place, by P (K, R) and Q (K, K)."""
        own = np.diag(Q)[:, None]
        sd, target, share = np.sqrt(self.sigma2 / own[:, 0]), (P - self.rate * self.sigma2) / own, Q / own
        u = self.random.random(F.shape)
        for k in range(len(F)):
            F[k] = truncated(F[k] + target[k] - share[k] @ F, sd[k], u[k])

    def scale(self) -> None:
        c = scales(
            self.X.shape[0] - self.X.shape[1], 2 * self.rate * self.W.sum(1), 2 * self.rate * self.H.sum(1), self.random
        )
        self.W *= c[:, None]
        self.H /= c[:, None]

    def shear(self) -> None:
        """W_l ← W_l + t W_k, H_k ← H_k - t H_l for as many ordered pairs as ours, in rounds of disjoint ones."""
        K = len(self.W)
        pairs, label = K // 2, np.arange(K)
        rounds = shear_rounds(K)
        orders, u = self.random.random((rounds, K)).argsort(1), self.random.random((rounds, pairs))
        with np.errstate(divide="ignore", invalid="ignore"):
            for order, its_u in zip(orders, u, strict=True):
                W, H, label = self.W.take(order, 0), self.H.take(order, 0), label[order]  # the pairs are then views
                ks, ls = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
                self.shear_pairs(W[ks], W[ls], H[ks], H[ls], its_u)
                self.W, self.H = W, H
        back = label.argsort()
        self.W, self.H = self.W[back], self.H[back]

    def shear_pairs(self, W_k: np.ndarray, W_l: np.ndarray, H_k: np.ndarray, H_l: np.ndarray, u: np.ndarray) -> None:
        """M pairs at once, in place; W_k, W_l (M, N), H_k, H_l (M, D)."""
        slope = self.rate * (W_k.sum(1) - H_l.sum(1))
        low, high = -np.fmin.reduce(W_l / W_k, 1), np.fmin.reduce(H_k / H_l, 1)  # 0 / 0 bounds nothing
        t = truncated_exponential(slope, low, high, u)[:, None]
        W_l += t * W_k
        H_k -= t * H_l
        np.maximum(W_l, 0.0, out=W_l)
        np.maximum(H_k, 0.0, out=H_k)


def truncated(mean: np.ndarray, sd: float, u: np.ndarray) -> np.ndarray:
    """Normal draws cut off below zero, by the survival function; in its logarithm where the bound lies far in the tail."""
    bound = mean / -sd
    if bound.max() < FAR:
        z = ndtri(u * ndtr(-bound))
    else:
        near = bound < FAR
        z = np.empty_like(mean)
        z[near] = ndtri(u[near] * ndtr(-bound[near]))
        z[~near] = ndtri_exp(np.log(u[~near]) + log_ndtr(-bound[~near]))
    return np.maximum(mean - sd * z, 0.0)


def scales(p: float, a: np.ndarray, b: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Generalised inverse Gaussians, density ∝ c^(p-1) exp(-(a c + b / c) / 2), one each.

    With ω = √(a b), y = log(c √(a / b)) has log density p y - ω cosh y, which bends at least as much as a normal's of
    precision ω: that at the mode is the cover, and (1 + p² / ω²)^(-1/4) of its draws are taken.
    """
    omega = np.sqrt(a * b)
    mode, bend = np.arcsinh(p / omega), 2 * np.hypot(omega, p)
    e, open_ = np.empty_like(omega), np.ones(len(omega), bool)
    while open_.any():
        z = random.standard_normal(len(omega))
        trial = z / np.sqrt(omega)
        excess = z * z / 2 - bend * np.sinh(trial / 2) ** 2 - p * (np.sinh(trial) - trial)
        taken = open_ & (-random.standard_exponential(len(omega)) < excess)
        e[taken] = trial[taken]
        open_ &= ~taken
    return np.sqrt(b / a) * np.exp(mode + e)


def truncated_exponential(slope: np.ndarray, low: np.ndarray, high: np.ndarray, u: np.ndarray) -> np.ndarray:
    """t with density ∝ exp(-slope t) on [low, high], measured from the end where it is greatest."""
    steep, width = np.maximum(np.abs(slope), 1e-300), high - low
    e = np.minimum(-np.log1p(u * np.expm1(-steep * width)) / steep, width)
    return np.where(slope >= 0, low + e, high - e)


@njit(nogil=True)
def dots(W: np.ndarray, H: np.ndarray, X: np.ndarray, times: int) -> float:
    """The products of a sweep with X, from W (K, N) and H (K, D)."""
    P, R, total = np.empty((len(H), len(X))), np.empty(H.shape), 0.0
    for _ in range(times):
        np.dot(H, X.T, P)
        np.dot(W, X, R)
        total += P[0, 0] + R[0, 0]
    return total


def least(
    tasks: dict[str, Callable[[int], Any]],
    turns: int,
    seconds: float = 0.05,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Seconds of one time of each task, which takes how many times it is to do; the tasks take turns."""
    counts, times = {}, {name: [] for name in tasks}  # type: ignore[var-annotated]
    for name, task in tasks.items():
        task(1)  # compiles, and warms caches
        counts[name] = max(1, int(seconds / timed(task, max(1, int(seconds / 10 / timed(task, 1, clock))), clock)))
    with bar(turns, "turns") as ticker:
        for turn in range(turns):
            first = turn % len(tasks)  # each begins equally often
            for name in [*list(tasks)[first:], *list(tasks)[:first]]:
                times[name].append(timed(tasks[name], counts[name], clock))
            ticker.update()
    return {name: min(values) for name, values in times.items()}


def timed(task: Callable[[int], Any], n: int, clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    task(n)
    return (clock() - start) / n


class Sweeps:
    """Sweeps of a model with exponential priors, made as `fit` makes them: some in one call, all draws kept until it ends."""

    def __init__(self, data: Matrix, rank: int, chains: int = 1) -> None:
        self.data, self.model, self.stream = data, ExponentialGaussian(rank), Stream.of(0, chains)
        self.at_once = gibbs.sweeps_at_once(data, rank, chains)
        self.state = gibbs.init(self.model, data, self.stream)

    def __call__(self, n: int, moves: bool = True) -> None:
        with single_threaded():
            for lot in length._lots(0, (n,), self.at_once):
                asked = Asked(number=len(lot), kept=range(len(lot)), moves=moves)
                self.state, *_ = gibbs.several(self.model, self.state, self.data, self.stream, asked)

    def steps(self, n: int) -> None:
        for _ in range(n):
            self.state, _ = gibbs.step(self.model, self.state, self.data, self.stream)


def measure(N: int, D: int, K: int, turns: int, seconds: float, clock: Callable[[], float]) -> dict[str, float]:
    X = draw(N, D, K).X.abs().numpy()
    ours = Sweeps(as_matrix(X), K)
    ours(20)
    W, H = (ours.state.params[site][0].contiguous().numpy() for site in ("W", "H"))
    Wt, peers = np.ascontiguousarray(W.T), [NumPyGibbs(X, W, H, moves=moves) for moves in (False, True)]
    tW, tH, tX = (torch.from_numpy(array) for array in (Wt, H, X))

    ways: tuple[Callable[[int], Any], ...] = (
        lambda n: dots(Wt, H, X, n),
        lambda n: [(H @ X.T, Wt @ X) for _ in range(n)],
        lambda n: [(X @ H.T, X.T @ W) for _ in range(n)],
        lambda n: [(torch.mm(tH, tX.mT), torch.mm(tW, tX)) for _ in range(n)],
        lambda n: [(torch.mm(tX, tH.mT), torch.mm(tX.mT, tW.mT)) for _ in range(n)],
    )
    tasks: tuple[Callable[[int], Any], ...] = (
        ours,
        lambda n: ours(n, moves=False),
        ours.steps,
        *(lambda n, peer=peer: [peer.sweep() for _ in range(n)] for peer in peers),
    )
    times = least(dict(zip((*COLUMNS, *WAYS), (*tasks, *ways), strict=True)), turns, seconds, clock)
    return times | {"products": min(times[way] for way in WAYS)}


@njit(nogil=True, error_model="numpy")
def drawn(bound: np.ndarray, room: np.ndarray, times: int) -> float:
    """So many times a lane's worth of draws, as an update of rows makes them; the sum of the last."""
    n = len(bound)
    for step in range(times):
        uniforms_of_rows(1, 2, 0, 0, step, 0, n, room[0], room[1])
        for i in range(n):
            room[2, i] = 1.0
            room[3, i] = -bound[i]
        draw_lanes(room[2], room[3], room[2], room[0], room[4], room[5:], n)
    return room[4].sum()


def draws_alone(turns: int, seconds: float, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of a draw, by where zero lies; "mixed" has every twentieth in the tail."""
    random, n = np.random.default_rng(0), 128
    mixed = random.normal(size=n)
    mixed[::20] = 8.0
    bounds = {f"{at:g}": np.full(n, at) for at in (-20.0, 0.0, 3.0, 8.0)} | {"mixed": mixed}
    room = torch.empty(8, n, dtype=torch.float64).numpy()
    tasks: dict[str, Callable[[int], Any]] = {
        name: (lambda times, own=bound: drawn(own, room, times)) for name, bound in bounds.items()
    }
    return {name: taken / n for name, taken in least(tasks, turns, seconds, clock).items()}


def single_over_double(N: int, D: int, K: int, turns: int, seconds: float, clock: Callable[[], float]) -> float:
    """The time of a sweep without moves in single precision, over that in double."""
    X = draw(N, D, K).X.abs()
    both = {str(dtype): Sweeps(as_matrix(X.to(dtype)), K) for dtype in (torch.float32, torch.float64)}
    tasks: dict[str, Callable[[int], Any]] = {
        name: (lambda n, own=sweeps: own(n, moves=False)) for name, sweeps in both.items()
    }
    times = least(tasks, turns, seconds, clock)
    return times["torch.float32"] / times["torch.float64"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes and few turns")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--threads", type=int, default=1, help="for everybody")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load, rows = os.getloadavg()[0], []
    clock = time.process_time if options.threads == 1 else time.perf_counter
    print(f"ms, the least of the turns, float64, one chain, {options.threads} thread(s); load average {load:.1f}")
    heads = " ".join(f"{name:>11}" for name in (*COLUMNS, "products"))
    print(
        f"{'N':>6} {'D':>5} {'K':>3} {heads}   moves' share   sweep/products: no moves, moves   numpy/sweep: no moves, moves"
    )
    for N, D, K in QUICK if options.quick else SHAPES:
        turns, seconds = (3, 0.01) if options.quick else (28 if N * D < 10**7 else 14, 0.05)
        with threadpool_limits(options.threads, "blas"):
            times = measure(N, D, K, turns, seconds, clock)
        ratios = {
            "moves' share": 1 - times["no moves"] / times["sweep"],
            "sweep/products, no moves": times["no moves"] / times["products"],
            "sweep/products, moves": times["sweep"] / times["products"],
            "numpy/sweep, no moves": times["numpy"] / times["no moves"],
            "numpy/sweep, moves": times["numpy moves"] / times["sweep"],
        }
        figures = " ".join(f"{1e3 * times[name]:11.4f}" for name in (*COLUMNS, "products"))
        share, *pairs = ratios.values()
        told = "   ".join(f"{pairs[i]:25.2f}, {pairs[i + 1]:5.2f}" for i in (0, 2))
        print(f"{N:6d} {D:5d} {K:3d} {figures}   {share:12.0%}   {told}", flush=True)
        rows.append({"N": N, "D": D, "K": K, "seconds": times, **ratios})
    turns, seconds = (3, 0.01) if options.quick else (20, 0.02)
    alone = draws_alone(turns, seconds, clock)
    print("ns of a draw, by bound: " + ", ".join(f"{name} {1e9 * taken:.1f}" for name, taken in alone.items()))
    with threadpool_limits(options.threads, "blas"):
        singles = [
            single_over_double(*shape, turns, seconds, clock) for shape in (QUICK if options.quick else SHAPES[:4])
        ]
    print("single precision over double, no moves: " + ", ".join(f"{ratio:.2f}" for ratio in singles))
    if options.out:
        with open(options.out, "w") as file:
            json.dump(
                {"threads": options.threads, "load": load, "rows": rows, "draws": alone, "single": singles},
                file,
                indent=2,
            )


if __name__ == "__main__":
    main()
