"""The names of X's rows and columns, as far as a table or a picture can hold them."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ppnmf.posterior import Posterior

__all__ = ["named", "shortened"]


def named(post: Posterior, axis: str, places: Tensor) -> np.ndarray:
    """The names of some of X's "rows" or "columns"; their numbers where the posterior has no names."""
    names = post.names.get(axis)
    return places.numpy() if names is None else np.array(names, dtype=object)[places.numpy()]


def shortened(name: str, longest: int) -> str:
    """The name on one line; a long one without its middle, since names often differ at an end.

    >>> shortened("a gene with a long name, the 1", 16)
    'a gene w…, the 1'
    """
    line = " ".join(str(name).split())
    if len(line) <= longest:
        return line
    end = longest // 2 - 1
    return f"{line[: longest - end - 1]}…{line[-end:]}"
