"""Mutational signatures as their field draws them: the 96 substitution classes in six colours, with the bounds of the draws."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ppnmf.diagnostics.alignment import align
from ppnmf.diagnostics.signatures import Signatures, channel
from ppnmf.diagnostics.signatures import signatures as beside
from ppnmf.plots.factors import label_of
from ppnmf.plots.places import Panels, grid, panels, sheet
from ppnmf.plots.style import INK, TICK, array, entitle, plain, styled, x_label
from ppnmf.posterior import Posterior
from ppnmf.required import require_posterior

__all__ = ["signatures"]

COLOURS = {  # the colours of COSMIC's own pictures
    "C>A": "#03BCEE",
    "C>G": "#010101",
    "C>T": "#E32926",
    "T>A": "#CAC9C9",
    "T>C": "#A1CE63",
    "T>G": "#EBC6C4",
}
CLASSES = [f"{left}[{kind}]{right}" for kind in COLOURS for left in "ACGT" for right in "ACGT"]
EACH = len(CLASSES) // len(COLOURS)
DRAWS = 400  # from which the bounds are taken, at most


class Profiles(NamedTuple):
    """Signatures over `CLASSES`, in per cent."""

    mean: np.ndarray  # (K, 96)
    bounds: np.ndarray | None  # (2, K, 96); None where one draw has none


@styled
def signatures(
    post: Posterior, reference: Any = None, level: float = 0.9, title: str | None = None, ax: Axes | None = None
) -> Panels:
    """Each signature's 96 substitution classes, strongest first: bars of the mean, with bounds over the draws.

    Args:
        post: whose columns are the 96 classes, named as `ppnmf.signatures` knows them, in any order.
        reference: known signatures, or what `ppnmf.signatures` found: a panel's title then names the nearest one with its
            cosine, or the two that it is a mixture of.
        level: of the bounds.
        ax: where to draw; a figure of its own by default.

    Raises:
        ValueError: the columns are not the 96 classes, or the reference's are not those.
    """
    require_posterior("plots.signatures", post)
    places = _places(post)
    found = reference if isinstance(reference, Signatures) else None
    if found is None:
        found = beside(post, _itself(post) if reference is None else reference, level)
    named = found if reference is not None else None
    own = _profiles(post, list(found.order), places, level)
    K = len(own.mean)
    figure = sheet(ax, 9.5, 1.35 * K + 1.1)
    axes = grid(figure, K, 1, sharex=True)[:, 0]
    for k, panel in enumerate(axes):
        _bars(panel, own.mean[k], None if own.bounds is None else own.bounds[:, k])
        panel.set_title(_said(found, named, k), pad=24 if k == 0 else 4)
        plain(panel)
    _strip(axes[0])
    _contexts(axes[-1])
    figure.supylabel("per cent of the signature")
    entitle(figure, title or f"{label_of(post)}: mutational signatures, strongest first")
    bounds = "" if own.bounds is None else f"; bounds: {level:.0%} of the draws"
    x_label(figure, f"neighbours of the mutated base{bounds}")
    return panels(axes)


def _places(post: Posterior) -> list[int]:
    """Where each of `CLASSES` is among the fit's columns."""
    names = [channel(name) or name for name in post.names.get("columns", [])]
    if sorted(names) != sorted(CLASSES):
        unknown = [name for name in names if name not in CLASSES][:3]
        what = f"others are there, such as {', '.join(map(repr, unknown))}" if unknown else f"{len(names)} are named"
        raise ValueError(
            f"plots.signatures needs the 96 substitution classes as X's columns, such as 'A[C>A]G', and {what}: use "
            "plots.components"
        )
    return [names.index(name) for name in CLASSES]


def _itself(post: Posterior) -> Any:
    """A reference that says nothing: one even signature."""
    import pandas

    names = post.names["columns"]
    return pandas.DataFrame(np.ones((1, len(names))), index=["even"], columns=names)


def _profiles(post: Posterior, order: list[int], places: list[int], level: float) -> Profiles:
    """The aligned draws of H, in per cent, components and classes in these orders."""
    all_draws = align(post.typical(), scale=True)["H"].flatten(0, 1)
    draws = 100 * array(all_draws[:: -(-len(all_draws) // DRAWS)])[:, order][:, :, places]
    bounds = None
    if len(draws) > 1:
        bounds = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Profiles(draws.mean(0), bounds)


def _said(found: Signatures, named: Signatures | None, k: int) -> str:
    """A panel's title."""
    share = f"{k + 1}: {found.share[k]:.0%} of the mutations"
    if named is None:
        return share
    mixture = named.mixtures[k]
    if mixture is not None:
        return f"{share}; a mixture: {mixture}"
    cosines = named.cosines
    r = int(cosines.mean[k].argmax())
    bounds = f" ({cosines.lower[k, r]:.3f} to {cosines.upper[k, r]:.3f})" if len(named.draws) > 1 else ""
    return f"{share}; nearest {named.references[r]}, cosine {cosines.mean[k, r]:.3f}{bounds}"


def _bars(ax: Axes, mean: np.ndarray, bounds: np.ndarray | None) -> None:
    """A signature's classes (96,) as bars, with bounds (2, 96)."""
    at = np.arange(len(mean))
    colours = [own for own in COLOURS.values() for _ in range(EACH)]
    ax.bar(at, mean, width=0.7, color=colours)
    if bounds is not None:
        ax.vlines(at, *bounds, color="#777777", linewidth=0.7)
    ax.set_xlim(-0.7, len(mean) - 0.3)
    ax.set_ylim(0, 1.05 * float(max(mean.max(), 0.0 if bounds is None else bounds.max())))


def _strip(ax: Axes) -> None:
    """The six substitutions above a panel, each over its classes."""
    for n, (kind, colour) in enumerate(COLOURS.items()):
        begin = (n * EACH - 0.4 + 0.7) / len(CLASSES)
        width = (EACH - 0.2) / len(CLASSES)
        strip = Rectangle((begin, 1.02), width, 0.05, transform=ax.transAxes, color=colour, clip_on=False)
        ax.add_patch(strip)
        ax.text(
            begin + width / 2, 1.09, kind, transform=ax.transAxes, ha="center", va="bottom", fontsize=TICK, color=INK
        )


def _contexts(ax: Axes) -> None:
    """The neighbours of each class below a panel."""
    labels = [f"{name[0]}{name[2]}{name[-1]}" for name in CLASSES]
    ax.set_xticks(np.arange(len(CLASSES)), labels, rotation=90, fontsize=5, family="monospace")
