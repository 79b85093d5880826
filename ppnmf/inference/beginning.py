"""How the chains of a run begin: where `init=` says, or at the best of a survey's starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppnmf.checks import described, whole_number
from ppnmf.inference import survey
from ppnmf.inference.clock import Clock
from ppnmf.inference.record import Recorder, Snapshot
from ppnmf.inference.room import require_room
from ppnmf.inference.start import SCALED, Start, is_survey, start
from ppnmf.progress import bar
from ppnmf.protocols import Matrix, Params, Sweeping
from ppnmf.rng import Stream
from ppnmf.surveyed import Survey

__all__ = ["Beginning", "beginning"]


@dataclass(frozen=True, eq=False)
class Beginning:
    """How the chains of a run begin: by a survey, or at once where there is no plan of one.

    Args:
        stream: of the chains.
        init: the start asked for.
        plan: of the survey; None where none is made, also where a run is too short for one.
    """

    model: Sweeping
    X: Matrix
    stream: Stream
    init: Start
    plan: survey.Plan | None
    seed: int

    def params(self) -> Params:
        """What a record begins with: the chains' parameters, or a survey before its first sweep."""
        if self.plan is None:
            return start(self.model, self.X, self.stream, SCALED if is_survey(self.init) else self.init)
        return survey.begin(self.model, self.X, self.plan, survey.streams(self.seed, self.plan))

    def surveyed(self, recorder: Recorder, clock: Clock, progress: bool) -> Snapshot:
        """Where the chains go on: where the record has them, or where the rest of the survey leaves them."""
        params, sweep = recorder.state
        if self.plan is None or not survey.is_under_way(params):
            return Snapshot(params, sweep)
        params, found = self._run(params, recorder.save, clock, progress)
        recorder.notes = {**recorder.notes, "survey": found.to_dict()}
        begun = Snapshot(params, 1)
        recorder.save(begun)
        return begun

    def without_record(self, clock: Clock, progress: bool) -> tuple[Params | None, dict[str, Any]]:
        """Where chains begin, None where the method's own start is as good, and the attributes that say so."""
        if self.plan is None:
            return (None if is_survey(self.init) else self.params()), {}
        params, found = self._run(self.params(), lambda _: None, clock, progress)
        return params, {"survey": found.to_dict()}

    def found(self, recorder: Recorder) -> dict[str, Any]:
        """The attributes that say what a survey found, also where that was before the run was resumed."""
        return {name: value for name, value in recorder.notes.items() if name == "survey"}

    def _run(
        self, params: Params, save: Callable[[Snapshot], None], clock: Clock, progress: bool
    ) -> tuple[Params, Survey]:
        assert self.plan is not None
        with bar(self.plan.total, f"survey, {self.plan.starts} starts", progress) as ticker:
            stream = survey.streams(self.seed, self.plan)
            return survey.run(self.model, self.X, self.plan, stream, params, save, clock, ticker.update)


def beginning(
    model: Sweeping,
    X: Matrix,
    seed: int,
    chains: int,
    init: Start,
    surveyed: int | None,
    warmup: int | None,
    climbs: bool = True,
) -> Beginning:
    """How chains begin by `init` and the number of starts to survey, as `gibbs.run` explains them; `climbs` as in `survey.planned`.

    Raises:
        ValueError: it is no number of starts, or is given beside another start.
    """
    if surveyed is not None:
        whole_number("survey", surveyed, 0)
    stream = Stream.of(seed, chains)
    if not is_survey(init):
        if surveyed:
            raise ValueError(
                f"survey is {surveyed} beside init={described(init)}: starts are surveyed by init='survey'"
            )
        return Beginning(model, X, stream, init, None, seed)
    plan = None if surveyed == 0 else survey.planned(model, X, chains, warmup, surveyed, climbs)
    if plan is not None:
        require_room(model, X, plan.starts, 0)
    return Beginning(model, X, stream, init, plan, seed)
