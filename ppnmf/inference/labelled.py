r"""Fits with labels of X's rows: the columns [X, Y] as one matrix, with a mask, by a model that has a place for them.

λ says what an entry of Y counts beside one of X. In `SemiSupervised` the noise variance of X's entries is σ² and that of Y's is
σ² / λ; by default λ is the estimate of σ² over the variance of the scores, so that a label column is no more than as noisy as it is
variable. In `SemiSupervisedCounts` a label is λ events, by default one. `label_weight="heldout"` takes of this value times
`FACTORS` the one under which hidden ones of the known labels are predicted best, by their mean log probability, and with it what
the probabilities of names are read off, and how sharp they are (`ppnmf.labelling`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import described, real_number, whole_number
from ppnmf.classified import SHARPER, STRENGTHS, regressed, sharpened, succeeded, without_labels
from ppnmf.data.labelled import names_of
from ppnmf.data.labels import Labels, as_labels
from ppnmf.data.matrix import Dense, as_matrix, in_memory
from ppnmf.labelling import LOADINGS, SCORES, of_names, of_rows
from ppnmf.models import REGISTRY
from ppnmf.posterior import Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Labelling, offers
from ppnmf.rng import Site, Stream

__all__ = ["FACTORS", "HELD_OUT", "choose_weight", "fitted", "kind_of", "prepared"]

HELD_OUT = "heldout"  # the weight that is chosen by hidden labels
FACTORS = (1.0, 10.0, 100.0, 1000.0)  # of the default weight, that are tried
SHARPNESS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of the scores, that are tried with each of them
DRAWS_TRIED = 2  # of H, that a regression is averaged over while a weight is looked for
FOLDS = 3  # of the known labels
OF_THE_FIT_ALONE = ("until", "max_seconds", "target_ess", "checkpoint", "every", "resume", "store", "keep")  # options
SHORT = {"draws": 60, "warmup": 100, "chains": 1, "survey": 0}  # chains while a weight is looked for
Fit = Callable[..., Posterior]


class Asked(NamedTuple):
    """What a fit with labels is told.

    Args:
        kind: of the model. X: (N, D), without the labels. labels: of its rows. rank: K. method: by which.
        options: for the method, and `seed`.
    """

    kind: type[Labelling]
    X: Dense
    labels: Labels
    rank: int
    method: str
    options: Mapping[str, Any]


def fitted(
    fit: Fit, kind: type[Labelling], X: Dense, rank: int, method: str, progress: bool, options: Mapping[str, Any]
) -> Posterior:
    """The fit of X and its rows' labels.

    Args:
        fit: `ppnmf.fit`.
        kind: the class of the model.
        options: `labels`, a name for each row, None, NaN or "" where it is not known, or scores (N, classes), NaN where they
            are not; `label_weight`, λ: None for the default, "heldout" for the best by hidden labels, 0 leaves the labels
            out; `seed`; and those of the method.

    Raises:
        ValueError: labels that do not fit, a weight below 0, or too few known labels to hide some.
    """
    others = {name: value for name, value in options.items() if name not in ("labels", "label_weight")}
    labels = as_labels(options["labels"], X.shape[0], "rows of X", names=names_of(X).rows)
    weight = options.get("label_weight")
    asked = Asked(kind, X, labels, whole_number("rank", rank, 1), method, others)
    if not isinstance(weight, str):
        own = _usual_weight(asked) if weight is None else real_number("label_weight", weight, 0)
        return _fit(fit, asked, own, progress)
    if weight != HELD_OUT:
        raise ValueError(f"label_weight is {weight!r}; give a number >= 0, None, or {HELD_OUT!r}")
    tried = choose_weight(fit, asked, progress)
    best = chosen(tried)
    post = _fit(fit, asked, best.weight, progress)
    told = {**best.read._asdict(), "tried": [[one.weight, *one.read, one.score] for one in tried]}
    return replace(post, attrs={**post.attrs, "labels": {**post.attrs["labels"], **told}})


def _usual_weight(asked: Asked) -> float:
    return asked.kind.usual_weight(asked.X, asked.rank, asked.labels)


class Read(NamedTuple):
    """What probabilities of names are read off, and how.

    Args:
        reading: scores or loadings. sharpness: q.
        strength: the inverse of the regression's penalty; 1 for scores, which have none.
    """

    reading: str
    sharpness: float
    strength: float = 1.0


class Tried(NamedTuple):
    """What was tried, and how well hidden labels were predicted with it.

    Args:
        weight: λ. read: how probabilities were read.
        logs: (n,), the log probability of each known label when it was hidden.
    """

    weight: float
    read: Read
    logs: Tensor

    @property
    def score(self) -> float:
        """The mean log probability."""
        return float(self.logs.mean())


def chosen(tried: list[Tried]) -> Tried:
    """The best score, of the loadings where these are tried, unless the scores W B are better by twice the standard error.

    Of few hidden labels the better one is a matter of luck, and where one-hot names are no Gaussian numbers the scores err by more
    than the regression does.
    """
    by_loadings = [one for one in tried if one.read.reading == LOADINGS]
    best = max(tried, key=lambda one: one.score)
    if best.read.reading == LOADINGS or not by_loadings:
        return best
    second = max(by_loadings, key=lambda one: one.score)
    lead = best.logs - second.logs
    return best if float(lead.mean()) > 2 * float(lead.std()) / math.sqrt(len(lead)) else second


def choose_weight(fit: Fit, asked: Asked, progress: bool) -> list[Tried]:
    """Each weight that is tried with the best of each reading; every known label is hidden once, and chains are short.

    Raises:
        ValueError: a fold would leave fewer than two classes.
    """
    tried: list[Tried] = []
    folds = _folds(asked.labels, int(asked.options["seed"]))
    short = {**asked.options, **(SHORT if asked.method == "gibbs" else {})}
    quick = asked._replace(options={name: value for name, value in short.items() if name not in OF_THE_FIT_ALONE})
    with bar(len(FACTORS) * FOLDS, "weight of the labels", progress) as ticker:
        for factor in FACTORS:
            weight = factor * _usual_weight(asked)
            logs: dict[Read, list[Tensor]] = defaultdict(list)
            for hidden in folds:
                own = quick._replace(labels=asked.labels.without(hidden))
                post = _fit(fit, own, weight, False)
                for read, p in _readings(post, own.labels):
                    logs[read].append(p[hidden.nonzero()[:, 0], asked.labels.codes[hidden]].log())
                ticker.update()
            found = [Tried(weight, read, torch.cat(own)) for read, own in logs.items()]
            for reading in dict.fromkeys(read.reading for read in logs):
                tried.append(max((one for one in found if one.read.reading == reading), key=lambda one: one.score))
    return tried


def _readings(post: Posterior, labels: Labels) -> Iterator[tuple[Read, Tensor]]:
    """Each reading that is tried -> probabilities (N, c), where `labels` are known."""
    n_known = int(labels.known.sum())
    scores = of_rows(post)
    for sharpness in SHARPNESS:
        yield Read(SCORES, sharpness), of_names(scores, n_known, sharpness).cpu()
    if labels.are_names:
        X = without_labels(in_memory(post.X, "labels"), len(labels.classes))
        for strength in STRENGTHS:
            p = regressed(post, labels.codes, [X], strength, DRAWS_TRIED)
            for sharpness in SHARPER:
                yield Read(LOADINGS, sharpness, strength), succeeded(sharpened(p, sharpness), n_known)


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
    alone = asked.kind.for_labelled(asked.X, asked.rank, asked.labels, weight)
    model, data = alone.beside(asked.X, asked.labels)
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


def kind_of(model: Any) -> type[Labelling]:
    """The class of a model that is asked for by its name or as a class. Raises TypeError where it has no place for labels."""
    kinds = {name: kind for name, kind in REGISTRY.items() if offers(kind(rank=1), Labelling)}  # type: ignore[call-arg]
    for name, kind in kinds.items():
        if model is kind or (isinstance(model, str) and model == name):
            return kind  # type: ignore[return-value]
    raise TypeError(
        f"labels go with {' or '.join(map(repr, kinds))} and a rank, or with a hierarchical model by layerwise, deep or neural; "
        f"the model is {described(model)}"
    )
