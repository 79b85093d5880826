"""Threads that do not change results: each task runs on one thread, and results come back in the order of the tasks.

A multi-threaded product may round differently from a single-threaded one, so inside `single_threaded` the libraries
work on one thread each and the parallelism is over tasks whose borders depend on the data's shape alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Lock
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["allowed_threads", "lots", "ordered_map", "ordered_results", "single_threaded"]

Task = TypeVar("Task")
Result = TypeVar("Result")
LOTS = 4  # for each thread: enough to even out how long items take
WORTH_A_THREAD = 500_000  # operations in a task below which handing it over costs more than doing it

_workers: dict[int, ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.clear)  # threads do not survive a fork; their queue would wait for ever
_allowed: ContextVar[int] = ContextVar("threads that a map may use", default=1)  # 1 in the workers themselves


class _OneBlasThread:
    """SciPy's BLAS, which compiled products call, on one thread while anybody needs it so; the setting is the process's."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._before: list[int] = []  # threads of each library
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = Lock()  # whoever held it did not come along

    def acquire(self) -> None:
        """One more needs it so."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = [library.get_num_threads() for library in _blas()]
                self._set([1] * len(self._before))

    def release(self) -> None:
        """One fewer; after the last, BLAS has its threads back."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._set(self._before)

    def _set(self, threads: list[int]) -> None:
        """So many for each library; one that has them already is left alone, since telling it may start threads."""
        for library, before, number in zip(_blas(), self._before, threads, strict=True):
            if before > 1:
                library.set_num_threads(number)


@cache
def _blas() -> list[Any]:
    """The libraries of linear algebra that are loaded."""
    import scipy.linalg.cython_blas  # noqa: F401  # loads what is to be controlled

    return ThreadpoolController().select(user_api="blas").lib_controllers


_one_blas_thread = _OneBlasThread()
_inside: ContextVar[bool] = ContextVar("inside single_threaded", default=False)


@contextmanager
def single_threaded() -> Iterator[None]:
    """The products of torch and of SciPy's BLAS on one thread each; as many tasks at once as torch had threads before."""
    if _inside.get():
        yield
        return
    before = torch.get_num_threads()
    _one_blas_thread.acquire()
    inside = _inside.set(True)
    allowed = _allowed.set(before)
    try:
        if before > 1:
            torch.set_num_threads(1)
        yield
    finally:
        if before > 1:
            torch.set_num_threads(before)
        _allowed.reset(allowed)
        _inside.reset(inside)
        _one_blas_thread.release()


def allowed_threads() -> int:
    """How many threads a map may use here: 1 outside `single_threaded`, and in its workers."""
    return _allowed.get()


def lots(items: int) -> list[range]:
    """So many items in lots of one size, but for the last, as tasks of a map."""
    size = max(1, -(-items // (LOTS * allowed_threads())))
    return [range(first, min(first + size, items)) for first in range(0, items, size)]


def ordered_map(function: Callable[[Task], Result], tasks: Sequence[Task], operations: float) -> list[Result]:
    """[function(task) for task in tasks], over the threads that `single_threaded` allows when the work is worth it.

    Args:
        operations: floating-point operations of one task, about; of few, no thread is worth its trouble.

    Returns: the results in the order of the tasks. What a task raises is raised here, of several the first.
    """
    return list(ordered_results(function, tasks, operations))


def ordered_results(function: Callable[[Task], Result], tasks: Sequence[Task], operations: float) -> Iterator[Result]:
    """What `ordered_map` gives, one by one: what has been used need not stay in memory."""
    allowed = _allowed.get()
    if allowed == 1 or len(tasks) == 1 or operations < WORTH_A_THREAD:
        return map(function, tasks)
    return _pool(allowed).map(function, tasks)


def _pool(size: int) -> ThreadPoolExecutor:
    if size not in _workers:
        _workers[size] = ThreadPoolExecutor(size, "ppnmf", initializer=torch.set_num_threads, initargs=(1,))
    return _workers[size]
