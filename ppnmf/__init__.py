"""Probabilistic non-negative matrix factorisation: X (N, D) ≈ W (N, K) @ H (K, D), W, H >= 0, as Pyro programs.

Names are imported when first used, so ``import ppnmf`` is quick.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {  # public name -> the module that holds it
    "fit": "ppnmf.inference",
    "as_matrix": "ppnmf.data.matrix",
    "read": "ppnmf.data.files",
    "shard": "ppnmf.data.sharded",
    "Posterior": "ppnmf.posterior",
    "align": "ppnmf.diagnostics.alignment",
    "summary": "ppnmf.diagnostics.convergence",
    "log_evidence": "ppnmf.evidence",
    "Evidence": "ppnmf.evidence",
    "select_rank": "ppnmf.evidence.rank",
    "compare": "ppnmf.report",
    "models": "ppnmf.models",
    "datasets": "ppnmf.data.datasets",
    "plots": "ppnmf.plots",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ppnmf' has no attribute {name!r}")
    module = import_module(_HOME[name])
    return module if _HOME[name].endswith(f".{name}") and not hasattr(module, name) else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
