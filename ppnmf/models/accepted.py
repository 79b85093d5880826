"""Whether the entries of X are such as a model takes."""

from __future__ import annotations

from ppnmf.poisson.entries import require_counts
from ppnmf.protocols import Entries, Matrix, Model

__all__ = ["require_accepted"]


def require_accepted(model: Model, X: Matrix) -> None:
    """Raise ValueError where X has negative entries that the model does not take, or is to be counts and is not."""
    if X.n_negative and model.accepts is not Entries.REAL:
        raise ValueError(
            f"X has {X.n_negative} negative entries (least {X.least:.6g}); {model.name} needs {model.accepts.value}: check the "
            "input, or use a Gaussian model"
        )
    if model.accepts is Entries.COUNTS:
        require_counts(model.name, X)
