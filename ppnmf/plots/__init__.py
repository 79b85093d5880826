"""Pictures, each a `matplotlib.figure.Figure` of its own: no windows, nothing left open. Save one with `save`.

Names of X's rows and columns come from the posterior where a call gives none.
"""

from ppnmf.plots.comparison import overview
from ppnmf.plots.densities import latent_densities
from ppnmf.plots.factors import components
from ppnmf.plots.layers import labels, topics
from ppnmf.plots.ranks import rank
from ppnmf.plots.rebuilt import reconstructions
from ppnmf.plots.runs import loss, traces
from ppnmf.plots.signatures import signatures
from ppnmf.plots.style import save
from ppnmf.plots.surveys import survey

__all__ = [
    "components",
    "labels",
    "latent_densities",
    "loss",
    "overview",
    "rank",
    "reconstructions",
    "save",
    "signatures",
    "survey",
    "topics",
    "traces",
]
