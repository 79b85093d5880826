"""What a model may offer to a method, and what a data matrix must offer to a sweep.

A method asks for an ability (`Sweeping`, `Climbing`, `Multiplicative`, `LeastSquares`, `Variational`, `Blocked`,
`Stepping`, `Layered`, `Amortised`) and never for a class; a model that lacks it is refused, in one place (`require_ability`), with
a `TypeError` that names the ability. Abilities tell the whole truth: a model that passes `isinstance` works.
"""

from ppnmf.protocols.abilities import ABILITIES, has, offers, require_ability
from ppnmf.protocols.amortised import Amortised, Asked, Proposal, Recipe
from ppnmf.protocols.descending import (
    Ascent,
    Climbing,
    Descending,
    Drawn,
    LeastSquares,
    Lowered,
    Multiplicative,
    Pace,
    Standing,
    Variational,
)
from ppnmf.protocols.evidence import (
    Arriving,
    Blocked,
    Crossing,
    Reduced,
    Reference,
    Stepper,
    Stepping,
    SteppingWhole,
    Stood,
    Timed,
)
from ppnmf.protocols.labelling import Labelling, Scores
from ppnmf.protocols.layered import Deriving, Layered, made_up
from ppnmf.protocols.matrix import Matrix, Params, Statistics
from ppnmf.protocols.model import Entries, Exposing, Model, exposed
from ppnmf.protocols.sweeping import (
    Address,
    Collapsing,
    Held,
    Read,
    Sweeping,
    Sweeps,
    Swept,
)

__all__ = [
    "ABILITIES",
    "Address",
    "Amortised",
    "Arriving",
    "Ascent",
    "Asked",
    "Blocked",
    "Climbing",
    "Collapsing",
    "Crossing",
    "Deriving",
    "Descending",
    "Drawn",
    "Entries",
    "Exposing",
    "Held",
    "Labelling",
    "Layered",
    "LeastSquares",
    "Lowered",
    "Matrix",
    "Model",
    "Multiplicative",
    "Pace",
    "Params",
    "Proposal",
    "Read",
    "Recipe",
    "Reduced",
    "Reference",
    "Scores",
    "Standing",
    "Statistics",
    "Stepper",
    "Stepping",
    "SteppingWhole",
    "Stood",
    "Sweeping",
    "Sweeps",
    "Swept",
    "Timed",
    "Variational",
    "exposed",
    "has",
    "made_up",
    "offers",
    "require_ability",
]
