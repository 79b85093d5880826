"""Exposures of new samples: W of new rows of counts given the components of a fit."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.models import GammaPoisson, NegativeBinomialGamma
from ppnmf.protocols import Held, Read, Sweeps
from ppnmf.rng import Stream

generator = np.random.default_rng(0)
H = generator.gamma(0.7, size=(3, 30))
X = generator.poisson(20 * generator.gamma(0.7, size=(60, 3)) @ H).astype(float)
QUICK = {"draws": 40, "warmup": 40, "chains": 2, "progress": False}


@pytest.mark.parametrize("kind", [GammaPoisson, NegativeBinomialGamma])
def test_modes_leave_what_is_held(kind):
    model, data = kind.for_data(X, 3), as_matrix(X)
    params = model.begin(data, Stream.of(0, 2), "scaled")
    asked = Sweeps(read=Read.MODE, number=3, held=Held(W=1, H=3, others=True), moves=False)
    after = model.sweep(params, data, asked, None).params
    assert torch.equal(after["H"], params["H"]) and torch.equal(after["W"][..., :1], params["W"][..., :1])
    assert not torch.equal(after["W"][..., 1:], params["W"][..., 1:])
    for site in set(params) - {"W", "H"}:
        assert torch.equal(after[site], params[site])


@pytest.mark.parametrize("name", ["gamma_poisson", "negative_binomial_gamma"])
def test_new_rows_leave_the_components_of_the_fit(name):
    post = ppnmf.fit(name, X[:50], rank=3, **QUICK, init="scaled")
    new = post.transform(X[50:])
    assert new.draws["W"].shape == (2, 40, 10, 3) and torch.equal(new.draws["H"], post.draws["H"])


def test_the_exposure_of_a_sample_is_its_conditional_at_rank_one():
    post = ppnmf.fit(GammaPoisson(1, shape_W=0.5, rate_W=0.2), X[:20], **QUICK, init="scaled")
    e = np.array([[0.3], [2.5]])
    new = post.transform(X[50:52], exposures=e, sweeps=3)
    W, total = new.draws["W"][..., 0].flatten(0, 1), post.draws["H"].sum(-1)[..., 0].flatten()
    for i in range(2):
        shape, rate = 0.5 + X[50 + i].sum(), 0.2 + e[i, 0] * total
        assert stats.kstest((W[:, i] * rate).numpy(), stats.gamma(shape).cdf).pvalue > 1e-4


def test_exposures_go_with_the_columns_of_new_rows():
    frame = pd.DataFrame(X[:12, :6], [f"s{i}" for i in range(12)], list("abcdef"))
    E = 1 + generator.random((12, 6))
    post = ppnmf.fit(GammaPoisson(2), frame, draws=3, warmup=3, chains=1, progress=False, init="scaled")
    turned = frame.iloc[:3, ::-1]
    wanted = post.transform(frame.iloc[:3], exposures=E[:3]).draws["W"]
    named = pd.DataFrame(E, frame.index, frame.columns)
    for exposures in (E[:3, ::-1], named.iloc[[2, 0, 1]]):
        assert torch.equal(post.transform(turned, exposures=exposures).draws["W"], wanted)
    by_row = post.transform(frame.iloc[:3], exposures=E[:3, :1]).draws["W"]
    for exposures in (E[:3, :1], named["a"].iloc[[2, 0, 1]], named[["a"]].iloc[[2, 0, 1]]):
        assert torch.equal(post.transform(turned, exposures=exposures).draws["W"], by_row)
    columns = post.transform(frame.iloc[:3], exposures=E[0]).draws["W"]
    assert torch.equal(post.transform(turned, exposures=named.iloc[0]).draws["W"], columns)
    with pytest.raises(ValueError, match="exposures has the labels of neither X's rows nor its columns"):
        post.transform(turned, exposures=named["a"])


def test_exposures_of_each_row_are_asked_for_anew_and_others_have_none():
    e = 1 + generator.random((50, 1))
    post = ppnmf.fit(GammaPoisson(2, exposures=e), X[:50], **QUICK, init="scaled")
    with pytest.raises(ValueError, match="exposures has shape"):
        post.transform(X[50:])
    assert post.transform(X[50:], exposures=np.ones((10, 1))).model.exposures.shape == (10, 1)
    gaussian = ppnmf.fit("exponential_gaussian", X[:50], rank=2, **QUICK, init="scaled")
    with pytest.raises(TypeError, match="exposures are of counts, and exponential_gaussian has none"):
        gaussian.transform(X[50:], exposures=e)
