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

BAD_INPUT, OUR_MISTAKE = 2, 3
EXPECTED = (ValueError, TypeError, OSError, ImportError, MemoryError, KeyError, RuntimeError, ArithmeticError, EOFError)
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
        with signals.heard(_what_was_saved) as ending, _warnings_as_lines(), _outputs() as output:
            try:
                command(*args, **given)
            except (typer.Exit, typer.Abort, typer.BadParameter):
                raise
            except KeyboardInterrupt:
                _stop_interrupted(ending)
            except Exception as error:
                if os.environ.get("PPNMF_TRACEBACK"):
                    raise
                if ending.number is not None:  # what a library made of the interruption
                    _stop_interrupted(ending)
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
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, KeyError) and error.args:
        text = str(error.args[0])  # not in quotes
    elif isinstance(error, RuntimeError):
        text = text.split("\nException raised from")[0]  # PyTorch adds where in its own code
        if "not enough memory" in text or "out of memory" in text:
            text = f"{text}; ask for a smaller rank, or fewer draws or chains"
    elif isinstance(error, MemoryError) and not text:
        text = "there is not enough memory; ask for a smaller rank, or fewer draws or chains"
    return " ".join(text.split()) or type(error).__name__


def _is_of_a_library(error: Exception) -> bool:
    """Whether the class is neither Python's nor ours: libraries have their own for files that they cannot read."""
    return type(error).__module__.split(".")[0] not in ("builtins", "ppnmf")


def _in_the_words_of(options: list[str], sentence: str) -> str:
    """Advice as it can be followed here: "missing='nan'" is --missing nan."""
    told = re.compile(rf"(?<![\w/\\.])({'|'.join(options) or '(?!)'})=('[^']*'|\"[^\"]*\"|[\w.]*)")
    return told.sub(
        lambda found: f"--{found[1].replace('_', '-')} {found[2].strip(chr(39) + chr(34))}".rstrip(), sentence
    )


def _stop_interrupted(ending: signals.Ending) -> None:
    _say(f"interrupted; {_what_was_saved()}")
    raise typer.Exit(ending.exit_code)


def _what_was_saved() -> str:
    told = [f"saved so far: {', '.join(map(str, saved))}"] if saved else []
    told += [f"it goes on by --resume {path}" for path in resumable if path.exists()]
    return "; ".join(told) or "nothing was saved"


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
    output, errors = _Output(sys.stdout), _Output(sys.stderr)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        yield output


def note(path: Path) -> None:
    saved.append(path)


def note_checkpoint(path: Path | None) -> None:
    if path is not None:
        resumable.append(path)
