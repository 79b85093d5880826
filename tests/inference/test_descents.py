"""Ordinary NMF: equal to scikit-learn's, never rising, at a minimum, the same for every kind of matrix."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from scipy.sparse import csr_array
from sklearn.decomposition import NMF

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.gaussian import ascent, descent
from ppnmf.inference import descents
from ppnmf.kernels.nnls import solved
from ppnmf.models import ExponentialGaussian, HalfNormalGaussian
from ppnmf.protocols import Statistics
from tests.scenarios import drawn

X = drawn(30, 20, 3, rate=0.3, noise=0.5)[0].abs()
HIDDEN = (torch.arange(600) % 7 != 0).reshape(30, 20)
START = {"W": drawn(30, 4, 4, seed=1)[1], "H": drawn(4, 20, 4, seed=2)[2]}
METHODS = {"mu": {}, "hals": {}, "hals ahead": {"method": "hals", "accelerated": True}, "nnls": {}}
MODEL = ExponentialGaussian(4)
every = pytest.mark.parametrize("method", METHODS)
pytestmark = pytest.mark.filterwarnings("ignore:(mu|hals|nnls):UserWarning")


def fitted(method, data=X, model=MODEL, **options):
    told = {
        "method": method,
        "init": START,
        "max_sweeps": 60,
        "tol": 0.0,
        "progress": False,
        **METHODS[method],
        **options,
    }
    return ppnmf.fit(model, data, **told)


def of_scikit_learn(solver, data, W, H, sweeps):
    peer = NMF(W.shape[1], solver=solver, init="custom", max_iter=sweeps, tol=0, shuffle=False)
    W = peer.fit_transform(data, W=W.copy(), H=H.copy())
    return float(np.square(data - W @ peer.components_).sum())


@pytest.mark.filterwarnings("ignore:Maximum number of iterations:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("sweeps", [1, 7, 200])
@pytest.mark.parametrize(("method", "solver"), [("mu", "mu"), ("hals", "cd")])
def test_a_method_is_scikit_learns_sweep_by_sweep(method, solver, sweeps):
    theirs = of_scikit_learn(solver, X.numpy(), START["W"].numpy(), START["H"].numpy(), sweeps)
    ours = fitted(method, max_sweeps=sweeps)
    assert ours.squared_error() == pytest.approx(theirs, rel=1e-6)
    assert float(ours.stats["loss"]) == pytest.approx(theirs, rel=1e-6)
    assert len(ours.attrs["loss_curve"][0]) == sweeps and ours.kind == "modes"


@every
@pytest.mark.parametrize("kind", ["full", "masked", "noisy", "negative"])
def test_the_loss_never_rises(method, kind):
    data = X - 1.0 if kind == "negative" else X
    noise = 0.5 + torch.arange(600).reshape(30, 20) / 600 if kind == "noisy" else None
    known = {"mask": HIDDEN if kind == "masked" else None, "noise": noise}
    with pytest.warns(UserWarning, match="negative") if kind == "negative" else np.errstate():
        post = fitted(method, data, **known)
    curve = torch.tensor(post.attrs["loss_curve"][0])
    assert bool((curve[1:] <= curve[:-1] * (1 + 1e-12)).all()) and float(curve[-1]) < 0.6 * float(curve[0])
    assert float(post.draws["W"].min()) >= 0 and float(post.draws["H"].min()) >= 0
    assert float(post.stats["loss"]) == pytest.approx(post.squared_error(), rel=1e-9)


@every
def test_what_is_hidden_does_not_leak(method):
    other = torch.where(HIDDEN, X, torch.nan)
    one, two = fitted(method, mask=HIDDEN), fitted(method, other, mask=HIDDEN)
    assert all(torch.equal(one.draws[site], two.draws[site]) for site in one.draws)


@every
def test_every_kind_of_matrix_gives_the_same(method, tmp_path):
    thin = torch.where((torch.arange(30)[:, None] + torch.arange(20)) % 3 == 0, X, 0.0)
    np.save(tmp_path / "X.npy", thin.numpy())
    dense = fitted(method, thin)
    for other in (csr_array(thin.numpy()), tmp_path / "X.npy"):
        torch.testing.assert_close(fitted(method, other).reconstruction(), dense.reconstruction(), rtol=1e-6, atol=1e-8)
    seen = fitted(method, csr_array(thin.numpy()), missing="unstored")
    hidden = fitted(method, thin, mask=thin > 0)  # no entry of X is zero
    torch.testing.assert_close(seen.reconstruction(), hidden.reconstruction(), rtol=1e-4, atol=1e-6)  # few cells


@every
def test_priors_do_not_enter(method):
    one, two = fitted(method), fitted(method, model=HalfNormalGaussian(4, 3.0, 0.2))
    assert torch.equal(one.draws["W"], two.draws["W"]) and float(one.stats["lp"]) != float(two.stats["lp"])
    zero = fitted(method, model=ExponentialGaussian(4, 0.0, 0.0))
    assert torch.equal(one.draws["W"], zero.draws["W"]) and zero.attrs["lp_without_prior_constant"]


@pytest.mark.parametrize("method", ["hals", "hals ahead", "nnls"])
def test_a_descent_ends_where_the_gradient_says(method):
    post = fitted(method, tol=1e-11, max_sweeps=10_000)
    W, H = post.draws["W"][0, 0], post.draws["H"][0, 0]
    residual = W @ H - X
    for F, gradient, product in ((W, residual @ H.mT, X @ H.mT), (H, W.mT @ residual, W.mT @ X)):
        small = 1e-4 * float(product.max())  # beside the terms that balance
        assert float((gradient.abs() * (F > 0)).max()) < small
        assert float((gradient * (F == 0)).min()) > -small


def test_nothing_is_divided_by_zero():
    """Dead components, empty rows and columns, zeros in the start: they stay, and nothing is NaN."""
    data, W, H = X.clone(), START["W"].clone(), START["H"].clone()
    data[3], data[:, 5], W[:, 1], H[2], W[7], H[:, 9] = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    post = fitted("mu", data, init={"W": W, "H": H}, max_sweeps=500)
    assert all(bool(values.isfinite().all()) for values in (*post.draws.values(), *post.stats.values()))
    assert float(post.draws["W"][0, 0, 7].max()) == 0 and float(post.draws["H"][0, 0, :, 9].max()) == 0
    assert post.attrs["dead_components"] == [2]
    nothing = fitted("mu", torch.zeros(30, 20, dtype=torch.float64), max_sweeps=5)
    assert float(nothing.reconstruction().abs().max()) == 0


def test_rows_are_at_their_non_negative_least_squares():
    """Beside SciPy's solver: from zero, from a start, with dependent columns and a column of zeros."""
    generator = torch.Generator().manual_seed(0)
    H = torch.randn(7, 40, dtype=torch.float64, generator=generator)
    H[5], H[6] = 0.0, H[0] + H[1]
    rows = torch.randn(50, 40, dtype=torch.float64, generator=generator)
    exact = torch.tensor([nnls(H.mT.numpy(), row.numpy())[1] for row in rows], dtype=torch.float64)
    for start in (torch.zeros(50, 7), torch.rand(50, 7, generator=generator)):
        F = solved(start[None].double(), Statistics((rows @ H.mT)[None], (H @ H.mT)[None]))[0]
        left = (rows - F @ H).square().sum(1).sqrt()
        assert float(F.min()) >= 0
        torch.testing.assert_close(left, exact, rtol=1e-9, atol=0)
        each = (H @ H.mT).expand(1, 50, 7, 7)
        again = solved(start[None].double(), Statistics((rows @ H.mT)[None], each))[0]
        assert torch.equal(again, F)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("block", [20, 20 * 7], ids=["a row a block", "blocks of seven rows"])
def test_compiled_multiplicative_sweeps_are_the_torch_rule(monkeypatch, dtype, block):
    """Two chains, X with negative entries, a component that is zero in one factor and one that is zero in both."""
    monkeypatch.setattr("ppnmf.data.dense.BLOCK_ENTRIES", block)
    generator = torch.Generator().manual_seed(4)
    data = as_matrix(torch.randn(30, 20, dtype=torch.float64, generator=generator).add(0.5).to(dtype))
    W, H = (torch.rand(shape, dtype=torch.float64, generator=generator) for shape in ((2, 30, 5), (2, 5, 20)))
    W[0, :, 1], W[1, :, 2], H[1, 2] = 0.0, 0.0, 0.0
    params = {"W": W.to(dtype), "H": H.to(dtype), "sigma2": torch.ones(2, dtype=dtype)}
    fast = slow = params
    for _ in range(3):
        done = descent.multiplied_factors(data, fast, lambda site: None)
        right = descent.lowered(data, slow, descent.multiplied, lambda site: None)
        fast, slow = {**params, "W": done.W, "H": done.H}, {**params, "W": right.W, "H": right.H}
    tolerance = {"rtol": 1e-10, "atol": 1e-13} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-6}
    for got, wanted in zip(done, right, strict=True):
        torch.testing.assert_close(got, wanted, **tolerance)
    assert float(done.W[1, :, 2].abs().max()) == 0.0


def test_a_planted_mistake_in_the_multiplicative_rule_shows(monkeypatch):
    """A divisor without the explained part of negative statistics, or a square root: the judge of equality fails."""
    monkeypatch.setenv("PPNMF_KERNEL", "reference")  # where the rule is torch's
    right = descent.multiplied
    monkeypatch.setattr(descent, "multiplied", lambda F, told, known: (right(F, told, known) * F).sqrt())
    theirs = of_scikit_learn("mu", X.numpy(), START["W"].numpy(), START["H"].numpy(), 7)
    assert fitted("mu", max_sweeps=7).squared_error() > 1.001 * theirs


@every
def test_each_restart_stands_alone_and_the_best_has_the_least_loss(method):
    told = {"init": "scaled", "seed": 2}
    three, one = fitted(method, restarts=3, **told), fitted(method, restarts=1, **told)
    assert torch.equal(three.draws["W"][0], one.draws["W"][0]) and three.stats["lp"].shape == (3, 1)
    assert float(three.best().stats["loss"]) == float(three.stats["loss"].min())
    assert "restart" in ppnmf.summary(three).sentence


def test_a_run_resumes_to_the_same_bits(tmp_path, monkeypatch):
    whole = fitted("mu", restarts=2, init="scaled")
    run, calls = descents.icm.State, []

    def counted(params, sweep):
        calls.append(sweep)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return run(params, sweep)

    monkeypatch.setattr(descents, "State", counted)
    told = {"restarts": 2, "init": "scaled", "checkpoint": tmp_path / "run", "every": 5}
    assert fitted("mu", **told).attrs["interrupted"]
    monkeypatch.undo()
    again = fitted("mu", **told, resume=tmp_path / "run")
    assert torch.equal(again.draws["W"], whole.draws["W"]) and again.attrs["loss_curve"] == whole.attrs["loss_curve"]


@pytest.mark.parametrize("method", ["hals", "hals ahead"])
def test_steps_compiled_whole_are_steps_one_by_one(method, monkeypatch):
    """In lots of seven, one by one, and step by step; a curve of more sweeps than it has points keeps every other one."""
    told = {"init": "scaled", "max_sweeps": 1100}
    monkeypatch.setattr(ascent, "OPERATIONS_AT_ONCE", 7.5 * 600 * 4)
    whole = fitted(method, **told)
    monkeypatch.setattr(ascent, "OPERATIONS_AT_ONCE", 0.0)
    each = fitted(method, **told)
    monkeypatch.setattr(ascent, "COMPILED_WHOLE", 0)
    steps = fitted(method, **told)
    assert all(torch.equal(whole.draws[site], each.draws[site]) for site in whole.draws)
    assert whole.attrs["loss_curve"] == each.attrs["loss_curve"]
    assert whole.attrs["sweeps"] == steps.attrs["sweeps"] == [1100]
    ours, theirs = (torch.tensor(post.attrs["loss_curve"], dtype=torch.float64) for post in (whole, steps))
    assert ours.shape == (1, 550)
    torch.testing.assert_close(
        ours[:, :30], theirs[:, :30], rtol=1e-9, atol=0
    )  # later, rounding decides where they go ahead
    torch.testing.assert_close(ours[:, -1], theirs[:, -1], rtol=1e-5, atol=0)
    torch.testing.assert_close(whole.draws["sigma2"], steps.draws["sigma2"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("method", ["hals", "hals ahead"])
def test_compiled_steps_stop_where_a_sweep_gains_no_more_and_each_by_itself(method, monkeypatch):
    told = {"init": "scaled", "restarts": 3, "tol": 1e-6, "max_sweeps": 5000}
    whole = fitted(method, **told)
    monkeypatch.setattr(ascent, "COMPILED_WHOLE", 0)
    steps = fitted(method, **told)
    assert whole.attrs["sweeps"] == steps.attrs["sweeps"] and len(set(whole.attrs["sweeps"])) == 3
    assert whole.attrs["converged"] == [True] * 3
    assert [len(own) for own in whole.attrs["loss_curve"]] == [-(-own // 5) for own in whole.attrs["sweeps"]]


@pytest.mark.parametrize("method", ["hals", "hals ahead"])
def test_compiled_steps_resume_to_the_same_bits(method, tmp_path, monkeypatch):
    monkeypatch.setattr(ascent, "OPERATIONS_AT_ONCE", 7.5 * 600 * 4)
    told = {"init": "scaled", "restarts": 2}
    whole = fitted(method, **told)
    several, calls = ascent.descend, []

    def stopped(*given):
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return several(*given)

    with monkeypatch.context() as patch:
        patch.setattr(ascent, "descend", stopped)
        cut = fitted(method, checkpoint=tmp_path / "run", **told)
    assert cut.attrs["interrupted"] and cut.attrs["sweeps"] == [21, 21]
    again = fitted(method, checkpoint=tmp_path / "run", resume=tmp_path / "run", **told)
    assert torch.equal(again.draws["W"], whole.draws["W"]) and again.attrs["loss_curve"] == whole.attrs["loss_curve"]


def test_the_answer_does_not_depend_on_threads():
    data, threads = drawn(700, 500, 4, rate=0.3, noise=0.5)[0].abs(), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append([fitted(method, data, init="scaled", max_sweeps=4).draws["W"] for method in METHODS])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Maximum number of iterations:sklearn.exceptions.ConvergenceWarning")
def test_bumps_are_recovered_in_256_multiplicative_sweeps():
    """16 000 sums of four bumps over 512 points; the components found are the bumps, and the loss scikit-learn's."""
    place = torch.linspace(0, 1, 512, dtype=torch.float64)
    bumps = torch.exp(-0.5 * ((place - torch.tensor([[0.2], [0.4], [0.6], [0.8]])) / 0.05).square())
    u = torch.rand(16_000, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = torch.where(u[:, :4] < 0.5, u[:, 4:], 0.0) @ bumps
    W, H = u[:, 4:] + 0.1, torch.rand(4, 512, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1
    post = ppnmf.fit(MODEL, data, method="mu", init={"W": W, "H": H}, max_sweeps=256, tol=0.0, progress=False)
    found = torch.nn.functional.normalize(post.draws["H"][0, 0], dim=1)
    alike = found @ torch.nn.functional.normalize(bumps, dim=1).mT
    assert float(alike.max(0).values.min()) > 0.99
    assert post.squared_error() == pytest.approx(
        of_scikit_learn("mu", data.numpy(), W.numpy(), H.numpy(), 256), rel=1e-6
    )
    assert as_matrix(data).sum_of_squares * 1e-3 > post.squared_error()


def bumps(n, generator):
    """Curves (n, 512) that are non-negative mixtures of four bumps, with a little noise, and the bumps (4, 512)."""
    at = np.arange(512)
    shapes = zip((90, 190, 290, 410), (22, 30, 26, 34), strict=True)
    true = np.stack([np.exp(-0.5 * ((at - centre) / width) ** 2) for centre, width in shapes])
    clean = generator.uniform(size=(n, 4)) @ true
    return np.abs(clean + 0.02 * generator.normal(size=clean.shape)), true


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Maximum number of iterations:sklearn.exceptions.ConvergenceWarning")
def test_four_bumps_of_16_000_curves_are_found_by_mu_in_256_steps():
    """And with the loss of scikit-learn's `mu` from the same start."""
    curves, true = bumps(16_000, np.random.default_rng(0))
    generator = np.random.default_rng(1)
    scale = np.sqrt(curves.mean() / 4)
    W, H = (scale * np.abs(generator.normal(size=shape)) for shape in ((16_000, 4), (4, 512)))
    post = fitted("mu", curves, init={"W": W, "H": H}, max_sweeps=256)
    found = post.draws["H"][0, 0].numpy()
    cosines = (found / np.linalg.norm(found, axis=1, keepdims=True)) @ (
        true / np.linalg.norm(true, axis=1, keepdims=True)
    ).T
    assert cosines.max(0).min() > 0.99 and len(set(cosines.argmax(0))) == 4
    assert float(post.stats["loss"][0, 0]) == pytest.approx(of_scikit_learn("mu", curves, W, H, 256), rel=1e-6)
