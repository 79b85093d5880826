"""What PAE-NMF is built with: the noise, the encoder's layers, and the paper's own choices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, NamedTuple

from ppnmf.checks import one_of
from ppnmf.protocols import Recipe

__all__ = ["PER_COLUMN", "Published", "hidden_widths", "noise_of", "published_choices"]

PER_COLUMN = "per column"
RELEASED_UNIFORMS = (0.35, 0.65)  # the authors' code draws ε between these
TRAINING = {"random": "sampled", "median": "median"}  # the paper's word -> the objective


class Published(NamedTuple):
    """The paper's choices: train on one draw a step or on the guide's median, with the divergence to the prior or without.

    `released`: draw ε from [0.35, 0.65] only, as the authors' code does.
    """

    training: str = "random"
    divergence: bool = True
    released: bool = False

    @property
    def recipe(self) -> Recipe:
        """How `ppnmf.inference.svi` trains by these choices."""
        uniforms = RELEASED_UNIFORMS if self.released and self.training == "random" else None
        return Recipe(TRAINING[self.training], self.divergence, uniforms, normalised=True, learning_rate=0.005)


def published_choices(given: Sequence[Any], widths: tuple[int, ...]) -> Published:
    """The choices, from a sequence of them such as a saved configuration has.

    Raises:
        ValueError: they are not the paper's, or the encoder has hidden layers (`widths`).
    """
    if not isinstance(given, list | tuple) or len(given) > len(Published._fields):
        raise ValueError(f"published is {given!r}; give ({', '.join(Published._fields)}), as `PAENMF.paper` does")
    choices = Published(*given)
    one_of("training", choices.training, TRAINING)
    for name in ("divergence", "released"):
        if not isinstance(getattr(choices, name), bool):
            raise ValueError(f"{name} is {getattr(choices, name)!r}; it must be True or False")
    if widths:
        raise ValueError(f"encoder is {widths!r}; the published one is 'linear'")
    return choices


def noise_of(sigma2: float | str | None) -> tuple[bool, float | None]:
    """Is there a noise variance a column? And the one that is given, or None: it is learned.

    Raises ValueError where sigma2 is neither a positive number, nor None, nor "per column".
    """
    if sigma2 is None or (isinstance(sigma2, str) and sigma2 == PER_COLUMN):
        return sigma2 is not None, None
    if not isinstance(sigma2, Real) or isinstance(sigma2, bool) or not 0 < sigma2 < math.inf:
        raise ValueError(f"sigma2 is {sigma2!r}; give a positive number, None to learn it, or {PER_COLUMN!r}")
    return False, float(sigma2)


def hidden_widths(encoder: str | Sequence[int]) -> tuple[int, ...]:
    """The hidden layers' widths; none for "linear". Raises ValueError where the encoder is neither that nor widths."""
    if isinstance(encoder, str) and encoder == "linear":
        return ()
    widths = tuple(encoder) if isinstance(encoder, Iterable) and not isinstance(encoder, str) else ()
    if not widths or not all(_is_width(width) for width in widths):
        raise ValueError(
            f"encoder is {encoder!r}; it must be 'linear' or the widths of hidden layers, such as (64, 32)"
        )
    return widths


def _is_width(width: Any) -> bool:
    return isinstance(width, int) and not isinstance(width, bool) and width >= 1
