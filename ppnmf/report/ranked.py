"""What a report says about the choice of a rank: how firm it is, what each criterion says, and what the priors do to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ppnmf import __version__, plots
from ppnmf.evidence.sensitivity import SCALES
from ppnmf.evidence.table import RankTable, doubts_of, failures_of
from ppnmf.report.document import Alarm, Block, Code, Document, Items, Picture, Rows, Section, Text, Verdict

__all__ = ["ranked"]


def ranked(table: RankTable) -> Document:
    """The report about the table of `ppnmf.select_rank`. Sections with nothing to say are left out."""
    sections = {
        "How firm the choice is": _choice(table),
        "The scores": _scores(table),
        "What failed, and what is in doubt": _troubles(table),
        "What the priors do to it": _priors(table),
        "To do it again": _again(table),
    }
    N, D = table.shape
    written = [Section(title, blocks) for title, found in sections.items() if (blocks := tuple(found))]
    return Document(f"How many components: X {N} × {D}, ranks {_range(table.ranks)}", tuple(written))


def _choice(table: RankTable) -> Iterator[Block]:
    first, *others = table.methods
    yield Verdict(*_judged(table, first))
    told = [sentence for method in others for sentence in _said(table, method)]
    told += [str(table.nested)] if table.nested else []
    if told:
        yield Items(tuple(told))


def _judged(table: RankTable, method: str) -> tuple[str, str, str]:
    """The colour, the words, and the sentence of a verdict by a method: red where something is missing, green where it is firm."""
    sentence = " ".join(_said(table, method))
    if not _can_choose(table, method):
        return "bad", "No rank can be chosen.", sentence
    best = table.best_by(method)
    if table.interrupted:
        return "bad", f"Rank {best} so far: not all ranks were done.", sentence
    if table.unjudged(method):
        return "bad", f"Rank {best}, but estimates of others have failed.", sentence
    reservation = _reservation(table, method)
    if reservation:
        return "open", f"Rank {best}, {reservation}.", sentence
    return "good", f"Rank {best}, firmly.", sentence


def _reservation(table: RankTable, method: str) -> str:
    """Why the best rank by a method, all of whose estimates hold, is not firm; empty where it is."""
    if missing := table.failed.get(method):
        return f"but {_listed(set(missing))} could not be tried"
    if table.rivals(method):
        return "not firmly"
    if table.edge(method):
        return "at the edge of what was tried"
    if elsewhere := _best_by_other_priors(table, method) - {table.best_by(method)}:
        return f"but other priors would choose {_listed(elsewhere)}"
    if doubted := {rank for rank, score in table.judged(method).items() if score.warnings}:
        return f"but there are doubts about {_listed(doubted)}"
    return ""


def _said(table: RankTable, method: str) -> list[str]:
    """What a method says, in sentences."""
    if not table.scores[method]:
        return [f"By {method}: there is no score of any rank."]
    edge = table.edge(method) if _can_choose(table, method) else None
    return [table.verdict(method), *([f"At the edge: {edge}."] if edge else [])]


def _can_choose(table: RankTable, method: str) -> bool:
    return bool(table.judged(method))


def _best_by_other_priors(table: RankTable, method: str) -> set[int]:
    """The ranks that are best under the other rates and noise scales that were looked at."""
    changed = [{rank: score.value for rank, score in own.items()} for own in table.sensitivity.get(method, {}).values()]
    if method in table.with_evidence:
        changed += [table.with_noise_scale(method, factor) for factor in SCALES]
    return {max(sorted(values), key=values.__getitem__) for values in changed if values}


def _troubles(table: RankTable) -> Iterator[Block]:
    failures = [sentence for method in table.methods for sentence in failures_of(method, table.scores[method])]
    for method, reasons in table.failed.items():
        failures += [f"Rank {rank} failed by {method}: {reason}" for rank, reason in sorted(reasons.items())]
    doubts = [sentence for method in table.methods for sentence in doubts_of(method, table.scores[method])]
    if failures or doubts:
        yield Items((*map(Alarm, failures), *doubts))


def _scores(table: RankTable) -> Iterator[Block]:
    probability = table.probability
    heading = ["rank"]
    for method in table.methods:
        heading += [method, "± error"]
    heading += ["probability"] * bool(probability) + ["seconds"]
    yield Rows(tuple(heading), tuple(_row(table, row, bool(probability)) for row in table.rows))
    if probability:
        yield Text(
            f"Probabilities are by {table.with_evidence[0]}, errors allowed for, under a uniform prior over these ranks."
        )
    if any(_can_choose(table, method) for method in table.methods):
        yield Picture.of("rank", _in_words(table), lambda: plots.rank(table))


def _row(table: RankTable, row: dict[str, Any], with_probability: bool) -> tuple[str, ...]:
    first = table.methods[0]
    best = _can_choose(table, first) and row["rank"] == table.best
    cells = [f"{row['rank']} (best)" if best else f"{row['rank']}"]
    for method in table.methods:
        cells += _score(row[method], row[f"{method}_error"], row[f"{method}_failed"])
    if with_probability:
        cells.append(f"{row['probability']:.3g}" if "probability" in row else "")
    seconds = sum(row[f"{method}_seconds"] or 0.0 for method in table.methods)
    return (*cells, f"{seconds:.1f}")


def _score(value: float | None, error: float | None, failed: str | None) -> list[str]:
    """Two cells: a value, and its error or that it has failed."""
    shown = "–" if value is None else f"{value:.6g}"
    if failed:
        return [shown, Alarm("failed")]
    if error is None:
        return [shown, ""]
    return [shown, "?" if math.isnan(error) else f"{error:.2g}"]


def _in_words(table: RankTable) -> str:
    """What the curves show."""
    curves = []
    for method in filter(lambda method: _can_choose(table, method), table.methods):
        by_rank = table.judged(method)
        values = ", ".join(f"{rank}: {by_rank[rank].value:.6g}" for rank in sorted(by_rank))
        curves.append(f"{by_rank[table.best_by(method)].label} by {method}, by rank: {values}")
    return "The criteria against the rank. " + "; ".join(curves)


def _priors(table: RankTable) -> Iterator[Block]:
    if any(table.scores.values()):
        yield Items((*table.about_priors(), *table.about_sensitivity()))


def _again(table: RankTable) -> Iterator[Block]:
    yield Code(
        f"# ppnmf {__version__}; model: with the priors above; other options: those of the run\n"
        f"table = ppnmf.select_rank(model, X, {table.ranks}, method={table.methods}, seed={table.seed})"
    )
    yield Text(f"It took {table.seconds:.1f} s.")


def _range(ranks: list[int]) -> str:
    if len(ranks) > 2 and ranks == list(range(ranks[0], ranks[-1] + 1)):
        return f"{ranks[0]} to {ranks[-1]}"
    return _listed(set(ranks))


def _listed(ranks: set[int]) -> str:
    return ", ".join(map(str, sorted(ranks)))
