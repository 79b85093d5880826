r"""Variational Bayes for three factors (`three`): independent rectified normals for the entries of W, S and G.

With means w, s, g and variances v of their entries, T_j = E[Σ_i W_i W_iᵀ] over the rows that are observed in column j and
U_j = E[G_j G_jᵀ], both with second moments on their diagonals,

.. math:: E[(W S G)_{ij}^2] = \sum_{kl, mn} E[S_{kl} S_{mn}] \, E[W_{ik} W_{im}] \, E[G_{lj} G_{nj}],

so that each factor sees the others by sums of products: W by s T sᵀ with Σ_l v_kl T_ll more on its diagonal, G likewise, and S
as one row by Σ_j T_j ⊗ U_j. Each step maximises the ELBO over one entry; the bound is exact.

Reference: Brouwer, Frellsen, Lió (2016), arXiv:1610.08127.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.gaussian import moments, statistics, sweep
from ppnmf.gaussian.three import SITES, Story, about_S, pair
from ppnmf.kernels.moments import Moments, half_sweep
from ppnmf.priors import Natural
from ppnmf.protocols import Drawn, Matrix, Params, Statistics, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["approximated", "divergence", "draws", "swept"]


def approximated(params: Params) -> dict[str, Tensor]:
    """The approximation that stands at given values, without any spread."""
    q = {"sigma2": params["sigma2"].double(), "H": params["H"].double()}
    for site in SITES:
        q |= moments.without_spread(site, params[site])
    return q


def swept(story: Story, X: Matrix, q: Params, number: int) -> Swept:
    """So many sweeps of coordinate ascent: W, S, G, σ². `log_likelihood` is E_q[log p(X | ·)] after them, (C, 1)."""
    expected = torch.empty(0)
    for _ in range(number):
        q, square = _refined(story, X, q)
        noise = moments.updated_noise(story.noise, square, X.n_observed)
        expected = moments.expected_log_likelihood(noise, X, square)
        q = {**_balanced(story, q), "sigma2": noise.typical}
    return Swept({**q, "H": q["S"] @ q["G"]}, {}, expected[:, None])


def _refined(story: Story, X: Matrix, q: Params) -> tuple[dict[str, Tensor], Tensor]:
    """One sweep of the factors, and E‖X - W S G‖² over the known noise, (C,)."""
    weight = 1 / q["sigma2"]
    with single_threaded():
        W, told = _rows(story, X, q, weight)
        q = {**q, **moments.named("W", W)}
        second = told.expected
        S = half_sweep(_flat(q["S"]), _about_S(second, q), _natural(story, "S"), weight)
        q = {**q, **moments.named("S", Moments(*(part.reshape(q["S"].shape) for part in S)))}
        G = half_sweep(q["G"].mT, _about_G(second, q), _turned(_natural(story, "G")), weight)
        q = {**q, **moments.named("G", Moments(*(part.mT for part in G)))}
        of_means = Statistics(told.P.to(X.dtype), told.Q.to(X.dtype))
        left = sweep.misfit(X, W.mean.to(X.dtype), (q["S"] @ q["G"]).to(X.dtype), of_means)
        return q, left + _spread(told, q)


def _rows(story: Story, X: Matrix, q: Params, weight: Tensor) -> tuple[Moments, Any]:
    """W, block by block of X's rows, and what it then tells about the columns."""
    even, spread = moments.is_even(X), q["G.variance"]
    given = statistics.given_H(X, q["G"].to(X.dtype))
    of_roots = statistics.given_H(X, spread.sqrt().to(X.dtype))
    natural = _natural(story, "W")
    W = Moments(*(torch.empty_like(q["W"]) for _ in Moments._fields))

    def update(rows: range, block: Any, _: None) -> Any:
        own = slice(rows.start, rows.stop)
        P, Q = (values.double() for values in statistics.of_W(block, given))
        V = spread.sum(-1) if even else moments.diagonal(statistics.of_W(block, of_roots).Q)
        found = half_sweep(
            q["W"][:, own], _through_S(Statistics(P, Q + torch.diag_embed(V)), q, False), natural, weight
        )
        for values, new in zip(W, found, strict=True):
            values[:, own] = new
        return moments.of_H(block, found, X.dtype, even)

    (told,) = X.fold_here(update, [None], 8.0 * q["W"].numel() * X.shape[1])
    return W, told


def _through_S(told: Statistics, q: Params, turned: bool) -> Statistics:
    """What is told about the columns of S G (C, R, L), or `turned` the rows of W S (C, R, K), as S hands it on."""
    s, v = (q[name].mT if turned else q[name] for name in ("S", "S.variance"))  # (C, a, b): from b to a
    P, Q = told
    if Q.ndim == 3:
        return Statistics(P @ s.mT, s @ Q @ s.mT + torch.diag_embed((v @ moments.diagonal(Q)[..., None]).squeeze(-1)))
    more = moments.diagonal(Q) @ v.mT
    return Statistics(P @ s.mT, s[:, None] @ Q @ s.mT[:, None] + torch.diag_embed(more))


def _about_G(second: Statistics, q: Params) -> Statistics:
    return _through_S(second, q, True)


def _about_S(second: Statistics, q: Params) -> Statistics:
    """What is told about S as one row, G's second moments included."""
    of_means = about_S(second, q["G"])
    return Statistics(of_means.P, of_means.Q + _of_variances(second.Q, q))


def _of_variances(T: Tensor, q: Params) -> Tensor:
    """Σ_j T_j ⊗ diag(variances of G_j), (C, K L, K L)."""
    v = q["G.variance"]
    L, size = v.shape[1], q["S"][0].numel()
    each = torch.einsum("ckm,cl->cklm", T, v.sum(-1)) if T.ndim == 3 else torch.einsum("cdkm,cld->cklm", T, v)
    apart = torch.eye(L, dtype=T.dtype, device=T.device)
    return torch.einsum("cklm,ln->cklmn", each, apart).reshape(-1, size, size)


def _spread(told: Any, q: Params) -> Tensor:
    """What the variances of all three factors add to E‖X - W S G‖², (C,)."""
    second = told.expected
    whole = _about_S(second, q).Q
    of_means = about_S(Statistics(told.P, told.Q), q["G"]).Q
    s, v = _flat(q["S"])[:, 0], _flat(q["S.variance"])[:, 0]
    more = torch.einsum("ce,cef,cf->c", s, whole - of_means, s)
    return more + (moments.diagonal(whole) * v).sum(-1)


def _balanced(story: Story, q: dict[str, Tensor]) -> dict[str, Tensor]:
    """The scales of the components, between W and S and between S and G, at which the ELBO is greatest."""
    for left, right in (("W", "S"), ("S", "G")):
        q = moments.balanced_pair(pair(story.priors, left, right), q, left, right)
    return q


def _natural(story: Story, site: str) -> Natural:
    return story.priors[site].natural("cpu")


def _turned(natural: Natural) -> Natural:
    return Natural(*(values.mT for values in natural))


def _flat(S: Tensor) -> Tensor:
    return S.reshape(len(S), 1, -1)


def divergence(story: Story, q: Params, observed: int) -> Tensor:
    """KL(q || p) of W, S, G and σ², (C,)."""
    of_factors = sum(moments.divergence_under(story.priors[site], q, site) for site in SITES)
    return moments.of_noise(q, story.noise, observed).divergence(story.noise) + of_factors


class Lot(NamedTuple):
    """Draws of one site, and the log densities that they have."""

    values: Tensor
    log_density: Tensor


def draws(story: Story, q: Params, n: int, X: Matrix, stream: Stream) -> Drawn:
    """n independent draws of every site from one approximation (its axis C is 1), and log q of each."""
    found: dict[str, Tensor] = {}
    total = torch.zeros(n, dtype=torch.float64, device=X.device)
    first = 0
    for site in SITES:
        own = _lot(q, site, n, first, X, stream)
        found[site] = own.values
        total = total + own.log_density
        first += n * q[site].shape[-2]
    sigma2, log_sigma2 = moments.noise_draws(moments.of_noise(q, story.noise, X.n_observed), n, stream, X.dtype)
    return Drawn({**found, "H": found["S"] @ found["G"], "sigma2": sigma2}, total + log_sigma2)


def _lot(q: Params, site: str, n: int, first: int, X: Matrix, stream: Stream) -> Lot:
    R, K = q[site].shape[1:]
    u = stream.uniforms(0, Site.GUIDE, range(first, first + n * R), K, X.device)[0].reshape(n, R, K)
    factor = moments.factor_of(q, site)
    values = factor.survival_inverse(u).to(X.dtype)
    return Lot(values, factor.log_prob(values.double()).sum((-2, -1)))
