"""What does each kind of X cost: a sweep against its own products, a mask, the memory of a file that is never loaded?

    python benchmarks/matrices.py [--quick] [--gigabytes 4] [--folder FOLDER] [--json FILE]

One chain, one thread, float64, the least processor time after a warm-up. "products" are X Hᵀ and Xᵀ W alone, of the sparse
matrix by the same functions with SciPy's beside them, of the masked one by NumPy's, whole; "with Gram matrices" adds those of
each row and each column, as the mask times the products of pairs of components, which a person would write in NumPy. The
drug-response data are used where PPNMF_DATA leads to them, else drawn ones of their size.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from threadpoolctl import threadpool_limits

from ppnmf.data import datasets
from ppnmf.data.matrix import as_matrix
from ppnmf.gaussian.statistics import given_H, of_H, of_W
from ppnmf.inference import gibbs
from ppnmf.models import ExponentialGaussian
from ppnmf.rng import Stream
from ppnmf.threads import single_threaded

MEGABYTE = 2**20
RANKS = 10, 20


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Of processor time, the least."""
    work()
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)


def anonymous() -> float:
    """Memory of this process that no file holds, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


class Peak:
    """The most anonymous memory while work is done, in megabytes, and what there was before."""

    def __enter__(self) -> Peak:
        self.before = self.most = anonymous()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.most = max(self.most, anonymous())

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self.most = max(self.most, anonymous())


def sweeps(X: Any, rank: int, moves: bool = True) -> Callable[[], Any]:
    """One Gibbs sweep a call."""
    model, stream = ExponentialGaussian.scaled_to(X, rank), Stream.of(0, 1)
    state = [gibbs.init(model, X, stream)]

    def step() -> None:
        state[0], _ = gibbs.step(model, state[0], X, stream, moves=moves)

    return step


def sparse(quick: bool) -> dict[str, float]:
    N, D = (20_000, 2_000) if quick else (200_000, 5_000)
    rng, per_row = np.random.default_rng(0), D // 100
    columns = np.sort(rng.integers(0, D, (N, per_row)), axis=1).ravel().astype(np.int32)
    parts = (rng.exponential(size=N * per_row), columns, np.arange(0, N * per_row + 1, per_row))
    S = scipy.sparse.csr_array(parts, shape=(N, D))
    S.sum_duplicates()
    rank = RANKS[-1]
    data = (S.data.nbytes + S.indices.nbytes + S.indptr.nbytes) / MEGABYTE
    factors = (N + D) * rank * 8 / MEGABYTE
    sweeps(as_matrix(S[:100]), rank)()  # compiles
    with Peak() as peak:
        X = as_matrix(S)
        step = sweeps(X, rank)
        step()
    with Peak() as swept:
        step()
    figures = {}
    for each in RANKS:
        figures |= against_products(S, X, each, 3 if quick else 5)
    return figures | {
        "MB of data": data,
        "MB of factors": factors,
        "MB at the peak above the data": peak.most - peak.before,
        "that in factors": (peak.most - peak.before) / factors,
        "of a sweep alone, in factors": (swept.most - peak.before) / factors,
    }


def against_products(S: scipy.sparse.csr_array, X: Any, rank: int, repeats: int) -> dict[str, float]:
    """Seconds of a sweep of the sparse X, which is S too, beside our products and SciPy's."""
    N, D = S.shape
    W = torch.rand(1, rank, N, dtype=torch.float64).mT
    H = torch.rand(1, rank, D, dtype=torch.float64)
    w, h = np.ascontiguousarray(W[0].numpy()), np.ascontiguousarray(H[0].numpy().T)

    def products() -> None:
        given = given_H(X, H)
        for rows in X.blocks:
            block = X.block(rows)
            of_W(block, given)
            of_H(block, W[:, rows.start : rows.stop])

    with single_threaded():
        ours, theirs = seconds(products, repeats), seconds(lambda: (S @ h, S.T @ w), repeats)
    whole, still = (seconds(sweeps(X, rank, moves), repeats) for moves in (True, False))
    return {
        f"products, rank {rank}": ours,
        f"SciPy's products, rank {rank}": theirs,
        f"sweep without moves, rank {rank}": still,
        f"sweep, rank {rank}": whole,
        f"sweep without moves / SciPy's products, rank {rank}": still / theirs,
    }


def with_grams(zeros: np.ndarray, mask: np.ndarray, W: np.ndarray, H: np.ndarray) -> list[np.ndarray]:
    """The products of a sweep with a mask: with X, and for each row and column the upper half of its Gram matrix."""
    k, l = np.triu_indices(len(H))
    return [zeros @ H.T, mask @ (H[k] * H[l]).T, zeros.T @ W, mask.T @ (W[:, k] * W[:, l])]


def masked(quick: bool) -> dict[str, float]:
    """Sweeps with a mask, the Gram matrices of every row and column with them, against the products alone."""
    try:
        found = datasets.load("gdsc")
        values, mask = np.asarray(found.X), np.asarray(found.mask)
    except FileNotFoundError:
        rng = np.random.default_rng(0)
        values, mask = rng.exponential(size=(705, 139)), rng.random((705, 139)) > 0.19
    X, zeros, repeats = as_matrix(values, mask), np.where(mask, values, 0.0), 10 if quick else 100
    figures = {"share missing": 1 - float(mask.mean())}
    ones = mask.astype(np.float64)
    for rank in RANKS:
        W, H = np.ones((len(zeros), rank)), np.ones((rank, zeros.shape[1]))
        with single_threaded(), threadpool_limits(1):
            products = seconds(lambda own=(W, H): (zeros @ own[1].T, own[0].T @ zeros), repeats)
            every = seconds(lambda own=(W, H): with_grams(zeros, ones, *own), repeats)
            still, whole = (seconds(sweeps(X, rank, moves), repeats) for moves in (False, True))
        figures |= {f"products, rank {rank}": products, f"sweep without moves, rank {rank}": still}
        figures |= {f"sweep, rank {rank}": whole, f"products with Gram matrices, rank {rank}": every}
        figures |= {f"sweep without moves / those, rank {rank}": still / every}
    return figures


def on_disk(gigabytes: float, folder: Path) -> dict[str, float]:
    D, rank = 5_000, 20
    N = max(1_000, int(gigabytes * 2**30 / 8 / D))
    path = folder / "X.npy"
    X = np.lib.format.open_memmap(path, "w+", np.float64, (N, D))
    rng = np.random.default_rng(0)
    some = rng.exponential(size=(1000, D))
    for start in range(0, N, 1000):
        X[start : start + 1000] = some[: min(1000, N - start)]
    X.flush()
    del X, some
    with Peak() as peak:
        began = time.perf_counter()
        data = as_matrix(path)
        checked = time.perf_counter() - began
        step = sweeps(data, rank)
        step()
        began = time.perf_counter()
        step()
        swept = time.perf_counter() - began
    size = path.stat().st_size
    path.unlink()
    return {
        "GB on disk": size / 2**30,
        "check": checked,
        "sweep": swept,
        "MB anonymous at the peak": peak.most,
        "MB before": peak.before,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--gigabytes", type=float, help="size of the file on disk; 4, or 0.1 with --quick")
    options.add_argument("--folder", type=Path, help="where to write it for a while")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    size = given.gigabytes if given.gigabytes is not None else 0.1 if given.quick else 4.0
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = {"on disk": on_disk(size, Path(folder)), "mask": masked(given.quick), "sparse": sparse(given.quick)}
    for kind, figures in found.items():
        print(kind)
        for name, value in figures.items():
            print(f"  {name:52} {value:10.4g}")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
