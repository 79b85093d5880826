"""Permanents and drawn orders against all orders, one by one."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
import torch

from ppnmf.evidence import permanent
from ppnmf.evidence.permanent import log_permanents, stepped
from ppnmf.threads import single_threaded


def one_by_one(logs):
    K = logs.shape[-1]
    return {order: float(sum(logs[k, order[k]] for k in range(K))) for order in permutations(range(K))}


@pytest.mark.parametrize("K", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [1.0, 8.0, 30.0, 1e5])
def test_permanents_are_sums_over_all_orders(K, size):
    logs = size * np.random.default_rng(K).normal(size=(10, K, K))
    exact = [np.logaddexp.reduce(list(one_by_one(one).values())) for one in logs]
    found, counted = log_permanents(logs)
    assert counted
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-9)


def test_what_is_left_out_near_the_diagonal_is_nothing(K=12):
    """Blocks of four that are apart by e^-14 an entry: the permanent of each, and of each two, by all orders."""
    logs = np.random.default_rng(2).normal(size=(1, K, K))
    logs -= 14.0 * (np.arange(K)[:, None] // 4 != np.arange(K) // 4)
    exact = permanent_by_signs(np.exp(logs[0]))
    found, counted = log_permanents(logs)
    assert counted and found[0] == pytest.approx(math.log(exact), abs=1e-9)


def permanent_by_signs(A):
    """Ryser's sum over sets of columns (1963), in whole numbers of 2^-90: its terms cancel."""
    unit, K = 2**90, len(A)
    rows = [[int(value * unit) for value in row] for row in A]
    total = 0
    for S in range(1, 1 << K):
        columns = [l for l in range(K) if S >> l & 1]
        total += (-1) ** (K - len(columns)) * math.prod(sum(row[l] for l in columns) for row in rows)
    return float(Fraction(total, unit**K))


def test_equal_entries_have_all_orders():
    assert log_permanents(np.full((1, 14, 14), -700.0))[0][0] == pytest.approx(math.lgamma(15) - 700 * 14)


@pytest.mark.parametrize("to", [0.3, 1.0])
def test_orders_are_drawn_in_proportion(to, n=100_000):
    generator = np.random.default_rng(0)
    logs = 2 * generator.normal(size=(4, 4))
    logs[3, :3] = -900.0  # it stays
    logs[:3, 3] = -900.0
    _, places = stepped(np.broadcast_to(logs, (n, 4, 4)), 1.0, to, generator.random((n, 4)))
    counts = Counter(map(tuple, places.tolist()))
    shares = np.exp(to * np.array(list(one_by_one(logs).values())) - log_permanents(to * logs[None])[0][0])
    for order, share in zip(one_by_one(logs), shares, strict=True):
        assert abs(counts[order] / n - share) < 5 * math.sqrt(share / n) + 1e-12


@pytest.mark.parametrize("size", [0.1, 3.0, 40.0, 1e5])
def test_a_step_has_the_permanents_to_both_powers(size):
    generator = np.random.default_rng(3)
    logs = size * (generator.normal(size=(10, 7, 7)) + 2 * np.eye(7))
    values, places = stepped(logs, 0.8, 0.35, generator.random((10, 7)))
    for n, power in enumerate((0.8, 0.35)):
        np.testing.assert_allclose(values[:, n], log_permanents(power * logs)[0], rtol=1e-12, atol=1e-9)
    assert (np.sort(places, 1) == np.arange(7)).all()


def test_threads_change_no_bit(C=11, K=13):
    random = np.random.default_rng(5)
    logs, uniforms = random.normal(size=(C, K, K)), random.random((C, K))
    alone = stepped(logs, 0.9, 0.6, uniforms)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with single_threaded():
            together = stepped(logs, 0.9, 0.6, uniforms)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_blocks_that_are_too_large_are_cut_and_told_of(monkeypatch):
    generator = np.random.default_rng(1)
    logs = -30.0 + generator.normal(size=(1, 24, 24)) + 30 * np.eye(24)
    found, counted = log_permanents(logs)
    assert not counted
    assert found[0] == pytest.approx(float(np.trace(logs[0])), abs=1e-9)
    assert permanent.MOST < 24
