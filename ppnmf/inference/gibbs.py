r"""Gibbs sampling of a Gaussian model with rectified-normal priors, moved along the ridge W @ H = constant.

A sweep draws the columns of W, the rows of H, then σ² ~ InverseGamma(α + β n / 2, θ + β SSE / 2), each from its exact
conditional (Schmidt, Winther, Hansen 2009, whose noise shape has one too many), and then moves scale and shear, which
leave W @ H alone and end the crawl along the ridge.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from ppnmf.checks import described, whole_numbers
from ppnmf.data.matrix import Dense, as_matrix
from ppnmf.inference import length, mass, record
from ppnmf.inference.beginning import beginning
from ppnmf.inference.chain import Info, State, init, log_joint, several, step, sweeps_at_once
from ppnmf.inference.clock import Clock
from ppnmf.inference.room import require_room
from ppnmf.inference.start import Start
from ppnmf.posterior import Kind, Posterior
from ppnmf.protocols import Collapsing, Matrix, Sweeping, require_ability
from ppnmf.rng import Stream
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["GibbsKernel", "Info", "State", "init", "log_joint", "run", "several", "step", "sweeps_at_once"]

COLLAPSED = "collapsed"  # of `moves`
WARMUP = 1000  # sweeps, where neither their number is given nor what the run goes on until


@own_settings()
def run(
    model: Sweeping,
    X: Dense,
    *,
    draws: int = 1000,
    warmup: int | None = None,
    thin: int = 1,
    chains: int = 4,
    seed: int = 0,
    until: str | None = None,
    max_seconds: float | None = None,
    target_ess: float | None = None,
    init: Start = "survey",
    survey: int | None = None,
    keep: Collection[str] | None = None,
    moves: bool | str = True,
    checkpoint: str | Path | None = None,
    every: int | None = None,
    resume: str | Path | None = None,
    store: str | Path | None = None,
    progress: bool = True,
) -> Posterior:
    """Sample the posterior by warmup + draws · thin sweeps in each chain, or until the chains agree.

    Args:
        model: with full conditionals (`protocols.Sweeping`) and proper priors.
        X: data (N, D).
        draws: kept of each chain; with `until`, at most.
        warmup: sweeps that come first and are not kept; 1000 by default. With `until`, none by default: the first quarter or
            half of all sweeps is left out.
        thin: keep every thin-th sweep after the warm-up; with `until`, doubled when the room is full.
        until: "agree": sweeps go on until R-hat of all that is identified (lp, sigma2, the sorted strengths, 100 entries of
            W @ H) is at most 1.01 and the effective draws suffice, or the time is up; attrs["ended"] says which.
        max_seconds: the time, of the whole run also where it is resumed; no end by default.
        target_ess: bulk and tail effective draws that suffice; 100 a chain by default.
        init: where chains start: "survey", at the best of many starts (`ppnmf.inference.survey`), or what
            `ppnmf.inference.start.start` takes.
        survey: how many starts are surveyed, in up to 400 sweeps each; those go on that are in the heaviest modes, as far as
            sweeps tell (`inference.mass`). By default the greater of 24 and 6 a chain; without `until`
            in no more sweeps than two fifths of the warm-up (a fifth of a run with as many draws): a short run has a short
            survey or none. 0 for none: chains then start "scaled". After a survey, chains in a mode much lighter than the best
            one's halfway through the warm-up go on from its state (`inference.behind`); `post.survey.anew` says which.
        keep: the sites whose draws are kept; all by default. `lp`, sigma2 and what else is small are always kept.
        moves: move along the ridge after each sweep; off, chains crawl. With `until`, longer steps come too after 200 sweeps:
            three sweeps of four reflect each entry of the factors in its conditional in place of a draw, where the model
            can (`kernels.reference.half_sweep`); attrs["fresh"] is then 4. And moves integrate a row of W or of H out where
            that goes further (`gaussian.collapsed`); attrs["collapsed"] says of which factor. "collapsed": so too without
            `until`, from halfway through the warm-up on.
        checkpoint, every, resume, store: for long runs, see `record.open`.

    Returns: a Posterior; after Ctrl-C with the draws so far, attrs["interrupted"] True.

    Raises:
        TypeError: the model has no full conditionals, or moves="collapsed" and it has no such moves.
        ValueError: a count below its least value, an unknown site, a zero rate, options that do not go together.
        KeyboardInterrupt: Ctrl-C before the first draw is kept.
    """
    require_ability("gibbs", model, Sweeping)
    whole_numbers(draws=(draws, 1), thin=(thin, 1), chains=(chains, 1))
    if warmup is not None:
        whole_numbers(warmup=(warmup, 0))
    collapsed = _with_collapsed(moves, model)
    goal = length.goal(until, max_seconds, target_ess, draws, warmup, thin, chains)
    if goal is not None and store is not None:
        raise ValueError("until='agree' thins draws that are kept, and those of a store stay: leave store out")
    fixed = length.Fixed(WARMUP if warmup is None else warmup, draws, thin, collapsed)
    kept = _kept_sites(model, X, keep)
    model.require_proper()
    require_room(model, X, chains, 0 if store is not None else draws, kept)
    began = time.perf_counter()
    begun = beginning(model, X, seed, chains, init, survey, None if goal else fixed.warmup)
    plan = {"method": "gibbs", "seed": seed, "chains": chains, "thin": thin, "moves": moves}
    plan |= {"warmup": fixed.warmup} if goal is None else {"warmup": goal.warmup, "until": until, "draws": draws}
    recorder = record.open(
        model,
        X,
        begun.params,
        sites=kept,
        draws=draws,
        plan={**plan, "init": init, "survey": survey},
        checkpoint=checkpoint,
        every=every,
        resume=resume,
        store=store,
    )
    clock = Clock(X, began - recorder.seconds, max_seconds)
    chained = length.Chains(model, X, begun.stream, recorder, kept, bool(moves), every)
    with recorder, single_threaded():
        begins = begun.surveyed(recorder, clock, progress)
        params, seen = mass.split(begins.params)
        state = State(params, begins.sweep)
        if goal is None:
            ended = length.run(chained, state, fixed, clock, progress, seen)
        else:
            ended = length.run_until(chained, state, goal, clock, progress, seen)
    return Posterior(
        draws={site: values[:, ended.first :] for site, values in recorder.draws().items()},
        stats={"lp": recorder.lp()[:, ended.first :]},
        model=model,
        X=X,
        method="gibbs",
        kind=Kind.CHAINS,
        seed=seed,
        timings={**ended.seconds, "total": clock.gone},
        attrs={**ended.attrs, "moves": moves, **begun.found(recorder)},
    )


def _with_collapsed(moves: bool | str, model: Sweeping) -> bool:
    """Whether a run of fixed length shall look for shears with a row integrated out; what is asked of the moves is checked."""
    if moves != COLLAPSED:
        if not isinstance(moves, bool | np.bool_):
            raise ValueError(f"moves is {described(moves)}; it must be True, False or {COLLAPSED!r}")
        return False
    if not isinstance(model, Collapsing):
        raise TypeError(f"moves is {COLLAPSED!r}; {model.name} has no shears with a row integrated out: give True")
    return True


def _kept_sites(model: Sweeping, X: Matrix, keep: Collection[str] | None) -> list[str]:
    """All sites, or those that are asked for and those that are small: neither rows nor columns have one each."""
    sites = model.sites(*X.shape)
    if keep is None:
        return list(sites)
    if isinstance(keep, str) or not isinstance(keep, Collection) or not set(keep) <= set(sites):
        raise ValueError(f"keep is {described(keep)}; give a list of sites out of {', '.join(sites)}")
    return [site for site, dims in sites.items() if site in keep or len(dims) < 2 or not {"row", "column"} & set(dims)]


class GibbsKernel(MCMCKernel):
    """The same sweep as a Pyro kernel: `MCMC(GibbsKernel(model, seed=0), 1000, num_chains=2).run(X)`.

    Chain c draws from the stream of (seed, c), in one process or in many, so its draws are those of
    `ppnmf.fit(model, X, method="gibbs", chains=..., seed=seed)`. Another run in parallel with the same seed gives the
    same draws; sequential chains go on counting. Per-chain `initial_params` are honoured in both, which Pyro 1.9.2
    alone does not do in parallel.

    Args:
        model: a model with full conditionals.
        seed: of the streams.
        begin: where chains start when `initial_params` does not say.
        moves: move along the ridge.
    """

    transforms: dict[str, Any] = {}  # noqa: RUF012  # all sites are drawn in their own space

    def __init__(self, model: Sweeping, seed: int = 0, begin: Start = "scaled", moves: bool = True) -> None:
        self.model, self.seed, self.begin, self.moves = model, seed, begin, moves
        self._given: list[dict[str, Tensor]] = []
        self._params: dict[str, Tensor] | None = None
        self._chain = -1

    @own_settings()
    def setup(self, warmup_steps: int, X: Any, mask: Any = None) -> None:
        """Start a chain on X (N, D); a worker process of Pyro's carries its chain's number as its name."""
        from ppnmf.inference import check

        worker = multiprocessing.current_process()
        parallel = multiprocessing.parent_process() is not None and worker.name.isdigit()
        self._chain = int(worker.name) if parallel else self._chain + 1
        self.model.require_proper()
        self._X, self._stream = as_matrix(X, mask), Stream.of(self.seed, [self._chain])
        check(self.model, self._X)
        if self._given:
            given = self._given[self._chain if parallel else -1]
            self._state = init(self.model, self._X, self._stream, {site: v[None] for site, v in given.items()})
        else:
            self._state = init(self.model, self._X, self._stream, self.begin, [self._chain])
        self._params = {site: values[0] for site, values in self._state.params.items()}
        self._warmup = warmup_steps
        self._lp: list[Tensor] = []

    @property
    def initial_params(self) -> dict[str, Tensor] | None:
        return self._params

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor]) -> None:
        self._given.append(params)  # Pyro sets one a chain on the same kernel before it starts its workers

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        state = State({site: values[None] for site, values in params.items()}, self._state.sweep)
        self._state, info = step(self.model, state, self._X, self._stream, moves=self.moves)
        if self._state.sweep > self._warmup + 1:
            self._lp.append(info.lp[0])
        return {site: values[0] for site, values in self._state.params.items()}

    def logging(self) -> dict[str, Any]:
        small = {site: values for site, values in self._state.params.items() if values.ndim == 1}
        return {site: f"{float(values[0]):.4g}" for site, values in small.items()}

    def diagnostics(self) -> dict[str, Any]:
        """`lp` of each draw; empty `divergences`, which `arviz.from_pyro` looks for."""
        return {"lp": torch.stack(self._lp) if self._lp else torch.empty(0), "divergences": []}

    def cleanup(self) -> None:
        self._params, self._given = None, []
