r"""The Kullback-Leibler divergence of counts from their means, and the multiplicative updates that lower it (Lee and Seung 2001).

.. math:: D = \sum_{ij} x_{ij} \log \frac{x_{ij}}{m_{ij}} - x_{ij} + m_{ij}, \quad m = e \, (W H),

over the observed entries, where 0 log 0 = 0: minus the log likelihood of Poisson counts, but for what is the same for all
means. An update is a sweep of modes under flat priors, W_ik ← W_ik Σ_j (x_ij / (WH)_ij) H_kj / Σ_j e_ij H_kj. Only means of
positive counts are divided by; where such a mean or a divisor is zero, what it stands for is zero and stays so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.kernels import multiplied as compiled
from ppnmf.known import known_of
from ppnmf.poisson.allocation import counts_of, is_compiled
from ppnmf.poisson.exposures import mean_exposure
from ppnmf.poisson.pinned import flattened
from ppnmf.poisson.sweep import Story, Told, known, log_factorials, log_likelihood, modes_of_factors
from ppnmf.protocols import Lowered, Matrix, Params
from ppnmf.threads import ordered_map

__all__ = ["divergence", "multiplied", "unit"]

WHOLE = 2**20  # entries of X up to which a step is compiled whole
COST = 6.0  # operations that a component of a cell takes, about
ROUNDED = 1e-9  # of X's sum: a divergence below it is rounding


def multiplied(story: Story, X: Matrix, params: Params) -> Lowered:
    """W and then H by their updates, but for what is known; the loss is the divergence as a share of `unit`."""
    if _is_for_whole_steps(story, X, params):
        return _multiplied_whole(story, X, params)
    after, told = modes_of_factors(flattened(story.prior), X, params, known(story))
    return Lowered(after, divergence(story, X, after, told) / unit(story, X))


def _is_for_whole_steps(story: Story, X: Matrix, params: Params) -> bool:
    """Whether X is complete, in memory and not large, mostly above zero, and nothing of the factors is known."""
    if not isinstance(X, Dense) or X.mask is not None or X.values.ndim != 2 or not is_compiled(params["W"]):
        return False
    whole = 1 in story.exposures.shape and X.values.numel() <= WHOLE and counts_of(X).dense is not None
    return whole and all(known_of(story.prior(site)) is None for site in ("W", "H"))


def _multiplied_whole(story: Story, X: Matrix, params: Params) -> Lowered:
    """The same by `kernels.multiplied`, a chain at a time."""
    x, (N, D) = counts_of(X).dense, X.shape
    assert x is not None
    W, H = (params[site].double().contiguous() for site in ("W", "H"))
    new_W, new_H, fits = torch.empty_like(W), torch.empty_like(H), W.new_empty(len(W))
    e = story.exposures
    along_rows = len(e) > 1
    rows = e[:, 0].contiguous() if along_rows else e.new_ones(N)
    columns = e.new_ones(D) if along_rows else e[0].expand(D).contiguous()
    shared = x.numpy(), rows.numpy(), columns.numpy()

    def of_chain(c: int) -> None:
        own = W[c].numpy(), H[c].numpy(), *shared[1:]
        fits[c] = compiled.multiplied(shared[0], *own, new_W[c].numpy(), new_H[c].numpy())

    ordered_map(of_chain, range(len(W)), COST * W[0].numel() * D)
    loss = _greatest(X) - (fits - log_factorials(X))
    after = {**params, "W": new_W.to(params["W"].dtype), "H": new_H.to(params["H"].dtype)}
    return Lowered(after, loss / unit(story, X))


def divergence(story: Story, X: Matrix, params: Params, told: Told | None = None) -> Tensor:
    """D of W (C, N, K) and H (C, K, D), (C,), float64.

    Args:
        told: of the same W, where it is known.
    """
    return _greatest(X) - log_likelihood(story, X, params, told)


def unit(story: Story, X: Matrix) -> float:
    """D of means that are in proportion to the exposures, with X's sum; 1 where that is zero."""
    kept: dict[str, tuple[Tensor, float]] = X.kept
    if "divergence" not in kept or kept["divergence"][0] is not story.exposures:
        size = X.mean() / mean_exposure(X, story.exposures)
        ones = torch.ones(1, len(X.rows), 1, dtype=torch.float64, device=X.device)
        even = {"W": size * ones, "H": ones.new_ones(1, 1, X.shape[1])}
        found = float(divergence(story, X, even)[0])
        kept["divergence"] = story.exposures, found if found > ROUNDED * X.n_observed * X.mean() else 1.0
    return kept["divergence"][1]


def _greatest(X: Matrix) -> Tensor:
    """The log likelihood where every mean is its count, (1,); worked out once."""
    kept: dict[str, Tensor] = X.kept
    if "greatest log likelihood" not in kept:
        kept["greatest log likelihood"] = X.fold(lambda rows, block: _of_counts(counts_of(block).data))
    return kept["greatest log likelihood"]


def _of_counts(data: Tensor) -> Tensor:
    return (torch.xlogy(data, data) - data - torch.lgamma(data + 1)).sum()[None]
