"""The most probable loadings of rows of counts, given the components."""

from __future__ import annotations

import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.poisson.allocation import counts_of, expected
from ppnmf.poisson.exposures import exposed
from ppnmf.poisson.pinned import FLAT, Pinned
from ppnmf.priors import Gamma

__all__ = ["most_probable"]

MOST = 1000  # steps
STILL = 1e-4  # the step, over the greatest loading, that counts as none: the last digits take EM long


def most_probable(prior: Gamma | Pinned, X: Dense, H: Tensor) -> Tensor:
    """argmax p(w) p(x | w, H) of each row of X (n, D), whose exposures are 1, given H (S, K, D): (S, n, K), on the CPU, by EM.

    Args:
        prior: of W, one for all rows; where it has no mode, as of shapes below 1, the likelihood's is taken.
    """
    size, rate = (prior if prior.has_modes else FLAT).on(X.device)
    columns = H.mT.double().contiguous()
    even = exposed(X, range(len(X.values)), torch.ones(1, 1, dtype=torch.float64))
    below = (rate + even.over_columns(columns)).clamp(min=torch.finfo(torch.float64).tiny)
    W = torch.ones(len(H), len(X.values), H.shape[1], dtype=torch.float64, device=X.device)
    for _ in range(MOST):
        before = W
        W = (size - 1 + expected(counts_of(X), W, columns, columns=False).of_rows) / below
        if float((W - before).abs().max()) <= STILL * float(W.max()):
            break
    return W.cpu()
