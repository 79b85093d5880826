r"""From a fitted reference to the posterior of a product of factors, along densities that have exact sweeps.

The path of `path` for X ≈ F_0 F_1 ... F_L, such as W S G or A_0 A_1 H, with a rectified normal for each entry of each factor in
the reference: under π_β each has a rectified normal for its "prior" and the likelihood to the power β, and the sweeps are the
model's own, moves along the ridges included.

*Several kinds of labels.* Orders τ_i of the K_i components between F_i and F_{i+1} permute columns of the one and rows of the
other. Given the orders of all kinds but one, i say, r(τθ) is a product over its components k, and its sum over their orders is
the permanent of

.. math:: A_\tau[k, m] = \sum_a \log r_{\tau(a) m}(F_{i, ak}) + \sum_b \log r_{m \tau(b)}(F_{i+1, kb}) + \frac{1}{K_i} \ell_\tau,

ℓ_τ the log densities of the factors that the kind does not touch. So all the orders of three factors are K_1! permanents of
size K_0; the kind with the most components is the one whose orders are not listed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ppnmf.distributions import RectifiedNormal
from ppnmf.gaussian import path
from ppnmf.gaussian.layers import product
from ppnmf.gaussian.noise import Noise
from ppnmf.matching import best_orders, crossed_orders, gathered
from ppnmf.priors import NaturalPrior
from ppnmf.protocols import Matrix, Params
from ppnmf.rng import Site, Stream

__all__ = ["Fitted", "between", "fitted"]

Derived = Callable[[Params], Params]


@dataclass(frozen=True, eq=False)
class Fitted:
    """r(θ): independent rectified normals for the entries of each factor, and what σ² has.

    Args:
        priors: by site, in the order of the product.
        derived: the sites that the factors make up (`protocols.Deriving`).
    """

    priors: Mapping[str, NaturalPrior]
    noise: Noise
    derived: Derived

    def draws(self, X: Matrix, stream: Stream) -> dict[str, Tensor]:
        """Independent ones, a key of the stream each, of every site."""
        draws, first = dict[str, Tensor](), 0
        for site, prior in self.priors.items():
            natural = prior.natural(X.device)
            rows, columns = natural.linear.shape
            u = stream.uniforms(0, Site.START, range(first, first + rows), columns, X.device)
            draws[site] = RectifiedNormal(*natural, validate_args=False).survival_inverse(u).to(X.dtype)
            first += rows
        sigma2 = self.noise.prior_draw(stream, X.device).to(X.dtype)
        return {**draws, **self.derived(draws), "sigma2": sigma2}

    def log_prob(self, params: Params) -> Tensor:
        """log r(θ), (C,), float64."""
        factors = sum(prior.log_prob(params[site]) for site, prior in self.priors.items())
        return self.noise.log_prob(params["sigma2"]) + factors

    def log_places(self, params: Params) -> Tensor:
        """For each order of the listed kinds, log densities of each component of the other kind in each place.

        Returns: (C, T, J, J) on the CPU, J the most components of a kind, the first where several have as many, and T the orders
            of the others (`matching.crossed_orders`); the first are those they have.
        """
        factors = [params[site].double().cpu() for site in self.priors]
        sizes = [factor.shape[-1] for factor in factors[:-1]]
        other = sizes.index(max(sizes))
        listed = crossed_orders([size for kind, size in enumerate(sizes) if kind != other])
        orders = [*listed[:other], None, *listed[other:]]
        first, *middle, last = self.priors.values()
        turned = NaturalPrior(*(own.mT for own in last.natural("cpu")))
        J = sizes[other]
        found = _of_outer(path.log_places(factors[0], first), orders[0], J)
        found = found + _of_outer(path.log_places(factors[-1].mT, turned), orders[-1], J)
        for kind, prior in enumerate(middle):
            found = found + _of_inner(_each(factors[kind + 1], prior), orders[kind], orders[kind + 1], J)
        return found.expand(-1, -1, J, J)


def _each(F: Tensor, prior: NaturalPrior) -> Tensor:
    """Log density of entry (k, l) under what r says of entry (m, n), (C, K, L, K, L)."""
    precision, linear = prior.natural("cpu")
    f = F[..., None, None]
    return linear * f - 0.5 * precision * f.square() - prior.log_normalizer


def _of_outer(logs: Tensor, orders: Tensor | None, J: int) -> Tensor:
    """What the first or the last factor adds: places of its components (C, I, I), in their orders (T, I) if those are listed."""
    if orders is None:
        return logs[:, None]
    alone = logs[:, torch.arange(orders.shape[1]), orders].sum(-1)  # (C, T)
    return alone[:, :, None, None] / J


def _of_inner(logs: Tensor, left: Tensor | None, right: Tensor | None, J: int) -> Tensor:
    """What a factor between two kinds adds: (C, K, L, K, L), in the orders of those that are listed."""
    K, L = logs.shape[1:3]
    rows, columns = torch.arange(K), torch.arange(L)
    if left is None and right is not None:
        return logs.permute(2, 4, 0, 1, 3)[columns, right].sum(1).transpose(0, 1)
    if right is None and left is not None:
        return logs.permute(1, 3, 0, 2, 4)[rows, left].sum(1).transpose(0, 1)
    assert left is not None and right is not None
    alone = logs[:, rows[:, None], columns, left[:, :, None], right[:, None]].sum((-1, -2))
    return alone[:, :, None, None] / J


def fitted(
    draws: Params, width: float, priors: Mapping[str, Any], noise: Noise, derived: Derived, aligned: int
) -> Fitted:
    """A reference with the moments of draws in which one kind's components have one order; those of others are brought into one.

    Args:
        draws: of each factor, (S, *site), and sigma2 (S,).
        width: what the variances are multiplied by.
        priors, noise: of the model, the factors in the order of the product.
        aligned: the number of the kind whose components have one order.
    """
    placed = _in_order(draws, list(priors), aligned)
    found = path.fitted_factors(placed, width, priors.__getitem__, list(priors))
    return Fitted(cast(dict[str, NaturalPrior], found), path.fitted_noise(draws["sigma2"], width, noise), derived)


def _in_order(draws: Params, sites: list[str], aligned: int) -> dict[str, Tensor]:
    """The factors with components of each kind in the order that suits their mean, as the products on either side tell."""
    placed = {site: draws[site] for site in sites}
    kinds = [kind for kind in range(len(sites) - 1) if kind != aligned]
    like = {kind: [side[0] for side in _sides(placed, kind)] for kind in kinds}
    for _ in range(2):
        for kind in kinds:
            left, right = sites[kind : kind + 2]
            V, G = like[kind]
            orders = best_orders(*_sides(placed, kind), V, G)
            placed |= {left: gathered(placed[left], orders, -1), right: gathered(placed[right], orders, -2)}
        like = {kind: [side.mean(0) for side in _sides(placed, kind)] for kind in kinds}
    return placed


def _sides(placed: Params, kind: int) -> tuple[Tensor, Tensor]:
    """The products of the factors up to a kind of components, (S, N, K), and of those from it on, (S, K, D)."""
    factors = list(placed.values())
    return product(factors[: kind + 1]), product(factors[kind + 1 :])


def between(
    priors: Mapping[str, Any], noise: Noise, reference: Fitted, power: float
) -> tuple[dict[str, NaturalPrior], Noise]:
    """The "priors" of the factors and of σ² under π_β, β = `power`."""
    mixed = {site: path.mixed(prior, reference.priors[site], power) for site, prior in priors.items()}
    return cast(dict[str, NaturalPrior], mixed), path.mixed_noise(noise, reference.noise, power)
