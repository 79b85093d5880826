"""Densities of the blocks of a model of counts given the rest, for Chib's evidence (`protocols.Blocked`).

They are summed over all allocations of the counts to the components (`kernels.unallocated`), which no draw of them could do: given
an allocation the density of a component is far narrower than its posterior.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.data.sparse import Sparse
from ppnmf.kernels import unallocated
from ppnmf.poisson import sweep
from ppnmf.poisson.allocation import Counts, counts_of, is_compiled
from ppnmf.poisson.exposures import exposed
from ppnmf.poisson.metropolis import of_columns
from ppnmf.poisson.sweep import Story
from ppnmf.protocols import Address, Held, Matrix, Params, Reduced, Sweeps
from ppnmf.threads import ordered_map, single_threaded

__all__ = ["log_density_of_component", "log_density_of_factor", "log_density_of_nothing"]

LOT = 16  # draws a task
COST = 300.0  # operations that a count takes in the density of a component, about


class Side(NamedTuple):
    """A factor beside the other one, both with their rows leading, float64."""

    F: Tensor  # (B, R, K)
    G: Tensor  # (B, S, K)
    counts: Counts  # of each of F's rows
    exposed: Tensor  # Σ e G, (B, R | 1, K)

    @classmethod
    def of(cls, story: Story, site: str, params: Params, X: Matrix) -> Side:
        """That of "W" or "H" of draws (B, *site). Raises ValueError where X is not in memory on the CPU."""
        if not isinstance(X, Dense | Sparse) or not is_compiled(params["W"]):
            raise ValueError("chib of counts needs X in memory on the CPU, in one process, and compiled kernels")
        W = params["W"].double().contiguous()
        Ht = params["H"].mT.double().contiguous()
        e = exposed(X, range(X.shape[0]), story.exposures)
        if site == "W":
            return cls(W, Ht, counts_of(X), e.over_columns(Ht).contiguous())
        return cls(Ht, W, of_columns(X), e.over_rows(W).contiguous())

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The counts as compiled functions take them."""
        data, indices, starts = self.counts.arrays()
        return data, indices, starts[0]


def log_density_of_nothing(given: Params, X: Matrix) -> Callable[[Params], Tensor]:
    """`protocols.Blocked.log_density_of_others` of a model all of whose sites are factors: 0."""
    nothing = torch.zeros(given["W"].shape[:2], dtype=torch.float64, device=X.device)
    return lambda at: nothing


def log_density_of_component(
    story: Story, site: str, at: Tensor, given: Params, labels: list[int], X: Matrix
) -> Tensor:
    """`protocols.Blocked.log_density_of_component`: the length of its other half integrated out, the counts not allocated."""
    C, n, _, K = given["W"].shape
    side = Side.of(story, site, {name: values.flatten(0, 1) for name, values in given.items()}, X)
    points = at.double().repeat_interleave(n, 0).contiguous().numpy()
    other = "W" if site == "H" else "H"
    row, column = _prior(story, site, (side.F.shape[1], K)), _prior(story, other, (side.G.shape[1], K))
    out = np.empty((C * n, len(labels)))
    of_draws = [values.numpy() for values in (side.F, side.G, side.exposed)]

    def evaluate(lot: slice) -> None:
        own = [values[lot] for values in of_draws]
        unallocated.components(*side.arrays, *own, row, column, np.array(labels), points[lot], out[lot])

    lots = [slice(start, start + LOT) for start in range(0, C * n, LOT)]
    ordered_map(evaluate, lots, COST * LOT * len(labels) * len(side.counts.data))
    return torch.from_numpy(out).unflatten(0, (C, n))


def log_density_of_factor(story: Story, site: str, at: Params, begun: Params, X: Matrix, run: Reduced) -> Tensor:
    """`protocols.Blocked.log_density_of_factor`: column by column, a row's the product over columns of its means."""
    K = at["W"].shape[-1]
    side = Side.of(story, site, at, X)
    params: Params = {**at, site: begun[site]}
    step = run.at.step
    total = torch.zeros_like(side.F[..., 0])
    for k in range(K - 1):
        held = Held(W=k, H=K) if site == "W" else Held(W=K, H=k)
        asked = Sweeps(held=held, moves=False)
        mean = torch.full_like(total, -math.inf)
        for n in range(run.burn + run.draws):
            params = sweep.swept(story, X, params, asked, Address(run.at.stream, step)).params
            step += 1
            if n >= run.burn:
                mean = torch.logaddexp(mean, _of_entries(story, site, side, params, k))
            run.tick(1)
        total += mean - math.log(run.draws)
        params = {**params, site: _with_component(site, params, at, k)}
    return (total + _of_entries(story, site, side, at, K - 1)).sum(-1)


def _of_entries(story: Story, site: str, side: Side, params: Params, k: int) -> Tensor:
    """Log density of the side's component k, entry by entry, given the factor's other components in `params`, (C, R)."""
    F = (params[site] if site == "W" else params[site].mT).double().contiguous()
    size, rate = (values[k] for values in _prior(story, site, (F.shape[1], F.shape[2])))
    out = np.empty(F.shape[:2])

    def of_chain(c: int) -> None:
        own = side.exposed[c, :, k].contiguous().numpy()
        point = side.F[c, :, k].contiguous().numpy()
        unallocated.entries(*side.arrays, F[c].numpy(), side.G[c].numpy(), k, own, size, rate, point, out[c])

    with single_threaded():
        ordered_map(of_chain, range(len(F)), COST * len(side.counts.data))
    return torch.from_numpy(out)


def _with_component(site: str, params: Params, at: Params, k: int) -> Tensor:
    """A factor whose component k is that of another one."""
    F = params[site].clone()
    if site == "W":
        F[..., k] = at[site][..., k]
    else:
        F[:, k] = at[site][:, k]
    return F


def _prior(story: Story, site: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Shapes and rates of a factor's prior, (K, R) from its rows-leading shape (R, K)."""
    size, rate = story.prior(site).on(torch.device("cpu"))
    R, K = shape
    size, rate = (values.mT if site == "W" else values for values in (size, rate))
    return size.expand(K, R).contiguous().numpy(), rate.expand(K, R).contiguous().numpy()
