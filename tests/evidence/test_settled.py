"""Chains that say where the modes are: how many starts, and which chains are kept."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.evidence import settled
from ppnmf.inference import beginning, icm, survey
from ppnmf.models import ExponentialGaussian, for_data
from tests.scenarios import drawn

X = as_matrix(drawn(30, 20, 3, rate=0.3, noise=0.5)[0].abs())
MODEL = ExponentialGaussian(3, 0.3, 0.3)


def test_chains_begin_at_climbs_and_at_gibbs_sweeps_and_those_of_light_modes_are_left_out(monkeypatch):
    begun, asked = [], []
    told, run = beginning.Beginning.without_record, settled._drawn
    monkeypatch.setattr(survey, "FULL", 30)

    def noted(self, clock, progress):
        found = told(self, clock, progress)
        begun.append((self.plan, found[0]))
        return found

    masses = torch.tensor([1.0, -299.0, -300.0, -5.0, -torch.inf, -1000.0, 0.0, -298.0], dtype=torch.float64)
    monkeypatch.setattr(beginning.Beginning, "without_record", noted)
    monkeypatch.setattr(settled, "_drawn", lambda *args: asked.append(args[2]["init"]) or run(*args))
    monkeypatch.setattr(settled, "Seen", SimpleNamespace(of=lambda *_: SimpleNamespace(log_mass=lambda *_: masses)))
    post = settled.weighed(MODEL, X, 20, 0, False)
    assert post.chains == 5 and post.n_draws == settled.LOOKS
    (climbs, first), (alone, second) = begun
    assert climbs.climb > icm.ORDINARY_SWEEPS == alone.climb and climbs.starts == alone.starts == 48
    assert torch.equal(asked[0]["W"], torch.cat([first["W"], second["W"]]))
    assert not torch.equal(first["W"], second["W"])


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
