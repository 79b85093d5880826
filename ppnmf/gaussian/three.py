r"""Three factors: X ≈ W S G with W (N, K), S (K, L), G (L, D), all rectified normal, of which the product H = S G is W's partner.

Given S and G, W's conditional is that of two factors with H = S G; given W, all that X tells lies in P = Xᵀ W and Q = Wᵀ W (a
Gram matrix a column, where entries are missing): G sees P S and Sᵀ Q S, and the entries of S, as one row of K L components,

.. math:: P_S = P^T G^T, \qquad Q_S[(k, l), (m, n)] = \sum_j Q_{km} \, G_{lj} G_{nj},

so that one pass over X serves all three. W S and S G are each invariant under the moves along the ridge (`ridge`), with the pairs
(W, S) and (S, G) in place of (W, H).

Reference: Brouwer, Frellsen, Lió (2016), arXiv:1610.08127; their F, S, G are our W, S, Gᵀ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.data.sharded import Sharded
from ppnmf.gaussian import ridge, statistics, sweep
from ppnmf.gaussian.noise import KnownNoise, Noise
from ppnmf.gaussian.pinned import FLAT
from ppnmf.gaussian.repeated import one_by_one
from ppnmf.kernels import kernels_for
from ppnmf.priors import RectifiedPrior
from ppnmf.protocols import Address, Matrix, Params, Statistics, Sweeps, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["SITES", "Story", "about_S", "begin", "pair", "prior_draws", "swept"]

SITES = ("W", "S", "G")
PASSES = 2  # through S and G in a sweep of modes: they need no further pass over X
SECOND_PAIR = 2**30  # steps ahead are the random numbers of the second pair's moves, where no sweep comes


class Story(NamedTuple):
    """What a sweep needs of a model: the priors of W, S and G, and σ²'s."""

    priors: Mapping[str, RectifiedPrior]
    noise: Noise


def pair(priors: Mapping[str, Any], left: str, right: str) -> Callable[[str], Any]:
    """The priors of two neighbouring factors as those of W and H."""
    return {"W": priors[left], "H": priors[right]}.__getitem__


def swept(story: Story, X: Matrix, params: Params, asked: Sweeps, at: Address | None) -> Swept:
    """So many sweeps of every chain, drawn or at the mode: W, S, G, σ², and moves along both ridges.

    Args:
        params: W (C, N, K), S (C, K, L), G (C, L, D), H = S G (C, K, D), sigma2 (C,). Where components of H are held, S and G
            are.

    Raises:
        TypeError: X's rows are spread over processes.
    """
    if isinstance(X, Sharded):
        raise X.refusal()

    def one(own: Params, here: Address | None) -> tuple[Params, Tensor]:
        after, left = _one(story, X, own, asked, here)
        return after, sweep.log_likelihood_of(X, left, after["sigma2"])

    return one_by_one(one, X, params, asked, at)


def _one(
    story: Story, X: Matrix, params: Params, asked: Sweeps, at: Address | None
) -> tuple[dict[str, Tensor], Tensor]:
    """One sweep, and its misfits (C,)."""
    priors: Mapping[str, Any] = dict.fromkeys(SITES, FLAT) if asked.flat else story.priors
    own, left = _factors(priors, X, params, asked, at)
    sigma2 = params["sigma2"]
    if not asked.held.others:
        sigma2 = story.noise.mode(left, X.n_observed)
        if at is not None:
            sigma2 = story.noise.draw(left, X.n_observed, asked.power, *at)
    if asked.moves and not asked.flat and not asked.held.H:
        own = _moved(story, X, own, at)
    W, S, G = own
    return {"W": W, "S": S, "G": G, "H": S @ G, "sigma2": sigma2.to(W.dtype)}, left


class Three(NamedTuple):
    """The factors of C chains."""

    W: Tensor  # (C, N, K)
    S: Tensor  # (C, K, L)
    G: Tensor  # (C, L, D)


def _factors(
    priors: Mapping[str, Any], X: Matrix, params: Params, asked: Sweeps, at: Address | None
) -> tuple[Three, Tensor]:
    W, S, G = (params[site] for site in SITES)
    weight = (asked.power / params["sigma2"]).to(W.dtype)
    prior = pair(priors, "W", "G")
    with single_threaded():
        H = S @ G
        given = [statistics.given_H(X, H[group]) for group in sweep.groups_of(W, X)]
        often = sweep.passes(X.shape, W.shape[-1])[0] if at is None else 1
        W, told = sweep.update_W(prior, W, given, weight, X, at, asked.held.W, often)
        for _ in range(0 if asked.held.H else 1 if at is not None else PASSES):
            S = _update_S(priors["S"], S, about_S(told, G), weight, at)
            Q = S.mT @ told.Q @ S if told.Q.ndim == 3 else S.mT[:, None] @ told.Q @ S[:, None]
            G = sweep.update_H(prior, G, Statistics(told.P @ S, Q), weight, X, at)
        return Three(W, S, G), sweep.misfit(X, W, S @ G, told)


def about_S(told: Statistics, G: Tensor) -> Statistics:
    """What W and X tell about S as one row of K L components: P (C, 1, K L), Q (C, K L, K L)."""
    P, Q = told
    size = P.shape[-1] * G.shape[-2]
    shared = Q.ndim == P.ndim
    each = torch.einsum("ckm,cln->cklmn", Q, G @ G.mT) if shared else torch.einsum("cdkm,cld,cnd->cklmn", Q, G, G)
    return Statistics((P.mT @ G.mT).reshape(-1, 1, size), each.reshape(-1, size, size))


def _update_S(prior: Any, S: Tensor, told: Statistics, weight: Tensor, at: Address | None) -> Tensor:
    address = None if at is None else (*at, Site.S)
    row = S.reshape(len(S), 1, -1)
    natural = tuple(own if own.numel() == 1 else own.reshape(1, -1) for own in prior.natural(S.device))
    return kernels_for(S.device).half_sweep(row, told, natural, address, weight=weight).reshape(S.shape)


def _moved(story: Story, X: Matrix, own: Three, at: Address | None) -> Three:
    """W S and S G stay as they are: drawn from their ridges, or at the scales that the priors like best."""
    W, S, G = own
    first, second = pair(story.priors, "W", "S"), pair(story.priors, "S", "G")
    if at is None:
        W, S = ridge.balanced(first, X, W, S)
        S, G = ridge.balanced(second, X, S, G)
    else:
        W, S = ridge.moved(first, X, W, S, *at)
        S, G = ridge.moved(second, X, S, G, at.stream, at.step + SECOND_PAIR)
    return Three(W, S, G)


def begin(story: Story, ranks: tuple[int, int], X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
    """Starting values of every site, one chain a key of the stream.

    Args:
        how: "scaled": exponential draws scaled so that W S G has X's mean; "prior": draws of the prior; or values of W, S
            and G, where sigma2 may be left out.

    Raises:
        ValueError: another name, or S or G is not given.
    """
    if isinstance(how, str):
        params = _named(story, ranks, X, stream, how)
    elif not set(SITES) <= set(how):
        raise ValueError(f"init has {', '.join(map(repr, how))}; three factors need W, S and G (H is S @ G)")
    else:
        params = dict(how)
    params["H"] = params["S"] @ params["G"]
    if "sigma2" not in params or isinstance(story.noise, KnownNoise):
        with single_threaded():
            left = sweep.misfit(X, params["W"], params["H"])
        params["sigma2"] = story.noise.mode(left, X.n_observed).to(X.dtype)
    return params


def _named(story: Story, ranks: tuple[int, int], X: Matrix, stream: Stream, how: str) -> dict[str, Tensor]:
    if how not in ("scaled", "prior"):
        raise ValueError(f"init is {how!r}; three factors begin 'scaled', at the 'prior', or at given W, S and G")
    (N, D), (K, L) = X.shape, ranks
    of_W = stream.uniforms(0, Site.START, range(N), K, X.device)
    of_G = stream.uniforms(0, Site.START, range(N, N + D), L, X.device).mT
    of_S = stream.uniforms(0, Site.START, range(N + D, N + D + K), L, X.device)
    unit = {site: -u.log() for site, u in zip(SITES, (of_W, of_S, of_G), strict=True)}
    if how == "scaled":
        size = (abs(X.mean()) / (K * L)) ** (1 / 3) or 1.0
        return {site: (size * values).to(X.dtype) for site, values in unit.items()}
    scale = {site: -1 / story.priors[site].natural(X.device).linear for site in SITES}
    params = {site: (scale[site] * values).to(X.dtype) for site, values in unit.items()}
    return {**params, "sigma2": story.noise.prior_draw(stream, X.device).to(X.dtype)}


def prior_draws(
    story: Story, ranks: tuple[int, int], shape: tuple[int, int], n: int, stream: Stream
) -> dict[str, Tensor]:
    """n draws of every site from the prior, float64."""
    (N, D), (K, L) = shape, ranks
    sizes = [(N, K), (K, L), (L, D)]
    u = stream.uniforms(0, Site.START, range(n), N * K + K * L + L * D + 1)[0]
    *factors, of_noise = u.split([a * b for a, b in sizes] + [1], dim=-1)
    draws = {
        site: story.priors[site].rectified.survival_inverse(own.reshape(n, *size))
        for site, own, size in zip(SITES, factors, sizes, strict=True)
    }
    draws["H"] = draws["S"] @ draws["G"]
    draws["sigma2"] = story.noise.prior_draws(of_noise[:, 0])
    return draws
