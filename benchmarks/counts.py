"""How long does a Gibbs sweep of counts take, against forming W @ H at the non-zero counts and the two sums alone?

The peer is compiled: for every non-zero count the mean, the ratio, and its shares added to the sums over rows and over columns.
A sweep draws the shares instead (multinomials), then W and H (gammas) and their scales. One thread, one chain. Beside it a sweep
of modes and an iteration of scikit-learn's `mu` for the Kullback-Leibler divergence. Prints milliseconds and ratios; --quick
takes small matrices.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import scipy.sparse
import torch
from numba import njit
from sklearn.decomposition import NMF

from ppnmf.data.matrix import as_matrix
from ppnmf.inference import gibbs
from ppnmf.models import GammaPoisson
from ppnmf.protocols import Address, Read, Sweeps
from ppnmf.rng import Stream

RANK = 20


@njit(nogil=True, fastmath=True)
def means_and_sums(data, indices, starts, W, Ht, of_W, of_H):
    K = W.shape[1]
    for i in range(len(starts) - 1):
        for at in range(starts[i], starts[i + 1]):
            j = indices[at]
            mean = 0.0
            for k in range(K):
                mean += W[i, k] * Ht[j, k]
            ratio = data[at] / mean
            for k in range(K):
                share = ratio * W[i, k] * Ht[j, k]
                of_W[i, k] += share
                of_H[j, k] += share


def best(function: Callable[[], object], repeats: int) -> float:
    """The least seconds of some calls, after one."""
    function()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def drawn(N: int, D: int, mean: float, shape: float) -> np.ndarray:
    generator = np.random.default_rng(0)
    products = generator.gamma(shape, size=(N, RANK)) @ generator.gamma(shape, size=(RANK, D))
    return generator.poisson(products * (mean / products.mean())).astype(float)


def measure(name: str, X: np.ndarray, sparse: bool, repeats: int) -> None:
    kept = scipy.sparse.csr_array(X)
    data, stream, model = as_matrix(kept if sparse else X), Stream.of(0), GammaPoisson.for_data(X, RANK)
    params = gibbs.init(model, data, stream).params
    for step in range(5):
        params = model.sweep(params, data, Sweeps(kept=range(0)), Address(stream, step)).params
    W, Ht = params["W"][0].contiguous().numpy(), params["H"][0].T.contiguous().numpy()
    arrays = kept.data, kept.indices.astype(np.int32), kept.indptr.astype(np.int64)
    sums = np.zeros_like(W), np.zeros_like(Ht)
    peer = best(lambda: means_and_sums(*arrays, W, Ht, *sums), repeats)
    sweep = best(lambda: model.sweep(params, data, Sweeps(kept=range(0)), Address(stream, 9)), repeats)
    modes = best(lambda: model.sweep(params, data, Sweeps(Read.MODE, flat=True), None), repeats)
    print(f"{name}: {len(kept.data)} non-zero counts, mean {kept.data.mean():.1f}, K = {RANK}")
    print(f"  means and sums     {1e3 * peer:9.1f} ms")
    print(f"  Gibbs sweep        {1e3 * sweep:9.1f} ms   {sweep / peer:6.1f} ×")
    print(f"  sweep of modes     {1e3 * modes:9.1f} ms   {modes / peer:6.1f} ×")
    theirs = NMF(RANK, init="custom", solver="mu", beta_loss="kullback-leibler", max_iter=10, tol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = kept if sparse else X
        seconds = best(lambda: theirs.fit_transform(given, W=W.copy(), H=Ht.T.copy()), 1) / 10
    print(f"  scikit-learn's mu  {1e3 * seconds:9.1f} ms   {seconds / peer:6.1f} ×")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    size, repeats = (20, 2) if given.quick else (1, 5)
    measure("dense, like mutations", drawn(96, 2780 // size, 60.0, 0.3), False, repeats)
    measure("sparse, like cells", drawn(20_000 // size, 2000, 0.0305, 0.5), True, repeats)


if __name__ == "__main__":
    main()
