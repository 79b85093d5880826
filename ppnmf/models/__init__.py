"""The models by name. A model is a Pyro program; `REGISTRY` maps its name, also its zoo folder's, to its class."""

from typing import Any

from ppnmf.checks import one_of
from ppnmf.equality import same
from ppnmf.models.ard_gaussian import ARDGaussian
from ppnmf.models.column_noise_gaussian import ColumnNoiseGaussian
from ppnmf.models.exponential_gaussian import ExponentialGaussian
from ppnmf.models.gamma_poisson import GammaPoisson
from ppnmf.models.half_normal_gaussian import HalfNormalGaussian
from ppnmf.models.hierarchical import Hierarchical
from ppnmf.models.negative_binomial_gamma import NegativeBinomialGamma
from ppnmf.models.pae_nmf import PAENMF
from ppnmf.models.semi_supervised import SemiSupervised
from ppnmf.models.semi_supervised_counts import SemiSupervisedCounts
from ppnmf.models.tri_factor import TriFactor
from ppnmf.models.truncated_normal_gaussian import TruncatedNormalGaussian
from ppnmf.protocols import Model

__all__ = [
    "PAENMF",
    "REGISTRY",
    "ARDGaussian",
    "ColumnNoiseGaussian",
    "ExponentialGaussian",
    "GammaPoisson",
    "HalfNormalGaussian",
    "Hierarchical",
    "NegativeBinomialGamma",
    "SemiSupervised",
    "SemiSupervisedCounts",
    "TriFactor",
    "TruncatedNormalGaussian",
    "for_data",
    "same",
]

MODELS = (
    ExponentialGaussian,
    HalfNormalGaussian,
    TruncatedNormalGaussian,
    ARDGaussian,
    ColumnNoiseGaussian,
    TriFactor,
    SemiSupervised,
    Hierarchical,
    GammaPoisson,
    NegativeBinomialGamma,
    SemiSupervisedCounts,
    PAENMF,
)
REGISTRY: dict[str, type[Model]] = {model.name: model for model in MODELS}


def for_data(name: str, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Model:
    """The registered model of that name for this data (`protocols.Model.for_data`). Raises ValueError for an unknown name."""
    return REGISTRY[one_of("model", name, REGISTRY)].for_data(X, rank, mask, missing)
