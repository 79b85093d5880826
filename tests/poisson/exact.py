"""Poisson-gamma factorisation at rank 1: W is integrated row by row, h by the trapezoidal rule in its logarithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor

from tests.evidence.exact import trapezoid


class RankOne:
    """X (N, D), D two or three, under a model of the Poisson family at rank 1."""

    def __init__(self, model: Any, X: Tensor, mask: Tensor | None = None) -> None:
        N, D = X.shape
        self.seen = np.ones((N, D)) if mask is None else mask.double().numpy()
        self.x = np.where(self.seen > 0, X.numpy(), 0.0)
        self.e = model.exposure(X).expand(N, D).numpy() * self.seen
        of = lambda name, size: torch.as_tensor(getattr(model, name)).double().expand(size).flatten().numpy()
        self.a, self.b = of("shape_W", (N, 1)), of("rate_W", (N, 1))
        self.c, self.d = of("shape_H", (1, D)), of("rate_H", (1, D))

    def log_integrand(self, u: np.ndarray) -> np.ndarray:
        """log p(X, h) du at u = log h, (..., D)."""
        h, total = np.exp(u), self.a + self.x.sum(1)
        rows = self.a * np.log(self.b) - special.gammaln(self.a) + special.gammaln(total)
        rows = rows - total * np.log(self.b + h @ self.e.T)
        prior = self.c * np.log(self.d) - special.gammaln(self.c) + self.c * u - self.d * h
        safe = np.log(np.where(self.e > 0, self.e, 1.0))
        constant = (self.x * safe - special.gammaln(self.x + 1)).sum()
        return rows.sum(-1) + prior.sum(-1) + u @ self.x.sum(0) + constant

    def log_evidence(self) -> float:
        return trapezoid(self.log_integrand, self.x.shape[1])

    def mean(self, i: int, j: int) -> float:
        """E[w_i h_j | X]."""

        def weighted(u: np.ndarray) -> np.ndarray:
            of_w = (self.a[i] + self.x[i].sum()) / (self.b[i] + np.exp(u) @ self.e[i])
            return self.log_integrand(u) + u[..., j] + np.log(of_w)

        return float(np.exp(trapezoid(weighted, self.x.shape[1]) - self.log_evidence()))
