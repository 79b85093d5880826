"""Known entries of the factors of counts: what is learned beside them has its exact posterior, and no move touches them."""

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy import stats

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke
from ppnmf.models import GammaPoisson, NegativeBinomialGamma
from ppnmf.poisson import scale
from ppnmf.rng import Stream
from tests.scenarios import LUCK, mask_of, uneven_counts

nan = torch.nan
SHAPE = (4, 3)
CAUGHT = 1e-9  # what a mistake must be less likely than


def known_for(N, D):
    """Of three components: the first has an entry known to be above zero, the second known zeros, the third nothing."""
    W, H = torch.full((N, 2), nan).double(), torch.full((2, D), nan).double()
    W[1, 0], W[0, 1], W[2, 1] = 0.0, 0.0, 0.0
    H[0, 0], H[0, 1], H[1, 2] = 0.8, 1.5, 0.0
    return {"W": W, "H": H}


def learned_moments(model, params, X, mask):
    """All entries, and the logarithms of those that vary and of W @ H."""
    found = {"log WH": (params["W"] @ params["H"]).log()}
    for site in ("W", "H"):
        found |= {site: params[site], f"log {site}": params[site][:, ~model.known(site).at].log()}
    return found


def judged(kind=GammaPoisson, mask=None, sweeps=40, chains=150, **others):
    model = uneven_counts(kind, *SHAPE, 3, **others).holding(known_for(*SHAPE))
    return geweke(model, SHAPE, sweeps=sweeps, seed=2, statistics=learned_moments, mask=mask, chains=chains)


@pytest.mark.parametrize("mask", [None, mask_of(SHAPE)], ids=["full", "masked"])
def test_sweeps_leave_the_joint_of_the_rest_invariant(mask):
    found = judged(mask=mask)
    assert found.p_value > LUCK, found.worst


@pytest.mark.slow
@pytest.mark.parametrize("kind", [GammaPoisson, NegativeBinomialGamma])
@pytest.mark.parametrize("mask", [None, mask_of(SHAPE)], ids=["full", "masked"])
def test_long_runs_leave_it_invariant(kind, mask):
    found = judged(kind, mask=mask, sweeps=300, chains=200)
    assert found.p_value > LUCK, found.worst


def all_alive(self):
    """The mistake of a scale that moves what is known."""
    return torch.ones_like(self.rate_W, dtype=torch.bool)


def test_a_scale_that_touches_what_is_known_is_found(monkeypatch):
    monkeypatch.setattr(scale.Sums, "alive", property(all_alive))
    found = judged()
    assert found.p_value < CAUGHT, found.worst


def test_a_jacobian_that_counts_known_zeros_is_found(monkeypatch):
    sums = scale.sums

    def whole(prior, X, W, H):
        (size_W, _), (size_H, _) = (prior(site).on(W.device) for site in ("W", "H"))
        sizes = {"size_W": size_W.expand(W.shape).sum(-2), "size_H": size_H.expand(H.shape).sum(-1)}
        return sums(prior, X, W, H)._replace(**sizes)

    monkeypatch.setattr(scale, "sums", whole)
    found = judged(sweeps=60, chains=200)
    assert found.p_value < CAUGHT, found.worst


generator = np.random.default_rng(0)
H = generator.dirichlet(np.full(30, 0.3), 4)
W = generator.gamma(0.8, 150.0, size=(60, 4))
X = generator.poisson(W @ H).astype(float)
QUICK = {"warmup": 100, "chains": 2, "progress": False}


def test_given_all_of_h_a_fit_has_the_distribution_that_transform_has():
    """Whose sweeps hold H as draws of a site: another way through the code."""
    model = GammaPoisson(4, 0.8, 0.5, 0.01, 1.0, exposures=0.5 + generator.random(30))
    held = ppnmf.fit(model, X[:6], fixed={"H": H}, draws=400, thin=2, **QUICK)
    free = ppnmf.fit(model, X, init={"W": W, "H": H}, draws=300, warmup=0, chains=2, progress=False)
    free.draws["H"].copy_(torch.from_numpy(H).expand_as(free.draws["H"]))
    moved = free.transform(X[:6], draws=600, sweeps=20)
    assert torch.equal(moved.draws["H"][0, 0], held.draws["H"][1, 1])
    for i in range(6):
        for k in range(4):
            one, two = (post.draws["W"][..., i, k].flatten().numpy() for post in (held, moved))
            assert stats.ks_2samp(one[::2], two).pvalue > 1e-4, (i, k)


def test_of_one_component_the_loadings_are_gammas():
    post = ppnmf.fit(GammaPoisson(1, 0.5, 1.0, 0.2), X[:3], fixed={"H": H[:1]}, draws=1000, seed=1, **QUICK)
    for i in range(3):
        own = post.draws["W"][..., i, 0].flatten().numpy() * (0.2 + H[0].sum())
        assert stats.kstest(own, stats.gamma(0.5 + X[i].sum()).cdf).pvalue > 1e-4


@pytest.mark.parametrize("method", ["gibbs", "icm", "mu", "vb"])
def test_a_new_component_is_found_beside_known_ones(method):
    options = {"draws": 200, **QUICK, "init": "scaled"} if method == "gibbs" else {"progress": False}
    post = ppnmf.fit("gamma_poisson", X, rank=4, method=method, fixed={"H": H[:3]}, seed=1, **options)
    new = post.draws["H"][..., 3, :].mean((0, 1)).numpy()
    assert new @ H[3] / np.linalg.norm(new) / np.linalg.norm(H[3]) > 0.95
    assert torch.equal(post.draws["H"][0, 0, :3], torch.from_numpy(H[:3]))


@pytest.mark.filterwarnings("ignore:.* had not converged")
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (GammaPoisson, "vb"),
        *((kind, method) for kind in (GammaPoisson, NegativeBinomialGamma) for method in ("gibbs", "icm")),
    ],
)
def test_every_kind_of_matrix_holds_them(kind, method, tmp_path):
    np.save(tmp_path / "x.npy", X)
    sparse = scipy.sparse.csr_array(X)
    kinds = [X, sparse, tmp_path / "x.npy", *([] if method == "vb" else [ppnmf.shard(X)])]
    options = {"draws": 3, "warmup": 2, "chains": 2} if method == "gibbs" else {"max_sweeps": 3}
    model = uneven_counts(kind, 60, 30, 4, least=1.0).holding(known_for(60, 30))
    told = {"method": method, "seed": 2, "init": "scaled", "progress": False, **options}
    first, *others = (ppnmf.fit(model, data, **told) for data in kinds)
    for post in others:
        for site, values in first.draws.items():
            torch.testing.assert_close(post.draws[site], values, rtol=1e-6, atol=1e-9)
    assert bool((first.draws["H"][..., 0, 0] == 0.8).all()) and bool((first.draws["W"][..., 2, 1] == 0.0).all())


def test_particles_have_the_evidence_of_counts_given_all_that_is_known():
    """With W and H known no parameter is left: the evidence is the likelihood of the counts."""
    model = GammaPoisson(4).holding({"W": W[:8], "H": H})
    found = ppnmf.log_evidence(model, X[:8], method="smc", particles=8, seed=1, progress=False)
    assert found.log_evidence == pytest.approx(stats.poisson(W[:8] @ H).logpmf(X[:8]).sum(), abs=1e-6)


def test_counts_that_known_zeros_exclude_are_refused():
    zeros = torch.full((4, 30), nan)
    zeros[:, 3] = 0.0
    column = X.copy()
    column[:, 3] = 0.0
    with pytest.raises(ValueError, match="X has counts above zero where all components are known to be zero"):
        ppnmf.fit("gamma_poisson", X, rank=4, fixed={"H": zeros}, draws=2, warmup=2)
    post = ppnmf.fit("gamma_poisson", column, rank=4, fixed={"H": zeros}, draws=2, warmup=2, chains=1, progress=False)
    assert bool((post.draws["H"][..., 3] == 0).all())


def test_modes_need_no_shape_of_what_is_known():
    model = GammaPoisson(2, 1.5, 0.5).holding({"H": H[:2]})
    model.require_modes()
    with pytest.raises(ValueError, match="shape_H is below 1 somewhere"):
        GammaPoisson(2, 1.5, 0.5).holding({"H": H[:1]}).require_modes()
    begun = model.begin(as_matrix(X), Stream.of(0, 2), "scaled")
    assert torch.equal(begun["H"][1], torch.from_numpy(H[:2]))


@pytest.mark.parametrize("name", ["gamma_poisson", "negative_binomial_gamma"])
def test_a_column_of_zeros_has_a_log_joint_beside_known_entries(name):
    X = np.random.default_rng(0).poisson(4, (8, 5)).astype(float)
    X[:, 2] = 0
    known = {"H": np.full((1, 5), 0.5)}
    post = ppnmf.fit(name, X, rank=2, fixed=known, method="icm", restarts=2, max_sweeps=20, tol=1e-2, progress=False)
    assert bool(post.stats["lp"].isfinite().all())
