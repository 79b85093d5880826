"""The most probable loadings of rows of X, given the components and the noise."""

from __future__ import annotations

import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.gaussian import statistics
from ppnmf.kernels import nnls
from ppnmf.priors import FactorPrior
from ppnmf.protocols import Statistics

__all__ = ["most_probable"]


def most_probable(prior: FactorPrior, X: Dense, H: Tensor, sigma2: Tensor) -> Tensor:
    """argmax p(w) p(x | w, H, σ²) of each row of X (n, D), under W's rectified-normal prior: (S, n, K), on the CPU.

    Args:
        H: (S, K, D), draws. sigma2: (S,).
    """
    return torch.cat([_of_one(prior, X, H[s : s + 1], sigma2[s]) for s in range(len(H))])


def _of_one(prior: FactorPrior, X: Dense, H: Tensor, sigma2: Tensor) -> Tensor:
    told = statistics.of_all_rows(X, H.to(X.dtype))
    natural = prior.natural(X.device)  # type: ignore[attr-defined]
    P = told.P.double() / sigma2 + natural.linear
    return nnls.solved(torch.zeros_like(P), Statistics(P, told.Q.double() / sigma2)).cpu()
