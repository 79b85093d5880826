"""torch's and NumPy's settings inside our calls: the caller's are neither used nor changed.

A caller may work under `torch.no_grad`, `torch.inference_mode`, `torch.set_default_device`, `torch.autocast` or
`np.seterr("raise")`. Our functions make tensors, some of which a model keeps: they must not depend on where they are
called from. Methods that take gradients switch them on themselves. The default floating type needs nothing, since we name the
type of what we make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

__all__ = ["own_settings"]

DEVICES = ("cpu", "cuda")  # whose autocast is switched off
USUAL = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}  # NumPy's


@contextmanager
def own_settings() -> Iterator[None]:
    """No inference mode, tensors on the CPU where no device is named, no autocast, NumPy's usual warnings; then as before.

    As a decorator, `@own_settings()`, around a whole function. Each of these settings belongs to the thread.
    """
    others = _others()
    if not others:
        yield
        return
    with ExitStack() as settings:
        for other in others:
            settings.enter_context(other())
        yield


def _others() -> list[Callable[[], AbstractContextManager[Any]]]:
    """What makes the settings ours, of those that are not: a device in force slows every call of torch down."""
    others: list[Callable[[], AbstractContextManager[Any]]] = []
    if torch.is_inference_mode_enabled():
        others.append(partial(torch.inference_mode, False))
    if torch.get_default_device().type != "cpu":
        others.append(partial(torch.device, "cpu"))
    mixed = [device for device in DEVICES if torch.is_autocast_enabled(device)]
    others += [partial(torch.autocast, device, enabled=False) for device in mixed]
    if np.geterr() != USUAL:
        others.append(partial(np.errstate, **USUAL))  # type: ignore[arg-type]
    return others
