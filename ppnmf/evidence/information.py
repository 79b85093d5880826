r"""Akaike's and Schwarz's criteria: what a mode explains, less a price for its parameters. Less is better.

.. math:: AIC = 2 p - 2 \log p(X | \hat W, \hat H, \hat\sigma^2) + \frac{2 p (p + 1)}{n - p - 1},
   \qquad BIC = p \log n - 2 \log p(X | \hat W, \hat H, \hat\sigma^2)

with n the observed entries and p = (N + D) K + 1 parameters, less the factors' entries that are known, the one being σ² (one a
column where a model has so many; a model without it: its likelihood at the mode, and no such parameter, but a dispersion where it
has one). Of three factors or of layers each factor counts. `invariance=True` takes K² off: W and H are only determined up to an
invertible K × K matrix. (Non-negativity breaks most of that freedom, so the plain count is the default.)

Ŵ and Ĥ are the best mode by ICM, least in squared error. The noise variance is the one of maximum likelihood there,
SSE / n, and not the mode's own: then -2 log p(X | ·) = n log(2π e SSE / n) + Σ log v (v: known relative noise
variances), a function of the squared error alone, and both criteria are what their derivations ask for. The factors'
priors pull a little towards zero, and do not enter otherwise; with rates of zero the fit is the least-squares one.

The last term of the AIC is Hurvich and Tsai's (1989) correction. Without it the criterion is right only where n is many
times p, which a factorisation hardly ever is: on a 100 × 80 matrix of rank 10 p is a quarter of n, and AIC falls
beyond the true rank. `corrected=False` leaves it out. Published tables in which plain AIC chooses the true rank
evaluate it at the mean of a variational posterior and its noise variance, which overfit less than a mode.

Where there are as many parameters as entries a mode may explain everything, and the likelihood has no bound: both refuse.

A lead counts where it exceeds 2 log 20, a ratio of twenty to one in the criterion's own terms, and the errors. The error
is not of sampling: it is how far below the best of the restarts yet another one might come.

References: Akaike (1974), doi:10.1109/TAC.1974.1100705; Hurvich and Tsai (1989), doi:10.1093/biomet/76.2.297; Schwarz
(1978), doi:10.1214/aos/1176344136.
"""

from __future__ import annotations

import math
import time
from typing import Any

from ppnmf.checks import yes_or_no
from ppnmf.evidence import modes
from ppnmf.evidence.estimate import priors_of
from ppnmf.evidence.score import Measure
from ppnmf.protocols import Matrix, Sweeping, made_up

__all__ = ["aic", "bic"]

CLEAR = 2 * math.log(20)


def aic(
    model: Sweeping,
    X: Matrix,
    *,
    restarts: int = 4,
    invariance: bool = False,
    corrected: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> Measure:
    """Akaike's criterion at the best of `restarts` modes; the module's text says which, and what the options do.

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count out of its range, a flag that is neither True nor False; more parameters than the correction can take.
    """
    yes_or_no(invariance=invariance, corrected=corrected)
    n, p = X.n_observed, parameters(model, X, invariance)
    _require_entries("aic", model, n, p)
    if corrected and n <= p + 1:
        raise ValueError(
            f"aic's correction needs more observed entries than parameters, and rank {model.rank} has {p} for {n}: try "
            "smaller ranks, or corrected=False"
        )
    price = 2 * p + (2 * p * (p + 1) / (n - p - 1) if corrected else 0.0)
    label = "AIC, corrected" if corrected else "AIC"
    return _criterion("aic", label, price, model, X, restarts, seed, progress, parameters=p, corrected=corrected)


def bic(
    model: Sweeping,
    X: Matrix,
    *,
    restarts: int = 4,
    invariance: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Measure:
    """Schwarz's criterion at the best of `restarts` modes; the module's text says which, and what the options do.

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count out of its range, a flag that is neither True nor False.
    """
    yes_or_no(invariance=invariance)
    p = parameters(model, X, invariance)
    _require_entries("bic", model, X.n_observed, p)
    return _criterion("bic", "BIC", p * math.log(X.n_observed), model, X, restarts, seed, progress, parameters=p)


def parameters(model: Sweeping, X: Matrix, invariance: bool) -> int:
    """The entries of the factors and of what else the likelihood has, σ² or a dispersion.

    Entries that are known are no parameters, a σ² that is known neither. Where the invariance is taken off, so is the square of
    the number of components of each kind.
    """
    sites = model.sites(*X.shape)
    others = made_up(model)
    own = {site: dims for site, dims in sites.items() if site not in others and set(dims) != {"component"}}
    if getattr(model, "sigma2", None) is not None:
        del own["sigma2"]
    held = sum(int(known.at.sum()) for known in getattr(model, "all_known", ()) if known is not None)
    kinds = {kind: size for dims in own.values() for kind, size in dims.items() if kind not in ("row", "column")}
    free = sum(size**2 for size in kinds.values()) if invariance else 0
    return sum(math.prod(dims.values()) for dims in own.values()) - held - free


def _require_entries(method: str, model: Sweeping, n: int, p: int) -> None:
    if p >= n:
        raise ValueError(
            f"{method} needs more observed entries than parameters, and rank {model.rank} has {p} for {n}: try smaller ranks"
        )


def _criterion(
    method: str,
    label: str,
    price: float,
    model: Sweeping,
    X: Matrix,
    restarts: int,
    seed: int,
    progress: bool,
    **facts: Any,
) -> Measure:
    began = time.perf_counter()
    fits = modes.found(method, model, X, restarts, seed, progress)
    values = fits.deviance + price
    return Measure(
        value=float(values.min()),
        error=modes.shortfall(values),
        label=label,
        sign=-1,
        method=method,
        rank=model.rank,
        clear=CLEAR,
        priors=priors_of(model),
        seconds=time.perf_counter() - began,
        attrs={**facts, "restarts": values.tolist(), "squared_error": float(fits.squared_error.min()), "seed": seed},
    )
