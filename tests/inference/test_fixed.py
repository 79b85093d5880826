"""Known entries of the factors: every method leaves them as they are, and the rest is what it should be given them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from scipy.optimize import nnls

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke, moments
from ppnmf.gaussian import restricted, ridge
from ppnmf.inference import gibbs, methods_of
from ppnmf.known import Holding
from ppnmf.models import REGISTRY, ExponentialGaussian, HalfNormalGaussian
from ppnmf.rng import Stream
from tests import scenarios
from tests.scenarios import drawn, example, mask_of, taken_by
from tests.test_protocols import MASK, QUICK, X

HOLDING = [name for name in REGISTRY if isinstance(REGISTRY[name](rank=2), Holding)]
PARTICLES = ["exponential_gaussian", "gamma_poisson"]  # whose particles are looked at
SLOW = {(name, method) for name in HOLDING for method in ("smc", "nuts") if method == "nuts" or name not in PARTICLES}
# of nuts there is a test; the joint of these, whose sweeps are those of others, is tested by long runs alone
ALIKE = {"truncated_normal_gaussian", "semi_supervised", "gamma_poisson", "semi_supervised_counts"}
PAIRS = [
    (name, method) for name in HOLDING for method in methods_of(REGISTRY[name](rank=2)) if (name, method) not in SLOW
]
nan = torch.nan
pytestmark = pytest.mark.filterwarnings("ignore:.* had not converged", "ignore:.* component.s. died")


def pattern(shape, seed=0):
    """A fifth of the entries known to be 0, a fifth to be above, the rest to be learned."""
    u = np.random.default_rng(seed).random((2, *shape))
    return torch.from_numpy(np.where(u[0] < 0.2, 0.0, np.where(u[0] < 0.4, 0.2 + u[1], np.nan)))


KNOWN = {
    "rows of H": {"H": 0.5 + torch.arange(8.0).reshape(1, 8).double() / 4},
    "columns of W": {"W": 0.5 + torch.arange(12.0).reshape(12, 1).double() / 4},
    "a pattern": {"W": pattern((12, 3)), "H": pattern((3, 8), 1)},
}


def is_held(values, F):
    """Whether the known entries of a factor (..., R, S) are in their places."""
    given = F[..., : values.shape[0], : values.shape[1]]
    return torch.equal(torch.where(values.isnan(), given, values.to(F)).expand_as(given), given)


@pytest.mark.parametrize(
    ("name", "method", "known"),
    [(*pair, known) for pair in PAIRS for known in KNOWN if known == "a pattern" or "exponential_gaussian" in pair],
)
def test_known_entries_stay_in_every_draw(name, method, known):
    model = example(name, 12, 8, 3, modes=True)
    data = taken_by(model, X)
    post = ppnmf.fit(model, data, method=method, fixed=KNOWN[known], seed=1, progress=False, **QUICK[method])
    for site, values in KNOWN[known].items():
        assert is_held(values, post.draws[site])
        assert bool((post.draws[site] >= 0).all())
    assert post.model.holds and not model.holds


@pytest.mark.parametrize("name", HOLDING)
def test_nuts_leaves_them_too(name):
    post = ppnmf.fit(
        REGISTRY[name](rank=3),
        taken_by(REGISTRY[name](rank=3), X),
        method="nuts",
        fixed=KNOWN["a pattern"],
        **QUICK["nuts"],
    )
    assert all(is_held(values, post.draws[site]) for site, values in KNOWN["a pattern"].items())


def kinds(folder):
    np.save(folder / "x.npy", X.numpy())
    generator = np.random.default_rng(0)
    return {
        "dense": (X, {}),
        "single precision": (X.float(), {}),
        "masked": (X, {"mask": MASK}),
        "noise a column": (X, {"noise": 0.5 + generator.random(8)}),
        "noise an entry": (X, {"noise": 0.5 + generator.random((12, 8))}),
        "sparse": (scipy.sparse.csr_array(X.numpy()), {}),
        "stored": (scipy.sparse.csr_array(X.numpy()), {"missing": "unstored"}),
        "blocked": (folder / "x.npy", {}),
        "sharded": (ppnmf.shard(X), {}),
    }


@pytest.mark.parametrize("method", ["gibbs", "icm", "mu", "nnls", "vb"])
def test_every_kind_of_matrix_holds_them(method, tmp_path):
    model, fixed = ExponentialGaussian(3), KNOWN["a pattern"]
    found = {}
    for kind, (data, given) in kinds(tmp_path).items():
        if kind == "sharded" and method in ("mu", "nnls", "vb"):
            continue
        options = {**QUICK[method], "init": "scaled"}
        post = ppnmf.fit(model, data, method=method, fixed=fixed, seed=2, progress=False, **given, **options)
        found[kind] = post.draws
        assert all(is_held(values, post.draws[site]) for site, values in fixed.items()), kind
    for kind in set(found) & {"sparse", "blocked", "sharded"}:
        for site, values in found["dense"].items():
            torch.testing.assert_close(found[kind][site], values, rtol=1e-6, atol=1e-9)


def learned_moments(model, params, data, mask):
    """`moments` but for those of entries that do not vary."""
    found = moments(model, params, data, mask)
    for site in ("W", "H"):
        known = model.known(site)
        if known is not None:
            found |= {name: found[name][:, ~known.at] for name in (site, f"{site}²")}
    return found


def judged(model, shape, hidden, **options):
    told = {"sweeps": 60, "chains": 200, "seed": 2, **options}
    return geweke(model, shape, statistics=learned_moments, mask=mask_of(shape) if hidden else None, **told)


def known_for(shape):
    """Of three components: the first has a known entry above zero, the second known zeros, the third nothing."""
    N, D = shape
    W, H = torch.full((N, 3), nan), torch.full((3, D), nan)
    W[0, 1], W[2, 1], W[1, 0], H[0, 0], H[1, 2] = 0.0, 0.0, 0.0, 0.8, 0.0
    return {"W": W, "H": H}


def telling(name, shape):
    """A model of rank 3 with known entries; of the rates of one there are fewer that hear of them, and they vary less."""
    model = example(name, *shape, 3)
    own = replace(model, rate_shape=40.0, rate_scale=30.0) if name == "ard_gaussian" else model
    return own.holding(known_for(shape))


@pytest.mark.parametrize("name", [name for name in HOLDING if name not in ALIKE])
def test_sweeps_leave_the_joint_of_the_rest_invariant(name):
    slow = {"chains": 50, "sweeps": 30} if name == "ard_gaussian" else {}
    found = judged(telling(name, (4, 3)), (4, 3), True, **slow)
    assert found.p_value > scenarios.LUCK, found.worst


@pytest.mark.slow
@pytest.mark.parametrize("name", HOLDING)
@pytest.mark.parametrize("shape", [(4, 3), (3, 5)], ids=str)
@pytest.mark.parametrize("hidden", [False, True], ids=["full", "masked"])
def test_long_runs_leave_it_invariant(name, shape, hidden):
    found = judged(telling(name, shape), shape, hidden, sweeps=300)
    assert found.p_value > scenarios.LUCK, found.worst


def every_move(prior, X, W, H):
    return ridge.all_free(W, H)


def counted_whole(prior, X, W, H):
    """The mistake of a scale whose Jacobian counts known zeros."""
    right = RIGHT(prior, X, W, H)
    return right._replace(size=ridge.all_free(W, H).size)


RIGHT = restricted.free


@pytest.mark.parametrize("mistake", [every_move, counted_whole])
def test_a_move_that_touches_what_is_known_is_found(mistake, monkeypatch):
    monkeypatch.setattr(restricted, "free", mistake)
    shape = (4, 3)
    found = judged(telling("exponential_gaussian", shape), shape, False)
    assert found.p_value < 1e-6, found.worst


def test_a_known_row_that_moves_is_put_back_by_no_one(monkeypatch):
    monkeypatch.setattr(restricted, "free", every_move)
    model = ExponentialGaussian(3).holding(KNOWN["rows of H"])
    data = as_matrix(X)
    stream = Stream.of(1, 2)
    state = gibbs.step(model, gibbs.init(model, data, stream, "scaled"), data, stream)[0]
    assert not is_held(KNOWN["rows of H"]["H"], state.params["H"])


@pytest.mark.parametrize("name", ["exponential_gaussian", "half_normal_gaussian", "truncated_normal_gaussian"])
def test_compiled_moves_are_those_of_the_reference(name):
    N, D, C = 9, 7, 3
    model = example(name, N, D, 4).holding({"W": pattern((N, 3)), "H": pattern((2, D), 1)})
    params = model.prior_draws((N, D), C, Stream.of(0))
    priors = ridge.Priors(*(model.prior(site).prior.natural("cpu") for site in ("W", "H")))
    made = restricted.free(model.prior, as_matrix(torch.ones(N, D)), params["W"], params["H"])
    at = Stream.of(1, C), 3
    one = ridge.compiled(params["W"], params["H"], priors, *at, made)
    two = ridge.scale_move(params["W"], params["H"], priors, *at, free=made)
    two = ridge.shear_move(*two, priors, *at, free=made)
    for own, other, before in zip(one, two, (params["W"], params["H"]), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)
        assert not torch.equal(own, before)
    torch.testing.assert_close(one[0] @ one[1], params["W"] @ params["H"], rtol=1e-9, atol=1e-9)


def test_a_new_component_is_sheared_against_a_known_row():
    model = ExponentialGaussian(3).holding({"H": torch.ones(2, 8)})
    W, H = torch.ones(1, 12, 3).double(), torch.ones(1, 3, 8).double()
    made = restricted.free(model.prior, as_matrix(X), W, H)
    assert made.scaled.tolist() == [False, False, True]
    assert made.size.tolist() == [12, 12, 4]
    assert made.sheared[2].all() and not made.sheared[0, 2] and not made.sheared[1, 0]  # H_2 loses, W_0 or W_1 gains


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
@pytest.mark.parametrize("name", HOLDING)
def test_modes_bounds_and_losses_go_one_way(name, mask):
    model = example(name, 12, 8, 3, modes=True).holding(KNOWN["a pattern"])
    data = taken_by(model, X)
    scenarios.judge_modes(model, data, mask, sweeps=20)
    for rule in ("multiplied", "by_components", "by_rows"):
        if hasattr(model, rule):
            scenarios.judge_loss(model, getattr(model, rule), data, mask, sweeps=30)
    if "vb" in methods_of(model):
        scenarios.judge_moments(model, data, mask, sweeps=30)


def test_rows_given_known_components_are_scipys_least_squares():
    H = drawn(4, 8, 3, seed=4)[2]
    post = ppnmf.fit(ExponentialGaussian(3), X, method="nnls", fixed={"H": H}, progress=False)
    expected = np.stack([nnls(H.numpy().T, row)[0] for row in X.numpy()])
    np.testing.assert_allclose(post.draws["W"][0, 0].numpy(), expected, atol=1e-7)
    for method in ("hals", "mu", "icm"):
        model = ExponentialGaussian(3, 0.0, 0.0) if method == "icm" else ExponentialGaussian(3)
        told = {"tol": 1e-14, "max_sweeps": 20_000}
        other = ppnmf.fit(model, X, method=method, fixed={"H": H}, progress=False, **told)
        assert other.squared_error() == pytest.approx(post.squared_error(), rel=1e-5), method


def test_given_all_of_h_gibbs_has_the_exact_posterior_of_w():
    """One component: W_i is a normal cut off at zero, but for σ², which a strong prior knows."""
    H = torch.tensor([[1.0, 2.0, 0.5]])
    data = torch.tensor([[1.1, 1.8, 0.2], [0.1, -0.3, 0.4]], dtype=torch.float64)
    model = HalfNormalGaussian(1, 1.5, 1.0, noise_shape=1e6, noise_scale=2.5e5)
    with pytest.warns(UserWarning, match="negative"):
        post = ppnmf.fit(model, data, fixed={"H": H}, draws=4000, warmup=50, chains=2, seed=1, progress=False)
    precision = 1 / 1.5**2 + float(H.square().sum()) / 0.25
    exact = ppnmf.distributions.RectifiedNormal(torch.full((2,), precision).double(), (data @ H[0].double()) / 0.25)
    W = post.draws["W"][..., 0].flatten(0, 1)
    assert bool(((W.mean(0) - exact.mean).abs() < 5 * (exact.variance / 8000).sqrt()).all())


def test_smc_integrates_over_the_rest_alone():
    """With all of W and H known only σ² is left: p(X | W, H) is a ratio of inverse gammas' constants."""
    data, W, H = drawn(6, 5, 2, rate=0.1, seed=3)
    model = ExponentialGaussian(2, noise_shape=3.0, noise_scale=2.0).holding({"W": W, "H": H})
    found = ppnmf.log_evidence(model, data, method="smc", particles=200, seed=1, progress=False)
    left = 0.5 * float((data - W @ H).square().sum())
    shape = 3.0 + 15.0
    exact = (
        -15 * np.log(2 * np.pi) + 3 * np.log(2.0) - torch.lgamma(torch.tensor(3.0)) + torch.lgamma(torch.tensor(shape))
    )
    exact = float(exact - shape * np.log(2.0 + left))
    assert found.log_evidence == pytest.approx(exact, abs=max(5 * found.mcse, 0.2))


@pytest.mark.parametrize(("name", "method"), [("exponential_gaussian", "chib"), ("gamma_poisson", "stepping_stone")])
def test_evidence_that_cannot_hold_says_so(name, method):
    model = REGISTRY[name](3).holding(KNOWN["rows of H"])
    with pytest.raises(TypeError, match=f"{method} needs .*, and this {name} has none, for entries of W or H"):
        ppnmf.log_evidence(model, X.abs().round(), method=method, progress=False)


def test_columns_are_found_by_their_names():
    frame = pd.DataFrame(X.numpy(), columns=list("abcdefgh"))
    rows = pd.DataFrame(KNOWN["rows of H"]["H"].numpy(), columns=list("abcdefgh"))
    shuffled = rows[list("hgfedcba")]
    one, two = (
        ppnmf.fit("exponential_gaussian", frame, rank=3, method="icm", fixed={"H": H}, progress=False)
        for H in (rows, shuffled)
    )
    assert torch.equal(one.draws["H"], two.draws["H"]) and is_held(KNOWN["rows of H"]["H"], two.draws["H"])
    with pytest.raises(ValueError, match="fixed's H is not named as X is: 'a' is missing and 'z' is unknown"):
        ppnmf.fit("exponential_gaussian", frame, rank=3, fixed={"H": rows.rename(columns={"a": "z"})})


def test_priors_by_name_are_for_loadings_on_what_is_known():
    H = drawn(4, 8, 3, seed=4)[2] / 1000
    post = ppnmf.fit("exponential_gaussian", X, rank=3, method="vb", fixed={"H": H}, progress=False)
    assert float(post.model.rate_W * post.model.rate_H) == pytest.approx(3 / float(X.mean()))
    assert 1 / float(post.model.rate_H) == pytest.approx(float(H.mean()))


def test_a_model_with_known_entries_is_a_value(tmp_path):
    import pickle

    model = ExponentialGaussian(3).holding(KNOWN["a pattern"])
    same = ExponentialGaussian(3, fixed_W=KNOWN["a pattern"]["W"], fixed_H=KNOWN["a pattern"]["H"])
    assert model == same and hash(model) == hash(same) and pickle.loads(pickle.dumps(model)) == model
    assert model != ExponentialGaussian(3) and "fixed_H" not in ExponentialGaussian(3).config()
    post = ppnmf.fit(model, X, draws=4, warmup=2, chains=1, progress=False)
    again = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert again.model == model
    assert ppnmf.fit(again.model, X, draws=4, warmup=2, chains=1, progress=False).stats["lp"].equal(post.stats["lp"])
    assert (
        model.holding(None) == ExponentialGaussian(3) == ExponentialGaussian(3).holding({"H": torch.full((2, 8), nan)})
    )


def test_new_rows_are_given_loadings_on_known_components():
    H = drawn(4, 8, 3, seed=4)[2]
    post = ppnmf.fit("exponential_gaussian", X, rank=3, fixed={"H": H}, draws=50, warmup=50, chains=2, progress=False)
    new = post.transform(X[:3])
    assert new.draws["W"].shape == (2, 50, 3, 3)
    other = ppnmf.fit("exponential_gaussian", X, rank=3, fixed=KNOWN["columns of W"], draws=5, warmup=5, progress=False)
    with pytest.raises(ValueError, match="fixed_W is for 12 rows and X has 3"):
        other.transform(X[:3])


@pytest.mark.parametrize(
    ("fixed", "sentence"),
    [
        ({"B": torch.ones(1, 8)}, r'fixed is .*; give a dict with "W", known columns of W, or "H", known rows of H'),
        (torch.ones(1, 8), r"fixed is a Tensor of shape \(1, 8\); give a dict"),
        ({"H": torch.ones(4, 8)}, r"fixed_H has shape \(4, 8\); give \(J, D\), the first J rows of H, J <= K = 3"),
        ({"H": torch.ones(8)}, r"fixed_H has shape \(8,\)"),
        ({"H": torch.ones(2, 7)}, "fixed_H is for 7 columns and X has 8: give a value for each of them"),
        ({"W": torch.ones(11, 2)}, "fixed_W is for 11 rows and X has 12"),
        ({"W": torch.full((12, 2), -1.0)}, "fixed_W has 24 entries that are negative or infinite"),
        ({"H": [["a"] * 8]}, "real numbers are needed"),
    ],
)
def test_what_cannot_be_held_is_refused_in_a_sentence(fixed, sentence):
    with pytest.raises(ValueError, match=sentence):
        ppnmf.fit(ExponentialGaussian(3), X, fixed=fixed)


def test_a_model_that_cannot_hold_says_so():
    with pytest.raises(TypeError, match="and pae_nmf cannot hold entries of its factors: leave fixed out"):
        ppnmf.fit(ppnmf.models.PAENMF(3), X, method="svi", fixed={"H": torch.ones(1, 8)})
