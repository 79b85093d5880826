"""Rows of X by blocks, whose borders depend on X's shape alone, and the bound of some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ppnmf.data.matrix import Dense, in_memory, without_noise
from ppnmf.data.sharded import Sharded
from ppnmf.protocols import Amortised, Asked, Matrix
from ppnmf.threads import ordered_map

__all__ = [
    "Batch",
    "Outputs",
    "Rows",
    "added",
    "batch_of",
    "blocks_of",
    "bound_of",
    "by_block",
    "held_here",
    "operations",
]

BLOCK_ENTRIES = 2**18  # of X, in a block of rows: with what is made of it, it stays in a core's cache
MOST_BLOCKS = 64  # each gives a gradient as large as the parameters

Rows = slice | Tensor
Outputs = tuple[Tensor, ...]  # what a guide is made of, (N, K) each
Result = TypeVar("Result")


class Batch(NamedTuple):
    """What a step looks at."""

    values: Tensor  # (B, D)
    mask: Tensor | None
    coordinates: Tensor  # (B, C)
    uniforms: Tensor | None = None  # (B, K): W stands at these of the guide's upper quantiles; None: at its moments


def batch_of(
    model: Amortised, X: Dense, rows: Rows, coordinates: Tensor | None = None, uniforms: Tensor | None = None
) -> Batch:
    """Some rows of X; `coordinates` (N, C) are all of X's, where they are known, and `uniforms` (B, K) are the batch's."""
    values = X.values[rows]
    mask = None if X.mask is None else X.mask[rows]
    own = model.coordinates(values, mask) if coordinates is None else coordinates[rows]
    return Batch(values, mask, own, uniforms)


def bound_of(model: Amortised, batch: Batch, divergence: bool = True) -> Tensor:
    """The objective summed over a batch, of the encoder's guide: the ELBO in nats, or what stands for it."""
    outputs = model.outputs(batch.coordinates)
    return model.bound(batch.values, batch.mask, outputs, Asked(batch.uniforms, divergence))


def blocks_of(n: int, X: Dense) -> list[slice]:
    """Blocks of n of X's rows; their borders do not depend on threads."""
    size = n if X.device.type == "cuda" else max(1, BLOCK_ENTRIES // X.shape[1], -(-n // MOST_BLOCKS))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def by_block(function: Callable[[slice], Result], X: Dense, rank: int) -> list[Result]:
    """The function of each block of X's rows, in their order, without gradients; blocks go to threads.

    Args:
        rank: of the model, from which the work on a block is estimated.
    """
    blocks = blocks_of(len(X.values), X)
    return ordered_map(torch.no_grad()(function), blocks, operations(blocks, X, rank))


def operations(blocks: Sequence[Any], X: Dense, rank: int) -> float:
    """Floating-point operations of a step on one of the blocks, about."""
    return 14.0 * X.values.numel() * rank / len(blocks)


def added(X: Dense | Sharded, parts: Sequence[Tensor]) -> float:
    """The sum of the blocks' numbers, over all processes."""
    return float(X.add_up(torch.stack([part.double() for part in parts]).sum()))


def held_here(X: Matrix) -> Dense | Sharded:
    """X with this process's rows as a dense matrix in memory. Raises TypeError where X has a known noise."""
    own = in_memory(without_noise(X.here, "svi"), "svi")
    return replace(X, local=own) if isinstance(X, Sharded) else own
