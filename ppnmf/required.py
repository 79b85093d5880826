"""Where a posterior is wanted and something else is given, the sentence that says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppnmf.checks import described
from ppnmf.posterior import Posterior
from ppnmf.protocols import Model

__all__ = ["require_posterior", "require_posteriors"]


def require_posterior(who: str, post: Any) -> None:
    """Raise TypeError when it is no Posterior, and say what to do with what it seems to be."""
    if isinstance(post, Posterior):
        return
    advice = "give what ppnmf.fit returned"
    if isinstance(post, str | Path):
        advice = f"load the file first: ppnmf.Posterior.load({str(post)!r})"
    elif isinstance(post, Model):
        advice = "fit the model first"
    elif type(post).__name__ in ("DataTree", "InferenceData"):
        advice = "give the posterior that it was made from; ArviZ's own functions take trees"
    elif isinstance(post, Mapping | list | tuple):
        advice = "give one posterior at a time"
    raise TypeError(f"{who} takes a Posterior, and was given {described(post)}: {advice}")


def require_posteriors(who: str, fits: Any, reasons: bool = False) -> None:
    """The same of a dict from names to Posteriors; `reasons`: or to the reason why there is none."""
    if not isinstance(fits, Mapping):
        raise TypeError(
            f"{who} takes a dict from names to Posteriors, such as {{'gibbs': post}}, not {described(fits)}"
        )
    if not fits:
        raise ValueError(f"{who} was given no posterior; give a dict from names to them, such as {{'gibbs': post}}")
    for name, post in fits.items():
        if not (reasons and isinstance(post, str)):
            require_posterior(f"{who} (by the name {name!r})", post)
