"""Type checkers see what Python does: the same names, and the options that the methods have."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable
from functools import reduce
from importlib.resources import files
from operator import or_
from typing import Any

import pytest

import ppnmf
from ppnmf import evidence, inference
from ppnmf.evidence import rank
from ppnmf.evidence.options import EvidenceOptions, RankOptions
from ppnmf.inference.options import FitOptions


def kinds_of(hint: Any) -> set[Any]:
    """The members of a union, or the type itself."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return set(typing.get_args(hint)) if is_union else {hint}


def options_of(runs: Iterable[Callable[..., Any]], beside: set[str]) -> dict[str, set[Any]]:
    """Option -> the types that some of the functions take for it."""
    found: dict[str, list[set[Any]]] = {}
    for run in runs:
        hints = typing.get_type_hints(run)
        for name, parameter in inspect.signature(run).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY and name not in beside:
                found.setdefault(name, []).append(kinds_of(hints[name]))
    return {name: reduce(or_, each) for name, each in found.items()}


def typed(options: type) -> dict[str, set[Any]]:
    return {name: kinds_of(hint) for name, hint in typing.get_type_hints(options).items()}


def test_the_options_that_fit_is_typed_with_are_those_of_the_methods():
    runs = [inference.method_named(name) for name in inference.METHODS]
    known = options_of(runs, {"seed", "progress"})
    known["label_weight"] |= {str, type(None)}  # of labels of rows, which `inference.labelled` takes for any method
    assert typed(FitOptions) == known


def test_the_options_that_log_evidence_is_typed_with_are_those_of_the_methods():
    runs = [evidence.method_named(name) for name in evidence.METHODS]
    assert typed(EvidenceOptions) == options_of(runs, {"seed", "progress", "replicates"})


def test_the_options_that_select_rank_is_typed_with_are_those_of_the_criteria_and_their_names():
    own = {name: hint for name, hint in typed(RankOptions).items() if name not in rank.CRITERIA}
    assert own == options_of([rank._run_of(name) for name in rank.CRITERIA], {"seed", "progress"})
    assert set(typed(RankOptions)) - set(own) == set(rank.CRITERIA)


def test_type_checkers_and_python_are_told_the_same_names():
    assert set(ppnmf.__all__) == {*ppnmf._HOME, "__version__"}
    tree = inspect.getsource(ppnmf).split("if TYPE_CHECKING:")[1].split("__version__ =")[0]
    told = {
        name.strip()
        for line in tree.splitlines()
        if " import " in line
        for name in line.split(" import ")[1].split(",")
    }
    assert told == set(ppnmf._HOME)
    for name in ppnmf.__all__:
        assert getattr(ppnmf, name) is not None


def test_an_unknown_name_is_refused_with_the_names_that_there_are():
    with pytest.raises(AttributeError, match="no attribute 'fitt'; there are fit, "):
        ppnmf.fitt  # noqa: B018


def test_the_package_says_that_it_is_typed():
    assert files("ppnmf").joinpath("py.typed").is_file()
