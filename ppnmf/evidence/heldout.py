"""Held-out cells: fit what is kept by Gibbs, and see how well the mean of W @ H predicts what was hidden.

Cells are hidden one by one, not rows or columns whole, so both factors are learned from every fold's data (Wold 1978,
doi:10.1080/00401706.1978.10489693). Each row and each column has an equal share in each fold, as nearly as whole numbers
allow.

The least error of a range of ranks is too kind to itself: the same cells choose the rank and score it. `nested=True` asks
what the whole procedure errs by. Inside each fold the rank is chosen by the other folds, each hidden in turn together
with it (so the fit of a pair of hidden folds serves both of them: F folds take F (F - 1) / 2 more fits), and the fold
is then scored at that rank, fitted without it: its cells have no part in the choice.

A fit that has not converged scores its cells too badly where signals are strong, and too well where many components have
begun to fit the noise: digits, rank 30, 9.7 after 50 sweeps and 11.0 after 1000. R-hat of each fold's log joint over its draws,
a chain's two halves among them, tells. Such a fit goes on, its sweeps so far for warm-up, up to a number of rounds; where the
last one does not agree either, a warning names the fold, and no lead counts that it has a part in.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from arviz_stats.base import array_stats
from numpy.typing import ArrayLike
from torch import Tensor

from ppnmf.checks import borrowed, whole_numbers, yes_or_no
from ppnmf.data.matrix import Dense, in_memory
from ppnmf.evidence.estimate import priors_of
from ppnmf.inference import gibbs
from ppnmf.inference.beginning import beginning
from ppnmf.inference.clock import Clock
from ppnmf.inference.start import SCALED, Start
from ppnmf.progress import bar
from ppnmf.protocols import Sweeping, exposed, require_ability
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["HeldOut", "Nested", "assign_folds", "nested_choice", "run"]

AGREE = 1.2  # R-hat of a fold's log joint above which its fit had not converged; a hundred draws tell no less
FEWEST = 20  # draws that tell R-hat


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Mean squared error on hidden cells, with its standard error over folds.

    Args:
        folds: the mean squared error of each fold; those of two ranks with the same seed hide the same cells.
        rank: the model's rank.
        priors: the model's hyperparameters.
        seconds: the time it took.
        warnings: reasons to doubt it, in sentences.
        attrs: facts about the run that JSON can hold.
        inner: where nested, for each fold the mean error of the other folds when hidden together with it; else empty.
    """

    folds: tuple[float, ...]
    rank: int
    priors: Mapping[str, Any]
    seconds: float
    warnings: tuple[str, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    inner: tuple[float, ...] = ()

    label: ClassVar[str] = "hidden squared error"
    sign: ClassVar[int] = -1  # less is better

    @property
    def value(self) -> float:
        return statistics.fmean(self.folds)

    @property
    def error(self) -> float:
        """Standard error over the folds; NaN for one fold."""
        return _standard_error(self.folds)

    @property
    def unconverged(self) -> tuple[int, ...]:
        """The folds whose fits had not converged; those with too few draws to tell are not among them."""
        return tuple(fold for fold, rhat in enumerate(self.attrs.get("rhat", ())) if rhat is not None and rhat > AGREE)

    def lead_over(self, other: HeldOut) -> tuple[float, float]:
        """How much less its error is than another's on the same folds, and that difference's standard error."""
        differences = [theirs - ours for ours, theirs in zip(self.folds, other.folds, strict=True)]
        return statistics.fmean(differences), _standard_error(differences)

    def is_clearly_better_than(self, other: HeldOut) -> bool:
        """Whether the lead, fold by fold, is above two standard errors of itself.

        Never with a single fold, nor where a fold of either had not converged.
        """
        lead, error = self.lead_over(other)
        return lead > 2 * error and not self.unconverged and not other.unconverged

    def __str__(self) -> str:
        return (
            f"Squared error on hidden cells {self.value:.6g} ± {self.error:.2g} at rank {self.rank} "
            f"({len(self.folds)} fold(s), {self.seconds:.1f} s)."
        )


def run(
    model: Sweeping,
    X: Dense,
    *,
    folds: int | ArrayLike | Tensor = 5,
    used: int | None = None,
    draws: int = 100,
    thin: int = 1,
    warmup: int = 100,
    rounds: int = 4,
    chains: int = 1,
    moves: bool = True,
    init: Start = "survey",
    survey: int | None = None,
    nested: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> HeldOut:
    """Hide each fold's cells in turn, draw `draws` times from the posterior given the others, score the mean of W @ H.

    Args:
        model: offers full conditionals, with proper priors.
        X: data (N, D), perhaps with missing entries, which are in no fold.
        folds: parts the observed cells are divided into, at least 2; or the fold of each cell, whole numbers (N, D) from 0
            on, -1 where a cell is in none and never hidden.
        used: how many of the folds are hidden in turn, all by default; fewer save time, and one gives no error.
        draws: sweeps that are averaged, every `thin`-th after `warmup` others, in each of `chains` chains.
        rounds: how often they are drawn, at most: where a fold's log joint has an R-hat above 1.2 over them (20 draws or
            more can tell), they are dropped, as many sweeps as there were are warm-up, and draws follow again.
        moves: move along the ridge too, as in `gibbs.run`.
        init, survey: where the chains start, as in `gibbs.run`.
        nested: hide the used folds in pairs too, so that `nested_choice` can tell the error of choosing the rank.

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count out of its range, a flag that is neither True nor False, an improper prior, or a fold without cells.
    """
    require_ability("heldout", model, Sweeping)
    given = None if isinstance(folds, str) or np.ndim(folds) == 0 else _given(X, folds)
    number: Any = folds if given is None else int(given.max()) + 1
    used = number if used is None else used
    whole_numbers(folds=(number, 2), used=(used, 1), draws=(draws, 1), thin=(thin, 1), warmup=(warmup, 0))
    whole_numbers(chains=(chains, 1), rounds=(rounds, 1))
    yes_or_no(moves=moves, nested=nested)
    if used > number:
        raise ValueError(f"used is {used} and there are {number} folds; give at most {number}")
    if nested and (number < 3 or used < 2):
        raise ValueError(f"nested hides folds in pairs; folds is {number} and used {used}: give at least 3 and 2")
    model.require_proper()
    began, X = time.perf_counter(), in_memory(X, "heldout")
    fold_of = assign_folds(X, number, seed) if given is None else _observed(X, given)
    empty = [fold for fold in range(used) if not bool((fold_of == fold).any())]
    if empty:
        raise ValueError(f"fold {empty[0]} of {number} has no observed cell; take fewer folds")
    groups: list[tuple[int, ...]] = [(fold,) for fold in range(used)] + (
        list(combinations(range(used), 2)) if nested else []
    )
    errors: dict[tuple[int, ...], list[float]] = {}  # hidden together -> the error of each
    rhat: dict[tuple[int, ...], float] = {}
    sweeps: dict[tuple[int, ...], int] = {}
    length = Length(draws, warmup, thin, moves, rounds)
    with single_threaded(), bar(len(groups) * length.least, f"held-out cells, rank {model.rank}", progress) as ticker:
        for group in groups:
            cells = [fold_of == fold for fold in group]
            stream = Stream.of(seed, chains, [_number(group, number)])
            kept = X.hide(~torch.stack(cells).any(0))
            begun = beginning(model, kept, seed, chains, init, survey, warmup)
            where, _ = begun.without_record(Clock(kept, began, None), False)
            start = SCALED if where is None else where
            fitted = fit(model, kept, stream, length, start, ticker)
            squared = X.observed_over_noise((X.values - fitted.mean).double().square())
            rhat[group], sweeps[group] = fitted.rhat, fitted.sweeps
            errors[group] = [float(squared[own].mean()) for own in cells]
    return HeldOut(
        folds=tuple(errors[fold,][0] for fold in range(used)),
        inner=tuple(_beside(fold, errors) for fold in range(used)) if nested else (),
        rank=model.rank,
        priors=priors_of(model),
        seconds=time.perf_counter() - began,
        warnings=_doubts(rhat),
        attrs={
            "folds": number,
            "used": used,
            "draws": draws,
            "thin": thin,
            "warmup": warmup,
            "rounds": rounds,
            "chains": chains,
            "moves": moves,
            "folds_given": given is not None,
            "seed": seed,
            "rhat": [None if math.isnan(rhat[fold,]) else rhat[fold,] for fold in range(used)],
            "sweeps": [sweeps[fold,] for fold in range(used)],
        },
    )


class Nested(NamedTuple):
    """The error of choosing the rank by held-out cells, on cells that had no part in the choice.

    Args:
        ranks: chosen in each fold.
        folds: its mean squared error at that rank.
    """

    ranks: tuple[int, ...]
    folds: tuple[float, ...]

    @property
    def value(self) -> float:
        return statistics.fmean(self.folds)

    @property
    def error(self) -> float:
        """Standard error over the folds."""
        return _standard_error(self.folds)

    def __str__(self) -> str:
        times = ", ".join(
            f"{rank} ({count} of {len(self.ranks)})" for rank, count in sorted(Counter(self.ranks).items())
        )
        return (
            f"Nested: chosen inside each fold by the other folds, the rank is {times}; the squared error on cells that had "
            f"no part in the choice is {self.value:.6g} ± {self.error:.2g}."
        )


def nested_choice(scores: Mapping[int, HeldOut]) -> Nested | None:
    """In each fold the rank with the least inner error (the least of equal ones), and the fold's own error there.

    Args:
        scores: rank -> its score, all with the same seed, folds and data; None where they are not nested.
    """
    if not scores or not all(score.inner for score in scores.values()):
        return None
    number = len(next(iter(scores.values())).folds)
    ranks = tuple(min(sorted(scores), key=lambda rank: scores[rank].inner[fold]) for fold in range(number))
    return Nested(ranks, tuple(scores[rank].folds[fold] for fold, rank in enumerate(ranks)))


def assign_folds(X: Dense, folds: int, seed: int) -> Tensor:
    """The fold of each cell, (N, D), and -1 where X has none.

    In a group of as many rows as there are folds, taken at random, the columns are dealt out evenly at random in the
    first row, and each next row moves on by one fold: a column meets each fold once a group, a row has even shares.
    Missing cells are taken out afterwards.
    """
    N, D = X.shape
    stream, groups = Stream.of(seed), -(-N // folds)
    place = stream.uniforms(0, Site.FOLDS, range(N), 1)[0, :, 0].argsort().argsort()  # (N,): row -> its turn
    dealt = stream.uniforms(1, Site.FOLDS, range(groups), D)[0].argsort(-1).argsort(-1)  # (groups, D)
    fold_of = (dealt[place // folds] + (place % folds)[:, None]) % folds
    return _observed(X, fold_of)


def _given(X: Dense, folds: Any) -> Tensor:
    """The caller's folds, (N, D). Raises ValueError for another shape, or what are no whole numbers from -1 on."""
    values = torch.as_tensor(borrowed("folds", folds))
    if tuple(values.shape) != tuple(X.shape):
        raise ValueError(f"folds has shape {tuple(values.shape)} and X {tuple(X.shape)}: give the fold of each cell")
    if values.is_complex() or not bool((values == values.long()).all()) or int(values.min()) < -1:
        raise ValueError("folds holds what are no whole numbers from 0 on; -1 says that a cell is in none")
    return values.long()


def _observed(X: Dense, fold_of: Tensor) -> Tensor:
    """The same with -1 where X has no cell."""
    own = fold_of.to(X.device)
    return own if X.mask is None else torch.where(X.mask, own, -1)


class Length(NamedTuple):
    """How long a fold is fitted; the arguments of `run`."""

    draws: int
    warmup: int
    thin: int = 1
    moves: bool = True
    rounds: int = 1

    @property
    def least(self) -> int:
        """Sweeps of the first round."""
        return self.warmup + self.draws * self.thin


class Reconstructed(NamedTuple):
    """What a fit leaves."""

    mean: Tensor  # of W @ H, times the exposures, over the draws, (N, D)
    rhat: float  # of the log joint over the draws
    sweeps: int  # of all rounds


def fit(model: Sweeping, X: Dense, stream: Stream, length: Length, begin: Start, ticker: Any) -> Reconstructed:
    """Rounds of draws, which are not kept, until the log joint has converged over those of one."""
    state, sweeps = gibbs.init(model, X, stream, begin), 0
    for number in range(length.rounds):
        own = length._replace(warmup=sweeps) if number else length
        if number:
            ticker.total += own.least
        state, total, lp = _summed(model, state, X, stream, own, ticker)
        sweeps += own.least
        rhat = _rhat(lp)
        if not rhat > AGREE:
            break
    return Reconstructed(exposed(model, total / lp.numel()), rhat, sweeps)


def _summed(
    model: Sweeping, state: gibbs.State, X: Dense, stream: Stream, length: Length, ticker: Any
) -> tuple[gibbs.State, Tensor, Tensor]:
    """The state after a round, and of its draws the sum of W @ H (N, D) and the log joint (C, draws)."""
    total, lps = torch.zeros_like(X.values), []
    for n in range(length.least):
        state, info = gibbs.step(model, state, X, stream, moves=length.moves)
        if n >= length.warmup and (n - length.warmup) % length.thin == length.thin - 1:
            lps.append(info.lp)
            for W, H in zip(state.params["W"], state.params["H"], strict=True):
                total.addmm_(W, H)
        ticker.update()
    return state, total, torch.stack(lps, 1)


def _rhat(lp: Tensor) -> float:
    """R-hat of the log joint (C, draws), the halves of a chain taken as two; NaN where there are too few draws to tell."""
    if lp.shape[1] < FEWEST:
        return math.nan
    half = lp.shape[1] // 2
    halves = torch.cat([lp[:, :half], lp[:, -half:]]).double().cpu().numpy()
    return float(array_stats.rhat(halves, chain_axis=0, draw_axis=1))


def _doubts(rhat: Mapping[tuple[int, ...], float]) -> tuple[str, ...]:
    """A sentence about the fits whose log joint still moved."""
    moving = [f"{' and '.join(str(fold) for fold in group)} ({own:.2f})" for group, own in rhat.items() if own > AGREE]
    if not moving:
        return ()
    return (
        f"the fit had not converged with fold(s) {', '.join(moving)} hidden (R-hat of the log joint, above {AGREE:g}): "
        "take more warmup or rounds",
    )


def _number(group: tuple[int, ...], folds: int) -> int:
    """The replicate whose random numbers a fit takes: the fold that is hidden, or one above them all for each pair."""
    first, *second = group
    return folds * (1 + first) + second[0] if second else first


def _beside(fold: int, errors: Mapping[tuple[int, ...], list[float]]) -> float:
    """Mean error of the other folds, each hidden together with this one."""
    pairs = [(pair, own) for pair, own in errors.items() if fold in pair and len(pair) == 2]
    return statistics.fmean(own[pair[0] == fold] for pair, own in pairs)


def _standard_error(values: tuple[float, ...] | list[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
