"""Chains that say where the modes are: what is told of masses by draws, and which chains are left."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.evidence import settled
from ppnmf.inference import gibbs
from ppnmf.models import ExponentialGaussian, for_data
from tests.evidence.exact import rank_one
from tests.scenarios import drawn


def test_draws_tell_the_evidence_but_for_the_divergence_of_what_has_their_moments():
    """In three dimensions the log evidence, by quadrature, and at rank 1 little more: the ridge is one direction of 14."""
    X, model = drawn(10, 3, 1, seed=13)[0], ExponentialGaussian(1, noise_shape=3.0, noise_scale=3.0)
    post = gibbs.run(model, as_matrix(X), draws=2000, thin=5, warmup=200, chains=2, progress=False)
    exact = rank_one(model, X)
    for log_mass in settled._log_masses(post).tolist():
        assert exact < log_mass < exact + 3


def test_the_line_along_which_entries_went_is_no_spread():
    generator = torch.Generator().manual_seed(0)
    still = 5 + 0.1 * torch.randn(50, 4, 3, generator=generator, dtype=torch.float64)
    going = still + torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None, None] * torch.tensor([3.0, 0.0, -2.0])
    steady = settled._steady({"W": going})["W"]
    torch.testing.assert_close(steady, settled._steady({"W": still})["W"])
    torch.testing.assert_close(steady.mean(0), still.mean(0))
    assert (steady.std(0) < 1.05 * still.std(0)).all() and going.std(0)[:, 0].min() > 1


def post_with(lp, masses, monkeypatch):
    """A posterior of so many chains whose draws are their numbers."""
    X = drawn(6, 5, 2)[0]
    post = gibbs.run(ExponentialGaussian(2), as_matrix(X), draws=lp.shape[1], warmup=1, chains=len(lp), progress=False)
    numbers = torch.arange(len(lp), dtype=torch.float64)
    draws = {site: torch.zeros_like(v) + numbers.view(-1, *[1] * (v.ndim - 1)) for site, v in post.draws.items()}
    monkeypatch.setattr(settled, "_log_masses", lambda post: masses[post.draws["sigma2"][:, 0].long()])
    return replace(post, draws=draws, stats={"lp": lp})


def test_chains_of_modes_that_weigh_nothing_are_left_out_and_none_for_one_that_is_on_its_way(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    lp = torch.randn(12, 50, generator=generator, dtype=torch.float64)
    lp[2] += torch.linspace(0, 500, 50)  # it looks the heaviest
    masses = torch.full((12,), -1000.0, dtype=torch.float64)
    masses[:6] = torch.tensor([-100.0, -150.0, 300.0, -399.0, -401.0, -800.0])
    post = post_with(lp, masses, monkeypatch)

    def chosen(model, X, options, seed, progress):
        first = isinstance(options["init"], str)
        own = range(12) if first else options["init"].draws["sigma2"][:, -1].long().tolist()
        return post.select(chains=list(own))

    monkeypatch.setattr(settled, "_drawn", chosen)
    left = settled.weighed(post.model, post.X, 100, 0, False)
    assert left.draws["sigma2"][:, 0].tolist() == [2.0, 0.0, 1.0, 3.0]


@pytest.mark.slow
def test_the_heaviest_mode_of_digits_is_not_the_highest():
    """At rank 8 stepping stones give the one -305 653 and others -305 847 and -306 018."""
    X = as_matrix(ppnmf.datasets.load("digits").X)
    model = for_data("exponential_gaussian", X.values, 8)
    by_mass, by_height = (find(model, X, 500, 0, False) for find in (settled.weighed, settled.settled))
    heavy, high = (settled._log_masses(post) for post in (by_mass, by_height))
    assert float(heavy.max()) > float(high.max()) + 100
    of_heaviest = by_mass.stats["lp"][heavy.argmax()]
    assert float(of_heaviest.mean()) < float(by_height.stats["lp"].mean(1).max()) - 150
