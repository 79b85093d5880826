"""A model with some of its hyperparameters replaced, as those are said who know more than the data's scale."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from ppnmf.protocols import Model

__all__ = ["replaced"]

FACTORS = ("W", "H")


def replaced(model: Model, given: Mapping[str, float]) -> Model:
    """The model with other hyperparameters; a name such as "rate" stands for the one of W and the one of H.

    Raises:
        ValueError: the model has no such hyperparameter, or none of that value; a noise variance is said to be known and to
            have a prior.
    """
    if not given:
        return model
    prior = [name for name in ("noise_shape", "noise_scale") if name in given]
    if "sigma2" in given and prior:
        raise ValueError(f"the noise variance is given, and {' and '.join(prior)} of its prior: give one or the other")
    offers = set(inspect.signature(type(model)).parameters)
    config = model.config()
    for name, value in given.items():
        own = [name] if name in offers else [f"{name}_{site}" for site in FACTORS if f"{name}_{site}" in offers]
        if not own:
            raise ValueError(f"{model.name} has no {name}; it has {', '.join(sorted(offers - {'rank'}))}")
        config |= dict.fromkeys(own, value)
    return type(model)(**config)
