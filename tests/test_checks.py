# ruff: noqa: E501  (a table, of a line a mistake)
"""A mistaken argument gets a sentence that says what came, what is wanted and what to do."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

import ppnmf
from ppnmf import checks, memory
from ppnmf.cli import app
from ppnmf.data import toy
from ppnmf.models import PAENMF, ExponentialGaussian

N, D, K = 9, 7, 2
X = toy.draw(N, D, rank=K, noise=0.1, seed=1).X.clamp(min=0)
MODEL = ExponentialGaussian(K)
FRAME = pd.DataFrame(X.numpy())
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@pytest.fixture(scope="module")
def post() -> ppnmf.Posterior:
    return ppnmf.fit(MODEL, X, draws=2, warmup=1, chains=2, keep=["W"], progress=False)


@pytest.fixture(scope="module")
def whole() -> ppnmf.Posterior:
    return ppnmf.fit(MODEL, X, draws=2, warmup=1, chains=2, progress=False)


def fit(*given, **options) -> Callable:
    return lambda: ppnmf.fit(*(given or (MODEL, X)), progress=False, **options)


def rank(*given, **options) -> Callable:
    return lambda: ppnmf.select_rank(*(given or (MODEL, X, [1, 2])), progress=False, **options)


def evidence(*given, **options) -> Callable:
    return lambda: ppnmf.log_evidence(*(given or (MODEL, X)), progress=False, **options)


WHOLE = "it must be a whole number >= "
INSTANCE = "such as ppnmf.models.ExponentialGaussian(rank=5)"
MISTAKES: dict[str, tuple[Callable, type[Exception], str]] = {
    # the model and X
    "fit(df, 5)": (fit(FRAME, 5), TypeError, f"model is a DataFrame of shape (9, 7); the model comes first and X behind it: give one of ppnmf.models, {INSTANCE}"),
    "fit(X, model)": (fit(X, MODEL), TypeError, "model is a Tensor of shape (9, 7); the model comes first and X behind it"),
    "fit(class, X)": (fit(ExponentialGaussian, X), TypeError, "model is the class ExponentialGaussian; give a model of that class, such as ExponentialGaussian(rank=5)"),
    "fit(module, X)": (fit(PAENMF, X), TypeError, "model is the class PAENMF; give a model of that class, such as PAENMF(rank=5)"),
    "fit(name, X)": (fit("pae_nmf", X), TypeError, "model is 'pae_nmf'; give rank= too, or the model itself, such as ppnmf.models.PAENMF(rank=5)"),
    "fit(no name, X)": (fit("gama_poisson", X), TypeError, f"model is 'gama_poisson' (did you mean 'gamma_poisson'?); give one of ppnmf.models, {INSTANCE}"),
    "fit(no name, X, rank)": (fit("gama_poisson", X, rank=2), ValueError, "model is 'gama_poisson' (did you mean 'gamma_poisson'?); it must be one of 'exponential_gaussian', "),
    "fit(model, X, rank)": (fit(MODEL, X, rank=2), TypeError, "rank is 2 beside a ExponentialGaussian; it goes with a model's name: exponential_gaussian, "),
    "fit(None, X)": (fit(None, X), TypeError, f"model is None; give one of ppnmf.models, {INSTANCE}"),
    "log_evidence(X, model)": (evidence(X, MODEL), TypeError, "model is a Tensor of shape (9, 7); the model comes first and X behind it"),
    "log_evidence(class)": (evidence(ExponentialGaussian, X), TypeError, "model is the class ExponentialGaussian; give a model of that class"),
    "select_rank(X, model)": (rank(X.numpy(), MODEL), TypeError, "model is a ndarray of shape (9, 7); the model comes first and X behind it"),
    "select_rank(function of no model)": (rank(lambda k: k, X), TypeError, f"model is 1; give one of ppnmf.models, {INSTANCE}"),
    # methods and options
    "method Gibbs": (fit(method="Gibbs"), ValueError, "method is 'Gibbs' (did you mean 'gibbs'?); it must be one of 'gibbs', 'icm', "),
    "method None": (fit(method=None), ValueError, "method is None; it must be one of 'gibbs', "),
    "method a list": (fit(method=["gibbs"]), ValueError, "method is ['gibbs']; it must be one of "),
    "colums": (fit(colums=["a"]), TypeError, "gibbs has no option colums; it has draws, warmup, thin, "),
    "draw": (fit(draw=5), TypeError, "gibbs has no option draw (did you mean 'draws'?); it has draws, "),
    "restart of icm": (fit(method="icm", restart=5), TypeError, "icm has no option restart (did you mean 'restarts'?); it has "),
    "evidence by chibs": (evidence(method="chibs"), ValueError, "method is 'chibs' (did you mean 'chib'?); it must be one of 'chib', 'smc'"),
    "evidence draw": (evidence(method="chib", draw=5), TypeError, "chib has no option draw (did you mean 'draws'?); it has "),
    "rank by AIC": (rank(method="AIC"), ValueError, "method is 'AIC' (did you mean 'aic'?); it must be one of 'chib', "),
    "rank by nothing": (rank(method=[]), ValueError, "method is empty; give one or several of chib, "),
    "rank by 5": (rank(method=5), ValueError, "method is 5; it must be one of 'chib', "),
    "rank drawss": (rank(drawss=5), TypeError, "there is no option drawss (did you mean 'draws'?): stepping_stone has "),
    "rank chib drawss": (rank(method="chib", chib={"drawss": 5}), TypeError, "there is no option drawss (did you mean 'draws'?): chib has "),
    # numbers
    "seed None": (fit(seed=None), ValueError, f"seed is None; {WHOLE}0"),
    "seed 1.5": (fit(seed=1.5), ValueError, f"seed is 1.5; {WHOLE}0"),
    "seed -1": (fit(seed=-1), ValueError, f"seed is -1; {WHOLE}0"),
    "seed a generator": (fit(seed=np.random.default_rng(0)), ValueError, "seed is "),
    "draws text": (fit(draws="100"), ValueError, f"draws is '100'; {WHOLE}1"),
    "draws 2.0": (fit(draws=2.0), ValueError, f"draws is 2.0; {WHOLE}1"),
    "draws True": (fit(draws=True), ValueError, f"draws is True; {WHOLE}1"),
    "tol text": (fit(method="icm", tol="small"), ValueError, "tol is 'small'; it must be a number >= 0"),
    "tol of svi": (fit(PAENMF(K), X, method="svi", tol="small"), ValueError, "tol is 'small'; it must be a number >= 0"),
    "learning_rate": (fit(PAENMF(K), X, method="svi", learning_rate="fast"), ValueError, "learning_rate is 'fast'; it must be a positive number"),
    "objective": (fit(PAENMF(K), X, method="svi", objective="sample"), ValueError, "objective is 'sample' (did you mean 'sampled'?); it must be one of 'analytic', 'sampled', 'median'"),
    "divergence": (fit(PAENMF(K), X, method="svi", divergence="no"), ValueError, "divergence is 'no'; it must be True or False"),
    "X ragged": (fit(MODEL, [[1, 2], [3]]), ValueError, "X is [[1, 2], [3]] whose rows have different lengths; a matrix is needed"),
    "X a .csv": (fit(MODEL, __file__), ValueError, f"neither an .npy file nor the folder of a Zarr array; pass ppnmf.read({__file__!r})"),
    "X first, and a rank": (fit(X, "exponential_gaussian", rank=2), TypeError, "the model comes first and X behind it"),
    "method of another model": (fit(PAENMF(K), X), TypeError, "gibbs needs full conditionals; pae_nmf offers a guide with an encoder; take svi"),
    "exposures of another X": (
        lambda: ppnmf.models.GammaPoisson.for_data(torch.ones(3, 4), 1, exposures=np.ones(2)), ValueError, "exposures has shape (1, 2) and X (3, 4)"
    ),
    "moves": (fit(moves="no"), ValueError, "moves is 'no'; it must be True, False or 'collapsed'"),
    "bridge": (evidence(method="chib", bridge="no"), ValueError, "bridge is 'no'; it must be True or False"),
    "price": (rank(PAENMF(K), X, [2], method="elbo", price="no"), ValueError, "price is 'no'; it must be True or False"),
    "sensitivity": (rank(sensitivity="yes"), ValueError, "sensitivity is 'yes'; it must be True or False"),
    "n_jobs 0": (rank(n_jobs=0), ValueError, "n_jobs is 0; give a whole number >= 1, or -1 for as many as there are cores"),
    "n_jobs 1.5": (rank(n_jobs=1.5), ValueError, "n_jobs is 1.5; give a whole number >= 1"),
    "ranks 5": (rank(MODEL, X, 5), TypeError, "ranks is 5; give several whole numbers, such as range(1, 11)"),
    "ranks abc": (rank(MODEL, X, "abc"), TypeError, "ranks is 'abc'; give several whole numbers, such as range(1, 11)"),
    "ranks [1.5]": (rank(MODEL, X, [1.5]), ValueError, f"a rank is 1.5; {WHOLE}1"),
    "ranks []": (rank(MODEL, X, []), ValueError, "ranks is empty; give whole numbers >= 1"),
    # starts and sites
    "init scald": (fit(init="scald"), ValueError, "init is 'scald' (did you mean 'scaled'?); give 'scaled', 'prior', 'nndsvd', a dict with W and H, or a Posterior"),
    "init 5": (fit(init=5), ValueError, "init is 5; give a start's name, a dict with W and H, or a Posterior"),
    "init w": (fit(init={"w": X, 5: X}), ValueError, "init has ['5', 'w']; it needs W and H, and may have sigma2"),
    "init text": (fit(init={"W": "abc", "H": X}), ValueError, "init's W is 'abc'; real numbers are needed"),
    "keep w": (fit(keep=["w"]), ValueError, "keep is ['w']; give a list of sites out of W, H, sigma2"),
    "keep 5": (fit(keep=5), ValueError, "keep is 5; give a list of sites out of W, H, sigma2"),
    "keep W": (fit(keep="W"), ValueError, "keep is 'W'; give a list of sites out of W, H, sigma2"),
    # devices
    "device mps": (fit(device="mps"), ValueError, "device is 'mps'; ppnmf works on 'cpu', or on 'cuda' where there is a CUDA device"),
    "device 3": (fit(device=3), ValueError, "device is 3"),
    "device gpu": (fit(device="gpu"), ValueError, "device is 'gpu'; ppnmf works on 'cpu', or on 'cuda'"),
    "device torch": (fit(device=torch.device("meta")), ValueError, "device is 'meta'; ppnmf works on 'cpu', or on 'cuda'"),
    "as_matrix device": (lambda: ppnmf.as_matrix(X, device=2.5), ValueError, "device is 2.5; ppnmf works on 'cpu', or on 'cuda'"),
    "X on meta": (fit(MODEL, X.to("meta")), ValueError, "X's device is 'meta'; ppnmf works on 'cpu', or on 'cuda'"),
    # more than memory holds
    "draws 10**12": (fit(draws=10**12), MemoryError, "1000000000000 draws of W and H of rank 2 for X 9 × 7 in 4 chain(s) need "),
    "chains 10**9": (fit(chains=10**9), MemoryError, "W and H of rank 2 for X 9 × 7 in 1000000000 chain(s) need "),
    "restarts 10**9": (fit(method="icm", restarts=10**9), MemoryError, "W and H of rank 2 for X 9 × 7 in 1000000000 chain(s) need "),
    "draws of nuts": (fit(method="nuts", draws=10**12), MemoryError, "1000000000000 draws of W and H "),
    "particles": (fit(method="smc", particles=10**11), MemoryError, "W and H of rank 2 for X 9 × 7 in 100000000000 chain(s) need "),
    "draws of svi": (fit(PAENMF(K), X, method="svi", draws=10**12), MemoryError, "1000000000000 draws of W and H "),
    "draws of chib": (evidence(method="chib", draws=10**12), MemoryError, "The densities at 1000000000000 draws need "),
    "rank 10**11": (lambda: ppnmf.fit(ExponentialGaussian(10**11), X, progress=False), MemoryError, "W and H of rank 100000000000 for X 9 × 7 in 1 chain(s) need "),
    # models
    "noise_scale": (lambda: ExponentialGaussian(K, noise_scale=[1, 2]), ValueError, "noise_scale is [1, 2]; it must be a positive number"),
    "noise_shape": (lambda: ExponentialGaussian(K, noise_shape="one"), ValueError, "noise_shape is 'one'; it must be a positive number"),
    "noise_shape nan": (lambda: ExponentialGaussian(K, noise_shape=float("nan")), ValueError, "noise_shape is nan; it must be a positive number"),
    "rate text": (lambda: ExponentialGaussian(K, rate_W="abc"), ValueError, "rate_W is 'abc'; real numbers are needed"),
    "rate None": (lambda: ExponentialGaussian(K, rate_H=None), ValueError, "rate_H is None; real numbers are needed"),
    "ragged rates": (lambda: ExponentialGaussian(K, rate_H=[[1.0], [1.0, 2.0]]), ValueError, "rate_H is [[1.0], [1.0, 2.0]] whose rows have different lengths; real numbers are needed"),
    "rank text": (lambda: ExponentialGaussian("5"), ValueError, f"rank is '5'; {WHOLE}1"),
    "rank None": (lambda: PAENMF(None), ValueError, f"rank is None; {WHOLE}1"),
    "rank an array": (lambda: ExponentialGaussian(X.numpy()), ValueError, f"rank is a ndarray of shape (9, 7); {WHOLE}1"),
    "scaled_to(X, None)": (lambda: ExponentialGaussian.scaled_to(X, None), ValueError, f"rank is None; {WHOLE}1"),
    "scaled_to(X, 0)": (lambda: ExponentialGaussian.scaled_to(X, 0), ValueError, f"rank is 0; {WHOLE}1"),
    "scaled_to(X, text)": (lambda: ExponentialGaussian.scaled_to(X, "5"), ValueError, f"rank is '5'; {WHOLE}1"),
    "paper": (lambda: PAENMF.paper(K, "medians"), ValueError, "training is 'medians' (did you mean 'median'?); it must be one of 'random', 'median'"),
    "encoder": (lambda: PAENMF(K, encoder="liner"), ValueError, "encoder is 'liner'; it must be 'linear' or the widths of hidden layers"),
    "mask of ints": (fit(mask=np.ones((N, D), int)), ValueError, "mask has entries of type int64; booleans are needed, True where observed"),
}  # fmt: skip


def refused(call: Callable, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=re.escape(sentence)) as caught:
        call()
    said = caught.value.args[0]
    assert "\n" not in said
    assert len(said) < 400


@pytest.mark.filterwarnings("ignore:rank .* is above min")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistaken_argument_gets_a_sentence(name):
    refused(*MISTAKES[name])


@NO_CUDA
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_a_cuda_device_that_is_not_here_gets_a_sentence(device):
    sentence = f"device is '{device}', and torch finds no CUDA device here: leave it out to work on the CPU"
    refused(fit(device=device), ValueError, sentence)
    refused(lambda: ppnmf.shard(X, device=device), ValueError, sentence)


TREE = xr.DataTree()
ADVICE = {
    "a tree": (TREE, "give the posterior that it was made from; ArviZ's own functions take trees"),
    "a path": ("fit.nc", "was given 'fit.nc': load the file first: ppnmf.Posterior.load('fit.nc')"),
    "a Path": (Path("fit.nc"), "load the file first: ppnmf.Posterior.load('fit.nc')"),
    "a model": (MODEL, "fit the model first"),
    "a list": ([1, 2], "was given [1, 2]: give one posterior at a time"),
    "an array": (X.numpy(), "was given a ndarray of shape (9, 7): give what ppnmf.fit returned"),
    "nothing": (None, "was given None: give what ppnmf.fit returned"),
}


@pytest.mark.parametrize("what", ADVICE)
@pytest.mark.parametrize("who", ["summary", "align", "components", "traces", "loss"])
def test_what_is_no_posterior_gets_a_sentence(who, what):
    given, advice = ADVICE[what]
    reader = getattr(ppnmf.plots, who, None) or getattr(ppnmf, who)
    refused(lambda: reader(given), TypeError, f"{who} takes a Posterior, and was given ")
    refused(lambda: reader(given), TypeError, advice)


def test_what_compares_or_draws_several_posteriors_wants_a_dict_of_them(whole):
    for who, call in {
        "compare": lambda fits: ppnmf.compare(fits, X),
        "latent_densities": lambda fits: ppnmf.plots.latent_densities(fits, [0]),
        "reconstructions": lambda fits: ppnmf.plots.reconstructions(fits, X.numpy(), X.numpy() > 0, [0]),
    }.items():
        wanted = f"{who} takes a dict from names to Posteriors, such as {{'gibbs': post}}, not "
        refused(lambda call=call: call([whole]), TypeError, f"{wanted}a list of 1")
        refused(lambda call=call: call(whole), TypeError, wanted)
        refused(lambda call=call: call({}), ValueError, f"{who} was given no posterior; give a dict from names to them")
        refused(
            lambda call=call: call({"a": 5}), TypeError, f"{who} (by the name 'a') takes a Posterior, and was given 5"
        )
    with pytest.raises(ValueError, match="there is no posterior to compare: a: too slow"):
        ppnmf.compare({"a": "too slow"}, X)
    with pytest.raises(TypeError, match="rank takes the table that ppnmf.select_rank returns, not a Posterior"):
        ppnmf.plots.rank(whole)


def test_a_site_that_is_not_there_is_told_from_one_that_was_not_kept(post):
    refused(lambda: post.mean("w"), KeyError, "there is no site 'w' (did you mean 'W'?); there are W, sigma2")
    refused(lambda: post.mean(5), KeyError, "there is no site 5; there are W, sigma2")
    refused(lambda: post.mean("H"), KeyError, "H was not kept; kept were W, sigma2: fit with keep=None to keep all")


@pytest.mark.parametrize("rows", [5, slice(0, 3), range(0, 4, 2), range(3, 20), range(-2, 3), [0, 1]])
def test_rows_of_a_reconstruction_are_a_range_within_x(rows, whole):
    sentence = f"rows is {rows!r}; give a range of step 1 within 0 to 9, such as range(0, 9)"
    refused(lambda: whole.reconstruction(rows), ValueError, sentence)
    assert torch.equal(whole.reconstruction(range(2, 5)), whole.reconstruction()[2:5])


def test_arguments_of_a_posteriors_methods_get_a_sentence(whole):
    refused(lambda: whole.generate("5"), ValueError, f"n is '5'; {WHOLE}0")
    refused(lambda: whole.generate(10**12, latent="aggregated"), MemoryError, "1000000000000 rows need ")
    refused(lambda: whole.generate(3, latent="Prior"), ValueError, "latent is 'Prior' (did you mean 'prior'?)")
    refused(lambda: whole.predictive(seed=None), ValueError, f"seed is None; {WHOLE}0")
    refused(
        lambda: ppnmf.align(whole, {"W": X}), TypeError, "reference is a dict of 1; give a Posterior, or a dict with W"
    )
    refused(
        lambda: ppnmf.align(whole, 5),
        TypeError,
        "reference is 5; give a Posterior, or a dict with W (N, K) and H (K, D)",
    )
    refused(lambda: ppnmf.compare({"a": whole}, X, mask="all"), ValueError, "mask is 'all'")


def test_what_memory_does_not_hold_is_refused_before_it_is_made(whole, monkeypatch):
    monkeypatch.setattr(memory, "SURE", 0)
    monkeypatch.setattr(memory, "available", lambda device: 1000.0)
    refused(whole.predictive, MemoryError, "Replicates of X, 2 × 2 × 9 × 7 numbers, need ")
    refused(whole.log_likelihood, MemoryError, "Log likelihoods of X's entries, 2 × 2 × 9 × 7 numbers, need ")
    monkeypatch.setattr(memory, "available", lambda device: math.inf)  # nobody says: it is tried
    assert whole.predictive().shape == (2, 2, N, D)


def test_a_store_takes_the_draws_that_memory_does_not_hold(tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    monkeypatch.setattr(memory, "SURE", 0)
    monkeypatch.setattr(memory, "available", lambda device: 3000.0)
    refused(fit(draws=100, chains=1), MemoryError, "or keep the draws on disk by store=")
    found = fit(draws=100, warmup=1, chains=1, store=tmp_path / "draws.zarr")()
    assert found.n_draws == 100


# What the checks are made of


def test_a_value_is_described_in_a_few_words():
    known = {
        "None": None,
        "'abc'": "abc",
        "the class Path": Path,
        "a ndarray of shape (2, 3)": np.zeros((2, 3)),
        "a DataFrame of shape (9, 7)": FRAME,
        "a list of 100": list(range(100)),
        "a dict of 50": dict.fromkeys(range(50)),
        "a str": "x" * 100,
        "a function": test_a_value_is_described_in_a_few_words,
    }
    for words, value in known.items():
        assert checks.described(value) == words


def test_a_real_number_may_come_from_numpy_or_torch_and_nothing_else():
    for value in (2, 2.0, np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2.0)):
        assert checks.real_number("x", value) == 2.0
    for value in ("2", True, None, [2.0], np.array([2.0]), float("nan"), float("inf"), 0, -1.0, 1j, np.array("2")):
        with pytest.raises(ValueError, match="x is .*; it must be a positive number"):
            checks.real_number("x", value)
    assert checks.real_number("x", 0, least=0) == 0
    with pytest.raises(ValueError, match="x is -1; it must be a number >= 0"):
        checks.real_number("x", -1, least=0)


# The command line


COMMANDS = {
    "device mps": (["fit", "toy9x7", "-k", "2", "--device", "mps"], "--device is 'mps'; ppnmf works on 'cpu', or on 'cuda'"),
    "device 3": (["compare", "toy9x7", "-k", "2", "--device", "3"], "--device is '3'; ppnmf works on 'cpu', or on 'cuda'"),
    "device of rank": (["rank", "toy9x7", "--device", "gpu"], "--device is 'gpu'; ppnmf works on 'cpu', or on 'cuda'"),
    "jobs": (["rank", "toy9x7", "--jobs", "0"], "--jobs is 0; give a whole number >= 1, or -1 for as many"),
    "method": (["fit", "toy9x7", "-k", "2", "--method", "Gibbs"], "method is 'Gibbs' (did you mean 'gibbs'?)"),
    "method of rank": (["rank", "toy9x7", "--method", "chibs"], "method is 'chibs' (did you mean 'chib'?)"),
    "rank": (["fit", "toy9x7", "-k", "0"], f"rank is 0; {WHOLE}1"),
    "draws": (["fit", "toy9x7", "-k", "2", "--draws", "1000000000000"], "1000000000000 draws of W and H "),
    "seed": (["fit", "toy9x7", "-k", "2", "--seed", "-1"], f"seed is -1; {WHOLE}0"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_says_a_mistake_in_a_sentence_and_ends_with_2(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, sentence = COMMANDS[name]
    result = CliRunner().invoke(app, [*arguments, "--no-progress"])
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output
