"""A guide with parameters of its own for every entry: what it gains over the encoder's is the amortisation gap."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ppnmf.data.matrix import Dense
from ppnmf.data.sharded import Sharded
from ppnmf.inference.svi.blocks import Batch, Outputs, added, batch_of, bound_of, by_block, operations
from ppnmf.progress import bar
from ppnmf.protocols import Amortised, Asked
from ppnmf.threads import ordered_map

__all__ = ["Final", "Free", "final_guide"]

RATE = 0.02
NEGLIGIBLE = 1e-8  # slope, in nats: Adam's ε
MEAN_KEPT = 0.9  # of Adam's running mean of the slopes, in a step
SQUARE_KEPT = 0.99  # of that of their squares
AT_ONCE = 10  # steps between which Ctrl-C is heard


class Free(NamedTuple):
    """Some rows whose guide has parameters of its own, on Adam's way up: a value, of which steps make another."""

    model: Amortised
    batch: Batch
    raw: Outputs  # what the guide is made of
    first: Outputs  # Adam's running mean of the gradient, and of its square
    second: Outputs
    kept: Outputs  # the raw ones with the best bound
    best: Tensor  # (), that bound

    @classmethod
    def of(cls, model: Amortised, batch: Batch) -> Self:
        """As the encoder has them."""
        raw = model.outputs(batch.coordinates)
        zeros = tuple(torch.zeros_like(part) for part in raw)
        return cls(model, batch, raw, zeros, zeros, raw, bound_of(model, batch))

    def bound(self, raw: Outputs) -> Tensor:
        """The ELBO of the rows under the guide of these, the model's parameters frozen."""
        return self.model.bound(self.batch.values, self.batch.mask, raw, Asked(frozen=True))

    def after(self, steps: range, of: int) -> Self:
        """After these steps of Adam, whose rate follows a cosine to zero at step `of`."""
        there = self
        for step in steps:
            there = there._stepped(step, of)
        return there._judged()

    def _stepped(self, step: int, of: int) -> Self:
        """After one step of Adam."""
        variables = tuple(part.detach().requires_grad_() for part in self.raw)
        slopes = torch.autograd.grad(self.bound(variables), variables)
        first = tuple(MEAN_KEPT * m + 0.1 * g for m, g in zip(self.first, slopes, strict=True))
        second = tuple(SQUARE_KEPT * v + 0.01 * g * g for v, g in zip(self.second, slopes, strict=True))
        rate = RATE * 0.5 * (1 + math.cos(math.pi * step / of)) / (1 - MEAN_KEPT ** (step + 1))
        roots = [(v / (1 - SQUARE_KEPT ** (step + 1))).sqrt() for v in second]
        scaled = [(root + NEGLIGIBLE).reciprocal() for root in roots]
        raw = tuple(r + rate * m * s for r, m, s in zip(self.raw, first, scaled, strict=True))
        return self._replace(raw=raw, first=first, second=second)

    @torch.no_grad()
    def _judged(self) -> Self:
        """With the best that there has been."""
        bound = self.bound(self.raw)
        better = bound > self.best
        kept = tuple(torch.where(better, new, old) for new, old in zip(self.raw, self.kept, strict=True))
        return self._replace(kept=kept, best=torch.where(better, bound, self.best))


class Final(NamedTuple):
    """The guide of the rows that the model was trained on."""

    outputs: Outputs  # what it is made of
    elbo: float
    gap: float  # what the polish has raised the ELBO by
    interrupted: bool


def final_guide(model: Amortised, X: Dense | Sharded, steps: int, progress: bool) -> Final:
    """The encoder's guide or, after that many steps on parameters of its own for every entry, the polished one.

    Each block of rows keeps the best that it has reached, so the bound never falls; Ctrl-C ends the steps.
    """
    own = X.here
    frees = by_block(lambda rows: Free.of(model, batch_of(model, own, rows)), own, model.rank)
    first = added(X, [free.best for free in frees])
    reached = first
    interrupted = False
    try:
        with bar(steps, "polish", progress) as shown:
            for done in range(0, steps, AT_ONCE):
                some = range(done, min(done + AT_ONCE, steps))
                further = partial(Free.after, steps=some, of=steps)
                frees = ordered_map(further, frees, operations(frees, own, model.rank))
                reached = added(X, [free.best for free in frees])
                shown.update(len(some))
                shown.set_postfix_str(f"ELBO {reached:.6g}")
    except KeyboardInterrupt:
        interrupted = True
    outputs = tuple(torch.cat(parts) for parts in zip(*(free.kept for free in frees), strict=True))
    return Final(outputs, reached, reached - first, interrupted)
