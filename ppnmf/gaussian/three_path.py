r"""From a fitted reference to the posterior of three factors, along densities that have exact sweeps.

The path of `path` for X ≈ W S G, with a rectified normal for each entry of W, S and G in the reference: under π_β each has a
rectified normal for its "prior" and the likelihood to the power β, and the sweeps are those of `three`, moves along both ridges
included.

*Two kinds of labels.* Orders π of the K components of the rows permute W's columns and S's rows; orders τ of the L of the columns
permute S's columns and G's rows. Given τ, r(π, τ θ) is a product over the K components, and its sum over π is the
permanent of

.. math:: A_\tau[k, m] = \log r_{\cdot m}(W_{\cdot k}) + \sum_l \log r_{m \tau(l)}(S_{kl})
   + \tfrac{1}{K} \sum_l \log r_{\tau(l) \cdot}(G_{l \cdot}),

so that all K! L! orders are L! permanents; the kind with fewer components is the one whose orders are listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ppnmf.distributions import RectifiedNormal
from ppnmf.gaussian import path, three
from ppnmf.gaussian.noise import Noise
from ppnmf.gaussian.three import SITES, Story
from ppnmf.matching import all_orders, best_orders, gathered
from ppnmf.priors import NaturalPrior
from ppnmf.protocols import Address, Matrix, Params, Sweeps, Swept
from ppnmf.rng import Site, Stream

__all__ = ["Fitted", "fitted", "swept"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """r(θ): independent rectified normals for the entries of W (N, K), S (K, L) and G (L, D), and what σ² has."""

    priors: Mapping[str, NaturalPrior]
    noise: Noise

    def draws(self, X: Matrix, stream: Stream) -> dict[str, Tensor]:
        """Independent ones, a key of the stream each, of every site: W (C, N, K), S, G, H = S G and sigma2 (C,)."""
        draws, first = dict[str, Tensor](), 0
        for site in SITES:
            natural = self.priors[site].natural(X.device)
            rows, columns = natural.linear.shape
            u = stream.uniforms(0, Site.START, range(first, first + rows), columns, X.device)
            draws[site] = RectifiedNormal(*natural, validate_args=False).survival_inverse(u).to(X.dtype)
            first += rows
        sigma2 = self.noise.prior_draw(stream, X.device).to(X.dtype)
        return {**draws, "H": draws["S"] @ draws["G"], "sigma2": sigma2}

    def log_prob(self, params: Params) -> Tensor:
        """log r(θ), (C,), float64."""
        factors = sum(self.priors[site].log_prob(params[site]) for site in SITES)
        return self.noise.log_prob(params["sigma2"]) + factors

    def log_places(self, params: Params) -> Tensor:
        """For each listed order of one kind of component, log densities of each of the other kind in each place.

        Returns: (C, T, J, J) on the CPU, J the greater of K and L, and T orders of the smaller; the first is the one they have.
        """
        W, S, G = (params[site].double().cpu() for site in SITES)
        of_W = path.log_places(W, self.priors["W"])
        turned = NaturalPrior(*(own.mT for own in self.priors["G"].natural("cpu")))
        of_G = path.log_places(G.mT, turned)
        of_S = self._each_of_S(S)  # (C, K, L, K, L)
        if S.shape[1] < S.shape[2]:
            return _tables(of_G, of_W, of_S.permute(0, 2, 1, 4, 3))
        return _tables(of_W, of_G, of_S)

    def _each_of_S(self, S: Tensor) -> Tensor:
        """Log density of entry (k, l) under what r says of entry (m, n), (C, K, L, K, L)."""
        own = self.priors["S"]
        precision, linear = own.natural("cpu")
        s = S[..., None, None]
        return linear * s - 0.5 * precision * s.square() - own.log_normalizer


def _tables(of_one: Tensor, of_other: Tensor, of_both: Tensor) -> Tensor:
    """(C, T, J, J) from places of components of one kind (C, J, J), of the listed kind (C, I, I), and of both (C, J, I, J, I)."""
    J, I = of_one.shape[-1], of_other.shape[-1]
    orders = all_orders(I)  # (T, I): places
    at = torch.arange(I)
    beside = of_both.permute(0, 1, 3, 2, 4)[..., at, orders].sum(-1)  # (C, J, J, T)
    alone = of_other[:, at, orders].sum(-1)  # (C, T)
    return of_one[:, None] + beside.permute(0, 3, 1, 2) + alone[:, :, None, None] / J


def fitted(draws: Params, width: float, story: Story) -> Fitted:
    """A reference with the moments of draws whose components of the rows have one order; those of the columns are brought into one.

    Args:
        draws: W (S, N, K), S (S, K, L), G (S, L, D), sigma2 (S,).
        width: what the variances are multiplied by.
    """
    placed = _columns_in_order(draws)
    priors = path.fitted_factors(placed, width, story.priors.__getitem__, SITES)
    return Fitted(cast(dict[str, NaturalPrior], priors), path.fitted_noise(draws["sigma2"], width, story.noise))


def _columns_in_order(draws: Params) -> dict[str, Tensor]:
    """S and G with the components of the columns in the order that suits their mean, as (W S)_l G_l tell."""
    placed = {site: draws[site] for site in SITES}
    first = (placed["W"] @ placed["S"])[0], placed["G"][0]
    for _ in range(2):
        W, S, G = (placed[site] for site in SITES)
        orders = best_orders(W @ S, G, *first)
        placed |= {"S": gathered(S, orders, -1), "G": gathered(G, orders, -2)}
        first = (placed["W"] @ placed["S"]).mean(0), placed["G"].mean(0)
    return placed


def swept(story: Story, reference: Fitted, X: Matrix, params: Params, asked: Sweeps, at: Address | None) -> Swept:
    """Sweeps that leave π_β as it is, β = `asked.power`; log_likelihood is log p(X | θ)."""
    priors = {site: path.mixed(story.priors[site], reference.priors[site], asked.power) for site in SITES}
    noise = path.mixed_noise(story.noise, reference.noise, asked.power)
    return three.swept(Story(priors, noise), X, params, asked, at)
