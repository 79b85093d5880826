"""How many components: criteria over a range of ranks, in one table that says how firm its choice is."""

from __future__ import annotations

import inspect
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import get_active_backend

from ppnmf.checks import described, meant, one_of, whole_number, yes_or_no
from ppnmf.compilation import announced
from ppnmf.data.matrix import as_matrix
from ppnmf.evidence import METHODS, usual
from ppnmf.evidence.finished import Finished, identity
from ppnmf.evidence.options import RankOptions
from ppnmf.evidence.score import Score
from ppnmf.evidence.table import RankTable, Task, times
from ppnmf.inference import check, require_model
from ppnmf.models import for_data
from ppnmf.progress import bar
from ppnmf.protocols import Amortised, Matrix, Model, Sweeping, require_ability
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["CRITERIA", "RankTable", "Score", "select_rank", "usual_criterion"]

CRITERIA = {  # name -> the module whose `run` gives a rank its score, or module:function
    **METHODS,
    "heldout": "ppnmf.evidence.heldout",
    "aic": "ppnmf.evidence.information:aic",
    "bic": "ppnmf.evidence.information:bic",
    "mdl": "ppnmf.evidence.description",
    "elbo": "ppnmf.evidence.bound",
    "loo": "ppnmf.evidence.loo",
    "consensus": "ppnmf.evidence.consensus",
}
FACTORS = (2.0, 0.5)  # of the rates, under which the evidence is looked at again


@own_settings()
def select_rank(
    model: Model | str | Callable[[int], Model],
    X: Any,
    ranks: Iterable[int] = range(1, 11),
    *,
    method: str | Sequence[str] | None = None,
    seed: int = 0,
    mask: Any = None,
    missing: str = "error",
    noise: Any = None,
    sensitivity: bool = False,
    n_jobs: int | None = None,
    checkpoint: str | Path | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
    **options: Unpack[RankOptions],
) -> RankTable:
    """Score a range of ranks by one criterion or several.

    A rank that fails is reported in the table and does not stop the others; Ctrl-C gives a table of those done. The
    numbers do not depend on how many ranks are worked on at once, or where, or on the libraries' threads.

    Args:
        model: a model, whose rank is replaced (it keeps scalar rates); a model's name, which stands for that model for this
            data at each rank; or a function from rank to model.
        X: data (N, D), as in `ppnmf.fit`, with `mask`, `missing` and `noise`.
        ranks: the ranks to try.
        method: one or a list of "stepping_stone", "chib", "smc" (log evidence), "heldout", "aic", "bic", "mdl", "elbo",
            "loo" and "consensus"; the first one decides `best`. The module of each (`CRITERIA`) tells what it is. By default
            the first of "stepping_stone", "chib", "smc" and "elbo" that the models can.
        sensitivity: for the methods that give evidence, look again at the best rank and its neighbours with twice and half the
            rates, and say what ten times and a tenth of the noise scale would do, which is told from draws.
        n_jobs: ranks worked on at once, in processes, by joblib; by default one, or what `joblib.parallel_config` says,
            which can also hand them to dask or, with `ray.util.joblib.register_ray()` before, to ray. It pays when a
            rank takes longer than a process takes to start.
        checkpoint: a JSON file that takes each score when it is finished; it is replaced whole or not at all, and one run
            at a time may write to it. One that is there already has to be resumed.
        resume: such a file to go on from; it also takes the further scores, unless `checkpoint` names another. With the
            same `checkpoint`, begin if there is none. Ranks and methods may be others than before.
        options: those of the methods (the `run` of each module): draws, warmup, replicates, folds, restarts, ...; each
            goes to every method that has it. The options of one method alone come as a dict: chib={"draws": 200}.

    Raises:
        ValueError: bad input, an unknown method, no ranks; a file to resume from that is of other data, models or
            options. Where every rank fails, the first one's own error.
        TypeError: an option that no method has, or every model lacks what the methods need.
    """
    if not callable(model) and not isinstance(model, str):
        require_model(model, X)
    wanted = _whole_numbers(ranks)
    yes_or_no(sensitivity=sensitivity)
    _require_jobs(n_jobs)
    if method is not None:
        _options_by_method(_names(method), options)  # what is wrong there is said before X is read
    data, began = as_matrix(X, mask, missing, noise=noise), time.perf_counter()
    if isinstance(model, str):
        model = partial(for_data, model, data)
    models, failures = _models(model, wanted)
    names = [usual_criterion(models.values())] if method is None else _names(method)
    chosen = _options_by_method(names, options)
    if models:
        check(models[max(models)], data)
    if sensitivity and set(METHODS) & set(names):
        for one in models.values():
            _with_rates(one, 1.0)
    seed = whole_number("seed", seed, 0)
    with Finished(checkpoint, resume, data, seed) as finished:
        work = _Work(data, seed, chosen, finished, n_jobs, progress)
        for rank, error in failures.items():
            work.results.update({Task(name, rank): error for name in names})
        work.do({Task(name, rank): own for rank, own in models.items() for name in names})
        table = _table(names, work, data)
        if sensitivity and not work.interrupted:
            work.do(_elsewhere(table, models))
            table = _table(names, work, data)
    if sensitivity and not table.with_evidence:
        warnings.warn(f"sensitivity is of evidence, and {', '.join(names)} gives none", stacklevel=2)
    return replace(table, seconds=time.perf_counter() - began)


def usual_criterion(models: Collection[Model]) -> str:
    """The criterion for these models: their evidence (`ppnmf.evidence.usual`), or its bound where they are autoencoders."""
    return "elbo" if models and all(isinstance(model, Amortised) for model in models) else usual(models)


@dataclass(eq=False)
class _Work:
    """Tasks are done, here or in other processes; each has in `results` its score, or the exception it raised."""

    X: Matrix
    seed: int
    options: Mapping[str, dict[str, Any]]
    finished: Finished
    n_jobs: int | None
    progress: bool
    results: dict[Task, Any] = field(default_factory=dict)
    interrupted: bool = False

    def do(self, models: Mapping[Task, Model]) -> None:
        """Score these models, those that are not finished."""
        about = {task: identity(model, self._all_options(task.method)) for task, model in models.items()}
        known = {task: self.finished.get(str(task), about[task]) for task in models}
        self.results.update({task: score for task, score in known.items() if score is not None})
        alone = effective_n_jobs(self.n_jobs) == 1
        left = [task for task in models if known[task] is None]
        left.sort(key=lambda task: task.rank if alone else -task.rank)  # long ones first, if many
        calls = (
            delayed(_attempt)(
                task, models[task], self.X, self.seed, self.progress and alone, self.options[task.method], os.getpid()
            )
            for task in left
        )
        with announced(self.progress), bar(len(left), "ranks", self.progress) as ticker:
            try:
                for task, result in _as_they_come(calls, self.n_jobs):
                    self.results[task] = result
                    if not isinstance(result, Exception):
                        self.finished.add(str(task), about[task], result)
                    ticker.update()
                    ticker.set_postfix_str(f"{task} done")
            except KeyboardInterrupt:
                self.interrupted = True
            except BrokenProcessPool:  # the others went with it
                lost = RuntimeError(
                    "a process was ended from outside, perhaps for want of memory: ask for fewer n_jobs"
                )
                self.results.update({task: lost for task in left if task not in self.results})

    def _all_options(self, method: str) -> dict[str, Any]:
        parameters = inspect.signature(_run_of(method)).parameters
        defaults = {name: p.default for name, p in parameters.items() if name not in RESERVED}
        return defaults | self.options[method]


RESERVED = {"model", "X", "seed", "progress"}


def _run_of(method: str) -> Callable[..., Any]:
    module, _, name = CRITERIA[method].partition(":")
    return getattr(import_module(module), name or "run")


def _as_they_come(calls: Iterable[Any], n_jobs: int | None) -> Iterator[Any]:
    """Results when they are there, so that what is done is kept; lot by lot where the chosen backend knows only lists."""
    if get_active_backend()[0].supports_return_generator:
        yield from Parallel(n_jobs, return_as="generator_unordered")(calls)
        return
    waiting, lot = iter(calls), effective_n_jobs(n_jobs)
    with Parallel(n_jobs) as workers:
        while results := workers(islice(waiting, lot)):
            yield from results


def _attempt(
    task: Task, model: Model, X: Matrix, seed: int, progress: bool, options: dict[str, Any], asker: int
) -> tuple[Task, Any]:
    """The task's score, with what was warned of on the way, or the exception it raised.

    Args:
        asker: the number of the process that wants the score.
    """
    if os.getppid() == asker:
        _end_with_the_parent(asker)
    others: list[warnings.WarningMessage] = []
    with warnings.catch_warnings(record=True) as caught, single_threaded():
        warnings.simplefilter("always")
        try:
            score = _run_of(task.method)(model, X, seed=seed, progress=progress, **options)
            if not math.isfinite(score.value):
                raise ArithmeticError(f"the value is {score.value}")
        except Exception as error:
            return task, error
        others = [warning for warning in caught if not issubclass(warning.category, UserWarning)]
        said = [str(warning.message).rstrip(".") for warning in caught if issubclass(warning.category, UserWarning)]
    for warning in others:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if said and hasattr(score, "__dataclass_fields__"):
        score = replace(score, warnings=tuple(dict.fromkeys([*score.warnings, *said])))
    return task, score


@cache
def _end_with_the_parent(parent: int) -> None:
    """Let this process end soon after its parent was killed, rather than work for nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _elsewhere(table: RankTable, models: Mapping[int, Model]) -> dict[Task, Model]:
    """The models with other rates that say how much the evidence hangs on them.

    Raises TypeError when a model has no rates.
    """
    tasks = {}
    for method in table.with_evidence:
        if not table.judged(method):
            continue
        ranks, best = sorted(table.judged(method)), table.best_by(method)
        at = ranks.index(best)
        for rank in ranks[max(0, at - 1) : at + 2]:
            tasks.update({Task(method, rank, factor): _with_rates(models[rank], factor) for factor in FACTORS})
    return tasks


def _with_rates(model: Model, factor: float) -> Model:
    """Twice the rates are priors of entries half as large."""
    require_ability("sensitivity", model, Sweeping)
    rescaled: Any = model
    return rescaled.rescaled(1 / factor)


def _table(names: list[str], work: _Work, X: Matrix) -> RankTable:
    scores: dict[str, dict[int, Any]] = {name: {} for name in names}
    failed: dict[str, dict[int, str]] = {name: {} for name in names}
    elsewhere: dict[str, dict[float, dict[int, Any]]] = {}
    results = dict(sorted(work.results.items(), key=lambda item: item[0].rank))
    for task, result in results.items():
        if isinstance(result, Exception):
            told = f"{type(result).__name__}: {result}"
            failed[task.method][task.rank] = (
                told if task.factor == 1.0 else f"with {times(task.factor)} the rates, {told}"
            )
        elif task.factor == 1.0:
            scores[task.method][task.rank] = result
        else:
            elsewhere.setdefault(task.method, {}).setdefault(task.factor, {})[task.rank] = result
    if not scores[names[0]]:
        if work.interrupted:
            raise KeyboardInterrupt
        raise next(error for task, error in results.items() if task.method == names[0])
    return RankTable(
        scores=scores,
        failed=failed,
        shape=X.shape,
        seed=work.seed,
        seconds=0.0,
        interrupted=work.interrupted,
        sensitivity={m: {f: by[f] for f in FACTORS if f in by} for m, by in elsewhere.items()},
    )


def _models(model: Model | Callable[[int], Model], ranks: list[int]) -> tuple[dict[int, Model], dict[int, Exception]]:
    """The model of each rank, and the errors of those that cannot be made."""
    models: dict[int, Model] = {}
    failures: dict[int, Exception] = {}
    for rank in ranks:
        try:
            models[rank] = own = _with_rank(model, rank) if isinstance(model, Model) else model(rank)
        except Exception as error:
            failures[rank] = error
            continue
        require_model(own)
    return models, failures


def _with_rank(model: Model, rank: int) -> Model:
    return type(model)(**{**model.config(), "rank": rank})


def _options_by_method(names: list[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each method's own options. Raises TypeError for an option that none has."""
    shared = {option: value for option, value in options.items() if option not in CRITERIA}
    wrong = [name for name, value in options.items() if name in CRITERIA and not isinstance(value, Mapping)]
    if wrong:
        raise TypeError(f"{wrong[0]} is {options[wrong[0]]!r}; its options come as a dict, such as {{'draws': 200}}")
    alone = {name: dict(value) for name, value in options.items() if name in CRITERIA}
    idle = [name for name in alone if name not in names]
    if idle:
        raise TypeError(f"there are options for {', '.join(idle)}, which is not among the methods: {', '.join(names)}")
    has = {name: set(inspect.signature(_run_of(name)).parameters) - RESERVED for name in names}
    offers = set().union(*has.values())
    strange = [f"{option}{meant(option, offers)}" for option in shared if option not in offers]
    strange += [
        f"{option}{meant(option, has[name])}"
        for name, own in alone.items()
        for option in own
        if option not in has[name]
    ]
    if strange:
        offered = "; ".join(f"{name} has {', '.join(sorted(own))}" for name, own in has.items())
        raise TypeError(f"there is no option {', '.join(strange)}: {offered}")
    return {
        name: {option: value for option, value in shared.items() if option in has[name]} | alone.get(name, {})
        for name in names
    }


def _names(method: str | Sequence[str]) -> list[str]:
    """The methods, each once. Raises ValueError for an unknown one, or none."""
    names = [method] if isinstance(method, str) or not isinstance(method, Iterable) else list(dict.fromkeys(method))
    if not names:
        raise ValueError(f"method is empty; give one or several of {', '.join(CRITERIA)}")
    return [one_of("method", name, CRITERIA) for name in names]


def _require_jobs(n_jobs: int | None) -> None:
    """Raise ValueError when it is no number of workers; joblib counts negative ones from the number of cores."""
    whole = isinstance(n_jobs, int | np.integer) and not isinstance(n_jobs, bool)
    if n_jobs is not None and (not whole or n_jobs == 0):
        raise ValueError(
            f"n_jobs is {described(n_jobs)}; give a whole number >= 1, or -1 for as many as there are cores"
        )


def _whole_numbers(ranks: Iterable[int]) -> list[int]:
    if isinstance(ranks, str) or not isinstance(ranks, Iterable):
        raise TypeError(f"ranks is {described(ranks)}; give several whole numbers, such as range(1, 11)")
    wanted = sorted({whole_number("a rank", rank, 1) for rank in ranks})
    if not wanted:
        raise ValueError("ranks is empty; give whole numbers >= 1, such as range(1, 11)")
    return wanted
