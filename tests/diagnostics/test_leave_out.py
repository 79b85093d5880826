"""What ArviZ says of our posteriors: leave-one-out, folds, stacking, power-scaling, nested R-hat, uniformity."""

import copy
import warnings
from dataclasses import replace

import arviz_stats
import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats

import ppnmf
from ppnmf.diagnostics import leave_out
from ppnmf.diagnostics.calibration import SBC, sbc
from ppnmf.models import PAENMF, ExponentialGaussian
from tests.scenarios import drawn

N, D = 14, 9
X = drawn(N, D, 2, rate=0.3)[0].abs()
MASK = (torch.arange(N * D) % 5 != 0).reshape(N, D)
pytestmark = pytest.mark.filterwarnings("ignore:Estimated shape parameter:UserWarning")
QUIET = {"draws": 60, "warmup": 60, "chains": 2, "init": "scaled", "progress": False}


@pytest.fixture(scope="module")
def post():
    return ppnmf.fit(ExponentialGaussian(2), X, mask=MASK, **QUIET)


@pytest.fixture(scope="module")
def other():
    return ppnmf.fit(ExponentialGaussian(1), X, mask=MASK, **QUIET)


@pytest.fixture(scope="module")
def pae():
    return ppnmf.fit(PAENMF(1), X, method="svi", steps=300, draws=400, progress=False)


def test_loo_is_arviz_s_of_the_observed_cells(post):
    found = ppnmf.loo(post)
    tree = post.to_datatree(log_likelihood=True)
    wanted = arviz_stats.loo(tree, pointwise=True)
    assert float(found.elpd) == pytest.approx(float(wanted.elpd)) and found.n_data_points == int(MASK.sum())
    at = MASK.nonzero()
    assert found.elpd_i["row"].values.tolist() == at[:, 0].tolist()
    assert found.pareto_k["column"].values.tolist() == at[:, 1].tolist()


def test_a_sample_of_cells_tells_nearly_as_much(post):
    whole, some = ppnmf.loo(post), ppnmf.loo(post, cells=60, seed=1)
    assert some.subsample_size == 60
    assert abs(float(some.elpd - whole.elpd)) < 4 * float(some.subsampling_se)


def test_names_come_back_with_the_cells():
    named = ppnmf.fit(ExponentialGaussian(1), X, **QUIET)
    named = replace(named, names={"rows": [f"cell {i}" for i in range(N)]})
    assert ppnmf.loo(named).elpd_i["row"].values[D] == "cell 1"


def test_stacking_gives_the_weight_to_the_rank_that_predicts(post, other):
    table = ppnmf.stacking({"two": post, "one": other})
    assert table["weight"]["two"] > 0.8 and table.index[0] == "two"
    with pytest.raises(ValueError, match="saw other cells"):
        ppnmf.stacking({"two": post, "whole": ppnmf.fit(ExponentialGaussian(1), X, **QUIET)})
    with pytest.raises(ValueError, match="two or more"):
        ppnmf.stacking({"two": post})


def test_folds_are_fitted_without_their_cells_and_predict_them(post, monkeypatch):
    hidden = []
    fit = leave_out.fit

    def watched(model, data, **options):
        hidden.append(MASK & ~data.mask)
        return fit(model, data, **options)

    monkeypatch.setattr(leave_out, "fit", watched)
    found = ppnmf.kfold(post, 3, seed=2, **{name: QUIET[name] for name in ("draws", "warmup", "init")})
    assert torch.equal(torch.stack(hidden).sum(0).bool(), MASK) and int(torch.stack(hidden).sum()) == int(MASK.sum())
    assert found.n_data_points == int(MASK.sum()) and float(found.elpd) < float(ppnmf.loo(post).elpd) + 5
    own = fit(post.model, post.X.hide(~hidden[0] & MASK), seed=2, **QUIET)
    i, j = hidden[0].nonzero()[0].tolist()
    value = torch.distributions.Normal((own["W"] @ own["H"])[..., i, j], own["sigma2"].sqrt()).log_prob(X[i, j])
    wanted = float(value.flatten().logsumexp(0)) - np.log(value.numel())
    place = int(MASK.flatten()[: i * D + j].sum())
    assert float(found.elpd_i[place]) == pytest.approx(wanted)


def test_of_an_approximation_the_weights_lead_to_the_posterior(pae):
    vb = ppnmf.fit(ExponentialGaussian(1), X[:4, :3], method="vb", draws=400, progress=False)
    found = ppnmf.loo(vb)
    assert found.approx_posterior and found.n_data_points == 12
    logs = torch.from_numpy(leave_out._tree(vb, torch.ones(4, 3).nonzero())["log_likelihood"]["X"].values)
    weights = (vb.stats["lp"] - vb.stats["log_q"])[..., None] - logs
    plain = (weights + logs).logsumexp((0, 1)) - weights.logsumexp((0, 1))  # without smoothing of the tail
    np.testing.assert_allclose(found.elpd_i.values, plain.numpy(), atol=1.0)
    with pytest.raises(TypeError, match="icm left modes"):
        ppnmf.loo(ppnmf.fit(ExponentialGaussian(1), X, method="icm", restarts=1, progress=False))
    with pytest.raises(TypeError, match="weighs draws by their density"):
        ppnmf.loo(pae)


def test_k_hats_of_rows_are_those_of_weights_by_hand(pae):
    guide = pae.model.encode(X)
    W, H = pae["W"][0].double(), pae["H"][0, 0].double()  # (S, N, 1)
    prior = torch.distributions.Exponential(1.0).log_prob(W).sum(-1)
    logs = prior + torch.distributions.Normal(W @ H, pae["sigma2"][0, 0].double().sqrt()).log_prob(X).sum(-1)
    logs = logs - guide.log_prob(W.to(guide.scale)).double().sum(-1)
    wanted = [float(array_stats.psislw(-row.detach().numpy())[1]) for row in logs.mT]
    np.testing.assert_allclose(ppnmf.row_k_hats(pae), wanted, atol=0.01)
    assert ppnmf.row_k_hats(pae, 5).shape == (5,)
    with pytest.raises(TypeError, match="exponential_gaussian has none"):
        ppnmf.row_k_hats(ppnmf.fit(ExponentialGaussian(1), X, **QUIET))
    with pytest.raises(ValueError, match="takes 100 draws, and there are 30"):
        ppnmf.row_k_hats(pae.select(draws=slice(0, 30)))


def test_k_hats_of_rows_tell_a_guide_that_is_too_narrow(pae):
    model = copy.deepcopy(pae.model)
    with torch.no_grad():
        model.to_concentration.bias += 2.0  # a greater k is a narrower Weibull
        guide = model.encode(X)
        torch.manual_seed(0)
        W = guide.sample((400,))[None]
    narrow = replace(pae, model=model, draws={**pae.draws, "W": W})
    assert (ppnmf.row_k_hats(narrow) > ppnmf.row_k_hats(pae)).mean() > 0.8
    shown = replace(narrow, attrs={**narrow.attrs, "converged": True})
    good = int((ppnmf.row_k_hats(narrow) <= 0.7).sum())
    assert f"in {good} of 14 rows looked at the guide can stand for it" in ppnmf.summary(shown).sentence


def test_a_prior_that_decides_is_seen_and_one_that_does_not_is_not():
    strong = ExponentialGaussian(1, noise_shape=500.0, noise_scale=5000.0)
    weak = ExponentialGaussian(1, noise_shape=1.0, noise_scale=1.0)
    settings = {**QUIET, "draws": 300}
    tables = [ppnmf.prior_sensitivity(ppnmf.fit(model, X, **settings), n=3) for model in (strong, weak)]
    assert tables[0]["prior"]["sigma2"] > 4 * tables[1]["prior"]["sigma2"]
    assert len(tables[0]) == 1 + 1 + 3 and "conflict" in str(tables[0]["diagnosis"]["sigma2"])
    with pytest.raises(TypeError, match="icm left modes"):
        ppnmf.prior_sensitivity(ppnmf.fit(weak, X, method="icm", restarts=1, progress=False))


def test_nested_r_hat_compares_superchains(post):
    four = ppnmf.fit(ExponentialGaussian(2), X, **{**QUIET, "chains": 4})
    found = ppnmf.nested_rhat(four, [0, 0, 1, 1], n=2)
    wanted = arviz_stats.rhat_nested(four["sigma2"].numpy(), superchain_ids=[0, 0, 1, 1])
    assert found["sigma2"] == pytest.approx(float(wanted)) and set(found) >= {"lp", "strength[0]", "WH[1]"}
    with pytest.raises(ValueError, match="give a number for each of the 4 chains"):
        ppnmf.nested_rhat(four, [0, 0, 1])
    with pytest.raises(ValueError, match="equally many"):
        ppnmf.nested_rhat(four, [0, 0, 0, 1])


def test_uniformity_is_arviz_s_or_said_to_be_absent():
    ranks = SBC({"sigma2": torch.rand(200, generator=torch.Generator().manual_seed(0)).double()}, 99)
    if not hasattr(array_stats, "uniformity_test"):
        with pytest.raises(NotImplementedError, match="came with ArviZ 1"):
            ranks.uniformity()
        return
    assert ranks.uniformity()["sigma2"] > 1e-4
    assert SBC({"sigma2": ranks.ranks["sigma2"] ** 2}, 99).uniformity()["sigma2"] < 1e-4


def test_cells_of_more_data_than_are_looked_at_still_tell_the_ranks_apart():
    """Subsampled LOO has NaN at the other cells, of which no weights can be made: the same cells are taken of each."""
    data = drawn(60, 50, 2, noise=0.05)[0].abs()
    fits = {
        f"rank {K}": ppnmf.fit(ExponentialGaussian(K), data, **{**QUIET, "draws": 60, "warmup": 60}) for K in (1, 2)
    }
    table = ppnmf.stacking(fits, cells=500)
    assert table["weight"]["rank 2"] > 0.95
    with pytest.raises(ValueError, match="saw other values of X"):
        ppnmf.stacking({**fits, "other": ppnmf.fit(ExponentialGaussian(1), 3 * data + 1, **QUIET)})


@pytest.mark.parametrize(
    "name", ["column_noise_gaussian", "exponential_gaussian", "gamma_poisson", "tri_factor", "ard_gaussian"]
)
def test_densities_of_cells_are_those_of_the_matrix(name):
    data = torch.poisson(5 * drawn(9, 5, 2)[0].abs(), generator=torch.Generator().manual_seed(0)) + 1
    post = ppnmf.fit(name, data, rank=2, draws=4, warmup=10, chains=2, progress=False)
    at = torch.ones(9, 5).nonzero()
    cells = post.log_likelihood_at(*at.unbind(1)).view(2, 4, 9, 5)
    torch.testing.assert_close(cells, post.log_likelihood().double())


def test_too_few_draws_get_a_sentence(post):
    with pytest.raises(ValueError, match="leave-one-out needs 25 draws or more, and there are 2"):
        ppnmf.loo(post.select(draws=slice(0, 1)))


def test_a_quantity_that_is_known_is_no_evidence_against_a_sampler():
    def of_constants(model, params, X, mask):
        return {"known": torch.full((len(params["W"]),), 0.5)}

    def fit(model, X, seed):
        return ppnmf.fit(model, X, draws=9, warmup=2, chains=1, init="prior", seed=seed, progress=False)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sbc(ExponentialGaussian(1), (3, 2), fit, simulations=100, statistics=of_constants)
    assert found.p_value > 1e-3
