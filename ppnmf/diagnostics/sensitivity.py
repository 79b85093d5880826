"""How much the prior, and the likelihood, decide of what is identified: power-scaling, by ArviZ, from one run.

Each is raised to a power near one, and the posterior that follows is had by importance weights from the draws. What moves with the
prior is decided by it: choose its scale with care. (What the prior does to the evidence for a rank is another question:
`select_rank(..., sensitivity=True)`.)

References: Kallioinen et al. (2024), doi:10.1007/s11222-023-10366-5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppnmf.identified import identified
from ppnmf.posterior import Kind, Posterior
from ppnmf.required import require_posterior
from ppnmf.settings import own_settings

if TYPE_CHECKING:
    import pandas
    import xarray

__all__ = ["prior_sensitivity"]


@own_settings()
def prior_sensitivity(post: Posterior, n: int = 20, seed: int = 0) -> pandas.DataFrame:
    """ArviZ's `psense_summary` of what is identified: sensitivities to the prior and the likelihood, and ArviZ's diagnosis.

    A line each of σ² or what else is small, the sorted strengths, and n entries of W @ H.

    Args:
        n, seed: how many entries of W @ H, and which choice of them.

    Raises:
        TypeError: the draws are not of chains.
        KeyError: a site was not kept.
    """
    require_posterior("prior_sensitivity", post)
    if post.kind is not Kind.CHAINS:
        raise TypeError(f"prior_sensitivity weighs draws from the posterior; {post.method} left {post.kind.value}")
    import arviz_base
    import arviz_stats

    model: Any = post.model
    prior = model.log_prior({site: post._kept(site).double() for site in post.dimensions})
    groups = {
        "log_prior": {"prior": prior.cpu().numpy()},
        "log_likelihood": {"X": (post.stats["lp"].double() - prior).cpu().numpy()},
    }
    tree = arviz_base.from_dict({"posterior": {"lp": post.stats["lp"].double().cpu().numpy()}, **groups})
    tree["posterior"].dataset = _in_words(identified(post, n, seed))
    return arviz_stats.psense_summary(tree)


def _in_words(found: xarray.Dataset) -> xarray.Dataset:
    """What is judged but the log joint, the entries of W @ H by the names of their row and column, which ArviZ prints."""
    if "entry" not in found.dims:
        return found.drop_vars("lp")
    named = [f"{i}, {j}" for i, j in zip(found["row"].values, found["column"].values, strict=True)]
    return found.drop_vars(["lp", "row", "column"]).assign_coords(entry=named)
