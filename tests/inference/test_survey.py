"""The survey of starts: it finds what single starts miss, costs what it says, and goes on where it was cut."""

import numpy as np
import pytest
import scipy.sparse
import torch

import ppnmf
from ppnmf.data import toy
from ppnmf.data.matrix import as_matrix
from ppnmf.inference import survey
from ppnmf.inference.clock import Clock
from ppnmf.inference.mass import Seen
from ppnmf.matching import apart, in_order
from ppnmf.models import ExponentialGaussian
from tests.scenarios import drawn, stopped

X = drawn(30, 20, 3, rate=0.3, noise=0.5)[0].abs()
MASK = (torch.arange(600) % 7 != 3).reshape(30, 20)
MODEL = ExponentialGaussian(3, 0.3, 0.3)
PLAN = {"draws": 4, "warmup": 3, "chains": 2, "seed": 4, "progress": False}


@pytest.fixture
def short(monkeypatch):
    """Surveys of 30 sweeps a start."""
    monkeypatch.setattr(survey, "FULL", 30)


def fit(X=X, **options):
    return ppnmf.fit(MODEL, X, **{**PLAN, "survey": 6, **options})


def same(a, b):
    return a.survey == b.survey and all(
        torch.equal(x, y)
        for x, y in zip([*a.draws.values(), a.stats["lp"]], [*b.draws.values(), b.stats["lp"]], strict=True)
    )


# --- what it finds ---


def test_chains_begin_in_the_best_mode_of_digits_where_single_starts_do_not():
    digits = ppnmf.datasets.load("digits").X[::4]
    model = ExponentialGaussian.for_data(digits, 10)
    options = {"draws": 30, "warmup": 170, "chains": 4, "seed": 0, "progress": False}
    level = {how: ppnmf.fit(model, digits, **own, **options).stats["lp"].mean(1) for how, own in STARTS.items()}
    best = max(float(values.max()) for values in level.values())
    spread = 4 * (model.rank * sum(digits.shape) / 2) ** 0.5  # of a log joint within a mode, widely: 200 nats
    assert float((best - level["survey"]).max()) < spread < 2 * spread < float((best - level["scaled"]).max())


STARTS = {"survey": {"survey": 24}, "scaled": {"init": "scaled"}}


def test_the_heavy_mode_of_digits_is_found_and_not_the_high_one(monkeypatch):
    """At rank 8 stepping stones give the one -305 653 and the other -306 017, whose draws lie 450 higher in log joint."""
    digits = ppnmf.datasets.load("digits").X
    model = ExponentialGaussian.for_data(digits, 8)
    fit = lambda: ppnmf.fit(model, digits, draws=50, warmup=100, survey=24, chains=2, seed=6, progress=False)
    heavy = fit()
    monkeypatch.setattr("ppnmf.inference.mass.FEWEST", 10**9)  # the log joint alone counts
    high = fit()
    masses = []
    monkeypatch.undo()
    for post in (heavy, high):
        masses.append(Seen.of(post.draws, post.stats["lp"]).log_mass(model, post.X))
    assert float(masses[0].min()) > float(masses[1].max()) + 100
    assert float(high.stats["lp"].mean(1).min()) > float(heavy.stats["lp"].mean(1).max()) + 200


def test_every_other_start_of_a_full_survey_has_gibbs_sweeps_in_place_of_a_climb():
    plan = survey.planned(MODEL, as_matrix(X), 2, None, 7)
    assert plan.climbing == [True, False, True, False, True, False, True]
    assert all(survey.planned(MODEL, as_matrix(X), 4, 500, None).climbing)
    climbed = torch.tensor(fit(survey=7).survey.climbed)
    of_draws = climbed[[1, 3, 5]]  # a typical draw lies below a mode by half the number of parameters, 75 nats, about
    assert 30 < float(climbed.max() - of_draws.max()) < float(climbed.max() - of_draws.min()) < 200


def test_the_chosen_are_different_starts_and_the_best_of_the_last_round():
    found = fit(survey=12, chains=3).survey
    assert found.starts == 12 and len(set(found.chosen)) == 3
    stayed = [s for s in range(12) if found.sweeps[s] == max(found.sweeps)]
    assert list(found.chosen) == sorted(stayed, key=lambda s: -found.reached[s])[:3]
    assert all(found.apart[s] == 0 and found.here[s] for s in found.chosen)
    assert found.below[found.chosen[0]] == 0 and min(found.below) == 0


def test_those_that_fall_behind_are_the_worse_half():
    plan = survey.Plan(8, 2, 12, ((8, 4), (4, 8)))
    stream = survey.streams(0, plan)
    rounds = []
    params = survey.begin(MODEL, as_matrix(X), plan, stream)
    told = lambda at: rounds.append(survey._read(at.params))
    survey.run(MODEL, as_matrix(X), plan, stream, params, told, Clock(as_matrix(X), 0.0, None), id)
    first = next(field for field in rounds if field.done == 16)
    last = rounds[-1]
    left = set(last.running.tolist())
    assert len(left) == 4
    out = [s for s in range(8) if s not in left]
    assert min(first.reached[s] for s in left) >= max(first.reached[s] for s in out)
    assert last.done == plan.total == 24 and last.sweeps.tolist() == [12 if s in left else 4 for s in range(8)]


def test_a_start_counts_as_here_when_its_components_are_those_of_a_chain():
    """Data of two equal solutions: three bumps of which two are shared in one of two ways."""
    found = fit(X=toy.draw(60, 40, rank=3, noise=0.05, seed=2).X.clamp(min=0), survey=8).survey
    assert all(found.here) and max(found.apart) < found.near and not found.left_out
    assert "8 ended in the mode or modes of the chains." in str(found)


def test_distances_see_neither_order_nor_scale():
    generator = torch.Generator().manual_seed(0)
    W, H = (torch.rand(*shape, generator=generator, dtype=torch.float64) for shape in ((4, 9, 3), (4, 3, 7)))
    size = torch.tensor([0.1, 3.0, 7.0], dtype=torch.float64)
    turned = in_order(W * size, H / size[:, None], torch.tensor([[2, 0, 1]]).expand(4, 3))
    for s in range(4):
        found = apart(*turned, W[s], H[s])
        assert float(found[s]) < 1e-12
        assert all(float(found[other]) > 0.01 for other in range(4) if other != s)
    one = apart(W[:1, :, :1], H[:1, :1], W[1, :, :1], H[1, :1])
    there = W[1, :, :1] @ H[1, :1]
    torch.testing.assert_close(one[0], (W[0, :, :1] @ H[0, :1] - there).square().sum() / there.square().sum())


# --- what it costs ---


def test_long_climbs_end_where_half_of_them_gain_no_more(monkeypatch):
    monkeypatch.setattr("ppnmf.gaussian.ascent.OPERATIONS_AT_ONCE", 1e4)  # some sweeps at a time
    plan = survey.planned(MODEL, as_matrix(X), 2, None, 6)
    assert plan.climb == 300 and plan.level > 0
    reached = {}
    for level in (survey.LEVEL, 0.0):
        monkeypatch.setattr(survey, "LEVEL", level)
        looks = []
        told = lambda at, looks=looks: looks.append(survey._read(at.params))
        begun = survey.begin(MODEL, as_matrix(X), plan, survey.streams(0, plan))
        survey.run(MODEL, as_matrix(X), plan, survey.streams(0, plan), begun, told, Clock(as_matrix(X), 0.0, None), id)
        climbs = [field for field in looks if field.done <= plan.climb]
        reached[level] = (len(climbs), climbs[-1].lp)
    (few, there), (all_of_them, end) = reached.values()
    assert few < all_of_them == -(-(plan.climb - 10) // 5)
    assert float((end - there).median()) < 1


def test_a_survey_within_a_budget_climbs_its_whole_way():
    plan = survey.planned(MODEL, as_matrix(X), 4, 500, None)
    assert plan.climb == 16 and plan.level == 0.0


@pytest.mark.parametrize("chains", [1, 2, 4, 8])
@pytest.mark.parametrize("warmup", [0, 10, 60, 300, 1000, 5000])
def test_it_takes_a_fifth_of_a_run_at_most(chains, warmup):
    plan = survey.planned(MODEL, as_matrix(X), chains, warmup, None)
    if plan is None:
        assert chains * warmup * survey.SHARE < survey.LEAST * (chains + 1)
        return
    spent = plan.starts * plan.climb + sum(count * sweeps for count, sweeps in plan.rounds)
    assert spent <= 2 * warmup * chains / 5 and plan.starts > chains
    assert plan.starts == max(24, 6 * chains) or plan.starts == 0.4 * warmup * chains // 20


def test_short_runs_have_none_and_start_as_they_did():
    plain = ppnmf.fit(MODEL, X, init="scaled", **PLAN)
    assert plain.survey is None
    assert same(plain, ppnmf.fit(MODEL, X, **PLAN)) and same(plain, fit(survey=0))


def test_huge_factors_have_fewer_starts(monkeypatch):
    monkeypatch.setattr(survey, "LARGEST", 8 * (3 * 50 + 1))
    assert survey.planned(MODEL, as_matrix(X), 4, None, None).starts == 8
    assert survey.planned(MODEL, as_matrix(X), 8, None, None) is None
    assert survey.planned(MODEL, as_matrix(X), 4, None, 20).starts == 20


# --- that it is the same whoever does it, and every kind of X ---


def test_it_does_not_depend_on_the_number_of_threads(short, monkeypatch):
    monkeypatch.setattr("ppnmf.data.dense.BLOCK_ENTRIES", 20 * 7)
    monkeypatch.setattr("ppnmf.threads.WORTH_A_THREAD", 0)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append([fit(), fit(mask=MASK)])
    finally:
        torch.set_num_threads(before)
    assert all(same(one, other) for other in found[1:] for one, other in zip(found[0], other, strict=True))


def test_another_seed_has_other_starts_and_chains_have_numbers_of_their_own(short):
    one, two = fit(), fit(seed=5)
    assert set(one.survey.reached).isdisjoint(two.survey.reached)
    assert not torch.equal(one.draws["W"][0], one.draws["W"][1])


@pytest.mark.parametrize("kind", ["masked", "sparse", "stored", "blocked", "single precision", "noisy", "sharded"])
def test_every_kind_of_x_can_be_surveyed(kind, short, tmp_path):
    zeros = np.where(np.random.default_rng(0).random(X.shape) > 0.5, X.numpy(), 0.0)
    np.save(tmp_path / "x.npy", X.numpy())
    kinds = {
        "masked": lambda: as_matrix(X, MASK),
        "sparse": lambda: as_matrix(scipy.sparse.csr_array(zeros)),
        "stored": lambda: as_matrix(scipy.sparse.csr_array(zeros), missing="unstored"),
        "blocked": lambda: as_matrix(tmp_path / "x.npy"),
        "single precision": lambda: as_matrix(X.float()),
        "noisy": lambda: as_matrix(X, noise=0.5 + torch.rand(X.shape, generator=torch.Generator().manual_seed(0))),
        "sharded": lambda: ppnmf.shard(X),
    }
    found = fit(X=kinds[kind]())
    assert found.survey.starts == 6 and all(np.isfinite(found.survey.reached))
    assert all(bool(values.isfinite().all()) for values in found.draws.values())
    if kind in ("blocked", "sharded"):
        dense = fit().survey
        np.testing.assert_allclose(found.survey.climbed, dense.climbed, rtol=1e-4)


def test_nuts_begins_there(short):
    options = {"method": "nuts", "draws": 1, "warmup": 0, "max_tree_depth": 1}
    surveyed, plain = fit(**options), ppnmf.fit(MODEL, X, init="scaled", **{**PLAN, **options})
    assert surveyed.survey == fit().survey and plain.survey is None
    assert float(surveyed.stats["lp"].min()) > float(plain.stats["lp"].max())


# --- cut short ---


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
@pytest.mark.parametrize("at", range(5))
def test_ctrl_c_in_it_is_heard_and_it_is_resumed_to_the_same_bits(at, mask, short, tmp_path, monkeypatch):
    monkeypatch.setattr("ppnmf.inference.chain.sweeps_at_once", lambda X, K, chains: 4)
    monkeypatch.setattr("ppnmf.gaussian.ascent.OPERATIONS_AT_ONCE", 1e4)
    where = tmp_path / "run"
    at = 2 * at if mask is not None else at  # whose climbs go sweep by sweep
    stopped(monkeypatch, at, lambda: fit(checkpoint=where, mask=mask))
    assert same(fit(resume=where, mask=mask), fit(mask=mask))
    assert fit(resume=where, mask=mask, draws=6).survey == fit(mask=mask).survey


def test_another_survey_is_another_run(short, tmp_path):
    fit(checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="begun with survey=6, and this run has 7"):
        fit(resume=tmp_path / "run", survey=7)


# --- what is said ---


def test_it_is_saved_with_the_posterior_and_said_in_the_summary(short, tmp_path):
    post = fit(draws=8)
    back = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert back.survey == post.survey
    assert "6 starts were surveyed, and " in ppnmf.summary(back).sentence
    assert ppnmf.fit(MODEL, X, init="scaled", **PLAN).survey is None


def test_bad_numbers_of_starts_are_refused():
    with pytest.raises(ValueError, match="survey is -1; it must be a whole number >= 0"):
        fit(survey=-1)
    with pytest.raises(ValueError, match="survey is 6 beside init='prior': starts are surveyed by init='survey'"):
        fit(init="prior")
