r"""Counts that vary more than Poisson ones: X_ij ~ Poisson(g_ij e_ij (W H)_ij), g_ij ~ Gamma(φ, φ).

With the latent exposures g integrated out that is a negative binomial of mean μ = e W H and variance μ + μ² / φ. A sweep draws

1. φ given W and H, g integrated out, by a slice step in log φ: given g it would hardly move, where counts are small;
2. g_ij ~ Gamma(φ + X_ij, φ + μ_ij), a block of X at a time, which is then forgotten;
3. W and H as for Poisson counts of the exposures e g.

1 and 2 together are a draw of (φ, g) given the factors. At the mode g is its expectation, which makes 3 a step of EM for the
negative binomial, and φ goes to its own mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.distributions.counts import NegativeBinomial
from ppnmf.distributions.sliced import slice_step
from ppnmf.poisson.allocation import Counts, Place, gamma_draws
from ppnmf.poisson.exposures import Entries
from ppnmf.protocols import Matrix, Params
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["DispersionPrior", "drawn_dispersion", "latent", "log_likelihood", "mode_of_dispersion"]

SITE = "dispersion"
WIDTH = 1.0  # of the slice in log φ
REACH, NARROWINGS = (
    1.0,
    14,
)  # of the search for φ's mode: so far in log φ to either side, and so often narrowed by the golden ratio


class DispersionPrior(NamedTuple):
    """φ ~ Gamma(shape, rate)."""

    shape: float
    rate: float

    def log_prob(self, phi: Tensor) -> Tensor:
        """log p(φ), float64."""
        phi = phi.double()
        constant = self.shape * math.log(self.rate) - math.lgamma(self.shape)
        return constant + (self.shape - 1) * phi.log() - self.rate * phi


class Formed(NamedTuple):
    """The cells of a block: counts (1 | C, B, D), their means (C, B, D), and where they are observed (B, D), or None."""

    x: Tensor
    mean: Tensor
    e: Tensor
    seen: Tensor | None


def formed(block: Any, rows: range, chains: slice, W: Tensor, Ht: Tensor, e: Tensor) -> Formed:
    """The cells of a block under the rows W (C, B, K) and Hᵀ (C, D, K)."""
    dense = block if isinstance(block, Dense) else block.part(range(block.shape[0]))
    own = e if len(e) == 1 else e[rows.start : rows.stop]
    values = dense.values[chains] if dense.values.ndim == 3 else dense.values[None]
    return Formed(values.double(), own.to(W) * (W @ Ht.mT), own.to(W), dense.mask)


def log_likelihood(X: Matrix, params: Params, e: Tensor, phi: Tensor) -> Tensor:
    """log p(X | W, H, φ) of the observed counts, the latent exposures integrated out, (C,), float64."""
    return _folded(X, params, e, lambda cells: NegativeBinomial(cells.mean, _wide(phi)).log_prob(cells.x))


def _folded(X: Matrix, params: Params, e: Tensor, function: Callable[[Formed], Tensor]) -> Tensor:
    """Σ over the observed cells of a function of them, (C,)."""
    W, Ht = params["W"].double(), params["H"].mT.double()

    def of_block(rows: range, block: Any) -> Tensor:
        cells = formed(block, rows, slice(None), W[:, rows.start : rows.stop], Ht, e)
        each = function(cells)
        return (each if cells.seen is None else each * cells.seen).sum((-2, -1))

    with single_threaded():
        return X.fold(of_block, 100.0 * W.numel() * X.shape[1])


def drawn_dispersion(prior: DispersionPrior, X: Matrix, params: Params, e: Tensor, stream: Stream, step: int) -> Tensor:
    """φ (C,) by a slice step in log φ."""

    def log_density(y: Tensor) -> Tensor:
        phi = y.exp()
        return log_likelihood(X, params, e, phi) + prior.log_prob(phi) + y

    def uniforms(trial: int) -> Tensor:
        return stream.uniforms(step, Site.DISPERSION, range(trial, trial + 1), 2, X.device)[:, 0]

    return slice_step(log_density, params[SITE].double().log(), WIDTH, uniforms).exp().to(params[SITE].dtype)


def mode_of_dispersion(prior: DispersionPrior, X: Matrix, params: Params, e: Tensor) -> Tensor:
    """φ (C,) where its density given W and H is greatest, by golden sections about where it is; never a lesser one."""
    golden = (math.sqrt(5) - 1) / 2

    def value(y: Tensor) -> Tensor:
        return log_likelihood(X, params, e, y.exp()) + prior.log_prob(y.exp())

    here = params[SITE].double().log()
    low, high = here - REACH, here + REACH
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = value(left), value(right)
    for _ in range(NARROWINGS):
        better = at_left > at_right
        low, high = torch.where(better, low, left), torch.where(better, right, high)
        anew = torch.where(better, high - golden * (high - low), low + golden * (high - low))
        at_anew = value(anew)
        left, right = torch.where(better, anew, right), torch.where(better, left, anew)
        at_left, at_right = torch.where(better, at_anew, at_right), torch.where(better, at_left, at_anew)
    found = torch.where(at_left > at_right, left, right)
    greater = torch.maximum(at_left, at_right) > value(here)
    return torch.where(greater, found, here).exp().to(params[SITE].dtype)


def latent(phi: Tensor, e: Tensor) -> Callable[..., Entries]:
    """What gives the exposures e g of a block: g drawn, or without a place its expectation (φ + X) / (φ + μ).

    Args:
        phi: (C,), float64.
    """

    def of_block(
        rows: range, block: Any, chains: slice, counts: Counts, W: Tensor, Ht: Tensor, place: Place | None
    ) -> Entries:
        cells = formed(block, rows, chains, W, Ht, e)
        own = _wide(phi[chains])
        shape, rate = own + cells.x, own + cells.mean
        wide = shape.expand(rate.shape)
        g = wide / rate if place is None else gamma_draws(wide, rate, place, Site.EXPOSURE)
        weights = cells.e * g
        return Entries(weights if cells.seen is None else weights * cells.seen)

    return of_block


def _wide(phi: Tensor) -> Tensor:
    return phi.double()[:, None, None]
