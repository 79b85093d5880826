"""Whether the entries of X are counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.protocols import Matrix

__all__ = ["require_counts"]

LARGEST = 2.0**53  # from which on doubles do not hold every whole number


def require_counts(name: str, X: Matrix) -> None:
    """Raise ValueError where X has entries that are no counts, or known noise, which counts do not have.

    Args:
        name: of the model that wants counts.
    """
    if X.noise is not None:
        raise ValueError(
            f"{name} takes counts, which have no noise variance: leave noise= out; sizes go into the model's exposures"
        )
    each = X.by_block(lambda rows, block: _others(block))
    number = int(X.add_up(torch.tensor(float(sum(len(own) for own in each)), device=X.device)))
    if not number:
        return
    first = next((float(own[0]) for own in each if len(own)), None)
    example = "" if first is None else f", such as {first:.6g}"
    raise ValueError(
        f"X has {number} entries that are not whole numbers below 2^53{example}; {name} needs counts: check the input, "
        "round it, or use a Gaussian model"
    )


def _others(block: Any) -> Tensor:
    """The entries of a block that are no counts."""
    values = block.values if isinstance(block, Dense) else block.stored.data
    return values[(values != values.floor()) | (values >= LARGEST)]
