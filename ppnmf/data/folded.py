"""X by blocks of its rows: what every kind of matrix does with a function of a block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, reduce
from typing import Any, TypeVar

import torch
from torch import Tensor

from ppnmf.threads import allowed_threads, ordered_results

__all__ = ["Folded", "added"]

Result = TypeVar("Result")
Item = TypeVar("Item")


class Folded(ABC):
    """A matrix that is read by row blocks, whose borders depend on its shape alone.

    A block is a `Dense` or a `Sparse` matrix of some rows. Functions of blocks run on as many threads as there are, each
    block on one, and what they give comes back, or is added up, in the order of the blocks: the same bits always.
    """

    @property
    def plain(self) -> Tensor | None:
        """The values (1, N, D) where they are all there is to know and lie in memory, for sweeps compiled whole."""
        return None

    @property
    def masked(self) -> tuple[Tensor, Tensor] | None:
        """The same where some entries are missing: the values, zero there, and what is observed, (N, D)."""
        return None

    @property
    def noise(self) -> Any:
        """Known relative noise variances, or None where all are one."""
        return None

    @property
    def gather(self) -> Callable[[Tensor], Tensor] | None:
        """What gives all processes' tensors, (processes, *shape), where there are several."""
        return None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]: ...

    @property
    @abstractmethod
    def blocks(self) -> list[range]:
        """The rows of each block, by their numbers in this process."""

    @abstractmethod
    def block(self, rows: range) -> Any:
        """Some rows as a block. One of `blocks` is kept, or read again only when others were asked for since."""

    @cached_property
    def nothing(self) -> Any:
        """A block without rows, of the kind of the others."""
        return self.block(range(0))

    @cached_property
    def kept(self) -> dict[str, Any]:
        """What functions of a block have made of it and want again at the next sweep."""
        return {}

    @property
    def rows(self) -> range:
        """The numbers of this process's rows in the whole."""
        return range(self.shape[0])

    @property
    def here(self) -> Any:
        """This process's rows, a matrix by themselves."""
        return self

    def of_chain(self, c: int) -> Any:
        """The matrix of a chain: this one, unless each chain has its own (`diagnostics.calibration.SideBySide`)."""
        return self

    def add_up(self, sums: Result) -> Result:
        """The sum over all processes of a tensor, or of a NamedTuple of tensors, that each has of its own rows."""
        return sums

    def by_block(self, function: Callable[[range, Any], Result], operations: float = 0.0) -> list[Result]:
        """function(rows, block) of every block in this process.

        Args:
            operations: of all of them, about; below what is worth a thread they are done one after another.
        """
        work = operations / len(self.blocks)
        return list(ordered_results(lambda rows: function(rows, self.block(rows)), self.blocks, work))

    def fold(self, function: Callable[[range, Any], Result], operations: float = 0.0) -> Result:
        """Σ function(rows, block) over the blocks of all processes, of tensors or of NamedTuples of tensors."""
        return self.add_up(reduce(added, self.by_block(function, operations)))

    def fold_here(
        self, function: Callable[[range, Any, Item], Result], items: Sequence[Item], operations: float = 0.0
    ) -> list[Result]:
        """For each of some items (chains, say) Σ function(rows, block, item) over this process's blocks.

        Where there are blocks enough for all threads, a block goes through all items while it is at hand.
        """
        shares = [list(items)] if len(self.blocks) >= allowed_threads() else [[item] for item in items]
        tasks = [(rows, share) for rows in self.blocks for share in shares]

        def results(task: tuple[range, list[Item]]) -> list[Result]:
            rows, share = task
            block = self.block(rows)
            return [function(rows, block, item) for item in share]

        totals: list[Result] = []
        done = ordered_results(results, tasks, operations / len(tasks))
        for _ in self.blocks:
            of_block = [result for _ in shares for result in next(done)]
            totals = (
                [added(total, result) for total, result in zip(totals, of_block, strict=True)] if totals else of_block
            )
        return totals

    def __getstate__(self) -> dict[str, Any]:
        """Without what is kept at hand: another process makes its own."""
        return {
            name: value for name, value in self.__dict__.items() if name not in ("nothing", "kept") and name[0] != "_"
        }


def added(a: Any, b: Any) -> Any:
    """The sum of two tensors, or of the fields of two NamedTuples."""
    if isinstance(a, Tensor):
        return a + b
    return type(a)(*map(torch.add, a, b))
