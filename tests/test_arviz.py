"""What ArviZ gets: its functions run on it, whichever ArviZ is installed, and unobserved entries are not in it."""

import os
import subprocess
import sys
import warnings

import arviz
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray
from arviz_stats import ess, rhat

import ppnmf
from ppnmf.evidence import loo
from ppnmf.models import ExponentialGaussian
from tests.scenarios import drawn

N, D = 12, 9
X = drawn(N, D, 2, rate=0.3)[0].abs()
MASK = (torch.arange(N * D) % 5 != 0).reshape(N, D)
GROUPS = ("observed_data", "log_likelihood", "posterior_predictive")
pytestmark = pytest.mark.filterwarnings("ignore:Estimated shape parameter:UserWarning")


@pytest.fixture(scope="module", params=[None, MASK], ids=["whole", "masked"])
def post(request):
    return ppnmf.fit(ExponentialGaussian(2), X, mask=request.param, draws=50, warmup=50, chains=2)


@pytest.fixture(scope="module")
def masked():
    return ppnmf.fit(ExponentialGaussian(2), X, mask=MASK, draws=50, warmup=50, chains=2)


@pytest.fixture
def given(post):
    yield post.to_arviz(log_likelihood=True, posterior_predictive=True)
    plt.close("all")


def elpd(found):
    return found.elpd if hasattr(found, "elpd") else found.elpd_loo  # ArviZ 0.23


def test_it_has_the_form_that_the_installed_arviz_takes(post):
    wanted = arviz.InferenceData if hasattr(arviz, "from_datatree") else xarray.DataTree
    assert isinstance(post.to_arviz(), wanted)
    assert isinstance(post.to_datatree(), xarray.DataTree)
    assert set(post.to_arviz().posterior.data_vars) == {"W", "H", "sigma2"}


def test_summary_ess_and_rhat_judge_the_draws(post, given):
    draws = post.draws["sigma2"].numpy()
    assert float(arviz.rhat(given)["sigma2"]) == pytest.approx(float(rhat(draws)))
    assert float(arviz.ess(given)["sigma2"]) == pytest.approx(float(ess(draws)))
    table = arviz.summary(given, var_names=["sigma2", "H"])
    assert len(table) == 1 + 2 * D
    assert float(table.loc["sigma2", "mean"]) == pytest.approx(draws.mean(), rel=0.02)


@pytest.mark.parametrize("name", ["plot_trace", "plot_autocorr", "plot_rank"])
def test_plots_of_draws_are_drawn(name, given):
    getattr(arviz, name)(given, var_names=["sigma2"])
    assert plt.get_fignums()


def test_replicates_are_drawn_beside_the_data(given):
    if hasattr(arviz, "plot_ppc"):
        arviz.plot_ppc(given)
        arviz.plot_loo_pit(given, y="X")
    else:
        arviz.plot_ppc_dist(given)
        arviz.plot_loo_pit(given)
    assert plt.get_fignums()


def test_loo_is_that_of_our_own_criterion(post, given):
    rows, columns = loo.sampled(post.X, N * D, 0)
    terms, _ = loo._pointwise(post, post.X, rows, columns)
    efficiency = loo._efficiency(loo._log_densities(post, post.X, rows[:40], columns[:40]))
    found = arviz.loo(given, reff=efficiency, pointwise=True)
    assert found.n_data_points == post.X.n_observed == len(terms)
    assert float(elpd(found)) == pytest.approx(terms.sum(), abs=1e-3)


def test_unobserved_entries_are_left_out_of_every_group_that_is_counted(masked):
    tree = masked.to_datatree(log_likelihood=True, posterior_predictive=True)
    row, column = np.nonzero(MASK.numpy())
    for group in GROUPS:
        found = tree[group]["X"]
        assert found.dims[-1] == "cell" and found.shape[-1] == int(MASK.sum())
        assert np.array_equal(found["row"], row) and np.array_equal(found["column"], column)
    assert np.array_equal(tree["observed_data"]["X"], X[MASK])
    assert np.array_equal(tree["log_likelihood"]["X"], masked.log_likelihood()[..., MASK])
    assert np.array_equal(tree["posterior_predictive"]["X"], masked.predictive(masked.seed)[..., MASK])
    assert tree["constant_data"]["mask"].shape == (N, D)
    replicates = masked.to_datatree(posterior_predictive=True)
    assert replicates["observed_data"]["X"].dims == ("cell",)


def test_entries_keep_the_names_of_their_row_and_column(masked):
    rows, columns = [f"gene {i}" for i in range(N)], list("abcdefghi")
    found = masked.to_arviz(log_likelihood=True, rows=rows, columns=columns).log_likelihood["X"]
    at = np.nonzero(MASK.numpy())
    assert list(found["row"].values) == [rows[i] for i in at[0]]
    assert list(found["column"].values) == [columns[j] for j in at[1]]


def test_a_saved_posterior_is_opened_by_arviz(masked, tmp_path):
    opened = arviz.from_netcdf(masked.save(tmp_path / "fit.nc"))
    assert len(arviz.summary(opened, var_names=["sigma2"])) == 1


def test_the_daily_warning_is_not_shown_when_we_import_arviz(tmp_path):
    code = (
        "import xarray\n"
        "from ppnmf.arviz import for_arviz\n"
        "for_arviz(xarray.DataTree.from_dict({'posterior': xarray.Dataset()}))\n"
    )
    fresh = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "MPLCONFIGDIR": matplotlib.get_cachedir()}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | fresh, capture_output=True, text=True)
    assert done.returncode == 0 and "refactor" not in done.stderr, done.stderr


def test_the_daily_warning_is_excused_where_a_test_imports_arviz():
    with warnings.catch_warnings(record=True) as raised:
        warnings.warn("\nArviZ is undergoing a major refactor to improve flexibility", FutureWarning, stacklevel=1)
    assert not raised
