"""Streams of random numbers keyed by (seed, replicate, chain, step, site, row): the only place that seeds.

Every number is a pure function of its address (Philox 4x32-10, Salmon et al. 2011, doi:10.1145/2063384.2063405), so a
draw does not depend on threads, blocks, workers or on what ran before. The key is (seed, replicate, chain), hashed by
NumPy's `SeedSequence`; the counter is (pair of columns, row, step, site). One call gives 128 bits: two uniforms with
52 bits each, for an even column and the odd one after it. They lie in [2^-53, 1 - 2^-53], never 0 or 1.

What a cell of a matrix, or an entry of a factor, is drawn from by rejection takes as many numbers as it needs: its n-th pair
has its column as the pair of columns, and as the site site + `NEXT` n.

The torch and the Numba functions give the same numbers, bit for bit.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from threading import RLock

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.checks import whole_number

__all__ = ["NEXT", "Site", "Stream", "forked", "generator", "uniform_pair"]

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = 0xFFFFFFFF
NEXT = 256  # above all sites
ROWS_AT_ONCE = 2**14  # whose words are in memory together, several times over


class Site(IntEnum):
    """What a random number is for; a new purpose takes a new number, and no number is ever reused."""

    W = 0
    H = 1
    SIGMA2 = 2
    SCALE = 3
    SHEAR_PAIRS = 4
    SHEAR = 5
    START = 6
    DATA = 7
    GUIDE = 8
    FOLDS = 9
    ENTRIES = 10
    RESAMPLING = 11
    SWAP = 12
    RATE = 13
    COUNTS = 14
    EXPOSURE = 15
    DISPERSION = 16
    THINNING = 17
    S = 20
    LAYERS = 24
    COLLAPSED_SHEAR = 30
    COLLAPSED_ROW = 31


@dataclass(frozen=True)
class Stream:
    """The streams of a group of chains (or replicates, or particles), which lead as the axis C of every draw.

    Args:
        keys: one 64-bit key a chain, as two words of 32 bits; use `Stream.of`.
    """

    keys: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, seed: int, chains: int | Sequence[int] = 1, replicates: int | Sequence[int] = (0,)) -> Stream:
        """The streams of `chains` chains in each of the replicates (replicate-major). Raises ValueError for seed < 0."""
        chain_numbers = range(chains) if isinstance(chains, int) else chains
        replicate_numbers = range(replicates) if isinstance(replicates, int) else replicates
        return cls(tuple(_key(seed, r, c) for r in replicate_numbers for c in chain_numbers))

    def __len__(self) -> int:
        return len(self.keys)

    def keys_on(self, device: torch.device | str) -> Tensor:
        """The keys (C, 2) on a device; remembered, since bringing them there waits for the device."""
        return _keys_on(self.keys, torch.device(device))

    def uniforms(self, step: int, site: Site, rows: range, columns: int, device: torch.device | str = "cpu") -> Tensor:
        """Uniforms in (0, 1), float64, shape (C, len(rows), columns): entry [c, i, k] belongs to row rows[i]."""
        if len(rows) <= ROWS_AT_ONCE:
            return self._uniforms(step, site, rows, columns, device)
        out = torch.empty(len(self), len(rows), columns, dtype=torch.float64, device=device)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            out[:, start : start + len(part)] = self._uniforms(step, site, part, columns, device)
        return out

    def pairs(self, chain: int, step: int, site: int, rows: Tensor, columns: Tensor, turns: Tensor) -> Tensor:
        """For one of the chains the uniforms of cells by their rows, columns and turns (M,) each: (M, 2), float64."""
        key = self.keys_on(rows.device)[chain]
        zeros = torch.zeros_like(rows)
        counter = (columns, rows & LOW, zeros + (step & LOW), int(site) + NEXT * turns)
        words = _philox(counter, (key[0], key[1]))
        return torch.stack([_to_unit(words[0], words[1]), _to_unit(words[2], words[3])], -1)

    def _uniforms(self, step: int, site: Site, rows: range, columns: int, device: torch.device | str) -> Tensor:
        pairs = (columns + 1) // 2
        keys = self.keys_on(device)[:, :, None, None]
        row = torch.arange(rows.start, rows.stop, dtype=torch.int64, device=device)[:, None]
        pair = torch.arange(pairs, dtype=torch.int64, device=device)
        zeros = torch.zeros(len(self), len(rows), pairs, dtype=torch.int64, device=device)
        counter = (zeros + pair, zeros + (row & LOW), zeros + (step & LOW), zeros + int(site))
        words = _philox(counter, (keys[:, 0], keys[:, 1]))
        both = torch.stack([_to_unit(words[0], words[1]), _to_unit(words[2], words[3])], -1)
        return both.reshape(len(self), len(rows), 2 * pairs)[..., :columns]


class _Turn:
    """Whose turn it is to use the global generators: they are the process's, and one thread at a time may have them."""

    def __init__(self) -> None:
        self._lock = RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = RLock()  # whichever thread held it did not come along

    @contextmanager
    def taken(self) -> Iterator[None]:
        with self._lock:
            yield


_turn = _Turn()


@contextmanager
def forked(seed: int, device: torch.device | str = "cpu", chain: int = 0) -> Iterator[None]:
    """The global generators (Python, NumPy, torch) seeded inside and put back after: for libraries that use them.

    One thread at a time is inside; another one waits for its turn. (A thread that draws from the global generators by
    itself meanwhile sees them as they are inside; what we can draw from a `generator` of our own, we do.)
    """
    device = torch.device(device)
    low, _ = _key(seed, 0, chain)
    with _turn.taken():
        python = random.getstate()
        numpy = np.random.get_state()  # noqa: NPY002
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            try:
                torch.default_generator.manual_seed(low)
                if device.type == "cuda":
                    torch.cuda.manual_seed(low)
                random.seed(low)
                np.random.seed(low)  # noqa: NPY002
                yield
            finally:
                random.setstate(python)
                np.random.set_state(numpy)  # noqa: NPY002


def generator(seed: int, device: torch.device | str = "cpu", chain: int = 0) -> torch.Generator:
    """A generator of torch's own that gives the numbers of the global one inside `forked`, and is nobody else's."""
    low, _ = _key(seed, 0, chain)
    return torch.Generator(torch.device(device)).manual_seed(low)


@lru_cache(maxsize=64)
def _keys_on(keys: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    return torch.tensor(keys, dtype=torch.int64, device=device)


def _key(seed: int, replicate: int, chain: int) -> tuple[int, int]:
    low, high = np.random.SeedSequence(whole_number("seed", seed, 0), spawn_key=(replicate, chain)).generate_state(2)
    return int(low), int(high)


def _philox(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Ten rounds on int64 tensors that hold 32-bit words (a product wraps, its bits are right)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0 = c0 * MULTIPLIERS[0]
        p1 = c2 * MULTIPLIERS[1]
        c0 = (p1 >> 32 & LOW) ^ c1 ^ k0
        c1 = p1 & LOW
        c2 = (p0 >> 32 & LOW) ^ c3 ^ k1
        c3 = p0 & LOW
        k0 = (k0 + WEYL[0]) & LOW
        k1 = (k1 + WEYL[1]) & LOW
    return c0, c1, c2, c3


def _to_unit(high: Tensor, low: Tensor) -> Tensor:
    """52 bits of two words, moved to the middle of their cell."""
    return ((high << 20 | low >> 12).double() + 0.5) * 2.0**-52


@njit(nogil=True, inline="always", error_model="numpy")
def uniform_pair(key0: int, key1: int, pair: int, row: int, step: int, site: int) -> tuple[float, float]:
    """The uniforms of columns 2 pair and 2 pair + 1: what `Stream.uniforms` gives, one address at a time (Numba).

    Inlined into the caller's loop, whose vector lanes it then fills (an assignment of tuples inside would prevent that).
    """
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    c0 = np.uint64(pair)
    c1 = np.uint64(row) & low
    c2 = np.uint64(step) & low
    c3 = np.uint64(site)
    k0 = np.uint64(key0)
    k1 = np.uint64(key1)
    for _ in range(10):
        p0 = c0 * np.uint64(0xD2511F53)
        p1 = c2 * np.uint64(0xCD9E8D57)
        c0 = (p1 >> half) ^ c1 ^ k0
        c1 = p1 & low
        c2 = (p0 >> half) ^ c3 ^ k1
        c3 = p0 & low
        k0 = (k0 + np.uint64(0x9E3779B9)) & low
        k1 = (k1 + np.uint64(0xBB67AE85)) & low
    first = np.int64((c0 << np.uint64(20)) | (c1 >> np.uint64(12)))  # below 2^52, so the sign is free
    second = np.int64((c2 << np.uint64(20)) | (c3 >> np.uint64(12)))
    return (np.float64(first) + 0.5) * 2.0**-52, (np.float64(second) + 0.5) * 2.0**-52
