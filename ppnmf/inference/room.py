"""Whether what a run holds fits into memory, asked before the work."""

from __future__ import annotations

from collections.abc import Collection

from ppnmf.checks import require_memory
from ppnmf.data.sharded import rows_here
from ppnmf.protocols import Matrix, Model

__all__ = ["require_room"]


def require_room(model: Model, X: Matrix, chains: int, draws: int, sites: Collection[str] = ("W", "H")) -> None:
    """Raise ValueError when the chains, or the draws of these sites that memory takes, cannot fit into it.

    Args:
        chains: or restarts, or particles.
        draws: of each chain; 0 where none is kept in memory.
    """
    N, D, K = len(rows_here(X)), X.shape[1], model.rank
    sizes = {"W": N * K, "H": K * D}
    factors = chains * sum(sizes.values())
    where = f"of {N} × {K} and {K} × {D} in {chains} chain(s)"
    require_memory(f"W and H {where}", factors, X.dtype, X.device, "take fewer components or chains")
    kept = chains * draws * (2 + sum(sizes[site] for site in sites if site in sizes))
    advice = "take fewer draws, chains or components, keep fewer sites, or let a store on disk take the draws"
    require_memory(f"{draws} draws of W and H {where}", kept, X.dtype, X.device, advice)
