"""Pyro's NUTS on the same program: the second route to the same posterior, for small problems."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide.initialization import init_to_uniform, init_to_value
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.data.matrix import Dense
from ppnmf.inference.beginning import beginning
from ppnmf.inference.chain import log_joint
from ppnmf.inference.clock import Clock
from ppnmf.inference.held import held
from ppnmf.inference.room import require_room
from ppnmf.inference.start import Start, start
from ppnmf.posterior import Kind, Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Deriving, Params, Sweeping, require_ability
from ppnmf.rng import Stream, forked
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
    init: Start = "survey",
    survey: int | None = None,
    progress: bool = True,
) -> Posterior:
    """Sample by the no-U-turn sampler, one chain after another.

    (Pyro's parallel chains ignore their initial values and repeat their draws; ours do neither.)

    Args:
        init, survey: where chains start, as in `gibbs.run`; where no survey is made, each at random near Pyro's origin.

    Returns: a Posterior; after Ctrl-C of the chains that had ended, attrs["interrupted"] True.

    Raises:
        TypeError: the model has no known log joint of all its sites.
    """
    require_ability("nuts", model, Sweeping)
    whole_numbers(draws=(draws, 1), warmup=(warmup, 0), chains=(chains, 1), max_tree_depth=(max_tree_depth, 1))
    model.require_proper()
    require_room(model, X, chains, draws)
    began = time.perf_counter()
    starts, facts = beginning(model, X, seed, chains, init, survey, warmup).without_record(
        Clock(X, began, None), progress
    )
    samples: list[dict[str, Tensor]] = []
    divergent: list[int] = []
    with bar(chains * (warmup + draws), f"nuts, {chains} chain(s)", progress) as ticker:
        for chain in range(chains):
            try:
                begin = None if starts is None else {site: values[chain] for site, values in starts.items()}
                drawn, divergences = _chain(model, X, draws, warmup, max_tree_depth, seed, chain, begin, ticker.update)
            except KeyboardInterrupt:  # Pyro gives nothing of a chain that has not ended
                if not samples:
                    raise
                break
            samples.append(drawn)
            divergent.append(divergences)
    interrupted, chains = len(samples) < chains, len(samples)
    sizes = {site: tuple(dims.values()) for site, dims in model.sites(*X.shape).items()}
    random = [site for site in sizes if site in samples[0]]
    found = {site: torch.cat([sample[site] for sample in samples]).to(X.dtype) for site in random}
    if isinstance(model, Deriving):
        found |= model.derived(found)
    known = start(model, X, Stream.of(seed, chains)) if len(found) < len(sizes) else {}
    found |= {site: known[site][:, None].expand(-1, draws, *sizes[site]) for site in sizes if site not in found}
    found = {site: held(model, site, found[site].reshape(chains, draws, *size)) for site, size in sizes.items()}
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
        attrs={"warmup": warmup, "thin": 1, "divergences": divergent, "interrupted": interrupted, **facts},
    )


def _chain(
    model: Sweeping,
    X: Dense,
    draws: int,
    warmup: int,
    depth: int,
    seed: int,
    chain: int,
    begin: Params | None,
    tick: Callable[[], object],
) -> tuple[dict[str, Tensor], int]:
    """One chain's draws, each (1, draw, *site), and how many of its transitions diverged."""
    divergences = 0

    def after_step(kernel: NUTS, params: object, stage: str, step: int) -> None:
        nonlocal divergences
        if stage.startswith("Sample"):
            divergences = len(kernel.diagnostics()["divergences"])
        tick()

    with forked(seed, X.device, chain):
        strategy = init_to_uniform if begin is None else init_to_value(values=begin)
        kernel = NUTS(model, max_tree_depth=depth, init_strategy=strategy)
        mcmc = MCMC(kernel, draws, warmup_steps=warmup, disable_progbar=True, hook_fn=after_step)
        mcmc.run(X.values, X.mask)
    return mcmc.get_samples(group_by_chain=True), divergences
