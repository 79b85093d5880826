"""Runs that go on until their chains agree: when they end, what they keep, and that they go on where they were cut."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ppnmf
from ppnmf.identified import diagnose
from ppnmf.inference import length, record
from ppnmf.models import ExponentialGaussian
from tests.diagnostics import test_modes as modes
from tests.scenarios import drawn, stopped

X = drawn(30, 20, 3, rate=0.3, noise=0.5)[0].abs()
MODEL = ExponentialGaussian(3, 0.3, 0.3)
PLAN = {"until": "agree", "draws": 400, "target_ess": 300, "chains": 4, "init": "scaled", "seed": 4, "progress": False}


def fit(X=X, **options):
    return ppnmf.fit(MODEL, X, **{**PLAN, **options})


def same(a, b):
    return a.attrs == b.attrs and all(
        torch.equal(x, y)
        for x, y in zip([*a.draws.values(), a.stats["lp"]], [*b.draws.values(), b.stats["lp"]], strict=True)
    )


@pytest.fixture(scope="module", autouse=True)
def longer_steps_pay():
    """On data as small as these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExponentialGaussian, "longer_steps", lambda self, params, X: ("W",))
        yield


@pytest.fixture(scope="module")
def agreed():
    return fit()


def test_it_ends_when_all_that_is_identified_agrees_and_not_before(agreed):
    found = diagnose(agreed)
    assert agreed.attrs["ended"] == "agree" and agreed.attrs["interrupted"] is False
    assert found.worst_rhat <= 1.01 and found.least_ess >= 300 and found.least_tail_ess >= 300
    asked_more = fit(target_ess=600)
    assert asked_more.attrs["sweeps"] >= agreed.attrs["sweeps"] and diagnose(asked_more).least_ess >= 600
    looks = [length._next_look(agreed.attrs["sweeps"] // factor) for factor in (1, 2)]
    assert agreed.attrs["sweeps"] == looks[0] > looks[1]


def test_its_draws_are_those_of_a_run_of_known_length(monkeypatch):
    """Whose warm-up and thinning are those that it found, but for the longer steps that a run of known length does not take.

    Every second draw was left out a few times on the way.
    """
    monkeypatch.setattr(ExponentialGaussian, "longer_steps", lambda self, params, X: ())
    monkeypatch.setattr(ExponentialGaussian, "can_reflect", lambda self: False)
    agreed = fit()
    assert agreed.attrs["collapsed"] == [] and agreed.attrs["fresh"] == 1
    assert agreed.attrs["thin"] > 1
    plan = {name: PLAN[name] for name in ("chains", "init", "seed", "progress")}
    plan |= {name: agreed.attrs[name] for name in ("warmup", "thin")}
    whole = ppnmf.fit(MODEL, X, draws=agreed.n_draws, **plan)
    assert all(torch.equal(whole.draws[site], agreed.draws[site]) for site in whole.draws)
    assert torch.equal(whole.stats["lp"], agreed.stats["lp"])


def test_it_can_be_extended_with_the_moves_that_it_had(agreed):
    assert agreed.attrs["collapsed"] == ["W"] and agreed.attrs["fresh"] == length.FRESH
    at_once = ppnmf.extend(agreed, 40, progress=False)
    in_parts = ppnmf.extend(ppnmf.extend(agreed, 15, progress=False), 25, progress=False)
    assert same(at_once, in_parts) and at_once.attrs["collapsed"] == ["W"]
    for other in ({"collapsed": []}, {"fresh": 1}):
        without = ppnmf.extend(replace(agreed, attrs={**agreed.attrs, **other}), 40, progress=False)
        assert not torch.equal(without.draws["W"][:, -1], at_once.draws["W"][:, -1])


FIXED = {"draws": 20, "warmup": 400, "chains": 2, "seed": 4, "moves": "collapsed", "progress": False}


def of_known_length(X=X, model=MODEL, **options):
    return ppnmf.fit(model, X, **{**FIXED, **options})


@pytest.mark.parametrize("start", [{"init": "scaled"}, {"survey": 4}], ids=["plain", "surveyed"])
def test_a_run_of_known_length_has_the_longer_steps_from_the_middle_of_its_warmup(start, monkeypatch):
    longer = of_known_length(**start)
    plain = of_known_length(**start, moves=True)
    assert longer.attrs["collapsed"] == ["W"] and "collapsed" not in plain.attrs
    assert not torch.equal(longer.draws["W"], plain.draws["W"])
    assert longer.attrs["fresh"] == length.FRESH and "fresh" not in plain.attrs
    monkeypatch.setattr(ExponentialGaussian, "longer_steps", lambda self, params, X: ())
    monkeypatch.setattr(ExponentialGaussian, "can_reflect", lambda self: False)
    assert torch.equal(of_known_length(**start).draws["W"], plain.draws["W"]), "where they do not pay nothing changes"


def test_the_longer_steps_of_a_known_length_go_on_when_it_is_resumed_or_extended(tmp_path, monkeypatch):
    whole = of_known_length(draws=30)
    assert same(ppnmf.extend(of_known_length(draws=12), 18, progress=False), whole)
    for at in (150, 200, 300):
        where = tmp_path / str(at)
        monkeypatch.setattr("ppnmf.inference.length.sweeps_at_once", lambda X, K, chains: 5)
        stopped(monkeypatch, at // 5, lambda where=where: of_known_length(draws=30, checkpoint=where))
        assert same(of_known_length(draws=30, resume=where), whole)


def test_a_model_without_longer_steps_says_so():
    with pytest.raises(TypeError, match="moves is 'collapsed'; gamma_poisson has no shears with a row integrated out"):
        of_known_length(X=X.round(), model=ppnmf.models.GammaPoisson(2))


@pytest.mark.parametrize("thin", [1, 3])
@pytest.mark.parametrize("draws", [200, 201, 333])
def test_room_that_is_full_is_halved_and_no_draw_is_lost_or_moved(draws, thin, monkeypatch):
    monkeypatch.setattr(ExponentialGaussian, "longer_steps", lambda self, params, X: ())
    monkeypatch.setattr(ExponentialGaussian, "can_reflect", lambda self: False)
    monkeypatch.setattr(length, "_verdict", lambda chains, goal, before: (None, before))
    monkeypatch.setattr(length.Clock, "is_past", lambda self, share=1.0: chains_done[0] >= 1500)
    chains_done = [0]
    advance = length.Chains.advance

    def counted(self, state, kept, number):
        after = advance(self, state, kept, number)
        chains_done[0] = after.sweep - 1
        assert self.recorder.done <= draws
        return after

    monkeypatch.setattr(length.Chains, "advance", counted)
    monkeypatch.setattr(length, "LEAST_KEPT", 1)
    post = fit(draws=draws, thin=thin, warmup=7, chains=1, target_ess=1)
    assert post.attrs["ended"] == "time" and post.attrs["thin"] >= 4
    plan = {name: post.attrs[name] for name in ("warmup", "thin")}
    whole = ppnmf.fit(MODEL, X, draws=post.n_draws, chains=1, init="scaled", seed=4, progress=False, **plan)
    assert torch.equal(whole.draws["W"], post.draws["W"]) and torch.equal(whole.stats["lp"], post.stats["lp"])


def test_chains_in_different_modes_go_on_until_the_time_is_up_and_the_summary_says_so():
    """Two blocks of which one component follows one, and cells between them that keep it there."""
    X, noise = modes.blocks()
    post = ppnmf.fit(modes.MODEL, X, noise=noise, **{**PLAN, "init": modes.starts()}, max_seconds=2.0)
    assert post.attrs["ended"] == "time" and post.attrs["max_seconds"] == 2.0
    said = ppnmf.summary(post).sentence
    assert "do not agree" in said and "The time, 2 s, was up after " in said
    assert post.timings["total"] < 10


def test_the_summary_says_that_it_ended_by_agreement(agreed, tmp_path):
    back = ppnmf.Posterior.load(agreed.save(tmp_path / "fit.nc"))
    assert f"The run ended after {agreed.attrs['sweeps']} sweeps of each chain, when there were R-hat <= 1.01 and " in (
        ppnmf.summary(back).sentence
    )


def test_it_begins_with_a_full_survey_which_half_of_the_time_may_end():
    post = fit(init="survey")
    assert post.survey.starts == 24 and max(post.survey.sweeps) > 100 and post.attrs["ended"] == "agree"
    hurried = fit(init="survey", max_seconds=1e-3)
    assert hurried.attrs["ended"] == "time" and hurried.survey.starts == 24 and max(hurried.survey.sweeps) == 0
    assert hurried.survey.reached == hurried.survey.climbed and all(np.isfinite(hurried.survey.below))
    order = np.argsort([-level for level in hurried.survey.climbed], kind="stable")
    assert hurried.survey.chosen == tuple(order[:4])


def test_rows_of_a_process_group_are_judged_too(agreed):
    found = fit(X=ppnmf.shard(X))
    assert found.attrs["ended"] == "agree" and diagnose(found).worst_rhat <= 1.01


# --- cut short ---


def cut(monkeypatch, at, where, error=KeyboardInterrupt):
    """A run that ends by an exception once the state before sweep `at` has been told."""
    save = record.Recorder.save

    def stopping(self, state):
        save(self, state)
        if state.sweep >= at:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(record.Recorder, "save", stopping)
        return fit(checkpoint=where, resume=where, every=40)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [30, 201, 260, 401, 450, 640])
def test_a_run_that_was_cut_goes_on_to_the_same_bits(at, agreed, tmp_path, monkeypatch):
    where = tmp_path / "run"
    stopped = cut(monkeypatch, at, where)
    assert stopped.attrs["ended"] == "interrupted" and stopped.attrs["interrupted"] is True
    with monkeypatch.context() as patch:
        patch.setattr(record.Recorder, "__exit__", lambda self, *error: self.close())  # no last word
        with pytest.raises(Killed):
            cut(monkeypatch, at + 90, where, Killed)
    assert same(fit(resume=where, every=33), agreed)
    assert len(list(where.glob("draws-*"))) <= 40


@pytest.mark.parametrize("after", [0, 1, 57, 199])
def test_a_halving_that_is_interrupted_is_ended(after, agreed, tmp_path, monkeypatch):
    where, write = tmp_path / "run", record.Memory.write
    reached = []

    def interrupted(self, first, values):
        write(self, first, values)
        if first == after and 400 in reached:
            reached.clear()
            raise KeyboardInterrupt
        reached.append(first + values["lp"].shape[1])

    with monkeypatch.context() as patch:
        patch.setattr(record.Memory, "write", interrupted)
        stopped = fit(checkpoint=where, every=1000)
    assert stopped.attrs["thin"] == 2 and stopped.n_draws == 100
    assert same(fit(resume=where), agreed)


def test_more_time_may_be_asked_for(tmp_path):
    hurried = fit(checkpoint=tmp_path / "run", max_seconds=1e-3)
    assert hurried.attrs["ended"] == "time"
    assert fit(resume=tmp_path / "run", max_seconds=100).attrs["ended"] == "agree"
    with pytest.raises(ValueError, match="begun with draws=400, and this run has 300"):
        fit(resume=tmp_path / "run", draws=300)


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"until": "agre"}, r"until is 'agre' \(did you mean 'agree'\?\)"),
        ({"until": None}, "target_ess is 300 and until is not given: give until='agree' too"),
        ({"until": None, "target_ess": None, "max_seconds": 5}, "max_seconds is 5 and until is not given"),
        ({"max_seconds": 0}, "max_seconds is 0; it must be a positive number"),
        ({"target_ess": -1}, "target_ess is -1; it must be a positive number"),
        ({"target_ess": 900}, r"target_ess is 900, and 4 chain\(s\) keep 1600 draws at most: raise draws to 450"),
        ({"draws": 50}, r"draws is 50; with until='agree' so many are kept at most, and 4 chain\(s\) need 250"),
        ({"store": "x.zarr"}, "thins draws that are kept, and those of a store stay: leave store out"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_does_not_go_together_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(**options)
