"""The models by name. A model is a Pyro program; `REGISTRY` maps its name, also its zoo folder's, to its class."""

from ppnmf.equality import same
from ppnmf.models.exponential_gaussian import ExponentialGaussian
from ppnmf.models.half_normal_gaussian import HalfNormalGaussian
from ppnmf.models.pae_nmf import PAENMF
from ppnmf.models.truncated_normal_gaussian import TruncatedNormalGaussian

__all__ = ["PAENMF", "REGISTRY", "ExponentialGaussian", "HalfNormalGaussian", "TruncatedNormalGaussian", "same"]

REGISTRY = {model.name: model for model in (ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian, PAENMF)}
