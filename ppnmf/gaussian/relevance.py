r"""A rate a component that is random too, shared by its column of W and its row of H: automatic relevance determination.

W_ik and H_kj ~ Exponential(rate_k), rate_k ~ Gamma(α₀, β₀). Given its rates a model is an exponential one, whose sweep, moves
along the ridge included, goes on as it is; then

.. math:: rate_k \mid W, H \sim Gamma(\alpha_0 + N + D,\; \beta_0 + \textstyle\sum_i W_{ik} + \sum_j H_{kj}).

A component that the data do not need shrinks, its rate grows, and it shrinks further, until it is empty. In the compressive
choice (Zito and Miller 2024) α₀ and β₀ grow with N + D, as if each entry had come with others that are small: however large
X is, the hyperprior keeps its say. Every chain has rates of its own, so chains are swept one by one, side by side on threads.

References: Tan and Févotte (2013), doi:10.1109/TPAMI.2012.240; Brouwer, Frellsen, Lió (2017), arXiv:1707.05147; Zito and
Miller (2024), arXiv:2404.10974.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import special
from torch import Tensor

from ppnmf.data.sharded import Sharded
from ppnmf.gaussian import collapsed, moments, start, sweep
from ppnmf.gaussian.noise import Noise
from ppnmf.gaussian.pinned import Pinned, learned, put_into
from ppnmf.gaussian.repeated import one_by_one
from ppnmf.gaussian.sweep import Story
from ppnmf.known import Known
from ppnmf.priors import Exponential, Natural
from ppnmf.protocols import Address, Drawn, Matrix, Params, Sweeps, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import ordered_map, single_threaded

__all__ = [
    "Hyperprior",
    "approximated",
    "begin",
    "divergence",
    "draws",
    "longer_steps",
    "prior_draws",
    "swept",
    "swept_moments",
]


SITES = ("W", "H")


class Learned(NamedTuple):
    """Of the entries of a factor's components that are not known."""

    number: Tensor  # (K,), or one number for all, float64
    total: Tensor  # (*C, K), float64


class Hyperprior(NamedTuple):
    """rate_k ~ Gamma(shape, scale), scale being over which the rate's density falls as exp(-scale · rate).

    Args:
        known: the known entries of W and of H, of which the rate says nothing and hears nothing.
    """

    shape: float
    scale: float
    known: tuple[Known | None, Known | None] = (None, None)

    def given(self, W: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
        """Shape (K,) or (), and scale (*C, K), given W (*C, N, K) and H (*C, K, D)."""
        of_W, of_H = self.learned("W", W), self.learned("H", H)
        return self.shape + of_W.number + of_H.number, self.scale + of_W.total + of_H.total

    def learned(self, site: str, F: Tensor) -> Learned:
        """Of a factor, what is not known."""
        axis = -2 if site == "W" else -1
        known = self.known[SITES.index(site)]
        if known is None:
            return Learned(torch.tensor(float(F.shape[axis]), dtype=torch.float64), F.double().sum(axis))
        at = known.on(F.device).at
        return Learned((~at).sum(axis).double(), torch.where(at, 0.0, F.double()).sum(axis))

    def mode(self, W: Tensor, H: Tensor) -> Tensor:
        """The rates' mode given the factors, (C, K)."""
        shape, scale = self.given(W, H)
        return (shape - 1) / scale

    def draw(self, W: Tensor, H: Tensor, stream: Stream, step: int) -> Tensor:
        """The rates of each chain given its factors, (C, K), float64."""
        shape, scale = self.given(W, H)
        u = stream.uniforms(step, Site.RATE, range(1), W.shape[-1])[:, 0]
        return standard_gamma(shape, u).to(scale.device) / scale

    def log_prob(self, rate: Tensor) -> Tensor:
        """log p(rate), summed over the components, float64."""
        r = rate.double()
        constant = self.shape * math.log(self.scale) - math.lgamma(self.shape)
        return (constant + (self.shape - 1) * r.log() - self.scale * r).sum(-1)

    def log_factors(self, params: Params) -> Tensor:
        """log p(W, H | rate) of what is not known, float64."""
        rate = params["rate"].double()
        of_W, of_H = self.learned("W", params["W"]), self.learned("H", params["H"])
        return ((of_W.number + of_H.number) * rate.log() - rate * (of_W.total + of_H.total)).sum(-1)

    def pinned(self, site: str, prior: Any) -> Any:
        """A factor's prior, where its known entries are pinned."""
        known = self.known[SITES.index(site)]
        return prior if known is None else Pinned(prior, known)


def standard_gamma(shape: float | Tensor, u: Tensor) -> Tensor:
    """The quantile of Gamma(shape, 1) at u, by SciPy."""
    size = shape.numpy(force=True) if isinstance(shape, Tensor) else shape
    return torch.from_numpy(np.asarray(special.gammaincinv(size, u.numpy(force=True))))


class Rates:
    """The prior of a factor in many chains, each with rates of its own (C, K), as far as sweeps of moments and starts ask."""

    is_exponential = True

    def __init__(self, rate: Tensor, site: str) -> None:
        self._linear = -(rate[:, None, :] if site == "W" else rate[:, :, None])

    def natural(self, device: torch.device) -> Natural:
        return Natural(torch.zeros(1, 1, dtype=torch.float64, device=device), self._linear.to(device))


def swept(hyperprior: Hyperprior, noise: Noise, X: Matrix, params: Params, asked: Sweeps, at: Address | None) -> Swept:
    """So many sweeps: W, H, σ² and moves given the rates, and then the rates, each drawn or at its mode."""
    if isinstance(X, Sharded):
        raise X.refusal()

    def one(own: Params, here: Address | None) -> tuple[Params, Tensor]:
        return _one(hyperprior, noise, X, own, asked, here)

    return one_by_one(one, X, params, asked, at)


def _one(
    hyperprior: Hyperprior, noise: Noise, X: Matrix, params: Params, asked: Sweeps, at: Address | None
) -> tuple[dict[str, Tensor], Tensor]:
    """One sweep of every chain, and its log likelihoods (C,)."""

    def of_chain(c: int) -> Swept:
        of_W = hyperprior.pinned("W", Exponential(params["rate"][c].double()[None]))
        of_H = hyperprior.pinned("H", Exponential(params["rate"][c].double()[:, None]))
        story = Story(lambda site: of_W if site == "W" else of_H, noise)
        own = {site: values[c : c + 1] for site, values in params.items() if site != "rate"}
        here = None if at is None else Address(Stream(at.stream.keys[c : c + 1]), at.step)
        return sweep.swept(story, X.of_chain(c), own, asked._replace(number=1, kept=range(1)), here)

    chains = range(len(params["W"]))
    with single_threaded():
        each = ordered_map(of_chain, chains, 4.0 * X.shape[0] * X.shape[1] * params["W"].shape[-1])
    after = {site: torch.cat([one.params[site] for one in each]) for site in ("W", "H", "sigma2")}
    after["rate"] = params["rate"]
    if not asked.held.others:
        rate = hyperprior.mode(after["W"], after["H"])
        if at is not None:
            rate = hyperprior.draw(after["W"], after["H"], *at)
        after["rate"] = rate.to(params["rate"])
    return after, torch.cat([one.log_likelihood[:, 0] for one in each])


def longer_steps(X: Matrix, params: Params) -> tuple[str, ...]:
    """The sites whose shears with a row integrated out pay (`gaussian.collapsed`), as the first chain's rates tell."""
    rate = params["rate"][0].double()
    priors = {"W": Exponential(rate[None]), "H": Exponential(rate[:, None])}
    return collapsed.pays(priors.__getitem__, X, params)


def begin(
    hyperprior: Hyperprior, noise: Noise, rank: int, X: Matrix, stream: Stream, how: str | Params
) -> dict[str, Tensor]:
    """A start by its name, or values; the rates, where they are not given, are at their mode, or drawn for "prior"."""
    rate = torch.ones(len(stream), rank, dtype=torch.float64)
    if how == "prior":
        u = stream.uniforms(0, Site.RATE, range(1), rank)[:, 0]
        rate = standard_gamma(hyperprior.shape, u) / hyperprior.scale
    story = Story(_priors(hyperprior, rate), noise)
    params = start.begin(story, rank, X, stream, how)
    if "rate" not in params:
        own = rate.to(X.device) if how == "prior" else hyperprior.mode(params["W"], params["H"])
        params["rate"] = own.to(X.dtype)
    return params


def _priors(hyperprior: Hyperprior, rate: Tensor) -> Callable[[str], Any]:
    priors = {site: hyperprior.pinned(site, Rates(rate, site)) for site in ("W", "H")}
    return priors.__getitem__


def prior_draws(
    hyperprior: Hyperprior, noise: Noise, rank: int, shape: tuple[int, int], n: int, stream: Stream
) -> dict[str, Tensor]:
    """n draws of every site from the prior, float64."""
    unit = Story(lambda site: Exponential(torch.ones(1, 1, dtype=torch.float64)), noise)
    draws = start.prior_draws(unit, rank, shape, n, stream)
    u = stream.uniforms(0, Site.RATE, range(n), rank)[0]
    rate = standard_gamma(hyperprior.shape, u) / hyperprior.scale
    scaled = draws["W"] / rate[:, None], draws["H"] / rate[:, :, None]
    W, H = (put_into(known, F) for known, F in zip(hyperprior.known, scaled, strict=True))
    return {**draws, "W": W, "H": H, "rate": rate}


# Variational Bayes: q(rate_k) = Gamma(α₀ + N + D, β₀ + Σ E[W_ik] + Σ E[H_kj])


def approximated(params: Params) -> dict[str, Tensor]:
    """The approximation that stands at given values; "rate" in it is E[rate]."""
    return {**moments.approximated(params), "rate": params["rate"].double()}


def swept_moments(hyperprior: Hyperprior, noise: Noise, X: Matrix, q: Params, number: int) -> Swept:
    """So many sweeps of coordinate ascent: W, H and σ² given E[rate], and then the rates."""
    found = Swept(q, {}, torch.empty(0))
    for _ in range(number):
        found = moments.swept(Story(_priors(hyperprior, found.params["rate"]), noise), X, found.params)
        shape, scale = hyperprior.given(found.params["W"], found.params["H"])
        found = found._replace(params={**found.params, "rate": shape / scale})
    return found


def divergence(hyperprior: Hyperprior, noise: Noise, q: Params, observed: int) -> Tensor:
    """KL(q || p) of W, H, σ² and the rates, (C,)."""
    shape = hyperprior.given(q["W"], q["H"])[0].expand(q["W"].shape[-1])
    scale = shape / q["rate"]
    mean_log = torch.special.digamma(shape) - scale.log()
    of_W, of_H = hyperprior.learned("W", q["W"]), hyperprior.learned("H", q["H"])
    log_factors = ((of_W.number + of_H.number) * mean_log - q["rate"] * (of_W.total + of_H.total)).sum(-1)
    priors = _priors(hyperprior, q["rate"])
    entropy = sum(learned(priors(site), q[f"{site}.entropy"]).sum((-2, -1)) for site in ("W", "H"))
    constant = hyperprior.shape * math.log(hyperprior.scale) - math.lgamma(hyperprior.shape)
    log_rates = (constant + (hyperprior.shape - 1) * mean_log - hyperprior.scale * q["rate"]).sum(-1)
    own = (torch.lgamma(shape) + shape + (1 - shape) * torch.special.digamma(shape) - scale.log()).sum(-1)
    return moments.of_noise(q, noise, observed).divergence(noise) - (log_factors + entropy) - (log_rates + own)


def draws(
    hyperprior: Hyperprior, noise: Noise, q: Params, n: int, observed: int, stream: Stream, dtype: torch.dtype
) -> Drawn:
    """n independent draws of every site from one approximation, and log q of each."""
    others = moments.draws(Story(_priors(hyperprior, q["rate"]), noise), q, n, observed, stream, dtype)
    shape = hyperprior.given(q["W"], q["H"])[0]
    scale = shape / q["rate"][0]
    rate = (standard_gamma(shape, stream.uniforms(0, Site.RATE, range(n), len(scale))[0]).to(scale.device) / scale).to(
        dtype
    )
    own = shape * scale.log() - torch.lgamma(shape) + (shape - 1) * rate.double().log() - scale * rate.double()
    return Drawn({**others.params, "rate": rate}, others.log_density + own.sum(-1))
