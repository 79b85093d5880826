r"""A noise variance a column: X_ij ~ Normal((W H)_ij, σ²_j), σ²_j ~ InverseGamma(α, θ).

Given the variances, every statistic is the ordinary one with H / σ²_j in place of H where X multiplies it, and H / σ_j where H
makes Gram matrices; H's own rows each see theirs over σ²_j. Then, n_j entries of column j being observed,

.. math:: \sigma^2_j \mid W, H \sim InverseGamma(\alpha + \beta n_j / 2,\; \theta + \beta SSE_j / 2).

Where n_j is small beside the number of components a column can be fitted exactly, and its variance then goes where the prior
lets it: θ is more than a formality here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.gaussian import restricted, ridge, start, statistics, sweep
from ppnmf.gaussian.given import Given
from ppnmf.gaussian.noise import ColumnNoise, NoisePrior, inverse_gammas
from ppnmf.gaussian.pinned import exact, flattened
from ppnmf.gaussian.repeated import one_by_one
from ppnmf.gaussian.sweep import Prior, Story
from ppnmf.kernels.dense import cancels
from ppnmf.protocols import Address, Matrix, Params, Statistics, Sweeps, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = [
    "Columns",
    "about",
    "begin",
    "draw",
    "given_columns",
    "learned_noise",
    "log_likelihood",
    "misfits",
    "mode",
    "prior_draws",
    "swept",
]

LOG_2PI = math.log(2 * math.pi)


class Columns(NamedTuple):
    """Of each column of X, float64."""

    observed: Tensor  # n_j, (D,)
    squares: Tensor  # Σ_i x_ij² of the observed entries, each over its known noise, (D,), or (C, D) of an X a chain


def about(X: Matrix) -> Columns:
    """What X's columns are; worked out once."""
    kept: dict[str, Columns] = X.kept
    if "columns" not in kept:
        with single_threaded():
            kept["columns"] = X.fold(_of_block)
    return kept["columns"]


def _of_block(rows: range, block: object) -> Columns:
    observed = block.observed()[1].double()  # type: ignore[attr-defined]
    nothing = torch.zeros(1, len(rows), 1, dtype=torch.float64, device=observed.device)
    squares = statistics.squared_residuals_of_columns(block, nothing, nothing.new_zeros(1, 1, len(observed)))
    return Columns(observed, squares[0] if len(squares) == 1 else squares)


def misfits(X: Matrix, W: Tensor, H: Tensor, of_H: Statistics | None = None) -> Tensor:
    """Residual sums of squares of each column, each entry over its known noise, (C, D), float64.

    Args:
        of_H: what W tells about H, off which they are read, except where so little of a column is left that the
            subtraction would cancel.
    """
    if of_H is not None:
        P, Q, Ht = (t.double() for t in (*of_H, H.mT))
        explained = Ht @ Q if Q.ndim == P.ndim else (Q @ Ht[..., None]).squeeze(-1)
        squares = about(X).squares
        left = squares + ((explained - 2 * P) * Ht).sum(-1)
        if bool((left > squares * cancels(torch.finfo(W.dtype).eps)).all()):
            return left
    return X.fold(
        lambda rows, block: statistics.squared_residuals_of_columns(block, W[:, rows.start : rows.stop], H),
        2.0 * W.numel() * X.shape[1],
    )


def log_likelihood(X: Matrix, misfit: Tensor, sigma2: Tensor) -> Tensor:
    """log p(X | W, H, σ²) of the observed entries from misfits (*C, D), float64, (*C,)."""
    v = sigma2.double()
    each = about(X).observed * (LOG_2PI + v.log()) + misfit / v
    return -0.5 * (each.sum(-1) + X.log_noise)


def learned_noise(story: Story) -> NoisePrior:
    """The prior of every column's variance."""
    assert isinstance(story.noise, NoisePrior)
    return story.noise


def mode(noise: NoisePrior | ColumnNoise, X: Matrix, misfit: Tensor) -> Tensor:
    """Each σ²_j at its mode given the factors, (C, D)."""
    return (noise.scale + misfit / 2) / (noise.shape + about(X).observed / 2 + 1)


def draw(noise: NoisePrior | ColumnNoise, X: Matrix, misfit: Tensor, power: float, at: Address) -> Tensor:
    """A draw of every σ²_j, (C, D), float64."""
    shape = noise.shape + power * about(X).observed / 2
    return inverse_gammas(shape, noise.scale + power * misfit / 2, at)


def swept(story: Story, X: Matrix, params: Params, asked: Sweeps, at: Address | None) -> Swept:
    """So many sweeps of every chain, drawn or at the mode: W, H, σ² and the moves along the ridge.

    Args:
        params: W (C, N, K), H (C, K, D), sigma2 (C, D).
    """

    def one(own: Params, here: Address | None) -> tuple[Params, Tensor]:
        return _one(story, X, own, asked, here)

    return one_by_one(one, X, params, asked, at)


def _one(
    story: Story, X: Matrix, params: Params, asked: Sweeps, at: Address | None
) -> tuple[dict[str, Tensor], Tensor]:
    """One sweep, and its log likelihoods (C,)."""
    prior = flattened(story.prior) if asked.flat else story.prior
    W, H, left = _sweep_factors(prior, X, params, asked, at)
    sigma2 = params["sigma2"]
    if not asked.held.others:
        noise: NoisePrior | ColumnNoise = story.noise  # type: ignore[assignment]
        sigma2 = mode(noise, X, left) if at is None else draw(noise, X, left, asked.power, at)
        sigma2 = sigma2.to(W.dtype)
    fit = log_likelihood(X, left, sigma2)
    if asked.moves and at is not None:
        first = max(asked.held.W, asked.held.H)
        W, H = restricted.moved(story.prior, X, W, H, at.stream, at.step, first)
    elif asked.moves and not asked.flat:
        W, H = ridge.balanced(story.prior, X, W, H)
    return {"W": W, "H": H, "sigma2": sigma2}, fit


def _sweep_factors(
    prior: Prior, X: Matrix, params: Params, asked: Sweeps, at: Address | None
) -> tuple[Tensor, Tensor, Tensor]:
    """W and H updated, and the misfits of their columns (C, D)."""
    W, H, v = params["W"], params["H"], params["sigma2"].to(params["W"].dtype)
    often = sweep.passes(X.shape, W.shape[-1]) if at is None else (1, 1)
    power = torch.full_like(v[:, 0], asked.power)
    with single_threaded():
        given = [given_columns(X, H[group], v[group]) for group in sweep.groups_of(W, X)]
        W, own = sweep.update_W(prior, W, given, power, X, at, asked.held.W, often[0])
        W = exact(prior("W"), W)
        of_H = statistics.of_every_process(X, own)
        H = sweep.update_H(prior, H, over_columns(of_H, v), power, X, at, asked.held.H, often[1])
        H = exact(prior("H"), H)
        return W, H, misfits(X, W, H, of_H)


def given_columns(X: Matrix, H: Tensor, v: Tensor) -> Given:
    """What the blocks of X share when H (C, K, D) is given, over column variances v (C, D) too."""
    over = statistics.given_H(X, H / v[:, None]).factor
    return Given(over, statistics.given_H(X, H / v[:, None].sqrt()).squares)


def over_columns(of_H: Statistics, v: Tensor) -> Statistics:
    """What W tells about each column of H, over its variance: P (C, D, K), Q (C, D, K, K), stored rows-last."""
    P, Q = of_H
    last = Q[..., None] if Q.ndim == P.ndim else Q.permute(0, 2, 3, 1)
    return Statistics((P.mT / v[:, None]).mT, (last / v[:, None, None]).permute(0, 3, 1, 2))


def begin(story: Story, rank: int, X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
    """A start by its name, or values, where sigma2 (C, D) may be left out; it is then at its mode, or drawn for "prior"."""
    params = start.begin(story, rank, X, stream, how)
    if isinstance(how, str) or "sigma2" not in how:
        left = misfits(X, params["W"], params["H"])
        own = mode(learned_noise(story), X, left)
        if how == "prior":
            same = (torch.full((X.shape[1],), value, dtype=torch.float64) for value in learned_noise(story))
            own = ColumnNoise(*same).prior_draw(stream, X.device)
        params["sigma2"] = own.to(X.dtype)
    return params


def prior_draws(story: Story, rank: int, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
    """n draws of W (n, N, K), H (n, K, D), sigma2 (n, D) from the prior, float64."""
    draws = start.prior_draws(story, rank, shape, n, stream)
    u = stream.uniforms(0, Site.SIGMA2, range(n), shape[1])[0]
    return {**draws, "sigma2": story.noise.prior_draws(u)}
