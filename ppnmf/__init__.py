"""Probabilistic non-negative matrix factorisation: X (N, D) ≈ W (N, K) @ H (K, D), W, H >= 0, as Pyro programs.

Names are imported when first used, so ``import ppnmf`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what type checkers and editors see; `_HOME` says the same to Python
    from ppnmf import anndata, models, nn, plots, report
    from ppnmf.data import datasets
    from ppnmf.data.files import read
    from ppnmf.data.matrix import as_matrix
    from ppnmf.data.sharded import shard
    from ppnmf.diagnostics.alignment import align
    from ppnmf.diagnostics.clusters import clusters
    from ppnmf.diagnostics.convergence import nested_rhat, summary
    from ppnmf.diagnostics.guides import row_k_hats
    from ppnmf.diagnostics.leave_out import kfold, loo, stacking
    from ppnmf.diagnostics.modes import mode_masses
    from ppnmf.diagnostics.sensitivity import prior_sensitivity
    from ppnmf.diagnostics.signatures import signatures
    from ppnmf.estimator import NMF
    from ppnmf.evidence import Evidence, log_evidence
    from ppnmf.evidence.rank import select_rank
    from ppnmf.inference import fit
    from ppnmf.inference.extended import extend
    from ppnmf.joining import join
    from ppnmf.labelling import predicted_labels
    from ppnmf.posterior import Posterior
    from ppnmf.report import compare

__version__ = "0.1.0"

__all__ = [
    "NMF",
    "Evidence",
    "Posterior",
    "__version__",
    "align",
    "anndata",
    "as_matrix",
    "clusters",
    "compare",
    "datasets",
    "extend",
    "fit",
    "join",
    "kfold",
    "log_evidence",
    "loo",
    "mode_masses",
    "models",
    "nested_rhat",
    "nn",
    "plots",
    "predicted_labels",
    "prior_sensitivity",
    "read",
    "report",
    "row_k_hats",
    "select_rank",
    "shard",
    "signatures",
    "stacking",
    "summary",
]

_HOME = {  # public name -> the module that holds it
    "fit": "ppnmf.inference",
    "as_matrix": "ppnmf.data.matrix",
    "read": "ppnmf.data.files",
    "shard": "ppnmf.data.sharded",
    "Posterior": "ppnmf.posterior",
    "align": "ppnmf.diagnostics.alignment",
    "clusters": "ppnmf.diagnostics.clusters",
    "mode_masses": "ppnmf.diagnostics.modes",
    "signatures": "ppnmf.diagnostics.signatures",
    "summary": "ppnmf.diagnostics.convergence",
    "nested_rhat": "ppnmf.diagnostics.convergence",
    "row_k_hats": "ppnmf.diagnostics.guides",
    "loo": "ppnmf.diagnostics.leave_out",
    "kfold": "ppnmf.diagnostics.leave_out",
    "stacking": "ppnmf.diagnostics.leave_out",
    "prior_sensitivity": "ppnmf.diagnostics.sensitivity",
    "log_evidence": "ppnmf.evidence",
    "Evidence": "ppnmf.evidence",
    "extend": "ppnmf.inference.extended",
    "join": "ppnmf.joining",
    "select_rank": "ppnmf.evidence.rank",
    "compare": "ppnmf.report",
    "NMF": "ppnmf.estimator",
    "anndata": "ppnmf.anndata",
    "models": "ppnmf.models",
    "nn": "ppnmf.nn",
    "datasets": "ppnmf.data.datasets",
    "predicted_labels": "ppnmf.labelling",
    "plots": "ppnmf.plots",
    "report": "ppnmf.report",
}

if not TYPE_CHECKING:  # a type checker that saw this would take every name for one of ours

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module 'ppnmf' has no attribute {name!r}; there are {', '.join(_HOME)}")
        module = import_module(_HOME[name])
        return module if _HOME[name].endswith(f".{name}") and not hasattr(module, name) else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
