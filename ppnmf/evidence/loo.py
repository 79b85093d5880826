r"""Leave-one-out predictive density of the entries, by Pareto-smoothed importance sampling from one Gibbs run.

.. math:: \sum_{ij} \log p(x_{ij} | X_{-ij})

Each term is a harmonic-like average of p(x_ij | draw) over the posterior of all of X; the weights 1 / p(x_ij | draw) can
have so heavy a tail that the average is not to be trusted. The fit of a Pareto distribution to that tail says where: a
k-hat above min(0.7, 1 - 1 / log10 S), S the number of draws, is a warning, with the share of such entries. An entry of W or
H that few entries of X inform is moved much by each of them, so this is common in factorisations; hold cells out instead
(`heldout`) where it happens. The sum then errs to the high side: on a 4 × 3 matrix with k-hats near 0.75, by 0.14 nats
with 160 000 draws.

On a large X a sample of entries, the same for each rank, stands for all; the sum is scaled up, and its error holds that
too. Draws are thinned, and never more than a block of entries is looked at together.

References: Vehtari, Gelman, Gabry (2017), doi:10.1007/s11222-016-9696-4; for the limit, Vehtari, Simpson, Gelman, Yao,
Gabry (2024), arXiv:1507.02646; for samples of entries, Magnusson et al. (2019), arXiv:1902.06504.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from arviz_stats.base import array_stats
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.data.matrix import Dense, in_memory
from ppnmf.evidence.estimate import priors_of
from ppnmf.evidence.score import Measure, error_of_sum
from ppnmf.inference import gibbs
from ppnmf.posterior import Posterior
from ppnmf.protocols import Matrix, Sweeping
from ppnmf.rng import Site, Stream

__all__ = ["run", "sampled"]

GOOD = 0.7  # k-hat, above which an entry's term is not to be trusted even with very many draws
AGREE = 1.01  # R-hat of the log joint
LEAST = 25  # draws, for a tail of five
AT_ONCE = 2**22  # log densities in memory
FOR_EFFICIENCY = 40  # entries from which the draws' relative efficiency is judged


def run(
    model: Sweeping,
    X: Matrix,
    *,
    draws: int = 250,
    warmup: int = 500,
    thin: int = 2,
    chains: int = 4,
    cells: int = 10_000,
    seed: int = 0,
    progress: bool = True,
) -> Measure:
    """PSIS-LOO of the observed entries, in nats; more is better.

    Ranks are compared entry by entry. attrs hold "share_bad", the share of entries whose k-hat is above the "limit", and
    "worst", the greatest.

    Args:
        model: offers full conditionals, with proper priors.
        X: data (N, D), in memory.
        draws, warmup, thin, chains: of the Gibbs run.
        cells: observed entries that are looked at, at most.

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count out of its range, an improper prior.
    """
    whole_numbers(draws=(draws, 1), chains=(chains, 1), cells=(cells, 2))
    if draws * chains < LEAST:
        raise ValueError(f"loo has {draws * chains} draws in all, and a tail takes {LEAST}: raise draws or chains")
    began, X = time.perf_counter(), in_memory(X, "loo")
    post = gibbs.run(model, X, draws=draws, warmup=warmup, thin=thin, chains=chains, seed=seed, progress=progress)
    rows, columns = sampled(X, cells, seed)
    terms, khat = _pointwise(post, X, rows, columns)
    scale = X.n_observed / len(terms)
    limit = min(GOOD, 1 - 1 / math.log10(draws * chains))
    bad, rhat = float((khat > limit).mean()), _rhat(post)
    return Measure(
        value=scale * float(terms.sum()),
        error=scale * error_of_sum(terms),
        label="LOO log predictive density (nats)",
        sign=1,
        method="loo",
        rank=model.rank,
        parts=tuple((scale * terms).tolist()),
        priors=priors_of(model),
        seconds=time.perf_counter() - began,
        warnings=_doubts(bad, limit, float(khat.max()), rhat),
        attrs={
            "share_bad": bad,
            "limit": limit,
            "worst": float(khat.max()),
            "rhat": rhat,
            "cells": len(terms),
            "seed": seed,
        },
    )


def sampled(X: Dense, cells: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of at most so many observed entries, taken at random, in the order in which they lie."""
    N, D = X.shape
    observed = torch.ones(X.shape, dtype=torch.bool) if X.mask is None else X.mask.cpu()
    at = observed.flatten().nonzero()[:, 0]
    if len(at) > cells:
        order = Stream.of(seed).uniforms(2, Site.FOLDS, range(N), D)[0].flatten()[at].argsort()
        at = at[order[:cells].sort().values]
    return at // D, at % D


def _pointwise(post: Posterior, X: Dense, rows: Tensor, columns: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Each entry's term, and its k-hat."""
    some = torch.linspace(0, len(rows) - 1, min(FOR_EFFICIENCY, len(rows))).long()
    efficiency = _efficiency(_log_densities(post, X, rows[some], columns[some]))
    size = max(1, AT_ONCE // (post.chains * post.n_draws))
    terms, khat = [], []
    for own_rows, own_columns in zip(rows.split(size), columns.split(size), strict=True):
        logs = _log_densities(post, X, own_rows, own_columns)
        own_terms, own_khat, _ = array_stats.loo(logs, chain_axis=0, draw_axis=1, r_eff=efficiency)
        terms.append(own_terms)
        khat.append(own_khat)
    return np.concatenate(terms), np.concatenate(khat)


def _log_densities(post: Posterior, X: Dense, rows: Tensor, columns: Tensor) -> np.ndarray:
    """log p(x | draw) of some entries, (chain, draw, entry)."""
    return post.log_likelihood_at(rows, columns).cpu().numpy()


def _efficiency(logs: np.ndarray) -> float:
    """Effective draws a draw, of the densities of some entries: their median, at most 1."""
    chains, draws, entries = logs.shape
    densities = np.exp(logs - logs.max((0, 1)))
    effective = [
        float(array_stats.ess(densities[..., m], chain_axis=0, draw_axis=1, method="mean")) for m in range(entries)
    ]
    return float(np.clip(np.nanmedian(effective) / (chains * draws), 1e-3, 1.0))


def _rhat(post: Posterior) -> float:
    return float(array_stats.rhat(post.stats["lp"].double().cpu().numpy(), chain_axis=0, draw_axis=1))


def _doubts(bad: float, limit: float, worst: float, rhat: float) -> tuple[str, ...]:
    doubts = []
    if bad > 0:
        doubts.append(
            f"{bad:.2%} of the entries have k-hat above {limit:.2g} (worst {worst:.2f}): hold cells out instead"
        )
    if math.isnan(rhat):
        doubts.append("there are too few draws to tell whether the chains agree; take more")
    elif rhat > AGREE:
        doubts.append(f"the chains do not agree: R-hat of lp is {rhat:.3f}; take more warmup and draws")
    return tuple(doubts)
