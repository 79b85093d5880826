r"""Fits with labels of X's rows: the columns [X, Y] as one matrix, with noise that is known up to σ², and a mask.

λ says what an entry of Y counts beside one of X, whose noise variance is σ²: that of Y's is σ² / λ. By default it is the estimate
of σ² over the variance of the scores, so that a label column is no more than as noisy as it is variable; `label_weight="heldout"`
takes of this value times `FACTORS` the one under which hidden ones of the known labels are predicted best, by their mean
log probability, and with it how sharp the probabilities of names are (`ppnmf.labelling`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import described, real_number, whole_number
from ppnmf.data.labelled import names_of
from ppnmf.data.labels import Labels, as_labels, joined
from ppnmf.data.matrix import Dense, as_matrix, in_memory
from ppnmf.gaussian.scale import data_scale
from ppnmf.labelling import of_names, of_rows
from ppnmf.models import SemiSupervised
from ppnmf.posterior import Posterior
from ppnmf.progress import bar
from ppnmf.rng import Site, Stream

__all__ = ["FACTORS", "HELD_OUT", "choose_weight", "fitted"]

HELD_OUT = "heldout"  # the weight that is chosen by hidden labels
FACTORS = (1.0, 10.0, 100.0, 1000.0)  # of the default weight, that are tried
SHARPNESS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # that are tried with each of them
FOLDS = 3  # of the known labels
SHORT = {"draws": 60, "warmup": 100, "chains": 1, "survey": 0}  # chains while a weight is looked for
Fit = Callable[..., Posterior]


class Asked(NamedTuple):
    """What a fit with labels is told.

    Args:
        X: (N, D), without the labels. labels: of its rows. rank: K. method: by which.
        options: for the method, and `seed`.
    """

    X: Dense
    labels: Labels
    rank: int
    method: str
    options: Mapping[str, Any]


def fitted(fit: Fit, X: Dense, rank: int, method: str, progress: bool, options: Mapping[str, Any]) -> Posterior:
    """The fit of X and its rows' labels.

    Args:
        fit: `ppnmf.fit`.
        options: `labels`, a name for each row, None, NaN or "" where it is not known, or scores (N, classes), NaN where they
            are not; `label_weight`, λ: None for the default, "heldout" for the best by hidden labels, 0 leaves the labels
            out; `seed`; and those of the method.

    Raises:
        ValueError: labels that do not fit, a weight below 0, or too few known labels to hide some.
    """
    others = {name: value for name, value in options.items() if name not in ("labels", "label_weight")}
    labels = as_labels(options["labels"], X.shape[0], "rows of X")
    weight = options.get("label_weight")
    asked = Asked(X, labels, whole_number("rank", rank, 1), method, others)
    if not isinstance(weight, str):
        chosen = usual_weight(asked) if weight is None else real_number("label_weight", weight, 0)
        return _fit(fit, asked, chosen, progress)
    if weight != HELD_OUT:
        raise ValueError(f"label_weight is {weight!r}; give a number >= 0, None, or {HELD_OUT!r}")
    tried = choose_weight(fit, asked, progress)
    best = max(tried, key=lambda one: one.score)
    post = _fit(fit, asked, best.weight, progress)
    told = {"sharpness": best.sharpness, "tried": [list(one) for one in tried]}
    return replace(post, attrs={**post.attrs, "labels": {**post.attrs["labels"], **told}})


def usual_weight(asked: Asked) -> float:
    """The estimate of σ² over the variance of the known scores."""
    known = asked.labels.scores[asked.labels.known]
    variance = float((known - known.mean(0)).square().mean())
    return data_scale(asked.X, asked.rank).noise / max(variance, 1e-12)


class Tried(NamedTuple):
    """A weight, a sharpness, and the mean log probability of hidden labels with them."""

    weight: float
    sharpness: float
    score: float


def choose_weight(fit: Fit, asked: Asked, progress: bool) -> list[Tried]:
    """Each weight that is tried with its best sharpness; every known label is hidden once, and chains are short.

    Raises:
        ValueError: a fold would leave fewer than two classes.
    """
    tried: list[Tried] = []
    folds = _folds(asked.labels, int(asked.options["seed"]))
    short = {**asked.options, **(SHORT if asked.method == "gibbs" else {})}
    quick = asked._replace(
        options={name: value for name, value in short.items() if name not in ("until", "max_seconds")}
    )
    with bar(len(FACTORS) * FOLDS, "weight of the labels", progress) as ticker:
        for factor in FACTORS:
            weight = factor * usual_weight(asked)
            total = torch.zeros(len(SHARPNESS), dtype=torch.float64)
            for hidden in folds:
                own = quick._replace(labels=asked.labels.without(hidden))
                total += _log_scores(_fit(fit, own, weight, False), asked.labels, hidden)
                ticker.update()
            at = int(total.argmax())
            tried.append(Tried(weight, SHARPNESS[at], float(total[at]) / int(asked.labels.known.sum())))
    return tried


def _log_scores(post: Posterior, truth: Labels, hidden: Tensor) -> Tensor:
    """Σ log p of the hidden labels, for each sharpness."""
    scores, variance = of_rows(post, post.attrs["labels"])
    n_known = int((truth.known & ~hidden).sum())
    own = (hidden.nonzero()[:, 0], truth.codes[hidden])
    each = [of_names(scores, variance / sharpness, n_known).cpu()[own].log().sum() for sharpness in SHARPNESS]
    return torch.stack(each)


def _folds(labels: Labels, seed: int) -> list[Tensor]:
    """Which known labels are hidden, (N,), fold by fold: a third of each class."""
    u = Stream.of(seed).uniforms(0, Site.FOLDS, range(len(labels.known)), 1)[0, :, 0]
    fold = torch.full(labels.known.shape, -1)
    for code in range(len(labels.classes)):
        own = (labels.codes == code).nonzero()[:, 0]
        fold[own[u[own].argsort()]] = torch.arange(len(own)) % FOLDS
    hidden = [fold == number for number in range(FOLDS)]
    for one in hidden:
        left = labels.without(one)
        if not bool(one.any()) or len(left.codes[left.known].unique()) < 2:
            raise ValueError("too few labels are known to hide a third of them; give label_weight a number")
    return hidden


def _fit(fit: Fit, asked: Asked, weight: float, progress: bool) -> Posterior:
    model = SemiSupervised.for_labelled(asked.X, asked.rank, asked.labels, weight)
    data = joined(asked.X, asked.labels, weight)
    post = fit(model, data, method=asked.method, progress=progress, **asked.options)
    facts = {
        "of": "rows",
        "classes": list(asked.labels.classes),
        "codes": asked.labels.codes.tolist(),
        "are_names": asked.labels.are_names,
        "weight": weight,
    }
    names = names_of(asked.X).to_dict()
    if weight and "columns" in names:
        names["columns"] = [*names["columns"], *asked.labels.classes]
    return replace(post, attrs={**post.attrs, "labels": facts}, names=names)


def prepared(X: Any, mask: Any, missing: str, device: Any, noise: Any) -> Dense:
    """X in memory, where labels can stand beside it."""
    return in_memory(as_matrix(X, mask, missing, device, noise), "labels")


def require_labelled(model: Any) -> None:
    """Raise TypeError where labels are given for a model that has no place for them."""
    if model is not SemiSupervised and model != SemiSupervised.name:
        raise TypeError(
            f"labels go with {SemiSupervised.name!r} and a rank, or with a hierarchical model by layerwise, deep or neural; the "
            f"model is {described(model)}"
        )
