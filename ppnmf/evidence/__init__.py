"""How probable the data are under a model, and what rank they speak for. Methods by name: each gives an `Evidence`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, Unpack

from ppnmf.checks import known_options, one_of
from ppnmf.compilation import announced
from ppnmf.data.matrix import as_matrix
from ppnmf.evidence.estimate import Evidence
from ppnmf.evidence.options import EvidenceOptions
from ppnmf.inference import check, require_model
from ppnmf.protocols import Blocked, Model, Stepping, Sweeping, has
from ppnmf.settings import own_settings

__all__ = ["METHODS", "Evidence", "log_evidence", "method_named", "usual"]

METHODS = {  # name -> the module whose `run` it is
    "chib": "ppnmf.evidence.chib",
    "smc": "ppnmf.evidence.smc",
    "stepping_stone": "ppnmf.evidence.stepping_stone",
}
ASKED = {
    "stepping_stone": Stepping,
    "chib": Blocked,
    "smc": Sweeping,
}  # of a model, in the order in which they are taken


@own_settings()
def log_evidence(
    model: Model,
    X: Any,
    *,
    method: str | None = None,
    seed: int = 0,
    mask: Any = None,
    missing: str = "error",
    noise: Any = None,
    replicates: int | None = None,
    progress: bool = True,
    **options: Unpack[EvidenceOptions],
) -> Evidence:
    r"""log p(X), the factors and the noise integrated out, with its Monte Carlo error.

    It depends on the priors: compare models whose priors are on the data's scale and are meant.

    Args:
        model: a model with full conditionals and proper priors.
        X: data (N, D), as `ppnmf.as_matrix` takes it.
        method: "stepping_stone", which holds where signals are strong and parameters many, too; "chib"; or "smc": tempered
            sequential Monte Carlo from the prior, for small problems. By default what `usual` gives.
        seed: of every random number.
        mask: boolean (N, D), True where observed; the evidence is that of the observed entries.
        missing: "error", or "nan" when NaN entries are missing ones.
        noise: known relative noise variances (D,), (N, 1) or (N, D), as in `ppnmf.fit`.
        replicates: independent repeats, at least 2, from which the error is computed; by default as many as suit the
            method.
        progress: show a bar, as in `ppnmf.fit`.
        options: the method's own: draws and warmup (`ppnmf.evidence.chib.run`), particles and sweeps
            (`ppnmf.evidence.smc.run`), width (`ppnmf.evidence.stepping_stone.run`).

    Warns: the chains do not agree; the sentence stands in the result's `warnings` too.

    Raises:
        ValueError: bad input, an improper prior, an unknown method.
        TypeError: the model has no full conditionals, or the method no such option.
    """
    require_model(model, X)
    method = usual([model]) if method is None else method
    run = method_named(method)
    known_options(method, run, options)
    data = as_matrix(X, mask, missing, noise=noise)
    check(model, data)
    chosen: dict[str, Any] = dict(options) if replicates is None else {**options, "replicates": replicates}
    with announced(progress):
        evidence = run(model, data, seed=seed, progress=progress, **chosen)
    if evidence.failed:
        warnings.warn(f"log_evidence by {method} at rank {model.rank} has failed: {evidence.failed}", stacklevel=2)
    for warning in evidence.warnings:
        warnings.warn(f"log_evidence by {method} at rank {model.rank}: {warning}", stacklevel=2)
    return evidence


def usual(models: Iterable[Model]) -> str:
    """The method for these models: the first of stepping stones, Chib's and SMC that each has the ability for.

    Stepping stones and Chib's agree where both hold; Chib's fails where the noise is small against the signal, and SMC from the
    prior can end in a lesser mode (`benchmarks/evidence.py`).
    """
    every = list(models)
    able = (name for name, ability in ASKED.items() if all(has(model, ability) for model in every))
    return next(able, "chib")


def method_named(method: str) -> Callable[..., Evidence]:
    """The `run` of a method. Raises ValueError for an unknown name."""
    return import_module(METHODS[one_of("method", method, METHODS)]).run
