"""Factors and cells as tables: what a posterior says of each entry, named, with its uncertainty."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.checks import described, real_number
from ppnmf.data.labelled import listed
from ppnmf.disk import is_parquet, write_table
from ppnmf.matching import best_orders, in_order

if TYPE_CHECKING:
    import pandas

    from ppnmf.posterior import Posterior

__all__ = [
    "Aligned",
    "Interval",
    "Table",
    "aligned",
    "classes_beside",
    "columns_of",
    "components",
    "interval",
    "loadings",
    "orders",
    "places",
    "quantile",
]

SHOWN = 5  # entries of a component that are printed
Array = np.ndarray[Any, np.dtype[Any]]
Cells = Sequence[int | str] | None


class Interval(NamedTuple):
    """Of each of some cells, (rows, columns): the mean of its draws, and the bounds that hold a share of them."""

    mean: Array
    lower: Array
    upper: Array


@dataclass(frozen=True, eq=False)
class Table:
    """A factor over the draws, its components in one order, the strongest first: components (K, D), or loadings (N, K).

    Args:
        what: "components" or "loadings".
        mean, sd, lower, upper: of each entry; `level` of the draws lie between the last two. Of one draw, such as the best of
            some modes, the last three are NaN.
        rows, columns: names of both axes.
        congruence: of each component (K,), how surely it is the same one in every draw: the mean over draws of its cosine
            with its own mean, of W times of H. 1 is the same throughout; below about 0.9 it is several things at once.
        level: of the interval.
    """

    what: str
    mean: Array
    sd: Array
    lower: Array
    upper: Array
    rows: list[str]
    columns: list[str]
    congruence: Array
    level: float

    def to_pandas(self) -> pandas.DataFrame:
        """A line an entry: component, column or row, mean, sd, lower, upper, congruence. Needs pandas."""
        import pandas as pd

        first, second = ("component", "column") if self.what == "components" else ("row", "component")
        N, D = self.mean.shape
        sure = np.repeat(self.congruence, D) if self.what == "components" else np.tile(self.congruence, N)
        numbers = {name: getattr(self, name).ravel() for name in ("mean", "sd", "lower", "upper")}
        return pd.DataFrame(
            {first: np.repeat(self.rows, D), second: np.tile(self.columns, N), **numbers, "congruence": sure}
        )

    def to_parquet(self, path: str | Path) -> Path:
        """Write the same lines as a Parquet file, whole or not at all. Raises ValueError where its name ends otherwise."""
        return self.to_csv(named_parquet(path))

    def to_csv(self, path: str | Path) -> Path:
        """Write the same lines as comma-separated text, or as Parquet where the name ends in .parquet, whole or not at all."""
        names = ("mean", "sd", "lower", "upper")
        axes = ("component", "column") if self.what == "components" else ("row", "component")
        return write_table(path, [*axes, *names, "congruence"], self._lines(names))

    def _lines(self, names: tuple[str, ...]) -> Iterator[list[Any]]:
        """A line an entry: its place, these numbers of it, and its component's congruence."""
        for i, row in enumerate(self.rows):
            for j, column in enumerate(self.columns):
                sure = self.congruence[i if self.what == "components" else j]
                yield [row, column, *(float(getattr(self, name)[i, j]) for name in names), float(sure)]

    def __str__(self) -> str:
        """The strongest entries of each component."""
        by_component = self.mean if self.what == "components" else self.mean.T
        spread = self.sd if self.what == "components" else self.sd.T
        names, entries = (self.rows, self.columns) if self.what == "components" else (self.columns, self.rows)
        lines = []
        for name, mean, sd, sure in zip(names, by_component, spread, self.congruence, strict=True):
            strongest = np.argsort(-mean, kind="stable")[:SHOWN]
            shown = ", ".join(f"{entries[j]} {mean[j]:.3g}{_give_or_take(sd[j])}" for j in strongest)
            lines.append(f"{name} (congruence {sure:.2f}): {shown}")
        return "\n".join(lines)


def _give_or_take(sd: float) -> str:
    return "" if np.isnan(sd) else f" ± {sd:.1g}"


def named_parquet(path: str | Path) -> Path:
    """The path, if its name says what it will hold."""
    if not is_parquet(path):
        raise ValueError(f"path is {path}; the name of a Parquet file ends in .parquet")
    return Path(path)


def components(post: Posterior, scale: bool, level: float) -> Table:
    """What `Posterior.components` does."""
    found = aligned(post, scale)
    return _table("components", found.H, _numbered(found), columns_of(post), found.congruence(), level)


def loadings(post: Posterior, scale: bool, level: float) -> Table:
    """What `Posterior.loadings` does."""
    found = aligned(post, scale)
    rows = post.names.get("rows") or [str(i) for i in range(found.W.shape[1])]
    return _table("loadings", found.W, list(rows), _numbered(found), found.congruence(), level)


def columns_of(post: Posterior) -> list[str]:
    """The names of X's columns, or their numbers; labels that stand beside X have the names of their classes."""
    if "columns" in post.names:
        return list(post.names["columns"])
    classes = classes_beside(post)
    return [str(j) for j in range(post.X.shape[1] - len(classes))] + classes


def classes_beside(post: Posterior) -> list[str]:
    """The classes whose columns stand behind X's own in the matrix that was fitted."""
    facts = post.attrs.get("labels") or {}
    return [str(name) for name in facts["classes"]] if facts.get("of") == "rows" and facts["weight"] else []


def interval(draws: Tensor, level: float) -> Interval:
    """Of draws (S, *any)."""
    if not 0 < real_number("level", level) < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1, such as 0.9")
    values = draws.double().cpu().numpy()
    lower, upper = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(values.mean(0), lower, upper)


def quantile(draws: Tensor, q: float | Sequence[float]) -> Tensor:
    """Of draws (chain, draw, *site), float64; sorted by NumPy, for torch takes no more than 16 million numbers."""
    asked = np.asarray(q, float)
    if asked.size == 0 or not bool(((asked >= 0) & (asked <= 1)).all()):
        raise ValueError(f"q is {described(q)}; give numbers between 0 and 1, such as 0.5")
    return torch.from_numpy(np.asarray(np.quantile(draws.double().flatten(0, 1).cpu().numpy(), asked, axis=0)))


def places(post: Posterior, axis: str, given: Cells) -> list[int]:
    """The numbers of some rows, or columns, that are given by number or by name; None: all of them.

    Raises:
        ValueError: a name that there is not, a number beyond the last, or what is neither, such as True.
    """
    size = post.X.shape[axis == "columns"]
    if given is None:
        return list(range(size))
    if isinstance(given, str) or not hasattr(given, "__len__"):
        raise ValueError(f"{axis} is {described(given)}; give a list of numbers, or of names")
    every = post.names.get(axis) or ()
    names = {name: number for number, name in enumerate(every)}
    twice = (
        [str(one) for one in given if isinstance(one, str) and every.count(one) > 1] if len(names) < len(every) else []
    )
    if twice or not len(given):
        wrong = (
            f"{listed(twice)}: several have that name; give numbers"
            if twice
            else "names none; give some, or leave it out"
        )
        raise ValueError(f"{axis} {wrong}")
    unknown = [str(one) for one in given if isinstance(one, str) and one not in names]
    if unknown:
        raise ValueError(
            f"{axis} {listed(unknown)}: the fit has no such names; give them as they are in its X, or numbers"
        )
    found = [names[one] if isinstance(one, str) else _numbered_place(axis, one) for one in given]
    beyond = [number for number in found if not 0 <= number < size]
    if beyond:
        raise ValueError(f"{axis} has {beyond[0]}; X has {size}, numbered from 0")
    return found


def _numbered_place(axis: str, one: Any) -> int:
    """A whole number as an int. Raises ValueError for another one, and for an entry of a mask."""
    try:
        number = operator.index(one)
    except TypeError:
        number = None
    if number is None or isinstance(one, bool) or getattr(one, "dtype", None) == torch.bool:
        plain = one.item() if hasattr(one, "item") else one
        raise ValueError(
            f"{axis} has {described(plain)}; give names or whole numbers, such as numpy.flatnonzero of a mask"
        )
    return number


class Aligned(NamedTuple):
    """Draws of the factors, W (S, N, K) and H (S, K, D), in one order, the strongest component first."""

    W: Tensor
    H: Tensor

    def congruence(self) -> Array:
        """How alike the draws of each component are, (K,)."""
        found: Array = (_cosines(self.W.mT) * _cosines(self.H)).mean(0).double().cpu().numpy()
        return found


def aligned(post: Posterior, scale: bool) -> Aligned:
    """The draws of the factors, of modes the best one alone, with the components of each in the order of `orders`.

    Args:
        scale: make each component sum to one in every draw.
    """
    typical = post.typical()
    W, H = (typical._kept(site).flatten(0, 1) for site in ("W", "H"))
    W, H = in_order(W, H, orders(typical))
    if scale:
        total = H.sum(-1)
        total = torch.where(total > 0, total, torch.ones_like(total))
        W, H = W * total[:, None, :], H / total[:, :, None]
    return Aligned(W, H)


def orders(post: Posterior) -> Tensor:
    """Which component of each draw belongs in which place, (S, K): the same one in all draws, the strongest first.

    A component's strength is the mean over draws of the sum of W_k H_k; of modes, the best one's. Of new rows
    (`Posterior.transform`) the places are those of the fit, whatever is strongest in these rows.
    """
    known = post.attrs.get("transformed", {}).get("order")
    if known is not None and np.shape(known)[:2] == (post.chains, post.n_draws):
        return torch.tensor(known).flatten(0, 1)
    W, H = (post._kept(site).flatten(0, 1) for site in ("W", "H"))
    best = post.best()
    V, G = (best._kept(site)[0, 0] for site in ("W", "H"))
    found = best_orders(W, H, V, G)
    strength = V.sum(0) * G.sum(1) if post.kind == "modes" else _strength(W, H, found)
    return found[:, strength.cpu().argsort(descending=True, stable=True)]


def _strength(W: Tensor, H: Tensor, order: Tensor) -> Tensor:
    """The mean over draws W (S, N, K), H (S, K, D) of the sum of W_k H_k, of the components in these orders (S, K)."""
    return (W.sum(1) * H.sum(2)).cpu().gather(1, order).mean(0)


def _cosines(F: Tensor) -> Tensor:
    """Of each draw of a component with the mean of them, scaled to length one, (S, K), of a factor (S, K, R).

    One that is zero in all draws is the same in all.
    """
    unit = torch.nn.functional.normalize(F, dim=-1)
    found = (unit * torch.nn.functional.normalize(unit.mean(0), dim=-1)).sum(-1)
    return torch.where((F == 0).all(-1).all(0), 1.0, found)


def _numbered(found: Aligned) -> list[str]:
    return [f"component {k}" for k in range(1, found.H.shape[1] + 1)]  # as the pictures number them


def _table(what: str, F: Tensor, rows: list[str], columns: list[str], congruence: Array, level: float) -> Table:
    found = interval(F, level)
    sd = F.double().std(0, correction=0).cpu().numpy()
    if len(F) == 1:
        sd = np.full_like(sd, np.nan)
        found = Interval(found.mean, sd, sd)
    return Table(what, found.mean, sd, found.lower, found.upper, rows, columns, congruence, level)
