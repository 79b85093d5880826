"""What each row of X is made of, and whether chains hold the same components."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ppnmf.diagnostics.alignment import align
from ppnmf.plots.factors import label_of
from ppnmf.plots.names import names_of
from ppnmf.plots.shares import by_largest, draw_shares, room
from ppnmf.plots.style import array, name_single, styled
from ppnmf.posterior import Kind, Posterior
from ppnmf.required import require_posterior
from ppnmf.tables import aligned

__all__ = ["loadings", "similarity"]


@styled
def loadings(post: Posterior, names: Any = None, title: str | None = None, ax: Axes | None = None) -> Axes:
    r"""Each component's share of the rows of X, :math:`W_{ik} \sum_j H_{kj} / \sum_{lj} W_{il} H_{lj}`.

    Means over aligned draws; of several modes, the best one. Components are numbered as in `components`, the strongest first,
    and rows are ordered by their largest share.

    Args:
        names: of X's rows, by default the posterior's.
        ax: where to draw; a figure of its own by default.

    Raises:
        ValueError: names of another number of rows.
    """
    require_posterior("loadings", post)
    named = names_of(post, "rows", names)
    W = array(aligned(post, scale=True).W.mean(0))  # (N, K), of rows of H that sum to one
    total = W.sum(1, keepdims=True)
    share = W / np.where(total > 0, total, 1.0)
    order = by_largest(share)
    numbers = [str(k + 1) for k in range(share.shape[1])]
    panel = room(ax, len(share), numbers)
    draw_shares(panel, share[order], [str(i) if named is None else named[i] for i in order], numbers)
    panel.set(xlabel="component, the strongest first", ylabel="row of X")
    name_single(panel, ax, title, f"{label_of(post)}: what the rows are made of")
    return panel


@styled
def similarity(post: Posterior, title: str | None = None, ax: Axes | None = None) -> Axes:
    r"""How alike the components of the chains are: 1 where two chains, or two restarts, hold the same ones.

    Of chains c and d it is the cosine :math:`\sum_k \langle W^c_k H^c_k, W^d_k H^d_k \rangle` over the root of both norms, of
    the means of aligned draws. W @ H may be the same where this is not 1.

    Args:
        ax: where to draw; a figure of its own by default.

    Raises:
        ValueError: there is one chain alone.
    """
    require_posterior("similarity", post)
    if post.chains < 2:
        raise ValueError(f"{post.method} left one chain, and likeness needs two: fit with chains=4, or restarts=4")
    ordered = align(post)
    W = array(ordered["W"].double().mean(1))  # (C, N, K)
    H = array(ordered["H"].double().mean(1))
    inner = np.einsum("cik,dik,ckj,dkj->cd", W, W, H, H, optimize=True)
    size = np.sqrt(np.diag(inner))
    alike = np.clip(inner / np.where(size > 0, size, 1.0)[:, None] / np.where(size > 0, size, 1.0), 0, 1)
    each = "restart" if post.kind is Kind.MODES else "chain"
    numbers = [str(c) for c in range(post.chains)]
    panel = room(ax, post.chains, numbers)
    draw_shares(panel, alike, numbers, numbers, "cosine")
    panel.set(xlabel=each, ylabel=each)
    name_single(panel, ax, title, f"{label_of(post)}: how alike the {each}s' components are")
    return panel
