"""How well a posterior predicts cells that it has not seen, by ArviZ: leave-one-out, cross-validation, stacking.

Cells of X are the observations. ArviZ does the arithmetic; here posteriors get the form that it takes, with each cell's row and
column as coordinates of what comes back (`elpd_i`, `pareto_k`). Its warnings about k-hat are its own: an entry of W or H that few
cells inform is moved much by each of them, so they are common in factorisations, and `kfold` then tells more.

References: Vehtari, Gelman, Gabry (2017), doi:10.1007/s11222-016-9696-4; Magnusson et al. (2019), arXiv:1904.10679, for samples of
cells; Yao, Vehtari, Gelman (2022), arXiv:2006.12335, for stacking.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ppnmf.checks import whole_number
from ppnmf.data.matrix import Dense, in_memory
from ppnmf.evidence.heldout import assign_folds
from ppnmf.evidence.loo import sampled
from ppnmf.inference import fit, method_named
from ppnmf.posterior import Kind, Posterior
from ppnmf.required import require_posterior, require_posteriors
from ppnmf.settings import own_settings

if TYPE_CHECKING:
    import pandas
    import xarray
    from arviz_stats import ELPDData

__all__ = ["kfold", "loo", "stacking"]

CELL = "cell"
DRAWS = 1000  # of all chains, at most
LEAST = 25  # of all chains, of whose weights a tail can be fitted
AT_ONCE = 2**22  # numbers of the draws of W and H at some cells, which are formed at a time
OF_THE_FIT = "draws", "warmup", "thin", "moves"  # options that a fit tells of itself


@own_settings()
def loo(post: Posterior, cells: int | None = 10_000, draws: int = DRAWS, seed: int = 0) -> ELPDData:
    """ArviZ's PSIS-LOO of the observed cells of X: the expected log predictive density of cells left out, in nats.

    Of draws from an approximation whose density is known (`vb`) it is `loo_approximate_posterior`, with weights to the posterior;
    of more cells than `cells`, `loo_subsample`, which looks at so many of them.

    Args:
        cells: that are looked at; None for all.
        draws: of all chains, at most; log likelihoods of all cells take draws × cells numbers.
        seed: of the choice of cells.

    Raises:
        TypeError: the posterior is of modes, or of an approximation whose density is not known.
        KeyError: a site was not kept.
    """
    require_posterior("loo", post)
    _require_draws("loo", post)
    import arviz_stats

    seen = _seen(post).nonzero()
    if cells is None or len(seen) <= whole_number("cells", cells, 2):
        return of_cells(post, seen, draws)
    fewer = _fewer(post, draws)
    tree, density = _tree(fewer, seen), _densities(fewer)
    return arviz_stats.loo_subsample(tree, observations=cells, pointwise=True, var_name="X", seed=seed, **density)


def of_cells(post: Posterior, cells: torch.Tensor, draws: int) -> ELPDData:
    """ArviZ's PSIS-LOO of these observed cells (M, 2) alone, by their rows and columns. Raises ValueError for too few draws."""
    import arviz_stats

    fewer = _fewer(post, draws)
    if fewer.chains * fewer.n_draws < LEAST:
        raise ValueError(f"leave-one-out needs {LEAST} draws or more, and there are {fewer.chains * fewer.n_draws}")
    tree, density = _tree(fewer, cells), _densities(fewer)
    if density:
        return arviz_stats.loo_approximate_posterior(tree, **density, pointwise=True, var_name="X")
    return arviz_stats.loo(tree, pointwise=True, var_name="X")


def some_cells(post: Posterior, number: int, seed: int) -> torch.Tensor:
    """At most so many of the observed cells, taken at random, by their rows and columns (M, 2)."""
    return torch.stack(sampled(in_memory(post.X, "leave-one-out"), number, seed), 1)


@own_settings()
def stacking(posteriors: Mapping[str, Posterior], cells: int = 10_000, seed: int = 0) -> pandas.DataFrame:
    """ArviZ's table of posteriors of the same data by their LOO, with the weights that predict best together (stacking).

    Args:
        posteriors: name -> Posterior.
        cells: of X that are looked at, at most, the same for all. seed: of their choice.

    Raises:
        ValueError: there are fewer than two, or they saw other data.
    """
    require_posteriors("stacking", posteriors)
    if len(posteriors) < 2:
        raise ValueError("stacking weighs posteriors against each other: give two or more")
    first = next(iter(posteriors.values()))
    seen = _seen(first)
    for post in posteriors.values():
        own = _seen(post)
        if own.shape != seen.shape or bool((own != seen).any()):
            raise ValueError("the posteriors saw other cells of X: stack fits of the same data and mask")
        if not torch.allclose(_values(post)[seen], _values(first)[seen]):
            raise ValueError("the posteriors saw other values of X: stack fits of the same data")
    import arviz_stats

    at = some_cells(first, whole_number("cells", cells, 2), seed)
    found = {}
    for name, post in posteriors.items():
        _require_draws("stacking", post)
        found[name] = of_cells(post, at, DRAWS)
    return arviz_stats.compare(found, method="stacking")


def _values(post: Posterior) -> torch.Tensor:
    return in_memory(post.X, "stacking").values.cpu().double()


@own_settings()
def kfold(post: Posterior, folds: int = 5, seed: int = 0, progress: bool = False, **options: Any) -> ELPDData:
    """ArviZ's K-fold cross-validation: the model is fitted anew without each fold's cells, and predicts them.

    Cells are dealt evenly over rows and columns, as by the criterion "heldout".

    Args:
        folds: into how many parts the observed cells are dealt.
        seed: of the folds and of the fits.
        options: of `ppnmf.fit`; by default the chains, draws, warm-up, thinning and moves of the fit itself, as far as it says.

    Raises:
        TypeError: the posterior is of modes.
        ValueError: fewer than two folds.
    """
    require_posterior("kfold", post)
    _require_draws("kfold", post)
    import arviz_stats

    known = inspect.signature(method_named(post.method)).parameters
    own = {name: post.attrs[name] for name in OF_THE_FIT if post.attrs.get(name) is not None and name in known}
    chosen = {"chains": post.chains, "draws": post.n_draws} if post.kind is Kind.CHAINS else {}
    X = in_memory(post.X, "kfold")
    dealt = assign_folds(X, whole_number("folds", folds, 2), seed)[_seen(post)]
    refits = _refits(post, X, chosen | own | options, seed, progress)
    return arviz_stats.loo_kfold(
        _tree(_fewer(post, DRAWS), _seen(post).nonzero()),
        refits,
        pointwise=True,
        var_name="X",
        folds=dealt.cpu().numpy() + 1,
    )


def _refits(post: Posterior, X: Dense, options: dict[str, Any], seed: int, progress: bool) -> Any:
    """What ArviZ asks to fit without some cells, given by their numbers among the observed ones, and to predict them."""
    from arviz_stats import SamplingWrapper

    at = _seen(post).nonzero()

    class Refits(SamplingWrapper):
        def sel_observations(self, idx: Any) -> tuple[Any, Any]:
            hidden = at[torch.as_tensor(np.asarray(idx))]
            kept = _seen(post).clone()
            kept[hidden[:, 0], hidden[:, 1]] = False
            return kept, hidden

        def sample(self, modified_observed_data: Any) -> Posterior:
            data = X.hide(modified_observed_data)
            return fit(post.model, data, method=post.method, seed=seed, progress=progress, **options)

        def get_inference_data(self, fitted_model: Any) -> Posterior:
            whole = Dense(X.values, None, X.noise, X.names)  # the hidden cells' values are asked for
            return replace(fitted_model, X=whole)

        def log_likelihood__i(self, excluded_obs: Any, idata__i: Any) -> Any:
            import xarray as xr

            logs = idata__i.log_likelihood_at(excluded_obs[:, 0], excluded_obs[:, 1])
            return xr.DataArray(logs.cpu().numpy(), dims=["chain", "draw", CELL])

    return Refits(model=None)


def _require_draws(what: str, post: Posterior) -> None:
    if post.kind is Kind.MODES:
        raise TypeError(f"{what} averages over draws; {post.method} left modes: fit by gibbs")
    if post.kind is Kind.APPROXIMATION and "log_q" not in post.stats:
        raise TypeError(
            f"{what} weighs draws by their density, which {post.method} did not leave: hold cells out, or look at "
            "ppnmf.row_k_hats"
        )


def _fewer(post: Posterior, draws: int) -> Posterior:
    return post.select(thin=max(1, -(-post.chains * post.n_draws // whole_number("draws", draws, 1))))


def _densities(post: Posterior) -> dict[str, np.ndarray]:
    """Of draws of an approximation: their log density under the posterior and under it."""
    if post.kind is not Kind.APPROXIMATION:
        return {}
    return {
        "log_p": post.stats["lp"].double().cpu().numpy().ravel(),
        "log_q": post.stats["log_q"].double().cpu().numpy().ravel(),
    }


def _seen(post: Posterior) -> torch.Tensor:
    """Where X is observed, boolean (N, D)."""
    X = in_memory(post.X, "leave-one-out")
    return torch.ones(X.shape, dtype=torch.bool) if X.mask is None else X.mask.cpu()


def _tree(post: Posterior, cells: torch.Tensor) -> xarray.DataTree:
    """Log likelihoods of observed cells (M, 2), (chain, draw, cell), as ArviZ takes them."""
    import arviz_base

    X = in_memory(post.X, "leave-one-out")
    size = max(1, AT_ONCE // (post.chains * post.n_draws * post.model.rank))
    lots = [post.log_likelihood_at(*lot.to(post.X.device).unbind(1)) for lot in cells.split(size)]
    logs = torch.cat(lots, -1).double().cpu().numpy()
    rows, columns = (axis.numpy() for axis in cells.unbind(1))
    named = {axis: np.array(post.names[axis], dtype=str) for axis in ("rows", "columns") if axis in post.names}
    coords = {
        "row": (CELL, named["rows"][rows] if "rows" in named else rows),
        "column": (CELL, named["columns"][columns] if "columns" in named else columns),
    }
    with warnings.catch_warnings():  # a guide's draws are one chain
        warnings.filterwarnings("ignore", message="Found chain dimension to be longer than draw")
        tree = arviz_base.from_dict(
            {
                "posterior": {"lp": post.stats["lp"].double().cpu().numpy()},
                "log_likelihood": {"X": logs},
                "observed_data": {"X": X.values.cpu()[rows, columns].double().numpy()},
            },
            dims={"X": [CELL]},
        )
    for group in ("log_likelihood", "observed_data"):
        tree[group].dataset = tree[group].to_dataset().assign_coords(coords)
    return tree
