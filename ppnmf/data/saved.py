"""A `Matrix` as facts that JSON can hold and arrays, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppnmf.data.blocked import Blocked
from ppnmf.data.dense import Dense, in_memory
from ppnmf.data.labelled import Names, names_of
from ppnmf.data.noise import Noise
from ppnmf.data.sources import found_again, referred
from ppnmf.data.sparse import Rows, Sparse
from ppnmf.data.survey import Survey

__all__ = ["facts_and_arrays", "restored"]


def facts_and_arrays(X: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `restored` makes X from. The values and the mask of a dense X, which have places of their own, are left out.

    Raises:
        TypeError: X is read from an array that is not in a local file or folder.
    """
    noise = X.noise
    facts: dict[str, Any]
    arrays: dict[str, Tensor]
    if isinstance(X, Sparse):
        facts = {"kind": "stored" if X.missing else "sparse", "size": X.size}
        arrays = X.stored._asdict()
    elif isinstance(X, Blocked):
        means = torch.from_numpy(X.survey.column_means)
        facts = {
            "kind": "blocked",
            "source": referred(X.source),
            "survey": {name: value for name, value in X.survey._asdict().items() if name != "column_means"},
        }
        facts["nan_missing"], facts["mask"], arrays = X.nan_missing, None, {"column_means": means}
        if isinstance(X.mask, Tensor):
            arrays["mask"] = X.mask
        elif X.mask is not None:
            facts["mask"] = referred(X.mask)
    else:
        dense = in_memory(X, "save")
        facts, arrays, noise = {"kind": "dense"}, {}, dense.noise
    if noise is not None:
        facts["noise"], arrays["noise"] = noise.along, noise.variance
    facts["names"] = names_of(X).to_dict()
    return facts, {f"X.{name}": values for name, values in arrays.items()}


def restored(facts: dict[str, Any], arrays: dict[str, Tensor]) -> Any:
    """The matrix, on the CPU, with its names where the facts have some."""
    names = {axis: tuple(given) for axis, given in facts.get("names", {}).items()}
    return replace(_without_names(facts, arrays), names=Names(**names))


def _without_names(facts: dict[str, Any], arrays: dict[str, Tensor]) -> Any:
    parts = {name.removeprefix("X."): values for name, values in arrays.items()}
    noise = Noise(parts["noise"], facts["noise"]) if "noise" in facts else None
    if facts["kind"] == "dense":
        values, mask = parts["values"], parts["mask"].bool()
        return Dense(values, None, noise) if bool(mask.all()) else Dense(torch.where(mask, values, 0.0), mask, noise)
    if facts["kind"] == "blocked":
        known: Any = facts["survey"]
        survey = Survey(**known, column_means=parts["column_means"].numpy())
        seen: Any = parts["mask"].bool() if "mask" in parts else None
        if facts["mask"] is not None:
            seen = found_again(facts["mask"])
        return Blocked(found_again(facts["source"]), survey, seen, facts["nan_missing"], noise)
    if "relative" in parts:  # as files of version 0.1.0 name it
        noise = Noise(parts["relative"], "stored")
    stored = Rows(parts["data"], parts["indices"], parts["indptr"])
    return Sparse(stored, (facts["size"][0], facts["size"][1]), facts["kind"] == "stored", noise)
