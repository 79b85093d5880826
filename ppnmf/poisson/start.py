"""Where chains of a Poisson model begin."""

from __future__ import annotations

import torch
from torch import Tensor

from ppnmf.checks import meant
from ppnmf.gaussian.start import jittered_nndsvd, standard_exponentials
from ppnmf.poisson.allocation import Place, gamma_draws
from ppnmf.poisson.exposures import mean_exposure
from ppnmf.poisson.sweep import Story, least
from ppnmf.protocols import Matrix, Params
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["STARTS", "begin", "prior_draws"]


def begin(story: Story, rank: int, X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
    """Starting values W (C, N, K), H (C, K, D), one chain a key of the stream.

    Args:
        how: "scaled": exponential draws scaled so that e W @ H has X's mean; "prior": draws from the prior; "nndsvd":
            Boutsidis and Gallopoulos (2008), jittered per chain; or values.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(how, str) and how not in STARTS:
        names = ", ".join(map(repr, STARTS))
        raise ValueError(f"init is {how!r}{meant(how, STARTS)}; give {names}, a dict with W and H, or a Posterior")
    with single_threaded():
        return STARTS[how](story, rank, X, stream) if isinstance(how, str) else dict(how)


def _scaled(story: Story, rank: int, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    mean = X.mean() / mean_exposure(X, story.exposures)
    size = (mean / rank) ** 0.5 or 1.0
    return {site: (size * unit).to(X.dtype) for site, unit in standard_exponentials(rank, X, stream).items()}


def _prior(story: Story, rank: int, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    N, D = X.shape
    (size_W, rate_W), (size_H, rate_H) = (story.prior(site).on(X.device) for site in ("W", "H"))
    own, every = len(X.rows), range(len(stream))
    W = [_gammas(size_W, rate_W, (own, rank), Place(stream, c, 0, X.rows.start), X.dtype) for c in every]
    H = [_gammas(size_H.mT, rate_H.mT, (D, rank), Place(stream, c, 0, N), X.dtype) for c in every]
    return {"W": torch.stack(W), "H": torch.stack(H).mT}


def _nndsvd(story: Story, rank: int, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    e = mean_exposure(X, story.exposures) ** 0.5
    return {site: F / e for site, F in jittered_nndsvd(rank, X, stream).items()}


def prior_draws(story: Story, rank: int, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
    """n draws of W (n, N, K), H (n, K, D) from the prior, float64."""
    (N, D), K = shape, rank
    sizes, rates = zip(*(story.prior(site).on(torch.device("cpu")) for site in ("W", "H")), strict=True)
    size = torch.cat([sizes[0].expand(N, K).flatten(), sizes[1].expand(K, D).flatten()]).expand(n, -1)
    rate = torch.cat([rates[0].expand(N, K).flatten(), rates[1].expand(K, D).flatten()]).expand(n, -1)
    drawn = gamma_draws(size, rate, Place(stream, 0, 0, 0), Site.START, least(torch.float64))
    W, H = drawn.split([N * K, K * D], -1)
    return {"W": W.reshape(n, N, K), "H": H.reshape(n, K, D)}


def _gammas(size: Tensor, rate: Tensor, shape: tuple[int, int], place: Place, dtype: torch.dtype) -> Tensor:
    return gamma_draws(size.expand(shape), rate.expand(shape), place, Site.START, least(dtype)).to(dtype)


STARTS = {"scaled": _scaled, "prior": _prior, "nndsvd": _nndsvd}
