"""The processes that hold the rows of X, and what they add up and exchange."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Ranks"]

FEW, FEW_RANKS = 4096, 2  # so many numbers, or between so many ranks, go to everybody whole; else each adds up a piece


class Ranks:
    """The processes that share a matrix, and the two ways in which their numbers meet: gathered, and added up.

    Every call is made by all of them, in the same order, and gives all of them the same bits.

    Args:
        group: of `torch.distributed`; None is the default one, or this process alone where there is none.
    """

    def __init__(self, group: Any = None) -> None:
        self.group, self.interrupted = group, False
        self.alone = group is None and not (dist.is_available() and dist.is_initialized())
        self.rank = 0 if self.alone else dist.get_rank(group)
        self.count = 1 if self.alone else dist.get_world_size(group)
        self._peer = dist.get_process_group_ranks(group)[1 - self.rank] if self.count == 2 else -1
        backends = "" if self.alone else str(dist.get_backend_config(group))
        self.on_gpu, self.on_host = "nccl" in backends, "gloo" in backends

    def gathered(self, part: Tensor) -> Tensor:
        """The ranks' parts, which have one shape: (count, *shape)."""
        return part[None] if self.count == 1 else self._all_gather(part)

    def add_up(self, part: Tensor) -> Tensor:
        """The sum of the ranks' parts, added in their order. Raises KeyboardInterrupt when any was interrupted."""
        if self.count == 1:
            return part
        sent = torch.cat([part.flatten(), part.new_tensor([float(self.interrupted)])])
        if self.count <= FEW_RANKS or len(sent) <= FEW:
            total = reduce(torch.add, self._all_gather(sent).unbind(0))
        else:
            size = -(-len(sent) // self.count)  # each rank adds up one piece: the traffic of an all-reduce
            pieces = torch.nn.functional.pad(sent, (0, size * self.count - len(sent))).view(self.count, size)
            mine = reduce(torch.add, self._exchanged(pieces).unbind(0))
            total = self._all_gather(mine).flatten()[: len(sent)]
        if bool(total[-1] > 0):
            self.interrupted = False
            raise KeyboardInterrupt
        return total[:-1].view(part.shape)

    def objects(self, mine: Any) -> list[Any]:
        """One Python object from each rank."""
        if self.count == 1:
            return [mine]
        theirs: list[Any] = [None] * self.count
        with self._in_a_sentence():
            dist.all_gather_object(theirs, mine, self.group)
        return theirs

    @contextmanager
    def interrupted_together(self) -> Iterator[None]:
        """Inside, Ctrl-C at one rank raises KeyboardInterrupt in all of them, at the same sum.

        A rank that left by itself would let the others wait for it. A second Ctrl-C does just that.
        """
        self.interrupted = False
        if self.count == 1 or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def note(number: int, frame: Any) -> None:
            if self.interrupted:
                signal.signal(signal.SIGINT, before)
                raise KeyboardInterrupt
            self.interrupted = True

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            self.interrupted = False  # too late: the run is over

    def _all_gather(self, part: Tensor) -> Tensor:
        sent = self._sendable(part)
        received = sent.new_empty(self.count, *sent.shape)
        with self._in_a_sentence():
            if self.count == 2 and not sent.is_cuda:  # with gloo, two messages are half as long under way
                received[self.rank] = sent
                away = dist.isend(sent, self._peer, self.group)
                back = dist.irecv(received[1 - self.rank], self._peer, self.group)
                for message in (away, back):
                    assert message is not None, "this process is not of the group"
                    message.wait()
            else:
                dist.all_gather(list(received.unbind(0)), sent, self.group)
        return received.to(part.device)

    def _exchanged(self, pieces: Tensor) -> Tensor:
        sent = self._sendable(pieces)
        received = torch.empty_like(sent)
        with self._in_a_sentence():
            dist.all_to_all_single(received, sent, group=self.group)
        return received.to(pieces.device)

    def _sendable(self, part: Tensor) -> Tensor:
        """Contiguous, and where the group's libraries can read it: gloo on the host, NCCL on a GPU."""
        if part.is_cuda == self.on_gpu or (self.on_host and not part.is_cuda):
            return part.contiguous()
        return part.contiguous().cuda() if self.on_gpu else part.contiguous().cpu()

    @contextmanager
    def _in_a_sentence(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            told = str(error).split(". ")[0].split("\n")[0] or type(error).__name__
            raise ConnectionError(
                f"rank {self.rank} of {self.count} lost the others: one has ended or cannot be reached ({told}); look at "
                "what the other ranks said, and start all of them again"
            ) from error
