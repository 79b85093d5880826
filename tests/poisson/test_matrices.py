"""A sweep of counts is the same for every kind of matrix, number of threads and split of the rows; modes are a peer's."""

import warnings

import numpy as np
import pytest
import scipy.sparse
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.inference import gibbs
from ppnmf.models import GammaPoisson
from ppnmf.rng import Stream
from tests.scenarios import uneven_counts

N, D, K = 61, 23, 3
generator = np.random.default_rng(0)
FULL = generator.poisson(3 * generator.gamma(0.5, size=(N, 2)) @ generator.gamma(0.5, size=(2, D))).astype(float)
SEEN = generator.random((N, D)) > 0.3
MODELS = {
    "even": GammaPoisson(K, 0.7, 0.4, 1.0, 2.0),
    "columns": GammaPoisson(K, 0.7, 0.4, 1.0, 2.0, exposures=0.5 + generator.random(D)),
    "rows": GammaPoisson(K, 0.7, 0.4, 1.0, 2.0, exposures=0.5 + generator.random((N, 1))),
    "entries": uneven_counts(GammaPoisson, N, D, K),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("ppnmf.data.sparse.LEAST_ROWS", 16)
    monkeypatch.setattr("ppnmf.data.sparse.MOST_BLOCKS", 4)
    monkeypatch.setattr("ppnmf.data.sparse.FEW_BLOCKS", 4)
    monkeypatch.setattr("ppnmf.data.dense.BLOCK_ENTRIES", 300)
    monkeypatch.setattr("ppnmf.data.blocked.BLOCK_ENTRIES", 300)


def kinds(tmp_path):
    np.save(tmp_path / "x.npy", FULL)
    zeros_stored = scipy.sparse.coo_array(
        (np.append(FULL[FULL > 0], 0.0), tuple(np.append(at, 0) for at in np.nonzero(FULL)))
    )
    return {
        "sparse": as_matrix(scipy.sparse.csr_array(FULL)),
        "by columns": as_matrix(scipy.sparse.csc_array(FULL)),
        "a zero stored": as_matrix(scipy.sparse.csr_array(zeros_stored)),
        "on disk": as_matrix(tmp_path / "x.npy"),
        "single precision": as_matrix(FULL.astype(np.float32)),
        "shared": ppnmf.shard(FULL),
    }


def drawn(model, X, mask=None, **options):
    options = {"draws": 4, "warmup": 0, "chains": 2, "seed": 3, "progress": False} | options
    return ppnmf.fit(model, X, mask=mask, **options)


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_matrix_gives_the_draws_of_the_dense_one(name, tmp_path):
    expected = drawn(MODELS[name], FULL)
    for kind, X in kinds(tmp_path).items():
        found = drawn(MODELS[name], X)
        rounding = {"rtol": 2e-3, "atol": 1e-3} if kind == "single precision" else {"rtol": 1e-9, "atol": 1e-12}
        if kind == "single precision":
            found, one = found.draws["W"][:, :1].double(), expected.draws["W"][:, :1]
            torch.testing.assert_close(found, one, **rounding)
            continue
        for site in ("W", "H"):
            torch.testing.assert_close(found.draws[site], expected.draws[site], **rounding)
        torch.testing.assert_close(found.stats["lp"], expected.stats["lp"], rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_stored_entries_give_the_draws_of_a_mask(name):
    expected = drawn(MODELS[name], FULL, SEEN)
    pattern = scipy.sparse.csr_array((FULL[SEEN], np.nonzero(SEEN)), shape=FULL.shape)
    found = drawn(MODELS[name], pattern, missing="unstored")
    for site in ("W", "H"):
        torch.testing.assert_close(found.draws[site], expected.draws[site], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.stats["lp"], expected.stats["lp"], rtol=1e-10, atol=0)


def test_what_lies_under_the_mask_does_not_leak():
    hidden = np.where(SEEN, FULL, np.nan)
    assert torch.equal(drawn(MODELS["even"], hidden, SEEN).draws["W"], drawn(MODELS["even"], FULL, SEEN).draws["W"])


@pytest.mark.parametrize("name", ["even", "entries"])
def test_threads_change_nothing(name, monkeypatch):
    monkeypatch.setattr("ppnmf.threads.WORTH_A_THREAD", 0)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(drawn(MODELS[name], FULL))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0].draws[site], found[1].draws[site]) for site in ("W", "H"))
    assert torch.equal(found[0].stats["lp"], found[1].stats["lp"])


@pytest.mark.parametrize("name", ["rows", "entries"])
def test_the_plain_kernels_give_the_compiled_draws(name, monkeypatch):
    compiled = drawn(MODELS[name], FULL, SEEN)
    monkeypatch.setenv("PPNMF_KERNEL", "reference")
    plain = drawn(MODELS[name], FULL, SEEN)
    for site in ("W", "H"):
        torch.testing.assert_close(plain.draws[site], compiled.draws[site], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(plain.stats["lp"], compiled.stats["lp"], rtol=1e-10, atol=0)


def test_chains_do_not_depend_on_each_other():
    X, model = as_matrix(FULL), MODELS["columns"]
    both, one = Stream.of(7, 2), Stream.of(7, [1])
    state = gibbs.init(model, X, both)
    after, info = gibbs.step(model, state, X, both)
    alone, its_info = gibbs.step(model, gibbs.init(model, X, one), X, one)
    torch.testing.assert_close(after.params["W"][1], alone.params["W"][0], rtol=1e-12, atol=0)
    torch.testing.assert_close(info.lp[1], its_info.lp[0], rtol=1e-12, atol=0)


def test_flat_modes_lower_the_divergence_as_scikit_learn_does():
    """Ordinary NMF: alternate multiplicative updates for the Kullback-Leibler divergence."""
    from sklearn.decomposition import NMF

    from ppnmf.protocols import Read, Sweeps

    X = FULL + 1
    W, H = generator.random((N, K)) + 0.1, generator.random((K, D)) + 0.1
    peer = NMF(K, init="custom", solver="mu", beta_loss="kullback-leibler", max_iter=30, tol=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Maximum number of iterations")
        expected = peer.fit_transform(X, W=W.copy(), H=H.copy())
    params = {"W": torch.from_numpy(W)[None], "H": torch.from_numpy(H)[None]}
    found = GammaPoisson(K).sweep(params, as_matrix(X), Sweeps(Read.MODE, 30, flat=True), None).params
    torch.testing.assert_close(found["W"][0], torch.from_numpy(expected), rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(found["H"][0], torch.from_numpy(peer.components_), rtol=1e-7, atol=1e-10)
