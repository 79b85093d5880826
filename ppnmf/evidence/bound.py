r"""Description length by the evidence lower bound of a variational fit, in bits: fewer are better.

The bound is at most log p(X | H, σ²), the loadings integrated out. Over -log 2 it is the length of a message that tells X
by the bits-back argument (Hinton and van Camp 1993): loadings by the prior's code, less the bits that their choice among
the guide's draws takes up, then X by the likelihood's; to a precision of one in X's units, which adds the same at each rank.
The fit is PAE-NMF's, whose bound is exact (no sampling): the encoder gives W ~ Exponential(1) a stand-in for its posterior;
H and σ² are parameters. A model whose sweeps read moments has a variational posterior of H and σ² too, and its bound needs
no price (`variational`). A model with neither has no bound, and is refused.

As no price is paid for H, the bound by itself grows beyond any rank: on a 100 × 80 matrix of rank 10 an 11th component
raises it by 38 nats. The message therefore tells the parameters too, at Schwarz's price, ½ (D K + 1) log₂ N bits
(½ D K log₂ N where σ² is given): given them, the rows are N independent observations. `price=False` leaves it out.
What the guide misses of the posterior of W also grows
with the rank, so that the bound can choose too few components: `ppnmf.models.importance` says how much it is, and
`polish` takes away the encoder's part.

References: Squires, Prügel-Bennett, Niranjan (2019), arXiv:1906.05912; Hinton and van Camp (1993),
doi:10.1145/168304.168306; Schwarz (1978), doi:10.1214/aos/1176344136.
"""

from __future__ import annotations

import math
import time

import numpy as np

from ppnmf.checks import whole_numbers, yes_or_no
from ppnmf.data.matrix import in_memory, without_noise
from ppnmf.evidence import modes, variational
from ppnmf.evidence.estimate import priors_of
from ppnmf.evidence.score import Measure
from ppnmf.inference import check, svi
from ppnmf.protocols import Amortised, Matrix, Variational, require_ability

__all__ = ["run"]

BIT = math.log(2)  # nats
CLEAR = math.log(20) / BIT


def run(
    model: Amortised | Variational,
    X: Matrix,
    *,
    restarts: int = 2,
    steps: int = 2000,
    batch_size: int | None = None,
    polish: int = 0,
    price: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> Measure:
    """The least description length of `restarts` fits, in bits, with the price of the parameters.

    attrs hold the bound itself ("elbo"), the price, and each restart's bound less the price, in nats.

    Args:
        model: with a guide and an encoder (`protocols.Amortised`), or with moments (`protocols.Variational`), which takes
            `restarts` and `steps`, its sweeps, alone.
        X: data (N, D); >= 0 for an encoder.
        restarts: fits, the first from ordinary NMF and the others with its components jittered; the error is how far
            below the best of them another might come.
        steps, batch_size, polish: of the training (`ppnmf.inference.svi.run`). With some 500 steps of `polish` the bound is
            that of the best guide for each row, and no longer hangs on what the encoder can express at each rank.
        price: add what the parameters cost, see the module's text.

    Raises:
        ValueError: negative entries, a count out of its range, a flag that is neither True nor False.
        TypeError: the model has no ELBO, or X known noise variances.
    """
    whole_numbers(restarts=(restarts, 1))
    yes_or_no(price=price)
    if isinstance(model, Variational):
        return variational.measure(model, X, restarts, steps, seed, progress)
    began = time.perf_counter()
    require_ability("elbo", model, Amortised)
    without_noise(X, "elbo")
    X = in_memory(X, "elbo")
    check(model, X)
    options = {"steps": steps, "batch_size": batch_size, "polish": polish, "draws": 1}
    posts = [
        svi.run(model.restarted(X, number, seed), X, seed=seed, progress=progress, **options)  # type: ignore[arg-type]
        for number in range(restarts)
    ]
    fits = [post.attrs for post in posts]
    N, D = X.shape
    charge = 0.5 * model.free_parameters(D) * math.log(N) if price else 0.0
    values = np.array([fit["elbo"] - charge for fit in fits])
    chosen = fits[int(values.argmax())]
    return Measure(
        value=-float(values.max()) / BIT,
        error=modes.shortfall(-values / BIT),
        label="description length by the ELBO (bits)" if price else "description length by the ELBO, given H (bits)",
        sign=-1,
        method="elbo",
        rank=model.rank,
        clear=CLEAR,
        priors={"model": model.name, **priors_of(model)},
        seconds=time.perf_counter() - began,
        warnings=() if chosen["converged"] else (f"the best fit had not converged after {steps} steps",),
        attrs={
            "elbo": chosen["elbo"],
            "price": charge,
            "restarts": values.tolist(),
            "steps": [fit["steps"] for fit in fits],
            "seed": seed,
        },
    )
