"""Chib's evidence of counts against quadrature, brute force and the other methods."""

import math

import numpy as np
import pytest
import scipy.sparse
import torch

import ppnmf
from ppnmf.models import GammaPoisson
from ppnmf.poisson import blocks
from tests.poisson.exact import RankOne
from tests.poisson.test_evidence import SMALL, X, assert_near, over_the_prior
from tests.scenarios import mask_of, uneven_counts

pytestmark = pytest.mark.filterwarnings("ignore:log_evidence by")  # short runs need not agree to 1.01


def estimate(model, X, **options):
    options = {"draws": 300, "thin": 1, "warmup": 100, "replicates": 6, "progress": False} | options
    return ppnmf.log_evidence(model, X, method="chib", **options)


@pytest.mark.parametrize("mask", [None, mask_of((4, 2))], ids=["full", "masked"])
def test_chib_matches_quadrature_at_rank_one(mask):
    model = uneven_counts(GammaPoisson, 4, 2, 1)
    evidence = estimate(model, X if mask is None else torch.where(mask, X, torch.nan), mask=mask)
    assert_near(evidence, RankOne(model, X, mask).log_evidence())
    assert evidence.mcse < 0.03 and evidence.gap < 0.3 and not evidence.failed


def test_chib_matches_quadrature_when_rows_are_fewer_than_columns():
    turned = GammaPoisson(1, 1.2, 0.8, 1.5, 1.0)
    exact = RankOne(GammaPoisson(1, 0.8, 1.2, 1.0, 1.5), X).log_evidence()
    assert_near(estimate(turned, X.T.contiguous()), exact)
    assert_near(estimate(turned, scipy.sparse.csr_array(X.T.numpy()), draws=100), exact)


def test_chib_matches_brute_force_at_rank_two():
    model = GammaPoisson(2, 0.8, 1.2, 1.0, 1.5)
    exact, error = over_the_prior(model, SMALL, 400_000)
    evidence = estimate(model, SMALL, draws=500)
    assert_near(evidence, exact, error, least=0.06)
    assert evidence.mcse < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("rank", [2, 3])
def test_chib_agrees_with_the_other_methods(rank):
    generator = np.random.default_rng(3)
    counts = generator.poisson(3 * generator.gamma(0.7, size=(6, 2)) @ generator.gamma(0.7, size=(2, 5)))
    model = GammaPoisson.for_data(counts, rank)
    by_chib = estimate(model, counts, draws=1000, replicates=8)
    by_stones = ppnmf.log_evidence(model, counts, method="stepping_stone", progress=False)
    error = math.hypot(by_chib.mcse, by_stones.mcse)
    assert error < 0.15 and abs(by_chib.log_evidence - by_stones.log_evidence) < max(5 * error, 0.1)


MISTAKES = {
    "no exposures": lambda side: side._replace(exposed=0 * side.exposed + 1),
    "another component": lambda side: side._replace(G=side.G.flip(-1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", MISTAKES)
def test_a_mistake_in_the_densities_is_found(wrong, monkeypatch):
    right = blocks.Side.of.__func__
    monkeypatch.setattr(blocks.Side, "of", classmethod(lambda *given: MISTAKES[wrong](right(*given))))
    model = GammaPoisson(2, 0.8, 1.2, 1.0, 1.5)
    exact, _ = over_the_prior(model, SMALL, 100_000)
    assert abs(estimate(model, SMALL).log_evidence - exact) > 0.3


def test_chib_of_counts_wants_them_in_memory(tmp_path):
    np.save(tmp_path / "counts.npy", X.numpy())
    data = ppnmf.as_matrix(str(tmp_path / "counts.npy"))
    with pytest.raises(ValueError, match="chib of counts needs X in memory"):
        estimate(GammaPoisson(1), data)
