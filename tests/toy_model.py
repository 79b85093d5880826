"""A model that no module of the package knows: no sigma2, and a site of its own, a rate a component that is random too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppnmf.distributions import RectifiedNormal
from ppnmf.gaussian.statistics import of_all_columns, of_all_rows
from ppnmf.gaussian.sweep import misfit
from ppnmf.protocols import Address, Entries, Matrix, Params, Read, Sweeps, Swept
from ppnmf.rng import Site, Stream

SHAPE, RATE = 3.0, 2.0  # of the rates' gamma prior, at size 1


@dataclass(frozen=True)
class RandomRates:
    """rate_k ~ Gamma(3, 2), W_ik, H_kj ~ Exponential(rate_k), X_ij ~ Normal((WH)_ij, 1)."""

    rank: int
    size: float = 1.0  # of the entries of W and H, a priori

    name: ClassVar[str] = "random_rates"
    accepts: ClassVar[Entries] = Entries.REAL

    def __call__(
        self, X: Tensor | None = None, mask: Tensor | None = None, *, shape: tuple[int, int] | None = None
    ) -> Tensor:
        N, D = X.shape if X is not None else shape
        rate = pyro.sample("rate", dist.Gamma(SHAPE, RATE * self.size).expand([self.rank]).to_event(1))
        W = pyro.sample("W", dist.Exponential(rate).expand([N, self.rank]).to_event(2))
        H = pyro.sample("H", dist.Exponential(rate[:, None]).expand([self.rank, D]).to_event(2))
        seen = torch.ones(N, D, dtype=torch.bool) if mask is None else mask
        return pyro.sample("X", dist.Normal(W @ H, 1.0).mask(seen).to_event(2), obs=X)

    def config(self) -> dict[str, Any]:
        return {"rank": self.rank, "size": self.size}

    def sites(self, N: int, D: int) -> dict[str, dict[str, int]]:
        K = self.rank
        return {"W": {"row": N, "component": K}, "H": {"component": K, "column": D}, "rate": {"component": K}}

    def factors(self, params: Params) -> tuple[Tensor, Tensor]:
        return params["W"], params["H"]

    def likelihood(self, params: Params) -> dist.Normal:
        return dist.Normal(params["W"] @ params["H"], 1.0)

    @classmethod
    def for_data(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        return cls(rank)

    def log_prior(self, params: Params) -> Tensor:
        W, H, rate = (params[site].double() for site in ("W", "H", "rate"))
        scale = RATE * self.size
        of_rate = SHAPE * math.log(scale) - math.lgamma(SHAPE) + (SHAPE - 1) * rate.log() - scale * rate
        count = W.shape[-2] + H.shape[-1]
        return (of_rate + count * rate.log() - rate * (W.sum(-2) + H.sum(-1))).sum(-1)

    def log_likelihood_at(self, params: Params, X: Matrix) -> Tensor:
        left = misfit(X, params["W"], params["H"])
        return -0.5 * left - 0.5 * X.n_observed * math.log(2 * math.pi)

    def begin(self, X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
        if isinstance(how, str):
            how = self.prior_draws(X.shape, len(stream), stream)
        ones = torch.ones(len(stream), self.rank, dtype=X.dtype)
        return {"rate": ones, **{site: values.to(X.dtype) for site, values in how.items()}}

    def prior_draws(self, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
        (N, D), K = shape, self.rank
        u = stream.uniforms(0, Site.START, range(n), (N + D + SHAPES) * K)[0].reshape(n, N + D + SHAPES, K)
        rate = -u[:, :SHAPES].log().sum(1) / (RATE * self.size)  # a gamma of a whole shape is a sum of exponentials
        unit = -u[:, SHAPES:].log() / rate[:, None]
        return {"W": unit[:, :N], "H": unit[:, N:].mT, "rate": rate}

    def sweep(self, params: Params, X: Matrix, asked: Sweeps, at: Address | None) -> Swept:
        kept = []
        for s in range(asked.number):
            W, H = params["W"], params["H"]
            rate = self._rate(params, asked.read, at, s)
            P, Q = of_all_rows(X, H)
            W = self._factor(W, P, Q, rate, asked, at, s, Site.W)
            P, Q = of_all_columns(X, W)
            H = self._factor(H.mT, P, Q, rate, asked, at, s, Site.H).mT
            params = {"W": W, "H": H, "rate": rate}
            if s in asked.kept:
                kept.append((params, self.log_likelihood_at(params, X)))
        if not kept:
            return Swept(params, {}, torch.empty(len(params["W"]), 0, dtype=torch.float64))
        draws = {site: torch.stack([own[site] for own, _ in kept], 1) for site in params}
        return Swept(params, draws, torch.stack([fit for _, fit in kept], 1))

    def _rate(self, params: Params, read: Read, at: Address | None, s: int) -> Tensor:
        W, H = params["W"], params["H"]
        shape, scale = SHAPE + W.shape[-2] + H.shape[-1], RATE * self.size + W.sum(-2) + H.sum(-1)
        if at is None or read is Read.MODE:
            return (shape - 1) / scale
        u = at.stream.uniforms(at.step + s, Site.SIGMA2, range(int(shape)), self.rank)
        return (-u.log().sum(1) / scale).to(W.dtype)

    def _factor(
        self, F: Tensor, P: Tensor, Q: Tensor, rate: Tensor, asked: Sweeps, at: Address | None, s: int, site: Site
    ) -> Tensor:
        F, power = F.clone(), asked.power
        u = None if at is None else at.stream.uniforms(at.step + s, site, range(F.shape[-2]), self.rank)
        for k in range(self.rank):
            row = Q[:, None, k] if Q.ndim == P.ndim else Q[:, :, k]
            others = (F * row).sum(-1) - F[..., k] * row[..., k]
            flat = 0.0 if asked.flat else 1.0
            own = RectifiedNormal(
                power * row[..., k].expand_as(others), power * (P[..., k] - others) - flat * rate[:, None, k]
            )
            F[..., k] = own.mode if u is None else own.survival_inverse(u[..., k])
        return F

    def require_proper(self) -> None:
        pass

    def require_modes(self) -> None:
        pass

    def require_fits(self, shape: tuple[int, int]) -> None:
        pass

    def rescaled(self, size: float) -> Self:
        return type(self)(self.rank, self.size * size)

    def for_rows(self, rows: range) -> Self:
        return self


SHAPES = int(SHAPE)
