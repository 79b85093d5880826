"""Drawn problems."""

import pytest
import torch

from ppnmf.data import toy


def test_a_toy_is_its_factors_plus_noise_of_the_given_variance():
    X, W, H = toy.draw(300, 200, rank=4, rate=0.5, noise=2.5, seed=1)
    residual = X - W @ H
    n = residual.numel()
    assert abs(float(residual.var()) - 2.5) < 4 * 2.5 * (2 / n) ** 0.5
    for factor in (W, H):
        assert bool((factor > 0).all())
        assert abs(float(factor.mean()) - 2.0) < 4 * 2.0 / factor.numel() ** 0.5  # mean and sd of Exponential(0.5)


def test_noise_is_independent_of_the_factors():
    X, W, H = toy.draw(400, 300, rank=1, seed=2)
    residual = (X - W @ H).flatten()
    correlation = torch.corrcoef(torch.stack([residual, (W @ H).flatten()]))[0, 1]
    assert abs(float(correlation)) < 4 / residual.numel() ** 0.5


def test_a_longer_toy_begins_with_the_shorter_one():
    short, long = toy.draw(10, 6, rank=2), toy.draw(20, 6, rank=2)
    assert torch.equal(short.X, long.X[:10])
    assert not torch.equal(short.X, toy.draw(10, 6, rank=2, seed=1).X)


def test_names_say_the_shape_and_the_rank():
    assert toy.named("toy60x40").W.shape == (60, 3)
    assert toy.named("toy6x4x2").W.shape == (6, 2)
    assert toy.named("toys") is None


@pytest.mark.parametrize("bad", [{"N": 0}, {"rank": 0}, {"rate": 0.0}, {"noise": -1.0}])
def test_bad_sizes_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        toy.draw(**({"N": 5, "D": 4, "rank": 2} | bad))
