"""Recipes of the zoo: what to draw or load, what to fit and how.

`run` follows one and `disagreements` compares what comes out with the reference beside it. Numbers carry standard errors,
over replicates with seeds of their own.
"""

from __future__ import annotations

import inspect
import math
import statistics
import textwrap
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from ppnmf.data import datasets, toy
from ppnmf.data.matrix import as_matrix, in_memory
from ppnmf.inference import fit
from ppnmf.models import REGISTRY
from ppnmf.posterior import Kind, Posterior
from ppnmf.report import held_out_mask

__all__ = ["Outcome", "disagreements", "program", "run"]

CHANCE = 1e-4  # that a right number is called off its reference
ROUNDING = 1e-6  # relative; other libraries and machines sum in another order


@dataclass(frozen=True)
class Outcome:
    """What a recipe gave.

    Args:
        name: the model's.
        numbers: name -> (mean over replicates, its standard error).
        posterior: of the first replicate.
        replicates: how many.
        seconds: of all.
    """

    name: str
    numbers: dict[str, tuple[float, float]]
    posterior: Posterior
    replicates: int
    seconds: float

    def to_dict(self) -> dict[str, dict[str, float]]:
        return {name: {"value": value, "error": error} for name, (value, error) in self.numbers.items()}


def program(name: str) -> str:
    """The source of a model's Pyro program, as its card shows it: what the model does when it is called."""
    model: Any = REGISTRY[name]
    call = model.forward if issubclass(model, torch.nn.Module) else model.__call__
    return textwrap.dedent(inspect.getsource(call)).strip()


def run(
    recipe: str | Path, *, seed: int | None = None, replicates: int | None = None, progress: bool = True
) -> Outcome:
    """Follow a recipe.

    It has `model`; `seed`, `replicates` and `held_out` (a share of the cells); a [data] table: a data set's `name`, perhaps
    with `every` = n for each n-th row only, or `toy` with the arguments of `toy.draw`; a [model_options] table, in which
    `scaled = true` asks for priors on the data's scale; and a [fit] table for `ppnmf.fit`.

    Args:
        seed: instead of the recipe's; replicate r has seed + r, and so have its hidden cells. The data stay.
        replicates: instead of the recipe's.

    Raises:
        FileNotFoundError: no such recipe.
        ValueError: it is not TOML, lacks a part, or names an unknown model.
    """
    began, facts = time.perf_counter(), _read(Path(recipe))
    X, first = _data(facts["data"]), facts.get("seed", 0) if seed is None else seed
    found: list[dict[str, float]] = []
    posterior = None
    for replicate in range(facts.get("replicates", 1) if replicates is None else replicates):
        own = first + replicate
        data = in_memory(as_matrix(X, missing="nan"), "a recipe")
        seen = data.hide(held_out_mask(data, facts.get("held_out", 0.0), own))
        model = _model(facts, seen)
        post = fit(model, seen, seed=own, progress=progress, **facts["fit"])
        found.append(_measured(post, data.values, data.mask))
        posterior = posterior or post
        if post.attrs.get("interrupted"):
            raise KeyboardInterrupt
    if posterior is None:
        raise ValueError(f"{recipe}: replicates is {facts['replicates']}; it must be a whole number >= 1")
    numbers = {name: _mean([one[name] for one in found]) for name in found[0]}
    return Outcome(facts["model"], numbers, posterior, len(found), time.perf_counter() - began)


def disagreements(outcome: Outcome, reference: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A sentence for each number that is further off its reference than chance allows, by Student's distribution.

    The spread of a replicate is taken from the reference, which has more of them.
    """
    sentences = []
    for name, known in reference.items():
        if name not in outcome.numbers:
            sentences.append(f"{name} is in the reference and was not measured")
            continue
        value, (measured, runs) = outcome.numbers[name][0], (known["value"], known["replicates"])
        error = known["error"] * math.sqrt(1 + runs / outcome.replicates)
        room = float(student(runs - 1).isf(CHANCE / 2)) * error + ROUNDING * abs(measured)
        if not abs(value - measured) <= room:
            sentences.append(f"{name} is {value:.6g}, and the reference {measured:.6g}: off by more than {room:.2g}")
    return sentences


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        path = path / "recipe.toml"
    if not path.exists():
        raise FileNotFoundError(f"there is no recipe {path}")
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a recipe: {error}") from error
    absent = [part for part in ("model", "data", "model_options", "fit") if part not in facts]
    if absent:
        raise ValueError(f"{path} lacks {', '.join(absent)}; a recipe has model, [data], [model_options] and [fit]")
    if facts["model"] not in REGISTRY:
        raise ValueError(f"{path}: there is no model {facts['model']!r}; there are {', '.join(REGISTRY)}")
    return facts


def _data(facts: Mapping[str, Any]) -> np.ndarray:
    if "toy" in facts:
        return toy.draw(**facts["toy"]).X.numpy()
    if "name" not in facts:
        raise ValueError("[data] lacks a data set's name, and toy = {N, D, rank, ...}")
    return datasets.load(facts["name"]).X[:: facts.get("every", 1)]


def _model(facts: Mapping[str, Any], data: Any) -> Any:
    options = dict(facts["model_options"])
    kind: Any = REGISTRY[facts["model"]]
    if options.pop("scaled", False):
        return kind.scaled_to(data, **options)
    return kind(**options)


def _measured(post: Posterior, X: torch.Tensor, known: torch.Tensor | None) -> dict[str, float]:
    """What a reference holds of one fit."""
    shown = post.typical()
    square = (X - shown.reconstruction()).double().square()
    every = torch.ones_like(X, dtype=torch.bool) if known is None else known
    mask = in_memory(post.X, "a recipe").mask
    seen = every if mask is None else mask
    numbers = {
        "root_mean_squared_error": float(square[seen].mean().sqrt()),
        **{site: float(shown.mean(site)) for site in post.small_sites if shown.draws[site].ndim == 2},
    }
    if post.kind is Kind.APPROXIMATION:
        numbers["elbo"] = post.attrs["elbo"]
    else:
        numbers["log_joint"] = float(shown.stats["lp"].mean())
    if bool((every & ~seen).any()):
        numbers["hidden_root_mean_squared_error"] = float(square[every & ~seen].mean().sqrt())
    return numbers


def _mean(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error; that of a single value is not known, and given as zero."""
    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return statistics.fmean(values), spread
