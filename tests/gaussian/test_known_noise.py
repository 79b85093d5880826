"""A noise variance that is known: every method takes it, nothing draws it, and evidence is that of quadrature."""

import pickle
from dataclasses import replace

import pytest
import torch
from pyro import poutine

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke
from ppnmf.evidence import information
from ppnmf.gaussian import noise
from ppnmf.inference import chain
from ppnmf.models import ExponentialGaussian, TruncatedNormalGaussian
from ppnmf.rng import Stream
from tests.evidence.exact import rank_one
from tests.scenarios import LUCK, drawn, example, judge_modes, mask_of, per_entry_model, uneven

GAUSSIAN = ["exponential_gaussian", "half_normal_gaussian", "truncated_normal_gaussian", "ard_gaussian"]
every = pytest.mark.parametrize("name", GAUSSIAN)
KNOWN = 1.7
QUIET = {"progress": False, "seed": 1}
pytestmark = [
    pytest.mark.filterwarnings("ignore:X has .* negative entries"),
    pytest.mark.filterwarnings("ignore:log_evidence by"),  # short runs
]


def known(name="exponential_gaussian", N=6, D=4, rank=2):
    return replace(example(name, N, D, rank), sigma2=KNOWN)


@every
@pytest.mark.parametrize("method", ["gibbs", "icm", "vb", "smc", "nuts", "hals"])
def test_every_method_has_the_known_variance_in_each_draw(name, method):
    X = drawn(6, 4, 2, noise=KNOWN)[0].abs()
    lengths = {"gibbs": {"draws": 5, "warmup": 3}, "nuts": {"draws": 3, "warmup": 2, "chains": 2}, "vb": {"draws": 4}}
    few = {"smc": {"particles": 8, "replicates": 2}, "icm": {"restarts": 2}, "hals": {"restarts": 2}}
    post = ppnmf.fit(known(name), X, method=method, **QUIET, **(lengths | few).get(method, {}))
    assert torch.equal(post.draws["sigma2"], torch.full_like(post.draws["sigma2"], KNOWN))
    assert post.draws["sigma2"].shape == post.stats["lp"].shape and bool(post.stats["lp"].isfinite().all())


@every
def test_the_story_and_the_sweeps_have_one_log_joint(name):
    model, X = known(name), drawn(6, 4, 2)[0].abs()
    params = model.prior_draws((6, 4), 1, Stream.of(3))
    given = {site: values[0] for site, values in params.items() if site != "sigma2"}
    trace = poutine.trace(poutine.condition(model, data=given)).get_trace(X)
    own = trace.log_prob_sum()
    assert "sigma2" in trace.nodes and float(chain.log_joint(model, as_matrix(X), params)) == pytest.approx(float(own))


@pytest.mark.parametrize(
    ("name", "hidden"),
    [(name, hidden) for name in GAUSSIAN for hidden in (False, True) if not (hidden and "ard" in name)],
)
def test_sweeps_leave_the_joint_distribution_as_it_is(name, hidden):
    found = geweke(known(name, 4, 3), (4, 3), sweeps=20, chains=200, seed=1, mask=mask_of((4, 3)) if hidden else None)
    assert found.p_value > LUCK, found.worst


@pytest.mark.parametrize(
    ("method", "hidden"),
    [("chib", False), ("chib", True), ("stepping_stone", False), ("stepping_stone", True), ("smc", False)],
)
def test_evidence_matches_quadrature(method, hidden):
    X = drawn(10, 3, 1, seed=3, noise=KNOWN)[0]
    model, mask = replace(per_entry_model(10, 3, 1), sigma2=KNOWN), mask_of((10, 3)) if hidden else None
    sizes = {"chib": {"draws": 200, "thin": 1, "warmup": 100}, "smc": {"particles": 100, "warmup": 0}}
    settings = sizes.get(method, {"draws": 400, "warmup": 100}) | QUIET
    evidence = ppnmf.log_evidence(model, X, method=method, mask=mask, replicates=4, **settings)
    exact = rank_one(model, X, mask)
    assert abs(evidence.log_evidence - exact) < max(0.15, 4 * evidence.mcse) and evidence.mcse < 0.15
    random = rank_one(replace(model, sigma2=None), X, mask)
    assert abs(random - exact) > 1, "so that a variance that is drawn would show"
    assert "sigma2 = 1.7" in str(evidence) and "noise_scale" not in str(evidence)


def test_other_priors_of_the_family_match_quadrature_too():
    X = drawn(8, 3, 1, seed=5, noise=KNOWN)[0]
    model = replace(uneven(TruncatedNormalGaussian, 8, 3, 1), sigma2=KNOWN)
    for method, few in (("chib", {"thin": 1, "draws": 200}), ("stepping_stone", {"draws": 400})):
        evidence = ppnmf.log_evidence(model, X, method=method, warmup=100, replicates=4, **few, **QUIET)
        assert abs(evidence.log_evidence - rank_one(model, X)) < max(0.15, 4 * evidence.mcse)


def test_a_variance_that_is_drawn_all_the_same_is_found(monkeypatch):
    prior = noise.NoisePrior(5.0, 20.0)
    monkeypatch.setattr(noise.KnownNoise, "draw", lambda self, *given: prior.draw(*given))
    monkeypatch.setattr("ppnmf.gaussian.sweep.compiled", lambda *given: None)
    assert geweke(known(N=4, D=3), (4, 3), sweeps=40, chains=150, seed=1).p_value < LUCK


def test_nuts_and_gibbs_agree():
    X = drawn(5, 4, 1, noise=KNOWN)[0]
    model = ExponentialGaussian(1, sigma2=KNOWN)
    by = {
        "gibbs": ppnmf.fit(model, X, draws=1000, warmup=200, chains=2, **QUIET),
        "nuts": ppnmf.fit(model, X, method="nuts", draws=100, warmup=50, chains=1, **QUIET),
    }
    products = {name: (post.draws["W"] @ post.draws["H"]).flatten(0, 1) for name, post in by.items()}
    error = products["nuts"].std(0) / 25**0.5  # of a hundred draws, a quarter of which count
    assert bool(((products["nuts"].mean(0) - products["gibbs"].mean(0)).abs() < 5 * error).all())


def test_the_bound_lies_below_the_evidence_and_modes_climb():
    X = drawn(10, 3, 1, seed=3, noise=KNOWN)[0]
    model = replace(per_entry_model(10, 3, 1), sigma2=KNOWN)
    exact = rank_one(model, X)
    bound = ppnmf.fit(model, X, method="vb", draws=10, **QUIET).attrs["elbo"]
    assert exact - 3 < max(bound if isinstance(bound, list) else [bound]) < exact
    judge_modes(known(), drawn(6, 4, 2)[0], None)


def test_criteria_count_no_parameter_for_it_and_take_it_as_it_is():
    X = drawn(10, 6, 1, noise=KNOWN)[0]
    model = ExponentialGaussian(1, sigma2=KNOWN)
    assert information.parameters(model, as_matrix(X), False) == 16
    score = information.bic(model, as_matrix(X), progress=False)
    mode = ppnmf.fit(model, X, method="icm", restarts=4, seed=0, progress=False)
    params = {site: values[:, 0] for site, values in mode.draws.items()}
    wanted = -2 * model.log_likelihood_at(params, as_matrix(X)) + 16 * torch.tensor(60.0).log()
    assert score.value == pytest.approx(float(wanted.min()))
    held = ppnmf.select_rank(model, X, [1, 2], method="heldout", draws=20, warmup=20, folds=2, progress=False)
    assert set(held.scores["heldout"]) == {1, 2}


def test_a_given_start_does_not_override_it_and_reduced_models_keep_it(tmp_path):
    X = drawn(6, 4, 2)[0].abs()
    model = known()
    W, H = torch.ones(6, 2), torch.ones(2, 4)
    post = ppnmf.fit(model, X, init={"W": W, "H": H, "sigma2": torch.tensor(9.0)}, draws=2, warmup=0, chains=1, **QUIET)
    assert float(post.draws["sigma2"].min()) == KNOWN
    post.save(tmp_path / "fit.nc")
    assert ppnmf.Posterior.load(tmp_path / "fit.nc").model == model
    assert pickle.loads(pickle.dumps(model)) == model and hash(pickle.loads(pickle.dumps(model))) == hash(model)
    assert model.rescaled(2.0).sigma2 == KNOWN and model.for_rows(range(2)).sigma2 == KNOWN


def test_a_variance_must_be_positive_and_is_left_out_where_it_is_not_known():
    with pytest.raises(ValueError, match="sigma2 is 0"):
        ExponentialGaussian(2, sigma2=0.0)
    with pytest.raises(ValueError, match="sigma2 is -1"):
        ppnmf.models.ARDGaussian(2, sigma2=-1.0)
    assert (
        "sigma2" not in ExponentialGaussian(2).config() and ExponentialGaussian(2, sigma2=2).config()["sigma2"] == 2.0
    )
