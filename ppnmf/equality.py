"""When two models are the same: of one kind, with equal hyperparameters and, where they have any, equal weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ppnmf.protocols import Model

__all__ = ["hash_of", "same"]


def same(one: Any, other: Any) -> bool:
    """Whether two models are the same value; tensors are compared entry by entry, wherever they are.

    A frozen model's `==` is this. A module, whose weights change, is equal to itself alone, as PyTorch's containers
    need; this function says whether another one, such as a copy or what `pickle` gives back, has the same weights.
    """
    if type(one) is not type(other) or not isinstance(one, Model) or not isinstance(other, Model):
        return False
    return _equal(one.config(), other.config()) and _equal(_weights(one), _weights(other))


def hash_of(model: Any) -> int:
    """A hash that models which are the same share; of their hyperparameters."""
    return hash((model.name, *(_hashable(value) for value in model.config().values())))


def _weights(model: Any) -> dict[str, Tensor]:
    return model.state_dict() if isinstance(model, nn.Module) else {}


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(_equal_values(value, other[name]) for name, value in one.items())


def _equal_values(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return type(one) is type(other) and bool(one == other)
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    a, b = one.cpu(), other.cpu()
    return bool(((a == b) | (a.isnan() & b.isnan())).all())  # NaN marks what is to be learned


def _hashable(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return tuple(value.shape), (value.detach().cpu() + 0.0).numpy().tobytes()  # of -0.0 and 0.0, which are equal, one
