"""The pictures that a comparison of fits calls for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppnmf.plots.densities import latent_densities
from ppnmf.plots.factors import components, picture_of
from ppnmf.plots.names import names_of
from ppnmf.plots.places import Panels
from ppnmf.plots.rebuilt import reconstructions
from ppnmf.plots.runs import loss, traces
from ppnmf.posterior import Kind, Posterior

# Rows of X that are shown
PICTURES = 10
CURVES = 4
DENSITIES = 3


def overview(
    fits: Mapping[str, Posterior],
    X: np.ndarray,
    seen: np.ndarray,
    picture: tuple[int, int] | None = None,
    order: str = "C",
    rows: Any = None,
    columns: Sequence[str] | None = None,
) -> dict[str, Panels]:
    """The pictures that a comparison of fits calls for.

    Args:
        fits: name -> Posterior of the same data.
        X, seen, picture, order, columns: as in `reconstructions`.
        rows: names of X's rows.

    Returns: name -> axes: "components-" and a fit's name; "traces-" of chains and "training-" of a training, likewise;
        "reconstructions" of rows spread evenly over X, and their "loadings".
    """
    first = next(iter(fits.values()))
    picture = picture or picture_of(X.shape[1], names_of(first, "columns", columns))
    figures = {f"components-{name}": components(post, picture, order, columns) for name, post in fits.items()}
    for name, post in fits.items():
        if post.kind is Kind.CHAINS and post.n_draws > 1:
            figures[f"traces-{name}"] = traces(post)
        if len(post.attrs.get("elbo_curve", [])) > 1:
            figures[f"training-{name}"] = loss(post)
    spread = np.unique(np.linspace(0, len(X) - 1, PICTURES if picture else CURVES).round()).astype(int).tolist()
    figures["reconstructions"] = reconstructions(fits, X, seen, spread, picture, order, rows, columns)
    figures["loadings"] = latent_densities(fits, spread[:DENSITIES], rows)
    return figures
