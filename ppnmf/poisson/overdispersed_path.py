r"""From a fitted reference to the posterior of counts that vary more than Poisson ones, along densities that have exact sweeps.

The path of `path` with the latent exposures integrated out, so that no cell has a variable of its own, and with a gamma for the
dispersion in the reference: under π_β an entry has a gamma for its "prior", φ one too, and the negative binomial to the power β for
its likelihood. The entries take Metropolis steps (`kernels.overdispersed`), φ a slice step, the scales their move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.data.sparse import Sparse
from ppnmf.distributions.sliced import slice_step
from ppnmf.kernels import overdispersed as compiled
from ppnmf.poisson import path, scale
from ppnmf.poisson.allocation import Place, gamma_draws, is_compiled
from ppnmf.poisson.overdispersed_moments import log_masses
from ppnmf.poisson.overdispersion import SITE, WIDTH, DispersionPrior, log_likelihood
from ppnmf.poisson.sweep import Story, gathered, least
from ppnmf.priors import Gamma
from ppnmf.protocols import Address, Matrix, Params, Sweeps, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import ordered_map, single_threaded

__all__ = ["Fitted", "fitted", "swept"]

COST = 20.0  # operations that a component of a cell takes, about
LEAST_PHI = 1e-150


@dataclass(frozen=True, eq=False)
class Fitted:
    """r(θ): independent gammas for the entries of W and H, and for φ."""

    factors: path.Fitted
    dispersion: DispersionPrior

    def draws(self, X: Matrix, stream: Stream) -> dict[str, Tensor]:
        """Independent ones, a key of the stream each: W (C, N, K), H (C, K, D), dispersion (C,)."""
        one = torch.ones(len(stream), 1, 1, dtype=torch.float64)
        shape, rate = (value * one for value in self.dispersion)
        phi = gamma_draws(shape, rate, Place(stream, 0, 0), Site.DISPERSION, LEAST_PHI).flatten()
        return {**self.factors.draws(X, stream), SITE: phi.to(X.dtype)}

    def log_prob(self, params: Params) -> Tensor:
        """log r(θ), (C,), float64."""
        return self.factors.log_prob(params) + self.dispersion.log_prob(params[SITE])

    def log_places(self, params: Params) -> Tensor:
        """Log density of component k under what r says of component l, (C, K, K), on the CPU."""
        return self.factors.log_places(params)


def fitted(draws: Params, width: float) -> Fitted:
    """A reference with the moments of draws W (S, N, K), H (S, K, D), dispersion (S,), variances times `width`."""
    own = path.matched(draws[SITE].double().cpu(), width)
    return Fitted(path.fitted(draws, width), DispersionPrior(float(own.size), float(own.rate)))


class Cells(NamedTuple):
    """The observed cells of each row of X, or of its transpose: counts, exposures, columns and where rows begin."""

    data: np.ndarray
    exposed: np.ndarray
    indices: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, x: Tensor, e: Tensor, seen: Tensor) -> Cells:
        """From tables (R, S)."""
        starts = torch.cat([torch.zeros(1, dtype=torch.long), seen.sum(1).cumsum(0)])
        columns = seen.nonzero()[:, 1].int()
        return cls(x[seen].numpy(), e[seen].numpy(), columns.numpy(), starts.numpy())


def swept(
    story: Story,
    prior: DispersionPrior,
    reference: Fitted,
    X: Matrix,
    params: Params,
    asked: Sweeps,
    at: Address | None,
) -> Swept:
    """Sweeps that leave π_β as it is, β = `asked.power`; log_likelihood is log p(X | θ).

    Raises:
        ValueError: X is not in memory on the CPU, in one process.
    """
    if at is None or not isinstance(X, Dense | Sparse) or not is_compiled(params["W"]):
        raise ValueError("stepping stones of counts need X in memory on the CPU, in one process, and compiled kernels")
    power, e = asked.power, story.exposures
    mixed = path.between(story, reference.factors, power)
    between = DispersionPrior(*(power * a + (1 - power) * b for a, b in zip(prior, reference.dispersion, strict=True)))
    draws: list[Params] = []
    fits: list[Tensor] = []
    for s in range(asked.number):
        own = Address(at.stream, at.step + s)
        phi = _drawn_dispersion(between, X, params, e, power, own)
        params = _stepped(mixed, X, {**params, SITE: phi}, power, own)
        params = scale.moved(mixed.prior, X, params, own) if asked.moves else params
        if s in asked.kept:
            draws.append(params)
            fits.append(log_likelihood(X, params, e, params[SITE]))
    return gathered(params, draws, fits, X)


def _drawn_dispersion(
    prior: DispersionPrior, X: Matrix, params: Params, e: Tensor, power: float, at: Address
) -> Tensor:
    """φ (C,) by a slice step in log φ, the likelihood to the power β."""

    def log_density(y: Tensor) -> Tensor:
        phi = y.exp()
        return power * log_masses(X, params, e, phi[:, None])[:, 0] + prior.log_prob(phi) + y

    def uniforms(trial: int) -> Tensor:
        return at.stream.uniforms(at.step, Site.DISPERSION, range(trial, trial + 1), 2, X.device)[:, 0]

    return slice_step(log_density, params[SITE].double().log(), WIDTH, uniforms).exp().to(params[SITE].dtype)


def _stepped(story: Story, X: Any, params: Params, power: float, at: Address) -> dict[str, Tensor]:
    """A step of every entry of W and of H."""
    W, Ht = params["W"].double().contiguous(), params["H"].mT.double().contiguous()
    of_rows, of_columns = _cells(X, story.exposures)
    own_W, own_H = story.prior("W").on(W.device), story.prior("H").on(W.device)
    phi, dtype = params[SITE].double().tolist(), params["W"].dtype

    def half(cells: Cells, F: Tensor, G: Tensor, prior: Gamma, site: Site) -> Tensor:
        out = torch.empty_like(F)
        size, rate = (values.expand(F.shape[1:]).contiguous().numpy() for values in (prior.size, prior.rate))

        def of_chain(c: int) -> None:
            address = (*at.stream.keys[c], at.step, int(site), 0)
            given = (size, rate, phi[c], power, address, least(dtype))
            compiled.stepped(*cells, F[c].numpy(), G[c].numpy(), *given, out[c].numpy())

        ordered_map(of_chain, range(len(F)), COST * len(cells.data) * F.shape[2])
        return out

    with single_threaded():
        W = half(of_rows, W, Ht, Gamma(*own_W), Site.W)
        Ht = half(of_columns, Ht, W, Gamma(*(values.mT for values in own_H)), Site.H)
    return {**params, "W": W.to(dtype), "H": Ht.mT.contiguous().to(dtype)}


def _cells(X: Any, e: Tensor) -> tuple[Cells, Cells]:
    """Those of X's rows and of its columns, kept with it."""
    if "cells" not in X.kept or X.kept["cells"][0] is not e:
        whole = X if isinstance(X, Dense) else X.part(range(X.shape[0]))
        x, table = whole.values.double(), e.expand(X.shape)
        seen = torch.ones(X.shape, dtype=torch.bool) if whole.mask is None else whole.mask
        X.kept["cells"] = e, Cells.of(x, table, seen), Cells.of(x.mT, table.mT, seen.mT)
    _, of_rows, of_columns = X.kept["cells"]
    return of_rows, of_columns
