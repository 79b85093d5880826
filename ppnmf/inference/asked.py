"""What was asked of a fit: the arguments of `ppnmf.fit` as Python writes them, which `Posterior.attrs["asked"]` keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppnmf.fingerprints import SIMPLE

__all__ = ["as_asked", "extended"]

LONGEST = 60  # characters of a value that is written out
PLACES = ("checkpoint", "every", "resume", "store")  # options that say where a run is kept, and change no draw
ENDS = ("until", "max_seconds", "target_ess")  # options that say when a run ends


def as_asked(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Those that were given, and may change what comes out: short ones as they are written, others by their own names.

    >>> as_asked({"method": "gibbs", "mask": None, "draws": 500, "noise": [0.25] * 40})
    {'method': "'gibbs'", 'draws': '500', 'noise': 'noise'}
    """
    given = {name: value for name, value in arguments.items() if value is not None and name not in PLACES}
    return {name: _written(name, value) for name, value in given.items()}


def extended(asked: Mapping[str, str], draws: int) -> dict[str, str]:
    """Of chains that went on until each had so many draws."""
    kept = {name: value for name, value in asked.items() if name not in ENDS}
    return {**kept, "draws": str(draws)}


def _written(name: str, value: Any) -> str:
    text = repr(value) if isinstance(value, SIMPLE) else ""
    return text if 0 < len(text) <= LONGEST else name
