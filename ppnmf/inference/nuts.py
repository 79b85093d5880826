"""Pyro's NUTS on the same program: the second route to the same posterior, for small problems."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.data.matrix import Dense
from ppnmf.inference.gibbs import log_joint
from ppnmf.inference.room import require_room
from ppnmf.posterior import Kind, Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Sweeping, require_ability
from ppnmf.rng import forked
from ppnmf.settings import own_settings

__all__ = ["run"]


@own_settings()
@torch.enable_grad()
def run(
    model: Sweeping,
    X: Dense,
    *,
    draws: int = 1000,
    warmup: int = 1000,
    chains: int = 4,
    seed: int = 0,
    max_tree_depth: int = 8,
    progress: bool = True,
) -> Posterior:
    """Sample by the no-U-turn sampler, one chain after another, each from its own draw of the prior.

    (Pyro's parallel chains ignore their initial values and repeat their draws; ours do neither.)

    Returns: a Posterior; after Ctrl-C of the chains that had ended, attrs["interrupted"] True.

    Raises:
        TypeError: the model has no known log joint of all its sites.
    """
    require_ability("nuts", model, Sweeping)
    whole_numbers(draws=(draws, 1), warmup=(warmup, 0), chains=(chains, 1), max_tree_depth=(max_tree_depth, 1))
    model.require_proper()
    require_room(model, X, chains, draws)
    began = time.perf_counter()
    samples: list[dict[str, Tensor]] = []
    divergent: list[int] = []
    with bar(chains * (warmup + draws), f"nuts, {chains} chain(s)", progress) as ticker:
        for chain in range(chains):
            try:
                drawn, divergences = _chain(model, X, draws, warmup, max_tree_depth, seed, chain, ticker.update)
            except KeyboardInterrupt:  # Pyro gives nothing of a chain that has not ended
                if not samples:
                    raise
                break
            samples.append(drawn)
            divergent.append(divergences)
    interrupted, chains = len(samples) < chains, len(samples)
    sizes = {site: tuple(dims.values()) for site, dims in model.sites(*X.shape).items()}
    found = {site: torch.cat([sample[site] for sample in samples]).to(X.dtype) for site in sizes}
    found = {site: found[site].reshape(chains, draws, *size) for site, size in sizes.items()}
    lp = log_joint(model, X, {site: values.flatten(0, 1) for site, values in found.items()})
    return Posterior(
        draws=found,
        stats={"lp": lp.reshape(chains, draws)},
        model=model,
        X=X,
        method="nuts",
        kind=Kind.CHAINS,
        seed=seed,
        timings={"total": time.perf_counter() - began},
        attrs={"warmup": warmup, "thin": 1, "divergences": divergent, "interrupted": interrupted},
    )


def _chain(
    model: Sweeping, X: Dense, draws: int, warmup: int, depth: int, seed: int, chain: int, tick: Callable[[], object]
) -> tuple[dict[str, Tensor], int]:
    """One chain's draws, each (1, draw, *site), and how many of its transitions diverged."""
    divergences = 0

    def after_step(kernel: NUTS, params: object, stage: str, step: int) -> None:
        nonlocal divergences
        if stage.startswith("Sample"):
            divergences = len(kernel.diagnostics()["divergences"])
        tick()

    with forked(seed, X.device, chain):
        kernel = NUTS(model, max_tree_depth=depth)
        mcmc = MCMC(kernel, draws, warmup_steps=warmup, disable_progbar=True, hook_fn=after_step)
        mcmc.run(X.values, X.mask)
    return mcmc.get_samples(group_by_chain=True), divergences
