"""How near a guide is to the posterior, row by row: k-hat of the weights that would lead from one to the other.

Given H and σ² the rows' loadings are independent, so each row has weights of its own, p(x_i, w_i) / q(w_i), over the draws of its
loadings. All rows together would look hopeless however good the guide.

References: Yao, Vehtari, Simpson, Gelman (2018), arXiv:1802.02538; Vehtari et al. (2024), arXiv:1507.02646.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from ppnmf.posterior import Posterior
from ppnmf.protocols import Amortised
from ppnmf.required import require_posterior
from ppnmf.settings import own_settings

__all__ = ["row_k_hats"]

LEAST = 100  # draws, for a tail that can be judged


@own_settings()
@torch.no_grad()
def row_k_hats(post: Posterior, rows: int = 100) -> np.ndarray:
    """k-hat of some rows of X, spread evenly: at most 0.7 where the guide can stand for the posterior of the row's loadings.

    Args:
        rows: how many, at most.

    Raises:
        TypeError: the model has no encoder.
        ValueError: there are fewer than 100 draws, of whose tail nothing could be said.
    """
    require_posterior("row_k_hats", post)
    if not isinstance(post.model, Amortised):
        raise TypeError(f"row_k_hats judges a guide with an encoder; {post.model.name} has none")
    if post.n_draws < LEAST:
        raise ValueError(f"row_k_hats takes {LEAST} draws, and there are {post.n_draws}: fit with more")
    from arviz_stats.base import array_stats

    model = copy.deepcopy(post.model).double()
    N = post.X.shape[0]
    at = np.unique(np.linspace(0, N - 1, min(rows, N)).round()).astype(int).tolist()
    W = post._kept("W")[0][:, at].double()  # (S, rows, K)
    parts = [post.X.part(range(i, i + 1)) for i in at]
    X = torch.cat([part.values for part in parts]).double()
    mask = None if parts[0].mask is None else torch.cat([part.mask for part in parts])
    logs = model.log_joint(X, W, mask) - model.posterior(model.coordinates(X, mask)).log_prob(W).sum(-1)
    # ArviZ takes the logarithms of weights with their signs changed
    return np.array([float(array_stats.psislw(-row)[1]) for row in logs.mT.cpu().numpy()])
