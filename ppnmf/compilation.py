"""What a user hears of compiling: a line while it happens, and a warning where the outcome cannot be kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from numba import njit
from numba.core import event

from ppnmf.progress import say, shown

__all__ = ["announced", "can_be_kept"]

LINE = "ppnmf: compiling kernels; this happens at their first use on a machine and can take a minute"


class _Announcer(event.Listener):
    """Says `LINE` when the first kernel of ours is compiled; one that is loaded from Numba's cache is no such event."""

    def __init__(self) -> None:
        self.done = False

    def on_start(self, begun: event.Event) -> None:
        if not self.done and begun.data["dispatcher"].py_func.__module__.startswith("ppnmf"):
            self.done = True
            say(LINE)

    def on_end(self, ended: event.Event) -> None:
        pass


_announcer = _Announcer()  # one a process, so that the line comes once


@contextmanager
def announced(progress: bool = True) -> Iterator[None]:
    """Say on standard error, once a process, that kernels are being compiled, if they are; silent where bars are."""
    if not shown(progress):
        yield
        return
    with event.install_listener("numba:compile", _announcer):
        yield


@cache
def can_be_kept() -> bool:
    """Whether Numba finds a folder that can be written for compiled kernels; warns where there is none."""
    try:
        njit(cache=True)(_nothing)
    except RuntimeError:  # from which importing the kernels would stop
        warnings.warn(
            "compiled kernels cannot be kept, for neither ppnmf's folder nor the user's cache folder can be written: each "
            "process compiles them anew, which can take a minute; set NUMBA_CACHE_DIR to a folder that can be written",
            stacklevel=2,
        )
        return False
    return True


def _nothing() -> None:
    pass
