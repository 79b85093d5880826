"""Which abilities there are in words, and the one place where a model without them is refused."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

from ppnmf.protocols.amortised import Amortised
from ppnmf.protocols.descending import LeastSquares, Multiplicative, Variational
from ppnmf.protocols.evidence import Blocked, Stepping
from ppnmf.protocols.layered import Layered
from ppnmf.protocols.sweeping import Sweeping

__all__ = ["ABILITIES", "has", "offers", "require_ability"]


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


def offers(model: Any, ability: type) -> bool:
    """`isinstance(model, ability)`, which walks through a protocol's members anew each time, at once where the class tells."""
    kind: Any = type(model)
    return _class_offers(kind, ability) or isinstance(model, ability)


@cache
def _class_offers(kind: type, ability: type) -> bool:
    """Whether every member stands in the class, or is a field of a dataclass: then all its instances have it."""
    own = {*getattr(kind, "__dataclass_fields__", ())}
    return all(name in own or getattr(kind, name, None) is not None for name in _members(ability))


@cache
def _members(ability: type) -> frozenset[str]:
    """The names that a protocol asks for."""
    parts = [kind for kind in ability.__mro__ if getattr(kind, "_is_protocol", False) and kind is not Protocol]
    names = {name for kind in parts for name in (*vars(kind), *kind.__annotations__)}
    return frozenset(name for name in names if name == "__call__" or not name.startswith("_"))


def has(model: Any, ability: type) -> bool:
    """Whether a model is taken by what asks for an ability: its class offers that, and the value does not lack it."""
    return offers(model, ability) and not _lack(model, ability)


def _lack(model: Any, ability: type) -> str:
    """Why a value lacks what its class has; nothing where it does not."""
    why: str = getattr(model, "lacks", lambda _: "")(ability)
    return why


def require_ability(who: str, model: Any, ability: type) -> None:
    """Raise TypeError where a model lacks what a method asks for; the sentence says what it has."""
    if offers(model, ability):
        if why := _lack(model, ability):
            raise TypeError(f"{who} needs {ABILITIES[ability]}, and {why}")
        return
    offered = [words for kind, words in ABILITIES.items() if isinstance(model, kind)]
    name = getattr(model, "name", type(model).__name__)
    raise TypeError(f"{who} needs {ABILITIES[ability]}; {name} offers {', '.join(offered) or 'none of its abilities'}")
