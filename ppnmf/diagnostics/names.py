"""Names, as far as a table or a picture can hold them."""

from __future__ import annotations

__all__ = ["shortened"]


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
