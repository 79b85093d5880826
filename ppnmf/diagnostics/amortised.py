"""Is a guide calibrated? Simulation-based calibration of what an encoder says about a row's loadings.

Rows and their loadings are drawn from the generative story, H and σ² as fitted; the encoder reads the rows; the true loadings
are ranked among draws from the guide. Ranks of a guide that is the posterior are uniform. One that is independent over
components, with a shape of its own and an encoder of few layers, is not the posterior, and enough simulations show it;
how much it matters is read off `coverage`.
"""

from __future__ import annotations

import copy
from typing import Any

import pyro
import torch
from torch import Tensor

from ppnmf.checks import borrowed, whole_numbers
from ppnmf.diagnostics.calibration import SBC
from ppnmf.protocols import Amortised
from ppnmf.rng import Site, Stream, forked
from ppnmf.settings import own_settings

__all__ = ["coverage", "sbc"]


@own_settings()
@torch.no_grad()
def sbc(model: Amortised, simulations: int = 1000, draws: int = 99, seed: int = 0, mask: Any = None) -> SBC:
    """Ranks of true loadings among draws from the guide: of each component's, "W[k]", and of the row's "log joint".

    Intervals of single loadings rest on the first; the last shows a guide that is too narrow or misses correlations where
    every W[k] looks right.

    Args:
        model: with weights; its parameters are brought to float64.
        simulations: rows, each with its own loadings.
        draws: from the guide, for each row.
        mask: boolean (D,), True for the columns that the encoder sees, or (simulations, D).

    Raises:
        TypeError: the model has no encoder.
        ValueError: a number below one; a mask that is not boolean or of another shape.

    References: Talts, Betancourt, Simpson, Vehtari, Gelman (2018), arXiv:1804.06788.
    """
    if not isinstance(model, Amortised):
        raise TypeError(
            f"sbc needs a guide and an encoder; {getattr(model, 'name', type(model).__name__)} offers neither"
        )
    whole_numbers(simulations=(simulations, 1), draws=(draws, 1))
    model, stream = copy.deepcopy(model).double(), Stream.of(seed)
    row = model.decode(torch.zeros(1, model.rank))
    with forked(seed, row.device):
        story = pyro.poutine.trace(model).get_trace(shape=(simulations, row.shape[-1]))
    W, X = (story.nodes[site]["value"] for site in ("W", "X"))
    seen = None if mask is None else _seen(mask, X)
    guide = model.posterior(model.coordinates(X, seen))
    u = stream.uniforms(0, Site.GUIDE, range(simulations), draws * model.rank + 1, X.device)[0]
    drawn, jitter = guide.icdf(u[:, 1:].unflatten(1, (draws, -1)).movedim(1, 0)), u[:, 0]
    lower = {f"W[{k}]": drawn[..., k] < W[:, k] for k in range(model.rank)}
    lower["log joint"] = model.log_joint(X, drawn, seen) < model.log_joint(X, W[None], seen)
    return SBC({name: ((below.sum(0) + jitter) / (draws + 1)).cpu() for name, below in lower.items()}, draws)


def _seen(mask: Any, X: Tensor) -> Tensor:
    """The mask, given for the columns or for every entry, as one of X's shape."""
    seen = borrowed("mask", mask, "b", "booleans are needed, True where the encoder sees X")
    if seen.dtype != torch.bool or seen.shape not in (X.shape[1:], X.shape):
        N, D = X.shape
        raise ValueError(
            f"mask has type {seen.dtype} and shape {tuple(seen.shape)}; booleans ({D},) or ({N}, {D}) are needed"
        )
    return seen.to(X.device).expand(X.shape)


def coverage(found: SBC, level: float = 0.9) -> dict[str, float]:
    """How often the central interval of this level held the truth; `level` is what a calibrated guide gives."""
    half = level / 2
    return {name: float(((ranks - 0.5).abs() < half).double().mean()) for name, ranks in found.ranks.items()}
