"""What a call leaves as it was, and what it does not depend on: the caller's settings, generators and other threads."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch

import ppnmf
from ppnmf.data import toy
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics import amortised
from ppnmf.inference import gibbs
from ppnmf.models import PAENMF, ExponentialGaussian, importance
from ppnmf.rng import Stream, forked, generator

N, D, K = 9, 7, 2
X = toy.draw(N, D, rank=K, noise=0.1, seed=1).X.clamp(min=0)
MASK = torch.rand(N, D, generator=torch.Generator().manual_seed(0)) > 0.2
QUIET = {"seed": 3, "progress": False}
SHORT = {"draws": 4, "warmup": 3, **QUIET}


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def all_at_once() -> Iterator[None]:
    device, mixed = torch.device("meta"), torch.autocast("cpu", dtype=torch.bfloat16)
    with torch.inference_mode(), device, mixed, np.errstate(all="raise"):
        yield


SETTINGS: dict[str, Callable[[], AbstractContextManager]] = {
    "no_grad": torch.no_grad,
    "default device": lambda: default_device("meta"),
    "default dtype": lambda: default_dtype(torch.float16),
    "inference mode, device, autocast, NumPy's errors": all_at_once,
}


def in_force() -> tuple:
    autocast = torch.is_autocast_enabled("cpu")
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast, str(torch.get_default_device())
    return *modes, torch.get_default_dtype(), tuple(np.geterr().items()), torch.get_num_threads()


def generators() -> tuple:
    return random.getstate(), str(np.random.get_state()), torch.random.get_rng_state().tolist()


def gaussian() -> ExponentialGaussian:
    return ExponentialGaussian(K, [1.0, 1.5], 1.5, 2.0, 0.5)


# Each gets a model, and a posterior by gibbs and one by svi, and gives tensors or text


def fitted(method: str, **options):
    def call(model, post, deep):
        story = PAENMF(K, encoder=(3,)) if method == "svi" else model
        found = ppnmf.fit(story, X, method=method, **{**QUIET, **options})
        return [*found.draws.values(), found.stats["lp"]]

    return call


def evidence(method: str, **options):
    def call(model, post, deep):
        found = ppnmf.log_evidence(model, X, method=method, replicates=2, **{**QUIET, **options})
        return [str(found.replicates)]

    return call


def scored(criterion: str, kind=ExponentialGaussian, **options):
    def call(model, post, deep):
        table = ppnmf.select_rank(kind(K), X, [1, 2], method=criterion, **{**QUIET, **options})
        return [str([(row["rank"], row[criterion], row[f"{criterion}_failed"]) for row in table.rows])]

    return call


def stepped(model, post, deep):
    stream = Stream.of(5, 2)
    data = as_matrix(X, MASK)
    state, info = gibbs.step(model, gibbs.init(model, data, stream), data, stream)
    return [*state.params.values(), info.lp]


def made_and_fitted(model, post, deep):
    made = ExponentialGaussian.scaled_to(X, K)
    rates = ExponentialGaussian(K, torch.ones(K, device="cpu"), np.ones((K, D)))
    drawn = [ppnmf.fit(one, X.tolist(), mask=MASK.numpy(), method="icm", **QUIET) for one in (made, rates)]
    return [value for one in drawn for value in one.draws.values()]


def by_encoder(model, post, deep):
    rows = X[:3]
    bound, error = deep.model.log_likelihood(rows, draws=20)
    between = deep.model.interpolate(rows[0], rows[1], 3)
    return [
        deep.model.encode(rows).scale,
        deep.model.decode(deep.draws["W"][0]),
        deep.generate(2),
        bound,
        error,
        between,
    ]


def shown(tree):
    """What ArviZ is given, but for the time at which it was made."""
    return [str(tree[group].data_vars) for group in ("posterior", "log_likelihood", "posterior_predictive")]


CALLS = {
    "gibbs": fitted("gibbs", draws=4, warmup=3),
    "gibbs from nndsvd": fitted("gibbs", draws=4, warmup=3, init="nndsvd"),
    "gibbs from the prior, masked": fitted("gibbs", draws=4, warmup=3, init="prior", mask=MASK),
    "icm": fitted("icm", restarts=2),
    "svi, analytic": fitted("svi", steps=5, draws=3, polish=3),
    "svi, sampled": fitted("svi", steps=5, draws=3, objective="sampled", batch_size=4),
    "nuts": fitted("nuts", draws=3, warmup=3, chains=1, max_tree_depth=3),
    "smc": fitted("smc", particles=10, replicates=1),
    "chib": evidence("chib", draws=5, warmup=4),
    "smc evidence": evidence("smc", particles=10),
    "a step by hand": stepped,
    "models made": made_and_fitted,
    "encoder": by_encoder,
    "heldout": scored("heldout", draws=4, warmup=3),
    "aic": scored("aic", corrected=False),
    "bic": scored("bic"),
    "mdl": scored("mdl"),
    "elbo": scored("elbo", PAENMF, steps=5),
    "loo": scored("loo", draws=20, warmup=5),
    "consensus": scored("consensus", restarts=3),
    "compare": lambda model, post, deep: [str(ppnmf.compare({"gibbs": post, "pae": deep}, X).rows).replace("nan", "-")],
    "align": lambda model, post, deep: list(ppnmf.align(post, scale=True).draws.values()),
    "align to": lambda model, post, deep: list(ppnmf.align(post, {"W": np.ones((N, K)), "H": np.ones((K, D))}).draws.values()),
    "summary": lambda model, post, deep: [str(ppnmf.summary(post)), str(ppnmf.summary(deep))],
    "mean and best": lambda model, post, deep: [post.mean("W"), *post.best().draws.values()],
    "reconstruction": lambda model, post, deep: [post.reconstruction(), str(post.squared_error())],
    "generate": lambda model, post, deep: [post.generate(5, latent="aggregated"), deep.generate(5, latent="aggregated")],
    "predictive": lambda model, post, deep: [post.predictive(seed=1), deep.predictive(seed=1)],
    "log_likelihood": lambda model, post, deep: [post.log_likelihood(), deep.log_likelihood()],
    "to_arviz": lambda model, post, deep: shown(post.to_arviz(log_likelihood=True, posterior_predictive=True)),
    "weigh": lambda model, post, deep: list(importance.weigh(deep.model, as_matrix(X), draws=5)),
    "sbc": lambda model, post, deep: list(amortised.sbc(deep.model, simulations=3, draws=3).ranks.values()),
    "as_matrix": lambda model, post, deep: [as_matrix(X.numpy().tolist(), MASK.tolist()).values],
    "draw": lambda model, post, deep: [toy.draw(4, 3, rank=2).X],
}  # fmt: skip


@pytest.fixture(scope="module")
def plain() -> Iterator[Callable[[str], list]]:
    """What each call gives where nothing is set, found once."""
    post = ppnmf.fit(gaussian(), X, method="gibbs", chains=2, **SHORT)
    deep = ppnmf.fit(PAENMF(K, encoder=(3,)), X, method="svi", steps=5, draws=6, **QUIET)
    found: dict[str, list] = {}

    def known(name: str) -> list:
        if name not in found:
            found[name] = quietly(CALLS[name], gaussian(), post, deep)
        return found[name]

    known.posteriors = post, deep  # type: ignore[attr-defined]
    return known


def quietly(call, *arguments) -> list:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return call(*arguments)


def same(one, other) -> bool:
    return one == other if isinstance(one, str) else bool(torch.equal(one, other)) and not one.is_inference()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", CALLS)
def test_what_a_call_gives_does_not_depend_on_the_callers_settings_and_leaves_them(name, setting, plain):
    post, deep = plain.posteriors
    wanted, model, before = plain(name), gaussian(), generators()
    with SETTINGS[setting]():
        own = in_force()
        found = quietly(CALLS[name], model, post, deep)
        assert in_force() == own
    assert generators() == before
    if name != "mean and best":  # whose tensors are made by what the caller has set
        assert all(same(one, other) for one, other in zip(found, wanted, strict=True))
    after = quietly(CALLS["gibbs"], model, post, deep)  # the model that was used there is whole
    assert all(same(one, other) for one, other in zip(after, plain("gibbs"), strict=True))


@pytest.mark.parametrize("method", ["nuts", "svi"])
def test_data_and_models_made_in_inference_mode_serve_outside(method):
    with torch.inference_mode():
        data, seen, model = X.clone(), MASK.clone(), PAENMF(K).initialise(X) if method == "svi" else gaussian()
        drawn = {"steps": 3, "draws": 2} if method == "svi" else {"draws": 2, "warmup": 2, "chains": 1}
        model.log_prior(
            {"W": torch.ones(N, K), "H": torch.ones(K, D), "sigma2": torch.ones(())}
        ) if method == "nuts" else 0
    assert data.is_inference()
    found = ppnmf.fit(model, data, method=method, mask=seen, **drawn, **QUIET)
    plainly = PAENMF(K).initialise(X) if method == "svi" else gaussian()
    wanted = ppnmf.fit(plainly, X, method=method, mask=MASK, **drawn, **QUIET)
    assert torch.equal(found.draws["W"], wanted.draws["W"])


# Threads


def in_threads(*calls: Callable[[], list]) -> list[list]:
    """What each call gives, all begun at the same time."""
    ready, found = threading.Barrier(len(calls)), [[] for _ in calls]

    def run(number: int) -> None:
        ready.wait()
        found[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def drawn_by(method: str, seed: int) -> Callable[[], list]:
    options = {
        "svi": {"steps": 60, "draws": 2, "objective": "sampled"},
        "nuts": {"draws": 4, "warmup": 4, "chains": 2, "max_tree_depth": 4},
        "gibbs": {"draws": 50, "warmup": 50, "chains": 2},
    }
    story = {"svi": PAENMF(K)}.get(method, gaussian())

    def call() -> list:
        found = ppnmf.fit(story, X, method=method, seed=seed, progress=False, **options[method])
        return [found.draws["W"], found.draws["H"], found.predictive(seed=seed)]

    return call


@pytest.mark.parametrize("methods", [("svi", "svi"), ("nuts", "nuts"), ("svi", "nuts", "gibbs")], ids="+".join)
def test_threads_change_neither_each_others_draws_nor_the_callers_generators(methods):
    calls = [drawn_by(method, seed) for seed, method in enumerate(methods)]
    wanted, before = [call() for call in calls], generators()
    found = in_threads(*calls)
    assert generators() == before
    for one, other in zip(found, wanted, strict=True):
        assert len(one) == 3
        assert all(same(a, b) for a, b in zip(one, other, strict=True))


def test_one_thread_at_a_time_has_the_global_generators():
    inside, leave, entered = threading.Event(), threading.Event(), threading.Event()
    before = generators()

    def first() -> None:
        with forked(1), forked(2):  # the same thread may enter again
            inside.set()
            leave.wait(10)

    def second() -> None:
        with forked(3):
            entered.set()

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    assert not entered.wait(0.1)
    leave.set()
    for thread in threads:
        thread.join()
    assert entered.is_set()
    assert generators() == before


def test_a_child_that_was_forked_while_the_generators_were_taken_has_its_own():
    with warnings.catch_warnings(), forked(0):
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
        child = multiprocessing.get_context("fork").Process(target=_in_another_thread)
        child.start()
    child.join(30)
    try:
        assert child.exitcode == 0
    finally:
        child.kill()


def _in_another_thread():
    thread = threading.Thread(target=_enter, daemon=True)
    thread.start()
    thread.join(10)
    raise SystemExit(int(thread.is_alive()))


def _enter():
    with forked(1):
        pass


def test_an_own_generator_gives_the_numbers_of_the_global_one():
    with forked(7, chain=2):
        wanted = torch.rand(5)
    before = generators()
    assert torch.equal(torch.rand(5, generator=generator(7, chain=2)), wanted)
    assert generators() == before


# Models as values


MODELS = {
    "numbers": lambda: ExponentialGaussian(3, 2.0, 0.5, 1.5, 2.5),
    "a rate a component": lambda: ExponentialGaussian(2, [1.0, 2.0], 0.5),
    "a rate an entry": lambda: ExponentialGaussian(2, np.arange(1.0, 9.0).reshape(4, 2), torch.ones(2, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_frozen_model_is_equal_to_what_pickle_and_copy_give_back(name):
    model = MODELS[name]()
    model.log_prior(
        {"W": torch.ones(4, model.rank), "H": torch.ones(model.rank, 3), "sigma2": torch.ones(())}
    )  # caches
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), MODELS[name]()):
        assert other is not model
        assert other == model
        assert hash(other) == hash(model)
        assert len({model, other}) == 1
    assert len(pickle.dumps(model)) < 1500  # without what is cached
    assert model != "exponential_gaussian"


def test_frozen_models_that_differ_in_anything_are_not_equal():
    rates = np.ones((4, 2))
    models = [
        ExponentialGaussian(2),
        ExponentialGaussian(3),
        ExponentialGaussian(2, noise_shape=2.0),
        ExponentialGaussian(2, rate_H=2.0),
        ExponentialGaussian(2, [1.0, 1.0]),
        ExponentialGaussian(2, rates),
        ExponentialGaussian(2, rates + np.eye(4, 2)),
    ]
    assert len(set(models)) == len(models)
    assert all(a != b for i, a in enumerate(models) for b in models[:i])


def test_a_rate_of_minus_zero_is_a_rate_of_zero():
    one, other = (ExponentialGaussian(2, [zero, 1.0]) for zero in (0.0, -0.0))
    assert one == other
    assert hash(one) == hash(other)


def test_a_module_is_the_same_as_what_pickle_gives_back_and_no_other(plain):
    model = plain.posteriors[1].model
    back = pickle.loads(pickle.dumps(model))
    assert ppnmf.models.same(back, model)
    assert torch.equal(back.encode(X).scale, model.encode(X).scale)
    assert ppnmf.models.same(PAENMF(3), PAENMF(3))
    assert len(torch.nn.ModuleList([PAENMF(3), PAENMF(3)])) == 2
    assert PAENMF(3) != PAENMF(3)  # a container of modules must not take two for one
    with torch.no_grad():
        back.relative_H[0, 0] += 1
    assert not ppnmf.models.same(back, model)
    assert not ppnmf.models.same(PAENMF(3), PAENMF(3, sigma2=1.0))
    assert not ppnmf.models.same(PAENMF(K, encoder=(3,)), model)
    assert not ppnmf.models.same(5, 5)


@pytest.mark.parametrize("which", [0, 1], ids=["gibbs", "svi"])
def test_a_posterior_comes_back_whole_from_pickle(which, plain):
    post = plain.posteriors[which]
    back = pickle.loads(pickle.dumps(post))
    assert ppnmf.models.same(back.model, post.model)
    assert all(torch.equal(back.draws[site], values) for site, values in post.draws.items())
    assert torch.equal(back.predictive(seed=2), post.predictive(seed=2))


def test_a_file_is_written_and_read_under_other_settings(plain, tmp_path):
    post = plain.posteriors[1]
    with all_at_once():
        back = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert ppnmf.models.same(back.model, post.model)
    assert all(same(back.draws[site], values) for site, values in post.draws.items())
    assert torch.equal(back.model.encode(X).scale, post.model.encode(X).scale)
