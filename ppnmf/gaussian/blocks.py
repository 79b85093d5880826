"""Densities of the blocks of a Gaussian model given the rest, for Chib's evidence (`protocols.Blocked`)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ppnmf.distributions import RectifiedNormal
from ppnmf.gaussian.noise import KnownNoise
from ppnmf.gaussian.statistics import of_all_columns, of_all_rows
from ppnmf.gaussian.sweep import Story, misfit
from ppnmf.kernels import kernels_for
from ppnmf.kernels.reference import column
from ppnmf.kernels.scaled import Component, log_density
from ppnmf.priors import Natural
from ppnmf.protocols import Matrix, Params, Reduced, Statistics
from ppnmf.rng import Site

__all__ = ["classes", "log_density_of_component", "log_density_of_factor", "log_density_of_noise"]

AT_ONCE = 2**20  # densities that are evaluated together


def classes(story: Story, rank: int) -> list[int]:
    """For each component the first one with its priors in W and in H: the posterior is symmetric among equals."""
    tables = []
    for site in ("W", "H"):
        for values in _rows_leading_prior(story, site, torch.device("cpu")):
            tables.append(values.mT.expand(rank, -1))
    keys = torch.cat(tables, 1)
    return [next(m for m in range(k + 1) if bool((keys[m] == keys[k]).all())) for k in range(rank)]


def log_density_of_noise(story: Story, given: Params, X: Matrix) -> Callable[[Params], Tensor]:
    """log p(σ² | W, H, X) given draws (C, n, *site): a function of a point with sigma2 (C,), which gives (C, n).

    Where σ² is known it is 0.
    """
    if isinstance(story.noise, KnownNoise):
        return lambda at: torch.zeros(given["W"].shape[:2], dtype=torch.float64, device=X.device)
    left = [misfit(X, given["W"][:, n], given["H"][:, n]) for n in range(given["W"].shape[1])]
    conditionals = [story.noise.conditional(own, X.n_observed) for own in left]

    def log_density(at: Params) -> Tensor:
        return torch.stack([conditional.log_prob(at["sigma2"].double()) for conditional in conditionals], -1)

    return log_density


def log_density_of_component(
    story: Story, site: str, at: Tensor, given: Params, labels: list[int], X: Matrix
) -> Tensor:
    """`protocols.Blocked.log_density_of_component`: the component's scale is integrated out (`kernels.scaled`)."""
    C, n = given["W"].shape[:2]
    flat = {name: values.flatten(0, 1) for name, values in given.items()}
    points = at.double().repeat_interleave(n, 0)
    return log_density(points, _component(story, site, flat, labels, X)).unflatten(0, (C, n))


def _component(story: Story, site: str, params: Params, labels: list[int], X: Matrix) -> Component:
    """What is known of each of some components of a factor, given all else but its other half's length."""
    other = "W" if site == "H" else "H"
    short, long = _rows_leading(site, params), _rows_leading(other, params)[..., labels].double()
    told, nothing = _weighted(site, params, X), short.new_zeros(1, 1)
    each = [column(m, short, told, (nothing, nothing)) for m in labels]
    own = [_columns(values, labels, short.shape[1]) for values in _rows_leading_prior(story, site, X.device)]
    precision, linear = (_columns(v, labels, long.shape[1]) for v in _rows_leading_prior(story, other, X.device))
    return Component(
        own[0],
        own[1],
        torch.stack([c.precision for c in each], 1).double(),
        torch.stack([c.linear for c in each], 1).double(),
        (precision * long.mT.square()).sum(-1),
        (linear * long.mT).sum(-1),
        long.shape[1],
    )


def log_density_of_factor(story: Story, site: str, at: Params, begun: Params, X: Matrix, run: Reduced) -> Tensor:
    """`protocols.Blocked.log_density_of_factor`: column by column, a row's the product over columns of its means."""
    told, prior = _weighted(site, at, X), _rows_leading_prior(story, site, X.device)
    F, point = _rows_leading(site, begun).contiguous(), _rows_leading(site, at)
    kernels, K, (stream, step) = kernels_for(F.device), point.shape[-1], run.at
    total = torch.zeros_like(point[..., 0], dtype=torch.float64)  # (C, R)
    for k in range(K - 1):
        logs = _Densities(point[..., k], lambda each: each.logsumexp(0, keepdim=True))
        for n in range(run.burn + run.draws):
            F = kernels.half_sweep(F, told, prior, (stream, step, Site[site]), first=k)
            step += 1
            if n >= run.burn:
                logs.add(column(k, F, told, prior))
            run.tick(1)
        total = total + logs.values().logsumexp(0) - math.log(run.draws)
        F[..., k] = point[..., k]
    last = column(K - 1, point, told, prior).log_prob(point[..., K - 1].double())
    return (total + last).sum(-1)


class _Densities:
    """Log densities at one point under many conditionals, evaluated some at a time, each lot reduced when it is full.

    Args:
        at: the point, broadcastable to a conditional's batch shape.
        reduce: of a lot's log densities (draws, *batch), what is kept; it leads with an axis, along which lots join.
    """

    def __init__(self, at: Tensor, reduce: Callable[[Tensor], Tensor]) -> None:
        self.at, self.reduce = at.double(), reduce
        self.waiting: list[RectifiedNormal] = []
        self.kept: list[Tensor] = []

    def add(self, conditional: RectifiedNormal) -> None:
        self.waiting.append(conditional)
        if len(self.waiting) * conditional.linear.numel() >= AT_ONCE:
            self._evaluate()

    def values(self) -> Tensor:
        if self.waiting:
            self._evaluate()
        return torch.cat(self.kept)

    def _evaluate(self) -> None:
        precision = torch.stack([conditional.precision for conditional in self.waiting])
        linear = torch.stack([conditional.linear for conditional in self.waiting])
        self.kept.append(self.reduce(RectifiedNormal(precision, linear, validate_args=False).log_prob(self.at)))
        self.waiting = []


def _columns(natural: Tensor, components: list[int], rows: int) -> Tensor:
    """A prior's natural parameter (1 | R, 1 | K) of some components, (components, R), float64."""
    return natural.mT.double().expand(-1 if natural.shape[1] > 1 else max(components) + 1, rows)[components]


def _rows_leading_prior(story: Story, site: str, device: torch.device) -> Natural:
    """(precision, linear) of a factor's prior, broadcastable to its rows-leading shape (R, K)."""
    precision, linear = story.prior(site).natural(device)
    return Natural(precision, linear) if site == "W" else Natural(precision.mT.contiguous(), linear.mT.contiguous())


def _rows_leading(site: str, params: Params) -> Tensor:
    """A factor with its rows leading: W (C, N, K), or Hᵀ (C, D, K)."""
    return params[site] if site == "W" else params[site].mT


def _weighted(site: str, params: Params, X: Matrix) -> Statistics:
    """What X and the other factor tell about a factor, over σ²."""
    about = of_all_rows(X, params["H"]) if site == "W" else of_all_columns(X, params["W"])
    return about.weighted(1 / params["sigma2"])
