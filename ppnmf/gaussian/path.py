r"""From a fitted reference to the posterior of a Gaussian model, along densities that have its own exact sweeps.

.. math:: \pi_\beta(\theta) \propto [p(X \mid \theta) \, p(\theta)]^\beta \, r(\theta)^{1 - \beta},
   \quad r = \mathrm{InverseGamma}(\sigma^2) \prod_{ik} \mathrm{RectifiedNormal}(W_{ik})
   \prod_{kj} \mathrm{RectifiedNormal}(H_{kj})

Rectified normals are closed under products and powers. With the prior's natural parameters (a, b) and the reference's
(a_r, b_r), an entry of W has under π_β the "prior" (β a + (1 - β) a_r, β b + (1 - β) b_r) and the likelihood to the
power β. The exponents of σ², -β (α + 1) - (1 - β) (α_r + 1), leave one of -1: its "prior" is InverseGamma(β α + (1 - β) α_r,
β θ + (1 - β) θ_r). So π_β is the posterior, at temperature β, of another member of the family, and has its sweeps and its
moves along the ridge.

Entries that are known are no part of θ: neither density is over them, and every draw of r has them in their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, cast

import torch
from torch import Tensor

from ppnmf.distributions import RectifiedNormal
from ppnmf.distributions.moments import LEAST_SPREAD
from ppnmf.gaussian import start
from ppnmf.gaussian.noise import ColumnNoise, KnownNoise, Noise, NoisePrior
from ppnmf.gaussian.pinned import Pinned, learned, own_natural
from ppnmf.gaussian.sweep import Prior, Story
from ppnmf.known import Known, known_of
from ppnmf.priors import Natural, NaturalPrior, RectifiedPrior
from ppnmf.protocols import Matrix, Params
from ppnmf.rng import Stream

__all__ = [
    "Fitted",
    "between",
    "fitted",
    "fitted_factors",
    "fitted_noise",
    "log_places",
    "matched",
    "mixed",
    "mixed_noise",
    "unpinned",
]

FACTORS = ("W", "H")
GRID = 40.0  # b / √a up to which moments are matched; beyond, a rectified normal is a normal or an exponential
POINTS = 8001


@dataclass(frozen=True, eq=False)
class Fitted:
    """r(θ): independent rectified normals for the entries of W (N, K) and H (K, D) to be learned, an inverse gamma for σ².

    Or an inverse gamma for each σ²_j, where columns have variances of their own.
    """

    W: NaturalPrior | Pinned
    H: NaturalPrior | Pinned
    noise: Noise | ColumnNoise

    @cached_property
    def story(self) -> Story:
        """The same as priors of a model, whose noise may be of columns."""
        return Story({"W": self.W, "H": self.H}.__getitem__, cast(Noise, self.noise))

    @cached_property
    def rows_of_H(self) -> NaturalPrior | Pinned:
        """H's with the rows of Hᵀ (D, K)."""
        free = unpinned(self.H)
        turned = NaturalPrior(free.precision.mT, free.linear.mT)
        return Pinned(turned, self.H.known.turned) if isinstance(self.H, Pinned) else turned

    def draws(self, X: Matrix, stream: Stream) -> dict[str, Tensor]:
        """Independent ones, a key of the stream each: W (C, N, K), H (C, K, D), sigma2 (C,), or (C, D)."""
        return start.begin(self.story, unpinned(self.W).shape[1], X, stream, "prior")

    def log_prob(self, params: Params) -> Tensor:
        """log r(θ), (C,), float64."""
        factors = self.W.log_prob(params["W"]) + self.H.log_prob(params["H"])
        return self.noise.log_prob(params["sigma2"]) + factors

    def log_places(self, params: Params) -> Tensor:
        """Log density of component k under what r says of component l, of which the same is known, (C, K, K), on the CPU."""
        of_W = log_places(params["W"].double().cpu(), self.W)
        return of_W + log_places(params["H"].mT.double().cpu(), self.rows_of_H)


def log_places(F: Tensor, prior: NaturalPrior | Pinned) -> Tensor:
    """`Fitted.log_places` of one factor F (C, R, K) with its rows leading, and so its prior's, (C, K, K)."""
    free = unpinned(prior)
    precision, linear, log_normalizer = (
        learned(prior, each) for each in (free.precision, free.linear, free.log_normalizer)
    )
    energy = 0.5 * (F.square().mT @ precision) - F.mT @ linear
    return -log_normalizer.sum(0) - energy


def unpinned(prior: NaturalPrior | Pinned) -> NaturalPrior:
    """What r says of a factor's entries as if none were known."""
    return cast(NaturalPrior, prior.prior) if isinstance(prior, Pinned) else prior


def between(story: Story, reference: Fitted, power: float) -> Story:
    """What sweeps at temperature `power` leave π_β as it is, β = `power`: r at 0, the model's own at 1."""
    priors = {site: mixed(story.prior(site), reference.story.prior(site), power) for site in FACTORS}
    return Story(priors.__getitem__, mixed_noise(story.noise, reference.noise, power))


def mixed(ours: RectifiedPrior, theirs: RectifiedPrior, power: float) -> RectifiedPrior:
    """A factor's "prior" under π_β, β = `power`, between the model's and the reference's."""
    cpu = torch.device("cpu")
    pairs = zip(own_natural(ours, cpu), own_natural(theirs, cpu), strict=True)
    between = NaturalPrior(*(power * own + (1 - power) * other for own, other in pairs))
    return _pinned(between, known_of(ours))


def mixed_noise(ours: Any, theirs: Any, power: float) -> Any:
    """What stands for the noise's prior under π_β; `theirs`, of the reference, is `Noise` or `ColumnNoise`."""
    if isinstance(ours, KnownNoise):
        return ours
    return type(theirs)(*(power * own + (1 - power) * other for own, other in zip(ours, theirs, strict=True)))


def _pinned(prior: NaturalPrior, known: Known | None) -> NaturalPrior | Pinned:
    return prior if known is None else Pinned(prior, known)


def fitted(draws: Params, width: float, story: Story) -> Fitted:
    """A reference with the moments of draws whose components have one order.

    Args:
        draws: W (S, N, K), H (S, K, D), sigma2 (S,).
        width: what the variances are multiplied by.
        story: the model's; what is known of its factors, and its noise where that is known, is the reference's too.
    """
    factors = fitted_factors(draws, width, story.prior)
    return Fitted(**factors, noise=fitted_noise(draws["sigma2"], width, story.noise))


def fitted_factors(
    draws: Params, width: float, prior: Prior, sites: Sequence[str] = FACTORS
) -> dict[str, NaturalPrior | Pinned]:
    """Of each factor, with the moments of its draws (S, *site); `prior` says what is known of it."""
    return {site: _fitted(draws[site].double().cpu(), width, known_of(prior(site))) for site in sites}


def fitted_noise(draws: Tensor, width: float, noise: Noise) -> Noise:
    """Of σ², with the moments of draws (S,), or what is known of it."""
    if isinstance(noise, KnownNoise):
        return noise
    sigma2 = draws.double()
    mean = float(sigma2.mean())
    spread = width * float(sigma2.var()) / mean**2
    shape = 2 + 1 / max(spread, LEAST_SPREAD**2)
    return NoisePrior(shape, mean * (shape - 1))


def _fitted(draws: Tensor, width: float, known: Known | None) -> NaturalPrior | Pinned:
    mean, variance = draws.mean(0), width * draws.var(0)
    if known is None:
        return NaturalPrior(*matched(mean, variance))
    of_any = (torch.where(known.on(draws.device).at, 1.0, values) for values in (mean, variance))  # finite, of no use
    return Pinned(NaturalPrior(*matched(*of_any)), known.on(draws.device))


def matched(mean: Tensor, variance: Tensor) -> Natural:
    """The natural parameters of rectified normals with these means and variances, float64.

    None spreads more than an exponential; where more is asked, the exponential with the same second moment is taken.
    """
    kappas, spreads, means = _table()
    mean = mean.clamp(min=torch.finfo(torch.float64).tiny ** 0.5)
    spread = (variance.clamp(min=0).sqrt() / mean).clamp(min=LEAST_SPREAD)
    at = torch.searchsorted(-spreads, -spread.reshape(-1)).clamp(1, len(kappas) - 1).reshape(mean.shape)
    share = (spreads[at - 1] - spread) / (spreads[at - 1] - spreads[at])
    kappa = kappas[at - 1] + share * (kappas[at] - kappas[at - 1])
    size = mean / (means[at - 1] + share * (means[at] - means[at - 1]))  # w / size has precision 1
    wide = spread >= spreads[0]
    narrow = spread <= spreads[-1]
    of_normal = (mean * spread).square().reciprocal()
    second = torch.maximum(mean, (0.5 * (mean.square() + variance)).sqrt())
    precision = torch.where(narrow, of_normal, size.square().reciprocal())
    linear = torch.where(narrow, mean * of_normal, kappa / size)
    return Natural(torch.where(wide, 0.0, precision), torch.where(wide, -1 / second, linear))


@cache
def _table() -> tuple[Tensor, Tensor, Tensor]:
    """b / √a, the standard deviation over the mean, which falls with it, and the mean where a = 1."""
    kappas = torch.linspace(-GRID, GRID, POINTS, dtype=torch.float64)
    unit = RectifiedNormal(torch.ones_like(kappas), kappas, validate_args=False)
    return kappas, unit.variance.sqrt() / unit.mean, unit.mean
