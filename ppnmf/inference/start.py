"""Where chains start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppnmf.checks import borrowed, described, meant
from ppnmf.data.sharded import rows_here
from ppnmf.distributions import RectifiedNormal
from ppnmf.inference.sweep import misfit
from ppnmf.kernels import kernels_for
from ppnmf.nndsvd import nndsvd
from ppnmf.posterior import Posterior
from ppnmf.protocols import Conjugate, Matrix
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["Start", "start"]

Start = str | Mapping[str, Any] | Posterior
JITTER = 0.5  # standard deviation of the logarithm that sets chains started by nndsvd apart


def start(
    model: Conjugate, X: Matrix, stream: Stream, init: Start = "scaled", chains: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Starting values W (C, N, K), H (C, K, D), sigma2 (C,), one chain a key of the stream.

    Args:
        init: "scaled": exponential draws scaled so that W @ H has X's mean; "prior": draws from the prior; "nndsvd":
            Boutsidis and Gallopoulos (2008), jittered per chain; a dict of arrays (N, K), (K, D), () or with a leading
            chain axis, where sigma2 may be left out; or a Posterior, whose last draws are taken, chain by chain.
        chains: the numbers of these chains among those of the run, by which values given per chain are taken (in turn,
            where there are fewer of them); 0, 1, 2 ... by default.

    Raises:
        ValueError: an unknown name, or values of the wrong shape, or negative or not finite ones.
    """
    numbers = list(range(len(stream))) if chains is None else list(chains)
    with single_threaded():
        if isinstance(init, Posterior):
            last = {site: init._kept(site)[:, -1] for site in ("W", "H", "sigma2")}
            params = _given(model, X, numbers, last)
        elif isinstance(init, Mapping):
            params = _given(model, X, numbers, init)
        elif isinstance(init, str) and init in STARTS:
            params = STARTS[init](model, X, stream)
        else:
            near = meant(init, STARTS) if isinstance(init, str) else ""
            raise ValueError(
                f"init is {described(init)}{near}; give {', '.join(map(repr, STARTS))}, a dict with W and H, or a Posterior"
            )
        if "sigma2" not in params:
            params["sigma2"] = noise_mode(model, X, misfit(X, params["W"], params["H"])).to(X.dtype)
        return params


def noise_mode(model: Conjugate, X: Matrix, sum_of_squares: Tensor) -> Tensor:
    """Mode of p(σ² | rest): (θ + SSE / 2) / (α + n / 2 + 1), shape of the sum of squares."""
    return (model.noise_scale + sum_of_squares / 2) / (model.noise_shape + X.n_observed / 2 + 1)


def _exponential(model: Conjugate, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    """Standard exponential draws for W and H, in float64."""
    N, D = X.shape
    W, H = (stream.uniforms(0, Site.START, rows, model.rank, X.device) for rows in (rows_here(X), range(N, N + D)))
    return {"W": -W.log(), "H": -H.mT.log()}


def _prior(model: Conjugate, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    draws = {}
    for site, unit in _exponential(model, X, stream).items():
        prior = model.prior(site)
        there = RectifiedNormal(prior.precision.to(X.device), prior.linear.to(X.device), validate_args=False)
        draws[site] = there.survival_inverse((-unit).exp()).to(X.dtype)
    scale = torch.full((len(stream),), model.noise_scale, dtype=torch.float64, device=X.device)
    draws["sigma2"] = kernels_for(X.device).inverse_gamma(model.noise_shape, scale, stream, 0).to(X.dtype)
    return draws


def _scaled(model: Conjugate, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    mean = X.mean()
    size = (abs(mean) / model.rank) ** 0.5 or 1.0
    return {site: (size * unit).to(X.dtype) for site, unit in _exponential(model, X, stream).items()}


def _nndsvd(model: Conjugate, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    W, H = nndsvd(X.filled().double(), model.rank, Stream(stream.keys[:1]))
    N = X.shape[0]
    u = stream.uniforms(0, Site.START, range(N + X.shape[1]), model.rank, X.device)
    jitter = (JITTER * torch.special.ndtri(u)).exp()
    return {"W": (W * jitter[:, :N]).to(X.dtype), "H": (H * jitter[:, N:].mT).to(X.dtype)}


def _given(model: Conjugate, X: Matrix, chains: list[int], values: Mapping[str, Any]) -> dict[str, Tensor]:
    N, D = len(rows_here(X)), X.shape[1]
    shapes: dict[str, tuple[int, ...]] = {"W": (N, model.rank), "H": (model.rank, D), "sigma2": ()}
    unknown, absent = set(values) - set(shapes), {"W", "H"} - set(values)
    if unknown or absent:
        raise ValueError(f"init has {sorted(map(str, values))}; it needs W and H, and may have sigma2")
    params = {}
    for site, value in values.items():
        given = torch.as_tensor(borrowed(f"init's {site}", value), dtype=X.dtype, device=X.device)
        wanted = shapes[site]
        if given.shape == wanted:
            given = given[None]
        if given.shape[1:] != wanted or len(given) == 0:
            raise ValueError(
                f"init's {site} has shape {tuple(given.shape)}; give {wanted}, or a leading axis with a value a chain"
            )
        zero = site == "sigma2" and bool((given == 0).any())
        if not bool(given.isfinite().all()) or bool((given < 0).any()) or zero:
            raise ValueError(f"init's {site} has entries that are negative, zero where it must not be, or not finite")
        params[site] = given[torch.tensor(chains) % len(given)]
    return params


STARTS = {"scaled": _scaled, "prior": _prior, "nndsvd": _nndsvd}
