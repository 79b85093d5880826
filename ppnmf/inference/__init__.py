"""Methods by name: each turns a model and X into a `Posterior`; `fit` checks the input and calls one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch

from ppnmf.checks import described, known_options, meant, one_of, whole_number
from ppnmf.compilation import announced
from ppnmf.data.datasets import Dataset, picture_facts
from ppnmf.data.labelled import names_of
from ppnmf.data.matrix import as_matrix, in_memory, without_noise
from ppnmf.data.sharded import Sharded
from ppnmf.inference import labelled
from ppnmf.inference.asked import as_asked
from ppnmf.inference.held import holding
from ppnmf.inference.options import FitOptions
from ppnmf.inference.room import require_room
from ppnmf.inference.spread import run_spread, said_once
from ppnmf.models import REGISTRY, for_data
from ppnmf.models.accepted import require_accepted
from ppnmf.posterior import Posterior
from ppnmf.protocols import (
    Amortised,
    Layered,
    LeastSquares,
    Matrix,
    Model,
    Multiplicative,
    Sweeping,
    Variational,
    offers,
    require_ability,
)
from ppnmf.settings import own_settings

__all__ = ["METHODS", "Method", "check", "default_model", "fit", "method_named", "methods_of", "require_model"]


class Method(NamedTuple):
    """Where a method's `run` is, the ability that it asks of a model, and whether X has to be dense and equally noisy."""

    module: str
    ability: type
    dense: bool = False


METHODS = {
    "gibbs": Method("ppnmf.inference.gibbs", Sweeping),
    "icm": Method("ppnmf.inference.icm", Sweeping),
    "hals": Method("ppnmf.inference.hals", LeastSquares),
    "mu": Method("ppnmf.inference.mu", Multiplicative),
    "nnls": Method("ppnmf.inference.nnls", LeastSquares),
    "vb": Method("ppnmf.inference.vb", Variational),
    "svi": Method("ppnmf.inference.svi", Amortised, dense=True),
    "nuts": Method("ppnmf.inference.nuts", Sweeping, dense=True),
    "smc": Method("ppnmf.inference.smc", Sweeping),
    "layerwise": Method("ppnmf.inference.layerwise", Layered, dense=True),
    "deep": Method("ppnmf.inference.deep", Layered, dense=True),
    "neural": Method("ppnmf.inference.neural", Layered, dense=True),
}


@own_settings()
def fit(
    model: Model | str,
    X: Any,
    *,
    rank: int | None = None,
    method: str = "gibbs",
    mask: Any = None,
    missing: str = "error",
    device: torch.device | str | None = None,
    noise: Any = None,
    fixed: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Unpack[FitOptions],
) -> Posterior:
    """Fit a model to X by a method.

    Args:
        model: from `ppnmf.models`, or a model's name, which stands for that model for this data at the given rank. It is
            never changed, `Posterior.model` is the fitted copy.
        X: data (N, D): array, tensor, sparse matrix, memory map, Zarr array, a path, a pandas, polars or xarray container, an
            AnnData ... (`ppnmf.as_matrix`). Names of its rows and columns become the posterior's.
        rank: with a model's name, the number of components.
        method: "gibbs", "icm", "hals", "mu", "nnls", "vb", "svi", "nuts", "smc", "layerwise", "deep" or "neural".
        mask: boolean (N, D), True where observed.
        missing: "error", "nan" when NaN entries are missing ones, "unstored" when those are that a sparse X does not store.
        device: where to work; X's own by default.
        noise: known relative noise variances (D,), (N, 1) or (N, D) (`ppnmf.as_matrix`), but for svi, nuts, layerwise, deep and
            neural.
        fixed: known entries, held while the rest is learned: {"H": rows} (J, D) are the first J components, {"W": columns}
            (N, J) likewise; NaN marks what is learned. With a model's name, priors are scaled to them too.
        seed: of every random number; the caller's global generators are left as found.
        progress: show a bar, in a terminal or a notebook, and say when kernels are being compiled.
        options: the method's own, such as draws, warmup, thin, chains, init, keep, moves, checkpoint, every, resume,
            store (`gibbs`); restarts, tol, max_sweeps, init (`icm`, `hals`, `mu`, `nnls`, `vb`); steps, batch_size, draws (`svi`);
            particles, replicates (`smc`): see the `run` of its module. With "semi_supervised" or "semi_supervised_counts" also
            labels, a name for each row of X or None where it is not known, and label_weight, a number or "heldout"
            (`ppnmf.inference.labelled`); with `layerwise`, `deep` and `neural` labels are of X's columns.

    Raises:
        ValueError: bad input, in one sentence that says what to do.
        TypeError: the model lacks what the method needs, or the method has no such option.
        MemoryError: the factors or their draws need more than there is.
    """
    asked = as_asked(
        {
            "model": model,
            "rank": rank,
            "method": method,
            "mask": mask,
            "missing": None if missing == "error" else missing,
            "noise": noise,
            "fixed": fixed,
        }
        | options
        | {"seed": seed}
    )
    if "labels" in options and METHODS[one_of("method", method, METHODS)].ability is not Layered:
        kind = labelled.kind_of(model)
        K = _labelled_rank(model, rank, fixed)
        told = labelled.prepared(X, mask, missing, device, noise)
        post = labelled.fitted(fit, kind, told, K, method, progress, {**options, "seed": seed})
        return replace(post, attrs={**post.attrs, "asked": asked})
    run = method_named(method)
    known_options(method, run, options)
    _require_story(model, rank, X)
    data = as_matrix(X, mask, missing, device, noise)
    story: Any = for_data(model, data, rank) if isinstance(model, str) and rank is not None else model
    _require_method(method, story)
    story = holding(story, fixed, data, rank is not None)
    with said_once(data):
        check(story, data, spread=True)
    chosen = {name: int(value) if isinstance(value, np.integer) else value for name, value in options.items()}
    chosen["seed"] = whole_number("seed", seed, 0)
    if METHODS[method].dense:
        without_noise(data, method)
        data = data if isinstance(data, Sharded) else in_memory(data, method)
    with announced(progress):
        if isinstance(data, Sharded):
            post = run_spread(method, run, story, data, progress, **chosen)
        else:
            post = run(story, data, progress=progress, **chosen)
    pictured = picture_facts(X.picture, X.order) if isinstance(X, Dataset) else {}
    return replace(post, names=names_of(data).to_dict(), attrs={**post.attrs, "asked": asked, **pictured})


def _require_method(method: str, model: Any) -> None:
    """Raise TypeError where a model lacks what a method asks for; the sentence ends with the methods that fit the model."""
    try:
        require_ability(method, model, METHODS[method].ability)
    except TypeError as error:
        others = methods_of(model)
        advice = f"; take {'one of ' if len(others) > 1 else ''}{', '.join(others)}" if others else ""
        raise TypeError(f"{error}{advice}") from None


def method_named(method: str) -> Callable[..., Posterior]:
    """The `run` of a method. Raises ValueError for an unknown name."""
    return import_module(METHODS[one_of("method", method, METHODS)].module).run


def require_model(model: Any, X: Any = None) -> None:
    """Raise TypeError when it is no model, and say what it seems to be instead."""
    if offers(model, Model) and not isinstance(model, type):
        return
    example = "give one of ppnmf.models, such as ppnmf.models.ExponentialGaussian(rank=5)"
    if isinstance(X, Model):
        example = "the model comes first and X behind it"
    elif isinstance(model, type) and model in REGISTRY.values():
        example = f"give a model of that class, such as {model.__name__}(rank=5)"
    elif isinstance(model, str) and model in REGISTRY:
        example = "give rank= too, or the model itself, such as ppnmf.models." + f"{REGISTRY[model].__name__}(rank=5)"
    elif hasattr(model, "shape"):
        example = f"the model comes first and X behind it: {example}"
    near = meant(model, REGISTRY) if isinstance(model, str) and model not in REGISTRY else ""
    raise TypeError(f"model is {described(model)}{near}; {example}")


def _require_story(model: Any, rank: int | None, X: Any) -> None:
    """Raise when this is neither a model nor, beside a rank, the name of one."""
    if rank is None:
        require_model(model, X)
    elif isinstance(model, str):
        one_of("model", model, REGISTRY)
    elif hasattr(model, "shape") and isinstance(X, str | Model):
        raise TypeError(f"model is {described(model)}; the model comes first and X behind it")
    else:
        raise TypeError(
            f"rank is {rank!r} beside {described(model)}; it goes with a model's name: {', '.join(REGISTRY)}"
        )


def _labelled_rank(model: Any, rank: int | None, fixed: Any) -> int:
    """The rank of a fit with labels. Raises TypeError when labels do not go with what else is asked."""
    if fixed is not None:
        raise TypeError("fixed does not go with labels yet: give the model with fixed_W= or fixed_H= for X and labels")
    if rank is None:
        raise TypeError(f"labels need rank=, the number of components, beside {described(model)}")
    return rank


def default_model(method: str) -> str:
    """The name of the first registered model that the method can fit."""
    ability = METHODS[one_of("method", method, METHODS)].ability
    return next(name for name, kind in REGISTRY.items() if isinstance(kind(rank=1), ability))  # type: ignore[call-arg]


def methods_of(model: Model) -> list[str]:
    """The methods that a model has the ability for."""
    return [name for name, method in METHODS.items() if isinstance(model, method.ability)]


def check(model: Model, X: Matrix, spread: bool = False) -> None:
    """Whether the model can take the data: negative entries, priors per entry, the rank, and the memory for W and H.

    Args:
        spread: whether X's rows may be spread over processes.
    """
    if isinstance(X, Sharded) and not spread:
        raise X.refusal()
    require_accepted(model, X)
    if X.n_negative:
        what = f"X has {X.n_negative} negative entries (least {X.least:.6g})"
        warnings.warn(f"{what}: a Gaussian story can produce them, but W @ H cannot follow", stacklevel=3)
    own: Any = model
    if offers(own, Sweeping):
        own.require_fits(X.shape)
    N, D = X.shape
    require_room(model, X, chains=1, draws=0)
    if model.rank > min(N, D):
        warnings.warn(f"rank {model.rank} is above min(N, D) = {min(N, D)}: components are redundant", stacklevel=3)
