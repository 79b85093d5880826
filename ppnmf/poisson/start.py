"""Where chains of a Poisson model begin."""

from __future__ import annotations

import torch
from torch import Tensor

from ppnmf.checks import meant
from ppnmf.gaussian.start import jittered_nndsvd, standard_exponentials
from ppnmf.known import exact
from ppnmf.poisson.allocation import Place, gamma_draws
from ppnmf.poisson.exposures import mean_exposure
from ppnmf.poisson.pinned import require_possible
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
        ValueError: an unknown name, or known zeros under which X is impossible.
    """
    if isinstance(how, str) and how not in STARTS:
        names = ", ".join(map(repr, STARTS))
        raise ValueError(f"init is {how!r}{meant(how, STARTS)}; give {names}, a dict with W and H, or a Posterior")
    with single_threaded():
        params = STARTS[how](story, rank, X, stream) if isinstance(how, str) else dict(how)
        require_possible(story.prior, rank, X)
        return params | {site: exact(story.prior(site), params[site]) for site in ("W", "H")}


def _scaled(story: Story, rank: int, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    mean = X.mean() / mean_exposure(X, story.exposures)
    size = (mean / rank) ** 0.5 or 1.0
    return {site: (size * unit).to(X.dtype) for site, unit in standard_exponentials(rank, X, stream).items()}


def _prior(story: Story, rank: int, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    N, D = X.shape
    (size_W, rate_W), (size_H, rate_H) = (story.prior(site).on(X.device) for site in ("W", "H"))
    C, own = len(stream), len(X.rows)
    W = _gammas(size_W.expand(C, own, rank), rate_W, Place(stream, 0, X.rows.start), X.dtype)
    H = _gammas(size_H.mT.expand(C, D, rank), rate_H.mT, Place(stream, 0, N), X.dtype)
    return {"W": W, "H": H.mT}


def _nndsvd(story: Story, rank: int, X: Matrix, stream: Stream) -> dict[str, Tensor]:
    e = mean_exposure(X, story.exposures) ** 0.5
    return {site: F / e for site, F in jittered_nndsvd(rank, X, stream).items()}


def prior_draws(story: Story, rank: int, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
    """n draws of W (n, N, K), H (n, K, D) from the prior, float64."""
    (N, D), K = shape, rank
    sizes, rates = zip(*(story.prior(site).on(torch.device("cpu")) for site in ("W", "H")), strict=True)
    size, rate = (
        torch.cat([of_W.expand(N, K).flatten(), of_H.expand(K, D).flatten()]) for of_W, of_H in (sizes, rates)
    )
    drawn = _gammas(size.expand(1, n, -1), rate, Place(stream, 0, 0), torch.float64)[0]
    W, H = drawn.split([N * K, K * D], -1)
    of_W, of_H = W.reshape(n, N, K), H.reshape(n, K, D)
    return {"W": exact(story.prior("W"), of_W), "H": exact(story.prior("H"), of_H)}


def _gammas(size: Tensor, rate: Tensor, place: Place, dtype: torch.dtype) -> Tensor:
    return gamma_draws(size, rate.expand(size.shape), place, Site.START, least(dtype)).to(dtype)


STARTS = {"scaled": _scaled, "prior": _prior, "nndsvd": _nndsvd}
