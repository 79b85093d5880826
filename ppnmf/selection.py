"""Some of a posterior's chains and draws, with everything that belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ppnmf.checks import described, whole_number

if TYPE_CHECKING:
    from ppnmf.posterior import Posterior

__all__ = ["OF_LABELS", "ORDERED", "PER_CHAIN", "Which", "reordered", "selected"]

Which = int | slice | range | Sequence[int] | None
PER_CHAIN = (
    "sweeps",
    "converged",
    "dead_components",
    "divergences",
    "log_evidence",
    "weighted",
    "loss_curve",
)  # attrs of one a chain
ORDERED = ("alignment", "transformed")  # facts that hold an order of components for each draw
OF_LABELS = ("coefficients", "variance")  # facts of labels of columns that are of each restart
OF_CHAINS_SURVEYED = ("chosen", "anew", "behind")  # facts of a survey that are of each chain


def selected(post: Posterior, chains: Which, draws: Which, thin: int) -> Posterior:
    """What `Posterior.select` does."""
    every = whole_number("thin", thin, 1)
    of_chains = _numbers("chains", chains, post.chains)
    of_draws = _numbers("draws", draws, post.n_draws)[every - 1 :: every]
    if not of_draws:
        raise ValueError(f"thin is {thin}, and fewer draws are left: nothing would remain")

    at_chains = _regular(of_chains)
    at_draws = _regular(of_draws)

    def taken(values: Tensor) -> Tensor:
        return values[at_chains][:, at_draws]

    return replace(
        post,
        draws={name: taken(values) for name, values in post.draws.items()},
        stats={name: taken(values) for name, values in post.stats.items()},
        attrs=_attrs(post, of_chains, of_draws, every),
    )


def _numbers(what: str, asked: Which, size: int) -> list[int]:
    """The numbers of chains, or draws, out of so many."""
    if asked is None:
        return list(range(size))
    if isinstance(asked, slice):
        found = list(range(size))[asked]
    else:
        array = None if isinstance(asked, str) else np.asarray(asked)
        if array is None or (array.dtype.kind not in "iu" and array.size) or array.ndim > 1:
            raise ValueError(f"{what} is {described(asked)}; give a number, a slice, or a list of numbers")
        found = [int(number) for number in np.atleast_1d(array)]
    beyond = [number for number in found if not -size <= number < size]
    if beyond or not found:
        wrong = f"has {beyond[0]}" if beyond else "names none"
        raise ValueError(f"{what} {wrong}; there are {size}, numbered from 0")
    return [number % size for number in found]


def _regular(numbers: list[int]) -> slice | list[int]:
    """A slice where the numbers rise evenly: it copies nothing, and of draws on disk reads nothing."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    if step > 0 and numbers == list(range(numbers[0], numbers[-1] + 1, step)):
        return slice(numbers[0], numbers[-1] + 1, step)
    return numbers


def _attrs(post: Posterior, chains: list[int], draws: list[int], every: int) -> dict[str, Any]:
    """The facts about the run, of these chains and draws alone where they are of each."""
    attrs = dict(post.attrs)
    for name in PER_CHAIN:
        value = attrs.get(name)
        if isinstance(value, list) and len(value) == post.chains:
            attrs[name] = [value[c] for c in chains]
    labels = attrs.get("labels", {})
    of_each = {name: labels[name] for name in OF_LABELS if isinstance(labels.get(name), list)}
    if of_each:
        attrs["labels"] = {**labels, **{name: [value[c] for c in chains] for name, value in of_each.items()}}
    if "survey" in attrs and len(attrs["survey"]["chosen"]) == post.chains:
        own = {name: attrs["survey"].get(name) for name in OF_CHAINS_SURVEYED}
        attrs["survey"] = {**attrs["survey"], **{name: [v[c] for c in chains] for name, v in own.items() if v}}
    attrs |= reordered(post, [[(c, d) for d in draws] for c in chains])
    if every > 1:
        attrs["kept_every"] = every * attrs.get("kept_every", 1)
    attrs["selected"] = True
    return attrs


def reordered(post: Posterior, taken: list[list[tuple[int, int]]]) -> dict[str, Any]:
    """The facts that hold an order of components for each draw, for the draws (chain, draw) that are taken, by chains."""
    found = {}
    for name in ORDERED:
        facts = post.attrs.get(name, {})
        if "order" in facts:
            found[name] = {**facts, "order": [[facts["order"][c][d] for c, d in chain] for chain in taken]}
    return found
