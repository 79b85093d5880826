"""Pictures, each a function that takes a posterior, or a table, and returns the axes that it drew.

No windows, nothing left open: each has a figure of its own, or draws where `ax=` says. `plots.save` writes what one returned to
a file, and in a notebook it shows itself. Names of X's rows and columns come from the posterior where a call gives none.
"""

from ppnmf.plots.bounds import uncertainty
from ppnmf.plots.comparison import overview
from ppnmf.plots.densities import latent_densities
from ppnmf.plots.factors import components
from ppnmf.plots.layers import labels, topics
from ppnmf.plots.loadings import loadings, similarity
from ppnmf.plots.places import Panels, png, save
from ppnmf.plots.predicted import predictive
from ppnmf.plots.ranks import rank
from ppnmf.plots.rebuilt import reconstructions
from ppnmf.plots.runs import loss, ranks, traces
from ppnmf.plots.signatures import signatures
from ppnmf.plots.surveys import survey

__all__ = [
    "Panels",
    "components",
    "labels",
    "latent_densities",
    "loadings",
    "loss",
    "overview",
    "png",
    "predictive",
    "rank",
    "ranks",
    "reconstructions",
    "save",
    "signatures",
    "similarity",
    "survey",
    "topics",
    "traces",
    "uncertainty",
]
