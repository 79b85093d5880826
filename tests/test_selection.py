import json

import numpy as np
import pytest
import torch

import ppnmf
from ppnmf.models import ARDGaussian, ExponentialGaussian, GammaPoisson
from tests.scenarios import drawn

X = drawn(8, 6, 2, rate=0.3)[0].abs()
MODEL = ExponentialGaussian(2)


def fitted(model=MODEL, data=X, **options):
    return ppnmf.fit(model, data, **{"draws": 7, "warmup": 3, "chains": 3, "init": "scaled", **options})


def test_a_selection_takes_along_what_belongs_to_its_draws():
    post = ppnmf.align(fitted())
    some = post.select(chains=[2, 0], draws=slice(1, None), thin=3)
    assert (some.chains, some.n_draws) == (2, 2)
    for site, values in some.draws.items():
        assert torch.equal(values, post.draws[site][[2, 0]][:, [3, 6]])
    assert torch.equal(some.stats["lp"], post.stats["lp"][[2, 0]][:, [3, 6]])
    order = post.attrs["alignment"]["order"]
    assert some.attrs["alignment"]["order"] == [[order[c][d] for d in (3, 6)] for c in (2, 0)]
    assert some.attrs["kept_every"] == 3
    assert some.select(thin=2).attrs["kept_every"] == 6
    assert post.attrs.get("kept_every") is None
    assert post.select(-1, -2)["W"].shape == (1, 1, 8, 2)
    assert torch.equal(post.select(-1, -2)["W"][0, 0], post["W"][2, 5])


def test_facts_of_one_a_chain_follow_their_chains():
    modes = ppnmf.fit(MODEL, X, method="icm", restarts=4)
    some = modes.select(chains=[3, 1])
    for name in ("sweeps", "converged", "dead_components"):
        assert some.attrs[name] == [modes.attrs[name][3], modes.attrs[name][1]]
    assert "restart" in str(ppnmf.summary(some))
    surveyed = fitted(warmup=3000, init="survey", draws=5)
    chosen = surveyed.survey.chosen
    assert surveyed.select(chains=[1]).survey.chosen == (chosen[1],)
    assert surveyed.best().survey.chosen in {(number,) for number in chosen}


def test_numbers_of_numpy_are_numbers_and_truths_are_not():
    post = fitted()
    assert torch.equal(post.select(chains=np.int64(1))["W"], post.select(chains=1)["W"])
    assert torch.equal(post.select(draws=np.arange(3))["W"], post.select(draws=[0, 1, 2])["W"])
    for chains in ([True, False, True], 1.0, [0.5]):
        with pytest.raises(ValueError, match="give a number, a slice, or a list of numbers"):
            post.select(chains=chains)


@pytest.mark.filterwarnings("ignore:layerwise. . of . restart.s. had not converged")
def test_facts_of_each_restart_follow_the_best_one():
    labels, model = ["a", "b", "a", "b", "a", "b"], ppnmf.models.Hierarchical((3, 2))
    told = {"method": "layerwise", "labels": labels, "label_weight": 0.1, "max_sweeps": 5}
    post = ppnmf.fit(model, X, restarts=3, **told)
    best = post.best()
    assert len(best.attrs["labels"]["coefficients"]) == len(best.attrs["loss_curve"]) == 1
    torch.testing.assert_close(ppnmf.predicted_labels(best).probabilities, ppnmf.predicted_labels(post).probabilities)
    other = ppnmf.fit(model, X, restarts=1, seed=9, **told)
    both = ppnmf.join([post, other])
    assert both.attrs["labels"]["variance"] == post.attrs["labels"]["variance"] + other.attrs["labels"]["variance"]


@pytest.mark.parametrize("along", ["chains", "draws"])
def test_orders_of_new_rows_follow_joining_and_aligning(along):
    post = fitted(draws=6)
    new = [post.transform(X[:3], sweeps=2, seed=seed) for seed in (1, 2)]
    both = ppnmf.join(new, along)
    each = [one.loadings().mean for one in new]
    np.testing.assert_allclose(both.loadings().mean, sum(each) / 2)
    assert both.select(chains=[1]).loadings().mean.shape == (3, 2)
    np.testing.assert_allclose(ppnmf.align(both).loadings().mean, both.loadings().mean)


def test_each_run_is_joined_once():
    first, second = fitted(), fitted(seed=1)
    with pytest.raises(ValueError, match="posterior 2 has the draws of posterior 1 over again"):
        ppnmf.join([first, second, second])


def test_a_regular_selection_copies_nothing():
    post = fitted()
    part = post.select(draws=slice(2, None), thin=2)
    assert part["W"].untyped_storage().data_ptr() == post["W"].untyped_storage().data_ptr()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"chains": 3}, "chains has 3; there are 3, numbered from 0"),
        ({"draws": []}, "draws names none"),
        ({"draws": "all"}, "give a number, a slice, or a list"),
        ({"thin": 0}, "thin is 0"),
        ({"thin": 8}, "nothing would remain"),
    ],
)
def test_a_mistaken_selection_is_a_sentence(asked, said):
    with pytest.raises(ValueError, match=said):
        fitted().select(**asked)


def test_spread_and_quantiles_are_numpys():
    post = fitted()
    values = post["H"].flatten(0, 1).numpy()
    np.testing.assert_allclose(post.std("H"), values.std(0))
    np.testing.assert_allclose(post.quantile("H", [0.1, 0.5]), np.quantile(values, [0.1, 0.5], axis=0))
    np.testing.assert_allclose(post.quantile("sigma2", 0.5), np.median(post["sigma2"].numpy()))
    with pytest.raises(ValueError, match="numbers between 0 and 1"):
        post.quantile("H", 50)
    with pytest.raises(KeyError, match="there is no site 'h'"):
        post["h"]


def test_runs_are_put_side_by_side_as_chains():
    first, second = fitted(), fitted(seed=1, chains=2)
    both = ppnmf.join([first, second])
    assert both.chains == 5
    assert torch.equal(both["W"], torch.cat([first["W"], second["W"]]))
    assert both.attrs["joined"] == {"along": "chains", "sizes": [3, 2], "seeds": [0, 1]}
    assert both.attrs["warmup"] == 3
    assert both.timings["total"] == first.timings["total"] + second.timings["total"]
    modes = [ppnmf.fit(MODEL, X, method="icm", restarts=2, seed=seed) for seed in (0, 1)]
    all_modes = ppnmf.join(modes)
    assert all_modes.attrs["sweeps"] == modes[0].attrs["sweeps"] + modes[1].attrs["sweeps"]
    json.dumps(both.attrs)


def test_runs_are_put_behind_each_other_as_draws():
    first = fitted()
    more = ppnmf.join([first, fitted(seed=1, init=first, warmup=0)], along="draws")
    assert (more.chains, more.n_draws) == (3, 14)
    assert "warmup" not in more.attrs


@pytest.mark.parametrize(
    ("other", "along", "said"),
    [
        ({}, "chains", "draws of posterior 0 over again"),
        ({"seed": 1, "draws": 6}, "chains", "6 draws a chain and the first 7"),
        ({"seed": 1, "chains": 2}, "draws", "2 chains and the first 3"),
        ({"seed": 1, "model": ExponentialGaussian(2, rate_W=2.0)}, "chains", "another model"),
        ({"seed": 1, "data": X + 1}, "chains", "another data"),
        ({"seed": 1, "keep": ["W"]}, "chains", "another sites"),
        ({"seed": 1}, "chain", "did you mean 'chains'"),
    ],
)
def test_what_does_not_go_together_is_not_joined(other, along, said):
    with pytest.raises(ValueError, match=said):
        ppnmf.join([fitted(), fitted(**other)], along)


def test_joining_wants_posteriors():
    with pytest.raises(TypeError, match="list of posteriors"):
        ppnmf.join(fitted())
    with pytest.raises(TypeError, match="join takes a Posterior"):
        ppnmf.join([MODEL])


@pytest.mark.parametrize(
    ("model", "data"),
    [(MODEL, X), (ARDGaussian(2), X), (GammaPoisson(2), X.round())],
    ids=["exponential", "ard", "counts"],
)
def test_a_run_goes_on_to_the_bits_of_a_longer_one(model, data, tmp_path):
    whole = fitted(model, data, draws=9, thin=2)
    part = fitted(model, data, draws=4, thin=2)
    part.save(tmp_path / "part.nc")
    for begun in (part, ppnmf.Posterior.load(tmp_path / "part.nc")):
        more = ppnmf.extend(ppnmf.extend(begun, 3), 2)
        for site, values in whole.draws.items():
            assert torch.equal(more[site], values), site
        assert torch.equal(more.stats["lp"], whole.stats["lp"])
        assert not more.attrs["interrupted"]
        assert more.attrs["warmup"] == 3


def test_a_run_until_chains_agree_goes_on_at_its_own_distance():
    post = fitted(until="agree", warmup=None, draws=400, chains=4, max_seconds=0.5)
    more = ppnmf.extend(post, 5)
    assert more.n_draws == post.n_draws + 5
    assert "until" not in more.attrs
    again = ppnmf.extend(ppnmf.extend(post, 2), 3)
    assert torch.equal(again["H"], more["H"])
    assert torch.equal(more["H"][:, : post.n_draws], post["H"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda: fitted().select(0), "attrs\\['selected'\\]"),
        (lambda: ppnmf.align(fitted()), "attrs\\['alignment'\\]"),
        (lambda: ppnmf.fit(MODEL, X, method="icm"), "by icm"),
        (lambda: fitted(keep=["W"]), "H was not kept"),
    ],
)
def test_what_no_chain_ends_with_does_not_go_on(changed, said):
    with pytest.raises(ValueError, match=said):
        ppnmf.extend(changed(), 3)
