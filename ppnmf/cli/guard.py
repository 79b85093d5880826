"""What every command shares: an error is one sentence, a warning one line, and what was done outlives how it ends."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from ppnmf.cli import signals
from ppnmf.cli.signals import finishing

__all__ = ["finishing", "guarded", "note", "note_checkpoint", "saved"]

BAD_INPUT = 2  # exit codes
OUR_MISTAKE = 3
EXPECTED = (ValueError, TypeError, OSError, ImportError, MemoryError, KeyError, RuntimeError, ArithmeticError, EOFError)
ADVICE = "ask for a smaller rank, or fewer draws or chains"
CLOSED = (errno.EPIPE, errno.EIO)  # a reader such as `head` has gone, or the terminal

saved: list[Path] = []  # by the command that runs
resumable: list[Path] = []  # that it keeps up while it works


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with our answers to bad input, warnings, signals and a closed pipe.

    With PPNMF_TRACEBACK set, errors come as Python gives them.
    """
    options = [name for name in inspect.signature(command).parameters if name != "data"]

    @functools.wraps(command)
    def run(*args: Any, **given: Any) -> None:
        saved.clear()
        resumable.clear()
        with signals.heard(_what_was_saved) as ended, _warnings_as_lines(), _outputs() as output:
            try:
                command(*args, **given)
            except (typer.Exit, typer.Abort, typer.BadParameter):
                raise
            except KeyboardInterrupt:
                _stop_interrupted(ended)
            except Exception as error:
                if os.environ.get("PPNMF_TRACEBACK"):
                    raise
                if ended.number is not None:  # what a library made of the interruption
                    _stop_interrupted(ended)
                _stop(error, options)
        if output.failure is not None:
            _say(f"not all could be printed ({output.failure.strerror}); {_what_was_saved()}")
            raise typer.Exit(BAD_INPUT)

    return run


def _stop(error: Exception, options: list[str]) -> None:
    if isinstance(error, EXPECTED) or _is_of_a_library(error):
        _say(_in_the_words_of(options, _sentence(error)))
        raise typer.Exit(BAD_INPUT)
    _say(
        f"a mistake of ppnmf's own, {type(error).__name__}: {_sentence(error)}; please report it, with what "
        "PPNMF_TRACEBACK=1 in the environment shows"
    )
    raise typer.Exit(OUR_MISTAKE)


def _sentence(error: Exception) -> str:
    """What a library or we raised, in a line."""
    return " ".join(_text(error).split()) or type(error).__name__


def _text(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])  # not in quotes
    if isinstance(error, RuntimeError):
        text = text.split("\nException raised from")[0]  # PyTorch adds where in its own code
        if "not enough memory" in text or "out of memory" in text:
            return f"{text}; {ADVICE}"
    if isinstance(error, MemoryError) and not text:
        return f"there is not enough memory; {ADVICE}"
    return text


def _is_of_a_library(error: Exception) -> bool:
    """Whether the class is neither Python's nor ours: libraries have their own for files that they cannot read."""
    return type(error).__module__.split(".")[0] not in ("builtins", "ppnmf")


def _in_the_words_of(options: list[str], sentence: str) -> str:
    """Advice as it can be followed here: "missing='nan'" is --missing nan."""
    choice = re.compile(rf"(?<![\w/\\.])({'|'.join(options) or '(?!)'})=('[^']*'|\"[^\"]*\"|[\w.]*)")

    def as_typed(found: re.Match[str]) -> str:
        name = found[1].replace("_", "-")
        value = found[2].strip("'\"")
        return f"--{name} {value}".rstrip()

    return choice.sub(as_typed, sentence)


def _stop_interrupted(ended: signals.Ending) -> None:
    _say(f"interrupted; {_what_was_saved()}")
    raise typer.Exit(ended.exit_code)


def _what_was_saved() -> str:
    parts = [f"saved so far: {', '.join(map(str, saved))}"] if saved else []
    parts += [f"it goes on by --resume {path}" for path in resumable if path.exists()]
    return "; ".join(parts) or "nothing was saved"


def _say(sentence: str) -> None:
    typer.echo(f"ppnmf: {sentence}", err=True)


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Each warning as one plain line, once; those of other libraries about themselves not at all."""
    said = set()

    def show(message: Any, *where: Any) -> None:
        text = " ".join(str(message).split())
        if text not in said:
            said.add(text)
            _say(f"warning: {text}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning)
        warnings.filterwarnings("ignore", message="Found chain dimension to be longer than draw dimension")
        warnings.filterwarnings("ignore", message=r"\d+ tasks which were still being processed by the workers")
        warnings.showwarning = show  # type: ignore[assignment]
        yield


class _Output:
    """Standard output or error that a command does not end for, when nobody reads it any more.

    Attributes:
        failure: why something could not be written, other than for want of a reader.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._heard():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._heard():
            self._stream.flush()

    @contextlib.contextmanager
    def _heard(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in CLOSED:
                self.failure = self.failure or error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # for what is still to come, Python's own last words too
            os.close(nowhere)


@contextlib.contextmanager
def _outputs() -> Iterator[_Output]:
    output = _Output(sys.stdout)
    errors = _Output(sys.stderr)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        yield output


def note(path: Path) -> None:
    """Take note of a file that was saved: it is named where the command ends early."""
    saved.append(path)


def note_checkpoint(path: Path | None) -> None:
    """Take note of a checkpoint that the command keeps up: the advice to go on from it is given where it ends early."""
    if path is not None:
        resumable.append(path)
