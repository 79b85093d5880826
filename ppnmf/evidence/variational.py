r"""The evidence lower bound of a variational posterior of all parameters, as a score of the rank.

Unlike the bound of a guide for the loadings alone (`bound`), it has paid for H and σ² too, so no price is added. Over -log 2 it is
the length in bits of a message that tells X by the bits-back argument. What it lies below log p(X) grows with the rank: the
approximation keeps to one of K! orders of the components, and takes entries as independent.

Reference: Brouwer, Frellsen, Lió (2016), arXiv:1610.08127.
"""

from __future__ import annotations

import math
import time

import numpy as np

from ppnmf.evidence import modes
from ppnmf.evidence.estimate import priors_of
from ppnmf.evidence.score import Measure
from ppnmf.inference import vb
from ppnmf.inference.climbs import Plan
from ppnmf.protocols import Matrix, Variational

__all__ = ["measure"]

BIT = math.log(2)  # nats
CLEAR = math.log(20) / BIT
TOLERANCE = 1e-6  # relative gain of a sweep at which the ascent ends


def measure(model: Variational, X: Matrix, restarts: int, sweeps: int, seed: int, progress: bool) -> Measure:
    """Minus the greatest ELBO of `restarts` ascents of at most so many sweeps, in bits; the error is how far above it another
    might come.

    Raises:
        ValueError: a count out of its range, an improper prior.
    """
    began = time.perf_counter()
    model.require_proper()
    ends = vb.ascended(model, X, Plan(restarts, TOLERANCE, sweeps, seed, "scaled", None, None, None, progress))
    if ends.interrupted:
        raise KeyboardInterrupt
    values, best = ends.lp.numpy(force=True), int(ends.lp.argmax())
    late = (f"the best ascent had not converged after {sweeps} sweeps",)
    return Measure(
        value=-float(values[best]) / BIT,
        error=modes.shortfall(-np.asarray(values) / BIT),
        label="description length by the ELBO (bits)",
        sign=-1,
        method="elbo",
        rank=model.rank,
        clear=CLEAR,
        priors={"model": model.name, **priors_of(model)},
        seconds=time.perf_counter() - began,
        warnings=() if ends.converged[best] else late,
        attrs={"elbo": float(values[best]), "restarts": values.tolist(), "sweeps": ends.sweeps, "seed": seed},
    )
