"""Ctrl-C, SIGTERM and a closed terminal, each the same to a command: once to finish what is drawn, again to lose it.

The first raises KeyboardInterrupt, which the methods answer with what they have, or waits where a file is being written.
Some libraries run Python where an exception has nowhere to go (a callback from C, a finaliser); one that was lost there
is raised again. The second ends the process and those that work for it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["Ending", "finishing", "heard"]

NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "the terminal was closed"}
SAME = 0.5  # seconds within which a signal is the same: `timeout` sends one to the process and one to its group
RAISED_AGAIN = 0.05  # seconds after it was lost


class Ending:
    """What was heard while a command runs.

    Args:
        kept: says what would be left, if the command ended now.

    Attributes:
        number: of the first signal; None: there was none.
    """

    def __init__(self, kept: Callable[[], str] = lambda: "") -> None:
        self._kept = kept
        self.number: int | None = None
        self._since = 0.0
        self._waits = False  # until the block of `finishing` is left
        self._finishing = False
        self._lost = False

    @property
    def name(self) -> str:
        return "Ctrl-C" if self.number is None else NAMES[signal.Signals(self.number).name]

    @property
    def exit_code(self) -> int:
        """As shells report the end by a signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (signal.SIGINT if self.number is None else self.number)

    def hear(self, number: int, frame: Any) -> None:
        """The handler of the signals."""
        if self.number is None:
            self.number = number
            self._since = time.monotonic()
            _say(f"ppnmf: {self.name}: finishing what is drawn; again to lose it")
        elif self._lost:
            self._lost = False
        elif time.monotonic() - self._since < SAME:
            return
        else:
            _end(128 + number, self._kept())
        self._waits = self._finishing
        if not self._waits:
            raise KeyboardInterrupt

    def lose(self, lost: Any) -> None:
        """`sys.unraisablehook`: the exception could not be raised where it came."""
        if self.number is None or not issubclass(lost.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(lost)
            return
        self._lost = True
        threading.Timer(RAISED_AGAIN, signal.pthread_kill, (threading.main_thread().ident, self.number)).start()

    @contextmanager
    def finish(self) -> Iterator[None]:
        """Inside, the first signal waits until the end."""
        self._finishing = True
        try:
            yield
        finally:
            self._finishing = False
        if self._waits:
            self._waits = False
            raise KeyboardInterrupt


_now = Ending()  # of the command that runs


@contextmanager
def heard(kept: Callable[[], str]) -> Iterator[Ending]:
    """Inside, signals are answered as the module says. Those that the process ignores stay ignored."""
    global _now
    _now = Ending(kept)
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_kill"):
        yield _now
        return
    before = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in NAMES)}
    hook = sys.unraisablehook
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _now.hear)
    sys.unraisablehook = _now.lose
    try:
        yield _now
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def finishing() -> Iterator[None]:
    """Inside, the first signal waits until the end, where KeyboardInterrupt is raised: for what takes no time to finish."""
    with _now.finish():
        yield


def _say(sentence: str) -> None:
    """At once, also where the signal came in the midst of a line."""
    with suppress(OSError):
        beginning = "\r" if os.isatty(2) else ""
        os.write(2, f"{beginning}{sentence}\n".encode())


def _end(code: int, kept: str) -> None:
    """End, here and now, this process and those that work for it."""
    from ppnmf import disk

    for worker in multiprocessing.active_children():
        if worker.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
    disk.remove_unfinished()
    _say(f"ppnmf: ended; {kept}")
    os._exit(code)
