"""Layers: the loadings' side of a factorisation is a product itself, X ≈ A_0 A_1 ... S, so that topics gather in wider topics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppnmf.checks import described, meant, real_number, whole_number
from ppnmf.factored import Frozen, shape_of
from ppnmf.gaussian import chained_path, layers
from ppnmf.gaussian.noise import NoisePrior
from ppnmf.gaussian.scale import data_scale
from ppnmf.gaussian.start import jittered_nndsvd
from ppnmf.gaussian.sweep import log_likelihood_of, misfit
from ppnmf.priors import Exponential, RectifiedPrior
from ppnmf.protocols import Address, Matrix, Params, Sweeps, Swept
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings

__all__ = ["Hierarchical"]

STARTS = ("scaled", "prior", "nndsvd")
LEAK = 0.05  # of what a component of a layer passes on, the part that goes to each other one, where a start is made of W alone


@dataclass(frozen=True, eq=False)
class Hierarchical(Frozen):
    r"""A_0 (N, K_0), A_1 (K_0, K_1) ..., H (K, D) with exponential entries, X_ij ~ Normal((A_0 A_1 ... H)_ij, σ²).

    The published order is kept: what a layer explains are the columns of X, S_0 ≈ A_1 S_1 gathers the components of layer 0
    in those of layer 1, and the last S is our H. So of a matrix of documents by words give the transpose: then A_0 holds the
    topics' words, A_0 A_1 those of the wider topics, and the columns are documents. W is A_0 A_1 ..., whence X ≈ W @ H as
    everywhere else.

    Args:
        ranks: K_0, K_1 ... K of the layers, such as (9, 4, 2).
        rates: of the exponential priors: a number, or one a factor, A_0, A_1 ... and H.
        noise_shape, noise_scale: of the noise variance's prior, as in `ExponentialGaussian`.
        rank: K, the last of `ranks`; given alone it stands for two layers, (2 K, K).

    Raises:
        ValueError: no ranks, one below 1, a rate that is not positive, or as many rates as there are no factors.

    References: Gao et al. (2019), doi:10.1109/CAMSAP45676.2019.9022678; Will et al. (2023), "Neural nonnegative matrix
        factorization for hierarchical multilayer topic modeling", arXiv:2303.00058; Cichocki, Zdunek (2006),
        doi:10.1049/el:20060983, for multilayer factorisations.
    """

    ranks: Sequence[int] = ()
    rates: Any = 1.0
    noise_shape: float = 1.0
    noise_scale: float = 1.0
    rank: int = None  # type: ignore[assignment]  # what is not given follows from `ranks`

    name: ClassVar[str] = "hierarchical"

    @own_settings()
    def __post_init__(self) -> None:
        object.__setattr__(self, "ranks", _ranks(self.ranks, self.rank))
        object.__setattr__(self, "rank", self.ranks[-1])
        object.__setattr__(self, "rates", _rates(self.rates, len(self.ranks) + 1))
        for own in ("noise_shape", "noise_scale"):
            object.__setattr__(self, own, real_number(own, getattr(self, own)))

    def __call__(
        self, X: Tensor | None = None, mask: Tensor | None = None, *, shape: tuple[int, int] | None = None
    ) -> Tensor:
        """The generative story. X (N, D) is observed where `mask` is True; with X None, X of `shape` is drawn.

        Raises:
            ValueError: neither X nor shape is given.
        """
        (N, D), like = shape_of(X, shape)
        *rates, rate_H = (like.new_tensor(rate) for rate in self.rates)
        rows, columns = pyro.plate("row", N, dim=-2), pyro.plate("column", D, dim=-1)
        sigma2 = pyro.sample("sigma2", dist.InverseGamma(like.new_tensor(self.noise_shape), self.noise_scale))
        with rows, pyro.plate("component of A0", self.ranks[0], dim=-1):
            W = pyro.sample("A0", dist.Exponential(rates[0]))
        for layer, (before, K) in enumerate(pairwise(self.ranks), start=1):
            with (
                pyro.plate(f"row of A{layer}", before, dim=-2),
                pyro.plate(f"component of A{layer}", K, dim=-1),
            ):
                W = W @ pyro.sample(f"A{layer}", dist.Exponential(rates[layer]))
        W = pyro.deterministic("W", W)
        with pyro.plate("component of H", self.rank, dim=-2), columns:
            H = pyro.sample("H", dist.Exponential(rate_H))
        if mask is not None and X is not None:
            X = torch.where(mask, X, torch.zeros_like(X))  # what lies under the mask must not leak, NaN least of all
        with rows, columns:
            return pyro.sample("X", dist.Normal(W @ H, sigma2.sqrt()).mask(True if mask is None else mask), obs=X)

    @classmethod
    def for_data(cls, X: Any, rank: int | Sequence[int], mask: Any = None, missing: str = "error") -> Self:
        """One rate for all factors, such that A_0 A_1 ... H has X's mean a priori; noise as in `ExponentialGaussian.for_data`.

        Args:
            rank: of the last layer of two, or of each layer.

        Raises:
            ValueError: the observed X has a mean or a variance that is not positive.
        """
        ranks = _ranks(*((rank, None) if isinstance(rank, Sequence) else ((), rank)))
        scale = data_scale(X, ranks[-1], mask, missing)
        rate = (math.prod(ranks) / scale.mean) ** (1 / (len(ranks) + 1))
        return cls(ranks, rate, 1.0, scale.noise)

    # What a model is

    @property
    def noise(self) -> NoisePrior:
        """The prior of σ²."""
        return NoisePrior(self.noise_shape, self.noise_scale)

    @cached_property
    @own_settings()
    def story(self) -> layers.Layers:
        """The priors, as sweeps want them."""
        rates = torch.tensor(self.rates, dtype=torch.float64)
        return layers.Layers(tuple(Exponential(rate[None, None]) for rate in rates), self.noise)

    def sites(self, N: int, D: int) -> dict[str, dict[str, int]]:
        """W, which the layers make up, H, σ², and the layers A0, A1 ..., whose rows are the components of the one before."""
        names = self.kinds
        components = dict(zip(names, self.ranks, strict=True))
        found = {"W": {"row": N, "component": self.rank}, "H": {"component": self.rank, "column": D}, "sigma2": {}}
        found["A0"] = {"row": N, names[0]: components[names[0]]}
        for layer in range(1, len(names)):
            before, own = names[layer - 1 : layer + 1]
            found[f"A{layer}"] = {before: components[before], own: components[own]}
        return found

    def derived(self, params: Params) -> dict[str, Tensor]:
        """The sites that the others make up: W (*C, N, K)."""
        return {"W": layers.product([params[site] for site in layers.sites_of(len(self.ranks))[:-1]])}

    def likelihood(self, params: Params) -> dist.Normal:
        """The distribution of X given W (*C, N, K), H (*C, K, D), sigma2 (*C,): batch shape (*C, N, D)."""
        return dist.Normal(params["W"] @ params["H"], params["sigma2"].sqrt()[..., None, None])

    def log_likelihood_at(self, params: Params, X: Matrix) -> Tensor:
        """log p(X | W, H, σ²) of the observed entries, (C,)."""
        return log_likelihood_of(X, misfit(X, params["W"], params["H"]), params["sigma2"])

    def log_prior(self, params: Params) -> Tensor:
        """log p(A0, A1 ..., H, σ²), shape (*C,)."""
        total = self.noise.log_prob(params["sigma2"])
        for site, prior in zip(layers.sites_of(len(self.ranks)), self.story.priors, strict=True):
            total = total + prior.log_prob(params[site])
        return total

    def require_modes(self) -> None:
        """Nothing: exponential priors have modes."""

    def require_proper(self) -> None:
        """Every prior is proper."""

    def require_fits(self, shape: tuple[int, int]) -> None:
        """The priors are for X of any shape."""

    def rescaled(self, size: float) -> Self:
        """The same model with priors under which the entries of W and of H are so many times as large."""
        first, *between, last = self.rates
        return replace(self, rates=(first / size, *between, last / size))

    def for_rows(self, rows: range) -> Self:
        """The same: no prior is for one row alone."""
        return self

    # What methods ask for

    def begin(self, X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
        """A start by its name ("scaled", "prior", "nndsvd"), or values: of all layers, or of W and H alone."""
        if isinstance(how, str) and how not in STARTS:
            names = ", ".join(map(repr, STARTS))
            raise ValueError(f"init is {how!r}{meant(how, STARTS)}; give {names}, a dict with W and H, or a Posterior")
        if how == "nndsvd":
            how = jittered_nndsvd(self.rank, X, stream)
        given = self._drawn(X, stream, how) if isinstance(how, str) else dict(how)
        factors = self._layers_of(given)
        params = {site: values.to(X.dtype) for site, values in layers.named(factors).items()}
        left = misfit(X, params["W"], params["H"])
        sigma2 = given.get("sigma2", self.noise.mode(left, X.n_observed))
        return {**params, "sigma2": sigma2.to(X.dtype)}

    def _drawn(self, X: Matrix, stream: Stream, how: str) -> dict[str, Tensor]:
        """Exponential draws of each factor: from the prior, or so large that their product has X's mean."""
        unit = layers.start_of(stream, self._shapes(X.shape), X.device)
        size = (abs(X.mean()) / math.prod(self.ranks)) ** (1 / len(unit)) or 1.0
        sizes = [1 / rate for rate in self.rates] if how == "prior" else [size] * len(unit)
        drawn = {site: s * F for site, s, F in zip(layers.sites_of(len(self.ranks)), sizes, unit, strict=True)}
        return drawn | ({"sigma2": self.noise.prior_draw(stream, X.device)} if how == "prior" else {})

    def _shapes(self, shape: tuple[int, int]) -> list[tuple[int, int]]:
        """Of the factors, for X of a shape (N, D)."""
        sizes = (shape[0], *self.ranks, shape[1])
        return list(pairwise(sizes))

    def _layers_of(self, given: Params) -> list[Tensor]:
        """The factors that are given; where W and H are alone, layers that pass W's columns on, and nearly nothing else."""
        sites = layers.sites_of(len(self.ranks))
        absent = [site for site in sites if site not in given]
        if not absent:
            return [given[site] for site in sites]
        if len(absent) < len(self.ranks):
            raise ValueError(f"init lacks {', '.join(absent)}; give all layers, or W and H alone")
        W = given["W"]
        at = torch.arange(self.ranks[0], device=W.device) % self.rank
        passing = [_passing(*pair).to(W)[None].expand(len(W), -1, -1) for pair in pairwise(self.ranks)]
        return [W[..., at], *passing, given["H"]]

    def prior_draws(self, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
        """n draws of every site from the prior, float64."""
        shapes = self._shapes(shape)
        counts = [rows * columns for rows, columns in shapes]
        *of_factors, of_noise = stream.uniforms(0, Site.START, range(n), sum(counts) + 1)[0].split([*counts, 1], dim=-1)
        drawn = [-u.log().reshape(n, *own) / rate for u, own, rate in zip(of_factors, shapes, self.rates, strict=True)]
        return {**layers.named(drawn), "sigma2": self.noise.prior_draws(of_noise[:, 0])}

    def sweep(self, params: Params, X: Matrix, asked: Sweeps, at: Address | None) -> Swept:
        """So many sweeps: each layer, H, σ², and moves along the ridges between the layers."""
        return layers.swept(self.story, X, params, asked, at)

    @property
    def kinds(self) -> list[str]:
        """What the components of each layer are called in `sites`."""
        return [*(f"layer {layer}" for layer in range(len(self.ranks) - 1)), "component"]

    def classes(self) -> list[int]:
        """For each component of the last layer the first one with its priors: all have the same."""
        return [0] * self.rank

    def reference(self, draws: Params, width: float) -> chained_path.Fitted:
        """Independent rectified normals and an inverse gamma with the moments of draws (S, *site), variances times `width`."""
        return chained_path.fitted(draws, width, self._priors, self.noise, self.derived, aligned=len(self.ranks) - 1)

    def sweep_between(
        self, reference: chained_path.Fitted, params: Params, X: Matrix, asked: Sweeps, at: Address | None
    ) -> Swept:
        """Sweeps that leave [p(X | θ) p(θ)]^β r(θ)^(1-β) as it is, β = `asked.power`; log_likelihood is log p(X | θ)."""
        priors, noise = chained_path.between(self._priors, self.noise, reference, asked.power)
        return layers.swept(layers.Layers(tuple(priors.values()), noise), X, params, asked, at)

    @property
    def _priors(self) -> dict[str, RectifiedPrior]:
        """Of each factor, by its site."""
        return dict(zip(layers.sites_of(len(self.ranks)), self.story.priors, strict=True))


def _ranks(ranks: Any, rank: Any) -> tuple[int, ...]:
    """The ranks of the layers, checked."""
    if isinstance(ranks, Sequence) and not ranks:
        if rank is None:
            raise ValueError("ranks is empty; give the ranks of the layers, such as ranks=(9, 4)")
        last = whole_number("rank", rank, 1)
        return (2 * last, last)
    given = ranks if isinstance(ranks, Sequence) and not isinstance(ranks, str) else (ranks,)
    found = tuple(whole_number("each of ranks", one, 1) for one in given)
    if rank is not None and rank != found[-1]:
        raise ValueError(f"rank is {described(rank)} beside ranks {found}; leave it out, for it is the last of them")
    return found


def _rates(rates: Any, count: int) -> tuple[float, ...]:
    """A rate for each factor, checked."""
    given = rates if isinstance(rates, Sequence) and not isinstance(rates, str) else (rates,) * count
    if len(given) != count:
        raise ValueError(
            f"rates has {len(given)} numbers and there are {count} factors; give a number, or one a factor"
        )
    return tuple(real_number("rates", rate) for rate in given)


def _passing(before: int, K: int) -> Tensor:
    """A layer (before, K) that passes component k on to component k modulo K, which those that it gets share."""
    into = torch.arange(before)[:, None] % K == torch.arange(K)
    own = into.double() / into.sum(0).clamp(min=1)
    return (1 - LEAK) * own + LEAK / before
