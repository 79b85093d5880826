"""Where chains of a Gaussian model begin."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ppnmf.checks import meant
from ppnmf.distributions import RectifiedNormal
from ppnmf.gaussian.noise import KnownNoise
from ppnmf.gaussian.pinned import exact
from ppnmf.gaussian.sweep import Story, misfit
from ppnmf.nndsvd import nndsvd
from ppnmf.protocols import Matrix, Params
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["STARTS", "begin", "jittered_nndsvd", "prior_draws", "standard_exponentials"]

JITTER = 0.5  # standard deviation of the logarithm that sets chains started by nndsvd apart


def begin(story: Story, rank: int, X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
    """Starting values W (C, N, K), H (C, K, D), sigma2 (C,), one chain a key of the stream.

    Args:
        how: "scaled": exponential draws scaled so that W @ H has X's mean; "prior": draws from the prior; "nndsvd":
            Boutsidis and Gallopoulos (2008), jittered per chain; or values, where sigma2 may be left out.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(how, str) and how not in STARTS:
        names = ", ".join(map(repr, STARTS))
        raise ValueError(f"init is {how!r}{meant(how, STARTS)}; give {names}, a dict with W and H, or a Posterior")
    with single_threaded():
        params = STARTS[how](story, rank, X, stream) if isinstance(how, str) else dict(how)
        params |= {site: exact(story.prior(site), params[site]) for site in ("W", "H")}
        if "sigma2" not in params or isinstance(story.noise, KnownNoise):
            left = misfit(X, params["W"], params["H"])
            params["sigma2"] = story.noise.mode(left, X.n_observed).to(X.dtype)
        return params


def standard_exponentials(rank: int, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    """Standard exponential draws for W and H, in float64."""
    N, D = X.shape
    W, H = (stream.uniforms(0, Site.START, rows, rank, X.device) for rows in (X.rows, range(N, N + D)))
    return {"W": -W.log(), "H": -H.mT.log()}


def _prior(story: Story, rank: int, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    draws = {}
    for site, unit in standard_exponentials(rank, X, stream).items():
        there = RectifiedNormal(*story.prior(site).natural(X.device), validate_args=False)
        draws[site] = there.survival_inverse((-unit).exp()).to(X.dtype)
    draws["sigma2"] = story.noise.prior_draw(stream, X.device).to(X.dtype)
    return draws


def _scaled(story: Story, rank: int, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    mean = X.mean()
    size = (abs(mean) / rank) ** 0.5 or 1.0
    return {site: (size * unit).to(X.dtype) for site, unit in standard_exponentials(rank, X, stream).items()}


def _nndsvd(story: Story, rank: int, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    return jittered_nndsvd(rank, X, stream)


def jittered_nndsvd(rank: int, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    """Nndsvd, times a log-normal draw of each chain."""
    W, H = nndsvd(X.filled().double(), rank, Stream(stream.keys[:1]))
    N = X.shape[0]
    u = stream.uniforms(0, Site.START, range(N + X.shape[1]), rank, X.device)
    jitter = (JITTER * torch.special.ndtri(u)).exp()
    return {"W": (W * jitter[:, :N]).to(X.dtype), "H": (H * jitter[:, N:].mT).to(X.dtype)}


def prior_draws(story: Story, rank: int, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
    """n draws of W (n, N, K), H (n, K, D), sigma2 (n,) from the prior by inverse distribution functions, float64."""
    (N, D), K = shape, rank
    u = stream.uniforms(0, Site.START, range(n), (N + D) * K + 1)[0]
    of_W, of_H, of_noise = u.split([N * K, D * K, 1], dim=-1)
    return {
        "W": _prior_draw(story, "W", of_W.reshape(n, N, K)),
        "H": _prior_draw(story, "H", of_H.reshape(n, K, D)),
        "sigma2": story.noise.prior_draws(of_noise[:, 0]),
    }


def _prior_draw(story: Story, site: str, u: Tensor) -> Tensor:
    prior = story.prior(site)
    return exact(prior, prior.rectified.survival_inverse(u))


STARTS: dict[str, Callable[[Story, int, Matrix, Stream], dict[str, Tensor]]] = {
    "scaled": _scaled,
    "prior": _prior,
    "nndsvd": _nndsvd,
}
