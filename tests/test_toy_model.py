"""A model without sigma2 and with a site of its own goes through everything as it is."""

import json

import arviz_base  # noqa: F401  # its tree is what is looked at
import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke
from ppnmf.inference import methods_of
from ppnmf.models import REGISTRY
from ppnmf.posterior import Kind
from ppnmf.protocols import Amortised, Blocked, Model, Sweeping
from tests import scenarios
from tests.scenarios import drawn
from tests.toy_model import RandomRates

X = drawn(9, 7, 2)[0].abs()
MASK = torch.arange(63).reshape(9, 7) % 5 != 0
QUICK = {"draws": 12, "warmup": 8, "chains": 2, "progress": False}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(REGISTRY, RandomRates.name, RandomRates)


@pytest.fixture(scope="module")
def post():
    return ppnmf.fit(RandomRates(2), X, seed=1, **QUICK)


def same(one, other):
    return one.draws.keys() == other.draws.keys() and all(torch.equal(one.draws[s], other.draws[s]) for s in one.draws)


def test_it_has_the_abilities_that_it_offers():
    model = RandomRates(2)
    assert isinstance(model, Model) and isinstance(model, Sweeping)
    assert not isinstance(model, Blocked) and not isinstance(model, Amortised)
    assert methods_of(model) == ["gibbs", "icm", "nuts", "smc"]
    with pytest.raises(
        TypeError, match="chib needs the densities of its blocks; random_rates offers full conditionals"
    ):
        ppnmf.log_evidence(model, X, method="chib")


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
def test_its_sweep_is_right(mask):
    """The judges that registered models stand before."""
    scenarios.judge_program(RandomRates(2), X, mask)
    scenarios.judge_modes(RandomRates(2), X, mask)
    hidden = None if mask is None else scenarios.mask_of((4, 3))
    assert geweke(RandomRates(2), (4, 3), sweeps=40, chains=200, seed=1, mask=hidden).p_value > scenarios.LUCK


@pytest.mark.parametrize("method", ["gibbs", "icm", "nuts", "smc"])
def test_every_method_saves_loads_and_sums_up(method, tmp_path):
    options = {"nuts": {"draws": 4, "warmup": 4, "chains": 1, "max_tree_depth": 3}, "icm": {"restarts": 3}}
    options |= {"smc": {"particles": 20, "replicates": 2, "sweeps": 1}, "gibbs": QUICK}
    post = ppnmf.fit(RandomRates(2), X, method=method, seed=1, **{"progress": False, **options[method]})
    assert set(post.draws) == {"W", "H", "rate"} and post.draws["rate"].shape[2:] == (2,)
    back = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert same(post, back) and back.kind is post.kind and back.model == post.model
    text = str(ppnmf.summary(back))
    assert post.kind is Kind.MODES or "rate" in text
    tree = post.to_datatree(log_likelihood=True, posterior_predictive=True)
    assert tree["posterior"]["rate"].dims == ("chain", "draw", "component")
    assert post.predictive(seed=1).shape == (*post.stats["lp"].shape, 9, 7)
    assert post.generate(3, latent="aggregated").shape == (3, 7)


def test_a_run_that_is_cut_goes_on_and_a_store_takes_its_draws(post, tmp_path):
    pytest.importorskip("zarr")
    short = {**QUICK, "draws": 5}
    ppnmf.fit(RandomRates(2), X, seed=1, checkpoint=tmp_path / "run", every=3, **short)
    resumed = ppnmf.fit(RandomRates(2), X, seed=1, resume=tmp_path / "run", **QUICK)
    assert same(post, resumed)
    stored = ppnmf.fit(RandomRates(2), X, seed=1, store=tmp_path / "draws.zarr", **QUICK)
    assert same(post, stored)
    modes = [
        ppnmf.fit(RandomRates(2), X, method="icm", restarts=2, seed=1, progress=False, **own)
        for own in ({}, {"checkpoint": tmp_path / "icm", "every": 2})
    ]
    assert same(*modes)
    begun = ppnmf.fit(RandomRates(2), X, seed=2, init=post, **QUICK)
    assert begun.n_draws == 12


def test_pictures_and_tables_take_it(post, tmp_path):
    for draw in (ppnmf.plots.components, ppnmf.plots.traces):
        assert ppnmf.plots.save(draw(post), tmp_path / "picture.png").stat().st_size > 0
    assert len(ppnmf.plots.latent_densities({"gibbs": post}, [0, 1]))
    table = ppnmf.compare({"gibbs": post, "icm": ppnmf.fit(RandomRates(2), X, method="icm", progress=False)}, X)
    assert "random_rates" in json.dumps(table.to_dict()) or "RandomRates" in str(table)
    assert set(ppnmf.align(post).draws) == {"W", "H", "rate"}


def test_its_name_stands_for_it(post):
    again = ppnmf.fit("random_rates", X, rank=2, seed=1, **QUICK)
    assert same(post, again)
    scores = ppnmf.select_rank("random_rates", X, [1, 2], method="heldout", draws=5, warmup=5, folds=3, progress=False)
    assert set(scores.scores["heldout"]) == {1, 2}


def test_components_that_are_aligned_take_their_rates_along(post):
    aligned = ppnmf.align(post)
    order = (post.draws["rate"][..., None] == aligned.draws["rate"][..., None, :]).double()
    torch.testing.assert_close(post.draws["W"] @ order, aligned.draws["W"])


def test_it_reads_x_through_the_matrix_protocol():
    masked, hidden = as_matrix(X, MASK), as_matrix(torch.where(MASK, X, torch.nan), missing="nan")
    one, other = (ppnmf.fit(RandomRates(2), data, seed=1, **QUICK) for data in (masked, hidden))
    assert same(one, other)
