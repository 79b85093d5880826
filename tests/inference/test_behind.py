"""Chains that fall far behind in the warm-up go on from the best one's state: which, once, said, and where a run was cut."""

import pytest
import torch

import ppnmf
from ppnmf.identified import diagnose
from ppnmf.inference import behind, length
from ppnmf.inference.clock import Clock
from ppnmf.models import ExponentialGaussian
from tests.scenarios import drawn, stopped

X = drawn(30, 20, 3, rate=0.3, noise=0.5)[0].abs()
MODEL = ExponentialGaussian(3, 0.3, 0.3)
PLAN = {"draws": 30, "warmup": 90, "chains": 3, "survey": 5, "seed": 4, "progress": False}


def fit(**options):
    return ppnmf.fit(MODEL, X, **{**PLAN, **options})


def same(a, b):
    return a.survey == b.survey and all(
        torch.equal(x, y)
        for x, y in zip([*a.draws.values(), a.stats["lp"]], [*b.draws.values(), b.stats["lp"]], strict=True)
    )


@pytest.fixture
def all_but_one(monkeypatch):
    """Every chain but the best counts as far behind."""
    monkeypatch.setattr(behind, "FAR", 0.0)
    monkeypatch.setattr(behind, "DEVIATIONS", 0.0)


# --- which ---


def halves(*log_mass, deviation=1.0):
    mass = torch.tensor(log_mass, dtype=torch.float64)
    return mass, torch.full_like(mass, deviation)


def test_those_are_behind_that_lie_below_by_more_than_halves_differ():
    anew, below = behind.judged(*halves([0.0, -3.0, -30.0], [1.0, -3.0, -31.0]))
    assert anew == [False, True, True] and below == [0.0, 3.5, 31.0]
    assert behind.judged(*halves([0.0, -3.0, -30.0], [5.0, -3.0, -31.0]))[0] == [False, False, True]  # 4 · 2.1
    assert behind.judged(*halves([0.0, -3.0, -30.0], [1.0, -3.0, -31.0], deviation=10.0))[0] == [False, False, True]
    assert behind.judged(*halves([0.0, -torch.inf], [0.0, -torch.inf]))[0] == [False, True]
    assert behind.judged(*halves([7.0], [8.0]))[0] == [False]


@pytest.mark.parametrize("warmup", [0, 1, 39, 40, 500, 100_000])
def test_the_sweeps_that_tell_are_the_latest_before_the_middle_of_the_warmup(warmup):
    found = behind.watched(warmup)
    if warmup < 40:
        assert found == ()
        return
    first, second = found
    assert second.stop == warmup // 2 and first.stop == second.start
    assert len(first) + len(second) == min(200, max(20, warmup // 8)) and len(second) - len(first) in (0, 1)


def test_a_short_survey_of_digits_ends_in_several_modes_and_the_chains_in_one(monkeypatch):
    digits = ppnmf.datasets.load("digits").X
    model = ExponentialGaussian.for_data(digits, 10)
    options = {"draws": 60, "warmup": 300, "seed": 3, "progress": False}
    found = ppnmf.fit(model, digits, **options)
    monkeypatch.setattr(behind, "FAR", torch.inf)
    left = ppnmf.fit(model, digits, **options)
    anew = torch.tensor(found.survey.anew)
    assert 0 < int(anew.sum()) < 4 and not any(left.survey.anew)
    rhat = [{q.name: q.rhat for q in diagnose(post).quantities}["lp"] for post in (found, left)]
    assert rhat[0] < 1.05 < 1.3 < rhat[1]
    assert torch.equal(found.stats["lp"][~anew], left.stats["lp"][~anew])
    assert f"In the warm-up {int(anew.sum())} of 4 chains were in a mode " in ppnmf.summary(found).sentence
    assert "In the warm-up" not in ppnmf.summary(left).sentence


# --- that they go on by themselves, and those without a survey as they were ---


def test_they_go_on_with_random_numbers_of_their_own(all_but_one):
    found = fit()
    assert sorted(found.survey.anew) == [False, True, True]
    assert not any(torch.equal(found.draws["W"][c, 0], found.draws["W"][c - 1, 0]) for c in range(3))
    assert found.select(chains=[2]).survey.anew == found.survey.anew[2:]


def test_each_takes_the_state_that_the_best_one_has_then(all_but_one, monkeypatch):
    stood = []
    caught_up = behind.caught_up

    def told(notes, state):
        after = caught_up(notes, state)
        stood.append((state, after))
        return after

    monkeypatch.setattr(behind, "caught_up", told)
    best = fit().survey.anew.index(False)
    ((before, after),) = stood
    assert before.sweep == after.sweep == PLAN["warmup"] // 2 + 1
    for site, values in after.params.items():
        assert all(torch.equal(values[c], before.params[site][best]) for c in range(3))


def test_without_a_survey_chains_are_left_alone(all_but_one):
    plain = {"init": "scaled", "survey": None}
    assert fit(**plain).survey is None and fit(**plain, until="agree", warmup=None, draws=400).survey is None
    assert fit(warmup=20).survey.anew == ()


# --- runs until chains agree ---


def test_draws_from_before_do_not_count_in_runs_until_chains_agree(all_but_one, monkeypatch):
    compared = []
    caught_up = behind.caught_up
    monkeypatch.setattr(behind, "caught_up", lambda *args: compared.append(1) or caught_up(*args))
    found = fit(until="agree", draws=400, warmup=None, target_ess=50)
    assert any(found.survey.anew) and found.attrs["warmup"] >= length.FIRST_LOOK
    compared.clear()
    monkeypatch.setattr(Clock, "is_past", lambda clock, share=1.0: share == 1 and bool(compared))
    late = fit(until="agree", draws=400, warmup=None, max_seconds=1e6)
    assert late.attrs["ended"] == "time" and late.attrs["warmup"] >= length.FIRST_LOOK and late.n_draws > 0


# --- cut short ---


@pytest.mark.parametrize("at", range(5, 13))
def test_a_run_cut_while_its_chains_are_compared_goes_on_to_the_same_bits(at, all_but_one, tmp_path, monkeypatch):
    monkeypatch.setattr("ppnmf.inference.length.sweeps_at_once", lambda X, K, chains: 9)
    monkeypatch.setattr("ppnmf.inference.survey.FULL", 30)
    where = tmp_path / "run"
    stopped(monkeypatch, at, lambda: fit(checkpoint=where))
    assert same(fit(resume=where), fit())
