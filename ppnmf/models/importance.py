r"""log p(x_i | H, σ²) of single rows, their loadings integrated out, by importance sampling from a model's guide.

With draws w_1 … w_S of a row's loadings from the guide q, and the weights r_s = p(x, w_s) / q(w_s),

.. math:: \log \hat p(x) = \log \frac1S \sum_s r_s

is the importance-weighted bound of Burda, Grosse and Salakhutdinov (2016): in expectation it is at least the ELBO, which it
is for S = 1, never falls as S grows, and never exceeds log p(x); it lies below it by about half its squared error.

Draws of the plain guide often miss part of the posterior, unseen: on 225 digits at rank 10 the bound came out 26 nats too
low with errors that said 3. So, unless told otherwise, each loading is drawn with probability 1 / (K + 1) from a guide that is
wider, and r has that mixture's density below. The bound is then a bound as before, nearer to log p(x).

The effective number of weights is (Σ r)² / Σ r². Where it is small, a row's loadings being many or strongly correlated,
which a guide that is independent over components does not follow, the value lies too low and the error is no error. So it
is where entries are missing: the encoder reads their columns' means, and its guide is then off the row's posterior.

References: Burda, Grosse, Salakhutdinov (2016), arXiv:1509.00519. Mixtures: Hesterberg (1995), doi:10.2307/1269620.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import whole_number
from ppnmf.data.matrix import Dense
from ppnmf.protocols import Amortised
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings
from ppnmf.threads import ordered_map, single_threaded

__all__ = ["Weighed", "weigh"]

AT_ONCE = 2**16  # loadings drawn at a time: what is made of them stays in cache
FEW = 50  # effective weights, below which a row's value is doubted


class Weighed(NamedTuple):
    """What importance sampling says of each row; all float64, shape (N,)."""

    values: Tensor  # the bound on log p(x_i | H, σ²), nats
    errors: Tensor  # their standard errors, by the delta method
    effective: Tensor  # the effective number of weights

    def doubts(self) -> tuple[str, ...]:
        """Why not to trust some of the values, in a sentence; nothing where all can be."""
        poor = ~(self.effective >= FEW)
        if not bool(poor.any()):
            return ()
        return (
            f"the weights of {int(poor.sum())} of {len(poor)} rows are poor (effective number down to "
            f"{float(self.effective.min()):.1f}, wanted {FEW}): their values are bounds that lie too low, by more than "
            f"the errors say; take more draws, or fewer components",
        )


@own_settings()
def weigh(model: Amortised, X: Dense, *, draws: int = 1000, widened: bool = True, seed: int = 0) -> Weighed:
    """The importance-weighted bound of each row of X (N, D) from so many draws of its loadings.

    Rows are independent, and so are their errors: the bound of all of X is their sum. A row's numbers depend on the seed
    and on its place in X alone, not on threads. Memory is that of X and of the draws of a few rows.

    Args:
        model: with weights; its parameters are brought to float64.
        X: the rows, with their mask.
        draws: weights of each row.
        widened: draw from the mixture that the module's text tells of; False: from the guide itself.

    Raises:
        ValueError: fewer than two draws.
    """
    size = max(1, AT_ONCE // (whole_number("draws", draws, 2) * model.rank))
    model = copy.deepcopy(model).double()
    stream = Stream.of(seed, replicates=(2,))
    blocks = [range(start, min(start + size, len(X.values))) for start in range(0, len(X.values), size)]

    @torch.no_grad()
    def of_block(rows: range) -> Weighed:
        part = X.part(rows)
        values = part.values.double()
        mask = part.mask
        source = model.proposal(values, mask, widened)
        u = stream.uniforms(0, Site.GUIDE, rows, draws * model.rank, X.device)[0]
        W = source.at(u.unflatten(-1, (draws, -1)).movedim(1, 0))  # (S, B, K)
        logs = model.log_joint(values, W, mask) - source.log_prob(W).sum(-1)
        return _summary(torch.where(logs.isnan(), -math.inf, logs))  # draws so large that their squares overflow

    with single_threaded():
        parts = ordered_map(of_block, blocks, 200.0 * size * draws * model.rank)
    if not parts:
        return Weighed(*torch.empty(3, 0, dtype=torch.float64, device=X.device))
    return Weighed(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _summary(logs: Tensor) -> Weighed:
    """Of the logarithms of the weights (S, B)."""
    S = len(logs)
    total = logs.logsumexp(0)
    effective = (2 * total - (2 * logs).logsumexp(0)).exp()
    errors = ((S / effective - 1).clamp(min=0) / (S - 1)).sqrt()
    return Weighed(total - math.log(S), errors, effective)
