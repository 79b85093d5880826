"""Labels of observations: a column of names, some of them missing, or scores; as numbers for a factorisation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.checks import borrowed, described
from ppnmf.data.containers import rows_of
from ppnmf.data.labelled import places_among
from ppnmf.data.matrix import Dense, as_matrix

__all__ = ["Labels", "as_labels", "joined"]


class Labels(NamedTuple):
    """What is known of the classes of n observations.

    Args:
        classes: their names, c of them.
        scores: (n, c), float64, zero where nothing is known: one-hot where names were given.
        known: boolean (n,), which observations have a label.
        are_names: whether each has one class, and not scores.
    """

    classes: tuple[str, ...]
    scores: Tensor
    known: Tensor
    are_names: bool

    @property
    def codes(self) -> Tensor:
        """The number of each observation's class, the one of its greatest score, (n,); -1 where it is not known."""
        return torch.where(self.known, self.scores.argmax(-1), -1)

    def without(self, hidden: Tensor) -> Labels:
        """The same where those that are True in `hidden` (n,) are not known."""
        known = self.known & ~hidden
        return self._replace(known=known, scores=torch.where(known[:, None], self.scores, 0.0))


def as_labels(labels: Any, n: int, of_what: str, least: int = 2, names: tuple[str, ...] | None = None) -> Labels:
    """Labels of n observations from what a user has.

    Args:
        labels: a column (n,) of names or whole numbers, where None, NaN and "" are missing ones; or scores (n, c), where
            rows with a NaN are missing ones; or `Labels`, which are given back. Those of a pandas series or frame are found by
            its index where the observations have names, and go by position otherwise.
        of_what: they belong to, for the sentences: "rows of X", or "columns".
        least: how many classes there must be.
        names: of the observations.

    Raises:
        ValueError: another number of labels, or other names; none known, or too few classes.
    """
    if isinstance(labels, Labels):
        return labels
    classes, index = getattr(labels, "columns", None), rows_of(labels)
    if isinstance(labels, list | tuple) and not any(isinstance(value, list | tuple | np.ndarray) for value in labels):
        labels = np.array(labels, dtype=object)  # where NaN beside names would become a name
    given = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if given.ndim not in (1, 2) or len(given) != n:
        raise ValueError(
            f"labels are {described(labels)} and there are {n} {of_what}; give one for each, or scores ({n}, classes)"
        )
    if names is not None:
        advice = "give one for each, or pass labels.to_numpy() to go by position"
        places = places_among(index, names, n, f"labels are not named as the {of_what} are", advice)
        given = given if places is None else given[places]
    if given.dtype.kind == "M":
        given = np.where(np.isnat(given), "", np.datetime_as_string(given, unit="auto"))
    found = _of_names(given) if given.ndim == 1 else _of_scores(given, classes)
    if not bool(found.known.any()) or len(found.classes) < least:
        raise ValueError(
            f"labels have {int(found.known.sum())} known ones of {len(found.classes)} class(es); {least} classes are the least"
        )
    return found


def _of_names(given: np.ndarray) -> Labels:
    known = np.array([not _is_missing(value) for value in given.tolist()])
    values = [value for value, seen in zip(given.tolist(), known, strict=True) if seen]
    classes = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    place = {value: number for number, value in enumerate(classes)}
    scores = torch.zeros(len(given), len(classes), dtype=torch.float64)
    for row, value in zip(np.flatnonzero(known).tolist(), values, strict=True):
        scores[row, place[value]] = 1.0
    return Labels(tuple(_name(value) for value in classes), scores, torch.from_numpy(known), True)


def _is_missing(value: Any) -> bool:
    if type(value).__name__ == "NAType":  # pandas', which is neither equal to itself nor not
        return True
    return value is None or value == "" or value != value  # NaN is not itself


def _name(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _of_scores(given: np.ndarray, names: Any) -> Labels:
    scores = torch.as_tensor(borrowed("labels", given), dtype=torch.float64)
    known = ~scores.isnan().any(-1)
    if bool(scores.isinf().any()):
        raise ValueError("labels have scores that are infinite")
    classes = range(scores.shape[1]) if names is None else names
    scores = torch.where(known[:, None], scores, 0.0)
    return Labels(tuple(map(str, classes)), scores, known, False)


def joined(X: Dense, labels: Labels | None, classes: int, *, scale: float = 1.0, noise: float | None = None) -> Dense:
    """The columns [X, scale Y], with a mask of what is known.

    Args:
        X: (N, D). labels: of its rows, with so many `classes`; None where none is known.
        noise: relative variance of Y's columns; None where entries have none, as counts.
    """
    N, D = X.shape
    scores = X.values.new_zeros(N, classes) if labels is None else scale * labels.scores.to(X.values)
    known = torch.zeros(N, dtype=torch.bool) if labels is None else labels.known
    seen = torch.ones(N, D, dtype=torch.bool, device=X.device) if X.mask is None else X.mask
    mask = torch.cat([seen, known.to(X.device)[:, None].expand(N, classes)], 1)
    both = torch.cat([X.values, scores], 1)
    return as_matrix(both, None if bool(mask.all()) else mask, noise=_noise_of_both(X, classes, noise))


def _noise_of_both(X: Dense, classes: int, noise: float | None) -> Tensor | None:
    """X's own noise (1 | N, D), and that of Y's columns beside it; None where neither has any."""
    if X.noise is None and noise is None:
        return None
    own = X.values.new_ones(1, X.shape[1]) if X.noise is None else X.noise.variance.expand(-1, X.shape[1])
    return torch.cat([own, own.new_full((len(own), classes), noise or 1.0)], 1)
