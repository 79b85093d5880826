r"""Counts tempered by time: each event arrived at a uniform time in (0, 1], and at β the data are the events by then.

A power of a Poisson likelihood has no exact sweep; counts thinned to a share β, with exposures β e, have the same one as the
whole. Given the factors the events of a step from β to β' are Poisson counts Δ of mean (β' - β) e W H, independent of those
before. With the logarithm of the multinomial probability that the events fell into the steps as they did taken off, the log
evidence of all steps is that of X,

.. math:: \log p(X) = \sum_s \log E[e^{\ell_s}] - \sum_{ij} \log x_{ij}!, \quad
    \ell_s = \sum_{ij} \Delta_{ij} \log (e W H)_{ij} - (\beta' - \beta) (e W H)_{ij},

the expectation over the posterior of the events before the step: whatever the times, which are drawn once a climb.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppnmf.data.dense import Dense, in_memory
from ppnmf.data.sparse import Rows, Sparse
from ppnmf.poisson.allocation import Place, counts_of, log_means, thinned
from ppnmf.poisson.exposures import Exposed, exposed
from ppnmf.poisson.sweep import Story
from ppnmf.protocols import Matrix, Params
from ppnmf.rng import Stream

__all__ = ["Arrivals", "DependentArrivals"]

SOON = 1e-3  # of the time that is left: after it the slope of the log likelihood is looked for


LogLikelihood = Callable[[float, Matrix, Params], Tensor]  # of what has arrived by a time, (C,)


class Arrivals:
    """The events of X that have arrived by a time, and those that have not.

    Args:
        story: of the model.
        X: in memory, or small enough to be brought there.
        stream: of the times, one key.
    """

    def __init__(self, story: Story, X: Matrix, stream: Stream) -> None:
        whole = X if isinstance(X, Dense | Sparse) else in_memory(X, "smc of counts")
        self.X: Any = whole
        self.stream = stream
        self.counts = counts_of(whole)
        self.known: Exposed = exposed(whole, range(whole.shape[0]), story.exposures)
        self.time = 0.0
        self.arrived = torch.zeros_like(self.counts.data)
        self.last = self.arrived  # of the last step
        self.width = 1.0

    @property
    def constant(self) -> float:
        """What is added to the sum of the steps' log evidence."""
        return -float(self.counts.log_factorials)

    def expected(self, params: Params) -> Tensor:
        """ℓ a unit of time, expected of a step that begins now, (C,)."""
        return self._rates(params, (self.counts.data - self.arrived) / (1 - self.time))

    def advance(self, time: float, step: int) -> None:
        """Let the events arrive until this time."""
        left = self.counts.data - self.arrived
        share = (time - self.time) / (1 - self.time)
        place = Place(self.stream, step, 0)
        self.last = left if time >= 1 else thinned(self.counts.with_data(left), share, place)
        self.arrived = self.arrived + self.last
        self.width = time - self.time
        self.time = time

    def seen(self, params: Params) -> Tensor:
        """ℓ a unit of time of the step that was taken last, (C,)."""
        return self._rates(params, self.last / self.width)

    def data(self) -> Matrix:
        """The events that have arrived, as counts of the same entries."""
        return self._matrix(self.arrived)

    def _matrix(self, events: Tensor) -> Matrix:
        X, counts = self.X, self.counts
        if isinstance(X, Sparse):
            rows = Rows(events.to(X.dtype), X.stored.indices, X.stored.indptr)
            return Sparse(rows, X.size, X.missing)
        values = torch.zeros_like(X.values)
        values[counts.rows, counts.columns.long()] = events.to(X.dtype)
        return Dense(values, X.mask)

    def _rates(self, params: Params, events: Tensor) -> Tensor:
        own = self.counts.with_data(events)
        W, Ht = params["W"].double().contiguous(), params["H"].mT.double().contiguous()
        of_all = (self.known.over_rows(W) * Ht).sum((-2, -1))
        return log_means(own, W, Ht, self.known.of_counts(own)) - of_all


class DependentArrivals(Arrivals):
    """The same where the events of a step depend on those before, given the factors: by a latent exposure, say.

    What a step adds to the log weights is then the difference of two log likelihoods, of the events by its end and of those by
    its beginning. The evidence of all steps is that of X as it is.
    """

    constant = 0.0

    def __init__(self, log_likelihood: LogLikelihood, story: Story, X: Matrix, stream: Stream) -> None:
        super().__init__(story, X, stream)
        self.log_likelihood = log_likelihood

    def expected(self, params: Params) -> Tensor:
        soon = SOON * (1 - self.time)
        events = self.arrived + SOON * (self.counts.data - self.arrived)
        return (self._at(self.time + soon, events, params) - self._at(self.time, self.arrived, params)) / soon

    def seen(self, params: Params) -> Tensor:
        before = self._at(self.time - self.width, self.arrived - self.last, params)
        return (self._at(self.time, self.arrived, params) - before) / self.width

    def _at(self, time: float, events: Tensor, params: Params) -> Tensor:
        if time <= 1e-12:  # nothing can have arrived
            return torch.zeros(len(params["W"]), dtype=torch.float64, device=events.device)
        return self.log_likelihood(time, self._matrix(events), params)
