"""What criteria say of each rank, side by side, and in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ppnmf.evidence.estimate import Evidence, describe
from ppnmf.evidence.heldout import Nested, nested_choice
from ppnmf.evidence.sensitivity import SCALES

__all__ = ["RankTable", "Task", "doubts_of", "failures_of", "times"]

VALUE = 16  # characters of a score in the table, and of its name
SIDE_BY_SIDE = 4  # methods in a block of the printed table
LEAST = {"consensus": 2}  # rank that a method can judge, where it is not 1


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
        sensitivity: method -> what the rates were multiplied by -> rank -> its evidence then, at the best rank by that
            method and its neighbours; empty unless asked for.
    """

    scores: Mapping[str, Mapping[int, Any]]
    failed: Mapping[str, Mapping[int, str]]
    shape: tuple[int, int]
    seed: int
    seconds: float
    interrupted: bool = False
    sensitivity: Mapping[str, Mapping[float, Mapping[int, Evidence]]] = field(default_factory=dict)

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
        """The rank with the best value by the first method. Raises ValueError where every estimate of it has failed."""
        return self.best_by(self.methods[0])

    @property
    def decisive(self) -> bool:
        """Whether the best rank is clearly better than every other, by the first method; not where it is the only one with a
        value, or an estimate has failed."""
        method = self.methods[0]
        return len(self.scores[method]) > 1 and not self.rivals(method) and not self.unjudged(method)

    @property
    def probability(self) -> dict[int, float] | None:
        """p(rank | X) under a uniform prior over the ranks whose estimates hold; None where no method gives evidence.

        Leads over the best rank are taken with their errors, as in `lead_in_doubt`: none is certain within its error.
        """
        by = self.with_evidence[:1]
        judged = self.judged(by[0]) if by else {}
        if not judged:
            return None
        best = judged[self.best_by(by[0])]
        return _softmax({rank: -lead_in_doubt(best, score) for rank, score in judged.items()})

    @property
    def with_evidence(self) -> list[str]:
        """The methods that estimate log p(X)."""
        return [
            m for m, scores in self.scores.items() if scores and all(isinstance(s, Evidence) for s in scores.values())
        ]

    @property
    def nested(self) -> Nested | None:
        """The error of choosing the rank by held-out cells, where the option `nested` of held-out cells asks for it."""
        return nested_choice(self.scores.get("heldout", {}))

    def judged(self, method: str) -> dict[int, Any]:
        """The scores of the ranks that can be chosen: those whose estimates have not failed."""
        return {rank: score for rank, score in self.scores[method].items() if not _failure(score)}

    def unjudged(self, method: str) -> list[int]:
        """The ranks whose estimates have failed."""
        return sorted(set(self.scores[method]) - set(self.judged(method)))

    def best_by(self, method: str) -> int:
        """The rank with the best value by a method; the least of equal ones.

        Raises ValueError where every estimate has failed.
        """
        by_rank = self.judged(method)
        if not by_rank:
            raise ValueError(f"no rank can be chosen by {method}: {self.verdict(method)}")
        return max(sorted(by_rank), key=lambda rank: by_rank[rank].sign * by_rank[rank].value)

    def rivals(self, method: str) -> list[int]:
        """The ranks that a method cannot tell from its best."""
        by_rank, best = self.judged(method), self.best_by(method)
        return [r for r in sorted(by_rank) if r != best and not by_rank[best].is_clearly_better_than(by_rank[r])]

    def edge(self, method: str | None = None) -> str | None:
        """A sentence where the best rank lies at an end of the range, beyond which a better one may lie."""
        method = method or self.methods[0]
        judged, best = sorted(self.judged(method)), self.best_by(method)
        tried = {*self.scores[method], *self.failed.get(method, {})}
        above, below = [rank for rank in tried if rank > best], [rank for rank in tried if rank < best]
        if best == judged[-1] and above:
            return f"rank {best} is the greatest with a value: {_ranks(above)} failed"
        if best == judged[-1]:
            return f"rank {best} is the greatest tried: try greater ones"
        if best == judged[0] and below:
            return f"rank {best} is the least with a value: {_ranks(below)} failed"
        if best == judged[0] > LEAST.get(method, 1):
            return f"rank {best} is the least tried: try smaller ones"
        return None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dict a rank, with "rank", "priors", and for each method its value, "<method>_error", "_seconds", "_warnings",
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
                row[f"{method}_failed"] = self.failed[method].get(rank) or (_failure(score) or None)
                if score:
                    row.setdefault("priors", dict(score.priors))
            if rank in probability:
                row["probability"] = probability[rank]
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything in numbers, words, lists and dicts, for JSON; a standard error that cannot be told is null."""
        scored = [method for method in self.methods if self.judged(method)]
        first = self.methods[0] in scored
        return {
            "methods": self.methods,
            "best": self.best if first else None,
            "best_by": {method: self.best_by(method) for method in scored},
            "decisive": first and self.decisive,
            "verdicts": {method: self.verdict(method) for method in scored},
            "labels": {method: next(iter(self.scores[method].values())).label for method in scored},
            "probability": self.probability and {str(rank): p for rank, p in self.probability.items()},
            "nested": self.nested and {**self.nested._asdict(), "value": self.nested.value, "error": self.nested.error},
            "sensitivity": {
                method: {
                    f"{factor:g}": {
                        str(rank): None if _failure(score) else [score.value, _plain(score.error)]
                        for rank, score in by_rank.items()
                    }
                    for factor, by_rank in by_factor.items()
                }
                for method, by_factor in self.sensitivity.items()
            },
            "noise_scale": {
                method: {
                    f"{factor:g}": {str(r): v for r, v in self.with_noise_scale(method, factor).items()}
                    for factor in SCALES
                }
                for method in self.with_evidence
                if method in scored
            },
            "edge": self.edge() if first else None,
            "interrupted": self.interrupted,
            "shape": list(self.shape),
            "seed": self.seed,
            "seconds": self.seconds,
            "rows": [{name: _plain(value) for name, value in row.items()} for row in self.rows],
        }

    def __str__(self) -> str:
        return "\n".join([*self._table(), *self._sentences()])

    def _repr_html_(self) -> str:
        """What a notebook shows: how firm the choice is, the scores, and their picture."""
        from ppnmf.report.notebook import notebook

        return notebook(self)

    def _table(self) -> Iterator[str]:
        """Some methods side by side, the others below."""
        for start in range(0, len(self.methods), SIDE_BY_SIDE):
            yield from self._block(self.methods[start : start + SIDE_BY_SIDE])

    def _block(self, methods: list[str]) -> Iterator[str]:
        has = self.with_evidence[:1]
        best = self.best if self.judged(self.methods[0]) else None
        probability = self.probability if has and has[0] in methods else None
        heads = [f"{method:>{VALUE}} ± error  " for method in methods] + ["probability"] * bool(probability)
        yield "  rank" + "".join(heads) + "   seconds"
        for row in self.rows:
            cells = [_cell(row[method], row[f"{method}_error"], row[f"{method}_failed"]) for method in methods]
            if probability:
                cells.append(f"{row['probability']:11.3g}" if "probability" in row else f"{'':>11}")
            seconds = sum(row[f"{method}_seconds"] or 0.0 for method in methods)
            yield f"{'*' if row['rank'] == best else ' '}{row['rank']:5d}" + "".join(cells) + f"{seconds:10.1f}"

    def _sentences(self) -> Iterator[str]:
        for method, by_rank in self.scores.items():
            if by_rank:
                yield self.verdict(method)
                edge = self.edge(method) if self.judged(method) else None
                yield from (f"  At the edge: {sentence}." for sentence in [edge] if sentence)
        if self.nested:
            yield str(self.nested)
        if self.probability:
            yield f"Probabilities are by {self.with_evidence[0]}, errors allowed for, under a uniform prior over these ranks."
        yield from self.about_priors()
        yield from self.about_sensitivity()
        for method, by_rank in self.scores.items():
            yield from failures_of(method, by_rank)
            yield from doubts_of(method, by_rank)
        for method, reasons in self.failed.items():
            yield from (f"Rank {rank} failed by {method}: {reason}" for rank, reason in sorted(reasons.items()))
        if self.interrupted:
            yield "Interrupted: not all ranks were done."

    def about_priors(self) -> Iterator[str]:
        """The priors once where all ranks share them, else rank by rank; again for methods that have others."""
        told: dict[tuple[tuple[int, str], ...], list[str]] = {}
        for method, by_rank in self.scores.items():
            lines = {rank: describe(score.priors) for rank, score in by_rank.items()}
            same = next((known for known in told if dict(known).items() >= lines.items()), tuple(lines.items()))
            told.setdefault(same, []).append(method)
        for known, methods in told.items():
            whose = f" of {', '.join(methods)}" if len(told) > 1 else ""
            if len(set(dict(known).values())) == 1:
                yield f"Priors{whose}: {known[0][1]}."
            elif known:
                yield f"Priors{whose} by rank:"
                yield from (f"  {rank}: {line}" for rank, line in known)

    def with_noise_scale(self, method: str, factor: float) -> dict[int, float]:
        """The log evidence of the ranks that can be chosen, had the noise's prior so many times its scale (10 or 0.1).

        From draws of the posterior (`evidence.sensitivity`). Empty where a method or a model does not tell.
        """
        changes = {rank: score.attrs.get("noise_scale") or {} for rank, score in self.judged(method).items()}
        key = f"{factor:g}"
        if not changes or not all(key in own for own in changes.values()):
            return {}
        return {rank: self.scores[method][rank].value + own[key] for rank, own in changes.items()}

    def _of_noise_scale(self) -> Iterator[str]:
        """What other scales of the noise's prior would do: where they are asked for, or another rank would be best."""
        for method in self.with_evidence:
            for factor in SCALES:
                values = self.with_noise_scale(method, factor)
                if not values:
                    continue
                best, before = max(sorted(values), key=values.__getitem__), self.best_by(method)
                changes = ", ".join(f"{rank}: {v - self.scores[method][rank].value:+.3g}" for rank, v in values.items())
                if self.sensitivity or best != before:
                    yield (
                        f"With {times(factor)} the noise scale, {method}'s log evidence changes by (rank: nats) {changes}; rank "
                        f"{best} is then best{'' if best == before else f', no longer {before}'}."
                    )

    def about_sensitivity(self) -> Iterator[str]:
        """What other priors would do, or how to ask for it."""
        yield from self._of_noise_scale()
        if not self.sensitivity and self.with_evidence:
            known = any(self.with_noise_scale(method, factor) for method in self.with_evidence for factor in SCALES)
            noise = ", ten times and a tenth of the noise scale" if known else ""
            yield f"Evidence depends on the priors; sensitivity=True says what twice and half the rates{noise} would do to it."
        for method, by_factor in self.sensitivity.items():
            for factor, by_rank in by_factor.items():
                told = ", ".join(_change(rank, self.scores[method][rank], score) for rank, score in by_rank.items())
                judged = {rank: score.value for rank, score in by_rank.items() if not _failure(score)}
                best = max(judged, key=judged.__getitem__, default=None)
                before = self.best_by(method) if self.judged(method) else None
                then = "" if best is None else f"; of these ranks {best} is then best"
                yield (
                    f"With {times(factor)} the rates, {method}'s log evidence changes by (rank: nats) {told}{then}"
                    f"{'' if best == before or None in (best, before) else f', no longer {before}'}."
                )

    def verdict(self, method: str | None = None) -> str:
        """How firm the choice is, by the first method or another, in a sentence."""
        method = method or self.methods[0]
        by_rank, unjudged = self.judged(method), self.unjudged(method)
        example = next(iter(self.scores[method].values()))
        by = f"By {method} ({example.label}, {'more' if example.sign > 0 else 'less'} is better)"
        if not by_rank:
            return f"{by}: the estimates of all ranks have failed."
        best, rivals = self.best_by(method), self.rivals(method)
        if unjudged:
            return f"{by}: rank {best} is best of those that could be judged; the estimates of {_ranks(unjudged)} have failed."
        if len(by_rank) == 1:
            return f"{by}: rank {best}, the only one with a value."
        if rivals:
            names = ", ".join(map(str, rivals))
            moving = [rank for rank in sorted({best, *rivals}) if getattr(by_rank[rank], "unconverged", ())]
            why = f"; fits of {_ranks(moving)} had not converged" if moving else ""
            unknown = any(math.isnan(by_rank[rank].error) for rank in (best, *rivals))
            small = "of a size that no error is known of" if unknown else "within the error or too small to count"
            return f"{by}: rank {best} is best, but its lead over rank(s) {names} is {small}{why}."
        second = min((r for r in by_rank if r != best), key=lambda r: by_rank[best].lead_over(by_rank[r])[0])
        lead, error = by_rank[best].lead_over(by_rank[second])
        return f"{by}: rank {best} is best, decisively; its lead over rank {second} is {lead:.4g} ± {error:.2g}."


class Task(NamedTuple):
    """A score to find."""

    method: str
    rank: int
    factor: float = 1.0  # of the rates

    def __str__(self) -> str:
        rates = "" if self.factor == 1.0 else f" with {times(self.factor)} the rates"
        return f"{self.method} at rank {self.rank}{rates}"


def times(factor: float) -> str:
    return {2.0: "twice", 0.5: "half", 10.0: "ten times", 0.1: "a tenth of"}.get(factor, f"{factor:g} times")


def lead_in_doubt(best: Evidence, other: Evidence) -> float:
    """The log odds of the best rank over another's, drawn towards even ones by the error of the lead.

    E[1 / (1 + exp(-x))] for x ~ Normal(lead, s²) is close to 1 / (1 + exp(-lead / √(1 + π s² / 8))) (MacKay 1992,
    doi:10.1162/neco.1992.4.5.720); a tenth of the wider gap counts as error.
    """
    lead, error = best.lead_over(other)
    spread = 0.0 if best is other else error + max(best.gap, other.gap) / 10
    return lead / math.sqrt(1 + math.pi * spread**2 / 8)


def _change(rank: int, before: Evidence, after: Evidence) -> str:
    """How the log evidence of a rank changes with other priors."""
    if before.failed or after.failed:
        return f"{rank}: failed"
    by, error = after.lead_over(before)
    return f"{rank}: {by:+.4g} ± {error:.2g}"


def _failure(score: Any) -> str:
    """Why a score is no estimate; criteria that cannot tell have none."""
    return getattr(score, "failed", "")


def _ranks(ranks: list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, sorted(ranks)))


def _softmax(logs: dict[int, float]) -> dict[int, float]:
    top = max(logs.values())
    weights = {rank: math.exp(value - top) for rank, value in logs.items()}
    total = sum(weights.values())
    return {rank: weight / total for rank, weight in weights.items()}


def _cell(value: float | None, error: float | None, failed: str | None) -> str:
    if value is None or error is None:
        return f"{'-':>{VALUE}}{'':10}"
    if failed:
        return f"{value:>{VALUE}.6g}   {'failed':<7}"
    return f"{value:>{VALUE}.6g} ± {'?' if math.isnan(error) else f'{error:.2g}':<7}"


def failures_of(method: str, by_rank: Mapping[int, Any]) -> Iterator[str]:
    """A sentence for each rank whose estimate has failed."""
    for rank, score in by_rank.items():
        if why := _failure(score):
            yield f"The estimate of rank {rank} by {method} has failed: {why}."


def doubts_of(method: str, by_rank: Mapping[int, Any]) -> Iterator[str]:
    """The warnings, each by the ranks that have it."""
    ranks: dict[str, list[int]] = {}
    for rank, score in by_rank.items():
        for warning in score.warnings:
            ranks.setdefault(warning, []).append(rank)
    for warning, own in ranks.items():
        yield f"Doubt about {method} at rank {', '.join(map(str, own))}: {warning}."


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
