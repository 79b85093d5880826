"""Steps of Gibbs chains: a state, one sweep as a pure function, and many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ppnmf.data.sharded import log_prior
from ppnmf.inference.start import Start, start
from ppnmf.protocols import Address, Held, Matrix, Params, Sweeping, Sweeps
from ppnmf.rng import Stream
from ppnmf.settings import own_settings

__all__ = ["Info", "State", "init", "log_joint", "several", "step", "sweeps_at_once", "whole"]


class State(NamedTuple):
    """What the next step needs."""

    params: Params  # (C, *site) of every site
    sweep: int  # with the stream, it fixes every random number of the step


class Info(NamedTuple):
    """What a reader of the run may want."""

    lp: Tensor  # log joint, (C,)


@own_settings()
def init(
    model: Sweeping, X: Matrix, stream: Stream, begin: Start = "scaled", chains: Sequence[int] | None = None
) -> State:
    """The state before the first sweep, a chain for each key of the stream; `chains` are their numbers in the run."""
    return State(start(model, X, stream, begin, chains), 1)


@own_settings()
def step(
    model: Sweeping,
    state: State,
    X: Matrix,
    stream: Stream,
    power: float = 1.0,
    moves: bool = True,
    held: Held = Held(),  # noqa: B008  # a value
    collapsed: tuple[str, ...] = (),
    fresh: int = 1,
) -> tuple[State, Info]:
    """One sweep, as a pure function; the arguments are those of `protocols.Sweeps`."""
    asked = Sweeps(power=power, moves=moves, held=held, collapsed=collapsed, fresh=fresh)
    after, _, lp = several(model, state, X, stream, asked)
    return after, Info(lp[:, 0])


def several(
    model: Sweeping, state: State, X: Matrix, stream: Stream, asked: Sweeps
) -> tuple[State, dict[str, Tensor], Tensor]:
    """Some sweeps; also the draws (C, n, *site), and log joints (C, n), of those that are kept."""
    swept = model.sweep(state.params, X, asked, Address(stream, state.sweep))
    after = State(swept.params, state.sweep + asked.number)
    if not swept.draws:
        return after, {}, swept.log_likelihood
    return after, swept.draws, swept.log_likelihood + log_prior(model, X, swept.draws)


def log_joint(model: Sweeping, X: Matrix, params: Params) -> Tensor:
    """log p(X, params), shape (C,), float64."""
    return model.log_likelihood_at(params, X) + log_prior(model, X, params)


def whole(X: Matrix) -> bool:
    """Whether sweeps over X are compiled whole, so that many together cost less than one by one."""
    return X.plain is not None or X.masked is not None


def sweeps_at_once(X: Matrix, K: int, chains: int) -> int:
    """So many that they take about a tenth of a second, and their draws some megabytes: between them Ctrl-C is heard."""
    N, D = X.shape
    operations = chains * (4.0 * N * D * K + (N + D) * K * (200.0 + 20.0 * K))
    return max(1, int(min(1e9 / operations, 2**22 / (chains * (N + D) * K))))
