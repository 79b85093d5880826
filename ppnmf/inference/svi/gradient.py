"""What a training climbs, and its gradient: over blocks of rows, and over the rows of all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from ppnmf.data.matrix import Dense
from ppnmf.data.sharded import Sharded
from ppnmf.inference.svi.blocks import batch_of, blocks_of, bound_of, operations
from ppnmf.protocols import Amortised, Recipe
from ppnmf.threads import ordered_results

__all__ = ["OBJECTIVES", "Problem", "gradient", "summed"]

# where the uniforms ε lie behind the one W = λ (-log ε)^(1/k) that stands for its distribution; None: nothing stands for it
OBJECTIVES: dict[str, tuple[float, float] | None] = {"analytic": None, "sampled": (0.0, 1.0), "median": (0.5, 0.5)}


class Problem(NamedTuple):
    """What stays as it is from step to step."""

    model: Amortised
    parameters: tuple[nn.Parameter, ...]  # the model's
    X: Dense
    coordinates: Tensor  # (N, C), all of X's
    recipe: Recipe
    drawn_from: torch.Generator  # by an objective that is sampled

    @classmethod
    def of(cls, model: Amortised, X: Dense, recipe: Recipe, drawn_from: torch.Generator) -> Self:
        """With all of X's coordinates, which training does not change."""
        return cls(model, tuple(model.parameters()), X, model.coordinates(X.values, X.mask), recipe, drawn_from)


def gradient(problem: Problem, batch: Tensor | None, scale: float) -> list[Tensor]:
    """The objective of a batch of rows (None: all) times N / their number, and `scale` times its gradient.

    Returns: the value, (), and a slope of each parameter's shape; added up over the blocks, in their order.
    """
    model, parameters, X, coordinates, recipe, drawn_from = problem
    n = len(X.values) if batch is None else len(batch)
    blocks = blocks_of(n, X)
    uniforms = uniforms_behind(recipe, (n, model.rank), X, drawn_from)

    def of(block: slice) -> list[Tensor]:
        u = None if uniforms is None else uniforms[block]
        rows = block if batch is None else batch[block]
        value = bound_of(model, batch_of(model, X, rows, coordinates, u), recipe.divergence) * (len(X.values) / n)
        return [value.detach(), *torch.autograd.grad(scale * value, parameters)]

    first, *others = ordered_results(of, blocks, operations(blocks, X, model.rank))
    for other in others:
        for total, part in zip(first, other, strict=True):
            total.add_(part)
    return first


def uniforms_behind(recipe: Recipe, shape: tuple[int, int], X: Dense, drawn_from: torch.Generator) -> Tensor | None:
    """Those (n, K) behind the one W of a step, never 0 or 1; None where the objective is exact."""
    between = OBJECTIVES[recipe.objective]
    if recipe.objective == "sampled" and recipe.uniforms is not None:
        between = recipe.uniforms
    if between is None:
        return None
    low, high = between
    u = torch.rand(shape, generator=drawn_from, dtype=X.dtype, device=X.device)
    u = u.mul_(high - low).add_(low)
    kind = torch.finfo(X.dtype)
    return u.clamp_(kind.tiny, 1 - kind.eps)


def summed(X: Dense | Sharded, parameters: Sequence[nn.Parameter], value: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    """The objective over the rows of all processes; its gradient becomes the parameters'."""
    if isinstance(X, Sharded):
        total = X.add_up(torch.cat([value[None], *(slope.flatten() for slope in slopes)]))
        first, *parts = total.split([1, *(slope.numel() for slope in slopes)])
        value = first[0]
        slopes = [part.view_as(slope) for part, slope in zip(parts, slopes, strict=True)]
    for parameter, slope in zip(parameters, slopes, strict=True):
        parameter.grad = slope.contiguous()  # torch's fused Adam reads a gradient as if it lay as its parameter does
    return value
