r"""From a fitted reference to the posterior of a model with a random rate a component, along densities that have exact sweeps.

The path of `path`, with a gamma for each rate in the reference. With r(rate_k) = Gamma(α_r, β_r), n_k the learned entries of W_k
and H_k together and S_k their sum, under π_β

.. math:: rate_k \mid W, H \sim Gamma\bigl(\beta (\alpha_0 + n_k) + (1 - \beta) \alpha_r,\;
    \beta (\beta_0 + S_k) + (1 - \beta) \beta_r\bigr);

given the rates an entry of W or H has the "prior" of natural parameters (1 - β) a_r and (1 - β) b_r - β rate_k, and the likelihood
to the power β.

Every particle has rates of its own, and all are swept together: likelihoods of weight w = β / σ² take the linear terms w P, so
that σ² rate_k off P is β rate_k off the prior's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.data.sharded import Sharded
from ppnmf.distributions.moments import matched_gammas
from ppnmf.gaussian import path, restricted, ridge, statistics, sweep
from ppnmf.gaussian.noise import Noise
from ppnmf.gaussian.pinned import exact, flat, own_natural
from ppnmf.gaussian.relevance import SITES, Hyperprior, standard_gamma
from ppnmf.gaussian.repeated import one_by_one
from ppnmf.gaussian.ridge import Priors
from ppnmf.gaussian.sweep import Factors, Story
from ppnmf.kernels import kernels_for
from ppnmf.priors import Natural
from ppnmf.protocols import Address, Matrix, Params, Statistics, Sweeps, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["Fitted", "Gammas", "fitted", "flattened", "swept"]


class Gammas(NamedTuple):
    """rate_k ~ Gamma(shape_k, scale_k), density ∝ r^(shape - 1) exp(-scale r); both (K,), float64, on the CPU."""

    shape: Tensor
    scale: Tensor

    @classmethod
    def matched(cls, draws: Tensor, width: float) -> Gammas:
        """With the means of draws (S, K) and `width` times their variances; none spreads more than an exponential."""
        return cls(*matched_gammas(draws, width))

    def draws(self, stream: Stream) -> Tensor:
        """A draw for each key of the stream, (C, K), float64."""
        u = stream.uniforms(0, Site.RATE, range(1), len(self.shape))[:, 0]
        return standard_gamma(self.shape, u) / self.scale

    def log_places(self, rate: Tensor) -> Tensor:
        """Log density of the rate of component k, of (C, K), under what is said of component l, (C, K, K), float64."""
        r = rate.double().cpu()[..., None]
        constant = self.shape * self.scale.log() - torch.lgamma(self.shape)
        return constant + (self.shape - 1) * r.log() - self.scale * r

    def log_prob(self, rate: Tensor) -> Tensor:
        """Log density of rates (C, K), (C,), float64, on the CPU."""
        return self.log_places(rate).diagonal(dim1=1, dim2=2).sum(-1)


@dataclass(frozen=True, eq=False)
class Fitted:
    """r(θ): rectified normals and an inverse gamma for W, H and σ², gammas for the rates, all independent."""

    factors: path.Fitted
    rates: Gammas

    def draws(self, X: Matrix, stream: Stream) -> dict[str, Tensor]:
        """Independent ones, a key of the stream each: W (C, N, K), H (C, K, D), sigma2 (C,), rate (C, K)."""
        rate = self.rates.draws(stream).to(X.device, X.dtype)
        return {**self.factors.draws(X, stream), "rate": rate}

    def log_prob(self, params: Params) -> Tensor:
        """log r(θ), (C,), float64."""
        of_factors = self.factors.log_prob(params)
        return of_factors + self.rates.log_prob(params["rate"]).to(of_factors.device)

    def log_places(self, params: Params) -> Tensor:
        """Log density of component k, its rate too, under what r says of component l, (C, K, K), on the CPU."""
        return self.factors.log_places(params) + self.rates.log_places(params["rate"])


def flattened(hyperprior: Hyperprior, noise: Noise) -> Story:
    """The model but for its rates: σ²'s prior, and of W and H no more than what is known of them."""
    known = dict(zip(SITES, hyperprior.known, strict=True))
    return Story(lambda site: flat(known[site]), noise)


def fitted(hyperprior: Hyperprior, noise: Noise, draws: Params, width: float) -> Fitted:
    """A reference with the moments of draws whose components have one order.

    Args:
        draws: W (S, N, K), H (S, K, D), sigma2 (S,), rate (S, K).
        width: what the variances are multiplied by.
    """
    factors = path.fitted(draws, width, flattened(hyperprior, noise))
    return Fitted(factors, Gammas.matched(draws["rate"].double().cpu(), width))


def swept(
    hyperprior: Hyperprior,
    noise: Noise,
    reference: Fitted,
    X: Matrix,
    params: Params,
    asked: Sweeps,
    at: Address | None,
) -> Swept:
    """Sweeps that leave π_β as it is, β = `asked.power`; log_likelihood is log p(X | θ)."""
    if isinstance(X, Sharded):
        raise X.refusal()
    target = path.between(flattened(hyperprior, noise), reference.factors, asked.power)

    def one(own: Params, here: Address | None) -> tuple[Params, Tensor]:
        if here is None:
            raise NotImplementedError("sweeps between a reference and a posterior read draws, at an address")
        W, H, left = _factors(target, X, own, asked.power, here)
        sigma2 = target.noise.draw(left, X.n_observed, asked.power, *here).to(W.dtype)
        fit = sweep.log_likelihood_of(X, left, sigma2)
        own = {"W": W, "H": H, "sigma2": sigma2, "rate": own["rate"]}
        own = _moved(target, X, own, asked.power, here) if asked.moves else own
        rate = _drawn_rates(hyperprior, reference.rates, own, asked.power, here)
        return {**own, "rate": rate.to(own["rate"])}, fit

    with single_threaded():
        return one_by_one(one, X, params, asked, at)


def _factors(target: Story, X: Matrix, params: Params, power: float, at: Address) -> Factors:
    """W and H of all particles from their conditionals given the rates, and the misfits (C,)."""
    W, H, sigma2 = params["W"], params["H"], params["sigma2"]
    weight = (power / sigma2).to(W.dtype)
    off = (sigma2[:, None] * params["rate"])[:, None].to(W.dtype)  # (C, 1, K)
    half = kernels_for(W.device).half_sweep
    P, Q = statistics.of_all_rows(X, H)
    own_W = target.prior("W").natural(W.device)
    W = half(W, Statistics(P - off, Q), own_W, (*at, Site.W), 0, 0, weight)
    W = exact(target.prior("W"), W)
    of_H = statistics.of_all_columns(X, W)
    own_H = Natural(*(values.mT for values in target.prior("H").natural(W.device)))
    H = half(H.mT, Statistics(of_H.P - off, of_H.Q), own_H, (*at, Site.H), 0, 0, weight).mT
    H = exact(target.prior("H"), H)
    return Factors(W, H, sweep.misfit(X, W, H, of_H))


def _moved(target: Story, X: Matrix, params: Params, power: float, at: Address) -> dict[str, Tensor]:
    """W and H along the ridge, each particle by its own rates; on the CPU wherever they are."""
    W, H, rate = (params[site].cpu() for site in ("W", "H", "rate"))
    of_W, of_H = (own_natural(target.prior(site), W.device) for site in SITES)
    off = power * rate.double()
    priors = Priors(
        Natural(of_W.precision, of_W.linear - off[:, None, :]), Natural(of_H.precision, of_H.linear - off[:, :, None])
    )
    made = restricted.free(target.prior, X, W, H) if restricted.is_needed(target.prior) else None
    W, H = ridge.compiled(W, H, priors, *at, made)
    return {**params, "W": W.to(params["W"].device), "H": H.to(params["H"].device)}


def _drawn_rates(hyperprior: Hyperprior, reference: Gammas, params: Params, power: float, at: Address) -> Tensor:
    """The rates of each particle given its factors, (C, K), float64."""
    shape, scale = hyperprior.given(params["W"], params["H"])
    shape = power * shape.cpu() + (1 - power) * reference.shape
    scale = power * scale.cpu() + (1 - power) * reference.scale
    u = at.stream.uniforms(at.step, Site.RATE, range(1), scale.shape[-1])[:, 0]
    return standard_gamma(shape, u) / scale
