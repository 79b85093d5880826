"""Entries of the factors that are known: whole components or any pattern, held as they are while the rest is learned.

The fields `fixed_W` and `fixed_H` of a model say them, in the factors' own shapes: NaN where an entry is to be learned. A
factor that is only partly known is given by its first components, so that rows (J, D) of H stand for components 0 ... J - 1.

Known entries are constants and no draws: they have no part in the prior, in the log joint, nor in what hyperparameters hear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ppnmf.checks import borrowed, described
from ppnmf.factored import AXES, Frozen
from ppnmf.priors import Hyper
from ppnmf.protocols import Blocked, Stepping
from ppnmf.settings import own_settings

__all__ = ["Holding", "Known", "exact", "known_of", "learned", "put_into"]

SHAPES = {"W": "(N, J), the first J columns of W", "H": "(J, D), the first J rows of H"}


@dataclass(frozen=True, eq=False)
class Known:
    """The known entries of a factor: of W (N, K), or of H (K, D)."""

    values: Tensor  # float64, 0 where an entry is not known
    at: Tensor  # boolean, True where it is

    def put_into(self, F: Tensor) -> Tensor:
        """A factor (*C, N, K) or (*C, K, D) with the known entries in their places."""
        here = self.on(F.device)
        return torch.where(here.at, here.values.to(F.dtype), F)

    def rows(self, rows: slice) -> Known:
        """Those of some of the factor's rows."""
        return Known(self.values[rows], self.at[rows])

    @property
    def turned(self) -> Known:
        """Those of the factor with its rows and columns exchanged."""
        return Known(self.values.mT, self.at.mT)

    @property
    def above_zero(self) -> Tensor:
        """How many entries of each column are known and not zero, float64."""
        return (self.at & (self.values > 0)).double().sum(0)

    def on(self, device: torch.device) -> Known:
        """The same there."""
        return self if self.values.device == device else Known(self.values.to(device), self.at.to(device))


def known_of(prior: Any) -> Known | None:
    """The known entries of the factor whose prior this is: those that its family's pinned prior has."""
    return getattr(prior, "known", None)


def put_into(known: Known | None, F: Tensor) -> Tensor:
    """A factor (*C, R, S) with the known entries, if any, in their places."""
    return F if known is None else known.put_into(F)


def exact(prior: Any, F: Tensor) -> Tensor:
    """The same, where a prior says what is known."""
    return put_into(known_of(prior), F)


def learned(prior: Any, each: Tensor) -> Tensor:
    """Numbers (*C, R, S), one an entry of a factor, 0 for those that are known."""
    known = known_of(prior)
    return each if known is None else torch.where(known.on(each.device).at, 0.0, each)


@dataclass(frozen=True, eq=False)
class Holding(Frozen):
    """A frozen model some of whose factors' entries may be known.

    Its `__post_init__` calls `_check_fixed`, its `require_fits` calls `_require_fixed_fits`, and its `for_rows`
    `_fixed_of_rows`. Its sweeps leave what `known` says as it is, its starts and prior draws go through `hold`.

    Args:
        fixed_W: None, or known columns of W (N, J), J <= K, NaN where an entry is learned.
        fixed_H: None, or known rows of H (J, D), likewise.
    """

    unheld: ClassVar[tuple[type, ...]] = (Blocked, Stepping)  # abilities that are lost where entries are known

    fixed_W: Hyper | None = field(default=None, kw_only=True, repr=False)
    fixed_H: Hyper | None = field(default=None, kw_only=True, repr=False)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments; those of known entries only where there are some."""
        return {name: value for name, value in super().config().items() if name not in FIELDS or value is not None}

    @own_settings()
    def holding(self, fixed: Mapping[str, Any] | None) -> Self:
        """The same model with known entries: {"W": columns, "H": rows}, either of which may be left out.

        Raises:
            ValueError: another name, another shape, more components than the model has, entries that are negative or
                infinite.
        """
        given = {} if fixed is None else fixed
        if not isinstance(given, Mapping) or not set(given) <= set(AXES):
            raise ValueError(
                f'fixed is {described(fixed)}; give a dict with "W", known columns of W, or "H", known rows of H, or both'
            )
        return replace(self, **{f"fixed_{site}": given.get(site) for site in AXES})

    def known(self, site: str) -> Known | None:
        """The known entries of "W" or of "H"; None where there are none."""
        return self._known[site]

    @property
    def all_known(self) -> tuple[Known | None, Known | None]:
        """Those of W and those of H."""
        return self._known["W"], self._known["H"]

    @property
    def holds(self) -> bool:
        """Whether any entry is known."""
        return self.all_known != (None, None)

    def hold(self, site: str, F: Tensor) -> Tensor:
        """A factor (*C, N, K) or (*C, K, D) with its known entries in their places."""
        own = self._known.get(site)
        return F if own is None else own.put_into(F)

    @cached_property
    @own_settings()
    def _known(self) -> dict[str, Known | None]:
        return {site: _table(getattr(self, f"fixed_{site}"), self.rank, AXES[site]) for site in AXES}

    def _check_fixed(self) -> None:
        """Make the fields float64 tensors, or None where nothing is known."""
        for site, axis in AXES.items():
            name = f"fixed_{site}"
            object.__setattr__(self, name, _checked(name, getattr(self, name), self.rank, axis, SHAPES[site]))

    def _require_fixed_fits(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when known entries are not for X of this shape (N, D)."""
        for site, size, what in (("W", shape[0], "rows"), ("H", shape[1], "columns")):
            own = self._known[site]
            axis = 1 - AXES[site]
            if own is not None and own.at.shape[axis] != size:
                raise ValueError(
                    f"fixed_{site} is for {own.at.shape[axis]} {what} and X has {size}: give a value for each of them"
                )

    def lacks(self, ability: type) -> str:
        """Why a model with known entries lacks an ability that others of its class have; nothing where it does not."""
        if not self.holds or ability not in self.unheld:
            return ""
        others = ["'stepping_stone'"] if Stepping not in self.unheld and isinstance(self, Stepping) else []
        methods = " or ".join([*others, "'smc'"])
        return f"this {self.name} has none, for entries of W or H are known: give method={methods}, or held-out cells"

    def _fixed_of_rows(self, rows: range) -> dict[str, Tensor]:
        """The field to be replaced in the model of some rows of X."""
        values = self.fixed_W
        return {} if values is None else {"fixed_W": torch.as_tensor(values)[rows.start : rows.stop]}


FIELDS = ("fixed_W", "fixed_H")


def _checked(name: str, value: Any, rank: int, axis: int, wanted: str) -> Tensor | None:
    """Known entries as they are given, float64; None where all are to be learned."""
    if value is None:
        return None
    values = torch.as_tensor(borrowed(name, value), dtype=torch.float64).clone()  # the caller's array may change
    if values.ndim != 2 or not 1 <= values.shape[axis] <= rank:
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}; give {wanted}, J <= K = {rank}, NaN where entries are learned"
        )
    off = (values < 0) | values.isinf()
    if bool(off.any()):
        raise ValueError(
            f"{name} has {int(off.sum())} entries that are negative or infinite; known entries are >= 0, and NaN marks "
            "those to be learned"
        )
    return None if bool(values.isnan().all()) else values


def _table(values: Any, rank: int, axis: int) -> Known | None:
    """The whole factor's table: the components that are not given are not known."""
    if values is None:
        return None
    rest = list(values.shape)
    rest[axis] = rank - rest[axis]
    whole = torch.cat([values, values.new_full(rest, torch.nan)], axis)
    return Known(whole.nan_to_num(0.0), ~whole.isnan())
