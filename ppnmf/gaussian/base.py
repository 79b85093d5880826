"""What the models of the Gaussian family have whatever their priors: frozen values, a Gaussian likelihood, least squares."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor

from ppnmf.factored import Frozen
from ppnmf.gaussian import descent, sweep
from ppnmf.gaussian.noise import NoisePrior
from ppnmf.gaussian.sweep import Factors
from ppnmf.protocols import Lowered, Matrix, Params

__all__ = ["GaussianModel"]


class GaussianModel(Frozen):
    """X_ij ~ Normal((W H)_ij, σ²), σ² ~ InverseGamma(noise_shape, noise_scale), whatever the priors of W and H."""

    noise_shape: float
    noise_scale: float

    @property
    def noise(self) -> NoisePrior:
        """The prior of σ²."""
        return NoisePrior(self.noise_shape, self.noise_scale)

    def likelihood(self, params: Params) -> dist.Normal:
        """The distribution of X given W (*C, N, K), H (*C, K, D), sigma2 (*C,): batch shape (*C, N, D)."""
        return dist.Normal(params["W"] @ params["H"], params["sigma2"].sqrt()[..., None, None])

    def log_likelihood_at(self, params: Params, X: Matrix) -> Tensor:
        """log p(X | W, H, σ²) of the observed entries, (C,)."""
        left = sweep.misfit(X, params["W"], params["H"])
        return sweep.log_likelihood_of(X, left, params["sigma2"])

    def multiplied(self, params: Params, X: Matrix) -> Lowered:
        """Multiplicative updates of W and H; the other sites at their modes."""
        return self._lowered(descent.lowered(X, params, descent.multiplied), X)

    def by_rows(self, params: Params, X: Matrix) -> Lowered:
        """Non-negative least squares for W and then for H; the other sites at their modes."""
        return self._lowered(descent.lowered(X, params, descent.by_rows), X)

    def by_components(self, params: Params, X: Matrix, repeatedly: bool = False) -> Lowered:
        """Least squares for one component after another; the other sites at their modes."""
        often = sweep.passes(X.shape, self.rank) if repeatedly else (1, 1)
        return self._lowered(sweep.sweep_factors(sweep.flat, params, X, None, passes=often), X)

    def _lowered(self, factors: Factors, X: Matrix) -> Lowered:
        others = {site: values.to(factors.W.dtype) for site, values in self.others_at_mode(factors, X).items()}
        return Lowered({"W": factors.W, "H": factors.H, **others}, descent.share(factors.misfit, X))

    def others_at_mode(self, factors: Factors, X: Matrix) -> Params:
        """The sites that are no factors at their modes given the factors."""
        return {"sigma2": self.noise.mode(factors.misfit, X.n_observed)}
