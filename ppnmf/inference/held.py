"""`fixed=` of `ppnmf.fit`: the model with known entries of its factors, found by names where X has some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ppnmf.checks import borrowed, described
from ppnmf.data.containers import opened
from ppnmf.factored import AXES, Factored
from ppnmf.inference.start import in_order
from ppnmf.known import Holding
from ppnmf.protocols import Matrix

__all__ = ["held", "holding"]


def holding(model: Any, fixed: Mapping[str, Any] | None, X: Matrix, fitted: bool = False) -> Any:
    """The model whose factors have these known entries; itself where `fixed` is None.

    Args:
        fixed: {"W": (N, J), "H": (J, D)}, either of which may be left out: the first J components, NaN where an entry is
            learned.
        fitted: the model's priors were made for X, and shall now be for what is known too: where rows of H are known, the
            prior of W is for loadings on components of their size.

    Raises:
        TypeError: the model cannot hold entries.
        ValueError: not a dict of W and H, another shape, negative or infinite entries, names that are not X's.
    """
    if fixed is None:
        return model
    if not isinstance(model, Holding):
        name = getattr(model, "name", type(model).__name__)
        raise TypeError(f"fixed is {described(fixed)}, and {name} cannot hold entries of its factors: leave fixed out")
    if not isinstance(fixed, Mapping):
        return model.holding(fixed)  # says what it wants
    values = {site: _values(site, value, X) if site in AXES else value for site, value in fixed.items()}
    own: Any = model.holding(values)
    own.require_fits(X.shape)
    return _stretched(own, values, X) if fitted and isinstance(own, Factored) else own


def held(model: Any, site: str, F: Tensor) -> Tensor:
    """A factor (*C, N, K) or (*C, K, D) with the model's known entries, if any, in their places."""
    return model.hold(site, F) if isinstance(model, Holding) else F


def _values(site: str, value: Any, X: Matrix) -> Tensor:
    name = f"fixed's {site}"
    return torch.as_tensor(borrowed(name, in_order(name, site, opened(name, value), X)), dtype=torch.float64)


def _stretched(model: Any, values: Mapping[str, Tensor], X: Matrix) -> Any:
    """The prior of the other factor for loadings on known components of their size: W @ H keeps X's mean a priori."""
    site = "H" if "H" in values else "W"
    known = values[site][~values[site].isnan()]
    mean = float(known.mean()) if len(known) else 0.0
    if mean == 0.0:
        return model
    size = (X.mean() / model.rank) ** 0.5 / mean
    return model.stretched(size if site == "H" else 1 / size)
