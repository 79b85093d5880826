r"""Variational Bayes for counts that vary more than Poisson ones: q = q(φ) Π q(g_ij | φ) · Π q(W_ik) · Π q(H_kj) · Π q(Z_ij).

The factors' part is that of `moments`, with exposures e E[g]. Given it the best q(g_ij | φ) is Gamma(φ + x_ij, φ + m_ij),
m = e E[W] E[H], and with that integrated out the best q(φ) is in proportion to

.. math:: p(\phi) \prod_{ij} \frac{\Gamma(\phi + x_{ij}) \, \phi^\phi}{\Gamma(\phi) \, (\phi + m_{ij})^{\phi + x_{ij}}},

whose integral takes the place of -Σ m in the bound. It and the means E[g_ij] = E[(φ + x_ij) / (φ + m_ij)] are taken by the
trapezoidal rule in log φ, which errs far less than a sweep gains: so the bound is exact, and no step lowers it.

An approximation has, beside those of `moments`, "dispersion", the mean of φ (C,), and q(φ) as "dispersion.log" (C, M), where log φ
is looked at, and "dispersion.weight" (C, M), how much of q(φ) is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.poisson import moments
from ppnmf.poisson.allocation import Counts, Place, counts_of
from ppnmf.poisson.exposures import Entries
from ppnmf.poisson.overdispersion import SITE, DispersionPrior, formed
from ppnmf.poisson.sweep import Story
from ppnmf.protocols import Drawn, Matrix, Params, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["approximated", "draws", "swept"]

STEP = 0.6  # standard deviations of log φ between the nodes
NODES = torch.arange(-14.0, 8.0, STEP, dtype=torch.float64)  # below the mode the density falls more slowly
FINER = 8  # times as many nodes for draws
LOOKS = 40  # for where q(φ) is, at most
NEAR, ALIKE = 1.0, 1.3  # of the nodes' middle, in standard deviations, and of their spacing: they are then taken
LEAST = 1e-16  # of q(φ): a node with less is passed over
COST = 10.0  # operations that a node takes in a cell, about


class Dispersion(NamedTuple):
    """q(φ) on M nodes, for C approximations, float64."""

    log: Tensor  # log φ, (C, M)
    log_density: Tensor  # of log φ, (C, M)
    log_mass: Tensor  # log of the density's integral before it was made one, (C,)

    @property
    def weight(self) -> Tensor:
        """Of the nodes, (C, M)."""
        return self.log_density.softmax(-1)

    @property
    def middle(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of log φ, (C,)."""
        return _middle(self.log, self.weight)


def approximated(params: Params) -> dict[str, Tensor]:
    """The approximation that stands at given values, without any spread."""
    log = params[SITE].double().log()[:, None].expand(-1, len(NODES)).contiguous()
    weight = torch.full_like(log, 1 / len(NODES))
    return {**moments.approximated(params), SITE: params[SITE].double(), f"{SITE}.log": log, f"{SITE}.weight": weight}


def swept(story: Story, prior: DispersionPrior, X: Matrix, q: Params, number: int = 1) -> Swept:
    """So many sweeps: W, H, the scales, and φ with g; `log_likelihood` is the bound but for the divergence of W and H, (C, 1)."""
    for _ in range(number):
        log, weight = q[f"{SITE}.log"], q[f"{SITE}.weight"]
        factors = moments.raised(story, X, q, expected(log, weight, story.exposures))
        found = _dispersion(prior, X, factors, story.exposures, _middle(log, weight))
        fit = moments.log_typical(story, X, factors) + found.log_mass
        mean = (found.weight * found.log.exp()).sum(-1)
        q = {**factors, SITE: mean, f"{SITE}.log": found.log, f"{SITE}.weight": found.weight}
    return Swept(q, {}, fit[:, None])


def expected(log: Tensor, weight: Tensor, e: Tensor) -> Callable[..., Entries]:
    """What gives the exposures e E[g] of a block, q(φ) having these nodes (C, M)."""

    def of_block(
        rows: range, block: Any, chains: slice, counts: Counts, W: Tensor, Ht: Tensor, place: Place | None
    ) -> Entries:
        cells = formed(block, rows, chains, W, Ht, e)
        g = torch.zeros_like(cells.mean)
        for own, share in zip(log[chains].exp().unbind(-1), weight[chains].unbind(-1), strict=True):
            if bool((share > LEAST).any()):
                phi = own[:, None, None]
                g += share[:, None, None] * (phi + cells.x) / (phi + cells.mean)
        weights = cells.e * g
        return Entries(weights if cells.seen is None else weights * cells.seen)

    return of_block


def _dispersion(
    prior: DispersionPrior, X: Matrix, factors: Params, e: Tensor, begun: tuple[Tensor, Tensor], finer: int = 1
) -> Dispersion:
    """q(φ) at its best, looked for about where it was: a mean and a standard deviation of log φ (C,)."""
    centre, width = begun
    width = torch.where(width > 1e-12, width, 1.0)
    for _ in range(LOOKS):
        found = _about(prior, X, factors, e, centre, width, 1)
        mean, deviation = found.middle
        moved, turned = (mean - centre).abs() / width, deviation / width
        if bool(((moved < NEAR) & (turned < ALIKE) & (turned > 1 / ALIKE)).all()):
            break
        centre, width = mean, deviation.clamp(min=0.2 * width)
    return found if finer == 1 else _about(prior, X, factors, e, centre, width, finer)


def _about(
    prior: DispersionPrior, X: Matrix, factors: Params, e: Tensor, centre: Tensor, width: Tensor, finer: int
) -> Dispersion:
    """q(φ) on nodes about a middle."""
    nodes = torch.arange(len(NODES) * finer).to(width) * (STEP / finer) + float(NODES[0])
    log = centre[:, None] + width[:, None] * nodes
    phi = log.exp()
    logs = prior.log_prob(phi) + log + log_masses(X, factors, e, phi)
    total = logs.logsumexp(-1) + (width * STEP / finer).log()
    return Dispersion(log, logs - total[:, None], total)


def log_masses(X: Matrix, factors: Params, e: Tensor, phi: Tensor) -> Tensor:
    """Log of ∫ Π g^x e^(-g m) p(g | φ) dg over the observed cells, at φ (C, M), float64."""
    W, Ht = factors["W"].double(), factors["H"].mT.double()

    def of_block(rows: range, block: Any) -> Tensor:
        cells = formed(block, rows, slice(None), W[:, rows.start : rows.stop], Ht, e)
        values, numbers = _histogram(block)
        each = []
        for own in phi.unbind(-1):
            wide = own[:, None, None]
            falls = (cells.x + wide) * torch.log1p(cells.mean / wide)
            seen = falls if cells.seen is None else falls * cells.seen
            ways = torch.lgamma(values + own[:, None]) - torch.lgamma(own)[:, None] - values * own.log()[:, None]
            each.append((numbers * ways).sum(-1) - seen.sum((-2, -1)))
        return torch.stack(each, -1)

    with single_threaded():
        return X.fold(of_block, COST * W.shape[0] * phi.shape[1] * W.shape[1] * X.shape[1])


def _histogram(block: Any) -> tuple[Tensor, Tensor]:
    """The different counts above zero of a block, and how many there are of each; kept with it."""
    if "histogram" not in block.kept:
        values, numbers = counts_of(block).data.unique(return_counts=True)
        block.kept["histogram"] = values, numbers.double()
    found: tuple[Tensor, Tensor] = block.kept["histogram"]
    return found


def _middle(log: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weight * log).sum(-1)
    return mean, (weight * (log - mean[:, None]).square()).sum(-1).sqrt()


def draws(story: Story, prior: DispersionPrior, X: Matrix, q: Params, n: int, stream: Stream) -> Drawn:
    """n independent draws of W, H and φ from one approximation (its axis C is 1), and log q of each.

    Between fine nodes the density of log φ is taken as linear, and that is the one whose logarithm is given.
    """
    of_factors = moments.draws(story.prior, q, n, stream, X.dtype)
    begun = _middle(q[f"{SITE}.log"], q[f"{SITE}.weight"])
    found = _dispersion(prior, X, q, story.exposures, begun, FINER)
    log, density = found.log[0], found.log_density[0].exp()
    step = log[1] - log[0]
    below = torch.cat([density.new_zeros(1), (0.5 * (density[1:] + density[:-1])).cumsum(0)])
    u = stream.uniforms(0, Site.DISPERSION, range(n), 1, density.device)[0, :, 0].double()
    at = torch.searchsorted(below, u * below[-1]).clamp(1, len(below) - 1) - 1
    low, high = density[at], density[at + 1]
    over = u * below[-1] - below[at]
    share = 2 * over / (low + (low.square() + 2 * (high - low) * over).clamp(min=0).sqrt())
    share = share.clamp(0, 1)
    y = log[at] + share * step
    log_q = (low + share * (high - low)).log() - (below[-1] * step).log() - y  # of φ, and not of log φ
    return Drawn({**of_factors.params, SITE: y.exp().to(X.dtype)}, of_factors.log_density + log_q)
