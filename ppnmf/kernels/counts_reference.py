"""The kernels of the Poisson family in plain torch: the definition that the compiled ones are checked against, on any device.

They take a block of X as its positive counts with their rows and columns, and one chain at a time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.kernels.binomial import LARGE, MOST_INVERTED, STIRLING
from ppnmf.kernels.counts import SPLITS, costs
from ppnmf.kernels.reference import GAMMA_PROPOSALS
from ppnmf.rng import Site, Stream

__all__ = ["Cells", "allocated", "binomials", "gammas"]


class Cells:
    """Places of a matrix, each with its own numbers, which are taken a pair at a time.

    Args:
        rows, columns: (M,), int64, the rows as they are numbered in the whole.
    """

    def __init__(self, stream: Stream, chain: int, step: int, site: Site, rows: Tensor, columns: Tensor) -> None:
        self.stream, self.chain, self.step, self.site = stream, chain, step, site
        self.rows, self.columns = rows, columns
        self.turns = torch.zeros_like(rows)

    def later(self, turn: int) -> Cells:
        """The same cells and their numbers from a turn on."""
        own = Cells(self.stream, self.chain, self.step, self.site, self.rows, self.columns)
        own.turns += turn
        return own

    def pair(self, at: Tensor) -> Tensor:
        """The next pair of some of the cells, (len(at), 2)."""
        taken = self.stream.pairs(self.chain, self.step, self.site, self.rows[at], self.columns[at], self.turns[at])
        self.turns[at] += 1
        return taken


class _Hat(NamedTuple):
    """What proposals of binomials are made and judged with, (M,) each."""

    n: Tensor
    p: Tensor
    deviation: Tensor
    b: Tensor
    a: Tensor
    at_mode: Tensor

    @classmethod
    def of(cls, n: Tensor, p: Tensor) -> _Hat:
        deviation = (n * p * (1 - p)).sqrt()
        b = 1.15 + 2.53 * deviation
        a = -0.0873 + 0.0248 * b + 0.01 * p
        hat = cls(n, p, deviation, b, a, torch.zeros_like(n))
        return hat._replace(at_mode=hat.log_mass(((n + 1) * p).floor()))

    def log_mass(self, k: Tensor) -> Tensor:
        return _log_poisson(k, self.n * self.p) + _log_poisson(self.n - k, self.n * (1 - self.p))

    def chosen(self, at: Tensor) -> _Hat:
        return _Hat(*(values[at] for values in self))


def binomials(n: Tensor, p: Tensor, cells: Cells, at: Tensor) -> Tensor:
    """Draws (M,) for n >= 1 and 0 < p <= 1/2, with the numbers of the cells `at` (M,)."""
    drawn = torch.zeros_like(n)
    large = n * p >= LARGE
    small = (~large).nonzero()[:, 0]
    drawn[small] = _by_inversion(n[small], p[small], cells.pair(at[small])[:, 0])
    left = large.nonzero()[:, 0]
    hat = _Hat.of(n[left], p[left])
    while len(left):
        k, accepted = _proposed(hat, cells.pair(at[left]))
        drawn[left[accepted]] = k[accepted]
        left, hat = left[~accepted], hat.chosen(~accepted)
    return drawn


def _by_inversion(n: Tensor, p: Tensor, u: Tensor) -> Tensor:
    odds = p / (1 - p)
    mass = (n * torch.log1p(-p)).exp()
    most = n.clamp(max=MOST_INVERTED)
    k = torch.zeros_like(n)
    while bool((going := (u > mass) & (k < most)).any()):
        u = torch.where(going, u - mass, u)
        k = torch.where(going, k + 1, k)
        mass = torch.where(going, mass * (odds * (n - k + 1) / k.clamp(min=1)), mass)
    return k


def _proposed(hat: _Hat, pair: Tensor) -> tuple[Tensor, Tensor]:
    """Proposals, and which of them are accepted."""
    n, p, deviation, b, a, at_mode = hat
    u, v = pair[:, 0] - 0.5, pair[:, 1]
    inside = 0.5 - u.abs()
    k = ((2 * a / inside + b) * u + n * p + 0.5).floor()
    surely = (inside >= 0.07) & (v <= 0.92 - 4.2 / b)
    possible = (k >= 0) & (k <= n)
    cover = (v * ((2.83 + 5.1 / b) * deviation) / (a / inside.square() + b)).log()
    by_mass = cover <= hat.log_mass(torch.where(possible, k, torch.zeros_like(k))) - at_mode
    return k, surely | (possible & by_mass)


def _log_poisson(k: Tensor, mean: Tensor) -> Tensor:
    one = k.clamp(min=1)
    of_count = -_stirling_error(one) - _deviance(one, mean) - 0.5 * one.log()
    return torch.where(k == 0, 0.5 * math.log(2 * math.pi) - mean, of_count)


def _stirling_error(k: Tensor) -> Tensor:
    square = k.square()
    series = (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / square) / square) / square) / square) / k
    return torch.where(k < 16, torch.from_numpy(STIRLING).to(k)[k.clamp(max=15).long()], series)


def _deviance(k: Tensor, mean: Tensor) -> Tensor:
    apart, total = k - mean, k + mean
    v = apart / total
    square = v.square()
    series = torch.full_like(k, 1 / 15)
    for power in (13, 11, 9, 7, 5, 3):
        series = series * square + 1 / power
    near = apart * v + 2 * k * v * square * series
    return torch.where(apart.abs() >= 0.1 * total, k * (k / mean).log() - apart, near)


def allocated(counts: Tensor, W: Tensor, Ht: Tensor, cells: Cells) -> Tensor:
    """Multinomial draws of every count's components, (M, K).

    The greatest component of those that are left gets its share by a binomial while that costs less than placing its events one by
    one (`kernels.counts.costs`); what is then left is placed event by event.

    Args:
        counts: (M,). W, Ht: the rows of the two factors that meet there, (M, K).
    """
    weights = W * Ht
    shares = torch.zeros_like(weights)
    left = _split(counts.clone(), weights, shares, cells.later(SPLITS))
    sums = weights.cumsum(1)
    at, event = (left > 0).nonzero()[:, 0], 0
    pair = torch.empty(len(left), 2, dtype=weights.dtype, device=weights.device)
    while len(at := at[left[at] > event]):
        if event % 2 == 0:
            pair[at] = cells.pair(at)
        target = pair[at, event % 2] * sums[at, -1]
        shares[at, (sums[at, :-1] <= target[:, None]).sum(1)] += 1
        event += 1
    return shares


def _split(left: Tensor, weights: Tensor, shares: Tensor, cells: Cells) -> Tensor:
    """What is left of the counts (M,) when their greatest components have their shares; weights and shares are written to."""
    by_event, by_binomial = costs(weights.shape[1])
    total, at = weights.sum(1), (left > by_binomial / by_event).nonzero()[:, 0]
    while True:
        most, k = weights[at].max(1)
        pays = (left[at] * most * by_event > by_binomial * total[at]) | (total[at] <= 0)
        at, most, k = at[pays], most[pays], k[pays]
        if not len(at):
            return left
        weights[at, k] = 0.0
        total[at] = weights[at].sum(1)
        small = torch.minimum(most, total[at])
        drawn = torch.zeros_like(most)
        some = small > 0
        drawn[some] = binomials(left[at[some]], (small / (most + total[at]))[some], cells, at[some])
        drawn = torch.where((most > total[at]) | (total[at] <= 0), left[at] - drawn, drawn)
        shares[at, k] += drawn
        left[at] -= drawn
        at = at[left[at] > 0]


def gammas(
    shape: Tensor, rate: Tensor, stream: Stream, chain: int, step: int, site: Site, first_row: int, least: float
) -> Tensor:
    """Draws of Gamma(shape, rate) (R, K), at least `least`: sixteen proposals at once, of which the first accepted is taken."""
    R, K = shape.shape
    row = torch.arange(first_row, first_row + R, device=shape.device)[:, None].expand(R, K).flatten()
    column = torch.arange(K, device=shape.device).expand(R, K).flatten()
    take = lambda turn: stream.pairs(chain, step, site, row, column, torch.full_like(row, turn)).reshape(R, K, 2)  # noqa: E731
    proposals = torch.stack([take(turn) for turn in range(GAMMA_PROPOSALS)])
    d = torch.where(shape < 1, shape + 1, shape) - 1 / 3
    z = torch.special.ndtri(proposals[..., 0])
    v = (1 + z / (9 * d).sqrt()) ** 3
    slack = 0.5 * z.square() + d * (1 - v + v.clamp(min=torch.finfo(v.dtype).tiny).log()) - proposals[..., 1].log()
    first = ((v > 0) & (slack > 0)).to(torch.int8).argmax(0, keepdim=True)
    drawn = d * v.gather(0, first)[0].abs()
    boost = (take(GAMMA_PROPOSALS)[..., 0].log() / shape).exp()
    return (torch.where(shape < 1, drawn * boost, drawn) / rate).clamp(min=least)
