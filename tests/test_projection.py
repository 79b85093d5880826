"""New rows, and one pair of factors for all draws."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from scipy import integrate

import ppnmf
from ppnmf.distributions import RectifiedNormal
from ppnmf.inference import icm
from ppnmf.models import ExponentialGaussian, HalfNormalGaussian

N, D, K = 12, 7, 2
QUICK = {"draws": 40, "warmup": 100, "chains": 2, "seed": 0, "progress": False}


def data(seed=0, rows=N):
    generator = np.random.default_rng(seed)
    H = np.random.default_rng(99).exponential(1.0, (K, D))
    return generator.exponential(1.0, (rows, K)) @ H + generator.normal(0, 0.3, (rows, D))


@pytest.fixture(scope="module")
def post():
    with pytest.warns(UserWarning, match="negative"):
        return ppnmf.fit(ExponentialGaussian(K, 0.7, 1.3), pd.DataFrame(data()).add_prefix("gene "), **QUICK)


@pytest.mark.parametrize("kind", [ExponentialGaussian, HalfNormalGaussian])
def test_the_mode_of_new_rows_satisfies_the_conditions_of_a_maximum(kind):
    """Of a concave density on w >= 0 the gradient is zero where w > 0, and not positive where w = 0."""
    X, mask = np.abs(data(1, 30)), np.random.default_rng(5).random((30, D)) > 0.3
    fitted = ppnmf.fit(kind(K), np.abs(data()), method="icm", restarts=2, seed=0, progress=False)
    new = fitted.transform(X, mask=mask)
    assert new.kind == "modes" and new.draws["W"].shape == (2, 1, 30, K)
    assert torch.equal(new.draws["H"], fitted.draws["H"])
    for c in range(2):
        W, H = new.draws["W"][c, 0], new.draws["H"][c, 0]
        sigma2 = new.draws["sigma2"][c, 0]
        precision, linear = fitted.model.prior("W").natural("cpu")
        residual = torch.from_numpy(np.where(mask, X, 0.0)) - torch.from_numpy(mask) * (W @ H)
        slope = residual @ H.mT / sigma2 + linear - precision * W
        curvature = (torch.from_numpy(mask).double() @ H.square().mT) / sigma2
        assert bool((slope <= 1e-6 * curvature.clamp(min=1)).all())
        assert float((slope * W).abs().max()) < 1e-6 * float(curvature.max())


def test_draws_of_new_rows_have_the_moments_of_their_posterior():
    """A single row and two components: the density of w on a plane, by quadrature; given a single H."""
    fitted = ppnmf.fit(ExponentialGaussian(K, 0.7, 1.3), np.abs(data()), method="icm", seed=0, progress=False)
    W, H = torch.zeros(1, 400, N, K, dtype=torch.float64), fitted.draws["H"].expand(1, 400, K, D)
    many = ppnmf.Posterior(
        draws={"W": W, "H": H, "sigma2": torch.full((1, 400), 0.5, dtype=torch.float64)},
        stats={"lp": torch.zeros(1, 400)},
        model=fitted.model,
        X=fitted.X,
        method="gibbs",
        seed=0,
    )
    x = np.abs(data(3, 1))
    found = many.transform(np.repeat(x, 50, 0), seed=1).draws["W"].flatten(0, 2).numpy()
    h = H[0, 0].numpy()

    def density(b, a):
        return np.exp(-0.5 * ((x[0] - a * h[0] - b * h[1]) ** 2).sum() / 0.5 - 0.7 * (a + b))

    total, first, second = (
        integrate.dblquad(lambda b, a, power=power: a**power * density(b, a), 0, 12, 0, 12, epsabs=1e-9)[0]
        for power in (0, 1, 2)
    )
    mean, sd = first / total, np.sqrt(second / total - (first / total) ** 2)
    assert abs(found[:, 0].mean() - mean) < 4 * sd / np.sqrt(len(found))
    assert abs(found[:, 0].std() / sd - 1) < 4 / np.sqrt(len(found))


def test_a_single_component_is_drawn_from_its_conditional(post):
    one = ppnmf.fit(ExponentialGaussian(1, 0.7, 1.3), np.abs(data()), **QUICK)
    x = np.abs(data(4, 1))
    new = one.transform(np.repeat(x, 200, 0), seed=2)
    h, sigma2 = one.draws["H"].flatten(0, 1)[:, 0], one.draws["sigma2"].flatten()
    conditional = RectifiedNormal(h.square().sum(-1) / sigma2, h @ torch.from_numpy(x[0]) / sigma2 - 0.7)
    wanted = conditional.mean.mean()
    spread = (conditional.variance.mean() / (200 * len(h))).sqrt()
    assert abs(float(new.mean("W").mean() - wanted)) < 4 * float(spread)


def test_columns_are_found_by_name_and_others_refused(post):
    frame = pd.DataFrame(np.abs(data(1, 5))).add_prefix("gene ").set_axis([f"new {i}" for i in range(5)])
    straight, turned = post.transform(frame), post.transform(frame.iloc[:, ::-1])
    assert torch.equal(straight.draws["W"], turned.draws["W"]) and turned.names["rows"] == list(frame.index)
    by_position = post.transform(frame.to_numpy())
    assert torch.equal(by_position.draws["W"], straight.draws["W"]) and "rows" not in by_position.names
    mask = frame > 0.5
    hidden = post.transform(frame.iloc[:, ::-1], mask=mask)
    assert torch.equal(hidden.draws["W"], post.transform(frame.to_numpy(), mask=mask.to_numpy()).draws["W"])
    noise = np.linspace(0.5, 2, D)
    noisy = post.transform(frame.iloc[:, ::-1], noise=noise[::-1].copy())
    assert torch.equal(noisy.draws["W"], post.transform(frame.to_numpy(), noise=noise).draws["W"])
    with pytest.raises(ValueError, match="X's columns are not those of the fit: 'gene 0' is missing"):
        post.transform(frame.rename(columns={"gene 0": "gene 99"}))
    with pytest.raises(ValueError, match="X has 6 columns and the fit's 7"):
        post.transform(frame.to_numpy()[:, :6])


def test_columns_that_are_counted_are_put_in_order_and_noise_may_be_a_list(post):
    frame, noise = pd.DataFrame(np.abs(data(1, 5))), np.linspace(0.5, 2, D).tolist()
    plain = ppnmf.fit(ExponentialGaussian(K), np.abs(data()), method="icm", restarts=1, seed=0, progress=False)
    straight = plain.transform(frame.to_numpy(), noise=noise).draws["W"]
    turned = frame.iloc[:, [3, 0, 1, 2, 6, 5, 4]]
    assert torch.equal(plain.transform(turned, noise=np.array(noise)[turned.columns].tolist()).draws["W"], straight)
    assert torch.equal(plain.transform(frame.iloc[:, ::-1], noise=noise[::-1]).draws["W"], straight)
    named = frame.add_prefix("gene ")
    wanted = post.transform(named, noise=noise).draws["W"]
    assert torch.equal(post.transform(named.iloc[:, ::-1], noise=noise[::-1]).draws["W"], wanted)


@pytest.mark.parametrize(("own", "other"), [("float32", "float64"), ("float64", "float32")])
def test_new_rows_of_another_floating_type_are_brought_to_that_of_the_fit(own, other):
    X, noise = np.abs(data()), np.linspace(0.5, 2, D)
    for options in ({"method": "icm", "restarts": 1, "seed": 0, "progress": False}, QUICK):
        fitted = ppnmf.fit(ExponentialGaussian(K), X.astype(own), **options)
        straight = fitted.transform(X.astype("float32").astype(own), noise=noise)
        new = fitted.transform(X.astype("float32").astype(other), noise=noise)
        assert new.X.dtype == fitted.X.dtype and torch.equal(new.draws["W"], straight.draws["W"])
        sparse = fitted.transform(scipy.sparse.csr_array(X.astype(other)))
        assert sparse.draws["W"].dtype == fitted.draws["W"].dtype
    if own == "float32":
        with pytest.raises(ValueError, match="too far from 1 for torch.float32"):
            fitted.transform(X * 1e60)


def test_what_is_transformed_is_a_posterior(post, tmp_path):
    new = post.transform(np.abs(data(1, 5)), draws=20)
    assert (new.chains, new.n_draws) == (2, 10) and new.reconstruction().shape == (5, D)
    assert new.predictive().shape == (2, 10, 5, D)
    joint = new.model.log_likelihood_at({s: v[0] for s, v in new.draws.items()}, new.X)
    torch.testing.assert_close(new.stats["lp"][0], joint + new.model.log_prior({s: v[0] for s, v in new.draws.items()}))
    loaded = ppnmf.Posterior.load(new.save(tmp_path / "new.nc"))
    assert torch.equal(loaded.draws["W"], new.draws["W"])
    again = post.transform(np.abs(data(1, 5)), draws=20)
    assert torch.equal(again.draws["W"], new.draws["W"])


@pytest.mark.parametrize("name", ["gamma_poisson", "negative_binomial_gamma"])
@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (lambda X: -X, {}, "negative entries .* needs counts"),
        (lambda X: X + 0.5, {}, "not whole numbers"),
        (lambda X: X, {"noise": np.full(D, 2.0)}, "no noise variance"),
    ],
)
def test_new_rows_are_such_as_the_model_takes(name, change, options, sentence):
    X = np.random.default_rng(0).poisson(5, (N, D)) + 1.0
    fitted = ppnmf.fit(name, X, rank=K, **QUICK)
    with pytest.raises(ValueError, match=sentence):
        fitted.transform(change(X), **options)


def test_a_single_block_of_sweeps_gives_what_several_give(post, monkeypatch):
    whole = post.transform(data(1), sweeps=7)
    monkeypatch.setattr("ppnmf.projection.AT_ONCE", 3)
    assert torch.allclose(post.transform(data(1), sweeps=7).draws["W"], whole.draws["W"], rtol=1e-6)


def test_an_autoencoder_encodes():
    X = np.abs(data(0, 40))
    fitted = ppnmf.fit(ppnmf.models.PAENMF(K), X, method="svi", steps=30, draws=300, seed=0, progress=False)
    new = fitted.transform(X[:6])
    assert new.kind == "approximation"
    guide = fitted.model.encode(X[:6])
    error = (guide.variance / 300).sqrt()
    assert bool(((new.mean("W") - guide.mean).abs() < 5 * error).all())


def test_priors_of_each_row_are_refused():
    rates = np.linspace(0.5, 2, N)[:, None] * np.ones((N, K))
    fitted = ppnmf.fit(ExponentialGaussian(K, rates), np.abs(data()), method="icm", seed=0, progress=False)
    with pytest.raises(ValueError, match="rate_W"):
        fitted.transform(np.abs(data(1, 5)))


def test_the_point_is_as_near_to_the_mean_as_a_product_can_be():
    X = np.abs(data(0, 60))
    post = ppnmf.fit(ExponentialGaussian(K, 0.1, 0.1), X, draws=300, warmup=100, chains=1, seed=0, progress=False)
    point, wanted = post.point(), post.reconstruction()
    away = lambda W, H: float((wanted - W @ H).square().sum())
    found = away(point["W"], point["H"])
    assert bool((point["W"] >= 0).all()) and bool((point["H"] >= 0).all()) and float(point["sigma2"]) > 0
    assert found < 0.05 * away(post.mean("W"), post.mean("H"))
    best = post.best()
    begun = {"W": best.draws["W"][0, 0], "H": best.draws["H"][0, 0]}
    flat = ExponentialGaussian(K, 0.0, 0.0)
    mode = icm.run(flat, ppnmf.as_matrix(wanted), init=begun, tol=1e-13, max_sweeps=20000, progress=False)
    nearest = away(mode.draws["W"][0, 0], mode.draws["H"][0, 0])
    assert found <= nearest * (1 + 1e-3)


def test_the_point_has_what_goes_with_its_factors():
    """An ARD model's rates are of the components in their order; factors that make up W or H are not the point's."""
    X = np.abs(data(0, 30))
    ard = ppnmf.fit("ard_gaussian", X, rank=K, **QUICK)
    assert torch.equal(ard.point()["rate"], ard.best().draws["rate"][0, 0])
    assert float(ard.point()["sigma2"]) == pytest.approx(float(ard.mean("sigma2")))
    layers = ppnmf.fit(ppnmf.models.Hierarchical((3, K)), X, **QUICK)
    assert set(layers.point()) == {"W", "H", "sigma2"}


def test_the_point_keeps_what_is_known():
    X, known = np.abs(data(0, 30)), np.full((1, D), 0.7)
    fitted = ppnmf.fit("exponential_gaussian", X, rank=K, fixed={"H": known}, **QUICK)
    point = fitted.point()
    assert bool((point["H"][0] == 0.7).all()) and bool((point["W"] >= 0).all())
    error = float((fitted.reconstruction() - point["W"] @ point["H"]).norm() / fitted.reconstruction().norm())
    assert error < 0.05


@pytest.mark.filterwarnings("ignore:.*converged")
def test_an_autoencoder_leaves_missing_cells_out_and_takes_no_noise():
    X = np.abs(data())
    fitted = ppnmf.fit(ppnmf.models.PAENMF(K), X, method="svi", steps=30, draws=5, seed=0, progress=False)
    holes, mask = X.copy(), np.ones(X.shape, bool)
    holes[2, 3] = np.nan
    mask[2, 3] = False
    assert torch.equal(fitted.transform(holes, missing="nan")["W"], fitted.transform(X, mask=mask)["W"])
    with pytest.raises(TypeError, match="cannot use noise="):
        fitted.transform(X, noise=np.full(D, 2.0))


def test_the_point_of_modes_is_the_best_of_them():
    post = ppnmf.fit(ExponentialGaussian(K), np.abs(data()), method="icm", restarts=3, seed=0, progress=False)
    assert torch.equal(post.point()["W"], post.best().draws["W"][0, 0])
