"""PAE-NMF: exponential loadings, a Gaussian likelihood, and an encoder in place of the loadings' posterior.

Squires, Prügel-Bennett, Niranjan (2019). Their V, W_f, h are our Xᵀ, Hᵀ, W: a data point is their column and our row.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, ClassVar, NamedTuple, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Weibull

import ppnmf.distributions  # noqa: F401  registers the divergences between Weibulls
from ppnmf.checks import one_of, whole_number
from ppnmf.data.containers import BOOLEANS, opened
from ppnmf.data.labelled import Labelled, beside, listed, names_of, order, taken
from ppnmf.data.matrix import Dense, as_mask, as_matrix, as_tensor, in_memory, without_noise
from ppnmf.data.sharded import Excerpt, Sharded
from ppnmf.gaussian.statistics import of_all_rows
from ppnmf.models import weibull
from ppnmf.models.elbo import analytic_elbo, elbo_at
from ppnmf.models.encoding import Encoding, Floored, Smooth, Start
from ppnmf.nndsvd import nndsvd
from ppnmf.protocols import Asked, Entries, Params, Recipe
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings

__all__ = ["PAENMF", "Published"]

LEAST_NOISE = 1e-10  # of the mean square of X: keeps a learned σ² positive where X is explained exactly
LEAST_START = 1e-4  # likewise, of the σ² that is begun with: Adam does not come back from a tiny one
MOST_ROWS = 10_000  # rows that the start is found on
SWEEPS = 100  # of ordinary NMF, for the start
JITTER = 0.5  # standard deviation of the logarithm that sets restarts apart
PER_COLUMN = "per column"
RELEASED_UNIFORMS = (0.35, 0.65)  # the authors' code draws ε between these
TRAINING = {"random": "sampled", "median": "median"}  # the paper's word -> the objective


class Published(NamedTuple):
    """The paper's choices: train on one draw a step or on the guide's median, with the divergence to the prior or without.

    `released`: draw ε from [0.35, 0.65] only, as the authors' code does.
    """

    training: str = "random"
    divergence: bool = True
    released: bool = False

    @property
    def recipe(self) -> Recipe:
        uniforms = RELEASED_UNIFORMS if self.released and self.training == "random" else None
        return Recipe(TRAINING[self.training], self.divergence, uniforms, normalised=True, learning_rate=0.005)


class PAENMF(nn.Module):
    r"""W_ik ~ Weibull(1, 1), an exponential; X_i ~ Normal(W_i H, σ²); guide W_ik ~ Weibull(k_ik, λ_ik), from X_i.

    H >= 0 and σ² are parameters, in X's own units: scaling X scales H, and W keeps its prior. The module has no
    weights until `ppnmf.fit` (or `initialise`, or `load_state_dict`) has told it the number of columns. Inside, the
    encoder reads principal coordinates of X with about unit variance, a fixed affine map that training does not
    change: with encoder="linear", k and λ are still functions of one linear layer of X_i, as in the paper.
    `PAENMF.paper` gives the paper's own setting. Being a module it equals itself alone; `ppnmf.models.same` compares weights.

    Args:
        rank: K, the number of components.
        sigma2: noise variance in units of X squared; None: it is learned; "per column": one for each column is.
        encoder: "linear", one linear layer for each of k and λ, or the widths of the hidden layers they share.
        published: the paper's choices (`Published`), or None: ours.

    Raises:
        ValueError: a rank below 1, a variance that is not positive, an encoder that is neither of the two, choices that
            are not the paper's.

    References: Squires, Prügel-Bennett, Niranjan (2019), "A Variational Autoencoder for Probabilistic Non-Negative
        Matrix Factorisation", arXiv:1906.05912.
    """

    name: ClassVar[str] = "pae_nmf"
    accepts: ClassVar[Entries] = Entries.NOT_NEGATIVE

    unit: Tensor  # root mean square of X: the parameters below are on this scale
    centre: Tensor  # (D,), the means of X's columns
    basis: Tensor | None  # (D, C), from X - centre to the encoder's coordinates; None: it reads X

    def __init__(
        self,
        rank: int,
        sigma2: float | str | None = None,
        encoder: str | Sequence[int] = "linear",
        published: Published | Sequence[Any] | None = None,
    ) -> None:
        super().__init__()
        self.rank = whole_number("rank", rank, 1)
        self.per_column, self.fixed_sigma2 = _noise(sigma2)
        self.widths = _widths(encoder)
        self.published = None if published is None else _published(published, self.widths)
        self.recipe = Recipe() if self.published is None else self.published.recipe
        self.encoding: Encoding = Smooth() if self.published is None else Floored()

    @classmethod
    def paper(
        cls, rank: int, training: str = "random", divergence: bool = True, released: bool = False, sigma2: float = 0.5
    ) -> Self:
        """The published setting: a linear encoder with floors; `ppnmf.fit(..., method="svi")` then trains as published.

        That is: on the squared error / 2σ² at one draw of W a step, or at the guide's median, plus the divergence to
        the prior; full batches; H from ordinary NMF with noise, its negative entries set to zero after each step. What
        the paper leaves open is as in the authors' code: no bias, floors of 1e-3, σ² = 1/2, steps along gradients
        divided by their norm, a step that is not finite left out. X is scaled beforehand (theirs to maxima of one).

        Args:
            training: "random", one draw a step, or "median".
            divergence: is the divergence to the prior part of the objective?
            released: draw the uniforms behind W from [0.35, 0.65] only, as the authors' code does.
        """
        return cls(rank, sigma2, "linear", Published(training, divergence, released))

    @classmethod
    def for_data(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        """The model of that rank: training finds the scale of X."""
        return cls(rank)

    def config(self) -> dict[str, Any]:
        sigma2 = PER_COLUMN if self.per_column else self.fixed_sigma2
        published = None if self.published is None else tuple(self.published)
        return {"rank": self.rank, "sigma2": sigma2, "encoder": self.widths or "linear", "published": published}

    # The story and its guide

    def forward(
        self,
        X: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        shape: tuple[int, int] | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """The generative story, a Pyro program. X (N, D) is observed where `mask` is True; with X None, it is drawn.

        Args:
            shape: (N, D) to draw, where X is None.
            rows: a mini-batch: the rows to look at, their log density scaled by N / len(rows).

        Raises:
            RuntimeError: the module has no weights yet.
            ValueError: neither X nor shape is given, or D is not that of the weights.
        """
        (N, D), one = self._shape_of(X, shape), self.H.new_ones(())
        H = pyro.deterministic("H", self.H, event_dim=2)
        sigma2 = pyro.deterministic("sigma2", self.sigma2)
        row = pyro.plate("row", N, subsample=rows, dim=-2)
        X, mask = _observed(X, mask, rows)
        with row, pyro.plate("component", self.rank, dim=-1):
            W = pyro.sample("W", dist.Weibull(one, one))
        with row, pyro.plate("column", D, dim=-1):
            return pyro.sample("X", dist.Normal(W @ H, sigma2.sqrt()).mask(True if mask is None else mask), obs=X)

    def guide(
        self,
        X: Tensor,
        mask: Tensor | None = None,
        *,
        shape: tuple[int, int] | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """The guide, a Pyro program with the arguments of the story: W_ik ~ Weibull(k_ik, λ_ik). Returns W."""
        row = pyro.plate("row", len(X), subsample=rows, dim=-2)
        X, mask = _observed(X, mask, rows)
        weibull = self.posterior(self.coordinates(X, mask))
        with row, pyro.plate("component", self.rank, dim=-1):
            return pyro.sample("W", dist.Weibull(weibull.scale, weibull.concentration))

    # What is done with a fitted model

    @own_settings()
    @torch.no_grad()
    def encode(self, X: Any, mask: Any = None) -> Weibull:
        """The guide's distribution of the loadings of new rows X (N, D): batch shape (N, K).

        Its parameters are `.concentration` and `.scale`; `.mean`, `.icdf(q)` (the median, or both ends of an interval) and
        `.sample()` are right for any of them. X is cast to the weights' dtype. Where `mask` is False the encoder sees
        the column's mean in the training data.

        The columns of a DataFrame or another labelled container are found by their names (`columns`), in any order; of
        an array, and of columns without names, they are taken by position.

        Warns: X's columns have names and those of the training data had none.

        Raises:
            RuntimeError: the module has no weights yet.
            ValueError: X is no matrix, has another number of columns, or other names of columns, more or fewer than
                the training data, or an observed entry that is negative or not finite; the mask does not fit.
        """
        return self._guide_of(self._rows(opened("X", X), mask))

    @own_settings()
    @torch.no_grad()
    def decode(self, W: Any) -> Tensor:
        """The mean W @ H (N, D) of the rows with loadings W (N, K). Raises ValueError for another number of loadings."""
        loadings = self._cast(W)
        if not loadings.ndim or loadings.shape[-1] != self.rank:
            raise ValueError(f"W has shape {tuple(loadings.shape)}; loadings (N, {self.rank}) are needed, K a row")
        return loadings @ self.H

    @own_settings()
    def interpolate(self, start: Any, end: Any, steps: int = 10) -> Tensor:
        """Rows (steps, D) on the way from one row (D,) to another, by equal steps between the means of their loadings.

        The first and the last are reconstructions of the two. The columns of a Series or of a DataFrame of one row are
        found by their names, as in `encode`. Raises ValueError as `encode` does, and for fewer than two steps.
        """
        first, last = (self._guide_of(self._rows(_one_row(row), None)).mean[0] for row in (start, end))
        share = torch.linspace(0, 1, whole_number("steps", steps, 2), dtype=first.dtype, device=first.device)
        return self.decode(torch.lerp(first, last, share[:, None]))

    @own_settings()
    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> Tensor:
        """n new rows (n, D): W from its prior, X from the likelihood.

        The noise is Gaussian, so entries can be negative; they are not clipped. (The paper shows the means, `decode`.)
        """
        stream, H, rows = Stream.of(seed), self.H, range(whole_number("n", n, 0))
        W = -stream.uniforms(0, Site.W, rows, self.rank, H.device)[0].log()
        noise = torch.special.ndtri(stream.uniforms(0, Site.DATA, rows, H.shape[1], H.device)[0])
        return (W @ H.double() + self.sigma2.double().sqrt() * noise).to(H.dtype)

    @own_settings()
    def log_likelihood(self, X: Any, mask: Any = None, *, draws: int = 1000, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The importance-weighted bound on log p(x_i | H, σ²) of each row of X (N, D), and its standard errors.

        Both are in nats, float64, shape (N,): `ppnmf.models.importance.weigh`, which also gives the effective
        numbers of weights. It depends on the observed entries alone.

        Args:
            draws: of each row's loadings from the guide; the bound rises with their number.

        Warns: some rows' weights are poor.

        Raises:
            RuntimeError, ValueError: as `encode`; fewer than two draws.
        """
        from ppnmf.models.importance import weigh

        found = weigh(self, self._rows(opened("X", X), mask), draws=draws, seed=seed)
        for doubt in found.doubts():
            warnings.warn(f"log_likelihood: {doubt}", stacklevel=2)
        return found.values, found.errors

    def proposal(self, X: Tensor, mask: Tensor | None = None, widened: bool = True) -> weibull.Widened:
        """What importance sampling draws the loadings of rows X (N, D) from: the guide, widened or as it is."""
        guide = self.posterior(self.coordinates(X, mask))
        return weibull.Widened(guide, 1 / (self.rank + 1) if widened else 0.0)

    def likelihood(self, params: Params) -> torch.distributions.Normal:
        """p(X | W, H, σ²), batch shape (*C, N, D); σ² is the mean over the columns where they differ."""
        variance = params["sigma2"][..., None, None] * self.relative_noise.detach()
        return torch.distributions.Normal(params["W"] @ params["H"], variance.sqrt())

    def sites(self, N: int, D: int) -> dict[str, dict[str, int]]:
        """The factors and the noise variance; H and sigma2 are parameters."""
        K = self.rank
        return {"W": {"row": N, "component": K}, "H": {"component": K, "column": D}, "sigma2": {}}

    def factors(self, params: Params) -> tuple[Tensor, Tensor]:
        """W (*C, N, K) and H (*C, K, D)."""
        return params["W"], params["H"]

    @own_settings()
    @torch.no_grad()
    def log_joint(self, X: Tensor, W: Tensor, mask: Tensor | None = None) -> Tensor:
        """log p(x_i, w_i | H, σ²) of each row of X (N, D) with draws W (S, N, K) of its loadings: (S, N), float64.

        The squared error is expanded around the median of the draws, where nothing cancels: it costs N K² a draw in
        place of N K D.
        """
        precision = self.sigma2.double().reciprocal().expand(X.shape[1])
        H, centre = self.H.double() * precision.sqrt(), W.double().median(0).values  # columns in units of their noise
        residual = X.double() * precision.sqrt() - centre @ H
        if mask is None:
            Q, constant = H @ H.mT, (precision.log() - math.log(2 * math.pi)).sum()
        else:
            residual, known = torch.where(mask, residual, 0.0), Dense(torch.zeros_like(residual), mask)
            Q = of_all_rows(known, H[None]).Q[0]  # (N, K, K)
            constant = mask.double() @ (precision.log() - math.log(2 * math.pi))
        change = W.double() - centre
        moved = change @ Q if mask is None else (change[..., None, :] @ Q)[..., 0, :]
        error = residual.square().sum(1) + (change * (moved - 2 * (residual @ H.mT))).sum(-1)
        return 0.5 * (constant - error) - W.double().sum(-1)  # log p(w) = -w: Weibull(1, 1)

    @torch.no_grad()
    def _guide_of(self, rows: Dense) -> Weibull:
        return self.posterior(self.coordinates(rows.values, rows.mask))

    def _rows(self, given: Labelled, mask: Any) -> Dense:
        """New rows, checked, their columns in the order of the fit; zero where missing."""
        seen = None if mask is None else beside("mask", opened("mask", mask, BOOLEANS), given)
        places, X = self._places(given), given.values
        if places is not None:
            X, seen = taken(X, 1, places), None if seen is None else taken(seen, 1, places)
        values = self._cast(as_tensor(X))
        if values.ndim != 2:
            raise ValueError(
                f"X has shape {tuple(values.shape)}; rows (N, D) are needed: pass X[None] for a single one"
            )
        self._shape_of(values, None)
        values, observed = _observed(values, None if seen is None else as_mask(seen, values), None)
        if not bool(values.isfinite().all()):
            raise ValueError("X has entries that are not finite; hide them with a mask (True where observed)")
        if bool((values < 0).any()):
            raise ValueError(f"X has {int((values < 0).sum())} negative entries; {self.name} needs data >= 0")
        return Dense(values, observed)

    def _places(self, X: Labelled) -> list[int] | None:
        """Where in X the columns of the fit are; None: X has them in their order, or has no names for them."""
        names = X.names.columns
        if names is None:
            return None
        if self.columns is None:
            warnings.warn(
                f"X's columns have names ({listed(names)}), and those that {self.name} was fitted to had none: they are "
                "taken by position",
                stacklevel=5,
            )
            return None
        return order(
            names,
            self.columns,
            f"X's columns are not those that {self.name} was fitted to",
            "give each of these once and no others, in any order",
        )

    # Parameters

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The names of X's columns, where it was fitted to columns with names."""
        told = getattr(self, "column_names", None)
        return None if told is None else tuple(json.loads(bytes(told.tolist())))

    @columns.setter
    def columns(self, names: Sequence[str] | None) -> None:
        told = None if names is None else torch.tensor(list(json.dumps(names).encode()), dtype=torch.uint8)
        self.register_buffer("column_names", told)  # in the state, so that they are saved and loaded with the weights

    @property
    def is_initialised(self) -> bool:
        return hasattr(self, "relative_H")

    @property
    def H(self) -> Tensor:
        """The components (K, D), in X's units."""
        if not self.is_initialised:
            raise RuntimeError("this PAENMF has no weights yet; ppnmf.fit gives them, or initialise(X)")
        return self.unit * self.relative_H

    @property
    def sigma2(self) -> Tensor:
        """The noise variance, learned or given, in units of X squared: () or, per column, (D,)."""
        if self.fixed_sigma2 is not None:
            return self.H.new_tensor(self.fixed_sigma2)
        return self.unit.square() * self.relative_sigma2

    @property
    def relative_sigma2(self) -> Tensor:
        """`sigma2` in units of `unit` squared."""
        if self.fixed_sigma2 is not None:
            return self.fixed_sigma2 / self.unit / self.unit
        return LEAST_NOISE + self.log_noise.exp()

    @property
    def relative_noise(self) -> Tensor:
        """Each column's noise variance over their mean: (D,) or, where they are one, ()."""
        return self.sigma2 / self.sigma2.mean()

    def project(self) -> None:
        """Set the negative entries of H to zero, in place: after each step of an optimiser."""
        with torch.no_grad():
            self.relative_H.clamp_(min=0)

    def coordinates(self, X: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the encoder reads (N, C): X on its principal directions; a missing entry counts as its column's mean."""
        if self.basis is None:
            return X if mask is None else torch.where(mask, X, self.centre)
        deviations = X - self.centre
        return (deviations if mask is None else torch.where(mask, deviations, 0.0)) @ self.basis

    def posterior(self, coordinates: Tensor) -> Weibull:
        """The guide's distribution of W (N, K), from the encoder's coordinates (N, C)."""
        guide = self.encoding.guide(*self.outputs(coordinates))
        return weibull.Weibull(*guide, validate_args=False)

    def outputs(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """What the two last layers give (N, K): the encoding makes λ of the one and k of the other."""
        features = self.body(coordinates)
        return self.to_scale(features), self.to_concentration(features)

    def bound(self, X: Tensor, mask: Tensor | None, outputs: tuple[Tensor, ...], asked: Asked) -> Tensor:
        """The ELBO summed over rows X (B, D), in nats, or what stands for it (`protocols.Asked`)."""
        guide, u = self.encoding.guide(*outputs), asked.uniforms
        H = self.H.detach() if asked.frozen else self.H
        if u is None:
            parts = analytic_elbo(X, guide, H, self.relative_sigma2, mask, self.unit)
        else:
            W = guide.scale * (-u.log()) ** guide.concentration.reciprocal()
            parts = elbo_at(W, X, guide, H, self.relative_sigma2, mask, self.unit)
        return parts.value if asked.divergence else parts.log_likelihood

    def quantile(self, outputs: tuple[Tensor, ...]) -> Callable[[Tensor], Tensor]:
        """From uniforms (N, K), float64, to loadings of the guide, in the weights' dtype; never zero."""
        guide = self.encoding.guide(*outputs)
        scale, power = guide.scale.double(), guide.concentration.double().reciprocal()
        kind = guide.scale.dtype
        return lambda u: (scale * (-u.log()) ** power).to(kind).clamp(min=torch.finfo(kind).tiny)

    def fitted(self) -> dict[str, Tensor]:
        """H (K, D), and sigma2 (), the mean over the columns where they differ."""
        return {"H": self.H.detach(), "sigma2": self.sigma2.detach().mean()}

    def require_columns(self, D: int, names: Sequence[str] | None) -> None:
        """Raise ValueError where it has weights for another number of columns, or for others by their names."""
        if not self.is_initialised:
            return
        if self.H.shape[1] != D:
            raise ValueError(
                f"X has {D} columns and the model has weights for {self.H.shape[1]}; start from a new model"
            )
        if self.columns and names and self.columns != tuple(names):
            raise ValueError(
                f"X's columns ({listed(names)}) are not those that the model was fitted to, in their order "
                f"({listed(self.columns)}): pass X with these columns, or start from a new model"
            )

    def free_parameters(self, D: int) -> int:
        """Those of H, and of σ² where it is learned, for D columns."""
        return D * self.rank + (D if self.per_column else int(self.fixed_sigma2 is None))

    # The start

    @own_settings()
    @torch.no_grad()
    def initialise(self, X: Any, seed: int = 0) -> Self:
        """Build the layers for X (N, D) and start them: H from ordinary NMF, the encoder by regressing that NMF's W.

        The components are scaled so that W has mean one, its prior's. The start is found on at most 10 000 rows, spread
        evenly; missing entries are filled in as the NMF goes. It depends on the seed only; no global generator is used.

        A joint mode of W and H, as ICM finds, is no start: with H free, the prior of W draws W to zero and H to infinity.
        (Leukaemia, rank 4: training ends at 745 nats from there and at 190 from here, ½ N D log π left out.)

        Raises ValueError where X is neither a `Dense`, nor has its rows over processes, nor is what `as_matrix` takes.
        """
        if isinstance(X, Sharded):
            X = X.excerpt(MOST_ROWS)
        if not isinstance(X, Dense | Excerpt):
            X = in_memory(without_noise(as_matrix(X), self.name), self.name)
        N = len(X.values)
        kept = torch.arange(N, device=X.device)[:: -(-N // MOST_ROWS)]
        values, mask = _observed(X.values, X.mask, kept)
        unit = self.encoding.unit(math.sqrt(X.sum_of_squares / X.n_observed) or 1.0)
        centre, stream = X.column_means(), Stream.of(seed)
        filled = values if mask is None else torch.where(mask, values, centre)
        W, H, errors = _ordinary_nmf(filled / unit, mask, self.rank, stream)
        basis = self.encoding.basis((filled - centre) / unit, stream)
        self._build(centre, None if basis is None else basis / unit)
        self.columns = names_of(X).columns
        self.unit.fill_(unit)
        squares = (values / unit).square().sum(0)
        noise = self._first_noise(errors, squares, len(values) if mask is None else mask.sum(0))
        _random_weights(self.body, stream)
        told = Start(W, H, noise, self.body(self.coordinates(filled)))
        self.relative_H.copy_(self.encoding.start(self.to_scale, self.to_concentration, told, stream))
        return self

    def restarted(self, X: Any, number: int, seed: int) -> PAENMF:
        """A copy for one of several trainings: itself for number 0, others started with their components jittered."""
        if number == 0:
            return self
        own = PAENMF(**self.config()).to(dtype=X.dtype, device=X.device).initialise(X, seed)
        u = Stream.of(seed, replicates=(number,)).uniforms(0, Site.START, range(self.rank), X.shape[1], X.device)[0]
        with torch.no_grad():
            own.relative_H.mul_((JITTER * torch.special.ndtri(u)).exp())
        return own

    def _first_noise(self, errors: Tensor, squares: Tensor, observed: Tensor | int) -> Tensor:
        """The noise variance to begin with, relative to unit², from each column's sums of squared errors and of X² (D,)."""
        if self.fixed_sigma2 is not None:
            return self.relative_sigma2
        seen = torch.as_tensor(observed, device=errors.device).expand(errors.shape)
        noise = LEAST_NOISE + torch.maximum(errors.sum(), LEAST_START * squares.sum()) / seen.sum()
        if self.per_column:
            own = LEAST_NOISE + torch.maximum(errors, LEAST_START * squares) / seen.clamp(min=1)
            noise = torch.where(seen > 0, own, noise)
        self.log_noise.copy_(noise.log())
        return noise

    @own_settings()
    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As any module's; layers that are not there yet are built to fit."""
        if not self.is_initialised:
            self._build(state_dict["centre"], state_dict.get("basis"))
        names = state_dict.get("column_names")
        self.register_buffer("column_names", None if names is None else names.clone())
        return super().load_state_dict(state_dict, *args, **kwargs)

    def _build(self, centre: Tensor, basis: Tensor | None) -> None:
        """Buffers, layers and parameters, of the dtype and on the device of these; the parameters' values come later."""
        kind: dict[str, Any] = {"dtype": centre.dtype, "device": centre.device}
        columns = len(centre)
        self.register_buffer("unit", torch.ones((), **kind))
        self.register_buffer("centre", centre.clone())
        self.register_buffer("basis", None if basis is None else basis.clone())
        self.relative_H = nn.Parameter(torch.zeros(self.rank, columns, **kind))
        if self.fixed_sigma2 is None:
            self.log_noise = nn.Parameter(torch.zeros(columns if self.per_column else (), **kind))
        sizes, layers = (columns if basis is None else basis.shape[1], *self.widths), []
        for before, after in zip(sizes, self.widths, strict=False):
            layers += [nn.utils.skip_init(nn.Linear, before, after, **kind), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        last: dict[str, Any] = {"bias": self.encoding.bias, **kind}
        self.to_scale = nn.utils.skip_init(nn.Linear, sizes[-1], self.rank, **last)
        self.to_concentration = nn.utils.skip_init(nn.Linear, sizes[-1], self.rank, **last)

    def _cast(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=self.H.dtype, device=self.H.device)

    def _shape_of(self, X: Tensor | None, shape: tuple[int, int] | None) -> tuple[int, int]:
        if X is None and shape is None:
            raise ValueError("neither X nor shape=(N, D) is given; give X to observe it, or a shape to draw it")
        N, D = shape if X is None else X.shape  # type: ignore[misc]
        if self.H.shape[1] != D:
            raise ValueError(f"{D} columns are asked of a PAENMF with weights for {self.H.shape[1]}")
        return N, D


def _one_row(row: Any) -> Labelled:
    """A row as a matrix (1, D)."""
    given = opened("a row", row)
    if given.names.rows is not None and given.columns is None:  # a series
        given = Labelled(given.values, None, given.rows)
    values = as_tensor(given.values)
    if values.ndim == 2 and len(values) != 1:
        raise ValueError(f"{len(values)} rows are given where one is needed: pass one of them")
    return given._replace(values=values if values.ndim == 2 else values[None], rows=None)


def _noise(sigma2: float | str | None) -> tuple[bool, float | None]:
    """Is there a noise variance a column? And the one that is given, or None: it is learned."""
    if sigma2 is None or (isinstance(sigma2, str) and sigma2 == PER_COLUMN):
        return sigma2 is not None, None
    if not isinstance(sigma2, Real) or isinstance(sigma2, bool) or not 0 < sigma2 < math.inf:
        raise ValueError(f"sigma2 is {sigma2!r}; give a positive number, None to learn it, or {PER_COLUMN!r}")
    return False, float(sigma2)


def _published(told: Sequence[Any], widths: tuple[int, ...]) -> Published:
    if not isinstance(told, list | tuple) or len(told) > len(Published._fields):
        raise ValueError(f"published is {told!r}; give ({', '.join(Published._fields)}), as `PAENMF.paper` does")
    choices = Published(*told)
    one_of("training", choices.training, TRAINING)
    for name in ("divergence", "released"):
        if not isinstance(getattr(choices, name), bool):
            raise ValueError(f"{name} is {getattr(choices, name)!r}; it must be True or False")
    if widths:
        raise ValueError(f"encoder is {widths!r}; the published one is 'linear'")
    return choices


def _widths(encoder: str | Sequence[int]) -> tuple[int, ...]:
    """The hidden layers' widths; none for "linear"."""
    if isinstance(encoder, str) and encoder == "linear":
        return ()
    widths = tuple(encoder) if isinstance(encoder, Iterable) and not isinstance(encoder, str) else ()
    if not widths or any(isinstance(width, bool) or not isinstance(width, int) or width < 1 for width in widths):
        raise ValueError(
            f"encoder is {encoder!r}; it must be 'linear' or the widths of hidden layers, such as (64, 32)"
        )
    return widths


def _observed(X: Tensor | None, mask: Tensor | None, rows: Tensor | None) -> tuple[Any, Tensor | None]:
    """The chosen rows of X and of its mask, X zero where missing: what lies there must not leak, NaN least of all."""
    if X is None:
        return None, None
    if rows is not None:
        X, mask = X[rows], None if mask is None else mask[rows]
    return X if mask is None else torch.where(mask, X, 0.0), mask


def _ordinary_nmf(X: Tensor, mask: Tensor | None, rank: int, stream: Stream) -> tuple[Tensor, Tensor, Tensor]:
    """W (N, K) with columns of mean one, H (K, D), the squared errors (D,): hierarchical least squares from NNDSVD.

    Missing entries of X hold a first guess, and are filled with W @ H before every sweep.
    """
    W, H = nndsvd(X, rank, stream)
    for _ in range(SWEEPS):
        W = _least_squares_sweep(W, X @ H.mT, H @ H.mT)
        H = _least_squares_sweep(H.mT, X.mT @ W, W.mT @ W).mT
        if mask is not None:
            X = torch.where(mask, X, W @ H)
    mean = W.mean(0)
    alive = mean > 1e-6
    W, H = torch.where(alive, W / mean, 1.0), torch.where(alive[:, None], H * mean[:, None], 0.01 / rank)
    return W, H, (X - W @ H).square().sum(0)


def _least_squares_sweep(F: Tensor, P: Tensor, Q: Tensor) -> Tensor:
    F = F.clone(memory_format=torch.contiguous_format)
    for k in range(F.shape[1]):
        F[:, k] = (F[:, k] + (P[:, k] - F @ Q[:, k]) / Q[k, k].clamp(min=1e-12)).clamp(min=1e-9)  # zero would absorb
    return F


def _random_weights(body: nn.Module, stream: Stream) -> None:
    """Hidden layers uniform on ±√(3 / fan-in), biases on ±1: features of about unit variance."""
    layers = [layer for layer in body.modules() if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(layers, start=1):
        rows, columns = range(layer.out_features), layer.in_features + 1
        u = 2 * stream.uniforms(number, Site.START, rows, columns, layer.weight.device)[0] - 1
        layer.weight.copy_(u[:, :-1] * math.sqrt(3 / layer.in_features)), layer.bias.copy_(u[:, -1])
