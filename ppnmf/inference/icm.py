"""Iterated conditional modes: the mode of the log joint, by the Gibbs sweep with every draw replaced by its mode.

Schmidt, Winther, Hansen (2009), section 4. Each step maximises the log joint over one block, so it never falls.
"""

from __future__ import annotations

import time
import warnings

import torch
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.data.matrix import Dense
from ppnmf.distributions import RectifiedNormal
from ppnmf.inference.gibbs import Info, State
from ppnmf.inference.start import Start, noise_mode, start
from ppnmf.inference.sweep import exponential_rates, log_joint, sweep_factors
from ppnmf.posterior import Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Conjugate, Matrix
from ppnmf.rng import Stream

__all__ = ["begin", "dead_components", "run", "step"]

ORDINARY_SWEEPS = 10


def step(model: Conjugate, state: State, X: Matrix) -> tuple[State, Info]:
    """One sweep of modes: W, H, the noise variance, and the scales of the components."""
    W, H, misfit = sweep_factors(model.prior, state.params, X, None)
    sigma2 = noise_mode(model, X, misfit)
    W, H = _balance(model, W, H)
    params = {"W": W, "H": H, "sigma2": sigma2.to(W.dtype)}
    return State(params, state.sweep + 1), Info(log_joint(model, X, params, misfit))


def begin(model: Conjugate, X: Matrix, stream: Stream, init: Start, restart: int = 0) -> State:
    """The state before the first sweep: a named start, then ten sweeps of ordinary NMF (flat priors).

    At the start the noise looks as large as the data; a prior would shrink components to zero against it, and zero is
    absorbing: W_k = 0 makes H_k = 0. Given values are taken as they are.
    """
    params = start(model, X, stream, init, [restart])
    if isinstance(init, str):
        for _ in range(ORDINARY_SWEEPS):
            W, H, misfit = sweep_factors(_flat, params, X, None)
            params = {"W": W, "H": H, "sigma2": noise_mode(model, X, misfit).to(W.dtype)}
    return State(params, 1)


def _flat(site: str) -> RectifiedNormal:
    zero = torch.zeros(1, 1, dtype=torch.float64)
    return RectifiedNormal(zero, zero, validate_args=False)


def _balance(model: Conjugate, W: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
    """W_k ← c W_k, H_k ← H_k / c at the c that maximises exponential priors, which leaves W @ H as it is."""
    rates = exponential_rates(model.prior, W.device)
    if rates is None:
        return W, H
    a, b = (W * rates[0].to(W)).sum(-2), (H * rates[1].to(H)).sum(-1)
    c = torch.where((a > 0) & (b > 0), (b / a).sqrt(), torch.ones_like(a))
    return W * c[:, None, :], H / c[:, :, None]


def run(
    model: Conjugate,
    X: Dense,
    *,
    restarts: int = 1,
    tol: float = 1e-6,
    max_sweeps: int = 2000,
    seed: int = 0,
    init: Start = "scaled",
    progress: bool = True,
) -> Posterior:
    """Climb to a mode from each of `restarts` starts; each is a chain of one draw.

    Args:
        model: a Gaussian model; its rates may be zero (then `lp` drops the prior's constant).
        tol: a restart has converged when a sweep changes its log joint by less than this, relatively.
        max_sweeps: a restart that has not converged by then is left there, with a warning.

    Returns: a Posterior; attrs hold "sweeps", "converged" and "dead_components" of each restart, and "interrupted".

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count or a tolerance out of its range.
    """
    if not isinstance(model, Conjugate):
        raise TypeError(f"icm needs full conditionals; {getattr(model, 'name', model)} offers none: use svi")
    whole_numbers(restarts=(restarts, 1), max_sweeps=(max_sweeps, 1))
    if not tol >= 0:
        raise ValueError(f"tol is {tol!r}; it must be a number >= 0")
    began, interrupted = time.perf_counter(), False
    modes, lps, sweeps, converged = [], [], [], []
    with bar(restarts * max_sweeps, f"icm, {restarts} start(s)", progress) as ticker:
        for restart in range(restarts):
            stream = Stream.of(seed, [restart])
            state = begin(model, X, stream, init, restart)
            lp, reached = torch.tensor([-torch.inf], dtype=torch.float64), False
            try:
                while state.sweep <= max_sweeps and not reached:
                    state, info = step(model, state, X)
                    reached = bool((info.lp - lp).abs() <= tol * info.lp.abs().clamp(min=1.0))
                    lp = info.lp
                    ticker.update()
            except KeyboardInterrupt:
                interrupted = True
            if not interrupted or lp.isfinite():
                modes.append(state.params)
                lps.append(lp)
                sweeps.append(state.sweep - 1)
                converged.append(reached)
            if interrupted:
                break
            ticker.update(max_sweeps - state.sweep + 1)
    if not modes:
        raise KeyboardInterrupt
    draws = {site: torch.stack([mode[site] for mode in modes]) for site in ("W", "H", "sigma2")}
    dead = dead_components(draws["W"][:, 0], draws["H"][:, 0])
    _warn(converged, dead, interrupted, tol, max_sweeps)
    priors = [model.prior(site) for site in ("W", "H")]
    flat = any(bool(((prior.linear == 0) & (prior.precision == 0)).any()) for prior in priors)
    return Posterior(
        draws=draws,
        stats={"lp": torch.stack(lps)},
        model=model,
        X=X,
        method="icm",
        seed=seed,
        timings={"total": time.perf_counter() - began},
        attrs={
            "sweeps": sweeps,
            "converged": converged,
            "dead_components": dead,
            "tol": tol,
            "lp_without_prior_constant": flat,
            "interrupted": interrupted,
        },
    )


def dead_components(W: Tensor, H: Tensor) -> list[int]:
    """How many components of W (C, N, K) and H (C, K, D) are zero throughout, for each chain."""
    dead = (W == 0).all(-2) | (H == 0).all(-1)
    return [int(number) for number in dead.sum(-1)]


def _warn(converged: list[bool], dead: list[int], interrupted: bool, tol: float, max_sweeps: int) -> None:
    if not interrupted and not all(converged):
        late = converged.count(False)
        warnings.warn(
            f"icm: {late} of {len(converged)} restart(s) had not converged to {tol:g} after {max_sweeps} sweeps: "
            "raise max_sweeps or tol",
            stacklevel=3,
        )
    if any(dead):
        warnings.warn(
            f"icm: {max(dead)} component(s) died (zero throughout) in the worst restart: the rates may be too high for "
            "this data, or the rank too great",
            stacklevel=3,
        )
