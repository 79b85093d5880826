"""A fit of the matrix of an AnnData, or of a modality of a MuData, written back beside it. Needs the extra `scverse`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppnmf import __version__, inference
from ppnmf.checks import described, meant
from ppnmf.diagnostics.convergence import summary
from ppnmf.posterior import Posterior
from ppnmf.protocols import Model
from ppnmf.tables import Table

if TYPE_CHECKING:
    import anndata

__all__ = ["fit", "write"]


def fit(
    adata: anndata.AnnData | Any,
    rank: int | None = None,
    *,
    model: str | Model = "exponential_gaussian",
    layer: str | None = None,
    modality: str | None = None,
    key: str = "ppnmf",
    **options: Any,
) -> Posterior:
    """Fit a model to X (cells, genes), or to a layer, and write the result into `adata` (`write`).

    Args:
        adata: in memory or backed; its matrix stays as it is. Or a MuData, or what else has AnnData by name in `.mod`.
        rank: number of components, with a model's name.
        model: a registered model's name, for counts "gamma_poisson" or "negative_binomial_gamma"; or a model.
        layer: whose matrix is taken; X by default.
        modality: of a MuData, the name of the AnnData that is fitted and written into, such as "rna".
        key: under which the result is written.
        options: of `ppnmf.fit`: method, draws, chains, seed, until, max_seconds ...

    Returns: the posterior, with everything that `adata` has no room for.

    Raises:
        TypeError: not an AnnData, nor what holds some.
        ValueError: no such layer or modality, none named where there are several, or what `ppnmf.fit` refuses.
    """
    own = _modality_of("fit", adata, modality)
    if "labels" in options:
        raise ValueError("labels make columns that adata does not have: fit by ppnmf.fit(..., labels=)")
    post = inference.fit(model, _matrix_of(own, layer), rank=rank, **options)
    write(post, own, key)
    return post


def write(post: Posterior, adata: anndata.AnnData | Any, key: str = "ppnmf", *, modality: str | None = None) -> None:
    """Write a posterior's factors into the AnnData that it was fitted to; what is there under these names goes.

    `obsm["X_<key>"]` (cells, K) and `varm["<key>"]` (genes, K) are the loadings and components of `Posterior.loadings` and
    `components`: posterior means in one order, each component scaled to sum to one. `obsm["X_<key>_sd"]` and
    `varm["<key>_sd"]` are their standard deviations. `uns["<key>"]` says how the fit was made, the congruence of each
    component, and in words whether the chains agree.

    Args:
        modality: of a MuData, the name of that AnnData.

    Raises:
        ValueError: it has other numbers of cells or genes; or as `fit`.
    """
    adata = _modality_of("write", adata, modality)
    if adata.shape != tuple(post.X.shape):
        raise ValueError(f"adata is {adata.shape}, and the fit is of {tuple(post.X.shape)}: give what was fitted")
    for axis, names in (("rows", adata.obs_names), ("columns", adata.var_names)):
        if axis in post.names and list(map(str, names)) != list(post.names[axis]):
            raise ValueError(f"adata's {axis} are not named as those of the fit: give what was fitted, in its order")
    loadings = post.loadings()
    components = post.components()
    adata.obsm[f"X_{key}"] = loadings.mean
    adata.obsm[f"X_{key}_sd"] = loadings.sd
    adata.varm[key] = components.mean.T
    adata.varm[f"{key}_sd"] = components.sd.T
    adata.uns[key] = _facts(post, components)


def _modality_of(who: str, data: Any, modality: str | None) -> Any:
    """The AnnData itself, or the one that a MuData has by this name."""
    held = getattr(data, "mod", None)
    if isinstance(held, Mapping):
        data = _named(held, modality)
    elif modality is not None:
        raise ValueError(f"modality is {modality!r}, and {type(data).__name__} has no modalities: leave it out")
    if not all(hasattr(data, name) for name in ("obsm", "varm", "uns", "layers")):
        raise TypeError(f"{who} takes an AnnData, and was given {described(data)}; ppnmf.fit takes other matrices")
    return data


def _named(held: Mapping[str, Any], modality: str | None) -> Any:
    names = ", ".join(held) or "none"
    if modality is None:
        raise ValueError(f"there are several matrices here: name one of the modalities, {names}, by modality=")
    if modality not in held:
        raise ValueError(f"there is no modality {modality!r}{meant(modality, held)}; there are {names}")
    return held[modality]


def _matrix_of(adata: Any, layer: str | None) -> Any:
    """The AnnData, or one whose X is the layer, with the same names."""
    if layer is None:
        return adata
    if layer not in adata.layers:
        held = ", ".join(adata.layers) or "none"
        raise ValueError(f"there is no layer {layer!r}{meant(layer, adata.layers)}; there are {held}")
    return type(adata)(adata.layers[layer], obs=adata.obs, var=adata.var)


def _facts(post: Posterior, components: Table) -> dict[str, Any]:
    """What .h5ad can hold of how the fit was made and whether to trust it."""
    judged = summary(post)
    facts = {
        "model": post.model.name,
        "method": post.method,
        "rank": post.model.rank,
        "seed": post.seed,
        "version": __version__,
        "components": np.array(components.rows),
        "congruence": components.congruence,
        "summary": judged.sentence,
    }
    return facts if judged.agree is None else {**facts, "agree": judged.agree}
