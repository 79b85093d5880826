r"""Rows of X spread over the processes of `torch.distributed`: each holds its own, and a sweep adds up what they tell.

Every process runs the same program and calls the same functions in the same order::

    from ppnmf.data.sharded import shard

    torch.distributed.init_process_group("gloo")  # on CPUs; "nccl" on GPUs, each process with one of its own
    X = shard(my_rows)                            # (N_r, D): this rank's rows; the whole has Σ N_r, in the ranks' order
    post = ppnmf.fit(ppnmf.models.ExponentialGaussian.scaled_to(X, rank=20), X, seed=0)
    post.save(f"rank{X.rank}.nc")

started by `torchrun --nproc-per-node 2 program.py`, or on several machines with torchrun's `--nnodes` and
`--rdzv-endpoint`. Gibbs, ICM and SVI take such an X, of any kind that `as_matrix` makes; all chains run on all ranks.
Evidence, NUTS and the like, and checkpoints, want one process, and say so. On GPUs choose one before `shard`:
`torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))`.

*What a rank gets back.* Its posterior holds its own rows of W (and of X), all of H and σ², and the `lp` of the whole;
`attrs["rows"]` says which rows. H, σ² and `lp` are the same bits on every rank. Rates given per row of W are given
whole, (N, K), on every rank, and the posterior's model has this rank's. Where values start a run (`init={"W": ...}`), W
is this rank's rows.

*What does not change.* Random numbers are addressed by the row's number in the whole matrix, so the number of processes
changes a sweep's draws only by rounding (sums are formed in another order), and a run's not in distribution.

*What is sent.* A sweep sends one sum of K² + K D numbers (K² D + K D with a mask or noise per entry) for each chain, K
sums for the scale move, a sum and a minimum per pair and round for the shear move (2 (K - 1) rounds), and the log
density of W: nothing that grows with N. Every rank adds the parts in the order of the ranks, so that bits do not
depend on the library underneath; for that the machines must be of one kind (a check at the end of a run says so).

*When something goes wrong.* Ctrl-C at any rank ends the run on all of them after the same sweep, with the draws so far. A
rank that dies ends the others with a `ConnectionError`: at once with gloo, otherwise when the group's timeout has passed
(`init_process_group(timeout=...)`; PyTorch's own is 30 minutes for gloo, 10 for NCCL, and is how long a rank may wait for
a slower one too).
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.labelled import NO_NAMES, Names, listed
from ppnmf.data.matrix import as_matrix
from ppnmf.data.processes import Ranks
from ppnmf.data.survey import Survey, Surveyed
from ppnmf.protocols import Params, Sweeping
from ppnmf.settings import own_settings

__all__ = ["Sharded", "log_prior", "own_rows", "shard"]


@dataclass(frozen=True, eq=False)
class Sharded(Surveyed):
    """This rank's rows of a matrix X (N, D) whose other rows other processes hold; make one with `shard`.

    Blocks are local; the shape and all numbers about X are of the whole.

    Args:
        local: this rank's rows, any `Matrix`.
        ranks: the processes.
        size: (N, D) of the whole.
        first_row: the number of this rank's first row in the whole.
        survey: of the whole.
        uneven: whether the entries of a row have different weights at any rank.
    """

    local: Any  # a Matrix
    ranks: Ranks = field(repr=False)
    size: tuple[int, int]
    first_row: int
    survey: Survey = field(repr=False)
    uneven: bool = field(repr=False)

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self.ranks.rank

    @property
    def shape(self) -> tuple[int, int]:
        return self.size

    @property
    def here(self) -> Any:
        return self.local

    @property
    def rows(self) -> range:
        """The numbers of this rank's rows."""
        return range(self.first_row, self.first_row + self.local.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        return self.local.dtype

    @property
    def device(self) -> torch.device:
        return self.local.device

    @property
    def noise(self) -> Any:
        return self.local.noise

    @property
    def names(self) -> Names:
        """Of this rank's rows, and of the columns, which are those of every rank."""
        return self.local.names

    @property
    def blocks(self) -> list[range]:
        return self.local.blocks

    def block(self, rows: range) -> Any:
        return self.local.block(rows)

    @property
    def nothing(self) -> Any:
        return self.local.nothing

    @property
    def gather(self) -> Callable[[Tensor], Tensor]:
        return self.ranks.gathered

    def add_up(self, sums: Any) -> Any:
        """In one message. Raises KeyboardInterrupt when any rank was interrupted."""
        if self.ranks.count == 1:
            return sums
        if isinstance(sums, Tensor):
            return self.ranks.add_up(sums)
        parts = [_Packed.of(part) for part in sums]
        total = self.ranks.add_up(torch.cat([part.values for part in parts]))
        pieces = total.split([len(part.values) for part in parts])
        return type(sums)(*(part.like(piece) for part, piece in zip(parts, pieces, strict=True)))

    def excerpt(self, most: int) -> Any:
        """At most so many rows, spread evenly, in memory at every rank: where a method looks before it starts."""
        values, mask = self.local.values, self.local.mask
        stride = -(-self.shape[0] // most)
        kept = values[-self.first_row % stride :: stride]
        seen = torch.ones_like(kept) if mask is None else mask[-self.first_row % stride :: stride].to(kept)
        sizes = [int(n) for n in self.ranks.gathered(torch.tensor([float(len(kept))]))[:, 0]]
        padded = torch.zeros(2, max(sizes), *kept.shape[1:], dtype=kept.dtype, device=kept.device)
        padded[0, : len(kept)] = kept
        padded[1, : len(kept)] = seen
        received = self.ranks.gathered(padded)
        rows, known = (torch.cat([part[i, :n] for part, n in zip(received, sizes, strict=True)]) for i in (0, 1))
        unseen = None if bool(known.all()) else known > 0
        names = Names(None, self.names.columns)
        return Excerpt(rows, unseen, self.n_observed, self.sum_of_squares, self.column_means(), names)

    def filled(self) -> Tensor:
        raise self.refusal()

    def refusal(self) -> TypeError:
        """What is said where all of X is needed."""
        return TypeError(
            "the rows of X are spread over processes, and this needs all of them in one; ppnmf.fit takes such an X, by "
            'gibbs, icm or svi, started by "scaled", "prior" or given values'
        )


class _Packed(NamedTuple):
    """A tensor as a vector, its entries in the order in which they lie in memory, and what makes it a tensor again."""

    values: Tensor
    sizes: list[int]
    order: list[int]

    @classmethod
    def of(cls, part: Tensor) -> _Packed:
        order = sorted(range(part.ndim), key=part.stride().__getitem__, reverse=True)
        laid = part.permute(order)
        return cls(laid.reshape(-1), list(laid.shape), order)

    def like(self, values: Tensor) -> Tensor:
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return values.view(self.sizes).permute(back)


@dataclass(frozen=True, eq=False)
class Excerpt:
    """Some rows of a matrix, with numbers about all of it."""

    values: Tensor
    mask: Tensor | None
    n_observed: int
    sum_of_squares: float
    means: Tensor  # (D,), of the columns
    names: Names = NO_NAMES

    @property
    def device(self) -> torch.device:
        return self.values.device

    def column_means(self) -> Tensor:
        return self.means


@own_settings()
def shard(
    X: Any,
    mask: Any = None,
    *,
    missing: str = "error",
    device: torch.device | str | None = None,
    noise: Any = None,
    group: Any = None,
) -> Sharded:
    """Make this process's rows a part of the matrix that all processes hold together, in the order of their ranks.

    Every rank must call it. Without `torchrun` and a process group it is a matrix of one process.

    Args:
        X: this rank's rows (N_r, D), at least one: whatever `ppnmf.fit` takes.
        mask: boolean (N_r, D), True where observed.
        missing, device, noise: as in `ppnmf.fit`, for these rows.
        group: of `torch.distributed`; the default one.

    Raises:
        ValueError: on every rank, when one of them cannot take its rows, or D, the dtype, the kind of device or the
            kind of matrix (with or without a Gram matrix a row), or the columns' names differ between ranks.
        RuntimeError: there are several processes and no process group.
    """
    ranks = Ranks(group)
    if ranks.alone and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RuntimeError(
            "there are several processes and no process group: call torch.distributed.init_process_group() first"
        )
    local, facts = _facts(X, mask, missing, device, noise)
    every = ranks.objects({name: value for name, value in facts.items() if name != "exception"})
    for rank, theirs in enumerate(every):
        if "error" in theirs:
            raise ValueError(f"rank {rank} cannot take its rows of X: {theirs['error']}") from facts.get("exception")
    for name in ("columns", "dtype", "device"):
        if len({theirs[name] for theirs in every}) > 1:
            listed = ", ".join(f"{theirs[name]} at rank {rank}" for rank, theirs in enumerate(every))
            raise ValueError(f"the ranks' rows of X differ in their {name}: {listed}; they must be parts of one matrix")
    _refuse_other_names([theirs["names"] for theirs in every])
    whole = _joined(local, ranks, every)
    if whole.uneven and whole.rank == 0:
        unseen = sum(int((theirs["of_rows"] == 0).sum()) for theirs in every)
        _warn_of_nothing_observed(unseen, int((sum(theirs["of_columns"] for theirs in every) == 0).sum()))
    return whole


def _facts(X: Any, mask: Any, missing: str, device: Any, noise: Any) -> tuple[Any, dict[str, Any]]:
    """This rank's matrix, and what the others need to know of it: an error, too, for nobody must wait for this rank."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*have nothing observed")  # a column may be observed elsewhere
            local = as_matrix(X, mask, missing, device, noise)
        of_rows, of_columns = _observed(local)
        return local, {
            "rows": local.shape[0],
            "columns": local.shape[1],
            "names": local.names.columns,
            "dtype": str(local.dtype),
            "device": local.device.type,
            "n_observed": local.n_observed,
            "sum_of_squares": local.sum_of_squares,
            "log_noise": local.log_noise,
            "mean": local.mean(),
            "variance": local.variance(),
            "noisy": local.noise is not None,
            "n_negative": local.n_negative,
            "least": local.least,
            "uneven": local.uneven,
            "of_rows": of_rows,
            "of_columns": of_columns,
            "columns' means": local.column_means().double().cpu().numpy(),
        }
    except Exception as error:
        return None, {"error": f"{error}", "exception": error}


def _refuse_other_names(columns: list[tuple[str, ...] | None]) -> None:
    """Raise ValueError where the ranks' columns have different names, or the same ones in another order."""
    for rank, names in enumerate(columns):
        if names != columns[0]:
            pairs = zip(columns[0] or (), names or (), strict=False)
            differ = next((f"{first!r} at rank 0 and {other!r}" for first, other in pairs if first != other), None)
            told = differ or f"{listed(columns[0] or ()) or 'no names'} at rank 0 and {listed(names or ()) or 'none'}"
            raise ValueError(
                f"the ranks' columns of X differ in their names: {told} at rank {rank}; give all ranks the same columns in "
                "the same order"
            )


def _observed(local: Any) -> tuple[np.ndarray, np.ndarray]:
    """How many entries of each row, and of each column, are observed at this rank."""
    N, D = local.shape
    if not local.uneven:
        return np.full(N, D), np.full(D, N)
    every = local.by_block(lambda rows, block: block.observed())
    of_rows = torch.cat([rows for rows, _ in every])
    return of_rows.cpu().numpy(), sum(columns.cpu().numpy() for _, columns in every)


def _joined(local: Any, ranks: Ranks, every: list[dict[str, Any]]) -> Sharded:
    total = lambda name: sum(theirs[name] for theirs in every)  # noqa: E731
    n = total("n_observed")
    mean = math.fsum(theirs["n_observed"] * theirs["mean"] for theirs in every) / n
    if any(theirs["noisy"] for theirs in every):
        variance = math.fsum(ranks.objects(_squares_about(mean, local))) / n
    else:
        parts = ((theirs["n_observed"], theirs["mean"] - mean, theirs["variance"]) for theirs in every)
        variance = math.fsum(count * (own + apart**2) for count, apart, own in parts) / n
    counts = total("of_columns")
    columns = sum(theirs["of_columns"] * theirs["columns' means"] for theirs in every)
    survey = Survey(
        n,
        mean,
        variance,
        total("sum_of_squares"),
        total("log_noise"),
        total("n_negative"),
        min(theirs["least"] for theirs in every),
        np.where(counts > 0, columns / np.maximum(counts, 1), mean),
    )
    shape = (total("rows"), every[0]["columns"])
    first_row = sum(theirs["rows"] for theirs in every[: ranks.rank])
    return Sharded(local, ranks, shape, first_row, survey, any(theirs["uneven"] for theirs in every))


def _squares_about(mean: float, X: Any) -> float:
    """Σ (x - mean)² / v over the observed entries of this rank's rows."""
    parts = map(X.part, X.blocks)
    return sum(float(part.observed_over_noise((part.values.double() - mean).square()).sum()) for part in parts)


def _warn_of_nothing_observed(rows: int, columns: int) -> None:
    """Rank 0 warns of rows and columns of the whole that nobody observes: `as_matrix` knows this rank's rows alone."""
    if rows or columns:
        warnings.warn(
            f"{rows} row(s) and {columns} column(s) of X have nothing observed: their factors follow the prior alone",
            stacklevel=3,
        )


def log_prior(model: Sweeping, X: Any, params: Params) -> Tensor:
    """log p(W, H, σ²) of all rows, (C,); `model` has this rank's."""
    if not isinstance(X, Sharded) or X.ranks.count == 1:
        return model.log_prior(params)
    nothing = {**params, "W": params["W"][..., :0, :]}
    shared = own_rows(model, range(0)).log_prior(nothing)  # log p(H, σ²), which no two ranks may count
    return X.add_up(model.log_prior(params) - shared) + shared


def own_rows(model: Any, rows: range) -> Any:
    """The model for some of the rows of X, where it says something of each."""
    return model.for_rows(rows) if hasattr(model, "for_rows") else model
