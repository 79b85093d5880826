"""The noise variance that priors on the data's scale are made from."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

import ppnmf
from ppnmf.gaussian.scale import bulk_median, data_scale
from ppnmf.models import ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian


def strong(noise, shape=(100, 80), rank=10, seed=1):
    generator = np.random.default_rng(seed)
    signal = generator.exponential(10, (shape[0], rank)) @ generator.exponential(10, (rank, shape[1]))
    return signal + generator.normal(0, noise**0.5, shape)


@pytest.mark.parametrize("noise", [0.01, 2.5, 400.0])
@pytest.mark.parametrize("hidden", [0.0, 0.3, 0.5])
def test_strong_signals_do_not_reach_the_estimate(noise, hidden):
    """X's variance is about 1e5; missing entries cost a factor of two at the most where they are half of all."""
    X = strong(noise)
    seen = None if hidden == 0 else np.random.default_rng(2).random(X.shape) > hidden
    found = data_scale(X, 10, mask=seen).noise
    assert found == pytest.approx(noise, rel=0.2) if hidden == 0 else noise / 3 < found < max(3 * noise, 5.0)


def test_the_median_of_the_bulk_is_that_of_noise():
    noise = torch.randn(300, 150, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    squares = torch.linalg.svdvals(noise).square() / 300
    assert bulk_median(0.5) == pytest.approx(float(squares.median()), rel=0.02)
    assert bulk_median(1.0) == pytest.approx(0.6528, abs=1e-3)


def test_all_kinds_of_matrix_and_all_models_have_one_estimate(tmp_path):
    X = strong(2.5, (900, 30), 3)
    np.save(tmp_path / "x.npy", X)
    found = data_scale(X, 3).noise
    assert found == pytest.approx(2.5, rel=0.2)
    for other in (tmp_path / "x.npy", scipy.sparse.csr_array(X), torch.from_numpy(X)):
        assert data_scale(other, 3).noise == pytest.approx(found, rel=1e-9)
    for model in (ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian):
        assert model.for_data(X, 3).noise_scale == model.scaled_to(X, 8).noise_scale == pytest.approx(found)


def test_values_under_the_mask_do_not_leak_and_known_noise_is_divided_by():
    X = strong(2.5)
    seen = np.random.default_rng(2).random(X.shape) > 0.2
    assert data_scale(np.where(seen, X, np.nan), 10, mask=seen) == data_scale(np.where(seen, X, 1e9), 10, mask=seen)
    variance = 0.25 + np.arange(80) / 20
    signal = strong(0.0)
    noisy = signal + np.random.default_rng(3).normal(0, 1, X.shape) * np.sqrt(2.5 * variance)
    assert data_scale(ppnmf.as_matrix(noisy, noise=variance), 10).noise == pytest.approx(2.5, rel=0.3)


def test_data_without_noise_have_a_floor():
    X = strong(0.0)
    assert data_scale(X, 10).noise == pytest.approx(1e-9 * X.var(), rel=1e-6)
    assert data_scale(np.array([[1.0, 2.0]]), 1).noise <= 0.25
