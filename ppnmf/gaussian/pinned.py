r"""Known entries in sweeps of the Gaussian family: a rectified normal so narrow that no data move it.

An entry known to be v > 0 has the "prior" RectifiedNormal(a, a v) with a = (2⁶⁰ / v)², one known to be 0 an exponential of
rate 2⁴⁰⁰. In double precision, prior times likelihood is then the prior, for every likelihood whose signal is below 10¹⁰ times
its noise, so that all kernels, blocks and processes draw, maximise and average as they do for other entries, and find v.
After each sweep the known entries are put in their places, which takes off what rounding has left.

What is read off a prior as a density (`energy`, `log_constant`) is that of the other entries alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ppnmf.distributions import RectifiedNormal
from ppnmf.known import Known, exact, known_of, learned, put_into
from ppnmf.priors import Natural, NaturalPrior, RectifiedPrior, below_peak

__all__ = ["Pinned", "exact", "flat", "flattened", "learned", "own_natural", "put_into"]

SHARPNESS = 2.0**60  # mean over standard deviation of an entry that is known to be above zero
RATE_OF_ZERO = 2.0**400  # of one that is known to be zero

Prior = Callable[[str], Any]


class Pinned(RectifiedPrior):
    """A factor's prior, some of whose entries are known.

    Args:
        prior: of the others.
        known: which they are, for the whole factor.
    """

    def __init__(self, prior: Any, known: Known) -> None:
        self.prior = prior
        self.known = known

    @cached_property
    def rectified(self) -> RectifiedNormal:
        values, at = self.known.values, self.known.at
        own = self.prior.natural(values.device)
        known = _pins(values)
        precision = torch.where(at, known.precision, own.precision)
        linear = torch.where(at, known.linear, own.linear)
        return RectifiedNormal(precision, linear, validate_args=False)

    def distribution(self, like: Tensor) -> Any:
        """Of all entries as if none were known: the Pyro program puts those that are in their places."""
        return self.prior.distribution(like)

    def energy(self, F: Tensor) -> Tensor:
        """How far log p(F) of the entries that are not known lies below its greatest value, (C,), float64."""
        below = below_peak(F.double(), *self.prior.natural(F.device))
        return torch.where(self.known.on(F.device).at, 0.0, below).sum((-2, -1))

    def log_constant(self, shape: tuple[int, int]) -> float:
        return self._log_constant

    @cached_property
    def _log_constant(self) -> float:
        precision, linear = self.prior.natural("cpu")
        proper = (precision > 0) | (linear < 0)
        peak = NaturalPrior(torch.where(proper, precision, 1.0), linear).log_peak
        each = torch.where(proper, peak, 0.0)
        return float(torch.where(self.known.at, 0.0, each).sum())

    @property
    def is_proper(self) -> bool:
        return bool(self.prior.is_proper)


class _Flat:
    """A prior that says nothing, of ordinary NMF."""

    is_exponential = True

    def natural(self, device: torch.device | str) -> Natural:
        zero = torch.zeros(1, 1, dtype=torch.float64, device=device)
        return Natural(zero, zero)


FLAT = _Flat()


def flat(known: Known | None) -> Any:
    """No prior, but for what is known."""
    return FLAT if known is None else Pinned(FLAT, known)


def flattened(prior: Prior) -> Prior:
    """The same without the priors of what is not known, by site."""
    return lambda site: flat(known_of(prior(site)))


def own_natural(prior: Any, device: torch.device) -> Natural:
    """The natural parameters of the entries as if none were known."""
    return prior.prior.natural(device) if isinstance(prior, Pinned) else prior.natural(device)


def _pins(values: Tensor) -> Natural:
    """The natural parameters of known entries."""
    above = values > 0
    size = torch.where(above, values, 1.0)
    precision = (SHARPNESS / size).square()
    return Natural(torch.where(above, precision, 0.0), torch.where(above, precision * size, -RATE_OF_ZERO))
