"""Which abilities there are in words, and the one place where a model without them is refused."""

from __future__ import annotations

from typing import Any

from ppnmf.protocols.amortised import Amortised
from ppnmf.protocols.layered import Layered
from ppnmf.protocols.sweeping import Blocked, LeastSquares, Multiplicative, Stepping, Sweeping, Variational

__all__ = ["ABILITIES", "require_ability"]


ABILITIES: dict[type, str] = {
    Sweeping: "full conditionals",
    Blocked: "the densities of its blocks",
    Stepping: "sweeps from a reference to its posterior",
    Amortised: "a guide with an encoder",
    Multiplicative: "multiplicative updates",
    LeastSquares: "a squared error",
    Variational: "moments of its conditionals",
    Layered: "layers",
}


def require_ability(who: str, model: Any, ability: type) -> None:
    """Raise TypeError where a model lacks what a method asks for; the sentence says what it has."""
    if isinstance(model, ability):
        if why := getattr(model, "lacks", lambda _: "")(ability):  # a value may lack what its class has
            raise TypeError(f"{who} needs {ABILITIES[ability]}, and {why}")
        return
    offered = [words for kind, words in ABILITIES.items() if isinstance(model, kind)]
    name = getattr(model, "name", type(model).__name__)
    raise TypeError(f"{who} needs {ABILITIES[ability]}; {name} offers {', '.join(offered) or 'none of its abilities'}")
