r"""What another scale of the noise's prior would do to log p(X), from draws of the posterior that are there anyway.

With σ² ~ InverseGamma(α, θ), and c θ in place of θ,

.. math:: \frac{p'(X)}{p(X)} = E\left[\frac{p'(\sigma^2)}{p(\sigma^2)} \,\middle|\, X\right]
   = c^\alpha \, E\left[e^{-(c - 1) \theta / \sigma^2} \,\middle|\, X\right]
   \approx c^\alpha \left(\frac{b}{b + (c - 1) \theta}\right)^a,

1/σ² given X being close to a gamma variable of shape a and rate b, with the moments of the draws; given the factors it is one.
Priors of the factors have a term for each of (N + D) K entries, and are looked at by running again.
"""

from __future__ import annotations

import math

from ppnmf.protocols import Model, Params

__all__ = ["SCALES", "to_noise"]

SCALES = (10.0, 0.1)  # that the noise's prior is looked at with, times its own


def to_noise(model: Model, draws: Params) -> dict[str, float]:
    """What each of `SCALES` would add to log p(X), by its number; nothing where there is not one noise variance with a prior.

    Args:
        draws: of the posterior, (S, *site).
    """
    config = model.config()
    if "noise_scale" not in config or config.get("sigma2") is not None or draws["sigma2"].ndim != 1:
        return {}
    precision = 1 / draws["sigma2"].double()
    mean, variance = float(precision.mean()), float(precision.var())
    if not variance > 0:
        return {}
    return {f"{c:g}": _change(c, mean, variance, config["noise_shape"], config["noise_scale"]) for c in SCALES}


def _change(c: float, mean: float, variance: float, shape: float, scale: float) -> float:
    """Of log p(X) with c times the scale, from the moments of 1/σ²; its rate cannot be below the prior's own."""
    rate = max(mean / variance, scale)
    return shape * math.log(c) - mean * rate * math.log1p((c - 1) * scale / rate)
