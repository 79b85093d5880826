"""Chains that R-hat alone would call different: in one mode and too short, or in several."""

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from scipy.signal import lfilter

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.crawling import crawling, explained
from ppnmf.diagnostics.modes import groups
from ppnmf.identified import diagnose
from ppnmf.models import ExponentialGaussian
from ppnmf.posterior import Posterior

CHAINS, LENGTH = 4, 500
N, D, K = 12, 9, 3


def slow(time, seed):
    """Draws (chain, draw) of an autoregression with an autocorrelation time, of mean 0 and variance 1."""
    kept = (time - 1) / (time + 1)
    noise = np.random.default_rng(seed).standard_normal((CHAINS, LENGTH))
    noise[:, 0] /= (1 - kept**2) ** 0.5
    return (1 - kept**2) ** 0.5 * lfilter([1], [1, -kept], noise, axis=1)


def rhat(draws):
    return float(array_stats.rhat(draws, chain_axis=0, draw_axis=1))


def posterior(crawl):
    """Independent draws of everything but the size of the strongest component, which follows `crawl` (chain, draw)."""
    generator = torch.Generator().manual_seed(0)
    random = lambda *size: torch.rand(CHAINS, LENGTH, *size, generator=generator, dtype=torch.float64)
    draws = {"W": 1 + random(N, K), "H": 1 + random(K, D), "sigma2": 1 + random()}
    draws["W"] *= torch.tensor([1.0, 2.0, 4.0])
    draws["W"][..., 2] *= 1 + 0.1 * torch.from_numpy(crawl)[..., None]
    X = as_matrix(draws["W"][0, 0] @ draws["H"][0, 0])
    return Posterior(draws=draws, stats={"lp": random()}, model=ExponentialGaussian(K), X=X, method="gibbs", seed=0)


@pytest.fixture(scope="module")
def crawl():
    """Of an autocorrelation time of 20, the first whose R-hat is too great for chains that agree."""
    return next(draws for draws in (slow(20, seed) for seed in range(100)) if rhat(draws) > 1.08)


def test_chance_explains_the_r_hat_of_chains_that_agree_and_not_that_of_chains_two_deviations_apart():
    seen = []
    for seed in range(30):
        draws = slow(20, seed)
        seen.append(rhat(draws))
        assert explained(seen[-1], draws)
        apart = slow(5, seed) + np.array([[0], [0], [0], [2.0]])
        assert not explained(rhat(apart), apart)
    assert 1 < sum(figure > 1.05 for figure in seen) < 17  # of 30, where one in five or so is expected


def test_nothing_explains_chains_that_do_not_move():
    assert not explained(1.1, np.zeros((4, 100))) and not explained(1.1, np.full((4, 100), np.nan))


def test_slow_chains_of_one_mode_are_said_to_be_too_short(crawl):
    post = posterior(crawl)
    found = diagnose(post)
    short = crawling(post, found)
    assert short.name == "strength[0]" and short.rhat == found.worst_rhat > 1.05
    assert short.ess == min(found.worst.ess_bulk, found.worst.ess_tail) < 200
    assert short.draws >= 400 * LENGTH / short.ess > short.draws * 0.9
    said = ppnmf.summary(post)
    assert said.agree is False and "The 4 chains are in one mode but too short for strength[0]" in said.sentence
    assert f"about {short.draws} draws of each chain instead of 500" in said.sentence


def test_a_run_as_long_as_was_said_agrees(crawl):
    wanted = crawling(posterior(crawl), diagnose(posterior(crawl))).draws
    longer = [np.hstack([slow(20, 100 * seed + part) for part in range(wanted // LENGTH)]) for seed in range(5)]
    assert np.median([rhat(draws) for draws in longer]) < 1.02


def test_chains_whose_quick_draws_lie_apart_do_not_agree():
    post = posterior(slow(3, 0) + np.array([[0], [0], [0], [1.0]]))
    found = diagnose(post)
    assert 1.05 < found.worst_rhat < 1.2 and len(groups(post)) == 1, "neither R-hat nor the components tell"
    assert crawling(post, found) is None and "do not agree" in ppnmf.summary(post).sentence


def test_chains_in_several_modes_do_not_agree_however_slow(crawl, monkeypatch):
    monkeypatch.setattr("ppnmf.diagnostics.crawling.groups", lambda post, n, seed: ((0, 1, 2), (3,)))
    post = posterior(crawl)
    assert crawling(post, diagnose(post)) is None and "do not agree" in ppnmf.summary(post).sentence


@pytest.mark.parametrize("shift", [0.4, 3.0])
def test_chains_whose_log_joints_lie_apart_do_not_agree(crawl, shift):
    post = posterior(crawl)
    post.stats["lp"][3] += shift
    assert crawling(post, diagnose(post)) is None and "do not agree" in ppnmf.summary(post).sentence
