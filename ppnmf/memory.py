"""What memory there is, asked before more is wanted than could ever be had."""

from __future__ import annotations

import math
from pathlib import Path

import torch

__all__ = ["available", "require"]

LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container
SURE = 2**24  # bytes that can be had where Python runs: to ask how many there are would take longer than the work
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def require(numbers: int, dtype: torch.dtype, device: torch.device | str, what: str, instead: str) -> None:
    """Raise MemoryError, in a sentence, when so many numbers cannot be held where the work is.

    Args:
        what: needs them, with a plural verb after it: "4 chain(s) of rank 10".
        instead: what to ask for.
    """
    needed = numbers * dtype.itemsize
    if needed <= SURE:
        return
    there = available(torch.device(device))
    if needed > there:
        raise MemoryError(f"{what} need {_size(needed)} of memory, and {_size(there)} can be had: {instead}")


def available(device: torch.device) -> float:
    """Bytes that can be had at most; infinite where that is not known."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    if device.type != "cpu":
        return math.inf
    return min(_of_the_machine(), _of_the_container())


def _of_the_machine() -> float:
    """What is free, can be freed or swapped."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = {name: float(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
        return 1024 * (kilobytes["MemAvailable"] + kilobytes["SwapFree"])
    except (OSError, KeyError, ValueError, IndexError):
        return math.inf


def _of_the_container() -> float:
    try:
        return float(LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):  # there is none, or it says "max"
        return math.inf


def _size(number: float) -> str:
    """Bytes as they are read: 1.5 GB."""
    power = min(len(UNITS) - 1, max(0, int(math.log(max(number, 1), 1000))))
    return f"{number / 1000**power:.3g} {UNITS[power]}"
