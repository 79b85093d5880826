"""Every registered model through every method: it fits, or is refused with the ability that it lacks."""

import pytest
import torch

import ppnmf
from ppnmf.inference import METHODS
from ppnmf.models import REGISTRY
from ppnmf.protocols import Amortised, Conjugate, Model
from tests.scenarios import drawn

X = drawn(12, 8, 2, rate=0.3)[0].abs()
MASK = (torch.arange(96) % 7 != 3).reshape(12, 8)
QUICK = {
    "gibbs": {"draws": 5, "warmup": 2, "chains": 2},
    "icm": {"restarts": 2, "tol": 1e-4},
    "nuts": {"draws": 3, "warmup": 3, "chains": 1, "max_tree_depth": 3},
    "svi": {"draws": 5, "steps": 20},
    "smc": {"particles": 30, "replicates": 2, "sweeps": 1},
}
SUPPORTED = {
    "exponential_gaussian": {"gibbs", "icm", "nuts", "smc"},
    "pae_nmf": {"svi"},
}


def test_every_model_and_method_is_in_the_tables_of_this_file():
    assert set(SUPPORTED) == set(REGISTRY) and set(QUICK) == set(METHODS)


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", REGISTRY)
def test_a_model_fits_or_is_refused_by_name(name, method, mask, tmp_path):
    model = REGISTRY[name](rank=2)
    if method not in SUPPORTED[name]:
        with pytest.raises(TypeError, match=f"{method} needs"):
            ppnmf.fit(model, X, method=method, mask=mask, progress=False)
        return
    post = ppnmf.fit(model, X, method=method, mask=mask, seed=1, progress=False, **QUICK[method])
    chains, draws = post.stats["lp"].shape
    assert post.draws["W"].shape == (chains, draws, 12, 2) and post.draws["H"].shape == (chains, draws, 2, 8)
    assert post.draws["sigma2"].shape == (chains, draws) and post.method == method
    assert all(bool(values.isfinite().all()) for values in (*post.draws.values(), *post.stats.values()))
    assert float(post.draws["W"].min()) >= 0 and float(post.draws["H"].min()) >= 0
    assert post.timings["total"] > 0 and post.attrs["interrupted"] is False
    again = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert torch.equal(again.reconstruction(), post.reconstruction()) and again.attrs == post.attrs
    assert isinstance(str(ppnmf.summary(post)), str)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_model_offers_what_its_methods_ask_for(name):
    model = REGISTRY[name](rank=2)
    assert isinstance(model, Model) and model.name == name
    assert isinstance(model, Conjugate) == ("gibbs" in SUPPORTED[name])
    assert isinstance(model, Amortised) == ("svi" in SUPPORTED[name])


@pytest.mark.parametrize("name", REGISTRY)
def test_negative_entries_are_refused_or_counted(name):
    dirty = X.clone()
    dirty[2, 3] = -0.5
    model, method = REGISTRY[name](rank=2), sorted(SUPPORTED[name])[0]
    sentence = r"X has 1 negative entries \(least -0.5\)"
    expected = (
        pytest.warns(UserWarning, match=sentence)
        if model.accepts_negative
        else pytest.raises(ValueError, match=sentence)
    )
    with expected:
        ppnmf.fit(model, dirty, method=method, progress=False, **QUICK[method])
