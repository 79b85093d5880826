"""One order of the components for all draws: the likelihood sees W and H only up to order and scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppnmf.checks import borrowed, described
from ppnmf.matching import best_orders, gathered
from ppnmf.posterior import Posterior
from ppnmf.required import require_posterior
from ppnmf.settings import own_settings

__all__ = ["align"]

Reference = Posterior | Mapping[str, Any]


@own_settings()
def align(post: Posterior, reference: Reference | None = None, scale: bool = False) -> Posterior:
    """The same draws with the components of each in the order that fits the reference best, in every site that has them.

    W @ H, hence the likelihood, stays as it is, and so does the log joint when the prior's rates are the same for all
    components. Averages of W and H over draws make sense only after this, and only where the chains agree.

    Args:
        reference: W (N, K) and H (K, D) whose order is taken: a Posterior, of which the draw with the greatest log joint
            is taken, or a dict with W and H; the greatest log joint of `post` itself by default.
        scale: make the rows of H sum to one and scale W so that W @ H stays. For reading only: such values no longer
            follow the posterior, and nothing that needs a density may be computed from them.

    Returns: a Posterior whose attrs["alignment"] holds "reference", "scaled", and "order": [chain][draw][k] is the
        number that component k had before.

    Raises:
        KeyError: W or H was not kept.
        ValueError: the reference has other shapes.
    """
    require_posterior("align", post)
    W, H = post._kept("W"), post._kept("H")
    V, G = _reference(post, reference)
    order = best_orders(W.flatten(0, 1), H.flatten(0, 1), V, G).unflatten(0, W.shape[:2])
    draws = dict(post.draws)
    if not bool((order == torch.arange(order.shape[-1])).all()):
        draws = {site: _reordered(values, post.dimensions[site], order) for site, values in draws.items()}
    if scale:
        draws["W"], draws["H"] = _scaled(draws["W"], draws["H"])
    chain, draw = divmod(int(post.height.argmax()), post.n_draws)
    facts = {
        "reference": "given" if reference is not None else {"chain": chain, "draw": draw},
        "scaled": scale,
        "order": order.tolist(),
    }
    attrs = {**post.attrs, "alignment": facts}
    if "order" in attrs.get("transformed", {}):
        before = torch.tensor(attrs["transformed"]["order"])
        attrs["transformed"] = {**attrs["transformed"], "order": order.argsort(-1).gather(-1, before).tolist()}
    return replace(post, draws=draws, attrs=attrs)


def _reordered(values: Tensor, dims: list[str], order: Tensor) -> Tensor:
    """A site's draws with their components in the orders (chain, draw, K), where it has any."""
    return gathered(values, order, dims.index("component") - len(dims)) if "component" in dims else values


def _reference(post: Posterior, reference: Reference | None) -> tuple[Tensor, Tensor]:
    if reference is None or isinstance(reference, Posterior):
        best = (reference or post).best()
        V, G = best._kept("W")[0, 0], best._kept("H")[0, 0]
    elif isinstance(reference, Mapping) and {"W", "H"} <= set(reference):
        V, G = (borrowed(f"the reference's {site}", reference[site]) for site in ("W", "H"))
    else:
        raise TypeError(f"reference is {described(reference)}; give a Posterior, or a dict with W (N, K) and H (K, D)")
    W, H = post.draws["W"], post.draws["H"]
    if V.shape != W.shape[2:] or G.shape != H.shape[2:]:
        raise ValueError(
            f"the reference has W {tuple(V.shape)} and H {tuple(G.shape)}; the draws have {tuple(W.shape[2:])} and "
            f"{tuple(H.shape[2:])}: take a reference of the same data and rank"
        )
    return V.to(W), G.to(H)


def _scaled(W: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
    total = H.sum(-1)
    total = torch.where(total > 0, total, torch.ones_like(total))
    return W * total[..., None, :], H / total[..., None]
