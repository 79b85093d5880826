"""What a command says to machines: its outcome as JSON on standard output, its words then on standard error."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

__all__ = ["answers"]

Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON; words go to standard error.")]


def answers(command: Callable[..., Mapping[str, Any]]) -> Callable[..., None]:
    """The command, which returns its outcome, with the option --json."""
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(*, as_json: bool = False, **given: Any) -> None:
        if not as_json:
            command(**given)
            return
        with contextlib.redirect_stdout(sys.stderr):
            outcome = command(**given)
        typer.echo(_as_json(outcome))

    own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in signature.parameters.values()]
    asked = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
    run.__signature__ = signature.replace(parameters=[*own, asked], return_annotation=None)  # type: ignore[attr-defined]
    return run


def _as_json(outcome: Mapping[str, Any]) -> str:
    from ppnmf.report import for_json

    return json.dumps(for_json(outcome), indent=2, ensure_ascii=False, allow_nan=False)
