"""Whether what a run holds fits into memory, asked before the work."""

from __future__ import annotations

import math
from collections.abc import Collection

from ppnmf import memory
from ppnmf.protocols import Matrix, Model

__all__ = ["require_room"]


def require_room(model: Model, X: Matrix, chains: int, draws: int, sites: Collection[str] | None = None) -> None:
    """Raise MemoryError when the chains, or the draws of these sites that memory takes, cannot fit into it.

    Args:
        chains: or restarts, or particles.
        draws: of each chain; 0 where none is kept in memory.
        sites: whose draws are kept; all by default.
    """
    N, D = len(X.rows), X.shape[1]
    sizes = {site: math.prod(dims.values()) for site, dims in model.sites(N, D).items()}
    where = f"of rank {model.rank} for X {N} × {D} in {chains} chain(s)"
    state = chains * sum(sizes.values())
    memory.require(state, X.dtype, X.device, f"W and H {where}", "ask for a smaller rank or for fewer chains")
    kept = chains * draws * (1 + sum(size for site, size in sizes.items() if sites is None or site in sites))
    advice = "ask for fewer draws, chains or sites, for a smaller rank, or keep the draws on disk by store="
    memory.require(kept, X.dtype, X.device, f"{draws} draws of W and H {where}", advice)
