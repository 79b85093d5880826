"""The Gibbs sweep as a Pyro kernel, and the behaviours of Pyro 1.9.2 that it stands on."""

import pyro
import pytest
import torch
from pyro.infer import MCMC

import ppnmf
from ppnmf.inference.gibbs import GibbsKernel
from ppnmf.models import ExponentialGaussian
from tests.scenarios import drawn

X = drawn(12, 9, 2, rate=0.3, noise=0.5)[0].abs()
MODEL = ExponentialGaussian(2)


def run(chains=1, parallel=False, monkeypatch=None, seed=3, **options):
    if parallel:  # Pyro wants a core more than chains
        monkeypatch.setattr("torch.multiprocessing.cpu_count", lambda: chains + 1)
    else:
        monkeypatch.setattr("torch.multiprocessing.cpu_count", lambda: 1)
    context = pytest.warns(UserWarning, match="drawn sequentially") if chains > 1 and not parallel else torch.no_grad()
    with context:
        mcmc = MCMC(
            GibbsKernel(MODEL, seed=seed), 15, warmup_steps=5, num_chains=chains, disable_progbar=True, **options
        )
    mcmc.run(X)
    return mcmc


@pytest.fixture(autouse=True)
def no_pyro_state():
    pyro.clear_param_store()


FIT = {"draws": 15, "warmup": 5, "chains": 2, "seed": 3}


@pytest.mark.filterwarnings("ignore:.*use of fork.*", "ignore:.*multi-threaded.*fork")
@pytest.mark.parametrize("parallel", [False, True], ids=["sequential", "parallel"])
def test_chains_under_pyro_are_those_of_fit(parallel, monkeypatch):
    post = ppnmf.fit(MODEL, X, **FIT)
    mcmc = run(2, parallel, monkeypatch)
    samples = mcmc.get_samples(group_by_chain=True)
    for site in ("W", "H", "sigma2"):
        assert torch.equal(samples[site].reshape(post.draws[site].shape), post.draws[site])
    lp = torch.stack([mcmc.diagnostics()["lp"][f"chain {c}"] for c in range(2)])
    assert torch.equal(lp, post.stats["lp"])


@pytest.mark.filterwarnings("ignore:.*use of fork.*", "ignore:.*multi-threaded.*fork")
@pytest.mark.parametrize("parallel", [False, True], ids=["sequential", "parallel"])
def test_each_chain_starts_where_it_is_told(parallel, monkeypatch):
    """Pyro alone gives every parallel chain the last chain's start."""
    start = {
        "W": torch.stack([torch.full((12, 2), v, dtype=torch.float64) for v in (0.1, 5.0)]),
        "H": torch.stack([torch.full((2, 9), v, dtype=torch.float64) for v in (0.2, 7.0)]),
        "sigma2": torch.tensor([0.5, 50.0], dtype=torch.float64),
    }
    first = run(2, parallel, monkeypatch, initial_params=start).get_samples(group_by_chain=True)
    post = ppnmf.fit(MODEL, X, init=start, **FIT)
    assert torch.equal(first["W"], post.draws["W"])


def test_arviz_reads_the_run(monkeypatch):
    arviz = pytest.importorskip("arviz")
    if not hasattr(arviz, "from_pyro"):
        pytest.skip("ArviZ 1 has no from_pyro")
    idata = arviz.from_pyro(run(1, False, monkeypatch), log_likelihood=False)
    assert idata.posterior["W"].shape == (1, 15, 12, 2)


def test_a_mask_and_bad_data_are_checked_under_pyro_too(monkeypatch):
    monkeypatch.setattr("torch.multiprocessing.cpu_count", lambda: 1)
    with pytest.raises(ValueError, match="NaN"):
        MCMC(GibbsKernel(MODEL), 3, disable_progbar=True).run(torch.full((4, 3), torch.nan))
    with pytest.raises(ValueError, match="only icm"):
        MCMC(GibbsKernel(ExponentialGaussian(2, 0.0)), 3, disable_progbar=True).run(X)
