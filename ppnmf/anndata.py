"""A fit of an AnnData's matrix, written back beside it: `ppnmf.anndata.fit`. Needs the extra `scverse`."""

from __future__ import annotations

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
    adata: anndata.AnnData,
    rank: int | None = None,
    *,
    model: str | Model = "exponential_gaussian",
    layer: str | None = None,
    key: str = "ppnmf",
    **options: Any,
) -> Posterior:
    """Fit a model to X (cells, genes), or to a layer, and write the result into `adata` (`write`).

    Args:
        adata: in memory or backed; its matrix stays as it is.
        rank: number of components, with a model's name.
        model: a registered model's name, for counts "gamma_poisson" or "negative_binomial_gamma"; or a model.
        layer: whose matrix is taken; X by default.
        key: under which the result is written.
        options: of `ppnmf.fit`: method, draws, chains, seed, until, max_seconds ...

    Returns: the posterior, with everything that `adata` has no room for.

    Raises:
        TypeError: not an AnnData.
        ValueError: no such layer, or what `ppnmf.fit` refuses.
    """
    post = inference.fit(model, _matrix_of(adata, layer), rank=rank, **options)
    write(post, adata, key)
    return post


def write(post: Posterior, adata: anndata.AnnData, key: str = "ppnmf") -> None:
    """Write a posterior's factors into the AnnData that it was fitted to; what is there under these names goes.

    `obsm["X_<key>"]` (cells, K) and `varm["<key>"]` (genes, K) are the loadings and components of `Posterior.loadings` and
    `components`: posterior means in one order, each component scaled to sum to one. `obsm["X_<key>_sd"]` and
    `varm["<key>_sd"]` are their standard deviations. `uns["<key>"]` says how the fit was made, the congruence of each
    component, and in words whether the chains agree.

    Raises:
        ValueError: it has other numbers of cells or genes.
    """
    _require_anndata("write", adata)
    if adata.shape != tuple(post.X.shape):
        raise ValueError(f"adata is {adata.shape}, and the fit is of {tuple(post.X.shape)}: give what was fitted")
    loadings = post.loadings()
    components = post.components()
    adata.obsm[f"X_{key}"] = loadings.mean
    adata.obsm[f"X_{key}_sd"] = loadings.sd
    adata.varm[key] = components.mean.T
    adata.varm[f"{key}_sd"] = components.sd.T
    adata.uns[key] = _facts(post, components)


def _matrix_of(adata: Any, layer: str | None) -> Any:
    """The AnnData, or one whose X is the layer, with the same names."""
    _require_anndata("fit", adata)
    if layer is None:
        return adata
    if layer not in adata.layers:
        held = ", ".join(adata.layers) or "none"
        raise ValueError(f"there is no layer {layer!r}{meant(layer, adata.layers)}; there are {held}")
    return type(adata)(adata.layers[layer], obs=adata.obs, var=adata.var)


def _require_anndata(who: str, adata: Any) -> None:
    if not all(hasattr(adata, name) for name in ("obsm", "varm", "uns", "layers")):
        raise TypeError(f"{who} takes an AnnData, and was given {described(adata)}; ppnmf.fit takes other matrices")


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
