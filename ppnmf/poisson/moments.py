r"""Variational Bayes for Poisson counts (Cemgil 2009): q(W, H, Z) = Π Gamma(W_ik) · Π Gamma(H_kj) · Π Multinomial(Z_ij).

It is the Gibbs sweep with moments in place of draws. Given q(W) and q(H) the best q(Z_ij) has shares in proportion to the
geometric means exp(E[log W_ik] + E[log H_kj]); given those,

.. math:: q(W_{ik}) = \text{Gamma}(a_{ik} + \sum_j E[Z_{ijk}], \; b_{ik} + \sum_j e_{ij} E[H_{kj}]),

and H the same. Each step maximises the evidence lower bound over one block. With q(Z) at its best the bound is

.. math:: \sum_{ij} \Big( x_{ij} \log e_{ij} \sum_k e^{E[\log W_{ik}] + E[\log H_{kj}]} - e_{ij} \sum_k E[W_{ik}] E[H_{kj}]
   - \log x_{ij}! \Big) - KL(q(W) \| p(W)) - KL(q(H) \| p(H)),

exactly. A known entry is its value: it has no divergence.

An approximation is a dict of float64 tensors with a leading axis C: the means "W" (C, N, K) and "H" (C, K, D), and for
each factor E[log ·] and the gamma's shape ("W.log", "W.shape" ...).

Reference: Cemgil (2009), "Bayesian inference for nonnegative matrix factorisation models", doi:10.1155/2009/785152, section 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.known import Known, known_of, learned, put_into
from ppnmf.poisson import scale
from ppnmf.poisson.allocation import Place, counts_of, expected, gamma_draws, log_means
from ppnmf.poisson.exposures import exposed
from ppnmf.poisson.pinned import Prior
from ppnmf.poisson.sweep import Exposing, Story, Told, folded, known_rows, least, log_factorials, rows_of
from ppnmf.poisson.sweep import known as known_exposures
from ppnmf.protocols import Drawn, Matrix, Params, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["approximated", "divergence", "draws", "log_typical", "raised", "swept"]

LEAST = 1e-150  # of a geometric mean: the product of two is a normal number
AT_ONCE = 2**18  # entries of the draws that are made together


class Gammas(NamedTuple):
    """q of a factor, or of some of its rows: the mean, E[log ·], and the shape, of one size each."""

    mean: Tensor
    log: Tensor
    shape: Tensor

    @classmethod
    def of(cls, shape: Tensor, rate: Tensor) -> Gammas:
        return cls(shape / rate, torch.digamma(shape) - rate.log(), shape)

    @property
    def typical(self) -> Tensor:
        """The geometric mean."""
        return self.log.exp().clamp(min=LEAST)

    @property
    def turned(self) -> Gammas:
        return Gammas(*(values.mT for values in self))

    def knowing(self, known: Known | None) -> Gammas:
        """The same, where the known entries are their values; their shapes say nothing."""
        if known is None:
            return self
        own = known.on(self.mean.device)
        log = torch.where(own.at, own.values.clamp(min=LEAST).log(), self.log)
        return Gammas(own.put_into(self.mean), log, self.shape)

    def stretched(self, c: Tensor) -> Gammas:
        """q of c times the entries."""
        return Gammas(self.mean * c, self.log + c.log(), self.shape)


def of_factor(q: Params, site: str) -> Gammas:
    """What an approximation says of a factor."""
    return Gammas(q[site], q[f"{site}.log"], q[f"{site}.shape"])


def named(W: Gammas, H: Gammas) -> dict[str, Tensor]:
    """The approximation that says so of the factors."""
    return {
        f"{site}{part}": values
        for site, own in (("W", W), ("H", H))
        for part, values in zip(("", ".log", ".shape"), own, strict=True)
    }


def approximated(params: Params) -> dict[str, Tensor]:
    """The approximation that stands at given values, without any spread: the first sweep makes it one."""
    W, H = (params[site].double() for site in ("W", "H"))
    return named(*(Gammas(F, F.clamp(min=LEAST).log(), torch.zeros_like(F)) for F in (W, H)))


def swept(story: Story, X: Matrix, q: Params, number: int = 1) -> Swept:
    """So many sweeps of coordinate ascent: W, H, the scales. `log_likelihood` is E_q[log p(X, Z | W, H) - log q(Z)], (C, 1)."""
    for _ in range(number):
        W, H, told = _factors(story, X, of_factor(q, "W"), of_factor(q, "H"), known_exposures(story))
        fit = _log_typical(story, X, W, H) - (told.exposed * H.mean.mT).sum((-2, -1)) - log_factorials(X)
        q = named(*_balanced(story, X, W, H))
    return Swept(q, {}, fit[:, None])


def raised(story: Story, X: Matrix, q: Params, exposing: Exposing) -> dict[str, Tensor]:
    """An approximation of the factors after a sweep of them and of the scales, given the exposures of blocks."""
    W, H, _ = _factors(story, X, of_factor(q, "W"), of_factor(q, "H"), exposing)
    return named(*_balanced(story, X, W, H))


def log_typical(story: Story, X: Matrix, q: Params) -> Tensor:
    """Σ x log e Σ_k exp(E[log W] + E[log H]) - log x! over the counts, (C,): what the bound says of the allocations."""
    return _log_typical(story, X, of_factor(q, "W"), of_factor(q, "H")) - log_factorials(X)


def _factors(story: Story, X: Matrix, W: Gammas, H: Gammas, exposing: Exposing) -> tuple[Gammas, Gammas, Told]:
    """q(W), q(H), and what E[W] tells about H."""
    new = Gammas(*(torch.empty_like(W.mean, memory_format=torch.contiguous_format) for _ in Gammas._fields))
    mean, typical = H.mean.mT.contiguous(), H.typical.mT.contiguous()
    size, rate = story.prior("W").on(X.device)
    known = known_of(story.prior("W"))

    def of_block(rows: range, block: Any, group: slice) -> Told:
        own, counts = slice(rows.start, rows.stop), counts_of(block, group)
        e = exposing(rows, block, group, counts, W.mean[group, own], mean[group], None)
        shares = expected(counts, W.typical[group, own].contiguous(), typical[group], columns=False)
        found = Gammas.of(
            rows_of(size, own) + shares.of_rows,
            (rows_of(rate, own) + e.over_columns(mean[group])).expand(shares.of_rows.shape),
        ).knowing(known_rows(known, own))
        for values, part in zip(new, found, strict=True):
            values[group, own] = part
        e = exposing(rows, block, group, counts, found.mean, mean[group], None)
        return Told(expected(counts, found.typical.contiguous(), typical[group]).of_columns, e.over_rows(found.mean))

    with single_threaded():
        told = folded(X, W.mean, of_block)
        size_H, rate_H = (values.mT for values in story.prior("H").on(X.device))
        shape = size_H + told.shares
        H = Gammas.of(shape, (rate_H + told.exposed).expand(shape.shape)).turned
        return new, H.knowing(known_of(story.prior("H"))), told


def _log_typical(story: Story, X: Matrix, W: Gammas, H: Gammas) -> Tensor:
    """Σ x log e Σ_k exp(E[log W] + E[log H]) over the counts, (C,)."""
    typical = H.typical.mT.contiguous()

    def of_block(rows: range, block: Any, group: slice) -> Told:
        counts = counts_of(block, group)
        known = exposed(block, rows, story.exposures).of_counts(counts)
        found = log_means(counts, W.typical[group, rows.start : rows.stop].contiguous(), typical[group], known)
        return Told(found, torch.zeros_like(found))

    with single_threaded():
        return folded(X, W.mean, of_block).shares


def _balanced(story: Story, X: Matrix, W: Gammas, H: Gammas) -> tuple[Gammas, Gammas]:
    """W_k ← c W_k, H_k ← H_k / c in distribution, at the c that the bound is greatest at: only the priors' part changes.

    By (Σ a_W - Σ a_H) log c - c Σ b_W E[W] - Σ b_H E[H] / c, the log density of `scale`'s move less log c.
    """
    c = scale.greatest(scale.sums(story.prior, X, W.mean, H.mean))
    return W.stretched(c[:, None, :]), H.stretched(1 / c[:, :, None])


def divergence(story: Story, X: Matrix, q: Params) -> Tensor:
    """KL(q || p) of W and H, (C,), float64."""
    of_W = _divergence(of_factor(q, "W"), story.prior("W"))
    return X.add_up(of_W) + _divergence(of_factor(q, "H"), story.prior("H"))


def _divergence(q: Gammas, prior: Any) -> Tensor:
    a, b = prior.on(q.mean.device)
    own, rate = q.shape, q.shape / q.mean
    shapes = (own - a) * torch.digamma(own) - torch.lgamma(own) + torch.lgamma(a)
    return learned(prior, shapes + a * (rate / b).log() + q.mean * b - own).sum((-2, -1))


def draws(prior: Prior, q: Params, n: int, stream: Stream, dtype: torch.dtype) -> Drawn:
    """n independent draws of W and H from one approximation (its axis C is 1), and log q of each: of what is not known."""
    W, H = of_factor(q, "W"), of_factor(q, "H").turned
    both = Gammas(*(torch.cat(parts, 1)[0] for parts in zip(W, H, strict=True)))  # (N + D, K)
    known = _of_both(prior, both.mean, W.mean.shape[1])
    rate = both.shape / both.mean
    learns = torch.ones_like(rate, dtype=torch.bool) if known is None else ~known.at
    constant = (both.shape * rate.log() - torch.lgamma(both.shape))[learns].sum()
    rate = torch.where(learns, rate, 1.0)
    lot = max(1, AT_ONCE // both.mean.numel())
    found = []
    for first in range(0, n, lot):
        several = min(lot, n - first)
        place = Place(stream, 0, first * len(rate))
        shapes = both.shape.repeat(several, 1)[None]
        rates = rate.repeat(several, 1)[None]
        found.append(
            gamma_draws(shapes, rates, place, Site.GUIDE, max(LEAST, least(dtype))).reshape(several, *rate.shape)
        )
    drawn = torch.cat(found)
    each = (both.shape - 1) * drawn.log() - rate * drawn
    logs = constant + torch.where(learns, each, 0.0).sum((-2, -1))
    own_W, own_H = put_into(known, drawn).to(dtype).split([W.mean.shape[1], H.mean.shape[1]], 1)
    return Drawn({"W": own_W, "H": own_H.mT.contiguous()}, logs)


def _of_both(prior: Prior, like: Tensor, rows: int) -> Known | None:
    """What is known of W (N, K) and below it of Hᵀ (D, K), N = `rows`; None where nothing is."""
    known_W, known_H = known_of(prior("W")), known_of(prior("H"))
    if known_W is None and known_H is None:
        return None
    values, at = torch.zeros_like(like), torch.zeros_like(like, dtype=torch.bool)
    for known, own in ((known_W, slice(0, rows)), (known_H and known_H.turned, slice(rows, None))):
        if known is not None:
            values[own] = known.values.to(like)
            at[own] = known.at.to(like.device)
    return Known(values, at)
