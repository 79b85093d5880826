r"""From a fitted reference to the posterior of a model with a noise variance a column, along densities that have exact sweeps.

The path of `path`, with an inverse gamma for each σ²_j in the reference, InverseGamma(α_rj, θ_rj). Under π_β, n_j entries of column
j being observed,

.. math:: \sigma^2_j \mid W, H \sim InverseGamma\bigl(\beta (\alpha + n_j / 2) + (1 - \beta) \alpha_{rj},\;
    \beta (\theta + SSE_j / 2) + (1 - \beta) \theta_{rj}\bigr),

so that π_β is the posterior, at temperature β, of a model whose columns have priors of their own, and has the sweeps of `columns`.
"""

from __future__ import annotations

from ppnmf.gaussian import columns, path
from ppnmf.gaussian.noise import ColumnNoise
from ppnmf.gaussian.path import Fitted
from ppnmf.gaussian.sweep import Story
from ppnmf.protocols import Address, Matrix, Params, Sweeps, Swept

__all__ = ["fitted", "swept"]


def fitted(draws: Params, width: float, story: Story) -> Fitted:
    """A reference with the moments of draws whose components have one order; of each σ²_j those of its reciprocal.

    Args:
        draws: W (S, N, K), H (S, K, D), sigma2 (S, D).
        width: what the variances are multiplied by.
        story: the model's; what is known of its factors is the reference's too.
    """
    factors = path.fitted_factors(draws, width, story.prior)
    return Fitted(**factors, noise=ColumnNoise.matched(draws["sigma2"].cpu(), width))


def swept(story: Story, reference: Fitted, X: Matrix, params: Params, asked: Sweeps, at: Address | None) -> Swept:
    """Sweeps that leave π_β as it is, β = `asked.power`; log_likelihood is log p(X | θ)."""
    target = path.between(story, reference, asked.power)
    assert isinstance(target.noise, ColumnNoise)
    return columns.swept(Story(target.prior, target.noise.on(X.device)), X, params, asked, at)
