"""The options of all methods, for type checkers and editors; what a method itself takes, its `run` says and `fit` checks."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, TypedDict

from ppnmf.inference.start import Start

__all__ = ["FitOptions"]


class FitOptions(TypedDict, total=False):
    """Options that some method's `run` has; a test keeps them equal to those."""

    draws: int
    warmup: int | None
    thin: int
    chains: int
    until: str | None
    max_seconds: float | None
    target_ess: float | None
    init: Start
    survey: int | None
    keep: Collection[str] | None
    moves: bool | str
    checkpoint: str | Path | None
    every: int | None
    resume: str | Path | None
    store: str | Path | None
    restarts: int
    tol: float
    max_sweeps: int
    accelerated: bool
    steps: int
    batch_size: int | None
    learning_rate: float | None
    objective: str | None
    divergence: bool | None
    polish: int
    max_tree_depth: int
    particles: int
    replicates: int
    sweeps: int
    labels: Any
    label_weight: float | str | None
    signs: str
