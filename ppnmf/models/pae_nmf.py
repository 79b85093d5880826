"""PAE-NMF: exponential loadings, a Gaussian likelihood, and an encoder in place of the loadings' posterior.

Squires, Prügel-Bennett, Niranjan (2019). Their V, W_f, h are our Xᵀ, Hᵀ, W: a data point is their column and our row.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Weibull

import ppnmf.distributions  # noqa: F401  registers the divergences between Weibulls
from ppnmf.checks import whole_number
from ppnmf.data.containers import opened
from ppnmf.data.labelled import names_of
from ppnmf.data.matrix import Dense, as_matrix, in_memory, without_noise
from ppnmf.data.sharded import Excerpt, Sharded
from ppnmf.gaussian.statistics import of_all_rows
from ppnmf.models import weibull
from ppnmf.models.autoencoder import Autoencoder
from ppnmf.models.elbo import analytic_elbo, elbo_at
from ppnmf.models.encoding import Floored, Smooth, Start
from ppnmf.models.new_rows import new_rows, observed, one_row, require_width
from ppnmf.models.ordinary_nmf import ordinary_nmf, random_weights
from ppnmf.models.published import PER_COLUMN, Published, hidden_widths, noise_of, published_choices
from ppnmf.protocols import Asked, Entries, Params, Recipe
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings

__all__ = ["PAENMF", "Published"]

MOST_ROWS = 10_000  # rows that the start is found on
JITTER = 0.5  # standard deviation of the logarithm that sets restarts apart


class PAENMF(Autoencoder):
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

    def __init__(
        self,
        rank: int,
        sigma2: float | str | None = None,
        encoder: str | Sequence[int] = "linear",
        published: Published | Sequence[Any] | None = None,
    ) -> None:
        widths = hidden_widths(encoder)
        choices = None if published is None else published_choices(published, widths)
        super().__init__(
            whole_number("rank", rank, 1), noise_of(sigma2), widths, Smooth() if choices is None else Floored()
        )
        self.published = choices
        self.recipe = Recipe() if choices is None else choices.recipe

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
        """What makes the same model without its weights: the arguments of the class."""
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
        N, D = self._shape_of(X, shape)
        one = self.H.new_ones(())
        H = pyro.deterministic("H", self.H, event_dim=2)
        sigma2 = pyro.deterministic("sigma2", self.sigma2)
        row = pyro.plate("row", N, subsample=rows, dim=-2)
        X, mask = observed(X, mask, rows)
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
        X, mask = observed(X, mask, rows)
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
        return self._guide_of(new_rows(self, opened("X", X), mask))

    @own_settings()
    @torch.no_grad()
    def decode(self, W: Any) -> Tensor:
        """The mean W @ H (N, D) of the rows with loadings W (N, K). Raises ValueError for another number of loadings."""
        loadings = torch.as_tensor(W, dtype=self.H.dtype, device=self.H.device)
        if not loadings.ndim or loadings.shape[-1] != self.rank:
            raise ValueError(f"W has shape {tuple(loadings.shape)}; loadings (N, {self.rank}) are needed, K a row")
        return loadings @ self.H

    @own_settings()
    def interpolate(self, start: Any, end: Any, steps: int = 10) -> Tensor:
        """Rows (steps, D) on the way from one row (D,) to another, by equal steps between the means of their loadings.

        The first and the last are reconstructions of the two. The columns of a Series or of a DataFrame of one row are
        found by their names, as in `encode`. Raises ValueError as `encode` does, and for fewer than two steps.
        """
        first, last = (self._guide_of(new_rows(self, one_row(row), None)).mean[0] for row in (start, end))
        share = torch.linspace(0, 1, whole_number("steps", steps, 2), dtype=first.dtype, device=first.device)
        return self.decode(torch.lerp(first, last, share[:, None]))

    @own_settings()
    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> Tensor:
        """n new rows (n, D): W from its prior, X from the likelihood.

        The noise is Gaussian, so entries can be negative; they are not clipped. (The paper shows the means, `decode`.)
        """
        stream = Stream.of(seed)
        H = self.H
        rows = range(whole_number("n", n, 0))
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

        found = weigh(self, new_rows(self, opened("X", X), mask), draws=draws, seed=seed)
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
        H = self.H.double() * precision.sqrt()  # columns in units of their noise
        centre = W.double().median(0).values
        residual = X.double() * precision.sqrt() - centre @ H
        log_precision = precision.log() - math.log(2 * math.pi)
        change = W.double() - centre
        if mask is None:
            constant = log_precision.sum()
            moved = change @ (H @ H.mT)
        else:
            constant = mask.double() @ log_precision
            residual = torch.where(mask, residual, 0.0)
            Q = of_all_rows(Dense(torch.zeros_like(residual), mask), H[None]).Q[0]  # (N, K, K)
            moved = (change[..., None, :] @ Q)[..., 0, :]
        error = residual.square().sum(1) + (change * (moved - 2 * (residual @ H.mT))).sum(-1)
        return 0.5 * (constant - error) - W.double().sum(-1)  # log p(w) = -w: Weibull(1, 1)

    @torch.no_grad()
    def _guide_of(self, rows: Dense) -> Weibull:
        return self.posterior(self.coordinates(rows.values, rows.mask))

    def bound(self, X: Tensor, mask: Tensor | None, outputs: tuple[Tensor, ...], asked: Asked) -> Tensor:
        """The ELBO summed over rows X (B, D), in nats, or what stands for it (`protocols.Asked`)."""
        guide = self.encoding.guide(*outputs)
        H = self.H.detach() if asked.frozen else self.H
        u = asked.uniforms
        if u is None:
            parts = analytic_elbo(X, guide, H, self.relative_sigma2, mask, self.unit)
        else:
            W = guide.scale * (-u.log()) ** guide.concentration.reciprocal()
            parts = elbo_at(W, X, guide, H, self.relative_sigma2, mask, self.unit)
        return parts.value if asked.divergence else parts.log_likelihood

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
        X = _rows_to_start_on(X, self.name)
        kept = torch.arange(len(X.values), device=X.device)[:: -(-len(X.values) // MOST_ROWS)]
        values, mask = observed(X.values, X.mask, kept)
        unit = self.encoding.unit(math.sqrt(X.sum_of_squares / X.n_observed) or 1.0)
        centre = X.column_means()
        stream = Stream.of(seed)
        filled = values if mask is None else torch.where(mask, values, centre)
        begun = ordinary_nmf(filled / unit, mask, self.rank, stream)
        basis = self.encoding.basis((filled - centre) / unit, stream)
        self.build(centre, None if basis is None else basis / unit)
        self.columns = names_of(X).columns
        self.unit.fill_(unit)
        n_observed = len(values) if mask is None else mask.sum(0)
        noise = self.begin_noise(begun.errors, (values / unit).square().sum(0), n_observed)
        random_weights(self.body, stream)
        start = Start(begun.W, begun.H, noise, self.body(self.coordinates(filled)))
        self.relative_H.copy_(self.encoding.start(self.to_scale, self.to_concentration, start, stream))
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

    def _shape_of(self, X: Tensor | None, shape: tuple[int, int] | None) -> tuple[int, int]:
        if X is None and shape is None:
            raise ValueError("neither X nor shape=(N, D) is given; give X to observe it, or a shape to draw it")
        N, D = shape if X is None else X.shape  # type: ignore[misc]
        require_width(self, D)
        return N, D


def _rows_to_start_on(X: Any, name: str) -> Dense | Excerpt:
    """X, or of rows over processes some that all of them get."""
    if isinstance(X, Sharded):
        X = X.excerpt(MOST_ROWS)
    return X if isinstance(X, Dense | Excerpt) else in_memory(without_noise(as_matrix(X), name), name)
