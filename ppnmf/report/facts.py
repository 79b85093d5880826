"""Facts as JSON: where something was run, and on what data."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppnmf.disk import write_text

__all__ = ["describe_data", "environment", "for_json", "write_json"]


def environment() -> dict[str, Any]:
    """What a run may depend on besides its input: versions, machine, threads."""
    packages = (
        "ppnmf",
        "torch",
        "pyro-ppl",
        "numpy",
        "scipy",
        "arviz",
        "arviz-base",
        "arviz-stats",
        "numba",
        "scikit-learn",
        "matplotlib",
    )
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": platform.machine(),
        "system": platform.system(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def describe_data(X: np.ndarray) -> dict[str, Any]:
    """Shape and range of X (N, D), NaN where missing."""
    known = X[np.isfinite(X)]
    return {
        "shape": list(X.shape),
        "missing": int(X.size - known.size),
        "negative": int((known < 0).sum()),
        "least": float(known.min()) if known.size else None,
        "mean": float(known.mean()) if known.size else None,
        "greatest": float(known.max()) if known.size else None,
    }


def write_json(path: Path, facts: Mapping[str, Any]) -> Path:
    """Write facts as JSON; numbers that JSON lacks become null. Raises OSError as `disk.replacing` does."""
    return write_text(path, json.dumps(for_json(dict(facts)), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def for_json(value: Any) -> Any:
    """A value as JSON can hold it: mappings, lists, numbers and words; NaN and the infinities become null."""
    if isinstance(value, Mapping):
        return {str(key): for_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [for_json(item) for item in value]
    if isinstance(value, (np.generic, Tensor)):
        return for_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
