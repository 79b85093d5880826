"""The options of `log_evidence` and `select_rank`, for type checkers and editors; each method's `run` says which it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from numpy.typing import ArrayLike
from torch import Tensor

from ppnmf.inference.start import Start

__all__ = ["EvidenceOptions", "RankOptions"]


class EvidenceOptions(TypedDict, total=False):
    """Those of the methods that give evidence; a test keeps them equal to those that the `run` of each has."""

    draws: int | None
    thin: int
    warmup: int
    bridge: bool
    init: Start
    survey: int | None
    particles: int | None
    sweeps: int | None
    width: float


class RankOptions(EvidenceOptions, total=False):
    """Those of all criteria, and of one of them alone as a dict under its name."""

    replicates: int
    folds: int | ArrayLike | Tensor
    moves: bool
    rounds: int
    used: int | None
    chains: int
    nested: bool
    restarts: int
    invariance: bool
    corrected: bool
    precision: float | None
    factor_precision: float | None
    steps: int
    batch_size: int | None
    polish: int
    price: bool
    cells: int
    axis: str
    chib: Mapping[str, Any]
    smc: Mapping[str, Any]
    stepping_stone: Mapping[str, Any]
    heldout: Mapping[str, Any]
    aic: Mapping[str, Any]
    bic: Mapping[str, Any]
    mdl: Mapping[str, Any]
    elbo: Mapping[str, Any]
    loo: Mapping[str, Any]
    consensus: Mapping[str, Any]
