"""How many components: criteria over a range of ranks, in one table that says how firm its choice is."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Protocol

from joblib import Parallel, delayed

from ppnmf.checks import whole_number
from ppnmf.data.matrix import Dense, as_matrix
from ppnmf.evidence import METHODS
from ppnmf.evidence.estimate import Evidence, describe
from ppnmf.inference import check
from ppnmf.progress import bar
from ppnmf.protocols import Model

__all__ = ["CRITERIA", "RankTable", "Score", "select_rank"]

CRITERIA = {  # name -> the module whose `run` gives a rank its score
    **METHODS,
    "heldout": "ppnmf.evidence.heldout",
}


class Score(Protocol):
    """What a criterion says of one rank. `Evidence` and `HeldOut` are scores; a new criterion brings its own."""

    label: ClassVar[str]
    sign: ClassVar[int]  # 1 where more is better, -1 where less is

    @property
    def value(self) -> float: ...
    @property
    def error(self) -> float:
        """Standard error of the value."""
        ...

    @property
    def priors(self) -> Mapping[str, Any]: ...
    @property
    def seconds(self) -> float: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    def lead_over(self, other: Any) -> tuple[float, float]:
        """How much better than another rank's score of the same criterion, and that difference's standard error."""
        ...

    def is_clearly_better_than(self, other: Any) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class RankTable:
    """The scores of a range of ranks.

    Args:
        scores: method -> rank -> its score, in the order asked for; `best` and `decisive` go by the first method.
        failed: method -> rank -> why there is no score.
        shape: of X.
        seed: of every random number.
        seconds: the whole time.
        interrupted: Ctrl-C came before all ranks were done.
    """

    scores: Mapping[str, Mapping[int, Any]]
    failed: Mapping[str, Mapping[int, str]]
    shape: tuple[int, int]
    seed: int
    seconds: float
    interrupted: bool = False

    @property
    def methods(self) -> list[str]:
        return list(self.scores)

    @property
    def ranks(self) -> list[int]:
        """All ranks tried, failed ones too, ascending."""
        tried = {rank for by_rank in [*self.scores.values(), *self.failed.values()] for rank in by_rank}
        return sorted(tried)

    @property
    def best(self) -> int:
        """The rank with the best value by the first method."""
        return self.best_by(self.methods[0])

    @property
    def decisive(self) -> bool:
        """Whether the best rank is clearly better than every other, by the first method."""
        return not self.rivals(self.methods[0])

    @property
    def probability(self) -> dict[int, float] | None:
        """p(rank | X) under a uniform prior over the ranks that have a value; None where no method gives evidence.

        It takes the estimates as exact: look at `decisive` too.
        """
        for by_rank in self.scores.values():
            if by_rank and all(isinstance(score, Evidence) for score in by_rank.values()):
                return _softmax({rank: score.log_evidence for rank, score in by_rank.items()})
        return None

    def best_by(self, method: str) -> int:
        """The rank with the best value by a method; the least of equal ones."""
        by_rank = self.scores[method]
        return max(sorted(by_rank), key=lambda rank: by_rank[rank].sign * by_rank[rank].value)

    def rivals(self, method: str) -> list[int]:
        """The ranks that a method cannot tell from its best."""
        by_rank, best = self.scores[method], self.best_by(method)
        return [r for r in sorted(by_rank) if r != best and not by_rank[best].is_clearly_better_than(by_rank[r])]

    def edge(self, method: str | None = None) -> str | None:
        """A sentence where the best rank lies at an end of the range, beyond which a better one may lie."""
        ranks, best = self.ranks, self.best_by(method or self.methods[0])
        if best == ranks[-1]:
            return f"rank {best} is the greatest tried: try greater ones"
        if best == ranks[0] > 1:
            return f"rank {best} is the least tried: try smaller ones"
        return None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A dict a rank: "rank", "priors", and for each method its value, "<method>_error", "_seconds", "_warnings",
        "_failed"; with evidence also "probability"."""
        probability, rows = self.probability or {}, []
        for rank in self.ranks:
            row: dict[str, Any] = {"rank": rank}
            for method, by_rank in self.scores.items():
                score = by_rank.get(rank)
                row[method] = score.value if score else None
                row[f"{method}_error"] = score.error if score else None
                row[f"{method}_seconds"] = score.seconds if score else None
                row[f"{method}_warnings"] = list(score.warnings) if score else []
                row[f"{method}_failed"] = self.failed[method].get(rank)
                if score:
                    row["priors"] = dict(score.priors)
            if rank in probability:
                row["probability"] = probability[rank]
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything in numbers, words, lists and dicts, for JSON; a standard error that cannot be told is null."""
        return {
            "methods": self.methods,
            "best": self.best,
            "best_by": {method: self.best_by(method) for method in self.methods if self.scores[method]},
            "decisive": self.decisive,
            "probability": self.probability and {str(rank): p for rank, p in self.probability.items()},
            "edge": self.edge(),
            "interrupted": self.interrupted,
            "shape": list(self.shape),
            "seed": self.seed,
            "seconds": self.seconds,
            "rows": [{name: _plain(value) for name, value in row.items()} for row in self.rows],
        }

    def __str__(self) -> str:
        return "\n".join([*self._table(), *self._sentences()])

    def _table(self) -> Iterator[str]:
        probability, by = self.probability, self.methods
        heads = [f"{_label(self.scores[m], m):>32} ± error" for m in by] + (["   probability"] if probability else [])
        yield "  rank" + "".join(heads) + "   seconds"
        for row in self.rows:
            cells = [_cell(row[m], row[f"{m}_error"]) for m in by]
            if probability:
                cells.append(f"{row.get('probability', math.nan):14.3g}")
            seconds = sum(row[f"{m}_seconds"] or 0.0 for m in by)
            yield f"{'*' if row['rank'] == self.best else ' '}{row['rank']:5d}" + "".join(cells) + f"{seconds:10.1f}"

    def _sentences(self) -> Iterator[str]:
        for method, by_rank in self.scores.items():
            if by_rank:
                yield self._verdict(method)
                yield from (f"  At the edge: {sentence}." for sentence in [self.edge(method)] if sentence)
        if self.probability:
            yield "Probabilities are under a uniform prior over these ranks."
        yield from _prior_lines(self.rows)
        for method, by_rank in self.scores.items():
            doubted = [f"{rank} ({'; '.join(score.warnings)})" for rank, score in by_rank.items() if score.warnings]
            if doubted:
                yield f"Doubts about {method}, by rank: {', '.join(doubted)}."
        for method, reasons in self.failed.items():
            yield from (f"Rank {rank} failed by {method}: {reason}" for rank, reason in sorted(reasons.items()))
        if self.interrupted:
            yield "Interrupted: not all ranks were done."

    def _verdict(self, method: str) -> str:
        by_rank, best, rivals = self.scores[method], self.best_by(method), self.rivals(method)
        if len(by_rank) == 1:
            return f"By {method}: rank {best}, the only one with a value."
        if rivals:
            names = ", ".join(map(str, rivals))
            return f"By {method}: rank {best} is best, but its lead over rank(s) {names} is within the error."
        second = min((r for r in by_rank if r != best), key=lambda r: by_rank[best].lead_over(by_rank[r])[0])
        lead, error = by_rank[best].lead_over(by_rank[second])
        return f"By {method}: rank {best} is best, decisively; its lead over rank {second} is {lead:.4g} ± {error:.2g}."


def select_rank(
    model: Model | Callable[[int], Model],
    X: Any,
    ranks: Iterable[int] = range(1, 11),
    *,
    method: str | Sequence[str] = "chib",
    seed: int = 0,
    mask: Any = None,
    missing: str = "error",
    n_jobs: int = 1,
    progress: bool = True,
    **options: Any,
) -> RankTable:
    """Score a range of ranks by one criterion or several.

    A rank that fails is reported in the table and does not stop the others; Ctrl-C gives a table of those done.

    Args:
        model: a model, whose rank is replaced (it keeps scalar rates), or a function from rank to model.
        X: data (N, D), as in `ppnmf.fit`, with `mask` and `missing`.
        ranks: the ranks to try.
        method: "chib", "heldout", or a list of them; the first one decides `best`.
        n_jobs: ranks worked on at once, in processes, by joblib; the
            numbers are the same for any. It pays when a rank takes longer than a process takes to start.
        options: those of the methods (`ppnmf.evidence.chib.run`, `ppnmf.evidence.heldout.run`): draws, warmup,
            replicates, folds, ...; each goes to every method that has it.

    Raises:
        ValueError: bad input, an unknown method, no ranks. Where every rank fails, the first one's own error.
        TypeError: an option that no method has, or every model lacks what the methods need.
    """
    names = [method] if isinstance(method, str) else list(dict.fromkeys(method))
    wanted = _whole_numbers(ranks)
    chosen = _options_by_method(names, options)
    data, began = as_matrix(X, mask, missing), time.perf_counter()
    models, failures = _models(model, wanted)
    if models:
        check(models[max(models)], data)
    tasks = [(name, rank) for rank in sorted(models, reverse=n_jobs != 1) for name in names]  # long ones first, if many
    inner = progress and n_jobs == 1
    work = (delayed(_attempt)(name, models[rank], data, seed, inner, chosen[name]) for name, rank in tasks)
    results: dict[tuple[str, int], Any] = {(name, rank): error for rank, error in failures.items() for name in names}
    interrupted = False
    with bar(len(tasks), "ranks", progress) as ticker:
        try:
            for name, rank, result in Parallel(n_jobs, return_as="generator_unordered")(work):
                results[name, rank] = result
                ticker.update()
                ticker.set_postfix_str(f"rank {rank} done")
        except KeyboardInterrupt:
            interrupted = True
    return _table(names, results, data, seed, time.perf_counter() - began, interrupted)


def _attempt(
    name: str, model: Model, X: Dense, seed: int, progress: bool, options: dict[str, Any]
) -> tuple[str, int, Any]:
    """(method, rank, its score or the exception it raised)."""
    try:
        score = import_module(CRITERIA[name]).run(model, X, seed=seed, progress=progress, **options)
        if not math.isfinite(score.value):
            raise ArithmeticError(f"the value is {score.value}")
    except Exception as error:
        return name, model.rank, error
    return name, model.rank, score


def _table(
    names: list[str], results: dict[tuple[str, int], Any], X: Dense, seed: int, seconds: float, interrupted: bool
) -> RankTable:
    scores: dict[str, dict[int, Any]] = {name: {} for name in names}
    failed: dict[str, dict[int, str]] = {name: {} for name in names}
    for (name, rank), result in sorted(results.items(), key=lambda item: item[0][1]):
        if isinstance(result, Exception):
            failed[name][rank] = f"{type(result).__name__}: {result}"
        else:
            scores[name][rank] = result
    if not scores[names[0]]:
        if interrupted:
            raise KeyboardInterrupt
        raise next(error for (name, _), error in sorted(results.items(), key=lambda i: i[0][1]) if name == names[0])
    return RankTable(scores=scores, failed=failed, shape=X.shape, seed=seed, seconds=seconds, interrupted=interrupted)


def _models(model: Model | Callable[[int], Model], ranks: list[int]) -> tuple[dict[int, Model], dict[int, Exception]]:
    """The model of each rank, and the errors of those that cannot be made."""
    models: dict[int, Model] = {}
    failures: dict[int, Exception] = {}
    for rank in ranks:
        try:
            models[rank] = _with_rank(model, rank) if isinstance(model, Model) else model(rank)
        except Exception as error:
            failures[rank] = error
    return models, failures


def _with_rank(model: Model, rank: int) -> Model:
    return type(model)(**{**model.config(), "rank": rank})


def _options_by_method(names: list[str], options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each method's own options. Raises ValueError for an unknown method, TypeError for an option that none has."""
    unknown = [name for name in names if name not in CRITERIA]
    if unknown or not names:
        raise ValueError(f"method is {', '.join(map(repr, unknown)) or 'empty'}; there are {', '.join(CRITERIA)}")
    reserved = {"model", "X", "seed", "progress"}
    has = {name: set(inspect.signature(import_module(CRITERIA[name]).run).parameters) - reserved for name in names}
    strange = [option for option in options if not any(option in own for own in has.values())]
    if strange:
        offered = "; ".join(f"{name} has {', '.join(sorted(own))}" for name, own in has.items())
        raise TypeError(f"there is no option {', '.join(strange)}: {offered}")
    return {name: {option: value for option, value in options.items() if option in has[name]} for name in names}


def _whole_numbers(ranks: Iterable[int]) -> list[int]:
    wanted = sorted({whole_number("a rank", rank, 1) for rank in ranks})
    if not wanted:
        raise ValueError("ranks is empty; give whole numbers >= 1, such as range(1, 11)")
    return wanted


def _softmax(logs: dict[int, float]) -> dict[int, float]:
    top = max(logs.values())
    weights = {rank: math.exp(value - top) for rank, value in logs.items()}
    total = sum(weights.values())
    return {rank: weight / total for rank, weight in weights.items()}


def _label(by_rank: Mapping[int, Any], method: str) -> str:
    return next((f"{score.label} ({method})" for score in by_rank.values()), method)


def _cell(value: float | None, error: float | None) -> str:
    if value is None or error is None:
        return f"{'failed':>40}"
    return f"{value:>32.6g} ± {error:<5.2g}"


def _prior_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The priors once where all ranks share them, else rank by rank."""
    lines = {row["rank"]: describe(row["priors"]) for row in rows if "priors" in row}
    if len(set(lines.values())) == 1:
        yield f"Priors: {next(iter(lines.values()))}."
    else:
        yield "Priors by rank:"
        yield from (f"  {rank}: {line}" for rank, line in lines.items())


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
