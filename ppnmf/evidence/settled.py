r"""Where the modes are: chains for methods that do not look for them.

A survey chooses its starts by their log joint, and climbs before that. Both look for modes that are high, and a mode's mass is
its height and its width: digits have at rank 8 a mode whose draws lie 450 nats below those of another and which has exp(366)
times its mass. So `weighed` begins short chains from many random starts, and those go on that have the greatest

.. math:: \log m \approx E[\log p(X, \theta) - \log r(\theta)],

the mean over draws, r with their moments: that is log m and the divergence of r from the posterior there, which is about the same
in all modes. Chains that are on their way look wider than they are; the straight line along which each entry went is taken
out. What differs by less is beyond all this (at rank 6 of two modes the one that is 66 nats lighter looks 110 heavier): stepping
stones give the masses of the modes that are left.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ppnmf.evidence.orders import axes_of, in_one_order
from ppnmf.inference import gibbs
from ppnmf.inference.start import SCALED
from ppnmf.posterior import Posterior
from ppnmf.protocols import Matrix, Params, Stepping, Sweeping

__all__ = ["CHAINS", "finished", "settled", "weighed"]

CHAINS = 4
LOOKS, APART_BY = 50, 4  # draws of each chain, and the sweeps between them
STARTS = 48  # short chains
SIGHTS = 20  # draws of each, by which it is judged
ROUNDS, CHOSEN = 2, 8  # a third goes on after the first, and so many after the last
ROOM = 2**29  # bytes of the draws of all short chains
AHEAD = 2000  # of seeds, so that the short chains' random numbers are not those of the others
LIGHT = 300.0  # nats below the heaviest chain's by that approximation, from which a mode's mass is nothing
ON_ITS_WAY = 3.0  # standard deviations of the log joint between a chain's halves, above which it is


def settled(model: Sweeping, X: Matrix, warmup: int, seed: int, progress: bool) -> Posterior:
    """Chains at the posterior, begun as `gibbs` begins them, with a few draws of each.

    Raises KeyboardInterrupt where Ctrl-C ended them.
    """
    return _drawn(model, X, {"draws": LOOKS, "thin": APART_BY, "warmup": warmup, "chains": CHAINS}, seed, progress)


def weighed(model: Stepping, X: Matrix, warmup: int, seed: int, progress: bool) -> Posterior:
    """The same for some chains in the modes that have the greatest masses of those that many starts lead to.

    Without a warm-up, or where the draws of so many have no room, it is `settled`.
    """
    size = sum(math.prod(dims.values()) for dims in model.sites(*X.shape).values())
    starts = min(STARTS, ROOM // (8 * size * SIGHTS))
    if warmup == 0 or starts <= CHOSEN:
        return settled(model, X, warmup, seed, progress)
    short: dict[str, Any] = {"draws": SIGHTS, "thin": max(1, warmup // 100), "warmup": warmup // 4}
    begun: dict[str, Any] = {"chains": starts, "init": SCALED}
    for n in range(ROUNDS):
        post = _drawn(model, X, short | begun, seed + AHEAD + n, progress)
        number = CHOSEN if n == ROUNDS - 1 else max(CHOSEN, starts // 3)
        best = _log_masses(post).argsort(descending=True)[:number]
        begun = {"chains": number, "init": post.select(chains=best.tolist())}
    post = _drawn(model, X, {"draws": LOOKS, "thin": APART_BY, "warmup": warmup // 4} | begun, seed, progress)
    masses = _log_masses(post)
    heaviest = masses.masked_fill(_on_its_way(post), -math.inf).max()
    return post.select(chains=torch.nonzero(masses >= heaviest - LIGHT)[:, 0].tolist())


def _drawn(model: Sweeping, X: Matrix, options: dict[str, Any], seed: int, progress: bool) -> Posterior:
    return finished(gibbs.run(model, X, **options, seed=seed, progress=progress))  # type: ignore[arg-type]


def _log_masses(post: Posterior) -> Tensor:
    """What the draws of each chain say of the log of its mode's mass, up to what all modes share, (chains,), on the CPU."""
    model: Any = post.model
    masses = []
    for c in range(post.chains):
        draws: Params = {site: values[c] for site, values in post.draws.items()}
        last = {site: values[-1] for site, values in draws.items()}
        steady = _steady(in_one_order(draws, last, model.classes(), axes_of(model)))
        log_reference = model.reference(steady, 1.0).log_prob(steady)
        masses.append(float((post.stats["lp"][c].double().cpu() - log_reference.cpu()).mean()))
    return torch.tensor(masses, dtype=torch.float64).nan_to_num(-math.inf, -math.inf, -math.inf)


def _steady(draws: Params) -> dict[str, Tensor]:
    """Draws (S, *site) without the straight line along which each entry went; none falls below zero."""
    found = {}
    for site, values in draws.items():
        t = torch.linspace(-1, 1, len(values), dtype=values.dtype, device=values.device)
        slope = torch.tensordot(t, values, 1) / t.square().sum()
        found[site] = (values - t.view(-1, *[1] * slope.ndim) * slope).clamp(min=torch.finfo(values.dtype).tiny)
    return found


def _on_its_way(post: Posterior) -> Tensor:
    """Whether the log joint of each chain differs between its halves by more than it varies in them, (chains,), on the CPU."""
    lp = post.stats["lp"].double().cpu()
    first, second = lp.chunk(2, 1)
    within = (0.5 * (first.var(1) + second.var(1))).sqrt()
    return (second.mean(1) - first.mean(1)).abs() > ON_ITS_WAY * within


def finished(post: Posterior) -> Posterior:
    """The posterior. Raises KeyboardInterrupt where Ctrl-C ended the run."""
    if post.attrs["interrupted"]:
        raise KeyboardInterrupt
    return post
