"""torch's and NumPy's settings inside our calls: the caller's are neither used nor changed.

A caller may work under `torch.no_grad`, `torch.inference_mode`, `torch.set_default_device`, `torch.autocast` or
`np.seterr("raise")`. Our functions make tensors, some of which a model keeps: they must not depend on where they are
called from. Methods that take gradients switch them on themselves. The default floating type needs nothing, since we name the
type of what we make.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

__all__ = ["own_settings"]

DEVICES = ("cpu", "cuda")  # whose autocast is switched off


@contextmanager
def own_settings() -> Iterator[None]:
    """No inference mode, tensors on the CPU where no device is named, no autocast, NumPy's usual warnings; then as before.

    As a decorator, `@own_settings()`, around a whole function. Each of these settings belongs to the thread.
    """
    with ExitStack() as settings:
        if torch.is_inference_mode_enabled():
            settings.enter_context(torch.inference_mode(False))
        if torch.get_default_device().type != "cpu":  # asked first, for this one slows every call of torch down
            settings.enter_context(torch.device("cpu"))
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                settings.enter_context(torch.autocast(device, enabled=False))
        settings.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        yield
