r"""Proofs that a sampler is right, which need no second sampler: Geweke's joint test and simulation-based calibration.

Both rest on one identity: parameters drawn from the prior, data drawn given them, and parameters drawn again from the
posterior given those data follow the prior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from ppnmf.data.folded import Folded
from ppnmf.data.matrix import Dense
from ppnmf.inference.gibbs import State
from ppnmf.inference.gibbs import step as gibbs_step
from ppnmf.posterior import Posterior
from ppnmf.protocols import Params, Sweeping
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["SBC", "Geweke", "SideBySide", "data_draws", "geweke", "moments", "quantities", "sbc"]

Step = Callable[[Sweeping, State, Any, Stream], tuple[State, Any]]  # (model, state, X, stream) -> (state, ...)
Fit = Callable[[Sweeping, Any, int], Posterior]  # (model, X, seed) -> posterior
# (model, params of S draws, X (S, N, D), mask) -> name -> one value, vector or matrix a draw, (S, *any)
Functions = Callable[[Sweeping, Params, Tensor, Tensor | None], dict[str, Tensor]]

CHAIN, PRIOR, DATA, RANKS = range(4)  # replicates: what the streams of a seed are used for
ROUNDING = 1e-12
BATCHES = 50  # at least so many stretches of chain from which an error is computed
REFERENCE = 100_000  # independent draws of the joint distribution, whose error is small beside a chain's


@dataclass(frozen=True)
class Geweke:
    """Means along the chain beside those of the joint distribution; `errors` are of their differences."""

    names: tuple[str, ...]
    means: Tensor  # (M,), float64, as are the others
    expected: Tensor
    errors: Tensor
    batches: int

    @property
    def z(self) -> dict[str, float]:
        """How many errors each mean is off; what is known, and so the same in all draws, may be off by rounding."""
        off = self.means - self.expected
        off = torch.where(off.abs() <= ROUNDING * self.expected.abs(), torch.zeros_like(off), off)
        errors = self.errors.clamp(min=torch.finfo(torch.float64).tiny)
        return dict(zip(self.names, (off / errors).tolist(), strict=True))

    @property
    def worst(self) -> tuple[str, float]:
        """The function that is furthest off, and its z."""
        return max(self.z.items(), key=lambda item: abs(item[1]))

    @property
    def p_value(self) -> float:
        """Bound on the chance that a right sampler is this far off anywhere: Student's tail times the number of means."""
        return min(1.0, len(self.names) * 2 * float(stats.t(self.batches - 1).sf(abs(self.worst[1]))))


@own_settings()
def geweke(
    model: Sweeping,
    shape: tuple[int, int],
    step: Step = gibbs_step,
    sweeps: int = 20_000,
    seed: int = 0,
    statistics: Functions | None = None,
    mask: Tensor | None = None,
    chains: int = 1,
) -> Geweke:
    """Alternate X | W, H, σ² and one sweep: if the sweep is right, the chain keeps the joint distribution it starts in.

    Its means, with errors by batch means, are compared with those of independent draws of the joint distribution.

    Args:
        model: with rates and noise that let a misplaced one show: unequal per entry, and E σ² far from 1.
        shape: (N, D), a few by a few.
        step: one sweep.
        sweeps: of each chain.
        statistics: what to average; `moments` by default.
        mask: boolean (N, D), True where observed.
        chains: independent ones, much faster side by side; `step` must then take an X for each (`SideBySide`).

    Raises:
        ValueError: fewer than two sweeps in a batch.

    References: Geweke (2004), "Getting it right", doi:10.1198/016214504000001132.
    """
    batches = chains * -(-BATCHES // chains)
    if chains < 1 or sweeps * chains < 2 * batches:
        raise ValueError(f"{chains} chain(s) of {sweeps} sweeps are too few; {2 * batches} sweeps in all are the least")
    functions = statistics or moments
    own, for_data = Stream.of(seed, chains, replicates=(CHAIN,)), Stream.of(seed, replicates=(DATA,))
    params: Params = model.prior_draws(shape, chains, Stream.of(seed, replicates=(PRIOR,)))
    visited, data = [], []
    for s in range(1, sweeps + 1):
        X = data_draws(model, params, for_data, s)
        params = step(model, State(params, s), _matrix(X, mask), own)[0].params
        visited.append(params)
        data.append(X)  # X and the parameters drawn given it follow the joint distribution too
    chain = {site: torch.stack([each[site] for each in visited], 1).flatten(0, 1) for site in params}
    found = functions(model, chain, torch.stack(data, 1).flatten(0, 1), mask)
    independent = model.prior_draws(shape, REFERENCE, Stream.of(seed + 1, replicates=(PRIOR,)))
    its_data = data_draws(model, independent, Stream.of(seed + 1, replicates=(DATA,)), 0)
    means, variances = _averaged(found, batches)
    expected, known = _averaged(functions(model, independent, its_data, mask), 1000)
    return Geweke(_names(found), means, expected, (variances + known).sqrt(), batches)


@dataclass(frozen=True, eq=False)
class SideBySide(Folded):
    """A `Matrix` with an X of its own for each chain: small ones, all of the same shape and mask."""

    each: tuple[Dense, ...]

    shape = property(lambda self: self.each[0].shape)
    dtype = property(lambda self: self.each[0].dtype)
    device = property(lambda self: self.each[0].device)
    n_observed = property(lambda self: self.each[0].n_observed)
    log_noise = property(lambda self: self.each[0].log_noise)
    uneven = property(lambda self: self.each[0].uneven)
    blocks = property(lambda self: self.each[0].blocks)

    @cached_property
    def sum_of_squares(self) -> Tensor:
        with single_threaded():  # once, for to tell the libraries takes longer than a small sum
            squares = [X.sum_of_squares for X in self.each]
        return torch.tensor(squares, dtype=torch.float64, device=self.device)

    @cached_property
    def stacked(self) -> Dense:
        return Dense(torch.stack([X.values for X in self.each]), self.each[0].mask)

    @property
    def plain(self) -> Tensor | None:
        return self.stacked.values if self.each[0].plain is not None else None

    @property
    def masked(self) -> tuple[Tensor, Tensor] | None:
        own = self.each[0].masked
        return None if own is None else (self.stacked.values, own[1])

    def of_chain(self, c: int) -> Dense:
        return self.each[c]

    def block(self, rows: range) -> Dense:
        return self.stacked.block(rows)


@dataclass(frozen=True)
class SBC:
    """Ranks of true values among posterior draws, made continuous: `ranks[name]` (simulations,) is uniform on (0, 1)."""

    ranks: dict[str, Tensor]
    draws: int

    @property
    def p_values(self) -> dict[str, float]:
        """Of each quantity's ranks, by Kolmogorov and Smirnov's test of uniformity, which is exact here."""
        return {name: float(stats.kstest(ranks.numpy(), "uniform").pvalue) for name, ranks in self.ranks.items()}

    def uniformity(self, method: str = "pot_c") -> dict[str, float]:
        """p-values of ArviZ's tests of uniformity, which see a few ranks too many at an end where Kolmogorov's does not.

        Args:
            method: "pot_c", "prit_c" or "piet_c".

        Raises:
            NotImplementedError: the installed ArviZ has no such test.
        """
        from arviz_stats.base import array_stats

        if not hasattr(array_stats, "uniformity_test"):
            raise NotImplementedError(
                "tests of uniformity came with ArviZ 1 (Python 3.12 and later), and an older one is installed: take p_values"
            )
        tested = {name: array_stats.uniformity_test(ranks.numpy(), method=method) for name, ranks in self.ranks.items()}
        return {name: float(found[0]) for name, found in tested.items()}

    @property
    def worst(self) -> tuple[str, float]:
        """The least uniform quantity, and its p-value."""
        return min(self.p_values.items(), key=lambda item: item[1])

    @property
    def p_value(self) -> float:
        """Bound on the chance that a right method looks this bad anywhere (Bonferroni)."""
        return min(1.0, len(self.ranks) * self.worst[1])


@own_settings()
def sbc(
    model: Sweeping,
    shape: tuple[int, int],
    fit: Fit,
    simulations: int = 200,
    seed: int = 0,
    statistics: Functions | None = None,
    mask: Tensor | None = None,
    at_once: int = 1,
) -> SBC:
    """Simulation-based calibration: ranks of the truth among posterior draws, over data sets drawn from the model.

    Args:
        shape: (N, D).
        fit: (model, X, seed) -> Posterior; thin its draws until they are nearly independent.
        statistics: what to rank; `quantities` by default. A mistake in the noise shows in sigma2 and the log likelihood
            alone.
        mask: boolean (N, D), True where observed.
        at_once: data sets in a call of `fit`; with more than one, X is a `SideBySide`, each has one chain, and chains can
            start from the prior alone.

    Raises:
        ValueError: the number of simulations is not a multiple of `at_once`.

    References: Talts, Betancourt, Simpson, Vehtari, Gelman (2018), arXiv:1804.06788; Modrák et al. (2023),
        doi:10.1214/23-BA1404, on why the log likelihood belongs among the quantities.
    """
    if simulations < 1 or at_once < 1 or simulations % at_once:
        raise ValueError(f"{simulations} simulations cannot be done {at_once} at once: give a multiple of it")
    functions = statistics or quantities
    truth = model.prior_draws(shape, simulations, Stream.of(seed, replicates=(PRIOR,)))
    X = data_draws(model, truth, Stream.of(seed, replicates=(DATA,)), 0)
    own = functions(model, truth, X, mask)
    ranks: list[dict[str, Tensor]] = []
    ties: list[dict[str, Tensor]] = []
    draws = 0
    for s in range(0, simulations, at_once):
        post = fit(model, _matrix(X[s : s + at_once], mask), seed + 1 + s)
        for offset in range(at_once):
            chains = slice(None) if at_once == 1 else slice(offset, offset + 1)
            drawn = {site: values[chains].flatten(0, 1) for site, values in post.draws.items()}
            draws = len(next(iter(drawn.values())))
            others = functions(model, drawn, X[s + offset].expand(draws, *shape), mask)
            ranks.append({name: (others[name] < value[s + offset]).sum(0) for name, value in own.items()})
            ties.append({name: (others[name] == value[s + offset]).sum(0) for name, value in own.items()})
    jitter = Stream.of(seed, replicates=(RANKS,)).uniforms(0, Site.DATA, range(simulations), 1)[0]
    below, equal = (
        torch.cat([_flat(torch.stack([one[name] for one in each])) for name in own], -1) for each in (ranks, ties)
    )
    places = (below + jitter * (1 + equal)) / (
        draws + 1
    )  # among draws that are equal to the truth, any place is as likely
    return SBC(dict(zip(_names(own), places.unbind(-1), strict=True)), draws)


def moments(model: Sweeping, params: Params, X: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """First and second moments of the factors, W @ H, the log likelihood, and log s and 1 / s of every other site s; of one that
    is a matrix, as of a factor.

    (σ² has heavy tails, so its own moments are not among them.)
    """
    W, H = model.factors(params)
    others = _others(model, params, X)
    matrices = {site: others.pop(site) for site in list(others) if others[site].ndim == 3}
    return {
        **matrices,
        **{f"{site}²": values.square() for site, values in matrices.items()},
        "W": W,
        "H": H,
        "W²": W.square(),
        "H²": H.square(),
        "WH": W @ H,
        **{f"log {site}": values.log() for site, values in others.items()},
        **{f"1 / {site}": 1 / values for site, values in others.items()},
        "log likelihood": _log_likelihood(model, params, X, mask),
    }


def quantities(model: Sweeping, params: Params, X: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """σ² or what other sites there are, the log likelihood, and the entries of W, H and W @ H."""
    W, H = model.factors(params)
    log_likelihood = _log_likelihood(model, params, X, mask)
    return {**_others(model, params, X), "log likelihood": log_likelihood, "W": W, "H": H, "WH": W @ H}


def _others(model: Sweeping, params: Params, X: Tensor) -> dict[str, Tensor]:
    """The sites that neither rows nor columns of X have one each of."""
    sites = model.sites(X.shape[-2], X.shape[-1])
    return {site: params[site] for site, dims in sites.items() if not {"row", "column"} & set(dims)}


def data_draws(model: Sweeping, params: Params, stream: Stream, step: int) -> Tensor:
    """One X for each of S draws of the parameters, shape (S, N, D)."""
    likelihood = model.likelihood(params)
    S, N, D = likelihood.batch_shape
    return likelihood.icdf(stream.uniforms(step, Site.DATA, range(S * N), D)[0].reshape(S, N, D))


def _log_likelihood(model: Sweeping, params: Params, X: Tensor, mask: Tensor | None) -> Tensor:
    every = model.likelihood(params).log_prob(X)
    return (every if mask is None else every * mask).sum((-2, -1))


def _matrix(X: Tensor, mask: Tensor | None) -> Dense | SideBySide:
    each = tuple(_dense(own, mask) for own in X)
    return each[0] if len(each) == 1 else SideBySide(each)


def _dense(X: Tensor, mask: Tensor | None) -> Dense:
    return Dense(X if mask is None else torch.where(mask, X, torch.zeros_like(X)), mask)


def _averaged(values: dict[str, Tensor], batches: int) -> tuple[Tensor, Tensor]:
    """Means, and the variances of the means from those of batches."""
    flat = torch.cat([_flat(value) for value in values.values()], -1)
    size = len(flat) // batches
    of_batches = flat[: size * batches].unflatten(0, (batches, size)).mean(1)
    return of_batches.mean(0), of_batches.var(0) / batches


def _names(values: dict[str, Tensor]) -> tuple[str, ...]:
    return tuple(label for name, value in values.items() for label in _labels(name, value))


def _flat(values: Tensor) -> Tensor:
    return values.double().reshape(len(values), -1)


def _labels(name: str, values: Tensor) -> list[str]:
    if values.ndim == 1:
        return [name]
    return [f"{name}[{', '.join(map(str, at))}]" for at in product(*(range(size) for size in values.shape[1:]))]
