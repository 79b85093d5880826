r"""What the sweeps of a chain say of the mass of the mode that it is in.

The greatest log joint may belong to a mode that is high and narrow: digits have at rank 8 one whose draws lie 450 nats above those
of another and which has exp(-364) times its mass. A mode's log mass is

.. math:: \log m = E[\log p(X, \theta)] + H,

the mean over the mode and its entropy. Here every entry adds the entropy of a gamma distribution with the mean that it had in the
sweeps and, as its variance, the geometric mean of its variance and of half its mean squared step. Of two correlated normals that
are drawn in turn these are v and v (1 - ρ²), and the sum is exact; their variances alone would leave the correlation out, and
conditional variances count it twice. It also makes little of a chain that is on its way, whose entries vary more than they step.

On digits at ranks 6 and 8, whose modes lie 66 to 364 nats below the heaviest by stepping stones, 100 sweeps err by 12 to 50 nats,
and chains in one mode differ by 10; variances alone err by up to 180, and log joints by up to 800.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from ppnmf.protocols import Matrix, Params, Sweeping, made_up

__all__ = ["FEWEST", "Seen", "split"]

FEWEST = 4  # sweeps that tell of a variance; of fewer the log joint alone counts
PREFIX = "seen."
OF_SITES = "origin", "last", "values", "squares", "steps"
NORMAL = 1e4  # shape from which a gamma distribution is a normal one


class Seen(NamedTuple):
    """Sums over some sweeps of C chains, each site's as (C, *site).

    Args:
        origin: what values are counted from: those of the first sweep.
        last: those of the latest.
        values, squares: of what they are counted by. steps: squared, from each sweep to the next.
        lp, lp_squares: of log joints, (C,). number: how many sweeps there were.
    """

    origin: Params
    last: Params
    values: Params
    squares: Params
    steps: Params
    lp: Tensor
    lp_squares: Tensor
    number: int

    @classmethod
    def of(cls, draws: Params, lp: Tensor) -> Self:
        """Of draws (C, n, *site), one a sweep, and their log joints (C, n)."""
        first = {site: values[:, 0] for site, values in draws.items()}
        nothing = {site: torch.zeros_like(values) for site, values in first.items()}
        none = torch.zeros_like(lp[:, 0])
        return cls(first, first, nothing, nothing, nothing, none, none, 0).after(draws, lp)

    def after(self, draws: Params, lp: Tensor) -> Self:
        """With those of the sweeps that follow, one by one: so no rounding depends on how many come at once."""
        now = self
        for s in range(lp.shape[1]):
            now = now._and({site: values[:, s] for site, values in draws.items()}, lp[:, s])
        return now

    def _and(self, params: Params, lp: Tensor) -> Self:
        """With one more sweep."""
        by = {site: values - self.origin[site] for site, values in params.items()}
        return type(self)(
            self.origin,
            params,
            {site: self.values[site] + own for site, own in by.items()},
            {site: self.squares[site] + own.square() for site, own in by.items()},
            {site: self.steps[site] + (params[site] - self.last[site]).square() for site in params},
            self.lp + lp,
            self.lp_squares + lp.square(),
            self.number + 1,
        )

    @property
    def lp_deviation(self) -> Tensor:
        """Standard deviation of the log joint, (C,)."""
        mean = self.lp / self.number
        return (self.lp_squares / self.number - mean.square()).clamp(min=0).sqrt()

    def log_mass(self, model: Sweeping, X: Matrix) -> Tensor:
        """Of each chain's mode, up to what all modes share, (C,), float64; -inf where the log joint is no number."""
        found = self.lp.double() / self.number
        if self.number >= FEWEST:
            dims = model.sites(1, 1)
            random = set(dims) - made_up(model)
            of_rows = {site for site in random if "row" in dims[site]}
            found = found + X.add_up(self._entropy(of_rows, found)) + self._entropy(random - of_rows, found)
        return found.nan_to_num(-math.inf, -math.inf, -math.inf)

    def named(self) -> dict[str, Tensor]:
        """The sums as tensors by name, which a checkpoint takes beside a state; `split` reads them back."""
        of_sites = {f"{PREFIX}{kind}.{site}": v for kind in OF_SITES for site, v in getattr(self, kind).items()}
        rest = {f"{PREFIX}{kind}": getattr(self, kind) for kind in ("lp", "lp_squares")}
        return {**of_sites, **rest, f"{PREFIX}number": torch.tensor([self.number])}

    def _entropy(self, sites: set[str], like: Tensor) -> Tensor:
        """Of these sites, (C,)."""
        total = torch.zeros_like(like)
        for site in sorted(sites):
            total += _entropies(*self._moments(site)).reshape(len(total), -1).sum(1)
        return total

    def _moments(self, site: str) -> tuple[Tensor, Tensor]:
        """The mean of each entry, and the variance that its entropy is told from, float64."""
        shift = self.values[site].double() / self.number
        variance = (self.squares[site].double() / self.number - shift.square()).clamp(min=0)
        step = self.steps[site].double() / (2 * (self.number - 1))
        return self.origin[site].double() + shift, (variance * step).sqrt()


def split(named: Params) -> tuple[dict[str, Tensor], Seen | None]:
    """A state, and the sums that stood beside it, if there were any."""
    state = {name: values for name, values in named.items() if not name.startswith(PREFIX)}
    if len(state) == len(named):
        return state, None
    parts: dict[str, Any] = {kind: {site: named[f"{PREFIX}{kind}.{site}"] for site in state} for kind in OF_SITES}
    parts |= {kind: named[f"{PREFIX}{kind}"] for kind in ("lp", "lp_squares")}
    return state, Seen(**parts, number=int(named[f"{PREFIX}number"]))


def _entropies(mean: Tensor, variance: Tensor) -> Tensor:
    """Entropies of gamma distributions; 0 for what does not vary.

    >>> _entropies(torch.tensor([2.0, 5.0]), torch.tensor([4.0, 0.0]))  # an exponential one: 1 + log 2
    tensor([1.6931, 0.0000])
    """
    varies = (variance > 0) & (mean > 0)
    shape = torch.where(varies, mean.square() / variance, 1.0)
    spread = torch.where(varies, variance, 1.0)
    gamma = shape.clamp(max=NORMAL)
    exact = gamma + (1 - gamma) * torch.digamma(gamma) + torch.lgamma(gamma) + 0.5 * (spread / gamma).log()
    normal = 0.5 * (2 * math.pi * math.e * spread).log()
    return torch.where(varies, torch.where(shape > NORMAL, normal, exact), 0.0)
