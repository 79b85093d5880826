r"""Shears with a row of one factor integrated out: long steps along the ridge where data are nearly noiseless.

A shear W_l ← W_l + t W_k, H_k ← H_k - t H_l must leave every entry >= 0. Of the entries of H_k that lie near zero, and there
are many, the nearest one stops it; the next sweep moves that one a little, and so the chain crawls, the slower the less noise
there is. With H_k integrated out that wall yields: given all but (t, H_k), with W_l already moved,

.. math:: p(t) \propto \exp\bigl(t\,s - \tfrac12 t^2 r\bigr) \prod_j \Phi(z_j - t d_j), \qquad t \ge -\min_i W_{il} / W_{ik},

where q_j = W_k · W_k β / σ² (over the observed rows of column j), A_j = q_j + a_kj, b_j is the linear part of H_kj's
conditional at t = 0, z_j = b_j / √A_j, d_j = H_lj q_j / √A_j, and with the priors' natural parameters (a, b)

.. math:: s = \sum_i (b_{il} - a_{il} W_{il}) W_{ik} + \sum_j H_{lj} (b_j a_{kj} / A_j - b_{kj}), \qquad
    r = \sum_i a_{il} W_{ik}^2 + \sum_j H_{lj}^2 q_j a_{kj} / A_j.

It is log-concave: t is drawn exactly, by rejection under two tangents. For each k come the shears with all l ≠ k, and then H_k
from its conditional, which makes each (t, H_k) one draw of both. The same with W and H exchanged. No pass over X is needed
where W's products with it are at hand: they move along.

`pays` tells from where chains stand whether these steps are longer than those of the other moves; where data are noisy, or
where the other factor's wall stops the shear too, they are not.

References: Gilks and Wild (1992), doi:10.2307/2347565, for the tangents; van Dyk and Park (2008), doi:10.1198/016214508000000409,
for Gibbs steps with part of the parameters integrated out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.distributions import RectifiedNormal
from ppnmf.gaussian import restricted, statistics
from ppnmf.gaussian.concave import Density
from ppnmf.gaussian.ridge import least_ratio
from ppnmf.kernels import cpu, kernels_for
from ppnmf.kernels.cpu import collapsed as compiled
from ppnmf.priors import Natural, RectifiedPrior
from ppnmf.protocols import Address, Matrix, Params, Statistics
from ppnmf.rng import Site, Stream
from ppnmf.threads import ordered_map

__all__ = ["FIRST_ROWS", "Side", "pays", "reference", "swept"]

FIRST_ROWS = {"W": 0, "H": 2**30}  # of the addresses of either side's random numbers
PARTNERS = 3  # of each component, whose steps are looked at
TRIED = 8  # draws of each such step
# squared steps, times those of the other moves, from which they pay: they cost as much as two or three sweeps
LONGER = 3.0

Prior = Callable[[str], RectifiedPrior]


class Side(NamedTuple):
    """What the shears of one side work on, a component a row; they write to none of it.

    Args:
        E: the factor that moves (C, K, m). F: the one whose rows are integrated out (C, K, n).
        R, G: E's products with X (C, K, n), and with itself (C, K, K, 1 | n).
        weight: β / σ², (C,).
        of_E, of_F: the priors' natural parameters, broadcastable to (K, m) and (K, n).
        first_row: of the addresses.
    """

    E: Tensor
    F: Tensor
    R: Tensor
    G: Tensor
    weight: Tensor
    of_E: Natural
    of_F: Natural
    first_row: int

    @classmethod
    def of(cls, site: str, prior: Prior, X: Matrix, params: Params, power: float) -> Side:
        """That of a site's rows being integrated out, at these parameters."""
        W, H = params["W"], params["H"]
        weight = power / params["sigma2"].double()
        of_W, of_H = (prior(own).natural(X.device) for own in ("W", "H"))
        by_row = Natural(*(values.mT for values in of_W))
        if site == "H":
            P, Q = _rows_last(statistics.of_all_columns(X, W))
            return cls(W.mT, H, P, Q, weight, by_row, of_H, FIRST_ROWS[site])
        P, Q = _rows_last(statistics.of_all_rows(X, H))
        return cls(H, W.mT, P, Q, weight, of_H, by_row, FIRST_ROWS[site])


def _rows_last(about: Statistics) -> tuple[Tensor, Tensor]:
    """P (C, K, n) and Q (C, K, K, 1 | n)."""
    P, Q = about
    return P.mT, Q[..., None] if Q.ndim == P.ndim else Q.permute(0, 2, 3, 1)


class Sheared(NamedTuple):
    """Both factors after the shears, and t of each pair (C, K, K), float64."""

    E: Tensor
    F: Tensor
    jumps: Tensor


def swept(sites: tuple[str, ...], prior: Prior, X: Matrix, params: Params, at: Address, power: float = 1.0) -> Params:
    """Parameters after the shears of these sites, one after the other."""
    for site in sites:
        params = _placed(site, params, _sheared(Side.of(site, prior, X, params, power), at))
    return params


def _placed(site: str, params: Params, found: Sheared) -> Params:
    W, H = (found.E.mT, found.F) if site == "H" else (found.F.mT, found.E)
    return {**params, "W": W, "H": H}


def _sheared(side: Side, at: Address) -> Sheared:
    return _compiled(side, at) if kernels_for(side.E.device) is cpu else reference(side, at)


def pays(prior: Prior, X: Matrix, params: Params) -> tuple[str, ...]:
    """The sites, of "W" and "H", whose integrated shears take longer steps from here than the other moves do.

    The squared steps of some pairs, in all chains, are held against those of the plain shear and of a Gibbs sweep; the median
    decides. Nothing pays where rows of X are spread over processes, or entries of the factors are known.
    """
    if X.here is not X or X.gather is not None or restricted.is_needed(prior):
        return ()
    return tuple(site for site in FIRST_ROWS if _gain(Side.of(site, prior, X, params, 1.0)) > LONGER)


def _gain(side: Side) -> float:
    """The median over some pairs of their squared steps over those of the other moves, each in all chains together."""
    E, F, R, G = (values.double() for values in side[:4])
    K = F.shape[1]
    gains = []
    for k in range(K):
        row = _Row.of(k, side, F, R, G)
        for away in range(1, min(PARTNERS + 1, K)):
            l = (k + away) % K
            steps = _squared_steps(row.density(l, E, F, side))
            gains.append(steps.sum() / _other_steps(side, row, l).sum())
    return float(torch.stack(gains).nan_to_num(0.0).median()) if gains else 0.0


def _squared_steps(density: Density) -> Tensor:
    """Means of t² over some draws, (C,)."""
    many = Density(*(values.repeat_interleave(TRIED, 0) for values in density))
    t = many.drawn(Address(Stream.of(0, len(many.low)), 0), 0)
    return t.square().unflatten(0, (-1, TRIED)).mean(1)


def _other_steps(side: Side, row: _Row, l: int) -> Tensor:
    """About the squared steps of a plain shear of the pair, and those of Gibbs draws along it, (C,)."""
    E, F = side.E.double(), side.F.double()
    k = row.k
    slope = (side.of_E.linear.expand(E.shape[1:])[l] * E[:, k]).sum(-1) - (row.linear * F[:, l]).sum(-1)
    width = least_ratio(E[:, l], E[:, k]) + least_ratio(F[:, k], F[:, l])
    plain = torch.minimum(width.square() / 3, 2 / slope.square())
    return plain + 1 / (row.q * F[:, l].square()).sum(-1)


def _compiled(side: Side, at: Address) -> Sheared:
    """`reference`, compiled; chains lie side by side on threads."""
    E, F, R, G = (
        values.clone(memory_format=torch.contiguous_format).numpy() for values in (side.E, side.F, side.R, side.G)
    )
    of_E, of_F = (
        tuple(values.double().contiguous().numpy() for values in natural) for natural in (side.of_E, side.of_F)
    )
    jumps = torch.zeros(len(E), E.shape[1], E.shape[1], dtype=torch.float64)

    def shear(c: int) -> None:
        address = (*at.stream.keys[c], at.step, side.first_row)
        room = compiled.room_for_shears(F.shape[2])
        compiled.shears(E[c], F[c], R[c], G[c], float(side.weight[c]), of_E, of_F, address, jumps[c].numpy(), room)

    ordered_map(shear, range(len(E)), 50.0 * E.shape[1] ** 2 * F.shape[2])
    return Sheared(torch.from_numpy(E), torch.from_numpy(F), jumps)


def reference(side: Side, at: Address) -> Sheared:
    """The shears in torch, for any device: of the pairs (k, l), F_k integrated out, and then F_k."""
    E, F, R, G = (values.double().clone() for values in side[:4])
    C, K, n = F.shape
    jumps = torch.zeros(C, K, K, dtype=torch.float64, device=E.device)
    uniforms = at.stream.uniforms(
        at.step, Site.COLLAPSED_ROW, range(side.first_row, side.first_row + n), K, E.device
    )  # (C, n, K)
    for k in range(K):
        alive = E[:, k].any(-1)
        conditional = _Row.of(k, side, F, R, G)
        for l in (l for l in range(K) if l != k):
            t = conditional.density(l, E, F, side).drawn(at, side.first_row + k * K + l)
            t = torch.where(alive, t, 0.0)
            jumps[:, k, l] = t
            conditional = conditional.after(l, t, F)
            E[:, l] = (E[:, l] + t[:, None] * E[:, k]).clamp(min=0)
            R[:, l] += t[:, None] * R[:, k]
            _shear_gram(G, k, l, t)
        F[:, k] = conditional.distribution.survival_inverse(uniforms[..., k])
    return Sheared(E.to(side.E.dtype), F.to(side.F.dtype), jumps)


def _shear_gram(G: Tensor, k: int, l: int, t: Tensor) -> None:
    """E Eᵀ after E_l ← E_l + t E_k, in place."""
    t = t[:, None]
    own = G[:, l, l] + t * (2 * G[:, k, l] + t * G[:, k, k])
    row = G[:, l] + t[:, None] * G[:, k]
    G[:, l] = row
    G[:, :, l] = row
    G[:, l, l] = own


class _Row(NamedTuple):
    """The conditional of F_k, while E's other rows move.

    Args:
        k: the component.
        q, b: (C, n), what E tells of it and the linear parameter. a: the prior's precision, and linear its own part, (n,).
    """

    k: int
    q: Tensor
    b: Tensor
    a: Tensor
    linear: Tensor

    @classmethod
    def of(cls, k: int, side: Side, F: Tensor, R: Tensor, G: Tensor) -> _Row:
        weight = side.weight[:, None]
        q = weight * G[:, k, k].expand(F[:, k].shape)
        others = (G[:, k] * F).sum(1) - G[:, k, k] * F[:, k]
        a, linear = (values.expand(F.shape[1:])[k] for values in side.of_F)
        return cls(k, q, weight * (R[:, k] - others) + linear, a, linear)

    @property
    def distribution(self) -> RectifiedNormal:
        return RectifiedNormal(self.q + self.a, self.b, validate_args=False)

    def after(self, l: int, t: Tensor, F: Tensor) -> _Row:
        return self._replace(b=self.b - t[:, None] * F[:, l] * self.q)

    def density(self, l: int, E: Tensor, F: Tensor, side: Side) -> Density:
        """That of t for the pair (k, l)."""
        k, q, b = self.k, self.q, self.b
        whole = q + self.a
        known = whole > 0
        share = torch.where(known, q / torch.where(known, whole, 1.0), 0.0)
        root = torch.where(known, whole, torch.inf).rsqrt()
        a_E, b_E = (values.expand(E.shape[1:])[l] for values in side.of_E)
        prior = torch.where(q > 0, self.linear.expand_as(b), b)
        slope = ((b_E - a_E * E[:, l]) * E[:, k]).sum(-1) + (F[:, l] * (b * (1 - share) - prior)).sum(-1)
        square = (a_E * E[:, k].square()).sum(-1) + (F[:, l].square() * q * (1 - share)).sum(-1)
        low = -least_ratio(E[:, l], E[:, k])
        return Density(b * root, F[:, l] * q * root, slope, square, torch.where(low.isfinite(), low, 0.0))
