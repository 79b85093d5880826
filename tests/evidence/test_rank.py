"""Choosing the rank: the table, and what happens when ranks fail."""

from __future__ import annotations

import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch

import ppnmf
from ppnmf.evidence import Evidence, rank
from ppnmf.evidence.heldout import HeldOut
from ppnmf.models import PAENMF, ExponentialGaussian
from tests.scenarios import drawn

pytestmark = pytest.mark.filterwarnings("ignore:X has .* negative entries", "ignore:rank .* is above min")
SHORT = {"draws": 150, "warmup": 100, "progress": False}


def evidence(rank_, value, mcse=0.1, **rest):
    return Evidence.combine(
        [value - mcse, value + mcse], method="chib", rank=rank_, priors={"rate_W": 1.0}, seconds=1.0, **rest
    )


@pytest.fixture
def scripted(monkeypatch):
    """A criterion "scripted" that gives what a dict says: a value, or an exception to raise."""

    def install(script):
        def run(model, X, *, wide=0.1, seed=0, progress=True):
            if isinstance(script[model.rank], BaseException):
                raise script[model.rank]
            return evidence(model.rank, script[model.rank], wide)

        monkeypatch.setitem(sys.modules, "ppnmf_scripted", SimpleNamespace(run=run))
        monkeypatch.setitem(rank.CRITERIA, "scripted", "ppnmf_scripted")
        return lambda **options: ppnmf.select_rank(
            ExponentialGaussian(1), torch.ones(9, 9), sorted(script), method="scripted", progress=False, **options
        )

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


def test_the_numbers_are_the_same_for_any_number_of_jobs_and_any_company():
    X, _, _ = drawn(12, 8, 2)
    settings = {"draws": 6, "warmup": 8, "replicates": 2, "progress": False}
    one = ppnmf.select_rank(ExponentialGaussian(1), X, [1, 2], seed=3, **settings)
    two = ppnmf.select_rank(lambda r: ExponentialGaussian(r), X, [2, 1], seed=3, n_jobs=2, **settings)
    assert all(one.scores["chib"][r].replicates == two.scores["chib"][r].replicates for r in (1, 2))
    alone = rank.import_module("ppnmf.evidence.chib").run(ExponentialGaussian(2), rank.as_matrix(X), seed=3, **settings)
    assert alone.replicates == one.scores["chib"][2].replicates


def test_best_is_the_greatest_value_and_decisive_only_beyond_the_error(scripted):
    table = scripted({1: -10.0, 2: -5.0, 3: -5.1, 4: -9.0})(wide=0.1)
    assert table.best == 2 and not table.decisive and table.rivals("scripted") == [3]
    assert "its lead over rank(s) 3 is within the error" in str(table)
    assert table.probability[2] / table.probability[3] == pytest.approx(math.exp(0.1))
    assert scripted({1: -10.0, 2: -5.0, 3: -5.1})(wide=0.001).decisive


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
    with pytest.raises(TypeError, match="chib needs full conditionals; pae_nmf offers only a guide"):
        ppnmf.select_rank(PAENMF(rank=1), torch.ones(4, 3), [1, 2], progress=False)


def test_ctrl_c_gives_the_ranks_that_are_done(scripted):
    table = scripted({1: -3.0, 2: -1.0, 3: KeyboardInterrupt()})()
    assert table.interrupted and table.best == 2 and table.ranks == [1, 2]
    assert "Interrupted" in str(table)
    with pytest.raises(KeyboardInterrupt):
        scripted({1: KeyboardInterrupt()})()


def test_heldout_alone_has_no_probability_and_less_is_better():
    scores = {
        r: HeldOut(folds=(e, e + 0.1), rank=r, priors={}, seconds=0.0) for r, e in {1: 2.0, 2: 1.0, 3: 1.5}.items()
    }
    table = rank.RankTable(scores={"heldout": scores}, failed={"heldout": {}}, shape=(4, 4), seed=0, seconds=0.0)
    assert table.best == 2 and table.decisive and table.probability is None
    assert "probability" not in table.rows[0] and table.to_dict()["probability"] is None


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"method": "guess"}, ValueError, "method is 'guess'; there are chib, heldout"),
        ({"method": []}, ValueError, "method is empty"),
        ({"ranks": []}, ValueError, "give whole numbers >= 1"),
        ({"ranks": [0, 1]}, ValueError, "a rank is 0; it must be a whole number"),
        ({"ranks": [1.5]}, ValueError, "a rank is 1.5; it must be a whole number"),
        (
            {"method": ["chib", "heldout"], "sweeps": 3},
            TypeError,
            "there is no option sweeps: chib has burn, |chib has draws",
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
