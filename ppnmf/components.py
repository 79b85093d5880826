"""Which components a posterior has a use for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LiveComponents", "live_components"]


@dataclass(frozen=True, eq=False)
class LiveComponents:
    """How many components are live, draw by draw.

    Args:
        counts: (chain, draw).
        least: what a component's strength ‖W_k‖‖H_k‖ must exceed to be live, (chain, draw).
    """

    counts: Tensor
    least: Tensor

    @property
    def probability(self) -> dict[int, float]:
        """Each number of live components that occurs -> its share of the draws, fewest first."""
        found = Counter(self.counts.flatten().tolist())
        return {number: found[number] / self.counts.numel() for number in sorted(found)}

    @property
    def mode(self) -> int:
        """The number with the greatest share; the least of several."""
        return max(self.probability.items(), key=lambda item: (item[1], -item[0]))[0]

    def __str__(self) -> str:
        shares = ", ".join(f"{number}: {share:.3g}" for number, share in self.probability.items())
        return f"{self.mode} live components (share of the draws by number: {shares})"


def live_components(W: Tensor, H: Tensor, deviation: Tensor, observed: float) -> LiveComponents:
    """Components stronger than the strongest that noise alone would make.

    The largest singular value of an N × D matrix of noise of standard deviation σ is about σ (√N + √D); with a share of the
    entries observed, both counts are taken times it. A component with ‖W_k‖‖H_k‖ below that cannot be told from noise.

    Args:
        W: (chain, draw, N, K). H: (chain, draw, K, D).
        deviation: σ, (chain, draw).
        observed: the share of the entries that is observed.
    """
    norm = torch.linalg.vector_norm
    strengths = norm(W, dim=-2, dtype=torch.float64) * norm(H, dim=-1, dtype=torch.float64)
    sides = (observed * W.shape[-2]) ** 0.5 + (observed * H.shape[-1]) ** 0.5
    least = deviation.double() * sides
    return LiveComponents((strengths > least[..., None]).sum(-1), least)
