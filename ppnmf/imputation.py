"""The missing cells of X, with what a posterior says of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ppnmf import predictive
from ppnmf.data.dense import in_memory
from ppnmf.disk import write_table
from ppnmf.tables import Cells, Interval, classes_beside, columns_of, interval, named_parquet, places

if TYPE_CHECKING:
    import pandas

    from ppnmf.posterior import Posterior

__all__ = ["Imputed", "imputed", "of_mode"]

AT_ONCE = 2**22  # numbers of the draws of W and H at some cells, which are formed at a time
REPLICATES = 2000  # of a mode, which has no draws to take them from
NUMBERS = ("mean", "lower", "upper")
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Imputed:
    """The M missing cells of X, row by row.

    Args:
        rows, columns: of each cell, names where X has them and numbers otherwise.
        mean, lower, upper: of its predictive distribution, noise included, in X's units; `level` of it lies between the
            last two.
        level: of the intervals.
    """

    rows: list[str] | list[int]
    columns: list[str] | list[int]
    mean: Array
    lower: Array
    upper: Array
    level: float

    def __len__(self) -> int:
        return len(self.mean)

    def to_pandas(self) -> pandas.DataFrame:
        """A line a cell: row, column, mean, lower, upper. Needs pandas."""
        import pandas as pd

        numbers = {name: getattr(self, name) for name in NUMBERS}
        return pd.DataFrame({"row": self.rows, "column": self.columns, **numbers})

    def to_parquet(self, path: str | Path) -> Path:
        """Write the same lines as a Parquet file, whole or not at all. Raises ValueError where its name ends otherwise."""
        return self.to_csv(named_parquet(path))

    def to_csv(self, path: str | Path) -> Path:
        """Write the same lines as comma-separated text, or as Parquet where the name ends in .parquet, whole or not at all."""
        places = zip(self.rows, self.columns, strict=True)
        numbers = ([float(getattr(self, name)[m]) for name in NUMBERS] for m in range(len(self)))
        lines = ([*place, *own] for place, own in zip(places, numbers, strict=True))
        return write_table(path, ["row", "column", *NUMBERS], lines)


def imputed(post: Posterior, level: float, seed: int) -> Imputed:
    """What `Posterior.imputed` does."""
    mask = in_memory(post.X, "imputed").mask
    cells = torch.zeros(0, 2, dtype=torch.long) if mask is None else (~mask).nonzero()
    found = _intervals(post, cells, level, seed)
    return Imputed(
        rows=_named(post, "rows", cells[:, 0].tolist()),
        columns=_named(post, "columns", cells[:, 1].tolist()),
        mean=found.mean,
        lower=found.lower,
        upper=found.upper,
        level=level,
    )


def of_mode(post: Posterior, rows: Cells, columns: Cells, level: float, seed: int) -> Interval:
    """What `Posterior.interval` says of cells of X by the best of some modes, (rows, columns) each."""
    own = places(post, "rows", rows), places(post, "columns", columns)
    found = _intervals(post, torch.cartesian_prod(*(torch.tensor(each) for each in own)), level, seed)
    shape = len(own[0]), len(own[1])
    return Interval(*(values.reshape(shape) for values in found))


def _intervals(post: Posterior, cells: Tensor, level: float, seed: int) -> Interval:
    """Of cells (M, 2), (M,) each."""
    post = post.typical()
    replicates = REPLICATES if post.kind == "modes" else 1
    size = max(1, AT_ONCE // (post.chains * post.n_draws * max(post.model.rank, replicates)))
    each = [_interval(post, lot, replicates, level, seed + number) for number, lot in enumerate(cells.split(size))]
    return Interval(*(np.concatenate(values) for values in zip(*each, strict=True)))


def _interval(post: Posterior, cells: Tensor, replicates: int, level: float, seed: int) -> Interval:
    """Of some cells, from so many replicates of them at each draw; the mean is that of their distributions."""
    rows, columns = cells.to(post.X.device).unbind(1)
    mean, drawn = predictive.drawn_at(post, rows, columns, replicates, seed)
    found = interval(drawn, level)
    return found._replace(mean=mean.cpu().numpy())


def _named(post: Posterior, axis: str, numbers: Sequence[int]) -> Any:
    names = columns_of(post) if axis == "columns" and classes_beside(post) else post.names.get(axis)
    return [names[number] for number in numbers] if names else list(numbers)
