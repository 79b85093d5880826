"""The hot loops, in several languages that say the same; `kernels_for` picks by device.

`PPNMF_KERNEL=reference` in the environment forces the plain torch ones.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib import import_module
from types import ModuleType

import torch

from ppnmf.kernels import cpu, reference

__all__ = ["kernels_for"]


def kernels_for(device: torch.device) -> ModuleType:
    """The module whose half_sweep, inverse_gamma and moved serve this device."""
    if os.environ.get("PPNMF_KERNEL") == "reference":
        return reference
    if device.type == "cuda":
        return _cuda()
    return cpu if device.type == "cpu" else reference


@cache
def _cuda() -> ModuleType:
    """Triton's, where it is installed (torch's builds for CUDA bring it on Linux)."""
    try:
        return import_module("ppnmf.kernels.cuda")
    except ImportError as error:
        warnings.warn(f"the GPU works with the slow reference kernels: {error}; install triton 3.7", stacklevel=3)
        return reference
