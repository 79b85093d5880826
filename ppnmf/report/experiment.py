"""The main job: fit by several methods, and compare."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.matrix import Dense, as_matrix, in_memory, without_noise
from ppnmf.inference import METHODS, check, fit
from ppnmf.models import for_data
from ppnmf.models.replaced import replaced
from ppnmf.posterior import Posterior
from ppnmf.protocols import Model
from ppnmf.report.comparison import Comparison, compare
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings

__all__ = ["DEFAULT", "Experiment", "compare_methods", "held_out_mask"]

DEFAULT = "exponential_gaussian"
CONTENDERS = {"gibbs": ("gibbs", None), "icm": ("icm", None), "pae": ("svi", "pae_nmf")}  # method, and model if its own


@dataclass(frozen=True, eq=False)
class Experiment:
    """The main job's outcome.

    Args:
        posteriors: name -> Posterior, or the reason why there is none.
        table: what differs.
        X: the data (N, D), hidden cells too; NaN where missing.
        seen: boolean (N, D), the cells that the fits saw.
        options: everything that the numbers depend on.
        seconds: of the whole.
    """

    posteriors: dict[str, Posterior | str]
    table: Comparison
    X: np.ndarray
    seen: np.ndarray
    options: dict[str, Any]
    seconds: float

    @property
    def fits(self) -> dict[str, Posterior]:
        """The posteriors that there are."""
        return {name: post for name, post in self.posteriors.items() if isinstance(post, Posterior)}

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended a fit early."""
        return any(post.attrs.get("interrupted") for post in self.fits.values())


@own_settings()
def compare_methods(
    X: Any,
    rank: int,
    *,
    mask: Any = None,
    missing: str = "error",
    model: str = DEFAULT,
    priors: Mapping[str, float] | None = None,
    held_out: float = 0.1,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Experiment:
    """Fit the same cells of X by Gibbs, by ICM and by PAE-NMF, and compare them on the cells that were held out.

    The Gaussian model's priors are on the scale of the cells that are seen. A method that cannot take the data is left
    out, and its row says why. After Ctrl-C the methods that have not begun are left out too.

    Args:
        X: data (N, D).
        mask, missing, device: as in `ppnmf.fit`.
        model: the name of the one that Gibbs and ICM fit.
        priors: hyperparameters of that one, by their names, in place of those on the data's scale ("rate" is of both factors).
        held_out: share of the known cells that no method sees.
        options: of each of "gibbs", "icm" and "pae", as `ppnmf.fit` takes them.

    Raises:
        ValueError: bad data, options or rank; no method can take the data.
    """
    began = time.perf_counter()
    data = in_memory(as_matrix(X, mask, missing, device), "compare_methods")
    seen = held_out_mask(data, held_out, seed)
    fitted = data.hide(seen)
    own_options = {name: dict(own) for name, own in (options or {}).items()}
    posteriors: dict[str, Posterior | str] = {}
    for name, (method, own_model) in CONTENDERS.items():
        if any(isinstance(post, Posterior) and post.attrs.get("interrupted") for post in posteriors.values()):
            posteriors[name] = "the run was interrupted before it began"
            continue
        story = for_data(own_model or model, fitted, rank)
        story = story if own_model else replaced(story, priors or {})
        reason = _refusal(story, method, data)
        own = own_options.get(name, {})
        posteriors[name] = reason or fit(story, fitted, method=method, seed=seed, progress=progress, **own)
    known = _with_gaps(data)
    table = compare(posteriors, known, mask=seen)
    facts: dict[str, Any] = {"rank": rank, "model": model, "held_out": held_out, "seed": seed, "methods": own_options}
    facts |= {"priors": dict(priors)} if priors else {}
    return Experiment(posteriors, table, known, seen.cpu().numpy(), facts, time.perf_counter() - began)


def _with_gaps(data: Dense) -> np.ndarray:
    """X (N, D) as an array of floats, NaN where missing."""
    values: np.ndarray = data.values.cpu().numpy().astype(float)
    return values if data.mask is None else np.where(data.mask.cpu().numpy(), values, np.nan)


def _refusal(model: Model, method: str, data: Dense) -> str | None:
    """Why the model, by that method, cannot take the data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `fit` says them
        try:
            check(model, data)
            if METHODS[method].dense:
                without_noise(data, method)
        except (TypeError, ValueError) as error:
            return str(error)
    return None


@own_settings()
def held_out_mask(data: Dense, share: float, seed: int = 0) -> Tensor:
    """The cells to fit, boolean (N, D): each known cell is hidden with probability `share`, by its own random number.

    Where a row or a column would lose every cell it keeps all of them.

    Raises:
        ValueError: the share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"held_out is {share!r}; it must be a share from 0 to below 1")
    N, D = data.shape
    known = torch.ones(N, D, dtype=torch.bool, device=data.device) if data.mask is None else data.mask
    kept = known & (Stream.of(seed).uniforms(0, Site.FOLDS, range(N), D, data.device)[0] >= share)
    emptied = ~kept.any(1, keepdim=True) | ~kept.any(0, keepdim=True)
    return kept | (known & emptied)
