"""Choosing the rank: the table, and what happens when ranks fail."""

from __future__ import annotations

import inspect
import json
import math
import os
import signal
import sys
import time
import warnings
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from joblib import parallel_config
from joblib.parallel import BACKENDS, ThreadingBackend

import ppnmf
from ppnmf import disk
from ppnmf.evidence import Evidence, finished, rank
from ppnmf.evidence.estimate import why_failed
from ppnmf.evidence.heldout import HeldOut
from ppnmf.models import PAENMF, REGISTRY, ExponentialGaussian
from tests.scenarios import drawn
from tests.sessions import running

pytestmark = pytest.mark.filterwarnings("ignore:X has .* negative entries", "ignore:rank .* is above min")
SHORT = {"draws": 150, "warmup": 100, "progress": False}


def evidence(rank_, value, mcse=0.1, **rest):
    told = {"replicates": (value - mcse, value + mcse), "priors": {"rate_W": 1.0}, "seconds": 1.0, **rest}
    return Evidence(log_evidence=value, mcse=mcse, method="chib", rank=rank_, **told)


@pytest.fixture
def scripted(monkeypatch):
    """A criterion "scripted" that gives what a dict says: a value, or an exception to raise."""

    def install(script, calls=None, doubled=0.0):
        calls = [] if calls is None else calls

        def run(model, X, *, wide=0.1, seed=0, progress=True):
            if isinstance(script[model.rank], BaseException):
                raise script[model.rank]
            calls.append((model.rank, getattr(model, "rate_W", None)))
            return evidence(model.rank, script[model.rank] - doubled * (model.rate_W == 2), wide)

        monkeypatch.setitem(sys.modules, "ppnmf_scripted", SimpleNamespace(run=run))
        monkeypatch.setitem(rank.CRITERIA, "scripted", "ppnmf_scripted")
        usual = {"model": ExponentialGaussian(1), "X": torch.ones(9, 9), "method": "scripted", "progress": False}
        return lambda **options: ppnmf.select_rank(ranks=sorted(script), **{**usual, **options})

    return install


def test_both_criteria_choose_the_true_rank_and_say_how_firmly():
    X, _, _ = drawn(30, 20, 2, noise=0.5)
    table = ppnmf.select_rank(ExponentialGaussian(1), X, range(1, 5), method=["chib", "heldout"], **SHORT)
    assert table.best == 2 and table.decisive
    by_cells = table.scores["heldout"]
    assert table.best_by("heldout") in (2, 3) and by_cells[2].is_clearly_better_than(by_cells[1])
    assert table.probability[2] > 0.99 and sum(table.probability.values()) == pytest.approx(1)
    assert [row["rank"] for row in table.rows] == [1, 2, 3, 4] and table.edge() is None
    assert all(row["priors"]["rate_W"] == 1.0 for row in table.rows)
    assert json.loads(json.dumps(table.to_dict()))["best"] == 2
    assert "rank 2 is best, decisively" in str(table) and "rate_W = 1" in str(table)


def test_the_numbers_are_the_same_in_any_company():
    X, _, _ = drawn(12, 8, 2)
    settings = {"draws": 6, "warmup": 8, "replicates": 2, "progress": False}
    one = ppnmf.select_rank(ExponentialGaussian(1), X, [1, 2], method="chib", seed=3, **settings)
    two = ppnmf.select_rank(
        lambda r: ExponentialGaussian(r), X, [2, 1], method="chib", seed=3, n_jobs=np.int64(1), **settings
    )
    assert all(one.scores["chib"][r].replicates == two.scores["chib"][r].replicates for r in (1, 2))
    alone = rank.import_module("ppnmf.evidence.chib").run(ExponentialGaussian(2), rank.as_matrix(X), seed=3, **settings)
    assert alone.replicates == one.scores["chib"][2].replicates


def test_best_is_the_greatest_value_and_decisive_only_beyond_the_error(scripted):
    table = scripted({1: -10.0, 2: -5.0, 3: -5.1, 4: -9.0})(wide=0.1)
    assert table.best == 2 and not table.decisive and table.rivals("scripted") == [3]
    assert "its lead over rank(s) 3 is within the error" in str(table)
    shrunk = 0.1 / math.sqrt(1 + math.pi * 0.02 / 8)  # the lead's error is √2 · 0.1
    assert table.probability[2] / table.probability[3] == pytest.approx(math.exp(shrunk))
    assert scripted({1: -10.0, 2: -5.0, 3: -8.1})(wide=0.001).decisive


def test_a_lead_counts_only_beyond_posterior_odds_of_twenty_to_one(scripted):
    table = scripted({1: -10.0, 2: -5.0, 3: -7.9})(wide=0.001)
    assert table.best == 2 and not table.decisive and table.rivals("scripted") == [3]


def test_no_rank_is_certain_within_the_error(scripted):
    table = scripted({1: -1000.0, 2: -500.0, 3: -540.0})(wide=20.0)
    assert not table.decisive and 0.5 < table.probability[2] < 0.99


def failed_one(rank_, value, why="it was nothing; try another"):
    return replace(evidence(rank_, value), failed=why)


def table_of(*scores, failed=None):
    by_rank = {score.rank: score for score in scores}
    return rank.RankTable(scores={"chib": by_rank}, failed={"chib": failed or {}}, shape=(9, 9), seed=0, seconds=0.0)


def test_a_failed_estimate_is_shown_and_never_chosen():
    table = table_of(evidence(1, -50.0), evidence(2, -20.0), failed_one(3, 700.0))
    assert table.best == 2 and not table.decisive and set(table.probability) == {1, 2}
    assert (
        table.unjudged("chib") == [3]
        and table.rows[2]["chib"] == 700.0
        and "it was nothing" in table.rows[2]["chib_failed"]
    )
    text = str(table)
    assert "rank 2 is best of those that could be judged; the estimates of rank 3 have failed" in text
    assert "The estimate of rank 3 by chib has failed: it was nothing; try another." in text
    assert "rank 2 is the greatest with a value: rank 3 failed" in text and "* " not in text.splitlines()[3]
    assert not evidence(2, -20.0).is_clearly_better_than(failed_one(1, -90.0))
    told = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert told["best"] == 2 and not told["decisive"] and told["rows"][2]["chib_failed"]
    assert ppnmf.plots.rank(table)[0].get_title("left") == "chib: best at 2"


def test_a_rank_that_is_compared_with_none_is_not_decisive():
    table = table_of(evidence(2, -20.0), failed={1: "it was nothing", 3: "it was nothing"})
    assert table.best == 2 and not table.decisive and "rank 2, the only one with a value" in table.verdict()


def test_an_error_that_cannot_be_told_is_no_certainty():
    assert not evidence(2, -20.0, math.nan).is_clearly_better_than(evidence(1, -90.0))
    table = table_of(evidence(2, -20.0, math.nan), evidence(1, -90.0))
    assert "rank 2 is best, but its lead over rank(s) 1 is of a size that no error is known of." in table.verdict()


def test_where_all_estimates_failed_nothing_is_chosen():
    table = table_of(failed_one(1, 5.0), failed_one(2, 9.0))
    assert table.probability is None and "the estimates of all ranks have failed" in str(table)
    assert table.to_dict()["best"] is None
    with pytest.raises(ValueError, match="no rank can be chosen by chib"):
        _ = table.best


def test_ranks_that_failed_count_as_tried():
    above = table_of(evidence(1, -9.0), evidence(2, -5.0), failed={3: "no luck"})
    assert above.edge() == "rank 2 is the greatest with a value: rank 3 failed"
    below = table_of(evidence(2, -5.0), evidence(3, -9.0), failed={1: "no luck"})
    assert below.edge() == "rank 2 is the least with a value: rank 1 failed"


@pytest.mark.parametrize(
    ("values", "greatest", "gap", "why"),
    [
        ([-10.0, -9.0], -5.0, 3.0, ""),
        ([-10.0, -4.0], -5.0, 3.0, "-4 lies above the greatest log likelihood met, -5"),
        ([-100.0, -20.0], -5.0, 3.0, "the replicates lie 80 nats apart"),
        ([-10.0, -9.0], -5.0, 70.0, "forward and reverse ordinates of one stage lie 70 nats apart"),
        ([-10.0, math.nan], -5.0, 0.0, "not finite"),
    ],
)
def test_why_an_estimate_fails(values, greatest, gap, why):
    told = why_failed("chib", values, greatest, gap)
    assert why in told and bool(why) == ("try method='stepping_stone'" in told)


@pytest.mark.filterwarnings("ignore:log_evidence by")
def test_strong_signals_choose_their_rank_and_fail_where_they_cannot():
    """Where noise is small against the signal, Chib's estimates of ranks 3 and 4 were +7 528 and +1 276 840."""
    generator = np.random.default_rng(0)
    X = generator.exponential(10, (30, 3)) @ generator.exponential(10, (3, 20)) + generator.normal(0, 1, (30, 20))
    model = ExponentialGaussian(1, 0.1, 0.1)
    options = {"chib": {"draws": 100, "warmup": 300}, "progress": False}
    table = ppnmf.select_rank(model, X, [2, 3, 4], method=["stepping_stone", "chib"], **options)
    assert table.best == 3 and table.decisive and table.probability[3] > 0.999
    values = {r: one.value for r, one in table.scores["stepping_stone"].items()}
    for r, long in {2: -3705.1, 3: -1723.0, 4: -1791.5}.items():  # with four sweeps at shorter steps
        assert abs(values[r] - long) < 3
    assert {3, 4} & set(table.unjudged("chib"))
    for r, one in table.judged("chib").items():
        assert one.value == pytest.approx(values[r], abs=one.gap + 3)


@pytest.mark.parametrize(("script", "sentence"), [
    ({2: -3.0, 3: -2.0, 4: -1.0}, "rank 4 is the greatest tried"),
    ({2: -1.0, 3: -2.0}, "rank 2 is the least tried"),
    ({1: -1.0, 2: -2.0}, None),
])  # fmt: skip
def test_a_best_rank_at_the_edge_of_the_range_is_said(scripted, script, sentence):
    table = scripted(script)()
    assert (table.edge() or "").startswith(sentence or "") and (sentence is None) == (table.edge() is None)
    assert sentence is None or sentence in str(table)


def test_a_failed_rank_is_reported_and_the_others_stand(scripted):
    table = scripted({1: -3.0, 2: RuntimeError("the sum did not converge"), 3: -4.0, 4: math.nan})()
    assert table.best == 1 and table.ranks == [1, 2, 3, 4]
    assert table.failed["scripted"][2] == "RuntimeError: the sum did not converge"
    assert "the value is nan" in table.failed["scripted"][4]
    assert table.rows[1]["scripted"] is None and "Rank 2 failed by scripted" in str(table)
    assert set(table.probability) == {1, 3}
    json.dumps(table.to_dict(), allow_nan=False)


def test_a_rank_whose_model_cannot_be_made_is_reported():
    X, _, _ = drawn(10, 6, 2)
    rates = torch.tensor([1.0, 2.0])
    settings = {"draws": 5, "warmup": 4, "progress": False}
    table = ppnmf.select_rank(ExponentialGaussian(2, rate_W=rates), X, [1, 2], method="heldout", **settings)
    assert table.best == 2 and "rate_W has shape (2,)" in table.failed["heldout"][1]


def test_where_every_rank_fails_the_first_reason_is_raised(scripted):
    with pytest.raises(RuntimeError, match="no luck"):
        scripted({1: RuntimeError("no luck"), 2: ValueError("none either")})()
    with pytest.raises(
        TypeError, match="chib needs the densities of its blocks; pae_nmf offers a guide with an encoder"
    ):
        ppnmf.select_rank(PAENMF(rank=1), torch.ones(4, 3), [1, 2], method="chib", progress=False)


@pytest.mark.parametrize(
    ("name", "criterion"),
    [
        ("exponential_gaussian", "stepping_stone"),
        ("gamma_poisson", "stepping_stone"),
        ("ard_gaussian", "stepping_stone"),
        ("column_noise_gaussian", "stepping_stone"),
        ("tri_factor", "stepping_stone"),
        ("hierarchical", "stepping_stone"),
        ("pae_nmf", "elbo"),
    ],
)
def test_by_default_the_criterion_is_one_that_the_model_can(name, criterion):
    assert rank.usual_criterion([REGISTRY[name](rank=2)]) == criterion


def test_ctrl_c_gives_the_ranks_that_are_done(scripted):
    table = scripted({1: -3.0, 2: -1.0, 3: KeyboardInterrupt()})()
    assert table.interrupted and table.best == 2 and table.ranks == [1, 2]
    assert "Interrupted" in str(table)
    with pytest.raises(KeyboardInterrupt):
        scripted({1: KeyboardInterrupt()})()


INTERRUPTED_SCRIPT = """
import sys, torch, ppnmf
if __name__ == "__main__":
    X = torch.rand(30, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    long = {"draws": 10**6, "warmup": 1, "replicates": 2}
    table = ppnmf.select_rank(ppnmf.models.ExponentialGaussian(1), X, [1, 2], method=["bic", "chib"], chib=long,
                              n_jobs=2, progress=False, checkpoint=sys.argv[1])
    print(table)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("whom", ["the session", pytest.param("the first process alone", marks=pytest.mark.slow)])
def test_ctrl_c_with_several_processes_gives_the_ranks_that_are_done_and_leaves_none_running(tmp_path, whom):
    script, finished = tmp_path / "script.py", tmp_path / "ranks.json"
    script.write_text(INTERRUPTED_SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(ppnmf.__file__).parents[1])}
    command = [sys.executable, script, finished]
    with Popen(command, env=environment, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True) as process:
        try:
            wait_until(lambda: finished.exists() and len(json.loads(finished.read_text())["scores"]) == 2)
            assert len(running(process.pid)) > 2
            (os.killpg if whom == "the session" else os.kill)(process.pid, signal.SIGINT)
            told, errors = process.communicate(timeout=300)
            wait_until(lambda: not running(process.pid))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    assert "Interrupted: not all ranks were done." in told and "By bic" in told and "By chib" not in told


def wait_until(true, seconds=600.0):  # processes may have kernels to compile, on a machine that does much else
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


class Listing(ThreadingBackend):
    """A backend that gives results only when all are there, as those of ray and multiprocessing do."""

    supports_return_generator = False


def test_backends_that_give_lists_keep_the_ranks_that_are_done_too(scripted, monkeypatch, tmp_path):
    monkeypatch.setitem(BACKENDS, "listing", Listing)
    make = scripted({1: -4.0, 2: -3.0, 3: -2.0, 4: KeyboardInterrupt(), 5: -1.0, 6: -0.5})
    with parallel_config(backend="listing", n_jobs=1):
        table = make(checkpoint=tmp_path / "ranks.json")
    assert table.interrupted and table.ranks == [1, 2, 3] and table.best == 3
    assert len(json.loads((tmp_path / "ranks.json").read_text())["scores"]) == 3
    with parallel_config(backend="listing", n_jobs=2):
        assert make().ranks == [5, 6]  # the lot of the interrupted one is lost, and what came after it


def test_heldout_alone_has_no_probability_and_less_is_better():
    scores = {
        r: HeldOut(folds=(e, e + 0.1), rank=r, priors={}, seconds=0.0) for r, e in {1: 2.0, 2: 1.0, 3: 1.5}.items()
    }
    table = rank.RankTable(scores={"heldout": scores}, failed={"heldout": {}}, shape=(4, 4), seed=0, seconds=0.0)
    assert table.best == 2 and table.decisive and table.probability is None
    assert "probability" not in table.rows[0] and table.to_dict()["probability"] is None
    assert table.nested is None and table.to_dict()["nested"] is None


@pytest.mark.parametrize("moving", [2, 1])  # the best rank, or the other one
def test_a_lead_does_not_count_where_a_fold_had_not_converged(moving):
    rhat = {1: [1.01, 1.1], 2: [1.0, None]}
    rhat[moving] = [1.0, 1.3]
    scores = {
        r: HeldOut(folds=(e, e + 0.1), rank=r, priors={}, seconds=0.0, attrs={"rhat": rhat[r]})
        for r, e in {1: 2.0, 2: 1.0}.items()
    }
    table = rank.RankTable(scores={"heldout": scores}, failed={"heldout": {}}, shape=(4, 4), seed=0, seconds=0.0)
    assert table.best == 2 and not table.decisive
    assert f"fits of rank {moving} had not converged" in table.verdict() and "decisively" not in str(table)


def test_the_nested_error_stands_in_the_table():
    X = drawn(14, 9, 1, noise=0.1)[0]
    table = ppnmf.select_rank(
        ExponentialGaussian(1), X, [1, 2, 3], method=["bic", "heldout"], heldout={"nested": True, "folds": 3},
        draws=10, warmup=10, progress=False,
    )  # fmt: skip
    scores = table.scores["heldout"]
    assert table.nested.folds == tuple(scores[rank].folds[fold] for fold, rank in enumerate(table.nested.ranks))
    assert str(table.nested) in str(table)
    told = json.loads(json.dumps(table.to_dict()))["nested"]
    assert told["value"] == table.nested.value and told["ranks"] == list(table.nested.ranks)


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        (
            {"method": "guess"},
            ValueError,
            "method is 'guess'; it must be one of 'chib', 'smc', 'stepping_stone', 'heldout', 'aic'",
        ),
        ({"method": []}, ValueError, "method is empty"),
        ({"ranks": []}, ValueError, "give whole numbers >= 1"),
        ({"ranks": [0, 1]}, ValueError, "a rank is 0; it must be a whole number"),
        ({"ranks": [1.5]}, ValueError, "a rank is 1.5; it must be a whole number"),
        (
            {"method": ["chib", "heldout"], "sweeps": 3},
            TypeError,
            "there is no option sweeps: chib has bridge, draws",
        ),
    ],
)
def test_select_rank_refuses(options, kind, sentence):
    with pytest.raises(kind, match=sentence):
        ppnmf.select_rank(ExponentialGaussian(1), torch.ones(4, 3), progress=False, **options)


def test_a_method_that_fails_at_every_rank_leaves_the_table_readable():
    X = drawn(8, 6, 2)[0]
    table = ppnmf.select_rank(
        ExponentialGaussian(2),
        X,
        ranks=[1, 2],
        method=["heldout", "chib"],
        replicates=1,
        draws=5,
        warmup=5,
        progress=False,
    )
    assert table.probability is None and "failed by chib" in str(table) and table.to_dict()["best"] in (1, 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "aic", "chib": {"draws": 5}}, "there are options for chib, which is not among the methods: aic"),
        ({"method": "aic", "aic": {"drawn": 5}}, "there is no option drawn: aic has corrected, invariance, restarts"),
        ({"method": "aic", "aic": 3}, "aic is 3; its options come as a dict"),
        ({"method": "aic", "ranks": 3}, "ranks is 3; give several whole numbers"),
    ],
)
def test_options_for_one_method_are_checked_too(options, sentence):
    with pytest.raises(TypeError, match=sentence):
        ppnmf.select_rank(ExponentialGaussian(1), torch.ones(4, 3), progress=False, **options)


def test_options_in_a_dict_go_to_their_method_alone():
    X = drawn(14, 9, 1)[0]
    table = ppnmf.select_rank(
        ExponentialGaussian(1), X, [1, 2], method=["aic", "bic"], restarts=3, bic={"restarts": 2}, progress=False
    )
    counts = {method: len(by_rank[1].attrs["restarts"]) for method, by_rank in table.scores.items()}
    assert counts == {"aic": 3, "bic": 2}


def test_warnings_on_the_way_stand_in_the_score_and_in_the_table(scripted, monkeypatch):
    make = scripted({1: -1.0, 2: -9.0})
    plain = sys.modules["ppnmf_scripted"].run

    def run(model, X, *, wide=0.1, seed=0, progress=True):
        warnings.warn("icm: it had not converged.", stacklevel=2)
        return plain(model, X)

    monkeypatch.setattr(sys.modules["ppnmf_scripted"], "run", run)
    table = make()
    assert table.scores["scripted"][2].warnings == ("icm: it had not converged",)
    assert "Doubt about scripted at rank 1, 2: icm: it had not converged." in str(table)


# Sensitivity


def test_sensitivity_looks_at_the_best_rank_and_its_neighbours_with_other_rates(scripted):
    calls = []
    make = scripted({1: -9.0, 2: -5.0, 4: -1.0, 5: -2.0, 6: -8.0}, calls, doubled=3.0)
    plain = make()
    assert "sensitivity=True says what twice and half the rates would do to it" in str(plain) and not plain.sensitivity
    calls.clear()
    table = make(sensitivity=True)
    assert sorted(calls[5:]) == [(rank, rate) for rank in (2, 4, 5) for rate in (0.5, 2.0)]
    changed = table.sensitivity["scripted"]
    assert changed[2.0][4].value == -4.0 and changed[0.5][4].value == -1.0
    assert "With twice the rates, scripted's log evidence changes by (rank: nats) 2: -3 ± 0.14, 4: -3" in str(table)
    assert table.best == 4 and table.to_dict()["sensitivity"]["scripted"]["2"]["5"][0] == -5.0
    json.dumps(table.to_dict(), allow_nan=False)


def test_sensitivity_of_what_is_no_evidence_is_said():
    with pytest.warns(UserWarning, match="sensitivity is of evidence, and bic gives none"):
        X = drawn(12, 9, 1)[0].abs()
        ppnmf.select_rank(ExponentialGaussian(1), X, [1, 2], method="bic", sensitivity=True, progress=False)


def test_sensitivity_says_when_another_rank_would_be_best(monkeypatch):
    at = {1: {1.0: -3.0, 2.0: -1.0, 0.5: -9.0}, 2: {1.0: -1.0, 2.0: -2.0, 0.5: -1.0}}
    run = lambda model, X, *, seed=0, progress=True: evidence(model.rank, at[model.rank][model.rate_H])
    monkeypatch.setitem(sys.modules, "ppnmf_scripted", SimpleNamespace(run=run))
    monkeypatch.setitem(rank.CRITERIA, "scripted", "ppnmf_scripted")
    table = ppnmf.select_rank(
        ExponentialGaussian(1), torch.ones(4, 3), [1, 2], method="scripted", sensitivity=True, progress=False
    )
    assert "of these ranks 1 is then best, no longer 2." in str(table)
    assert "of these ranks 2 is then best." in str(table)


def test_sensitivity_takes_no_failed_estimate_at_its_word():
    table = table_of(evidence(2, -20.0), evidence(3, -30.0))
    table = replace(table, sensitivity={"chib": {2.0: {2: evidence(2, -21.0), 3: failed_one(3, 7000.0)}}})
    assert "(rank: nats) 2: -1 ± 0.14, 3: failed; of these ranks 2 is then best." in str(table)
    assert json.loads(json.dumps(table.to_dict()))["sensitivity"]["chib"]["2"] == {"2": [-21.0, 0.1], "3": None}
    nothing = replace(table, sensitivity={"chib": {2.0: {2: failed_one(2, 5.0)}}})
    assert "(rank: nats) 2: failed." in str(nothing)


# Going on from a file


def test_a_run_that_was_cut_off_goes_on_to_the_same_table(scripted, tmp_path):
    script, calls, path = {1: -3.0, 2: -1.0, 3: KeyboardInterrupt(), 4: -7.0}, [], tmp_path / "ranks.json"
    make = scripted(script, calls)
    assert make(checkpoint=path, resume=path).interrupted and calls == [(1, 1.0), (2, 1.0)]
    script[3] = -4.0
    table = make(resume=path)
    assert calls[2:] == [(3, 1.0), (4, 1.0)]
    whole = make()
    for r in script:
        assert table.scores["scripted"][r] == whole.scores["scripted"][r]
    assert {path.name for path in tmp_path.iterdir()} == {"ranks.json"}
    assert len(json.loads(path.read_text())["scores"]) == 4


def test_a_failed_rank_is_tried_again(scripted, tmp_path):
    script, path = {1: -3.0, 2: RuntimeError("no luck")}, tmp_path / "ranks.json"
    make = scripted(script)
    assert make(checkpoint=path).failed["scripted"]
    script[2] = -1.0
    assert make(resume=path).best == 2


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"X": torch.ones(9, 8)}, "is of other data"),
        ({"seed": 1}, "was begun with seed=0, and this run has 1"),
        ({"wide": 0.2}, "holds scripted at rank 1 with other options \\(wide\\)"),
        ({"model": ExponentialGaussian(1, rate_W=3.0)}, "holds scripted at rank 1 of another model"),
    ],
)
def test_a_file_of_another_run_is_refused(scripted, tmp_path, changed, sentence):
    make, path = scripted({1: -3.0, 2: -1.0}), tmp_path / "ranks.json"
    make(checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=sentence):
        make(resume=path, **changed)
    assert path.read_bytes() == before


def test_files_that_are_not_there_or_not_ours_are_refused(scripted, tmp_path):
    make, path = scripted({1: -3.0}), tmp_path / "ranks.json"
    with pytest.raises(ValueError, match="there is no file .*ranks.json to resume from"):
        make(resume=path)
    path.write_text('{"format": 1}')
    with pytest.raises(ValueError, match="is not a file of select_rank's that can be read"):
        make(resume=path)
    with pytest.raises(ValueError, match="give the name of a JSON file in a folder that is there"):
        make(checkpoint=tmp_path / "nowhere" / "ranks.json")


def test_scores_of_every_kind_come_back_from_the_file_as_they_were(tmp_path):
    X, path = drawn(12, 9, 2, noise=0.1)[0].clamp(min=0), tmp_path / "ranks.json"
    options = {"method": EVERY, "progress": False, **BRIEF}
    first = ppnmf.select_rank(ExponentialGaussian(1), X, [2], checkpoint=path, **options)
    again = ppnmf.select_rank(ExponentialGaussian(1), X, [2], resume=path, **options)
    assert not any(first.failed.values())
    for method in EVERY:
        assert str(again.scores[method][2]) == str(first.scores[method][2])
        assert again.scores[method][2].seconds == first.scores[method][2].seconds  # it was not worked out anew
        assert type(again.scores[method][2]) is type(first.scores[method][2])
        assert again.scores[method][2].lead_over(first.scores[method][2])[0] == 0
    assert same(values_of(first), values_of(again)) and first.nested == again.nested is not None


# Wherever it is worked out


EVERY = ["chib", "smc", "heldout", "aic", "bic", "mdl", "loo", "consensus"]
BRIEF = {
    "draws": 10,
    "warmup": 10,
    "replicates": 2,
    "restarts": 3,
    "particles": 20,
    "chains": 2,
    "folds": 3,
    "nested": True,
    "loo": {"draws": 20},
}


def values_of(table):
    """All that a score's numbers are."""
    return {
        (method, rank): (score.value, score.error, *getattr(score, "inner", ()))
        for method, by_rank in table.scores.items()
        for rank, score in by_rank.items()
    }


def test_every_criterion_gives_the_same_bits_for_any_number_of_threads():
    X = drawn(60, 50, 2, noise=0.1)[0].clamp(min=0)
    options = {"method": EVERY, "progress": False, **BRIEF}
    before, tables = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            table = values_of(ppnmf.select_rank(ExponentialGaussian(1), X, [2], **options))
            bound = ppnmf.select_rank(PAENMF, X, [2], method="elbo", steps=20, restarts=3, progress=False)
            tables.append(table | values_of(bound))
    finally:
        torch.set_num_threads(before)
    assert len(tables[0]) == 9 and same(*tables)


@pytest.mark.parametrize(
    "methods", [["heldout", "bic"], pytest.param(["chib", "smc", "mdl", "loo"], marks=pytest.mark.slow)]
)
def test_criteria_give_the_same_bits_for_any_number_of_jobs(methods):
    X, brief = drawn(30, 20, 2, noise=0.1)[0].clamp(min=0), {k: v for k, v in BRIEF.items() if k not in EVERY}
    options = {"method": methods, "progress": False, **brief, "draws": 30}
    used = {name: v for name, v in options.items() if name in ("method", "progress") or name in known(methods)}
    alone = values_of(ppnmf.select_rank(ExponentialGaussian(1), X, [2, 3], **used))
    two = values_of(ppnmf.select_rank(ExponentialGaussian(1), X, [2, 3], n_jobs=2, **used))
    with parallel_config(n_jobs=2):
        told = values_of(ppnmf.select_rank(ExponentialGaussian(1), X, [3, 2], **used))
    assert len(alone) == 2 * len(methods) and same(alone, two) and same(alone, told)


def known(methods):
    """The options that some of the methods have."""
    return {option for method in methods for option in inspect.signature(rank._run_of(method)).parameters}


def same(ours, theirs):
    """To the bit."""
    return ours.keys() == theirs.keys() and all(
        ours[key] == pytest.approx(theirs[key], rel=0, abs=0, nan_ok=True) for key in ours
    )


@pytest.mark.slow
def test_dask_workers_give_the_same_numbers():
    distributed = pytest.importorskip("dask.distributed")
    X = drawn(14, 9, 2, noise=0.1)[0].clamp(min=0)
    options = {"method": ["chib", "bic"], "progress": False, "draws": 10, "warmup": 10, "replicates": 2}
    alone = ppnmf.select_rank(ExponentialGaussian(1), X, [1, 2, 3], **options)
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        parallel_config(backend="dask"),
    ):
        warnings.simplefilter("ignore")  # dask's own, of large graphs and late heartbeats
        spread = ppnmf.select_rank(ExponentialGaussian(1), X, [1, 2, 3], **options)
    assert same(values_of(alone), values_of(spread))


def test_a_file_is_written_by_one_run_at_a_time_and_never_begun_anew_over_scores(scripted, tmp_path):
    path = tmp_path / "ranks.json"
    make, taken = scripted({1: -3.0, 2: -1.0}), disk.Lock(tmp_path / "ranks.json.lock")
    assert taken.take()
    with pytest.raises(ValueError, match=r"another run is writing to .*ranks.json: wait for it, or end it"):
        make(checkpoint=path)
    taken.give_back()
    make(checkpoint=path)
    before = path.read_bytes()
    for resume in (None, tmp_path / "other.json"):
        (tmp_path / "other.json").write_bytes(before)
        with pytest.raises(ValueError, match=r"there is a file .*ranks.json already: go on from it by resume="):
            make(checkpoint=path, resume=resume)
    assert path.read_bytes() == before and not taken.path.exists()
    assert make(checkpoint=tmp_path / "new.json", resume=path).best == 2


def test_scores_that_could_not_be_written_are_with_the_next_one(scripted, tmp_path, monkeypatch):
    path, write, fails = tmp_path / "ranks.json", finished.write_text, iter([True, True, False])

    def full(*args):
        if next(fails):
            raise OSError(28, "No space left on device")
        return write(*args)

    monkeypatch.setattr(finished, "write_text", full)
    with pytest.warns(UserWarning, match="No space left on device.*the ranks go on") as told:
        scripted({1: -3.0, 2: -1.0, 3: -2.0})(checkpoint=path)
    assert len(told) == 1 and len(json.loads(path.read_text())["scores"]) == 3


def test_ranks_whose_process_was_ended_from_outside_have_failed_and_the_others_stay(scripted, monkeypatch):
    make, come = scripted({1: -3.0, 2: -1.0, 3: -2.0}), rank._as_they_come

    def broken(calls, n_jobs):
        results = come(calls, n_jobs)
        yield next(results)
        raise BrokenProcessPool

    monkeypatch.setattr(rank, "_as_they_come", broken)
    table = make()
    assert table.best == 1 and not table.interrupted
    assert "a process was ended from outside, perhaps for want of memory" in table.failed["scripted"][3]


@pytest.mark.filterwarnings("ignore:log_evidence by")
def test_known_noise_is_taken_as_such():
    X = drawn(12, 6, 2)[0]
    variance = 0.5 + torch.arange(6, dtype=torch.float64) / 4
    options = {"draws": 20, "warmup": 20, "replicates": 2, "progress": False, "method": "chib"}
    table = ppnmf.select_rank(ExponentialGaussian(1), X, [2], noise=variance, **options)
    alone = ppnmf.log_evidence(ExponentialGaussian(2), X, noise=variance, **options)
    made = ppnmf.log_evidence(ExponentialGaussian(2), ppnmf.as_matrix(X, noise=variance), **options)
    assert table.scores["chib"][2].replicates == alone.replicates == made.replicates
    assert ppnmf.log_evidence(ExponentialGaussian(2), X, **options).replicates != alone.replicates
