"""Sweeps made one at a time, where they are not compiled whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ppnmf.protocols import Address, Matrix, Params, Read, Sweeps, Swept

__all__ = ["one_by_one"]

One = Callable[[Params, Address | None], tuple[Params, Tensor]]


def one_by_one(one: One, X: Matrix, params: Params, asked: Sweeps, at: Address | None) -> Swept:
    """So many sweeps, drawn or at the mode, and those that are kept; of modes the last is.

    Args:
        one: a sweep: parameters and the address of its random numbers -> parameters of the same sites, and their log
            likelihoods (C,).
    """
    if asked.read is Read.MOMENTS or (asked.read is Read.DRAW) != (at is not None):
        raise NotImplementedError(f"these sweeps read draws, at an address, or modes; asked was {asked.read}")
    draws: list[Params] = []
    fits: list[Tensor] = []
    for s in range(asked.number):
        here = None if at is None else Address(at.stream, at.step + s)
        params, fit = one(params, here)
        if s in asked.kept or (at is None and s == asked.number - 1):
            draws.append(params)
            fits.append(fit)
    if not draws:
        return Swept(params, {}, torch.empty(len(params["W"]), 0, dtype=torch.float64, device=X.device))
    return Swept(params, {site: torch.stack([own[site] for own in draws], 1) for site in params}, torch.stack(fits, 1))
