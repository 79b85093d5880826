"""The Poisson-gamma model: what it takes and refuses, and what is done with a fit of it."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.models import GammaPoisson
from ppnmf.poisson.exposures import mean_exposure
from tests.scenarios import uneven_counts

generator = np.random.default_rng(1)
X = generator.poisson(4 * generator.gamma(0.7, size=(14, 2)) @ generator.gamma(0.7, size=(2, 9)))
QUICK = {"draws": 20, "warmup": 20, "chains": 2, "seed": 1, "progress": False}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"rank": 2, "shape_W": 0.0}, "shape_W has entries that are not > 0"),
        ({"rank": 2, "rate_H": -1.0}, "rate_H has entries that are not >= 0"),
        ({"rank": 2, "exposures": 0.0}, "exposures has entries that are not positive"),
        ({"rank": 2, "exposures": np.ones((2, 2, 2))}, r"exposures has shape \(2, 2, 2\)"),
        ({"rank": 2, "shape_H": np.ones(3)}, r"shape_H has shape \(3,\)"),
    ],
)
def test_bad_hyperparameters_get_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        GammaPoisson(**options)


def test_exposures_of_another_shape_than_X_are_refused():
    with pytest.raises(ValueError, match=r"exposures has shape \(1, 4\) and X \(14, 9\)"):
        ppnmf.fit(GammaPoisson(2, exposures=np.ones(4)), X, **QUICK)


def test_exposures_with_names_are_matched_where_x_is_there_and_refused_where_it_is_not():
    frame = pd.DataFrame(X, [f"s{i}" for i in range(14)])
    depth = pd.Series(1 + generator.random(14), frame.index)
    found = GammaPoisson.for_data(frame, 2, exposures=depth[::-1])
    assert found == GammaPoisson.for_data(X, 2, exposures=depth.to_numpy()[:, None])
    sentence = r"exposures have names of rows \('s0', 's1', 's2' and 11 more\).* pass exposures.to_numpy\(\)"
    for exposures in (depth, depth.to_frame()):
        with pytest.raises(ValueError, match=sentence):
            GammaPoisson(2, exposures=exposures)
    counted = pd.DataFrame({"depth": depth.to_numpy()})
    assert GammaPoisson(2, exposures=counted) == GammaPoisson(2, exposures=counted.to_numpy())


def test_entries_that_are_no_counts_are_refused():
    for dirty, sentence in (
        (X + 0.5, "X has 126 entries that are not whole numbers below 2.53, such as 4.5; gamma_poisson needs counts"),
        (X - 1, "X has .* negative entries .*gamma_poisson needs counts"),
        (np.where(X == X.max(), 2.0**53, X), "not whole numbers below 2.53, such as 9.0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            ppnmf.fit(GammaPoisson(2), dirty, **QUICK)
    with pytest.raises(ValueError, match="gamma_poisson takes counts, which have no noise variance"):
        ppnmf.fit(GammaPoisson(2), X, noise=np.linspace(1, 2, 9), **QUICK)


def test_a_shape_below_one_has_no_mode():
    with pytest.raises(ValueError, match="shape_H is below 1 somewhere"):
        ppnmf.fit(GammaPoisson(2, shape_H=0.5), X, method="icm", progress=False)


def test_a_rate_of_zero_is_for_modes_alone():
    model = GammaPoisson(2, rate_W=0.0, rate_H=0.0)
    with pytest.raises(ValueError, match="rate_W is 0 somewhere"):
        ppnmf.fit(model, X, **QUICK)
    post = ppnmf.fit(model, X, method="icm", seed=2, tol=1e-9, progress=False)
    torch.testing.assert_close(post.reconstruction().sum(0), torch.from_numpy(X.sum(0)).double(), rtol=1e-4, atol=1e-4)


def test_models_are_values():
    model = uneven_counts(GammaPoisson, 14, 9, 2)
    again = pickle.loads(pickle.dumps(model))
    assert again == model and hash(again) == hash(model) and model != GammaPoisson(2)
    part = model.for_rows(range(3, 7))
    assert part.exposures.shape == (4, 9) and part.shape_W.shape == (4, 2)
    assert torch.equal(model.rescaled(2.0).rate_W * 2, model.rate_W) and torch.equal(
        model.rescaled(2.0).shape_W, model.shape_W
    )


def test_priors_on_the_scale_of_the_data_have_its_mean():
    e = 1 + generator.random((14, 9))
    seen = generator.random((14, 9)) > 0.2
    model = GammaPoisson.for_data(X, 3, mask=seen, exposures=e)
    assert 3 / (model.rate_W * model.rate_H) * e[seen].mean() == pytest.approx(X[seen].mean())
    assert mean_exposure(as_matrix(X, seen), torch.from_numpy(e)) == pytest.approx(e[seen].mean())
    with pytest.raises(ValueError, match="mean 0; it must be positive"):
        GammaPoisson.for_data(np.zeros((3, 3)), 1)


def test_the_program_draws_counts():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = uneven_counts(GammaPoisson, 5, 4, 2)(shape=(5, 4))
    assert drawn.shape == (5, 4) and bool((drawn == drawn.round()).all())
    with pytest.raises(ValueError, match="neither X nor shape"):
        GammaPoisson(2)()


@pytest.fixture(scope="module", params=["even", "entries"])
def post(request):
    model = GammaPoisson(2) if request.param == "even" else uneven_counts(GammaPoisson, 14, 9, 2)
    return ppnmf.fit(model, X, **QUICK)


def test_a_reconstruction_is_what_the_counts_are_expected_to_be(post):
    means = (post.model.exposure(torch.empty(0).double()) * (post.draws["W"] @ post.draws["H"])).mean((0, 1))
    torch.testing.assert_close(post.reconstruction(), means)
    torch.testing.assert_close(post.reconstruction(range(3, 8)), means[3:8])
    assert post.squared_error() == pytest.approx(float((torch.from_numpy(X) - means).square().sum()))


def test_replicates_and_new_rows_are_counts(post):
    for drawn in (post.predictive(seed=1), post.generate(500, seed=1, latent="aggregated")):
        assert bool((drawn == drawn.round()).all()) and float(drawn.min()) >= 0
    rows = post.generate(4000, seed=2, latent="aggregated")
    expected = post.reconstruction().mean(0)
    z = (rows.mean(0) - expected) / (rows.std(0) / 4000**0.5)
    assert float(z.abs().max()) < 4.5


def test_a_fit_is_saved_compared_and_shown(post, tmp_path):
    again = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert again.model == post.model and torch.equal(again.log_likelihood(), post.log_likelihood())
    mode = ppnmf.fit(GammaPoisson.for_data(X, 2), X, method="icm", seed=0, progress=False)
    table = ppnmf.compare({"gibbs": post, "icm": mode}, X)
    assert "gamma_poisson" in {row["model"] for row in table.rows} and "GammaPoisson(rank=2" in str(table)
    tree = post.to_datatree(log_likelihood=True, posterior_predictive=True)
    assert tree["log_likelihood"]["X"].shape[2:] == X.shape
    for plot in (ppnmf.plots.traces, ppnmf.plots.components):
        assert len(plot(post)) >= 2


def test_hidden_cells_are_scored_by_the_counts_density():
    hidden = generator.random(X.shape) > 0.2
    post = ppnmf.fit("gamma_poisson", X, rank=2, mask=hidden, **QUICK)
    row = ppnmf.compare({"gibbs": post}, X, mask=hidden).rows[0]
    each = post.likelihood({site: v.flatten(0, 1) for site, v in post.draws.items()}).log_prob(
        torch.from_numpy(X).double()
    )
    expected = (each.logsumexp(0) - np.log(len(each)))[~torch.from_numpy(hidden)].mean()
    assert row["hidden_log_score"] == pytest.approx(float(expected))
