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
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ppnmf.data.labelled import NO_NAMES, Names, listed
from ppnmf.data.matrix import as_matrix
from ppnmf.data.processes import Ranks
from ppnmf.protocols import Params, Statistics, Sweeping
from ppnmf.settings import own_settings

__all__ = ["Sharded", "add_up", "here", "log_prior", "own_rows", "rows_here", "shard", "whole_columns"]


@dataclass(frozen=True, eq=False)
class Sharded:
    """This rank's rows of a matrix X (N, D) whose other rows other processes hold; make one with `shard`.

    Blocks and what is read by them are local; the shape and all numbers about X are of the whole.

    Args:
        local: this rank's rows, any `Matrix`.
        ranks: the processes.
        shape: of the whole.
        first_row: the number of this rank's first row in the whole.
    """

    local: Any  # a Matrix
    ranks: Ranks = field(repr=False)
    shape: tuple[int, int]
    first_row: int
    n_observed: int
    sum_of_squares: float
    log_noise: float
    n_negative: int
    least: float
    mean_and_variance: tuple[float, float] = field(repr=False)
    grams_by_column: bool = field(repr=False)  # whether a rank has masks or noise per entry

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self.ranks.rank

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
    def names(self) -> Names:
        """Of this rank's rows, and of the columns, which are those of every rank."""
        return self.local.names

    @property
    def blocks(self) -> list[range]:
        return self.local.blocks

    @property
    def plain(self) -> None:
        """The rows are not in one place."""

    def mean(self) -> float:
        """Mean of the observed entries of the whole."""
        return self.mean_and_variance[0]

    def variance(self) -> float:
        """Variance over relative noise of the observed entries of the whole."""
        return self.mean_and_variance[1]

    def excerpt(self, most: int) -> Any:
        """At most so many rows, spread evenly, in memory at every rank: where a method looks before it starts."""
        values, mask = self.local.values, self.local.mask
        stride = -(-self.shape[0] // most)
        kept = values[-self.first_row % stride :: stride]
        seen = torch.ones_like(kept) if mask is None else mask[-self.first_row % stride :: stride].to(kept)
        sizes = [int(n) for n in self.ranks.gathered(torch.tensor([float(len(kept))]))[:, 0]]
        padded = torch.zeros(2, max(sizes), *kept.shape[1:], dtype=kept.dtype, device=kept.device)
        padded[0, : len(kept)], padded[1, : len(kept)] = kept, seen
        received = self.ranks.gathered(padded)
        rows, known = (torch.cat([part[i, :n] for part, n in zip(received, sizes, strict=True)]) for i in (0, 1))
        return Excerpt(
            rows,
            None if bool(known.all()) else known > 0,
            self.n_observed,
            self.sum_of_squares,
            self._means,
            Names(None, self.names.columns),
        )

    @property
    def _means(self) -> Tensor:
        """Mean of the observed entries of each column of the whole; the overall mean where a column has none."""
        values, mask = self.local.values, self.local.mask
        count = torch.full_like(values[0], len(values), dtype=torch.float64) if mask is None else mask.sum(0).double()
        total, count = self.ranks.add_up(torch.stack([values.double().sum(0), count]))
        return torch.where(count > 0, total / count.clamp(min=1), self.mean()).to(values.dtype)

    def filled(self) -> Tensor:
        raise self.refusal()

    def refusal(self) -> TypeError:
        """What is said where all of X is needed."""
        return TypeError(
            "the rows of X are spread over processes, and this needs all of them in one; ppnmf.fit takes such an X, by "
            'gibbs, icm or svi, started by "scaled", "prior" or given values'
        )

    def prepare(self, H: Tensor) -> Statistics:
        return self.local.prepare(H)

    def row_statistics(self, rows: range, shared: Statistics) -> Statistics:
        return self.local.row_statistics(rows, shared)

    def column_statistics(self, rows: range, W: Tensor) -> Statistics:
        return self.local.column_statistics(rows, W)

    def residual_sum_of_squares(self, rows: range, W: Tensor, H: Tensor) -> Tensor:
        return self.local.residual_sum_of_squares(rows, W, H)


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
    _warn_of_nothing_observed(whole)
    return whole


def _facts(X: Any, mask: Any, missing: str, device: Any, noise: Any) -> tuple[Any, dict[str, Any]]:
    """This rank's matrix, and what the others need to know of it: an error, too, for nobody must wait for this rank."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*have nothing observed")  # a column may be observed elsewhere
            local = as_matrix(X, mask, missing, device, noise)
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
            "noisy": any(getattr(local, name, None) is not None for name in ("noise", "relative")),
            "n_negative": local.n_negative,
            "least": local.least,
            "grams": _grams_by_column(local),
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


def _joined(local: Any, ranks: Ranks, every: list[dict[str, Any]]) -> Sharded:
    total = lambda name: sum(theirs[name] for theirs in every)  # noqa: E731
    n = total("n_observed")
    mean = math.fsum(theirs["n_observed"] * theirs["mean"] for theirs in every) / n
    if any(theirs["noisy"] for theirs in every):
        variance = math.fsum(ranks.objects(_squares_about(mean, local))) / n
    else:
        parts = ((theirs["n_observed"], theirs["mean"] - mean, theirs["variance"]) for theirs in every)
        variance = math.fsum(count * (own + apart**2) for count, apart, own in parts) / n
    return Sharded(
        local,
        ranks,
        (total("rows"), every[0]["columns"]),
        sum(theirs["rows"] for theirs in every[: ranks.rank]),
        n,
        total("sum_of_squares"),
        total("log_noise"),
        total("n_negative"),
        min(theirs["least"] for theirs in every),
        (mean, variance),
        any(theirs["grams"] for theirs in every),
    )


def _squares_about(mean: float, X: Any) -> float:
    """Σ (x - mean)² / v over the observed entries of this rank's rows."""
    total = 0.0
    for rows in X.blocks:
        part = X.part(rows)
        squared = (part.values.double() - mean).square()
        total += float(part.over_noise(squared if part.mask is None else squared * part.mask).sum())
    return total


def _warn_of_nothing_observed(X: Sharded) -> None:
    """Rank 0 warns of rows and columns of the whole that nobody observes: `as_matrix` knows this rank's rows alone."""
    if not X.grams_by_column:
        return
    (n, D), kind = X.local.shape, {"dtype": X.dtype, "device": X.device}
    shared, W = X.prepare(torch.ones(1, 1, D, **kind)), torch.ones(1, n, 1, **kind)  # type: ignore[call-overload]
    unseen, seen = 0, torch.zeros(D, dtype=torch.float64, device=X.device)
    for rows in X.blocks:  # Gram matrices of ones: they count
        of_rows, of_columns = (
            X.row_statistics(rows, shared).Q[..., 0, 0],
            X.column_statistics(rows, W[:, rows.start : rows.stop]).Q[..., 0, 0],
        )
        unseen += int((of_rows == 0).sum())
        seen += (of_columns[0] if of_columns.ndim == 2 else of_columns).double()
    found = X.ranks.add_up(torch.cat([(seen > 0).double(), seen.new_tensor([float(unseen)])]))
    rows_unseen, columns_unseen = int(found[-1]), int((found[:-1] == 0).sum())
    if (rows_unseen or columns_unseen) and X.rank == 0:
        warnings.warn(
            f"{rows_unseen} row(s) and {columns_unseen} column(s) of X have nothing observed: their factors follow the "
            "prior alone",
            stacklevel=3,
        )


def _grams_by_column(local: Any) -> bool:
    """Whether a matrix gives a Gram matrix of W for each column: a mask or noise per entry, which one rank may have."""
    W = torch.zeros(1, len(local.blocks[0]), 1, dtype=local.dtype, device=local.device)
    return local.column_statistics(local.blocks[0], W).Q.ndim == 4


# What the methods ask of any X: of one that is not spread over processes, the answer is X itself, or what they gave


def here(X: Any) -> Any:
    """This process's rows, a `Matrix` by themselves."""
    return X.local if isinstance(X, Sharded) else X


def rows_here(X: Any) -> range:
    """Their numbers in the whole."""
    return X.rows if isinstance(X, Sharded) else range(X.shape[0])


def add_up(X: Any, part: Tensor) -> Tensor:
    """The sum over all processes of what each has found in its own rows."""
    return X.ranks.add_up(part) if isinstance(X, Sharded) else part


def whole_columns(X: Any, part: Statistics) -> Statistics:
    """The column statistics of all rows, P (C, D, K) and Q (C, K, K) or (C, D, K, K), in one message."""
    if not isinstance(X, Sharded) or X.ranks.count == 1:
        return part
    P, Q = part.P.mT.contiguous(), part.Q
    if X.grams_by_column:  # stored with the columns last, as the kernels want them
        Q = (Q if Q.ndim == 4 else Q[:, None].expand(-1, P.shape[-1], -1, -1)).permute(0, 2, 3, 1).contiguous()
    total = X.ranks.add_up(torch.cat([P.flatten(), Q.flatten()]))
    P, Q = total[: P.numel()].view(P.shape), total[P.numel() :].view(Q.shape)
    return Statistics(P.mT, Q.permute(0, 3, 1, 2) if X.grams_by_column else Q)


def log_prior(model: Sweeping, X: Any, params: Params) -> Tensor:
    """log p(W, H, σ²) of all rows, (C,); `model` has this rank's."""
    if not isinstance(X, Sharded) or X.ranks.count == 1:
        return model.log_prior(params)
    nothing = {**params, "W": params["W"][..., :0, :]}
    shared = own_rows(model, range(0)).log_prior(nothing)  # log p(H, σ²), which no two ranks may count
    return X.ranks.add_up(model.log_prior(params) - shared) + shared


def own_rows(model: Any, rows: range) -> Any:
    """The model for some of the rows of X, where it says something of each."""
    return model.for_rows(rows) if hasattr(model, "for_rows") else model
