"""Pictures, each a `matplotlib.figure.Figure` of its own: no global state, no windows. Save one with `save`.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; every line has its own style or label too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ppnmf.checks import described
from ppnmf.diagnostics.alignment import align
from ppnmf.diagnostics.convergence import strengths
from ppnmf.evidence.rank import RankTable
from ppnmf.posterior import Posterior, require_posterior, require_posteriors

__all__ = ["components", "latent_densities", "loss", "overview", "rank", "reconstructions", "save", "traces"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, PALE = "#333333", "#BBBBBB"
CHAINS_SHOWN = 7
POINTS = 400  # of a curve
PANELS_ACROSS = 3  # of the criteria for the rank
LABELLED, NEXT = 8, 1  # ranks that all say how far off they are; of more ranks, so many on either side of the best
TICKS = 20  # ranks on an axis, at most
STEMS = 60  # columns that are drawn as single stems; more become a line


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure to a file, whose suffix says the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130, facecolor="white")
    return Path(path)


def components(
    post: Posterior,
    picture: tuple[int, int] | None = None,
    order: str = "C",
    columns: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """The rows of H, strongest first, each divided by its sum: pictures where a row is one, else stems or lines.

    The mean over aligned draws; of several modes, the best one.

    Args:
        picture: (height, width) of a row of X; by default a row with a square number of pixels, at least 64, and no
            names of columns counts as a square picture.
        order: "C", pixels row by row, or "F", column by column.
        columns: names of X's columns.
    """
    require_posterior("components", post)
    H, share = _mean_components(post)
    picture = picture or (_square(H.shape[1]) if columns is None else None)
    figure = _image_grid(H, share, picture, order) if picture else _stem_grid(H, share, columns)
    _title(figure, title or f"{_label(post)}: components (rows of H), strongest first")
    return figure


def _mean_components(post: Posterior) -> tuple[np.ndarray, np.ndarray]:
    """Rows of H (K, D) that sum to one, strongest first, and each one's share of the sum of W @ H."""
    aligned = align(post.best() if post.n_draws == 1 else post, scale=True)
    total, H = _array(aligned.mean("W")).sum(0), _array(aligned.mean("H"))
    first = np.argsort(-total, kind="stable")
    return H[first], total[first] / total.sum()


def _image_grid(H: np.ndarray, share: np.ndarray, picture: tuple[int, int], order: str) -> Figure:
    K = len(H)
    across = min(K, 10 if K <= 10 or K > 24 else math.ceil(K / 2))
    down = -(-K // across)
    figure = Figure(figsize=(1.15 * across + 0.3, 1.4 * down + 0.65), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flat
    for k, ax in enumerate(axes):
        if k >= K:
            ax.axis("off")
            continue
        ax.imshow(_picture(H[k], picture, order), cmap="gray_r", vmin=0, interpolation="nearest")
        ax.set_title(f"{k + 1}: {share[k]:.0%}", fontsize=9, color=INK, pad=3)
        _frame(ax)
    figure.supxlabel("percent: the component's share of the sum of W @ H; darker is larger", fontsize=8, color=INK)
    return figure


def _stem_grid(H: np.ndarray, share: np.ndarray, columns: Sequence[str] | None) -> Figure:
    K, D = H.shape
    across = 1 if K <= 5 else 2
    down = -(-K // across)
    figure = Figure(figsize=(6.5 * across, 1.1 * down + 1.0), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for k, ax in enumerate(axes.T.flat):
        if k >= K:
            ax.axis("off")
            continue
        if D <= STEMS:
            ax.vlines(np.arange(D), 0, H[k], color=COLOURS[0], linewidth=2)
        else:
            ax.plot(np.arange(D), H[k], color=COLOURS[0], linewidth=0.7)
        ax.set_ylim(bottom=0)
        ax.annotate(
            f"{k + 1}: {share[k]:.0%}", (0.99, 0.93), xycoords="axes fraction", ha="right", va="top", fontsize=8
        )
        _plain(ax)
    named = columns is not None and D <= STEMS
    for ax in axes[-1]:
        if named and columns is not None:
            ax.set_xticks(np.arange(D), [str(name)[:14] for name in columns], rotation=90, fontsize=6 if D > 30 else 7)
        else:
            ax.set_xlabel("column of X", fontsize=9)
    figure.supylabel("row of H / its sum", fontsize=9, color=INK)
    return figure


def traces(post: Posterior, title: str | None = None) -> Figure:
    """Log joint, σ² and the sorted strengths ‖W_k‖‖H_k‖ over the draws, a colour a chain: chains that agree overlap."""
    require_posterior("traces", post)
    series = [("log joint (nats)", _array(post.stats["lp"])), ("noise variance σ²", _array(post.draws["sigma2"]))]
    if {"W", "H"} <= set(post.draws):
        size = _array(strengths(post))
        series += [("strongest ‖W‖‖H‖", size[..., 0]), ("weakest ‖W‖‖H‖", size[..., -1])]
    figure = Figure(figsize=(8.5, 1.55 * len(series) + 0.7), layout="constrained")
    axes = figure.subplots(len(series), 2, sharey="row", width_ratios=(5, 1), squeeze=False)
    for (ax, side), (name, values) in zip(axes, series, strict=True):
        for c, chain in enumerate(values[:CHAINS_SHOWN]):
            ax.plot(chain, color=COLOURS[c], linewidth=0.7, label=f"chain {c}")
            if np.ptp(chain) > 0:
                heights, edges = np.histogram(chain, bins=15, density=True)
                side.stairs(heights, edges, orientation="horizontal", color=COLOURS[c], linewidth=1)
        ax.set_ylabel(name, fontsize=9)
        _plain(ax)
        side.set_xticks([])
        side.set_xlim(left=0)
        _plain(side)
    for ax in axes[:-1, 0]:
        ax.tick_params(labelbottom=False)
    axes[-1, 0].set_xlabel("kept draw")
    axes[-1, 1].set_xlabel("density")
    handles, names = axes[0, 0].get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(handles, names, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    _title(figure, title or f"{_label(post)}: traces")
    return figure


def loss(post: Posterior, title: str | None = None) -> Figure:
    """The ELBO over the steps of the training, and its last part on a finer scale.

    Raises:
        ValueError: the posterior has no ELBO curve.
    """
    require_posterior("loss", post)
    curve = np.asarray(post.attrs.get("elbo_curve", []), float)
    if len(curve) < 2:
        raise ValueError(f"{post.method} left no curve of the ELBO; a fit by svi does")
    step = np.arange(len(curve)) * post.attrs.get("steps", len(curve)) / len(curve)
    figure = Figure(figsize=(8.5, 3.2), layout="constrained")
    whole, end = figure.subplots(1, 2)
    late = len(curve) // 2
    for ax, part in ((whole, slice(None)), (end, slice(late, None))):
        ax.plot(step[part], curve[part] / post.X.n_observed, color=COLOURS[0], linewidth=1)
        ax.set_xlabel("step")
        ax.ticklabel_format(useOffset=False)
        _plain(ax)
    whole.set_ylabel("ELBO (nats per observed cell)")
    whole.set_title("whole training", fontsize=9, loc="left")
    end.set_title("second half", fontsize=9, loc="left")
    _title(figure, title or f"{_label(post)}: training")
    return figure


def rank(table: RankTable, title: str | None = None) -> Figure:
    """The criteria of `ppnmf.select_rank` against the rank, with errors; the best is marked, the others say how far off.

    Open points cannot be told from the best. Of many ranks only those next to the best say how far off they are.
    """
    if not isinstance(table, RankTable):
        raise TypeError(f"rank takes the table that ppnmf.select_rank returns, not {described(table)}")
    curves = {method: by_rank for method, by_rank in table.scores.items() if by_rank}
    across = 2 if len(curves) == 4 else min(len(curves), PANELS_ACROSS)
    down = -(-len(curves) // across)
    figure = Figure(figsize=(max(4.2 * across, 6), 3.4 * down + 0.2), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for ax, (method, by_rank) in zip(panels, curves.items(), strict=False):
        _rank_curve(ax, by_rank, table.best_by(method), table.rivals(method))
        ax.set_title(method, fontsize=9, loc="left")
    for ax in panels[len(curves) :]:
        ax.set_axis_off()
    _title(figure, title or "Choosing the rank (bars: one standard error either way; open: not told from the best)")
    return figure


def _rank_curve(ax: Axes, by_rank: Mapping[int, Any], best: int, rivals: Sequence[int]) -> None:
    ranks, above = sorted(by_rank), by_rank[best].sign > 0
    values = np.array([by_rank[rank].value for rank in ranks])
    errors = np.nan_to_num([by_rank[rank].error for rank in ranks])
    ax.errorbar(ranks, values, yerr=errors, color=COLOURS[0], marker="o", markersize=4, linewidth=1.2, capsize=3)
    here, at = by_rank[best].value, ranks.index(best)
    for place, (other, value) in enumerate(zip(ranks, values, strict=True)):
        if place == at or (len(ranks) > LABELLED and abs(place - at) > NEXT):
            continue
        behind = value - here
        side = 6 if place < at else 0  # where the curve comes from is no room
        ax.annotate(
            f"{behind:+.0f}" if abs(behind) >= 100 else f"{behind:+.3g}", (other, value), (side, -14 if behind < 0 else 7),
            textcoords="offset points", ha="left" if side else "center", fontsize=7, color=INK,
        )  # fmt: skip
    open_ones = [rank for rank in ranks if rank in rivals]
    ax.plot(
        open_ones,
        [by_rank[r].value for r in open_ones],
        "o",
        markersize=5,
        markerfacecolor="white",
        markeredgecolor=COLOURS[0],
        zorder=4,
    )
    ax.plot(best, here, "o", markersize=12, markerfacecolor="none", markeredgecolor=COLOURS[1], markeredgewidth=1.8)
    ax.annotate(
        f"best: {best}", (best, here), (0, 12 if above else -12), textcoords="offset points",
        ha="center", va="bottom" if above else "top", color=COLOURS[1], fontsize=9,
    )  # fmt: skip
    ax.margins(x=0.08, y=0.2)
    ax.set_xticks(ranks[:: -(-len(ranks) // TICKS)])
    ax.set_xlabel("rank K", fontsize=9)
    label = by_rank[best].label
    ax.set_ylabel(f"{label} (nats)" if "log" in label and "(" not in label else label, fontsize=9)
    _plain(ax)


def latent_densities(
    fits: Mapping[str, Posterior], rows: Sequence[int], names: Any = None, components: int = 3
) -> Figure:
    r"""Posterior densities of what a component adds to a row: W_ik Σ_j H_kj, in X's units, of each of the fits.

    Draws become a kernel density estimate (thin: each chain's part in it, so that chains which hold different components
    show); a guide its own Weibull density; a mode a vertical line. Components are those
    strongest in the row by the first fit; the others' are matched to them by their shapes.

    Args:
        fits: name -> Posterior of the same data and rank.
        rows: of X; a line of panels each.
        names: names of X's rows.
    """
    require_posteriors("latent_densities", fits)
    matched = _matched(fits)
    reference = _array(next(iter(matched.values())).mean("W"))
    figure = Figure(figsize=(2.9 * components, 1.9 * len(rows) + 1), layout="constrained")
    grid = figure.subplots(len(rows), components, squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        strongest = np.argsort(-reference[row], kind="stable")[:components]
        for ax in line[len(strongest) :]:
            ax.axis("off")
        for ax, k in zip(line, strongest, strict=False):
            for n, (name, post) in enumerate(matched.items()):
                _density(ax, fits[name], post, int(row), int(k), COLOURS[n % len(COLOURS)], name)
            ax.set_xlim(left=0)
            ax.set_ylim(bottom=0)
            ax.set_yticks([])
            ax.set_title(f"row {names[row] if names is not None else row}, component {k + 1}", fontsize=8, loc="left")
            _plain(ax)
    for ax in grid[-1]:
        ax.set_xlabel("what it adds to the row, summed", fontsize=8)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    _title(figure, "Loadings and how sure each method is of them")
    return figure


def _matched(fits: Mapping[str, Posterior]) -> dict[str, Posterior]:
    """Each fit aligned, its rows of H summing to one, its components in the order of the first's."""
    out: dict[str, Posterior] = {}
    for name, post in fits.items():
        own = align(post.best() if post.n_draws == 1 else post, scale=True)
        if out:
            first = next(iter(out.values()))
            own = align(
                own, {"W": first.mean("W").to(own.draws["W"]), "H": first.mean("H").to(own.draws["H"])}, scale=True
            )
        else:
            own = _strongest_first(own)
        out[name] = own
    return out


def _strongest_first(post: Posterior) -> Posterior:
    """The components in the order of `components`."""
    order = post.mean("W").sum(0).argsort(descending=True, stable=True)
    return replace(post, draws={**post.draws, "W": post.draws["W"][..., order], "H": post.draws["H"][..., order, :]})


def _density(ax: Axes, fit: Posterior, shown: Posterior, row: int, k: int, colour: str, name: str) -> None:
    by_chain = _array(shown.draws["W"])[..., row, k]
    draws = by_chain.ravel()
    if len(draws) == 1:
        ax.axvline(draws[0], color=colour, linewidth=1.5, linestyle="--", label=f"{name} (mode)")
        return
    encode = getattr(fit.model, "encode", None)
    if encode is None:
        x, density = _kernel_density(draws)
        ax.plot(x, density, color=colour, linewidth=1.5, label=name)
        ax.fill_between(x, density, color=colour, alpha=0.15, linewidth=0)
        for chain in by_chain if len(by_chain) > 1 else ():
            ax.plot(*_kernel_density(chain, len(by_chain)), color=colour, linewidth=0.6, alpha=0.6)
        return
    x = np.linspace(0, 1.3 * float(np.quantile(draws, 0.999)), POINTS + 1)[1:]
    ax.plot(
        x,
        _weibull_density(x, fit, shown, row, k),
        color=colour,
        linestyle="-.",
        linewidth=1.5,
        label=f"{name} (its Weibull)",
    )


def _weibull_density(x: np.ndarray, fit: Posterior, shown: Posterior, row: int, k: int) -> np.ndarray:
    """The guide's density of what component k, as `shown` orders and scales it, adds to a row."""
    own = fit.X.part(range(row, row + 1))
    guide = fit.model.encode(own.values, own.mask)  # type: ignore[attr-defined]
    H = _array(fit.draws["H"])[0, 0]
    total = H.sum(1)
    own = int(np.abs(H / np.maximum(total, 1e-300)[:, None] - _array(shown.mean("H"))[k]).sum(1).argmin())
    concentration, scale = float(guide.concentration[0, own]), float(guide.scale[0, own]) * total[own]
    z = x / scale
    return concentration / scale * z ** (concentration - 1) * np.exp(-(z**concentration))


def _kernel_density(draws: np.ndarray, parts: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernels, reflected at zero, where the density of a loading may end abruptly; divided by `parts`."""
    from scipy.stats import gaussian_kde

    low, high = np.quantile(draws, [0.0, 0.999])
    spread = max(float(draws.std()), 1e-9 * max(abs(high), 1e-300))
    if draws.std() == 0:
        draws = draws + spread * np.linspace(-1, 1, len(draws))
    x = np.linspace(max(0.0, low - 2 * spread), high + spread, POINTS)
    kernel = gaussian_kde(draws)
    return x, (kernel(x) + kernel(-x)) / parts


def reconstructions(
    fits: Mapping[str, Posterior],
    X: np.ndarray,
    seen: np.ndarray,
    rows: Sequence[int],
    picture: tuple[int, int] | None = None,
    order: str = "C",
    names: Any = None,
) -> Figure:
    """Rows of X beside each method's W @ H: pictures, hidden pixels marked; or curves, hidden cells as open circles.

    Args:
        X: data (N, D), hidden cells too.
        seen: boolean (N, D), the cells that were fitted.
        rows: which rows to show.
        picture, order: as in `components`.
        names: names of X's rows.
    """
    require_posteriors("reconstructions", fits)
    means = {name: _array((post.best() if post.n_draws == 1 else post).reconstruction()) for name, post in fits.items()}
    titles = [str(names[row]) if names is not None else f"row {row}" for row in rows]
    draw = _picture_rows if picture else _curve_rows
    figure = draw(means, X, seen, rows, titles, picture, order)
    _title(figure, "Data and reconstructions" + (" (red: pixels that no method saw)" if picture else ""))
    return figure


def _picture_rows(
    means: Mapping[str, np.ndarray],
    X: np.ndarray,
    seen: np.ndarray,
    rows: Sequence[int],
    titles: list[str],
    picture: Any,
    order: str,
) -> Figure:
    figure = Figure(figsize=(1.15 * len(rows) + 0.6, 1.2 * (len(means) + 2) + 0.6), layout="constrained")
    axes = figure.subplots(len(means) + 2, len(rows), squeeze=False)
    lines = [("data", X), ("seen", X), *means.items()]
    for line, (name, values) in zip(axes, lines, strict=True):
        for ax, row, title in zip(line, rows, titles, strict=True):
            top = np.nanmax(X[row])
            ax.imshow(_picture(values[row], picture, order), cmap="gray_r", vmin=0, vmax=top, interpolation="nearest")
            if name == "seen":
                hidden = np.where(_picture(seen[row], picture, order), np.nan, 1.0)
                ax.imshow(hidden, cmap="Reds", vmin=0, vmax=1.4, interpolation="nearest")
            if ax in axes[0]:
                ax.set_title(title, fontsize=8, color=INK, pad=3)
            _frame(ax)
        line[0].set_ylabel(name, fontsize=9, color=INK)
    return figure


def _curve_rows(
    means: Mapping[str, np.ndarray],
    X: np.ndarray,
    seen: np.ndarray,
    rows: Sequence[int],
    titles: list[str],
    picture: Any,
    order: str,
) -> Figure:
    figure = Figure(figsize=(8.5, 1.7 * len(rows) + 1), layout="constrained")
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    at = np.arange(X.shape[1])
    single = len(at) <= STEMS
    for ax, row, title in zip(axes, rows, titles, strict=True):
        ax.plot(at, np.where(seen[row], X[row], np.nan), ".", color=INK, markersize=5 if single else 2, label="data")
        hidden = np.where(seen[row], np.nan, X[row])
        ax.plot(
            at,
            hidden,
            "o",
            color=COLOURS[1],
            markerfacecolor="none",
            markersize=6 if single else 3,
            label="data, hidden from the fits",
        )
        for n, (name, values) in enumerate(means.items()):
            ax.plot(
                at,
                values[row],
                color=(COLOURS[0], *COLOURS[2:])[n % 6],
                linestyle=("-", "--", "-.", ":")[n % 4],
                linewidth=1.2,
                label=name,
            )
        ax.set_title(title, fontsize=8, loc="left")
        _plain(ax)
    axes[-1].set_xlabel("column of X")
    figure.supylabel("X and W @ H", fontsize=9, color=INK)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    return figure


def overview(
    fits: Mapping[str, Posterior],
    X: np.ndarray,
    seen: np.ndarray,
    picture: tuple[int, int] | None = None,
    order: str = "C",
    rows: Any = None,
    columns: Sequence[str] | None = None,
) -> dict[str, Figure]:
    """The pictures that a comparison calls for, by name."""
    picture = picture or (_square(X.shape[1]) if columns is None else None)
    figures = {f"components-{name}": components(post, picture, order, columns) for name, post in fits.items()}
    figures |= {
        f"traces-{name}": traces(post) for name, post in fits.items() if post.n_draws > 1 and "elbo" not in post.attrs
    }
    figures |= {
        f"training-{name}": loss(post) for name, post in fits.items() if len(post.attrs.get("elbo_curve", [])) > 1
    }
    N = len(X)
    spread = [int(i) for i in np.unique(np.linspace(0, N - 1, 10 if picture else 4).round())]
    figures["reconstructions"] = reconstructions(fits, X, seen, spread, picture, order, rows)
    figures["loadings"] = latent_densities(fits, spread[:3], rows, min(3, next(iter(fits.values())).model.rank))
    return figures


def _square(D: int) -> tuple[int, int] | None:
    side = math.isqrt(D)
    return (side, side) if side * side == D and side >= 8 else None


def _picture(values: np.ndarray, picture: tuple[int, int], order: str) -> np.ndarray:
    if len(values) != picture[0] * picture[1]:
        raise ValueError(
            f"a row has {len(values)} cells and a picture of {picture[0]} × {picture[1]} has others in number"
        )
    return values.reshape(picture, order="F" if order == "F" else "C")


def _label(post: Posterior) -> str:
    return f"{post.model.name} by {post.method}, rank {post.model.rank}"


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, fontsize=10, color=INK, x=0.01, ha="left")


def _frame(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(PALE)


def _plain(ax: Axes) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(labelsize=8, colors=INK)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()
