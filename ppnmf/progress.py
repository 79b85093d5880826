"""Progress bars and lines: on standard error if that is a terminal, and in notebooks; silent elsewhere, or where not wanted."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm

from ppnmf.checks import yes_or_no

__all__ = ["bar", "say", "shown"]


def bar(total: int | None, description: str, progress: bool = True) -> Any:
    """A tqdm bar (a context manager with `update` and `set_postfix_str`); it counts where there is no total."""
    silent = not shown(progress)
    return tqdm(total=total, desc=description, disable=silent, leave=False, file=sys.stderr, dynamic_ncols=True)


def say(line: str) -> None:
    """A line on standard error, above the bars that are there."""
    tqdm.write(line, file=sys.stderr)


def shown(progress: bool = True) -> bool:
    """Whether somebody sees it: it was not switched off, and there is a terminal or a notebook.

    Raises ValueError for what is neither True nor False.
    """
    yes_or_no(progress=progress)
    return progress and (sys.stderr.isatty() or _in_notebook())


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this; IPython in a terminal is none."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
