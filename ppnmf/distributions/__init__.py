"""The distributions this package needs and torch has not.

`RectifiedNormal` holds every prior and every conditional of the Gaussian family in natural parameters, so that prior
times likelihood is addition. `GeneralizedInverseGaussian` draws the scale moves along the ridge. Importing the package
registers the Kullback-Leibler divergences from a Weibull to a Weibull, an Exponential and a Gamma with torch.
"""

from ppnmf.distributions.inverse_gaussian import GeneralizedInverseGaussian, gig_from_proposals, gig_from_uniforms
from ppnmf.distributions.rectified_normal import RectifiedNormal, survival_beyond
from ppnmf.distributions.weibull import EULER

__all__ = [
    "EULER",
    "GeneralizedInverseGaussian",
    "RectifiedNormal",
    "gig_from_proposals",
    "gig_from_uniforms",
    "survival_beyond",
]
