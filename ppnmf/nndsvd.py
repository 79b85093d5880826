"""A start for any factorisation: the non-negative parts of the leading singular vectors (NNDSVD).

References: Boutsidis and Gallopoulos (2008), doi:10.1016/j.patcog.2007.09.010; Halko, Martinsson, Tropp (2011),
    doi:10.1137/090771806, for the singular vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppnmf.rng import Site, Stream

__all__ = ["leading_singular", "nndsvd"]


def leading_singular(A: Tensor, rank: int, stream: Stream) -> tuple[Tensor, Tensor, Tensor]:
    """U (N, q), s (q,), V (q, D), q = min(rank, N, D): subspace iteration (Halko et al. 2011), exact where q is all."""
    N, D = A.shape
    uniforms = stream.uniforms(0, Site.START, range(D), min(rank, N, D), A.device)[0]
    Q = torch.linalg.qr(A @ torch.special.ndtri(uniforms).to(A.dtype)).Q
    for _ in range(4):
        Q = torch.linalg.qr(A @ torch.linalg.qr(A.mT @ Q).Q).Q
    U, s, V = torch.linalg.svd(Q.mT @ A, full_matrices=False)
    if bool((s[1:] > s[:-1]).any()):  # a library may give another order, as SciPy's sparse solvers came to do
        order = s.argsort(descending=True, stable=True)
        U, s, V = U[:, order], s[order], V[order]
    return Q @ U, s, V


def nndsvd(X: Tensor, rank: int, stream: Stream) -> tuple[Tensor, Tensor]:
    """W (N, K), H (K, D): the larger of each singular pair's positive and negative parts, of equal norms; zeros lifted."""
    U, s, V = leading_singular(X, rank + 10, stream)
    W, H = (torch.zeros(n, rank, dtype=X.dtype, device=X.device) for n in X.shape)
    for k in range(min(rank, len(s))):
        pairs = [((sign * U[:, k]).clamp(min=0), (sign * V[k]).clamp(min=0)) for sign in (1, -1)]
        w, h = max(pairs, key=lambda pair: float(pair[0].norm() * pair[1].norm()))
        balance = (h.norm() / w.norm().clamp(min=1e-12)).clamp(min=1e-12).sqrt()
        W[:, k], H[:, k] = s[k].sqrt() * balance * w, s[k].sqrt() / balance * h
    lift = 0.1 * (X.mean().clamp(min=1e-6) / rank).sqrt()
    spread = (0.5 + stream.uniforms(0, Site.START, range(rank), 1, X.device)[0, :, 0]).to(X.dtype)  # no two alike
    return torch.maximum(W, lift * spread), torch.maximum(H, lift * spread.flip(0)).mT
