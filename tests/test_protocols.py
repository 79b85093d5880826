"""Every registered model through every method: the judge that fits, or a refusal with the ability that it lacks."""

import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.inference import METHODS, descents, icm, methods_of
from ppnmf.inference.chain import State
from ppnmf.models import REGISTRY, ExponentialGaussian
from ppnmf.protocols import (
    ABILITIES,
    Amortised,
    Blocked,
    Climbing,
    Collapsing,
    Descending,
    Entries,
    LeastSquares,
    Model,
    Multiplicative,
    Pace,
    Standing,
    Sweeping,
    Variational,
    offers,
)
from ppnmf.rng import Stream
from tests import scenarios
from tests.scenarios import drawn, example, taken_by

X = drawn(12, 8, 2, rate=0.3)[0].abs()
PACE = Pace(1.01, 1.005, 1.5, 0.0)
MASK = (torch.arange(96) % 7 != 3).reshape(12, 8)
QUICK = {
    "gibbs": {"draws": 5, "warmup": 2, "chains": 2},
    "icm": {"restarts": 2, "tol": 1e-4},
    "hals": {"restarts": 2, "tol": 1e-4},
    "mu": {"restarts": 2, "tol": 1e-3},
    "nnls": {"restarts": 2, "tol": 1e-4},
    "nuts": {"draws": 3, "warmup": 3, "chains": 1, "max_tree_depth": 3},
    "vb": {"draws": 5, "tol": 1e-3},
    "svi": {"draws": 5, "steps": 20},
    "smc": {"particles": 30, "replicates": 2, "sweeps": 1},
    "layerwise": {"restarts": 2, "tol": 1e-2},
    "deep": {"restarts": 2, "tol": 1e-2},
    "neural": {"restarts": 2, "steps": 20},
}
# Its chains are swept one by one; their logarithms tell a mistake of one in a count of 7 from so few (test_ard_gaussian.py)
FEW = {"ard_gaussian": {"sweeps": 40, "chains": 100, "statistics": scenarios.logarithms}}
PAIRS = [(name, method) for name in REGISTRY for method in methods_of(REGISTRY[name](rank=2))]
masked = pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])


def of(ability, but=()):
    """The registered models that have it."""
    having = [name for name in REGISTRY if isinstance(REGISTRY[name](rank=2), ability)]
    return pytest.mark.parametrize("name", [name for name in having if name not in but])


def test_every_method_is_in_the_table_of_this_file():
    assert set(QUICK) == set(METHODS)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_model_is_one_and_has_a_method(name):
    model = REGISTRY[name](rank=2)
    assert isinstance(model, Model) and model.name == name and methods_of(model)


@masked
@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_a_model_fits(name, method, mask, tmp_path):
    model = REGISTRY[name](rank=2)
    post = ppnmf.fit(model, taken_by(model, X), method=method, mask=mask, seed=1, progress=False, **QUICK[method])
    chains, draws = post.stats["lp"].shape
    sizes = {site: tuple(dims.values()) for site, dims in model.sites(12, 8).items()}
    assert {site: values.shape for site, values in post.draws.items()} == {
        site: (chains, draws, *size) for site, size in sizes.items()
    }
    assert all(bool(values.isfinite().all()) for values in (*post.draws.values(), *post.stats.values()))
    W, H = model.factors(post.draws)
    assert float(W.min()) >= 0 and float(H.min()) >= 0 and post.method == method
    assert post.timings["total"] > 0 and post.attrs["interrupted"] is False
    again = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert torch.equal(again.reconstruction(), post.reconstruction()) and again.attrs == post.attrs
    assert ppnmf.summary(again).sentence == ppnmf.summary(post).sentence


@pytest.mark.parametrize(("name", "method"), [(n, m) for n in REGISTRY for m in METHODS if (n, m) not in PAIRS])
def test_a_model_is_refused_by_the_ability_that_it_lacks(name, method):
    model, lacking = REGISTRY[name](rank=2), ABILITIES[METHODS[method].ability]
    with pytest.raises(TypeError, match=f"{method} needs {lacking}; {name} offers "):
        ppnmf.fit(model, taken_by(model, X), method=method, progress=False)


# Without labels semi_supervised_counts is gamma_poisson; with them its own file tests it
@of(Sweeping, but=["semi_supervised_counts"])
@pytest.mark.parametrize("shape", [(4, 3), (3, 5)], ids=str)
@pytest.mark.parametrize("hidden", [False, True], ids=["full", "masked"])
def test_sweeps_leave_the_joint_invariant(name, shape, hidden):
    scenarios.judge_draws(example(name, *shape, 2), shape, hidden, **FEW.get(name, {}))


@of(Sweeping)
@masked
def test_modes_never_lower_the_log_joint(name, mask):
    model = example(name, 12, 8, 2, modes=True)
    scenarios.judge_modes(model, taken_by(model, X), mask)


@of(Multiplicative)
@masked
def test_multiplicative_sweeps_never_raise_the_loss(name, mask):
    model = example(name, 12, 8, 2)
    scenarios.judge_loss(model, model.multiplied, X, mask)


@of(LeastSquares)
@masked
@pytest.mark.parametrize("rule", ["by_components", "by_rows"])
def test_least_squares_sweeps_never_raise_the_loss(name, mask, rule):
    model = example(name, 12, 8, 2)
    scenarios.judge_loss(model, getattr(model, rule), X, mask)


@of(Descending)
@pytest.mark.parametrize("ahead", [0.0, 0.5])
def test_least_squares_compiled_whole_are_its_sweeps_one_by_one(name, ahead):
    model, data = example(name, 12, 8, 2), as_matrix(X)
    begun = icm.Climb.at(State(model.begin(data, Stream.of(0, 2), "scaled"), 1))
    alone = begun._replace(reach=begun.reach * 0 + ahead)
    step = descents.stepping(lambda params, X: model.by_components(params, X, repeatedly=True))
    at = Standing(begun.state.params, begun.before, begun.lp, alone.reach, alone.bound)
    found = model.descend(data, at, PACE, 6, True)
    for sweep in range(6):
        alone, info = icm.advance(model, alone, data, by=step)
        torch.testing.assert_close(found.path[:, sweep], info.lp, rtol=1e-9, atol=0)
    assert set(found.params) == set(alone.state.params) and found.sweeps == [6, 6]
    for site, values in alone.state.params.items():
        torch.testing.assert_close(found.params[site], values, rtol=1e-6, atol=1e-9)
    assert model.descend(as_matrix(X, MASK), at, PACE, 6) is None


@of(Variational)
@masked
def test_sweeps_of_moments_raise_a_bound_that_is_exact(name, mask):
    scenarios.judge_moments(example(name, 12, 8, 2), X, mask)


@of(Sweeping)
@masked
def test_the_program_has_the_log_joint_of_the_sweeps(name, mask):
    model = example(name, 12, 8, 2)
    scenarios.judge_program(model, taken_by(model, X), mask)


@of(Blocked)
def test_densities_of_blocks_are_those_of_the_joint(name):
    model = example(name, 5, 4, 2)
    scenarios.judge_blocks(model, taken_by(model, drawn(5, 4, 2)[0]))


@of(Amortised)
def test_the_bound_rises_and_its_two_estimates_agree(name):
    scenarios.judge_bound(REGISTRY[name](rank=2), X)


@pytest.mark.parametrize("name", REGISTRY)
def test_negative_entries_are_refused_or_counted(name):
    model = REGISTRY[name](rank=2)
    dirty = taken_by(model, X).clone()
    dirty[2, 3] = -0.5
    method = methods_of(model)[0]
    sentence = r"X has 1 negative entries \(least -0.5\)"
    expected = (
        pytest.warns(UserWarning, match=sentence)
        if model.accepts is Entries.REAL
        else pytest.raises(ValueError, match=sentence)
    )
    with expected:
        ppnmf.fit(model, dirty, method=method, progress=False, **QUICK[method])


def test_offers_tells_what_isinstance_tells():
    for ability in (*ABILITIES, Model, Climbing, Collapsing, Descending):
        assert not offers(object(), ability)
        for kind in REGISTRY.values():
            model = kind(rank=2)
            assert offers(model, ability) == isinstance(model, ability)
    lacking = type("Lacking", (ExponentialGaussian,), {"sweep": None})(2)
    assert not offers(lacking, Sweeping)
