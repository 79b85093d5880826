"""What a posterior says of X: replicates, log likelihoods, new rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from ppnmf import memory
from ppnmf.checks import one_of, whole_number
from ppnmf.data.dense import in_memory
from ppnmf.protocols import Exposing, Params
from ppnmf.rng import Site, Stream, forked
from ppnmf.tables import Cells, places

if TYPE_CHECKING:
    from ppnmf.posterior import Posterior

__all__ = ["drawn_at", "generate", "likelihood", "log_likelihood", "log_likelihood_at", "replicates"]

AT_ONCE = 2**22  # entries of W @ H that are drawn at a time


def replicates(post: Posterior, rows: Cells, columns: Cells, seed: int) -> Tensor:
    """What `Posterior.predictive` does."""
    sites = {site: post._kept(site) for site in post.dimensions}
    if rows is None and columns is None:
        _require_memory(post, "Replicates of X", *post.X.shape)
        with forked(seed, post.X.device):
            return likelihood(post, sites).sample()
    at = {"row": places(post, "rows", rows), "column": places(post, "columns", columns)}
    _require_memory(post, "Replicates of X", len(at["row"]), len(at["column"]))
    for site, dims in post.dimensions.items():
        for axis, dim in enumerate(dims):
            if dim in at:
                sites[site] = sites[site].index_select(2 + axis, torch.tensor(at[dim], device=sites[site].device))
    model: Any = post.model
    if isinstance(model, Exposing):
        e = model.exposure(sites["W"]).expand(post.X.shape)
        model = model.with_exposures(e[at["row"]][:, at["column"]])
    of_model = model.likelihood(sites)
    with forked(seed, post.X.device):
        return _noisy(of_model, None if post.X.noise is None else _variance(post)[at["row"]][:, at["column"]]).sample()


def log_likelihood(post: Posterior) -> Tensor:
    """What `Posterior.log_likelihood` does."""
    _require_memory(post, "Log likelihoods of X's entries", *post.X.shape)
    X = in_memory(post.X, "log_likelihood")
    values = likelihood(post, {site: post._kept(site) for site in post.dimensions}).log_prob(X.values)
    return values if X.mask is None else values * X.mask


def log_likelihood_at(post: Posterior, rows: Tensor, columns: Tensor) -> Tensor:
    """What `Posterior.log_likelihood_at` does."""
    X = in_memory(post.X, "log_likelihood_at")
    own = _of_cells(post, rows, columns)
    return own.log_prob(X.values[rows, columns, None, None])[..., 0, 0].double()


def drawn_at(post: Posterior, rows: Tensor, columns: Tensor, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Of M entries by their rows and columns: their mean (M,), float64, and so many replicates at each draw, (R, M)."""
    own = _of_cells(post, rows, columns)
    with forked(seed, post.X.device):
        return own.mean.double().mean((0, 1))[:, 0, 0], own.sample((number,))[..., 0, 0].flatten(0, 2)


def _of_cells(post: Posterior, rows: Tensor, columns: Tensor) -> Distribution:
    """The distribution of M entries given each draw, (chain, draw, M, 1, 1): every one is a matrix of one row and column."""
    sites = {site: post._kept(site) for site in post.dimensions}
    W = sites["W"][:, :, rows, None]  # (C, S, M, 1, K)
    H = sites["H"][..., columns].movedim(-1, -2)[..., None]  # (C, S, M, K, 1)
    others = {
        site: values[..., columns, None] if list(post.dimensions[site]) == ["column"] else values[:, :, None]
        for site, values in sites.items()
        if site not in ("W", "H")
    }
    model, H = _unexposed(post, H, (rows, columns, None, None))
    variance = None if post.X.noise is None else _variance(post)[rows, columns, None, None]
    return _noisy(model.likelihood({**others, "W": W, "H": H}), variance)


def _unexposed(post: Posterior, H: Tensor, at: tuple[Any, ...]) -> tuple[Any, Tensor]:
    """The model without exposures, and H times those of the entries of X that `at` indexes."""
    model: Any = post.model
    if not isinstance(model, Exposing):
        return model, H
    e = model.exposure(H).expand(post.X.shape)
    return model.with_exposures(1.0), H * e[at]


def likelihood(post: Posterior, params: Params) -> Distribution:
    """What `Posterior.likelihood` does."""
    return _noisy(post.model.likelihood(params), None if post.X.noise is None else _variance(post))


def generate(post: Posterior, n: int, seed: int, latent: str) -> Tensor:
    """What `Posterior.generate` does."""
    n = whole_number("n", n, 0)
    memory.require(n * post.X.shape[1], post.X.dtype, post.X.device, f"{n} rows", "draw fewer at a time")
    if latent == "aggregated":
        return _resampled(post, n, seed)
    one_of("latent", latent, ("prior", "aggregated"))
    of_model = getattr(post.model, "generate", None)
    if of_model is None:
        raise TypeError(
            f"generate needs a model that draws new rows from its prior; {post.model.name} does not: "
            "take latent='aggregated'"
        )
    return of_model(n, seed=seed)


def _resampled(post: Posterior, n: int, seed: int) -> Tensor:
    """Rows drawn at the loadings of rows of X, and all else, of draws that are picked at random."""
    sites = {site: post._kept(site).flatten(0, 1) for site in post.dimensions}
    W, H = post.model.factors(sites)
    u = Stream.of(seed).uniforms(0, Site.RESAMPLING, range(n), 2, W.device)[0]
    draw, row = (u * u.new_tensor(W.shape[:2])).long().unbind(1)
    drawn = W.new_empty(n, H.shape[2])
    with forked(seed, W.device):
        for at in torch.arange(n, device=W.device).split(max(1, AT_ONCE // H[0].numel())):
            s, i = draw[at], row[at]
            chosen = {site: values[s] for site, values in sites.items() if site not in ("W", "H")}
            model, own_H = _unexposed(post, H[s], (i[:, None],))
            own = model.likelihood({**chosen, "W": W[s, i][:, None], "H": own_H})
            drawn[at] = _noisy(own, None if post.X.noise is None else _variance(post)[i, None]).sample()[:, 0]
    return drawn


def _noisy(of_model: Any, variance: Tensor | None) -> Distribution:
    """A Gaussian model's distribution of entries whose known relative noise variances are these; others have none."""
    return of_model if variance is None else Normal(of_model.loc, of_model.scale * variance.sqrt())


def _variance(post: Posterior) -> Tensor:
    """The known relative noise variance of each entry of X, (N, D)."""
    noise: Any = in_memory(post.X, "the likelihood").noise
    return noise.variance.expand(post.X.shape)


def _require_memory(post: Posterior, what: str, N: int, D: int) -> None:
    numbers = post.chains * post.n_draws * N * D
    told = f"{what}, {post.chains} × {post.n_draws} × {N} × {D} numbers,"
    memory.require(numbers, post.X.dtype, post.X.device, told, "take fewer draws, or some rows= and columns=")
