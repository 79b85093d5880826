"""The table of what differs, and the main job."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import ppnmf
from ppnmf import report
from ppnmf.data import toy
from ppnmf.data.matrix import as_matrix
from ppnmf.models import ExponentialGaussian

OPTIONS = {
    "gibbs": {"draws": 40, "warmup": 20, "chains": 2},
    "icm": {"restarts": 2, "tol": 1e-4},
    "pae": {"draws": 20, "steps": 30},
}


@pytest.fixture(scope="module")
def X():
    return toy.draw(30, 20, rank=2, noise=0.1, seed=3).X.clamp(min=0).numpy()


@pytest.fixture(scope="module")
def experiment(X):
    return report.compare_methods(X, 2, options=OPTIONS, progress=False)


def row(table, name):
    (found,) = [row for row in table.rows if row["method"] == name]
    return found


def test_each_method_has_its_row(experiment):
    assert [row["method"] for row in experiment.table.rows] == ["gibbs", "icm", "pae"]
    for found in experiment.table.rows:
        assert found["seconds"] > 0 and found["error"] > 0 and found["hidden_error"] > 0 and found["remark"]
    kinds = [found["log_density_of"] for found in experiment.table.rows]
    assert kinds == ["log joint, mean", "log joint, best mode", "ELBO"]
    assert row(experiment.table, "gibbs")["worst_rhat"] > 0.9 and row(experiment.table, "icm")["worst_rhat"] is None


def test_every_method_saw_the_same_cells(experiment):
    for post in experiment.fits.values():
        assert np.array_equal(post.X.mask.numpy(), experiment.seen)
        assert bool((post.X.values[~post.X.mask] == 0).all())


def test_errors_are_root_mean_squared_over_their_cells(X, experiment):
    residual = X - experiment.fits["gibbs"].reconstruction().numpy()
    found = row(experiment.table, "gibbs")
    assert found["error"] == pytest.approx((residual[experiment.seen] ** 2).mean() ** 0.5)
    assert found["hidden_error"] == pytest.approx((residual[~experiment.seen] ** 2).mean() ** 0.5)


def test_a_mode_is_scored_by_its_best_restart(X, experiment):
    modes = experiment.fits["icm"]
    best = int(modes.stats["lp"].argmax())
    residual = X - (modes.draws["W"][best, 0] @ modes.draws["H"][best, 0]).numpy()
    assert row(experiment.table, "icm")["hidden_error"] == pytest.approx(
        (residual[~experiment.seen] ** 2).mean() ** 0.5
    )


def test_the_score_is_the_mean_log_predictive_density(X, experiment):
    post = experiment.fits["gibbs"]
    density = torch.distributions.Normal(
        post.draws["W"] @ post.draws["H"], post.draws["sigma2"].sqrt()[..., None, None]
    )
    mixed = density.log_prob(torch.from_numpy(X)).flatten(0, 1).logsumexp(0) - np.log(80)
    wanted = float(mixed[torch.from_numpy(~experiment.seen)].mean())
    assert row(experiment.table, "gibbs")["hidden_log_score"] == pytest.approx(wanted)


def test_the_table_prints_the_priors_and_the_verdicts(experiment):
    text = str(experiment.table)
    for part in (
        "ExponentialGaussian(rank=2, rate_W=",
        "PAENMF(rank=2",
        "root mean squared",
        "chains",
        "Hidden cells are predicted",
    ):
        assert part in text
    assert json.loads(json.dumps(experiment.table.to_dict()))["rows"][0]["method"] == "gibbs"


def test_scores_of_counts_and_of_densities_are_not_compared():
    C = (np.random.default_rng(1).uniform(size=(20, 8)) < 0.1).astype(float)
    C[0] = 1
    options = {name: {**own, "restarts": 1} if name == "icm" else own for name, own in OPTIONS.items()}
    table = report.compare_methods(C, 1, model="gamma_poisson", options=options, progress=False).table
    assert "cannot be compared" in str(table) and "best score" not in str(table)


def test_a_method_that_cannot_take_the_data_is_left_out_and_says_why(X):
    negative = X.copy()
    negative[0, 0] = -0.2
    with pytest.warns(UserWarning, match="1 negative entries"):
        experiment = report.compare_methods(negative, 2, options=OPTIONS, progress=False)
    found = row(experiment.table, "pae")
    assert set(found) == {"method", "remark"}
    assert "left out: X has 1 negative entries (least -0.2); pae_nmf needs data >= 0" in found["remark"]
    assert row(experiment.table, "gibbs")["error"] > 0 and set(experiment.fits) == {"gibbs", "icm"}


def test_bad_options_are_errors_and_not_left_out_rows(X):
    with pytest.raises(ValueError, match="draws is 0"):
        report.compare_methods(X, 2, options={"gibbs": {"draws": 0}}, progress=False)
    with pytest.raises(ValueError, match="rank is 0"):
        report.compare_methods(X, 0, progress=False)


def test_missing_cells_are_neither_fitted_nor_scored(X):
    holes = X.copy()
    holes[::3, ::4] = np.nan
    experiment = report.compare_methods(holes, 2, missing="nan", options=OPTIONS, progress=False)
    known = np.isfinite(holes)
    assert not experiment.seen[~known].any()
    hidden = known & ~experiment.seen
    assert f"{experiment.seen.sum()} cells fitted, {hidden.sum()} hidden" in str(experiment.table)
    assert np.isfinite([found["hidden_error"] for found in experiment.table.rows]).all()


def test_a_fit_that_saw_hidden_cells_is_told_of(X):
    model = ExponentialGaussian.scaled_to(X, 2)
    post = ppnmf.fit(model, X, draws=5, warmup=5, chains=2, progress=False)
    mask = np.ones(X.shape, bool)
    mask[:2] = False
    with pytest.warns(UserWarning, match="gibbs saw 40 of the cells that are scored as hidden"):
        ppnmf.compare({"gibbs": post}, X, mask=mask)
    assert ppnmf.compare({"gibbs": post}, X).rows[0]["hidden_error"] is None
    with pytest.raises(ValueError, match="fits of the same data"):
        ppnmf.compare({"gibbs": post}, X[:5])
    with pytest.raises(ValueError, match="no posterior to compare"):
        ppnmf.compare({"gibbs": "left out"}, X)


def test_data_are_brought_into_the_order_of_the_fits_by_name(X):
    frame = pd.DataFrame(X).add_prefix("gene ").rename(index="cell {}".format)
    seen = frame.rank(axis=1) > 3
    model = ExponentialGaussian.scaled_to(frame, 2, seen)
    options = {"draws": 5, "warmup": 2, "chains": 1, "progress": False}
    fits = {"named": ppnmf.fit(model, frame, mask=seen, **options), "plain": ppnmf.fit(model, X, mask=seen, **options)}
    told = row(ppnmf.compare(fits, X, seen.to_numpy()), "named")
    for data, mask in ((frame, None), (frame.iloc[::-1, ::-1], None), (frame.iloc[::-1, ::-1], seen)):
        found = row(ppnmf.compare(fits, data, mask), "named")
        assert found["error"] == pytest.approx(told["error"]), "by position it would be several times as large"
        assert found["hidden_error"] == pytest.approx(told["hidden_error"])
    array = seen.to_numpy()[::-1, ::-1]  # in the order of the data that it is given with
    assert row(ppnmf.compare(fits, frame.iloc[::-1, ::-1], array.copy()), "named")["error"] == pytest.approx(
        told["error"]
    )
    with pytest.raises(ValueError, match="X's columns are not those of the fits: 'gene 0' is missing and 'gene x'"):
        ppnmf.compare(fits, frame.rename(columns={"gene 0": "gene x"}))
    other = ppnmf.fit(model, frame.iloc[:, ::-1], **options)
    with pytest.raises(ValueError, match="other was fitted to X with its columns named 'gene 19', .* compare fits of"):
        ppnmf.compare({**fits, "other": other}, frame)


def test_about_the_given_share_is_held_out_by_keyed_numbers():
    data = as_matrix(torch.ones(100, 80))
    seen = report.held_out_mask(data, 0.1, seed=4)
    assert abs(int((~seen).sum()) - 800) < 4 * (8000 * 0.09) ** 0.5
    assert torch.equal(seen[:50], report.held_out_mask(as_matrix(torch.ones(50, 80)), 0.1, seed=4))
    assert not torch.equal(seen, report.held_out_mask(data, 0.1, seed=5))
    with pytest.raises(ValueError, match="held_out is 1"):
        report.held_out_mask(data, 1)


def test_no_row_or_column_is_hidden_whole():
    seen = report.held_out_mask(as_matrix(torch.ones(40, 2)), 0.9)
    assert bool(seen.any(0).all()) and bool(seen.any(1).all())


def test_after_an_interruption_the_rest_is_left_out(X, monkeypatch):
    def interrupted(model, *args, method, **options):
        post = ppnmf.fit(model, X, method=method, draws=5, warmup=5, chains=2, progress=False)
        return replace(post, attrs={**post.attrs, "interrupted": True})

    monkeypatch.setattr(report.experiment, "fit", interrupted)
    experiment = report.compare_methods(X, 2, held_out=0.0, progress=False)
    assert experiment.interrupted and list(experiment.fits) == ["gibbs"]
    assert "interrupted" in row(experiment.table, "pae")["remark"]


def test_the_folder_holds_pictures_posteriors_and_a_run_file(experiment, tmp_path):
    seen = []
    files = report.write(
        experiment, tmp_path / "new" / "folder", rows=[f"r{i}" for i in range(30)], written=seen.append
    )
    names = {path.name for path in files}
    assert seen == files and all(path.stat().st_size > 0 for path in files)
    assert {
        "table.txt",
        "run.json",
        "gibbs.nc",
        "icm.nc",
        "pae.nc",
        "components-gibbs.png",
        "traces-gibbs.png",
    } <= names
    assert {"training-pae.png", "loadings.png", "reconstructions.png"} <= names
    facts = json.loads((tmp_path / "new" / "folder" / "run.json").read_text())
    assert {"python", "torch", "pyro-ppl", "numpy", "arviz", "ppnmf"} <= set(facts["versions"])
    assert facts["options"]["seed"] == 0 and facts["device"] == "cpu" and facts["threads"] >= 1
    assert facts["seconds"]["all"] > 0 and facts["data"]["shape"] == [30, 20]
    again = ppnmf.Posterior.load(tmp_path / "new" / "folder" / "gibbs.nc")
    assert torch.equal(again.draws["W"], experiment.fits["gibbs"].draws["W"])


def test_large_draws_are_thinned_for_the_file(experiment):
    post = experiment.fits["gibbs"]
    thin = report.thinned(post, entries=1000)
    assert thin.attrs["kept_every"] > 1 and thin.draws["W"].shape[1] == thin.stats["lp"].shape[1] >= 1
    assert torch.equal(thin.draws["W"][:, -1], post.draws["W"][:, thin.n_draws * thin.attrs["kept_every"] - 1])
    assert report.thinned(post) is post
    assert report.thinned(post, entries=1).n_draws == 1
