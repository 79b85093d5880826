"""The rates' conditional, its proof by Geweke and SBC with mistakes planted, and what it is for: components that empty."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke, sbc
from ppnmf.gaussian import relevance
from ppnmf.gaussian.relevance import Hyperprior
from ppnmf.inference import gibbs
from ppnmf.models import ARDGaussian, ExponentialGaussian
from ppnmf.protocols import Address, Held, Sweeps
from ppnmf.rng import Stream
from tests.evidence.exact import rank_one
from tests.scenarios import drawn, example, held_out_errors, logarithms

LUCK, CAUGHT = 1e-4, 1e-6
SHAPE = (4, 3)


def judged(model, sweeps=60, chains=100):
    return geweke(model, SHAPE, sweeps=sweeps, chains=chains, seed=1, statistics=logarithms)


def test_the_rates_conditional_is_that_of_the_joint():
    """Differences of the log joint in a rate are those of its gamma density."""
    model = example("ard_gaussian", 5, 4, 2)
    data = as_matrix(drawn(5, 4, 2)[0])
    params = model.prior_draws((5, 4), 2, Stream.of(3))
    other = {**params, "rate": params["rate"] * 1.7}
    joint = gibbs.log_joint(model, data, other) - gibbs.log_joint(model, data, params)
    shape, scale = model.hyperprior((5, 4)).given(params["W"], params["H"])
    law = torch.distributions.Gamma(shape, scale)
    torch.testing.assert_close(joint, (law.log_prob(other["rate"]) - law.log_prob(params["rate"])).sum(-1))


def test_draws_of_the_rates_follow_it():
    _, W, H = drawn(5, 4, 2)
    hyper, many = Hyperprior(2.5, 3.0), 4000
    each = hyper.draw(W.expand(many, -1, -1), H.expand(many, -1, -1), Stream.of(0, many), 7)
    shape, scale = hyper.given(W, H)
    for k in range(2):
        assert stats.kstest(each[:, k].numpy(), stats.gamma(shape, scale=1 / float(scale[k])).cdf).pvalue > LUCK


@pytest.mark.parametrize("off", [-1, 1])
def test_n_plus_d_off_by_one_is_found(off, monkeypatch):
    right = Hyperprior.given
    wrong = lambda self, W, H: (right(self, W, H)[0] + off, right(self, W, H)[1])
    monkeypatch.setattr(Hyperprior, "given", wrong)
    assert judged(example("ard_gaussian", *SHAPE, 2)).p_value < CAUGHT


def test_moves_with_the_rates_of_another_sweep_are_found(monkeypatch):
    """Scale and shear are along W @ H = constant with the rates at hand; with others they change the posterior."""
    right = relevance.Exponential
    monkeypatch.setattr(relevance, "Exponential", lambda rate: right(rate * 1.5))
    assert judged(example("ard_gaussian", *SHAPE, 2)).p_value < CAUGHT


def sampled(model, X, seed):
    return gibbs.run(model, X, draws=31, thin=3, warmup=40, chains=len(X.each), seed=seed, init="prior", progress=False)


@pytest.mark.slow
def test_ranks_of_the_truth_are_uniform():
    found = sbc(example("ard_gaussian", 3, 2, 2), (3, 2), sampled, 200, seed=1, at_once=100)
    assert found.p_value > LUCK, found.worst


@pytest.mark.slow
def test_sbc_finds_n_plus_d_off_by_one(monkeypatch):
    right = Hyperprior.given
    wrong = lambda self, W, H: (right(self, W, H)[0] + 1, right(self, W, H)[1])
    monkeypatch.setattr(Hyperprior, "given", wrong)
    found = sbc(example("ard_gaussian", 3, 2, 2), (3, 2), sampled, 1000, seed=1, at_once=100)
    assert found.p_value < LUCK, found.worst


def test_rates_that_are_held_make_it_the_exponential_model():
    """Sweep by sweep, the same draws: the model given its rates is an exponential one."""
    X, (C, K) = drawn(12, 8, 2, rate=0.3)[0].abs(), (2, 3)
    model, data = ARDGaussian(K), as_matrix(X)
    params = model.begin(data, Stream.of(0, C), "scaled")
    params["rate"] = torch.tensor([[0.5, 1.0, 2.0]], dtype=torch.float64).expand(C, K)
    at = Address(Stream.of(1, C), 1)
    ours = model.sweep(params, data, Sweeps(number=4, kept=range(4), held=Held(others=True)), at)
    given = ExponentialGaussian(K, params["rate"][0], params["rate"][0])
    own = {site: values for site, values in params.items() if site != "rate"}
    theirs = given.sweep(own, data, Sweeps(number=4, kept=range(4), held=Held(others=True)), at)
    for site in ("W", "H"):
        assert torch.equal(ours.draws[site], theirs.draws[site])
    assert torch.equal(ours.draws["rate"], params["rate"][:, None].expand(C, 4, K))


@pytest.mark.slow
def test_the_bound_and_smc_lie_by_the_exact_evidence_at_rank_one():
    """The rate on a grid, the rest by quadrature given it."""
    X = torch.tensor([[1.0, 2.5], [0.2, 0.9], [2.0, 3.2]], dtype=torch.float64)
    model = ARDGaussian(1, 4.0, 3.0, noise_shape=3.0, noise_scale=2.0)
    hyper = model.hyperprior((3, 2))

    def log_density(y):
        rate = math.exp(y)
        log_prior = float(hyper.log_prob(torch.tensor([rate], dtype=torch.float64))) + y
        return rank_one(ExponentialGaussian(1, rate, rate, 3.0, 2.0), X, step=0.8, fall=12.0) + log_prior

    nodes = torch.linspace(-2.0, 1.6, 19, dtype=torch.float64)  # in log rate, by the trapezoidal rule
    logs = torch.tensor([log_density(float(y)) for y in nodes], dtype=torch.float64)
    assert float(logs.max() - torch.maximum(logs[0], logs[-1])) > 9
    exact = float(logs.logsumexp(0)) + math.log(float(nodes[1] - nodes[0]))
    bound = ppnmf.fit(model, X, method="vb", tol=1e-10, progress=False).attrs["elbo"]
    assert exact - 3 < bound < exact
    found = ppnmf.fit(model, X, method="smc", particles=300, replicates=6, seed=1, progress=False)
    logs = torch.tensor(found.attrs["log_evidence"])
    assert abs(float(logs.mean()) - exact) < 4 * float(logs.std()) / 6**0.5 + 0.05


@pytest.fixture(scope="module")
def many():
    X, *_ = drawn(60, 50, 3, rate=0.5, noise=1.0)
    return X.clamp(min=0)


@pytest.mark.parametrize("compression", [0.0, 1.0])
def test_components_that_are_not_needed_empty(many, compression):
    """Three of eight stay, in every draw; the others' share of W @ H is small."""
    model = ARDGaussian.for_data(many, 8)
    told = {**model.config(), "compression": compression}
    post = ppnmf.fit(ARDGaussian(**told), many, draws=200, warmup=400, chains=2, seed=1, progress=False)
    live = post.live_components()
    assert live.mode == 3 and live.probability[3] > 0.9 and live.counts.shape == (2, 200)
    assert "3 live components" in str(live)
    rates = post.draws["rate"].sort(-1).values.mean((0, 1))
    assert float(rates[3:].min()) > 3 * float(rates[:3].max())
    assert abs(float(post.mean("sigma2")) - 1.0) < 0.1


def test_live_components_want_a_noise_variance():
    from tests.toy_model import RandomRates

    post = ppnmf.fit(RandomRates(2), drawn(6, 5, 2)[0].abs(), draws=3, warmup=2, chains=1, progress=False)
    with pytest.raises(TypeError, match="measures against sigma2, and random_rates has none"):
        post.live_components()


def test_vb_empties_them_too(many):
    post = ppnmf.fit(ARDGaussian.for_data(many, 8), many, method="vb", tol=1e-6, draws=50, seed=2, progress=False)
    assert post.live_components().mode in (3, 4)


def test_the_hyperprior_keeps_its_say_with_compression():
    plain, tied = ARDGaussian(2, 2.0, 3.0), ARDGaussian(2, 2.0, 3.0, compression=1.0, empty=0.01)
    assert plain.hyperprior((100, 50)) == plain.hyperprior((10, 5)) == Hyperprior(2.0, 3.0)
    assert tied.hyperprior((100, 50)) == Hyperprior(152.0, 4.5)
    nothing = torch.zeros(1, 100, 2), torch.zeros(1, 2, 50)
    assert float(1 / tied.hyperprior((100, 50)).mode(*nothing).max()) < 2 * 0.01


def test_bad_hyperparameters_get_a_sentence():
    with pytest.raises(ValueError, match="rate_scale is 0"):
        ARDGaussian(2, rate_scale=0.0)
    with pytest.raises(ValueError, match="compression is -1"):
        ARDGaussian(2, compression=-1.0)


def test_a_checkpoint_resumes_to_the_same_bits(tmp_path):
    X = drawn(12, 8, 2, rate=0.3)[0].abs()
    options = {"warmup": 5, "chains": 2, "seed": 1, "progress": False}
    whole = ppnmf.fit(ARDGaussian(3), X, draws=20, **options)
    ppnmf.fit(ARDGaussian(3), X, draws=20, checkpoint=tmp_path / "run", every=7, **options)
    again = ppnmf.fit(ARDGaussian(3), X, draws=20, checkpoint=tmp_path / "run", resume=tmp_path / "run", **options)
    assert all(torch.equal(again.draws[site], whole.draws[site]) for site in whole.draws)


@pytest.mark.slow
def test_ten_of_twenty_components_stay_on_the_published_toy(real_data):
    toy = real_data("toy/bnmtf_toy.npz")
    model = ARDGaussian(20, 1.0, 1.0)
    post = ppnmf.fit(
        model, toy["R"], mask=toy["M"].astype(bool), draws=200, warmup=800, chains=2, seed=0, progress=False
    )
    assert abs(post.live_components().mode - 10) <= 1


@pytest.mark.slow
def test_held_out_cells_of_gdsc_are_predicted_as_published(real_data):
    """Ten folds at 20 components; Brouwer and Lió's Gibbs sampler with ARD gave 706.1. Here 695.2 ± 1.9."""
    told = {"draws": 100, "thin": 2, "warmup": 300, "chains": 1, "init": "prior", "progress": False}
    made = lambda X, mask: ARDGaussian.for_data(X, 20, mask)
    errors = held_out_errors(made, real_data("drug_sensitivity/gdsc_ic50.npz")["R"], **told)
    assert abs(np.mean(errors) - 706) < 20, errors
