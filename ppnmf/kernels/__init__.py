"""The hot loops, in several languages that say the same; `kernels_for` picks by device.

`PPNMF_KERNEL=reference` in the environment forces the plain torch ones.
"""

from __future__ import annotations

import os
from types import ModuleType

import torch

from ppnmf.kernels import cpu, reference

__all__ = ["kernels_for"]


def kernels_for(device: torch.device) -> ModuleType:
    """The module whose half_sweep, inverse_gamma, scale_move and shear_move serve this device."""
    if device.type != "cpu" or os.environ.get("PPNMF_KERNEL") == "reference":
        return reference
    return cpu
