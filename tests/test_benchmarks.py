"""Every benchmark runs, and the sampler that ours is held against is a right one."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import geninvgauss, kstest

import ppnmf
from ppnmf.diagnostics.convergence import strengths
from ppnmf.gaussian.noise import log_likelihood
from ppnmf.models import ExponentialGaussian
from ppnmf.posterior import Posterior
from tests.scenarios import drawn
from tests.scripts import ran

FOLDER = Path(__file__).parents[1] / "benchmarks"
SLOW = {"evidence", "family", "first_call", "modes"} | (
    {"effective"} if importlib.util.find_spec("numpyro") else set()
)  # NUTS compiles for long


def marked(path):
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])


@pytest.mark.parametrize("path", [marked(path) for path in sorted(FOLDER.glob("*.py"))])
def test_benchmark_answers_its_question(path, tmp_path):
    described = ast.get_docstring(ast.parse(path.read_text()))
    assert described is not None and described.split("\n\n")[0].endswith("?"), "its first line asks"
    done = ran(path, "--quick", folder=tmp_path, seconds=300, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.fixture(scope="module")
def sweep():
    """The module benchmarks/sweep.py."""
    told = importlib.util.spec_from_file_location("sweep", FOLDER / "sweep.py")
    module = importlib.util.module_from_spec(told)
    told.loader.exec_module(module)
    return module


def test_numpy_peer_samples_the_same_posterior(sweep):
    model, (X, W, H), n = ExponentialGaussian(3, 0.7, 0.7, 2.0, 8.0), drawn(9, 6, 3, noise=4.0), 4000
    data = ppnmf.fit(model, X.abs(), draws=20_000, warmup=500, chains=2, progress=False)
    peer = sweep.NumPyGibbs(data.X.values.numpy(), W.numpy(), H.numpy(), 0.7, (2.0, 8.0), moves=True)
    draws = {"W": np.empty((1, n, 9, 3)), "H": np.empty((1, n, 3, 6)), "sigma2": np.empty((1, n))}
    misfit = np.empty((1, n))
    for at in range(-200, n):
        peer.sweep()
        if at >= 0:
            draws["W"][0, at], draws["H"][0, at], draws["sigma2"][0, at] = peer.W.T, peer.H, peer.sigma2
            misfit[0, at] = peer.misfit
    sites = {name: torch.from_numpy(values) for name, values in draws.items()}
    left = (data.X.values - sites["W"] @ sites["H"]).square().sum((-2, -1))
    assert torch.allclose(left, torch.from_numpy(misfit)), "moves leave W @ H alone"
    lp = log_likelihood(left, sites["sigma2"], X.numel()) + model.log_prior(sites)
    theirs = Posterior(draws=sites, stats={"lp": lp}, model=model, X=data.X, method="numpy", seed=0)
    for name, quantity in QUANTITIES.items():
        (mean, error), (other, its_error) = (mean_and_error(quantity(post).numpy()) for post in (data, theirs))
        assert abs(mean - other) < 4.5 * np.hypot(error, its_error), name


QUANTITIES = {
    "lp": lambda post: post.stats["lp"],
    "sigma2": lambda post: post.draws["sigma2"],
    "log sigma2": lambda post: post.draws["sigma2"].log(),
    "sum of W": lambda post: post.draws["W"].sum((-2, -1)),
    "sum of H": lambda post: post.draws["H"].sum((-2, -1)),
    "greatest strength": lambda post: strengths(post)[..., 0],
    "least strength": lambda post: strengths(post)[..., -1],
}


def mean_and_error(draws):
    from arviz_stats import mcse

    return draws.mean(), float(mcse(draws))


@pytest.mark.parametrize(("p", "a", "b"), [(20, 180, 160), (-36, 10, 90), (0, 3, 0.5), (3, 0.2, 4)])
def test_numpy_peer_draws_the_generalised_inverse_gaussian(sweep, p, a, b):
    n = 4000
    drawn = sweep.scales(p, np.full(n, float(a)), np.full(n, float(b)), np.random.default_rng(1))
    assert kstest(drawn * (a / b) ** 0.5, geninvgauss(p, (a * b) ** 0.5).cdf).pvalue > 1e-4


@pytest.mark.parametrize("mean", [-80.0, -40.0, -3.0, 0.0, 2.0, 50.0])
def test_numpy_peer_draws_the_truncated_normal(sweep, mean):
    from scipy.special import log_ndtr

    u = np.random.default_rng(2).random(200)
    w = sweep.truncated(np.full(200, mean), 1.0, u)
    assert np.allclose(log_ndtr(mean - w) - log_ndtr(mean), np.log(u), rtol=1e-6, atol=1e-9)
