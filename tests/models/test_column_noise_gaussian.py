"""A noise variance a column: found, given it the model is one with known noise, and mistakes in its place show."""

import numpy as np
import pytest
import scipy.sparse
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke, sbc
from ppnmf.gaussian import columns
from ppnmf.inference import gibbs
from ppnmf.models import ColumnNoiseGaussian, ExponentialGaussian
from ppnmf.protocols import Address, Held, Read, Sweeps
from ppnmf.rng import Site, Stream
from tests.scenarios import LUCK, drawn, example, mask_of

N, D, K = 60, 12, 2
NOISE = torch.logspace(-2, 1, D, dtype=torch.float64)
_, W, H = drawn(N, D, K, rate=0.3, seed=3)
Z = torch.special.ndtri(Stream.of(5).uniforms(0, Site.DATA, range(N), D)[0])
X = (W @ H + NOISE.sqrt() * Z).clamp(min=0)
HIDDEN = (torch.arange(N * D) % 7 != 0).reshape(N, D)
MODEL = ColumnNoiseGaussian(K, 0.5, 0.3, 2.0, 0.5)


def kinds(folder):
    np.save(folder / "x.npy", X.numpy())
    return {
        "dense": (X, {}),
        "masked": (X, {"mask": HIDDEN}),
        "noise a column": (X, {"noise": 0.5 + NOISE}),
        "noise an entry": (X, {"noise": 0.5 + X}),
        "sparse": (scipy.sparse.csr_array(X.numpy()), {}),
        "stored": (scipy.sparse.csr_array(torch.where(HIDDEN, X + 1, 0.0).numpy()), {"missing": "unstored"}),
        "blocked": (folder / "x.npy", {}),
        "sharded": (ppnmf.shard(X), {}),
    }


def test_each_columns_noise_is_found():
    post = ppnmf.fit("column_noise_gaussian", X, rank=K, draws=500, warmup=500, chains=2, seed=1, progress=False)
    inside = post.interval("sigma2", level=0.98)
    assert int(((inside.lower < NOISE.numpy()) & (NOISE.numpy() < inside.upper)).sum()) >= D - 2
    common = ppnmf.fit("exponential_gaussian", X, rank=K, draws=500, warmup=500, chains=2, seed=1, progress=False)
    truth = W @ H
    error = lambda fit: float(((fit.reconstruction() - truth).square() / NOISE).sum())
    assert error(post) < 0.3 * error(common)  # it knows which columns to listen to


@pytest.mark.parametrize("read", [Read.DRAW, Read.MODE], ids=lambda read: read.value)
@pytest.mark.parametrize("mask", [None, HIDDEN], ids=["full", "masked"])
def test_given_the_noise_it_is_the_model_with_known_noise(read, mask):
    """The same random numbers lead both to the same draws: σ²_j as σ²'s relative variances, or as a site."""
    stream = Stream.of(1, 2)
    at = Address(stream, 3) if read is Read.DRAW else None
    asked = Sweeps(read=read, held=Held(others=True), moves=False)
    own = MODEL.begin(as_matrix(X, mask), stream, "scaled") | {"sigma2": NOISE.expand(2, D)}
    one = MODEL.sweep(own, as_matrix(X, mask), asked, at)
    other = ExponentialGaussian(K, 0.5, 0.3)
    two = other.sweep(own | {"sigma2": torch.ones(2).double()}, as_matrix(X, mask, noise=NOISE), asked, at)
    for site in ("W", "H"):
        torch.testing.assert_close(one.params[site], two.params[site], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(one.log_likelihood, two.log_likelihood, rtol=1e-9, atol=0)


@pytest.mark.parametrize("method", ["gibbs", "icm", "vb"])
def test_every_kind_of_matrix_gives_the_same(method, tmp_path):
    options = {
        "gibbs": {"draws": 4, "warmup": 3, "chains": 2},
        "icm": {"max_sweeps": 30},
        "vb": {"draws": 20, "max_sweeps": 30},
    }
    found = {}
    for kind, (data, given) in kinds(tmp_path).items():
        if kind == "sharded" and method == "vb":
            continue
        with pytest.warns(UserWarning) if method != "gibbs" else np.errstate():
            post = ppnmf.fit(
                MODEL, data, method=method, init="scaled", seed=2, progress=False, **given, **options[method]
            )
        found[kind] = post
        post.squared_error(), post.live_components()
    for kind in {"sparse", "blocked", "sharded"} & set(found):
        torch.testing.assert_close(found[kind].stats["lp"], found["dense"].stats["lp"], rtol=1e-8, atol=0)
    seen = ppnmf.fit(
        MODEL, torch.where(HIDDEN, X, torch.nan), missing="nan", init="scaled", seed=2, draws=4, warmup=3, chains=2
    )
    if method == "gibbs":
        assert torch.equal(seen.stats["lp"], found["masked"].stats["lp"])


def test_misfits_are_those_of_the_residuals_however_small(tmp_path):
    exact = torch.where(torch.arange(D) < 4, W @ H, X)  # four columns without any noise: the subtraction cancels there
    for data, given in ((exact, {}), (exact, {"mask": HIDDEN}), (scipy.sparse.csr_array(exact.numpy()), {})):
        matrix = as_matrix(data, **given)
        wide = torch.stack([W, W + 0.1]), torch.stack([H, H])
        about = columns.statistics.of_all_columns(matrix, wide[0])
        residual = (exact - wide[0] @ wide[1]).square() * (HIDDEN if given else 1)
        torch.testing.assert_close(columns.misfits(matrix, *wide, about), residual.sum(-2), rtol=1e-9, atol=1e-20)


MISTAKES = {
    "entries of all columns": lambda X, right: right._replace(observed=right.observed * 0 + X.n_observed),
    "one entry too many": lambda X, right: right._replace(observed=right.observed + 2),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_in_the_noise_is_found(mistake, monkeypatch):
    right = columns.about
    monkeypatch.setattr(columns, "about", lambda X: MISTAKES[mistake](X, right(X)))
    found = geweke(example("column_noise_gaussian", 4, 3, 2), (4, 3), sweeps=40, chains=200, seed=1)
    assert found.p_value < 1e-6, found.worst


def test_gram_matrices_over_the_square_of_the_noise_are_found(monkeypatch):
    right = columns.given_columns
    wrong = lambda X, H, v: right(X, H, v)._replace(squares=right(X, H, v.square()).squares)
    monkeypatch.setattr(columns, "given_columns", wrong)
    found = geweke(example("column_noise_gaussian", 4, 3, 2), (4, 3), sweeps=40, chains=200, seed=1)
    assert found.p_value < 1e-6, found.worst


def sampled(model, data, seed):
    return gibbs.run(
        model, data, draws=31, thin=3, warmup=40, chains=len(data.each), seed=seed, init="prior", progress=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("mask", [None, mask_of((3, 2))], ids=["full", "masked"])
def test_ranks_of_the_truth_are_uniform(mask):
    model = example("column_noise_gaussian", 3, 2, 2)
    found = sbc(model, (3, 2), sampled, 1000, seed=1, mask=mask, at_once=100)
    assert found.p_value > LUCK, found.worst


@pytest.mark.slow
def test_gibbs_agrees_with_nuts():
    data = X[:8, 3:7]
    model = ColumnNoiseGaussian(2, 0.5, 0.3, 3.0, 2.0)
    one = ppnmf.fit(model, data, draws=5000, warmup=500, chains=4, seed=1, progress=False)
    options = {"draws": 700, "warmup": 300, "chains": 2, "max_tree_depth": 5}
    two = ppnmf.fit(model, data, method="nuts", seed=3, progress=False, **options)
    from arviz_stats import mcse

    for values in ("lp", "sigma2"):
        a, b = (post.stats["lp"][..., None] if values == "lp" else post.draws["sigma2"].log() for post in (one, two))
        errors = [mcse(own.numpy(), chain_axis=0, draw_axis=1) for own in (a, b)]
        z = (a.mean((0, 1)) - b.mean((0, 1))).numpy() / np.hypot(*errors)
        assert float(np.abs(z).max()) < 5


def test_known_noise_of_entries_gives_cogaps_its_stored_chi_squared(real_data):
    """CoGAPS's setting: noise max(0.1 X, 0.1) known. Its stored means give 38.73; a posterior of ours explains as much."""
    stored = real_data("cogaps/modsim.npz")
    V = stored["V"]
    scale = np.maximum(0.1 * V, 0.1)
    theirs = stored["A_mean"] @ stored["P_mean"].T
    chi = lambda fitted: float((((V - fitted) / scale) ** 2).sum())
    assert chi(theirs) == pytest.approx(38.73, abs=0.01)
    post = ppnmf.fit(
        "exponential_gaussian", V, rank=3, noise=scale**2, draws=500, warmup=500, chains=2, seed=0, progress=False
    )
    assert chi(post.reconstruction().numpy()) < 38.73
    patterns = torch.from_numpy(stored["P_mean"].T)
    ours = post.point()["H"]
    unit = lambda F: F / F.norm(dim=1, keepdim=True)
    assert float((unit(patterns) @ unit(ours).T).max(1).values.min()) > 0.85  # their prior is another one
