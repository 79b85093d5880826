"""The models by name. A model is a Pyro program; `REGISTRY` maps its name, also its zoo folder's, to its class."""

from ppnmf.models.equality import same
from ppnmf.models.exponential_gaussian import ExponentialGaussian
from ppnmf.models.pae_nmf import PAENMF

__all__ = ["PAENMF", "REGISTRY", "ExponentialGaussian", "same"]

REGISTRY = {model.name: model for model in (ExponentialGaussian, PAENMF)}
