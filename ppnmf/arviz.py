"""Posteriors for ArviZ: as DataTrees, and in the form that the installed `arviz` takes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ppnmf import __version__
from ppnmf.data.dense import IN_MEMORY, Dense, in_memory

if TYPE_CHECKING:
    import xarray

    from ppnmf.posterior import Posterior

__all__ = ["as_numpy", "datatree", "for_arviz"]

OF_X = ["row", "column"]
CELL = "cell"  # the dimension of a masked X's observed entries


def datatree(
    post: Posterior,
    *,
    log_likelihood: bool = False,
    posterior_predictive: bool = False,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> xarray.DataTree:
    """What `Posterior.to_datatree` gives; the arguments are explained there."""
    import arviz_base

    groups: dict[str, dict[str, np.ndarray]] = {
        "posterior": {name: as_numpy(values) for name, values in post.draws.items()},
        "sample_stats": {name: as_numpy(values) for name, values in post.stats.items()},
    }
    observed = None
    if post.X.shape[0] * post.X.shape[1] <= IN_MEMORY or isinstance(post.X, Dense):
        X = in_memory(post.X, "to_datatree")
        mask = torch.ones(X.shape, dtype=torch.bool) if X.mask is None else X.mask
        observed = as_numpy(mask)
        values = np.where(observed, as_numpy(X.values), np.nan)
        groups |= {"observed_data": {"X": values}, "constant_data": {"mask": observed}}
        if X.noise is not None:
            groups["constant_data"]["noise"] = as_numpy(X.noise.variance.expand(X.shape))
    if log_likelihood:
        groups["log_likelihood"] = {"X": as_numpy(post.log_likelihood())}
    if posterior_predictive:
        groups["posterior_predictive"] = {"X": as_numpy(post.predictive(post.seed))}
    N, D = post.X.shape
    rows = post.names.get("rows") if rows is None else rows
    columns = post.names.get("columns") if columns is None else columns
    coords: dict[str, Any] = {"row": _names(rows, N, "rows"), "column": _names(columns, D, "columns")}
    coords["component"] = np.arange(post.model.rank)
    library = {"inference_library": "ppnmf", "inference_library_version": __version__}
    with warnings.catch_warnings():  # several modes are more chains than draws
        warnings.filterwarnings("ignore", message="Found chain dimension to be longer than draw")
        tree = arviz_base.from_dict(
            groups,
            dims={**post.dimensions, "X": OF_X, "mask": OF_X, "noise": OF_X},
            coords=coords,
            attrs={
                "/": library,
                "posterior": {**library, "sampling_time": post.timings.get("total", float("nan"))},
            },
        )
    if observed is not None and not observed.all() and (log_likelihood or posterior_predictive):
        _leave_out_hidden(tree, observed)
    return tree


def for_arviz(tree: xarray.DataTree) -> Any:
    """A DataTree in the form that the functions of the installed `arviz` take: InferenceData before ArviZ 1, itself since."""
    with warnings.catch_warnings():  # once a day ArviZ 0.23 warns, as it is imported, that ArviZ 1 will be different
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing a major refactor", category=FutureWarning)
        import arviz
    convert = getattr(arviz, "from_datatree", None)
    return tree if convert is None else convert(tree)


def as_numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _leave_out_hidden(tree: xarray.DataTree, observed: np.ndarray) -> None:
    """Replace X, wherever it stands, by its observed entries in one dimension, each with its row and its column."""
    import xarray as xr

    row, column = np.nonzero(observed)
    cells = {CELL: np.arange(len(row))}
    at = {"row": xr.DataArray(row, cells), "column": xr.DataArray(column, cells)}
    for group in ("observed_data", "log_likelihood", "posterior_predictive"):
        if group in tree.children:
            tree[group].dataset = tree[group].to_dataset().isel(at)


def _names(names: Sequence[str] | None, size: int, what: str) -> Any:
    if names is None:
        return np.arange(size)
    if len(names) != size:
        raise ValueError(f"{len(names)} names of {what} are given for {size} {what}; their numbers must be equal")
    return np.asarray(names, dtype=str)
