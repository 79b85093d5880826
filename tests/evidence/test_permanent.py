"""Permanents and drawn orders against all orders, one by one."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from ppnmf.evidence import permanent
from ppnmf.evidence.permanent import drawn_orders, log_permanents


def one_by_one(logs):
    K = logs.shape[-1]
    return {order: float(sum(logs[k, order[k]] for k in range(K))) for order in permutations(range(K))}


@pytest.mark.parametrize("K", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [1.0, 30.0, 1e5])
def test_permanents_are_sums_over_all_orders(K, size):
    logs = size * np.random.default_rng(K).normal(size=(10, K, K))
    exact = [np.logaddexp.reduce(list(one_by_one(one).values())) for one in logs]
    found, counted = log_permanents(logs)
    assert counted
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-9)


def test_equal_entries_have_all_orders():
    assert log_permanents(np.full((1, 14, 14), -700.0))[0][0] == pytest.approx(math.lgamma(15) - 700 * 14)


def test_orders_are_drawn_in_proportion(n=100_000):
    generator = np.random.default_rng(0)
    logs = 2 * generator.normal(size=(4, 4))
    logs[3, :3] = -500.0  # it stays
    logs[:3, 3] = -500.0
    counts = Counter(map(tuple, drawn_orders(np.broadcast_to(logs, (n, 4, 4)), generator.random((n, 4))).tolist()))
    shares = np.exp(np.array(list(one_by_one(logs).values())) - log_permanents(logs[None])[0][0])
    for order, share in zip(one_by_one(logs), shares, strict=True):
        assert abs(counts[order] / n - share) < 5 * math.sqrt(share / n) + 1e-12


def test_blocks_that_are_too_large_are_cut_and_told_of(monkeypatch):
    generator = np.random.default_rng(1)
    logs = -30.0 + generator.normal(size=(1, 24, 24)) + 30 * np.eye(24)
    found, counted = log_permanents(logs)
    assert not counted
    assert found[0] == pytest.approx(float(np.trace(logs[0])), abs=1e-9)
    assert permanent.MOST < 24
