"""What every command shares: one sentence for bad input, warnings as lines, and what Ctrl-C leaves."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

__all__ = ["guarded", "note", "saved"]

BAD_INPUT, INTERRUPTED = 2, 130

saved: list[Path] = []  # by the command that runs


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with our answers to bad input, warnings and Ctrl-C."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        saved.clear()
        try:
            with warnings.catch_warnings():
                _say_warnings()
                command(*args, **options)
        except KeyboardInterrupt:
            _stop_interrupted()
        except (ValueError, TypeError, OSError, ModuleNotFoundError, MemoryError) as error:
            if os.environ.get("PPNMF_TRACEBACK"):
                raise
            _stop(error)

    return run


def _stop(error: Exception) -> None:
    sentence = " ".join(str(error).split()) or type(error).__name__
    typer.echo(f"ppnmf: {sentence}", err=True)
    raise typer.Exit(BAD_INPUT)


def _stop_interrupted() -> None:
    what = f"saved so far: {', '.join(map(str, saved))}" if saved else "nothing was saved"
    typer.echo(f"ppnmf: interrupted; {what}", err=True)
    raise typer.Exit(INTERRUPTED)


def _say_warnings() -> None:
    """Each warning as one plain line, once; those of other libraries about themselves not at all."""
    said = set()

    def show(message: Any, *where: Any) -> None:
        text = " ".join(str(message).split())
        if text not in said:
            said.add(text)
            typer.echo(f"ppnmf: warning: {text}", err=True)

    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", category=UserWarning)
    warnings.filterwarnings("ignore", message="Found chain dimension to be longer than draw dimension")
    warnings.showwarning = show  # type: ignore[assignment]


def note(path: Path) -> None:
    saved.append(path)
