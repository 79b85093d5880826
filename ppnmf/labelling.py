r"""Predicted labels: how likely each class is for every observation, averaged over the draws of a fit to which labels were given.

Where an observation has one class, its label is one of the unit vectors e_c, which have one length; so with noise of variance
τ² about the fitted scores s its probabilities are

.. math:: p(c) \propto \exp(-\|e_c - s\|^2 / 2 \tau^2) \propto \exp(s_c / \tau^2).

Where labels are counts, λ events of one class with the means λ μ, they are p(c) ∝ μ_c^λ: the same of s = log μ and τ² = 1 / λ.

A name is no Gaussian number, though, and such probabilities may be too sure of themselves. Where λ was chosen by hidden labels, so
was a sharpness q, p(c) ∝ exp(q s_c / τ²), or the other reading of names, a logistic regression on the loadings (`classified`), and
its sharpness.
By Laplace's rule of succession of n + 2 labels, n of them known, one goes to a class at random.

Where labels are scores, the class is the one of the greatest, and its probability how often replicates with that noise have it
there; of counts it is that of one more label. Probabilities are of the observations whose label is not known to the fit and of the
others alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ppnmf import classified
from ppnmf.checks import described, meant
from ppnmf.data.dense import Dense
from ppnmf.data.labelled import names_of
from ppnmf.data.labels import as_labels
from ppnmf.data.matrix import as_matrix, in_dtype, in_memory
from ppnmf.protocols import Entries, Scores
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings

if TYPE_CHECKING:
    from ppnmf.posterior import Posterior

__all__ = ["LOADINGS", "SCORES", "PredictedLabels", "of_names", "of_rows", "predicted_labels"]

LEAST = 1e-12  # probability, and variance: a logarithm is taken of the one, and a division made by the other
SHOWN = 10  # rows that are printed
SCORES = "scores"  # W B, which probabilities are read off
LOADINGS = "loadings"  # W alone, by a logistic regression


@dataclass(frozen=True, eq=False)
class PredictedLabels:
    """The classes' probabilities.

    Args:
        classes: their names, c of them.
        probabilities: (n, c), float64.
        known: boolean (n,), whether the fit was told the observation's label.
        names: of the observations; None where they have none.
    """

    classes: tuple[str, ...]
    probabilities: Tensor
    known: Tensor
    names: tuple[str, ...] | None = None

    @property
    def codes(self) -> Tensor:
        """The number of the likeliest class of each observation, (n,)."""
        return self.probabilities.argmax(-1)

    @property
    def labels(self) -> list[str]:
        """The likeliest class of each observation."""
        return [self.classes[code] for code in self.codes.tolist()]

    def accuracy(self, truth: Any) -> float:
        """The share of the observations with a true label, but unknown to the fit, whose likeliest class is right.

        Args:
            truth: labels (n,), None where there is none; where all are known to the fit, they are all counted.
        """
        codes, rows = self._judged(truth)
        return float((self.codes[rows] == codes).double().mean())

    def brier(self, truth: Any) -> float:
        """The mean of Σ_c (p_c - [c is true])² over the same; 0 is best, and 2 the worst there is."""
        codes, rows = self._judged(truth)
        off = self.probabilities[rows].clone()
        off[torch.arange(len(codes)), codes] -= 1
        return float(off.square().sum(-1).mean())

    def log_score(self, truth: Any) -> float:
        """The mean log probability of the true class over the same; 0 is best."""
        codes, rows = self._judged(truth)
        own = self.probabilities[rows][torch.arange(len(codes)), codes]
        return float(own.clamp(min=LEAST).log().mean())

    def _judged(self, truth: Any) -> tuple[Tensor, Tensor]:
        """The true classes, and the observations, (m,), that a score counts."""
        found = as_labels(truth, len(self.known), "observations", least=1, names=self.names)
        place = {name: code for code, name in enumerate(self.classes)}
        strange = set(found.classes) - set(place)
        if strange:
            raise ValueError(
                f"truth has the classes {', '.join(sorted(strange))}, and the fit {', '.join(self.classes)}"
            )
        rows = found.known & ~self.known
        rows = (rows if bool(rows.any()) else found.known).nonzero()[:, 0]
        own = torch.tensor([place[name] for name in found.classes])
        return own[found.codes[rows]], rows

    def to_pandas(self) -> Any:
        """A DataFrame, an observation a row and a class a column."""
        import pandas

        return pandas.DataFrame(self.probabilities.numpy(), index=self.names, columns=list(self.classes))

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        unknown = (~self.known).nonzero()[:, 0].tolist()
        yield f"{len(unknown)} of {len(self.known)} labels predicted, of {', '.join(self.classes)}"
        for row in unknown[:SHOWN]:
            name = row if self.names is None else self.names[row]
            yield f"{name}: {self.labels[row]} ({float(self.probabilities[row].max()):.2f})"
        if len(unknown) > SHOWN:
            yield f"and {len(unknown) - SHOWN} more"


@own_settings()
def predicted_labels(post: Posterior, X: Any = None, seed: int = 0, reading: str | None = None) -> PredictedLabels:
    """The classes' probabilities for each observation, from a fit with labels.

    Args:
        post: of `ppnmf.fit(..., labels=...)`; of several modes the best is read.
        X: new rows (M, D), of the columns that were fitted, in place of the fit's: their loadings are drawn from what X and
            the fit say of them (`Posterior.transform`). Of a fit whose labels are of X's rows.
        seed: of replicates, where labels are scores, and of new rows' loadings.
        reading: "scores" for those of the model, W B, or "loadings" for a logistic regression of known names of rows on what X says
            of their loadings; by default what `label_weight="heldout"` found the better one, and else "scores".

    Raises:
        ValueError: no labels were given to the fit, or they had no weight; X has other columns; a reading that there is not.
        TypeError: X is given for a fit whose labels are of X's columns.
    """
    facts = post.attrs.get("labels")
    if facts is None or not facts["weight"]:
        raise ValueError(
            f"labels had no say in the fit of {described(post.model)}; fit with labels=, and a weight above 0"
        )
    told = _told(reading, facts)
    if told["reading"] == LOADINGS:
        return _of_loadings(post, facts, told, X)
    if X is not None:
        post, facts = _with_new_rows(post, facts, X, seed)
    codes = torch.tensor(facts["codes"])
    scores = _of_columns(post, facts) if facts["of"] == "columns" else of_rows(post)
    if facts["are_names"] or post.model.accepts is Entries.COUNTS:
        n_known = int((torch.tensor(facts["codes"]) >= 0).sum()) if X is None else facts["n_known"]
        probabilities = of_names(scores, n_known, told["sharpness"])
    else:
        probabilities = _of_scores(scores, seed)
    names = post.names.get(facts["of"])
    known = codes >= 0
    return PredictedLabels(tuple(facts["classes"]), probabilities.cpu(), known, None if names is None else tuple(names))


def _told(reading: str | None, facts: Any) -> dict[str, Any]:
    """The reading, its sharpness and its strength, as hidden labels had them where they chose this one."""
    usual = {"reading": SCORES if reading is None else _checked(reading, facts), "sharpness": 1.0, "strength": 1.0}
    chosen = {name: value for name, value in facts.items() if name in usual}
    return {**usual, **chosen} if reading in (None, chosen.get("reading")) else usual


def _checked(reading: str, facts: Any) -> str:
    if reading not in (SCORES, LOADINGS):
        raise ValueError(f"there is no reading {reading!r}{meant(reading, (SCORES, LOADINGS))}; {SCORES} or {LOADINGS}")
    if reading == LOADINGS and not (facts["of"] == "rows" and facts["are_names"]):
        raise ValueError(f"{LOADINGS} are read for names of X's rows; read the {SCORES}")
    return reading


def _of_loadings(post: Posterior, facts: Any, told: Any, X: Any) -> PredictedLabels:
    """By the logistic regression, of the fit's rows or of new ones."""
    own = classified.without_labels(in_memory(post.X, "predicted_labels"), len(facts["classes"]))
    codes = torch.tensor(facts["codes"])
    new = [] if X is None else [_new_rows(post, facts, X)]
    p = classified.by_regression(post, codes, [own, *new], told["strength"], told["sharpness"])
    names = names_of(new[0]).to_dict().get("rows") if new else post.names.get("rows")
    known = torch.zeros(len(p), dtype=torch.bool) if new else codes >= 0
    return PredictedLabels(tuple(facts["classes"]), p, known, None if names is None else tuple(names))


def _new_rows(post: Posterior, facts: Any, X: Any) -> Dense:
    """New rows of X, whose columns are those of the fit."""
    if facts["of"] != "rows":
        raise TypeError("new rows have no labels of columns; X goes with a fit whose labels are of X's rows")
    data = in_dtype(in_memory(as_matrix(X), "predicted_labels"), post.X.dtype, "predicted_labels")
    columns = names_of(data).to_dict().get("columns")
    fitted = post.names.get("columns")
    if columns and fitted and list(columns) != list(fitted)[: len(columns)]:
        raise ValueError("X's columns are not named as those of the fit; bring them into its order")
    wanted = post.X.shape[1] - len(facts["classes"])
    if data.shape[1] != wanted:
        raise ValueError(f"X has {data.shape[1]} columns and the fit's {wanted}; give rows of the same columns")
    return data


def _with_new_rows(post: Posterior, facts: Any, X: Any, seed: int) -> tuple[Posterior, Any]:
    """The fit for new rows, whose labels are not known."""
    data = _new_rows(post, facts, X)
    fitted: Any = post.model
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\d+ column\(s\) of X have nothing observed")  # their B is known
        model, rows = fitted.beside(data)
    named = {what: own for what, own in names_of(data).to_dict().items() if what == "rows"}
    n_known = sum(code >= 0 for code in facts["codes"])
    new = {**facts, "codes": [-1] * data.shape[0], "n_known": n_known}
    return replace(replace(post, model=model).transform(rows, seed=seed), names=named), new


def _of_columns(post: Posterior, facts: Any) -> Scores:
    """B S of the columns (1, D, c), and the variance of the known ones about them, (1,)."""
    at = int(post.height.argmax()) // post.n_draws
    B = torch.tensor(facts["coefficients"][at], dtype=torch.float64)
    scores = (B @ post.best().draws["H"][0, 0].double().cpu()).mT
    return Scores(scores[None], torch.tensor([facts["variance"][at]], dtype=torch.float64).clamp(min=LEAST))


def of_rows(post: Posterior) -> Scores:
    """What the model reads the rows' classes off, draw by draw."""
    model: Any = post.model
    return model.label_scores(classified.draws_of(post))


def of_names(scores: Scores, n_known: int, sharpness: float = 1.0) -> Tensor:
    """Probabilities (n, c) of one class each, of n_known + 2 labels one at random."""
    variance = scores.variance / sharpness
    return classified.succeeded(torch.softmax(scores.values / variance[:, None, None], -1).mean(0), n_known)


def _of_scores(scores: Scores, seed: int) -> Tensor:
    """How often each class has the greatest score of replicates with that noise."""
    values, variance = scores
    draws, n, c = values.shape
    wins = torch.zeros(n, c, dtype=torch.float64, device=values.device)
    stream = Stream.of(seed)
    for draw in range(draws):
        z = torch.special.ndtri(stream.uniforms(draw, Site.DATA, range(n), c, values.device)[0])
        best = (values[draw] + variance[draw].sqrt() * z).argmax(-1)
        wins += torch.nn.functional.one_hot(best, c)
    return wins / draws
