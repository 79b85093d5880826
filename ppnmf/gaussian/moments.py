r"""Variational Bayes for a Gaussian model: q(W, H, σ²) = Π RectifiedNormal · Π RectifiedNormal · InverseGamma.

It is the Gibbs sweep with moments in place of draws (Brouwer, Frellsen, Lió 2016). With means m and second moments s of a factor's
entries,

.. math:: E\|X - WH\|^2 = \|X - E[W] E[H]\|^2 + \sum_{ij} \sum_k (s^W_{ik} s^H_{kj} - (m^W_{ik} m^H_{kj})^2),

so a factor's conditional is that of the sampler with Σ_j m_k m_l + [k = l] v_k for H Hᵀ and E[1/σ²] for 1/σ², and
q(σ²) = InverseGamma(α + n / 2, θ + E‖X - WH‖² / 2). Each step maximises the evidence lower bound over one block; the bound
E_q[log p(X, W, H, σ²)] - E_q[log q] is exact.

An approximation is a dict of tensors with a leading axis C: the means "W" (C, N, K) and "H" (C, K, D), for each factor its
variances, precisions, linear terms and entropies ("W.variance" ...), and "sigma2", which is 1 / E[1/σ²].

References: Brouwer, Frellsen, Lió (2016), "Fast Bayesian non-negative matrix factorisation and tri-factorisation",
arXiv:1610.08127.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from scipy import special
from torch import Tensor

from ppnmf.distributions import RectifiedNormal
from ppnmf.gaussian import restricted, statistics
from ppnmf.gaussian.columns import given_columns
from ppnmf.gaussian.noise import KnownNoise, Noise, NoisePrior
from ppnmf.gaussian.pinned import exact, learned, own_natural
from ppnmf.gaussian.sweep import Prior, Story, misfit
from ppnmf.kernels import kernels_for
from ppnmf.kernels.moments import Moments, half_sweep
from ppnmf.priors import Natural
from ppnmf.protocols import Drawn, Matrix, Params, Statistics, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = [
    "approximated",
    "balanced_pair",
    "diagonal",
    "divergence",
    "divergence_of_factor",
    "divergence_under",
    "draws",
    "draws_of_factors",
    "expected_log_likelihood",
    "factor_of",
    "is_even",
    "named",
    "noise_draws",
    "of_H",
    "of_noise",
    "refined",
    "rows_of_W",
    "spread_of_products",
    "swept",
    "updated",
    "updated_noise",
    "without_spread",
]

PARTS = ("variance", "precision", "linear", "entropy")
LOG_2PI = math.log(2 * math.pi)
NEWTON, HALVINGS = 3, 4  # steps towards the best scale a sweep; the next sweep goes on
AT_ONCE = 2**15  # entries of the draws that are made together


class Told(NamedTuple):
    """What X and the moments of one factor tell about the other, per unit of precision, float64."""

    P: Tensor  # (C, R, K), from the means
    Q: Tensor  # (C, K, K) or (C, R, K, K), from the means
    V: Tensor  # (C, K) or (C, R, K): the sums of variances that belong on Q's diagonal

    @property
    def expected(self) -> Statistics:
        """P, and Q with second moments on its diagonal."""
        return Statistics(self.P, self.Q + torch.diag_embed(self.V))


def approximated(params: Params) -> dict[str, Tensor]:
    """The approximation that stands at given values, without any spread: the first sweep makes it one."""
    q: dict[str, Tensor] = {"sigma2": params["sigma2"].double()}
    for site in ("W", "H"):
        q |= without_spread(site, params[site])
    return q


def without_spread(site: str, F: Tensor) -> dict[str, Tensor]:
    """The part of an approximation that stands at a factor's values."""
    mean = F.double()
    return {site: mean, **{f"{site}.{part}": torch.zeros_like(mean) for part in PARTS}}


def swept(story: Story, X: Matrix, q: Params, number: int = 1) -> Swept:
    """So many sweeps of coordinate ascent: W, H, σ². `log_likelihood` is E_q[log p(X | W, H, σ²)] after them, (C, 1)."""
    for _ in range(number - 1):
        q = swept(story, X, q).params
    q, square = refined(story, X, q)
    noise = updated_noise(story.noise, square, X.n_observed)
    return Swept({**q, "sigma2": noise.typical}, {}, expected_log_likelihood(noise, X, square)[:, None])


class OfNoise(NamedTuple):
    """q(σ²) = InverseGamma(shape, scale), scale (C,)."""

    shape: float
    scale: Tensor

    @property
    def typical(self) -> Tensor:
        """1 / E[1/σ²]."""
        return self.scale / self.shape

    @property
    def mean_log(self) -> Tensor:
        """E[log σ²]."""
        return self.scale.log() - float(special.digamma(self.shape))

    def divergence(self, prior: Noise) -> Tensor:
        """KL(q || p), (C,)."""
        assert isinstance(prior, NoisePrior)
        of_prior = prior.shape * math.log(prior.scale) - math.lgamma(prior.shape)
        log_prior = of_prior - (prior.shape + 1) * self.mean_log - prior.scale / self.typical
        own = self.shape * self.scale.log() - math.lgamma(self.shape)
        return own - (self.shape + 1) * self.mean_log - self.shape - log_prior


class OfKnown(NamedTuple):
    """A known σ², (C,)."""

    typical: Tensor

    @property
    def mean_log(self) -> Tensor:
        """log σ²."""
        return self.typical.log()

    def divergence(self, prior: Noise) -> Tensor:
        """0, (C,): nothing is random."""
        return torch.zeros_like(self.typical)


def updated_noise(noise: Noise, square: Tensor, observed: int) -> OfNoise | OfKnown:
    """q(σ²) given E‖X - WH‖² (C,)."""
    if isinstance(noise, KnownNoise):
        return OfKnown(noise.mode(square, observed))
    return OfNoise(noise.given(observed).shape, noise.scale + square / 2)


def expected_log_likelihood(noise: OfNoise | OfKnown, X: Matrix, square: Tensor) -> Tensor:
    """E[log p(X | W, H, σ²)] from E‖X - WH‖² over the known noise, (C,)."""
    return -0.5 * (X.n_observed * (LOG_2PI + noise.mean_log) + square / noise.typical + X.log_noise)


def of_noise(q: Params, noise: Noise, observed: int) -> OfNoise | OfKnown:
    """q(σ²) as an approximation holds it."""
    if isinstance(noise, KnownNoise):
        return OfKnown(q["sigma2"])
    shape = noise.given(observed).shape
    return OfNoise(shape, q["sigma2"] * shape)


def refined(story: Story, X: Matrix, q: Params) -> tuple[dict[str, Tensor], Tensor]:
    """The factors' part of a sweep; also E‖X - WH‖² over the known noise, (C,)."""
    with single_threaded():
        weight = 1 / q["sigma2"]
        W, told = rows_of_W(story, X, q, weight)
        natural = Natural(*(values.mT for values in story.prior("H").natural(X.device)))
        H = half_sweep(q["H"].mT, told.expected, natural, weight)
        left = misfit(X, W.mean.to(X.dtype), H.mean.mT.to(X.dtype), Statistics(told.P.to(X.dtype), told.Q.to(X.dtype)))
        square = left + spread_of_products(told, H).sum((-2, -1))
    return updated(story, q, W, H), square


def spread_of_products(told: Told, H: Moments) -> Tensor:
    """What the variances of W and H add to E(x - wh)², by columns of H and components, (C, D, K)."""
    own = torch.diagonal(told.Q, dim1=-2, dim2=-1)
    own, spread = (own[:, None], told.V[:, None]) if told.V.ndim == 2 else (own, told.V)
    return H.variance * own + (H.mean.square() + H.variance) * spread


def updated(story: Story, q: Params, W: Moments, H: Moments) -> dict[str, Tensor]:
    """The approximation with these factors (H's rows leading), their scales balanced."""
    return _balanced(story, {**q, **named("W", W), **named("H", Moments(*(part.mT for part in H)))})


def _balanced(story: Story, q: dict[str, Tensor]) -> dict[str, Tensor]:
    r"""W_k ← c W_k, H_k ← H_k / c in distribution, at the c that the ELBO is greatest at.

    W @ H stays as it is, so that E‖X - WH‖² does too; the ELBO changes by that of the priors and the entropies, the density
    of `ridge`'s scale move with moments in place of values and without its Jacobian's measure,
    (N - D) log c - ½ A c² + B c - ½ A' c⁻² + B' c⁻¹. Without this step the ascent crawls along the ridge.
    """
    terms = []
    for site, axis in (("W", -2), ("H", -1)):
        precision, linear = own_natural(story.prior(site), q[site].device)
        square = q[site].square() + q[f"{site}.variance"]
        terms += [(precision * square).sum(axis), (linear * q[site]).sum(axis)]
    size = q["W"].shape[-2] - q["H"].shape[-1]
    log_c = _greatest(size, *terms)
    if restricted.is_needed(story.prior):  # a component that is partly known keeps its scale
        log_c = torch.where(restricted.untouched(story.prior, log_c), log_c, 0.0)
    c = log_c.exp()
    return {
        **q,
        **_stretched(q, "W", c[:, None, :], log_c[:, None, :]),
        **_stretched(q, "H", 1 / c[..., None], -log_c[..., None]),
    }


def balanced_pair(prior: Prior, q: dict[str, Tensor], left: str, right: str) -> dict[str, Tensor]:
    """The same for two other neighbouring factors, whose priors stand as those of W and H."""
    names = {"W": left, "H": right}
    parts = ("", *(f".{part}" for part in PARTS))
    own = {site + part: q[name + part] for site, name in names.items() for part in parts}
    found = _balanced(Story(prior, NoisePrior(1.0, 1.0)), own)
    return {**q, **{name + part: found[site + part] for site, name in names.items() for part in parts}}


def _greatest(size: int, A: Tensor, B: Tensor, A_H: Tensor, B_H: Tensor) -> Tensor:
    """y = log c at the greatest value that Newton's steps from 0 lead to, each halved until it gains, (C, K)."""

    def value(y: Tensor) -> Tensor:
        c, d = y.exp(), (-y).exp()
        return size * y + c * (B - 0.5 * A * c) + d * (B_H - 0.5 * A_H * d)

    y = torch.zeros_like(A)
    for _ in range(NEWTON):
        c, d = y.exp(), (-y).exp()
        slope = size + c * (B - A * c) - d * (B_H - A_H * d)
        curvature = -(c * (B - 2 * A * c) + d * (B_H - 2 * A_H * d))
        step = (slope / torch.where(curvature > 0, curvature, slope.abs().clamp(min=1.0))).clamp(-1, 1)
        for _ in range(HALVINGS):
            step = torch.where(value(y + step) >= value(y), step, step / 2)
        y = torch.where(value(y + step) >= value(y), y + step, y)
    return y


def _stretched(q: Params, site: str, c: Tensor, log_c: Tensor) -> dict[str, Tensor]:
    """q of c times a factor's entries."""
    return {
        site: q[site] * c,
        f"{site}.variance": q[f"{site}.variance"] * c.square(),
        f"{site}.precision": q[f"{site}.precision"] / c.square(),
        f"{site}.linear": q[f"{site}.linear"] / c,
        f"{site}.entropy": q[f"{site}.entropy"] + log_c,
    }


def rows_of_W(story: Story, X: Matrix, q: Params, weight: Tensor, v: Tensor | None = None) -> tuple[Moments, Told]:
    """W, block by block of X's rows, and what it then tells about H.

    Args:
        weight: E[1/σ²], (C,). v: where the columns have noise of their own, 1 / E[1/σ²_j], (C, D).
    """
    spread, even = q["H.variance"], is_even(X)
    if v is None:
        given = statistics.given_H(X, q["H"].to(X.dtype))
    else:
        spread = spread / v[:, None]
        given = given_columns(X, q["H"].to(X.dtype), v.to(X.dtype))
    of_roots = statistics.given_H(X, spread.sqrt().to(X.dtype))
    whole = story.prior("W").natural(X.device)
    W = Moments(*(torch.empty_like(q["W"]) for _ in Moments._fields))

    def update(rows: range, block: Any, _: None) -> Told:
        own = slice(rows.start, rows.stop)
        P, Q = statistics.of_W(block, given)
        V = spread.sum(-1) if even else diagonal(statistics.of_W(block, of_roots).Q)
        mine = Natural(*(values[..., own, :] if values.shape[-2] > 1 else values for values in whole))
        found = half_sweep(q["W"][:, own], Told(P.double(), Q.double(), V).expected, mine, weight)
        for values, new in zip(W, found, strict=True):
            values[:, own] = new
        return of_H(block, found, X.dtype, even)

    (told,) = X.fold_here(update, [None], 8.0 * q["W"].numel() * X.shape[1])
    return W, told


def is_even(X: Matrix) -> bool:
    """Whether every entry of X is observed, with the same noise: then sums of variances are the same for all rows."""
    return X.noise is None and not X.uneven


def of_H(block: Any, W: Moments, dtype: torch.dtype, even: bool) -> Told:
    """What a block of W tells about H."""
    P, Q = statistics.of_H(block, W.mean.to(dtype).contiguous())
    if even:
        return Told(P.double(), Q.double(), W.variance.sum(-2))
    roots = W.variance.sqrt().to(dtype).contiguous()
    return Told(P.double(), Q.double(), diagonal(statistics.of_H(block, roots).Q))


def diagonal(Q: Tensor) -> Tensor:
    """Of each Gram matrix, float64."""
    return torch.diagonal(Q, dim1=-2, dim2=-1).double()


def named(site: str, moments: Moments) -> dict[str, Tensor]:
    """A factor's moments by the names that an approximation has."""
    mean, *others = moments
    return {site: mean, **{f"{site}.{part}": own for part, own in zip(PARTS, others, strict=True)}}


def factor_of(q: Params, site: str) -> RectifiedNormal:
    """q of a factor, batch shape that of the factor."""
    return RectifiedNormal(q[f"{site}.precision"], q[f"{site}.linear"], validate_args=False)


def divergence(story: Story, q: Params, observed: int) -> Tensor:
    """KL(q || p) of all sites, (C,)."""
    own = of_noise(q, story.noise, observed).divergence(story.noise)
    return own + divergence_of_factor(story, q, "W") + divergence_of_factor(story, q, "H")


def divergence_of_factor(story: Story, q: Params, site: str) -> Tensor:
    """KL(q || p) of a factor, (C,)."""
    return divergence_under(story.prior(site), q, site)


def divergence_under(prior: Any, q: Params, site: str) -> Tensor:
    """The same from the factor's prior."""
    precision, linear = own_natural(prior, q[site].device)
    mean, square = q[site], q[site].square() + q[f"{site}.variance"]
    normaliser = RectifiedNormal(precision, linear, validate_args=False).log_normalizer
    log_prior = linear * mean - 0.5 * precision * square - normaliser
    return -learned(prior, log_prior + q[f"{site}.entropy"]).sum((-2, -1))


def draws(story: Story, q: Params, n: int, observed: int, stream: Stream, dtype: torch.dtype) -> Drawn:
    """n independent draws of every site from one approximation (its axis C is 1), and log q of each."""
    factors = draws_of_factors(story, q, n, stream, dtype)
    sigma2, log_sigma2 = noise_draws(of_noise(q, story.noise, observed), n, stream, dtype)
    return Drawn({**factors.params, "sigma2": sigma2}, factors.log_density + log_sigma2)


def draws_of_factors(story: Story, q: Params, n: int, stream: Stream, dtype: torch.dtype) -> Drawn:
    """The same of W and H alone."""
    W, H = factor_of(q, "W"), factor_of(q, "H")
    of_W, of_H = story.prior("W"), story.prior("H")
    (_, N, K), D = q["W"].shape, q["H"].shape[-1]
    device = q["W"].device
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    size = max(1, AT_ONCE // ((N + D) * K))
    for first in range(0, n, size):
        last = min(first + size, n)
        rows = range(first * (N + D), last * (N + D))
        u = stream.uniforms(0, Site.GUIDE, rows, K, device)[0].unflatten(0, (last - first, N + D))
        own_W = exact(of_W, W.survival_inverse(u[:, :N]).to(dtype))
        own_H = exact(of_H, H.survival_inverse(u[:, N:].mT).to(dtype))
        log = learned(of_W, W.log_prob(own_W.double())).sum((-2, -1))
        log = log + learned(of_H, H.log_prob(own_H.double())).sum((-2, -1))
        found.append((own_W, own_H, log))
    each_W, each_H, logs = (torch.cat(part) for part in zip(*found, strict=True))
    return Drawn({"W": each_W, "H": each_H}, logs)


def noise_draws(noise: OfNoise | OfKnown, n: int, stream: Stream, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """n draws of σ², and log q of each."""
    if isinstance(noise, OfKnown):
        return noise.typical.expand(n).to(dtype), torch.zeros(n, dtype=torch.float64, device=noise.typical.device)
    shape, scale = noise
    draw = kernels_for(scale.device).inverse_gamma
    sigma2 = torch.cat([draw(shape, scale, stream, s) for s in range(n)]).to(dtype)
    return sigma2, NoisePrior(shape, float(scale)).log_prob(sigma2)
