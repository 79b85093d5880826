r"""From a fitted reference to the posterior of counts, along densities that have exact sweeps.

.. math:: \pi_\beta(\theta) \propto [p(X \mid \theta) \, p(\theta)]^\beta \, r(\theta)^{1 - \beta},
   \quad r = \prod_{ik} \mathrm{Gamma}(W_{ik}) \prod_{kj} \mathrm{Gamma}(H_{kj})

Gammas are closed under products and powers: with the prior's (a, b) and the reference's (a_r, b_r) an entry has under π_β the
"prior" Gamma(β a + (1 - β) a_r, β b + (1 - β) b_r), and the likelihood to the power β, for which `metropolis` has sweeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.data.sparse import Sparse
from ppnmf.distributions.moments import matched_gammas
from ppnmf.poisson import metropolis, start, sweep
from ppnmf.poisson.allocation import is_compiled
from ppnmf.poisson.pinned import Pinned
from ppnmf.poisson.sweep import Story
from ppnmf.priors import Gamma
from ppnmf.protocols import Address, Matrix, Params, Sweeps, Swept
from ppnmf.rng import Stream

__all__ = ["Fitted", "between", "classes", "fitted", "matched", "swept"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """r(θ): independent gammas for the entries of W (N, K) and H (K, D)."""

    W: Gamma
    H: Gamma

    def prior(self, site: str) -> Gamma:
        """That of "W" or of "H"."""
        return self.W if site == "W" else self.H

    def draws(self, X: Matrix, stream: Stream) -> dict[str, Tensor]:
        """Independent ones, a key of the stream each: W (C, N, K), H (C, K, D)."""
        story = Story(self.prior, torch.ones(1, 1, dtype=torch.float64))
        return start.begin(story, self.W.size.shape[1], X, stream, "prior")

    def log_prob(self, params: Params) -> Tensor:
        """log r(θ), (C,), float64."""
        (N, K), D = self.W.size.shape, self.H.size.shape[1]
        constant = self.W.log_constant((N, K)) + self.H.log_constant((K, D))
        return constant - self.W.energy(params["W"]) - self.H.energy(params["H"])

    def log_places(self, params: Params) -> Tensor:
        """Log density of component k under what r says of component l, (C, K, K), on the CPU."""
        of_H = Gamma(self.H.size.mT, self.H.rate.mT)
        return _log_places(params["W"], self.W) + _log_places(params["H"].mT, of_H)


def _log_places(F: Tensor, prior: Gamma) -> Tensor:
    """Of a factor F (C, R, K) with its rows leading, and so its prior's, (C, K, K)."""
    F = F.double().cpu()
    size, rate = prior.on(F.device)
    constant = (size * rate.log() - torch.lgamma(size)).sum(0)
    return constant + F.log().mT @ (size - 1) - F.mT @ rate


def fitted(draws: Params, width: float) -> Fitted:
    """A reference with the moments of draws W (S, N, K), H (S, K, D) whose components have one order, variances times `width`."""
    return Fitted(*(matched(draws[site].double().cpu(), width) for site in ("W", "H")))


def matched(draws: Tensor, width: float) -> Gamma:
    """Gammas with the means of draws (S, *entries), and their variances times `width`."""
    return Gamma(*matched_gammas(draws, width, math.inf))


def classes(story: Story, rank: int) -> list[int]:
    """For each component the first one with its priors in W and in H: the posterior is symmetric among equals."""
    tables = [values.mT.expand(rank, -1) for values in story.prior("W").on(torch.device("cpu"))]
    tables += [values.expand(rank, -1) for values in story.prior("H").on(torch.device("cpu"))]
    keys = torch.cat(tables, 1)
    return [next(m for m in range(k + 1) if torch.equal(keys[m], keys[k])) for k in range(rank)]


def between(story: Story, reference: Fitted, power: float) -> Story:
    """What stands for the priors under π_β, β = `power`: r at 0, the model's own at 1."""

    mixed = {site: _mixed(story.prior(site), reference.prior(site), power) for site in ("W", "H")}
    return Story(mixed.__getitem__, story.exposures)


def _mixed(ours: Gamma | Pinned, theirs: Gamma, power: float) -> Gamma:
    pairs = zip(ours.on(torch.device("cpu")), theirs.on(torch.device("cpu")), strict=True)
    return Gamma(*(power * own + (1 - power) * other for own, other in pairs))


def swept(story: Story, reference: Fitted, X: Matrix, params: Params, asked: Sweeps, at: Address | None) -> Swept:
    """Sweeps that leave π_β as it is, β = `asked.power`; log_likelihood is log p(X | θ).

    Raises:
        ValueError: X is not in memory on the CPU, in one process.
    """
    if at is None or not isinstance(X, Dense | Sparse) or not is_compiled(params["W"]):
        raise ValueError("stepping stones of counts need X in memory on the CPU, in one process, and compiled kernels")
    mixed = between(story, reference, asked.power)
    draws: list[Params] = []
    fits: list[Tensor] = []
    for s in range(asked.number):
        params = metropolis.swept(mixed, X, params, Address(at.stream, at.step + s), asked.power, asked.moves)
        if s in asked.kept:
            draws.append(params)
            fits.append(sweep.log_likelihood(story, X, params))
    return sweep.gathered(params, draws, fits, X)
