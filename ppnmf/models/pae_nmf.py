"""PAE-NMF: exponential loadings, a Gaussian likelihood, and an encoder in place of the loadings' posterior.

Squires, Prügel-Bennett, Niranjan (2019). Their V, W_f, h are our Xᵀ, Hᵀ, W: a data point is their column and our row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Weibull, kl_divergence
from torch.nn.functional import softplus

import ppnmf.distributions  # noqa: F401  registers the divergences between Weibulls
from ppnmf.checks import whole_number
from ppnmf.data.matrix import Dense, as_mask, as_tensor
from ppnmf.nndsvd import leading_singular, nndsvd
from ppnmf.protocols import Params
from ppnmf.rng import Site, Stream

__all__ = ["PAENMF", "Elbo", "analytic_elbo", "weibull_moments"]

LEAST, MOST = 0.1, 100.0  # bounds of the guide's k: outside them its gradients overflow or its draws coarsen
SHARPNESS = 0.1  # λ is linear in the encoder's output above this, exponential below: loadings are near zero or one
LEAST_SCALE = 1e-8
LEAST_NOISE = 1e-10  # of the mean square of X: keeps a learned σ² positive where X is explained exactly
MOST_COORDINATES = 500  # principal coordinates that the encoder reads
MOST_ROWS = 10_000  # rows that the start is found on
SWEEPS = 100  # of ordinary NMF, for the start
DAMPING = 1e-3  # directions with less than this of the greatest variance are not brought to unit variance
RIDGE = 1e-4


class Elbo(NamedTuple):
    """The evidence lower bound in its two parts, in nats."""

    log_likelihood: Tensor  # E_guide log p(X | W)
    divergence: Tensor  # KL(guide of W ‖ prior of W)

    @property
    def value(self) -> Tensor:
        return self.log_likelihood - self.divergence


def weibull_moments(guide: Weibull) -> tuple[Tensor, Tensor]:
    """Mean λΓ(1 + 1/k) and variance λ²[Γ(1 + 2/k) - Γ(1 + 1/k)²], without cancellation for large k."""
    inverse = guide.concentration.reciprocal()
    log_first = torch.lgamma(1 + inverse)
    mean = guide.scale * log_first.exp()
    return mean, mean.square() * torch.expm1(torch.lgamma(1 + 2 * inverse) - 2 * log_first)


def analytic_elbo(X: Tensor, guide: Weibull, H: Tensor, sigma2: Tensor, mask: Tensor | None = None) -> Elbo:
    r"""The evidence lower bound, exact: the likelihood is quadratic in W, and a Weibull's two moments are known.

    .. math:: E\|x - wH\|^2 = \|x - E[w] H\|^2 + \sum_k Var[w_k] \|H_k\|^2,

    both norms over the observed columns of the row.

    Args:
        X: (N, D); what lies under the mask is never read.
        guide: of W, batch shape (N, K).
        H: (K, D).
        sigma2: the noise variance, ().
        mask: boolean (N, D), True where observed.
    """
    mean, variance = weibull_moments(guide)
    residual = X - mean @ H
    if mask is None:
        spread = variance.sum(0) @ H.square().sum(1)
    else:
        residual = torch.where(mask, residual, 0.0)
        spread = (variance * (mask.to(H.dtype) @ H.square().mT)).sum()
    error, observed = residual.square().sum() + spread, X.numel() if mask is None else mask.sum()
    log_likelihood = -0.5 * (error / sigma2 + observed * (math.log(2 * math.pi) + sigma2.log()))
    return Elbo(log_likelihood, kl_divergence(guide, _prior(H)).sum())


class PAENMF(nn.Module):
    r"""W_ik ~ Weibull(1, 1), an exponential; X_i ~ Normal(W_i H, σ²); guide W_ik ~ Weibull(k_ik, λ_ik), from X_i.

    H >= 0 and σ² are parameters, in X's own units: scaling X scales H, and W keeps its prior. The module has no
    weights until `ppnmf.fit` (or `initialise`, or `load_state_dict`) has told it the number of columns. Inside, the
    encoder reads principal coordinates of X with about unit variance, a fixed affine map that training does not
    change: with encoder="linear", k and λ are still functions of one linear layer of X_i, as in the paper.

    Args:
        rank: K, the number of components.
        sigma2: noise variance in units of X squared, or None: it is learned.
        encoder: "linear", one linear layer for each of k and λ, or the widths of the hidden layers they share.

    Raises:
        ValueError: a rank below 1, a variance that is not positive, an encoder that is neither of the two.

    References: Squires, Prügel-Bennett, Niranjan (2019), "A Variational Autoencoder for Probabilistic Non-Negative
        Matrix Factorisation", arXiv:1906.05912.
    """

    name: ClassVar[str] = "pae_nmf"
    accepts_negative: ClassVar[bool] = False

    unit: Tensor  # root mean square of X: the parameters below are on this scale
    centre: Tensor  # (D,), the means of X's columns
    basis: Tensor  # (D, C), from X - centre to the encoder's coordinates

    def __init__(self, rank: int, sigma2: float | None = None, encoder: str | Sequence[int] = "linear") -> None:
        super().__init__()
        if sigma2 is not None and not 0 < float(sigma2) < math.inf:
            raise ValueError(f"sigma2 is {sigma2!r}; it must be a positive number, or None to learn it")
        self.rank = whole_number("rank", rank, 1)
        self.fixed_sigma2 = None if sigma2 is None else float(sigma2)
        self.widths = _widths(encoder)

    def config(self) -> dict[str, Any]:
        return {"rank": self.rank, "sigma2": self.fixed_sigma2, "encoder": self.widths or "linear"}

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

    @torch.no_grad()
    def encode(self, X: Any, mask: Any = None) -> Weibull:
        """The guide's distribution of the loadings of new rows X (N, D): batch shape (N, K).

        X is cast to the weights' dtype. Where `mask` is False the encoder sees the column's mean in the training data.

        Raises:
            RuntimeError: the module has no weights yet.
            ValueError: X is no matrix, has another number of columns, or an observed entry that is negative or not
                finite; the mask does not fit.
        """
        values = self._cast(as_tensor(X))
        if values.ndim != 2:
            raise ValueError(
                f"X has shape {tuple(values.shape)}; rows (N, D) are needed: pass X[None] for a single one"
            )
        self._shape_of(values, None)
        values, observed = _observed(values, None if mask is None else as_mask(mask, values), None)
        if not bool(values.isfinite().all()):
            raise ValueError("X has entries that are not finite; hide them with a mask (True where observed)")
        if bool((values < 0).any()):
            raise ValueError(f"X has {int((values < 0).sum())} negative entries; {self.name} needs data >= 0")
        return self.posterior(self.coordinates(values, observed))

    @torch.no_grad()
    def decode(self, W: Any) -> Tensor:
        """The mean W @ H (N, D) of the rows with loadings W (N, K)."""
        return self._cast(W) @ self.H

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> Tensor:
        """n new rows (n, D): W from its prior, X from the likelihood.

        The noise is Gaussian, so entries can be negative; they are not clipped. (The paper shows the means, `decode`.)
        """
        stream, H = Stream.of(seed), self.H
        W = -stream.uniforms(0, Site.W, range(n), self.rank, H.device)[0].log()
        noise = torch.special.ndtri(stream.uniforms(0, Site.DATA, range(n), H.shape[1], H.device)[0])
        return (W @ H.double() + self.sigma2.double().sqrt() * noise).to(H.dtype)

    def likelihood(self, params: Params) -> torch.distributions.Normal:
        """p(X | W, H, σ²), batch shape (*C, N, D)."""
        return torch.distributions.Normal(params["W"] @ params["H"], params["sigma2"].sqrt()[..., None, None])

    # Parameters

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
        """The noise variance, learned or given, in units of X squared."""
        if self.fixed_sigma2 is not None:
            return self.H.new_tensor(self.fixed_sigma2)
        return self.unit.square() * (LEAST_NOISE + self.log_noise.exp())

    def project(self) -> None:
        """Set the negative entries of H to zero, in place: after each step of an optimiser."""
        with torch.no_grad():
            self.relative_H.clamp_(min=0)

    def coordinates(self, X: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the encoder reads (N, C): X on its principal directions; a missing entry counts as its column's mean."""
        deviations = X - self.centre
        return (deviations if mask is None else torch.where(mask, deviations, 0.0)) @ self.basis

    def posterior(self, coordinates: Tensor) -> Weibull:
        """The guide's distribution of W (N, K), from the encoder's coordinates (N, C)."""
        features = self.body(coordinates)
        scale = LEAST_SCALE + SHARPNESS * softplus(self.to_scale(features) / SHARPNESS)
        log_concentration = math.log(LEAST) + math.log(MOST / LEAST) * torch.sigmoid(self.to_concentration(features))
        return Weibull(scale, log_concentration.exp().clamp(LEAST, MOST), validate_args=False)

    # The start

    @torch.no_grad()
    def initialise(self, X: Dense, seed: int = 0) -> Self:
        """Build the layers for X (N, D) and start them: H from ordinary NMF, the encoder by regressing that NMF's W.

        The components are scaled so that W has mean one, its prior's. The start is found on at most 10 000 rows, spread
        evenly; missing entries are filled in as the NMF goes. It depends on the seed only; no global generator is used.
        """
        N = len(X.values)
        kept = torch.arange(N, device=X.device)[:: -(-N // MOST_ROWS)]
        values, mask = _observed(X.values, X.mask, kept)
        unit = math.sqrt(X.sum_of_squares / X.n_observed) or 1.0
        centre, stream = X.column_means(), Stream.of(seed)
        filled = values if mask is None else torch.where(mask, values, centre)
        W, H, error = _ordinary_nmf(filled / unit, mask, self.rank, stream)
        basis = _principal_basis((filled - centre) / unit, stream) / unit
        self._build(basis)
        self.unit.fill_(unit), self.centre.copy_(centre), self.basis.copy_(basis), self.relative_H.copy_(H)
        noise = (
            error / (values.numel() if mask is None else mask.sum())
            if self.fixed_sigma2 is None
            else self.sigma2 / unit**2
        )
        if self.fixed_sigma2 is None:
            self.log_noise.copy_(torch.log(noise + LEAST_NOISE))
        _random_weights(self.body, stream)
        features = self.body(self.coordinates(filled))
        concentration = (1.2 * W * H.norm(dim=1) / noise.sqrt()).clamp(1, MOST / 2)  # about mean over deviation
        _regress(self.to_scale, features, _inverse_softplus(W.clamp(min=SHARPNESS / 3)))
        _regress(self.to_concentration, features, torch.logit((concentration / LEAST).log() / math.log(MOST / LEAST)))
        return self

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As any module's; layers that are not there yet are built to fit."""
        if not self.is_initialised:
            self._build(state_dict["basis"])
        return super().load_state_dict(state_dict, *args, **kwargs)

    def _build(self, basis: Tensor) -> None:
        """Buffers, layers and parameters for a basis (D, C), of its dtype, on its device; their values come later."""
        kind: dict[str, Any] = {"dtype": basis.dtype, "device": basis.device}
        columns, coordinates = basis.shape
        self.register_buffer("unit", torch.ones((), **kind))
        self.register_buffer("centre", torch.zeros(columns, **kind))
        self.register_buffer("basis", torch.zeros(columns, coordinates, **kind))
        self.relative_H = nn.Parameter(torch.zeros(self.rank, columns, **kind))
        if self.fixed_sigma2 is None:
            self.log_noise = nn.Parameter(torch.zeros((), **kind))
        sizes, layers = (coordinates, *self.widths), []
        for before, after in zip(sizes, self.widths, strict=False):
            layers += [nn.utils.skip_init(nn.Linear, before, after, **kind), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.to_scale = nn.utils.skip_init(nn.Linear, sizes[-1], self.rank, **kind)
        self.to_concentration = nn.utils.skip_init(nn.Linear, sizes[-1], self.rank, **kind)

    def _cast(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=self.H.dtype, device=self.H.device)

    def _shape_of(self, X: Tensor | None, shape: tuple[int, int] | None) -> tuple[int, int]:
        if X is None and shape is None:
            raise ValueError("neither X nor shape=(N, D) is given; give X to observe it, or a shape to draw it")
        N, D = shape if X is None else X.shape  # type: ignore[misc]
        if self.H.shape[1] != D:
            raise ValueError(f"{D} columns are asked of a PAENMF with weights for {self.H.shape[1]}")
        return N, D


def _prior(like: Tensor) -> Weibull:
    one = like.new_ones(())
    return Weibull(one, one, validate_args=False)


def _widths(encoder: str | Sequence[int]) -> tuple[int, ...]:
    """The hidden layers' widths; none for "linear"."""
    if encoder == "linear":
        return ()
    widths = () if isinstance(encoder, str) else tuple(encoder)
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


def _principal_basis(deviations: Tensor, stream: Stream) -> Tensor:
    """(D, C): coordinates on the principal directions, brought to about unit variance.

    On them Adam soon reaches what it creeps to on raw columns (share prices at rank 5: 1044 nats after 400 steps,
    against 1087 after 2000).
    """
    _, s, V = leading_singular(deviations, MOST_COORDINATES, stream)
    deviation = (s.square() + DAMPING * s[0].square()).sqrt() / math.sqrt(len(deviations))
    return torch.where(s > 0, V.mT / deviation.clamp(min=torch.finfo(s.dtype).tiny), 0.0)


def _ordinary_nmf(X: Tensor, mask: Tensor | None, rank: int, stream: Stream) -> tuple[Tensor, Tensor, Tensor]:
    """W (N, K) with columns of mean one, H (K, D), and the squared error: hierarchical least squares from NNDSVD.

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
    return W, H, (X - W @ H).square().sum()


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


def _regress(layer: nn.Linear, features: Tensor, target: Tensor) -> None:
    """Set the layer to the ridge regression of target (N, K) on features (N, C), by the smaller Gram matrix."""
    A, T = features - features.mean(0), target - target.mean(0)
    penalty = RIDGE * A.square().sum() / min(A.shape) + torch.finfo(A.dtype).tiny ** 0.5
    if A.shape[0] >= A.shape[1]:
        weight = torch.linalg.solve(A.mT @ A + penalty * torch.eye(A.shape[1]).to(A), A.mT @ T)
    else:
        weight = A.mT @ torch.linalg.solve(A @ A.mT + penalty * torch.eye(A.shape[0]).to(A), T)
    layer.weight.copy_(weight.mT), layer.bias.copy_(target.mean(0) - features.mean(0) @ weight)


def _inverse_softplus(y: Tensor) -> Tensor:
    return y + SHARPNESS * torch.log(-torch.expm1(-y / SHARPNESS))
