"""What differs between fits of the same data: a table."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import borrowed
from ppnmf.data.containers import BOOLEANS, opened
from ppnmf.data.labelled import AXES, beside, listed, order, taken
from ppnmf.data.matrix import Dense, as_matrix, in_memory
from ppnmf.diagnostics.convergence import summary
from ppnmf.posterior import Kind, Posterior
from ppnmf.protocols import Entries, Model
from ppnmf.report.facts import for_json
from ppnmf.required import require_posteriors
from ppnmf.settings import own_settings

__all__ = ["Comparison", "compare", "describe_model"]

SCORED_DRAWS = 200  # of each posterior, evenly spaced, in the predictive density of hidden cells
WIDTH = 110  # of the printed table


@dataclass(frozen=True)
class Comparison:
    """A table of what differs between fits; print it.

    Args:
        rows: one a method: "method", "model", "seconds", "error" and "hidden_error" (root mean squared, in X's units),
            "hidden_log_score" (mean log predictive density of a hidden cell, nats), "log_density" and "log_density_of",
            "kind" (what its draws are), "discrete" (whether its likelihood is a probability and no density), "worst_rhat",
            "least_ess", "agree", "remark". A method that was left out has its reason as its remark alone.
        heading: what was compared.
        notes: what the columns mean, and the priors.
    """

    rows: list[dict[str, Any]]
    heading: str
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return for_json(asdict(self))

    def __str__(self) -> str:
        remarks = [f"{row['method']}: {row['remark']}" for row in self.rows]
        lines = [self.heading, "", *_aligned(self.cells()), ""]
        for text in remarks + self.notes:
            lines += textwrap.wrap(text, WIDTH, subsequent_indent="  ")
        return "\n".join(lines)

    def cells(self) -> list[tuple[str, ...]]:
        """The table in words: its heading, and a row a method, "-" where it has no such number."""
        shown = [tuple(title for title, _ in COLUMNS.values())]
        for row in self.rows:
            known = ((row.get(key), show) for key, (_, show) in COLUMNS.items())
            shown.append(tuple("-" if value is None else show(value) for value, show in known))
        return shown

    def _repr_html_(self) -> str:
        from ppnmf.report.notebook import notebook

        return notebook(self)


@own_settings()
def compare(posteriors: Mapping[str, Posterior | str], X: Any, mask: Any = None) -> Comparison:
    """Compare fits of the same data.

    The reconstruction that is scored is the posterior mean of W @ H; of several modes, the best one's.

    Args:
        posteriors: name -> a Posterior, or the reason why there is none.
        X: the data, (N, D), hidden cells too; NaN where unknown. Rows and columns with names, as a DataFrame's, are
            brought into the order of the fits'.
        mask: boolean (N, D), True where the fits saw X; cells outside are scored as hidden. By default, what the first
            of the posteriors was given.

    Raises:
        ValueError: shapes or names differ, or there is nothing to compare. A fit that saw hidden cells is a warning.
    """
    require_posteriors("compare", posteriors, reasons=True)
    fits = {name: post for name, post in posteriors.items() if isinstance(post, Posterior)}
    if not fits:
        raise ValueError("there is no posterior to compare: " + ("; ".join(f"{k}: {v}" for k, v in posteriors.items())))
    first = in_memory(next(iter(fits.values())).X, "compare")
    given = opened("X", X)
    names = _shared_names(fits)
    seen = None if mask is None else beside("mask", opened("mask", mask, BOOLEANS), given)
    data, seen = _in_order(names, in_memory(as_matrix(given, missing="nan"), "compare"), seen)
    cells = _Cells.of(data, first.mask if seen is None else seen)
    for name, post in fits.items():
        _check_data(name, post, data, cells)
    rows = [_row(name, post, data, cells) for name, post in posteriors.items()]
    N, D = data.shape
    ranks = ", ".join(map(str, sorted({post.model.rank for post in fits.values()})))
    heading = f"X {N} × {D}, rank {ranks}: {int(cells.seen.sum())} cells fitted, {int(cells.hidden.sum())} hidden"
    return Comparison(rows, heading, [*_verdict(rows), *_notes(data, cells), *_priors(fits)])


def _shared_names(fits: Mapping[str, Posterior]) -> dict[str, tuple[str, ...]]:
    """The names of rows and columns that the fits agree on; those of one that has none are taken to be the others'."""
    shared: dict[str, tuple[str, ...]] = {}
    for name, post in fits.items():
        for axis, names in post.names.items():
            if shared.setdefault(axis, tuple(names)) != tuple(names):
                raise ValueError(
                    f"{name} was fitted to X with its {axis} named {listed(names)}, and another fit to {listed(shared[axis])}: "
                    "compare fits of the same data, in the same order"
                )
    return shared


def _in_order(names: Mapping[str, tuple[str, ...]], data: Dense, seen: Any) -> tuple[Dense, Any]:
    """X and what of it was seen, by the names of the fits, where it has names too."""
    for axis, own in enumerate(data.names):
        wanted = names.get(AXES[axis])
        if own is None or wanted is None:
            continue
        places = order(own, wanted, f"X's {AXES[axis]} are not those of the fits", "compare fits of the same data")
        if places is not None:
            mask = None if data.mask is None else taken(data.mask, axis, places)
            data = Dense(taken(data.values, axis, places), mask, None, data.names)
            seen = None if seen is None else taken(seen, axis, places)
    return data, seen


class _Cells(NamedTuple):
    """Which cells of X were seen, and which were hidden and are known: boolean (N, D), on the CPU."""

    seen: Tensor
    hidden: Tensor

    @classmethod
    def of(cls, data: Dense, mask: Any) -> _Cells:
        known = torch.ones(data.shape, dtype=torch.bool) if data.mask is None else data.mask.cpu()
        given = known if mask is None else borrowed("mask", mask).cpu()
        if given.dtype != torch.bool or given.shape != data.shape:
            raise ValueError(f"mask is {given.dtype} {tuple(given.shape)}; booleans of shape {data.shape} are needed")
        return cls(known & given, known & ~given)


def _check_data(name: str, post: Posterior, data: Dense, cells: _Cells) -> None:
    if post.X.shape != data.shape:
        raise ValueError(
            f"{name} was fitted to X of shape {post.X.shape}, and X has {data.shape}; compare fits of the same data"
        )
    own = in_memory(post.X, "compare").mask
    saw = cells.hidden if own is None else cells.hidden & own.cpu()
    if bool(saw.any()):
        warnings.warn(
            f"{name} saw {int(saw.sum())} of the cells that are scored as hidden: fit with the same mask", stacklevel=3
        )


def _row(name: str, post: Posterior | str, data: Dense, cells: _Cells) -> dict[str, Any]:
    if isinstance(post, str):
        return {"method": name, "remark": f"left out: {post}"}
    judged = summary(post)
    shown = post.typical()
    residual = data.values.double().cpu() - shown.reconstruction().double().cpu()
    kind, density = _log_density(post)
    return {
        "method": name,
        "model": post.model.name,
        "seconds": post.timings.get("total", math.nan),
        "error": _root_mean_square(residual, cells.seen),
        "hidden_error": _root_mean_square(residual, cells.hidden),
        "hidden_log_score": _log_score(shown, data, cells.hidden),
        "log_density": density,
        "log_density_of": kind,
        "kind": post.kind.value,
        "discrete": post.model.accepts is Entries.COUNTS,
        "worst_rhat": judged.worst_rhat,
        "least_ess": judged.least_ess,
        "agree": judged.agree,
        "remark": judged.sentence,
    }


def _root_mean_square(residual: Tensor, cells: Tensor) -> float | None:
    return float(residual[cells].square().mean().sqrt()) if bool(cells.any()) else None


def _log_density(post: Posterior) -> tuple[str, float]:
    if post.kind is Kind.APPROXIMATION:
        return "ELBO", float(post.attrs["elbo"])
    if post.kind is Kind.MODES:
        return "log joint, best mode", float(post.stats["lp"].max())
    return "log joint, mean", float(post.stats["lp"].mean())


@torch.no_grad()
def _log_score(post: Posterior, data: Dense, cells: Tensor) -> float | None:
    """Mean over `cells` of log p(x | draws), the density averaged over draws; None where there are no cells."""
    if not bool(cells.any()):
        return None
    sites = [site.flatten(0, 1) for site in post.draws.values()]
    every = -(-len(sites[0]) // SCORED_DRAWS)
    draws = {name: site[::every] for name, site in zip(post.draws, sites, strict=True)}
    values = data.values.to(post.X.device, post.X.dtype)
    where = cells.to(post.X.device)
    total = torch.full((int(cells.sum()),), -math.inf, dtype=torch.float64, device=values.device)
    count = len(next(iter(draws.values())))
    for s in range(count):
        own = post.likelihood({name: site[s] for name, site in draws.items()}).log_prob(values)[where]
        total = torch.logaddexp(total, own.double())
    return float(total.mean()) - math.log(count)


def _verdict(rows: list[dict[str, Any]]) -> list[str]:
    """Which method predicts the hidden cells best."""
    scored = [row for row in rows if row.get("hidden_error") is not None]
    if len(scored) < 2:
        return []
    nearest = min(scored, key=lambda row: row["hidden_error"])["method"]
    if len({row["discrete"] for row in scored}) > 1:
        return [
            f"Hidden cells are predicted with the least error by {nearest}. The scores of {_named(scored, True)} are log "
            f"probabilities of counts, those of {_named(scored, False)} log densities: they cannot be compared."
        ]
    surest = max(scored, key=lambda row: row["hidden_log_score"])["method"]
    if nearest == surest:
        return [f"Hidden cells are predicted best by {nearest}, in error and in score."]
    return [f"Hidden cells are predicted with the least error by {nearest}, with the best score by {surest}."]


def _named(rows: list[dict[str, Any]], discrete: bool) -> str:
    return ", ".join(row["method"] for row in rows if row["discrete"] is discrete)


def _notes(data: Dense, cells: _Cells) -> list[str]:
    notes = [
        "Errors are root mean squared, in X's units, of the posterior mean of W @ H (of the mode, for icm). Log densities "
        "are in nats; a log joint and an ELBO are of different things, and only rows of one kind and model can be compared."
    ]
    if bool(cells.hidden.any()):
        seen = data.hide(cells.seen.to(data.device))
        residual = (data.values - seen.column_means()).double().cpu()
        baseline = _root_mean_square(residual, cells.hidden)
        notes.append(
            f"For scale: predicting a hidden cell by its column's mean leaves {baseline:.4g}. The score is the mean log "
            "predictive density of a hidden cell in nats; higher is better, and it rewards honest uncertainty."
        )
    return notes


def _priors(fits: Mapping[str, Posterior]) -> list[str]:
    names_of_text: dict[str, list[str]] = {}
    for name, post in fits.items():
        names_of_text.setdefault(describe_model(post.model), []).append(name)
    return [f"Model of {', '.join(names)}: {text}" for text, names in names_of_text.items()]


def describe_model(model: Model) -> str:
    """The model's class and its hyperparameters, which evidence and scores depend on.

    >>> from ppnmf.models import ExponentialGaussian
    >>> describe_model(ExponentialGaussian(3))
    'ExponentialGaussian(rank=3, rate_W=1, rate_H=1, noise_shape=1, noise_scale=1)'
    """
    fields = ", ".join(f"{name}={_short(value)}" for name, value in model.config().items())
    return f"{type(model).__name__}({fields})"


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} from {float(value.min()):.4g} to {float(value.max()):.4g}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "method": ("method", str),
    "seconds": ("seconds", "{:.1f}".format),
    "error": ("error", "{:.4g}".format),
    "hidden_error": ("hidden error", "{:.4g}".format),
    "hidden_log_score": ("hidden score", "{:.4f}".format),
    "log_density": ("log density", "{:.1f}".format),
    "log_density_of": ("of", str),
    "worst_rhat": ("worst R-hat", "{:.3f}".format),
    "least_ess": ("least ESS", "{:.0f}".format),
}


def _aligned(cells: list[tuple[str, ...]]) -> list[str]:
    text = {0, list(COLUMNS).index("log_density_of")}
    widths = [max(len(line[j]) for line in cells) for j in range(len(COLUMNS))]
    lines = [
        "  ".join(c.ljust(w) if j in text else c.rjust(w) for j, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]
    return [lines[0], "-" * len(lines[0]), *(line.rstrip() for line in lines[1:])]
