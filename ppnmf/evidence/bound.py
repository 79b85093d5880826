r"""The evidence lower bound of a variational fit: at most log p(X | H, σ²), the loadings integrated out.

The fit is PAE-NMF's, whose bound is exact (no sampling): the encoder gives W ~ Exponential(1) a stand-in for its posterior;
H and σ² are parameters. A model without an encoder is replaced by `PAENMF` of its rank, whose
own priors then stand in the table.

As no price is paid for H, the bound by itself grows beyond any rank: on a 100 × 80 matrix of rank 10 an 11th component
raises it by 38 nats. The criterion is therefore the bound less Schwarz's price for the parameters, ½ (D K + 1) log N
(½ D K log N where σ² is given): given them, the rows are N independent observations. `price=False` leaves the bound as
it is. Variational fits that have a posterior of H too need no such price. What the guide misses of the posterior of W
also changes with the rank.

References: Squires, Prügel-Bennett, Niranjan (2019), arXiv:1906.06912.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from ppnmf.checks import whole_numbers
from ppnmf.data.matrix import Dense, in_memory, without_noise
from ppnmf.evidence import modes
from ppnmf.evidence.estimate import priors_of
from ppnmf.evidence.score import Measure
from ppnmf.inference import check, svi
from ppnmf.models import PAENMF
from ppnmf.protocols import Matrix, Model
from ppnmf.rng import Site, Stream

__all__ = ["run"]

CLEAR = math.log(20)  # nats
JITTER = 0.5  # standard deviation of the logarithm


def run(
    model: Model,
    X: Matrix,
    *,
    restarts: int = 2,
    steps: int = 2000,
    batch_size: int | None = None,
    price: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> Measure:
    """The greatest bound of `restarts` fits, in nats, less the price of its parameters; attrs hold it in bits, and the bound.

    Args:
        model: a `PAENMF`, or any other, for its rank.
        X: data (N, D), >= 0.
        restarts: fits, the first from ordinary NMF and the others with its components jittered; the error is how far
            above the best of them another might come.
        steps, batch_size: of the training (`ppnmf.inference.svi.run`).
        price: take off what the parameters cost, see the module's text.

    Raises:
        ValueError: negative entries, a count out of its range.
        TypeError: X has known noise variances.
    """
    whole_numbers(restarts=(restarts, 1))
    began = time.perf_counter()
    amortised = model if isinstance(model, PAENMF) else PAENMF(model.rank)
    without_noise(X, "elbo")
    X = in_memory(X, "elbo")
    check(amortised, X)
    fits = [
        svi.run(
            _begun(amortised, X, seed, number),
            X,
            steps=steps,
            batch_size=batch_size,
            draws=1,
            seed=seed,
            progress=progress,
        ).attrs
        for number in range(restarts)
    ]
    charge = _price(amortised, X) if price else 0.0
    values = np.array([fit["elbo"] - charge for fit in fits])
    best = float(values.max())
    chosen = fits[int(values.argmax())]
    return Measure(
        value=best,
        error=modes.shortfall(-values),
        label="ELBO less the price of H (nats)" if price else "ELBO given H (nats)",
        sign=1,
        method="elbo",
        rank=model.rank,
        clear=CLEAR,
        priors={"model": amortised.name, **priors_of(amortised)},
        seconds=time.perf_counter() - began,
        warnings=() if chosen["converged"] else (f"the best fit had not converged after {steps} steps",),
        attrs={
            "elbo": chosen["elbo"],
            "bits": best / math.log(2),
            "price": charge,
            "restarts": values.tolist(),
            "steps": [fit["steps"] for fit in fits],
            "seed": seed,
        },
    )


def _begun(model: PAENMF, X: Dense, seed: int, number: int) -> PAENMF:
    """A copy of the model for one of the restarts: as it is, or started with components jittered."""
    if number == 0:
        return model
    own = PAENMF(**model.config()).to(dtype=X.dtype, device=X.device).initialise(X, seed)
    u = Stream.of(seed, replicates=(number,)).uniforms(0, Site.START, range(model.rank), X.shape[1], X.device)[0]
    with torch.no_grad():
        own.relative_H.mul_((JITTER * torch.special.ndtri(u)).exp())
    return own


def _price(model: PAENMF, X: Dense) -> float:
    N, D = X.shape
    return 0.5 * (D * model.rank + (model.fixed_sigma2 is None)) * math.log(N)
