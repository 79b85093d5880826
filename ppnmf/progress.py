"""Progress bars: on standard error, silent where that is not a terminal or when told."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

__all__ = ["bar"]


def bar(total: int, description: str, progress: bool = True) -> Any:
    """A tqdm bar (a context manager with `update` and `set_postfix_str`)."""
    silent = not progress or not sys.stderr.isatty()
    return tqdm(total=total, desc=description, disable=silent, leave=False, file=sys.stderr, dynamic_ncols=True)
