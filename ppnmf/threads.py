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
from typing import TypeVar

import torch

__all__ = ["ordered_map", "single_threaded"]

Task = TypeVar("Task")
Result = TypeVar("Result")
WORTH_A_THREAD = 500_000  # operations in a task below which handing it over costs more than doing it

_workers: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_workers.clear)  # threads do not survive a fork, and their queue would wait for ever
_allowed: ContextVar[int] = ContextVar("threads that a map may use", default=1)  # 1 in the workers themselves


@contextmanager
def single_threaded() -> Iterator[None]:
    """torch's products on one thread each; as many tasks at once as torch had threads before."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    token = _allowed.set(before)
    try:
        yield
    finally:
        _allowed.reset(token)
        torch.set_num_threads(before)


def ordered_map(function: Callable[[Task], Result], tasks: Sequence[Task], operations: float) -> list[Result]:
    """[function(task) for task in tasks], over the threads that `single_threaded` allows when the work is worth it.

    Args:
        operations: floating-point operations of one task, about.
    """
    allowed = _allowed.get()
    if allowed == 1 or len(tasks) == 1 or operations < WORTH_A_THREAD:
        return [function(task) for task in tasks]
    return list(_pool(allowed).map(function, tasks))


def _pool(size: int) -> ThreadPoolExecutor:
    if size not in _workers:
        _workers[size] = ThreadPoolExecutor(size, "ppnmf", initializer=torch.set_num_threads, initargs=(1,))
    return _workers[size]
