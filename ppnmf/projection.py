"""What a posterior says of new rows, and the one pair of factors that stands for all its draws."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Weibull

from ppnmf import memory
from ppnmf.checks import borrowed, whole_number
from ppnmf.data.containers import BOOLEANS, opened
from ppnmf.data.dense import Dense, without_noise
from ppnmf.data.labelled import Labelled, beside, noise_beside, places_among, taken
from ppnmf.data.matrix import as_matrix, in_dtype, in_memory
from ppnmf.gaussian.sweep import misfit
from ppnmf.models import ExponentialGaussian
from ppnmf.models.accepted import require_accepted
from ppnmf.protocols import (
    Address,
    Amortised,
    Deriving,
    Entries,
    Exposing,
    Held,
    Layered,
    Matrix,
    Params,
    Read,
    Sweeping,
    Sweeps,
    made_up,
)
from ppnmf.reconstructed import mean_product
from ppnmf.rng import Site, Stream
from ppnmf.tables import orders
from ppnmf.threads import single_threaded

if TYPE_CHECKING:
    from ppnmf.posterior import Posterior

__all__ = ["point", "transform"]

DRAWS = 1000  # of the posterior that new rows are drawn for, at most, unless asked otherwise
SWEEPS = 50  # of W, for each draw
AT_ONCE = 20  # sweeps between two looks at whether modes have converged, and whether Ctrl-C was pressed
MOST = 5000  # of them
STILL = 1e-9  # relative change of W, in so many sweeps, that counts as none
NEAR = 1e-3  # one that is little enough for draws of counts to begin at: their modes are climbed by EM, which creeps
TOL = 1e-5  # relative gain of a squared error that counts as none


def transform(
    post: Posterior,
    X: Any,
    mask: Any,
    missing: str,
    noise: Any,
    draws: int | None,
    sweeps: int,
    seed: int,
    exposures: Any = None,
) -> Posterior:
    """What `Posterior.transform` does."""
    if exposures is not None and not isinstance(post.model, Exposing):
        raise TypeError(f"exposures are of counts, and {post.model.name} has none: leave exposures= out")
    whole_number("sweeps", sweeps, 1)
    most = DRAWS if draws is None else whole_number("draws", draws, 1)
    rows = _in_order(X, mask, noise, exposures, post)
    if exposures is not None:
        own: Any = post.model
        post = replace(post, model=own.with_exposures(rows.exposures))
    thinned = _thinned(post, max(1, most // post.chains))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\d+ column\(s\) of X have nothing observed")  # H is known
        data = in_dtype(as_matrix(rows.X, rows.mask, missing, post.X.device, rows.noise), post.X.dtype, "transform")
    require_accepted(post.model, data)
    N, D = data.shape
    if post.X.shape[1] != D:
        raise ValueError(f"X has {D} columns and the fit's {post.X.shape[1]}; give rows of the same columns")
    numbers = thinned.chains * thinned.n_draws * N * post.model.rank
    memory.require(
        numbers, data.dtype, data.device, f"{thinned.chains * thinned.n_draws} draws of W", "take fewer draws"
    )
    params: Params
    with single_threaded():
        if isinstance(post.model, Amortised):
            without_noise(data, "transform")
            params = {**_flat(thinned), "W": _encoded(thinned, in_memory(data, "transform"), seed)}
        elif isinstance(post.model, Sweeping):
            params = _swept(thinned, data, sweeps, seed)
        else:
            raise TypeError(
                f"transform needs a model with full conditionals or an encoder; {post.model.name} has neither"
            )
        lp = _log_joint(post.model, params, data)
    shape = (thinned.chains, thinned.n_draws)
    return replace(
        thinned,
        draws={site: params[site].unflatten(0, shape) for site in thinned.dimensions},
        stats={"lp": lp.unflatten(0, shape)},
        X=data,
        names=rows.X.names.to_dict(),
        seed=seed,
        attrs={"transformed": {"draws": thinned.n_draws, "sweeps": sweeps} | _order(post, thinned.n_draws)},
    )


def _order(post: Posterior, n_draws: int) -> dict[str, Any]:
    """The places of the fit's components in so many draws of each chain, which tables of new rows keep to (`tables.orders`)."""
    if not {"W", "H"} <= set(post.draws):
        return {}
    order = orders(post).unflatten(0, (post.chains, post.n_draws))
    return {"order": order[:, :: -(-post.n_draws // n_draws)].tolist()}


def point(post: Posterior) -> dict[str, Tensor]:
    """What `Posterior.point` does."""
    best = post.best()
    sites = {site: values[:, 0] for site, values in best.draws.items()}
    W, H = post.model.factors(sites)
    typical = post.typical()
    if typical.chains * typical.n_draws == 1:
        return {**{site: values[0] for site, values in sites.items()}, "W": W[0], "H": H[0]}
    X = as_matrix(mean_product(post).to(W.dtype))
    known = {name: getattr(post.model, name, None) for name in ("fixed_W", "fixed_H")}
    W, H = _nearest(X, W, H, known)
    means = {site: post.mean(site) for site, dims in post.dimensions.items() if set(dims) <= {"column"}}
    others = {} if made_up(post.model) else {site: values[0] for site, values in sites.items()}
    return {**others, **means, "W": W[0], "H": H[0]}


def _nearest(X: Matrix, W: Tensor, H: Tensor, known: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Factors (1, N, K) and (1, K, D) whose product is nearest to X, by ordinary NMF from those given; `known` as of a model."""
    model = ExponentialGaussian(W.shape[-1], **known)
    params: Params = {"W": W, "H": H, "sigma2": W.new_ones(1)}
    before = math.inf
    with single_threaded():
        for _ in range(MOST // AT_ONCE):
            params = model.sweep(params, X, Sweeps(read=Read.MODE, number=AT_ONCE, flat=True), None).params
            now = float(misfit(X, params["W"], params["H"])[0])
            if before - now <= TOL * now:
                break
            before = now
    return params["W"], params["H"]


def _thinned(post: Posterior, most: int) -> Posterior:
    """At most so many draws of each chain, evenly spaced."""
    at = torch.arange(0, post.n_draws, -(-post.n_draws // most))
    pick = lambda values: values[:, at.to(values.device)]  # noqa: E731
    draws = {site: pick(values) for site, values in post.draws.items()}
    return replace(post, draws=draws, stats={name: pick(values) for name, values in post.stats.items()})


class _Rows(NamedTuple):
    """New rows, their mask, noise and exposures, the columns in the order of the fit's."""

    X: Labelled
    mask: Any
    noise: Any
    exposures: Any


def _in_order(X: Any, mask: Any, noise: Any, exposures: Any, post: Posterior) -> _Rows:
    """New rows by the names of their columns where these and the fit's have some, and by position otherwise."""
    given = opened("X", X)
    seen = given.mask if mask is None else beside("mask", opened("mask", mask, BOOLEANS), given)
    known = None if noise is None else noise_beside(opened("noise", noise), given)
    exposed = None if exposures is None else noise_beside(opened("exposures", exposures), given, "exposures")
    ours = post.names.get("columns")
    advice = "give the columns that were fitted, in any order, or an array to go by position"
    wanted = None if ours is None else tuple(ours)
    places = places_among(given.columns, wanted, post.X.shape[1], "X's columns are not those of the fit", advice)
    if places is None:
        return _Rows(given, seen, known, exposed)
    if hasattr(given.values, "fold_here"):
        raise ValueError(
            "X's columns are in another order than the fit's: give ppnmf.as_matrix the columns in that order"
        )
    return _Rows(
        given._replace(values=taken(given.values, 1, places), columns=wanted),
        None if seen is None else taken(seen, 1, places),
        None if known is None else _columns_of("noise", known, places),
        None if exposed is None else _columns_of("exposures", exposed, places),
    )


def _columns_of(name: str, values: Any, places: list[int]) -> Tensor:
    """Noise or exposures with the columns taken in this order, where there is one for each of them."""
    given = borrowed(name, values)
    each = given.ndim > 0 and given.shape[-1] == len(places)
    return taken(given, given.ndim - 1, places) if each else given


def _flat(post: Posterior) -> dict[str, Tensor]:
    """Each site's draws (S, *site)."""
    return {site: values.flatten(0, 1) for site, values in post._sites().items()}


def _swept(post: Posterior, X: Matrix, sweeps: int, seed: int) -> Params:
    """W of new rows, of layers A0 and with it W, given each draw of all else: at its mode, or drawn from there."""
    own = _of_new_rows(post)
    model: Any = post.model
    model.require_fits(X.shape)
    given = _flat(post)
    S, K = len(given["H"]), model.rank
    held = Held(H=K, others=True)
    begun = torch.ones(S, X.shape[0], given[own].shape[-1], dtype=X.dtype, device=X.device)
    params: Params = {**given, own: begun}
    if isinstance(model, Deriving):
        params = {**params, **model.derived(params)}
    final = post.kind == "modes"
    params = _mode(model, X, params, held, STILL if final or model.accepts is not Entries.COUNTS else NEAR)
    if final:
        return params
    stream = Stream.of(seed, S)
    for done in range(0, sweeps, AT_ONCE):
        asked = Sweeps(number=min(AT_ONCE, sweeps - done), kept=range(0), held=held, moves=False)
        params = model.sweep(params, X, asked, Address(stream, 1 + done)).params
    return params


def _of_new_rows(post: Posterior) -> str:
    """The site with loadings of each row that the rest can be held for: W, or the first of some layers.

    Raises:
        TypeError: another site has something for each row, or the layers' signs are free, which no prior here is for.
    """
    own = "A0" if isinstance(post.model, Layered) else "W"
    others = [site for site, dims in post.dimensions.items() if "row" in dims and site not in (own, "W")]
    if others:
        raise TypeError(
            f"transform cannot make {', '.join(others)} of new rows: {post.model.name} has one for each row"
        )
    if "signs" in post.attrs:
        raise TypeError("transform draws loadings >= 0 of new rows, and this fit's layers are of any sign")
    return own


def _mode(model: Sweeping, X: Matrix, params: Params, held: Held, still: float) -> Params:
    """W at its mode given all else, which is the only one; that of the likelihood alone where its prior has none.

    Of layers, A0 may still move along directions that W does not see when W stands still.

    Args:
        still: the relative change of W, in `AT_ONCE` sweeps, at which it is there.
    """
    climb = Sweeps(read=Read.MODE, number=AT_ONCE, held=held, moves=False, flat=not _has_modes(model))
    for _ in range(MOST // AT_ONCE):
        before = params["W"]
        params = model.sweep(params, X, climb, None).params
        if float((params["W"] - before).abs().max()) <= still * float(params["W"].max()):
            break
    return params


def _has_modes(model: Sweeping) -> bool:
    try:
        model.require_modes()
    except ValueError:
        return False
    return True


def _encoded(post: Posterior, X: Dense, seed: int) -> Tensor:
    """Draws of W of new rows from what the encoder says of them, (S, N, K)."""
    model: Any = post.model
    guide = model.encode(X.values, X.mask)
    S = post.chains * post.n_draws
    N, K = guide.mean.shape
    u = Stream.of(seed, S).uniforms(0, Site.GUIDE, range(N), K, guide.mean.device)
    exact = Weibull(guide.scale.double(), guide.concentration.double(), validate_args=False)
    return exact.icdf(u).to(guide.mean.dtype)  # in single precision a uniform may be one, and a loading infinite


def _log_joint(model: Any, params: Params, X: Matrix) -> Tensor:
    if isinstance(model, Amortised):
        own = in_memory(X, "transform")
        return model.log_joint(own.values, params["W"], own.mask).sum(1)
    return model.log_likelihood_at(params, X) + model.log_prior(params)
