"""What the models of the Gaussian family have whatever their priors: frozen values, a Gaussian likelihood, least squares."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
from torch import Tensor

from ppnmf.checks import real_number
from ppnmf.factored import Frozen
from ppnmf.gaussian import ascent, descent, sweep
from ppnmf.gaussian.noise import KnownNoise, Noise, NoisePrior
from ppnmf.gaussian.pinned import flat
from ppnmf.gaussian.sweep import Factors
from ppnmf.known import Holding
from ppnmf.protocols import Ascent, Blocked, Lowered, Matrix, Pace, Params, Standing

__all__ = ["GaussianModel", "GaussianNoise"]


class GaussianNoise(Frozen):
    """X_ij ~ Normal((W H)_ij, σ²), σ² ~ InverseGamma(noise_shape, noise_scale) or known, whatever W and H are made of.

    Where `sigma2` is a number, it is the noise variance, no longer random, and its prior's parameters play no part.
    """

    noise_shape: float
    noise_scale: float
    sigma2: float | None

    def require_noise(self) -> None:
        """Make the noise's parameters floats. Raises ValueError where they are not positive."""
        for own in ("noise_shape", "noise_scale"):
            object.__setattr__(self, own, real_number(own, getattr(self, own)))
        if self.sigma2 is not None:
            object.__setattr__(self, "sigma2", real_number("sigma2", self.sigma2))

    def config(self) -> dict[str, Any]:
        """The constructor's arguments; sigma2 is left out where it is not known."""
        given = super().config()
        return given if self.sigma2 is not None else {name: own for name, own in given.items() if name != "sigma2"}

    @property
    def noise(self) -> Noise:
        """The prior of σ², or what is known of it."""
        return NoisePrior(self.noise_shape, self.noise_scale) if self.sigma2 is None else KnownNoise(self.sigma2)

    def likelihood(self, params: Params) -> dist.Normal:
        """The distribution of X given W (*C, N, K), H (*C, K, D), sigma2 (*C,): batch shape (*C, N, D)."""
        return dist.Normal(params["W"] @ params["H"], params["sigma2"].sqrt()[..., None, None])

    def log_likelihood_at(self, params: Params, X: Matrix) -> Tensor:
        """log p(X | W, H, σ²) of the observed entries, (C,)."""
        left = sweep.misfit(X, params["W"], params["H"])
        return sweep.log_likelihood_of(X, left, params["sigma2"])


class GaussianModel(GaussianNoise, Holding):
    """The same with priors of W and H, some of whose entries may be known, and least squares for them."""

    unheld: ClassVar[tuple[type, ...]] = (Blocked,)

    def multiplied(self, params: Params, X: Matrix) -> Lowered:
        """Multiplicative updates of W and H; the other sites at their modes."""
        return self._lowered(descent.multiplied_factors(X, params, self.known), X)

    def loss_unit(self, X: Matrix) -> float:
        """The squared error of W @ H = 0."""
        return X.sum_of_squares

    def by_rows(self, params: Params, X: Matrix) -> Lowered:
        """Non-negative least squares for W and then for H; the other sites at their modes."""
        return self._lowered(descent.lowered(X, params, descent.by_rows, self.known), X)

    def by_components(self, params: Params, X: Matrix, repeatedly: bool = False) -> Lowered:
        """Least squares for one component after another; the other sites at their modes."""
        often = self._passes(X, repeatedly)
        known = lambda site: flat(self.known(site))  # noqa: E731
        noise = params["sigma2"] if params["sigma2"].ndim == 1 else params["sigma2"].mean(1)  # it has no say here
        return self._lowered(sweep.sweep_factors(known, {**params, "sigma2": noise}, X, None, passes=often), X)

    def descend(self, X: Matrix, begun: Standing, pace: Pace, most: int, repeatedly: bool = False) -> Ascent | None:
        """`by_components`, many sweeps compiled whole, where X is small and complete and nothing is known."""
        if self.holds:
            return None
        done = ascent.descend(X, begun, pace, most, self._passes(X, repeatedly))
        if done is None:
            return None
        params = self._lowered(Factors(done.params["W"], done.params["H"], done.misfit), X).params
        lp = -descent.share(done.misfit, X)
        most = done.path.shape[1]
        return Ascent(
            params, done.before, lp, done.reach, done.bound, done.sweeps, done.converged, most=most, path=done.path
        )

    def _passes(self, X: Matrix, repeatedly: bool) -> tuple[int, int]:
        return sweep.passes(X.shape, self.rank) if repeatedly else (1, 1)

    def _lowered(self, factors: Factors, X: Matrix) -> Lowered:
        others = {site: values.to(factors.W.dtype) for site, values in self.others_at_mode(factors, X).items()}
        return Lowered({"W": factors.W, "H": factors.H, **others}, descent.share(factors.misfit, X))

    def others_at_mode(self, factors: Factors, X: Matrix) -> Params:
        """The sites that are no factors at their modes given the factors."""
        return {"sigma2": self.noise.mode(factors.misfit, X.n_observed)}
