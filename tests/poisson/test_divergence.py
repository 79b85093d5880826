"""Multiplicative updates for the Kullback-Leibler divergence are scikit-learn's."""

import math

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.decomposition import NMF

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.models import GammaPoisson
from ppnmf.poisson import allocation, divergence

pytestmark = pytest.mark.filterwarnings("ignore:mu")
generator = np.random.default_rng(4)
W0, H0 = generator.random((40, 3)) + 0.1, generator.random((3, 25)) + 0.1
PRODUCTS = generator.gamma(0.6, size=(40, 3)) @ generator.gamma(0.6, size=(3, 25))
MANY, FEW = generator.poisson(20 * PRODUCTS).astype(float), generator.poisson(0.1 * PRODUCTS).astype(float)


def fitted(X, sweeps, model=None, **options):
    options = {"init": {"W": W0, "H": H0}, "max_sweeps": sweeps, "tol": 0.0, "progress": False} | options
    return ppnmf.fit(model or GammaPoisson(3), X, method="mu", **options)


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
@pytest.mark.parametrize("X", [MANY, FEW, scipy.sparse.csr_array(MANY), scipy.sparse.csr_array(FEW)])
@pytest.mark.parametrize("sweeps", [1, 7, 200])
def test_it_is_scikit_learn_s_objective_from_the_same_start(X, sweeps):
    theirs = NMF(3, init="custom", solver="mu", beta_loss="kullback-leibler", max_iter=sweeps, tol=0)
    W = theirs.fit_transform(X, W=W0.copy(), H=H0.copy())
    post = fitted(X, sweeps)
    assert float(post.stats["loss"][0, 0]) == pytest.approx(theirs.reconstruction_err_**2 / 2, rel=1e-6)
    torch.testing.assert_close(post.draws["W"][0, 0], torch.from_numpy(W), rtol=1e-5, atol=1e-8)


def test_dense_products_are_those_of_the_counts_alone(monkeypatch):
    whole = fitted(MANY, 20)
    monkeypatch.setattr(allocation, "MOST", 2.0)
    one = fitted(MANY, 20)
    torch.testing.assert_close(whole.draws["H"], one.draws["H"], rtol=1e-11, atol=0)
    torch.testing.assert_close(whole.stats["loss"], one.stats["loss"], rtol=1e-11, atol=0)


@pytest.mark.parametrize("exposures", [1.0, 0.5 + W0[:, :1], 0.5 + H0[0]], ids=["none", "rows", "columns"])
@pytest.mark.parametrize("shape", [(40, 25), (7, 300), (150, 3)])
def test_a_step_compiled_whole_is_that_of_the_blocks(exposures, shape, monkeypatch):
    wide = np.ndim(exposures)
    e = exposures if not wide else np.resize(exposures, (shape[0], 1) if wide == 2 else shape[1])
    X = np.resize(MANY, shape)
    model, begin = GammaPoisson(3, exposures=e), {"W": np.resize(W0, (shape[0], 3)), "H": np.resize(H0, (3, shape[1]))}
    whole = fitted(X, 8, model, init=begin)
    monkeypatch.setattr(divergence, "WHOLE", 0)
    one = fitted(X, 8, model, init=begin)
    for site in ("W", "H"):
        torch.testing.assert_close(whole.draws[site], one.draws[site], rtol=1e-10, atol=0)
    torch.testing.assert_close(whole.stats["loss"], one.stats["loss"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("X", [MANY, scipy.sparse.csr_array(FEW)], ids=["dense", "sparse"])
def test_zeros_stay_zeros_and_nothing_is_divided_by_them(X):
    W, H = W0.copy(), H0.copy()
    W[:, 0] = 0.0
    H[0] = 0.0
    W[3] = 0.0
    post = fitted(X, 30, init={"W": W, "H": H})
    for site in ("W", "H"):
        assert bool(post.draws[site].isfinite().all())
    assert bool((post.draws["W"][..., 3, :] == 0).all()) and bool((post.draws["H"][..., 0, :] == 0).all())
    assert math.isinf(float(post.stats["loss"])) == bool(X[[3]].sum() > 0)


def test_exposures_and_a_mask_are_in_the_divergence():
    e = 0.5 + generator.random((40, 25))
    seen = generator.random((40, 25)) > 0.2
    hidden = np.where(seen, MANY, np.nan)
    model = GammaPoisson(3, exposures=e)
    curve = fitted(hidden, 60, model, mask=seen).attrs["loss_curve"][0]
    assert np.all(np.diff(curve) <= 1e-12 * curve[0])
    post = fitted(hidden, 60, model, mask=seen)
    mean = e * (post.draws["W"] @ post.draws["H"])[0, 0].numpy()
    each = np.where(MANY > 0, MANY * np.log(np.where(MANY > 0, MANY, 1) / mean), 0) - MANY + mean
    assert float(post.stats["loss"]) == pytest.approx(each[seen].sum(), rel=1e-10)


def test_the_unit_goes_with_the_exposures():
    data = as_matrix(MANY)
    one, other = GammaPoisson(3).loss_unit(data), GammaPoisson(3, exposures=1 + W0[:, :1]).loss_unit(data)
    assert one != other and GammaPoisson(3).loss_unit(data) == pytest.approx(one, rel=1e-14)
    assert GammaPoisson(3).loss_unit(as_matrix(np.full((4, 3), 2.0))) == 1.0
