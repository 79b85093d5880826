"""Problems with known answers."""

from __future__ import annotations

import torch
from torch import Tensor

from ppnmf.models import ExponentialGaussian
from ppnmf.rng import Site, Stream


def drawn(
    N: int, D: int, rank: int, rate: float = 1.0, noise: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """X (N, D) with its true W (N, K) and H (K, D), float64; `noise` is the variance."""
    u = Stream.of(seed).uniforms(0, Site.DATA, range(2 * N + D), max(rank, D))[0]
    W, H = -u[:N, :rank].log() / rate, -u[N : N + D, :rank].mT.log() / rate
    X = W @ H + noise**0.5 * torch.special.ndtri(u[N + D :, :D])
    return X, W, H


def per_entry_model(N: int, D: int, rank: int) -> ExponentialGaussian:
    """Rates that differ from entry to entry, and noise whose place in a formula shows."""
    rate_W = 0.5 + torch.arange(N * rank, dtype=torch.float64).reshape(N, rank) / (N * rank)
    rate_H = 1.5 - torch.arange(rank * D, dtype=torch.float64).reshape(rank, D) / (rank * D)
    return ExponentialGaussian(rank, rate_W, rate_H, noise_shape=5.0, noise_scale=20.0)
