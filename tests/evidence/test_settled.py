"""Chains that say where the modes are: how many starts, and which chains are kept."""

from __future__ import annotations

import pytest

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.evidence import settled
from ppnmf.inference import beginning
from ppnmf.models import ExponentialGaussian, for_data
from tests.scenarios import drawn

X = as_matrix(drawn(30, 20, 3, rate=0.3, noise=0.5)[0].abs())
MODEL = ExponentialGaussian(3, 0.3, 0.3)


def test_chains_of_modes_that_weigh_nothing_are_left_out(monkeypatch):
    begun = []
    told = beginning.Beginning.without_record

    def lighter(self, clock, progress):
        params, facts = told(self, clock, progress)
        found = facts["survey"]
        below = {start: 0.0 if n == 0 else 199.0 if n == 5 else 201.0 for n, start in enumerate(found["chosen"])}
        begun.append(params["W"][[0, 5]])
        return params, {"survey": {**found, "below": [below.get(start, 500.0) for start in range(96)]}}

    monkeypatch.setattr(beginning.Beginning, "without_record", lighter)
    monkeypatch.setattr("ppnmf.inference.survey.FULL", 30)
    drawn_from = []
    run = settled._drawn
    monkeypatch.setattr(settled, "_drawn", lambda *args: drawn_from.append(args[2]) or run(*args))
    post = settled.weighed(MODEL, X, 20, 0, False)
    assert post.chains == 2 and post.n_draws == settled.LOOKS
    assert (drawn_from[0]["init"]["W"] == begun[0]).all()


def test_without_a_warmup_or_room_for_more_starts_there_are_four_chains(monkeypatch):
    assert settled.weighed(MODEL, X, 0, 0, False).chains == 4
    monkeypatch.setattr(settled, "LARGEST", 8 * (3 * 50 + 1))
    assert settled.weighed(MODEL, X, 20, 0, False).chains == 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_heaviest_mode_of_digits_is_among_those_of_the_chains(seed):
    """At rank 8 the draws of the one that has -305 653 lie 450 nats below those of the highest."""
    digits = as_matrix(ppnmf.datasets.load("digits").X)
    post = settled.weighed(for_data("exponential_gaussian", digits.values, 8), digits, 500, seed, False)
    lp = post.stats["lp"].mean(1)
    assert -299_970 < float(lp[(lp + 299_900).abs().argmin()]) < -299_850
