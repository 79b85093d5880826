"""More draws of a Gibbs run that has ended, to the bits of a run that had been asked for them at once."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from ppnmf.checks import whole_number
from ppnmf.inference import check, length, record
from ppnmf.inference.asked import extended
from ppnmf.inference.chain import State
from ppnmf.inference.clock import Clock
from ppnmf.inference.room import require_room
from ppnmf.posterior import Posterior
from ppnmf.protocols import Params, Sweeping, require_ability
from ppnmf.required import require_posterior
from ppnmf.rng import Stream
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["extend"]

CHANGED = ("selected", "weighted", "alignment", "kept_every", "joined", "transformed")  # draws that no chain ends with
OF_THE_END = ("until", "ended", "sweeps", "target_ess", "max_seconds")  # no longer true of what goes on


@own_settings()
def extend(post: Posterior, draws: int = 1000, *, progress: bool = True) -> Posterior:
    """The same chains with more draws: they go on where they ended, at the same distance from draw to draw.

    `ppnmf.extend(ppnmf.fit(model, X, draws=500), 500)` has the draws of `ppnmf.fit(model, X, draws=1000)`, to the bit, also
    after `save` and `load`.

    Args:
        post: what `ppnmf.fit` returned by "gibbs", with the draws of all sites.
        draws: to be added to each chain.

    Returns: a Posterior with all draws; after Ctrl-C with those so far, attrs["interrupted"] True.

    Raises:
        TypeError: no posterior.
        ValueError: it is of another method, its draws were selected, weighted, aligned, joined or kept of some sites
            alone, or it is one process's part of a spread run.
    """
    require_posterior("extend", post)
    whole_number("draws", draws, 1)
    model = require_extensible(post)
    check(model, post.X)
    require_room(model, post.X, post.chains, post.n_draws + draws, list(post.draws))
    began = time.perf_counter()
    thin = int(post.attrs["thin"])
    done = int(post.attrs["warmup"]) + post.n_draws * thin
    params: Params = {site: values[:, -1].clone() for site, values in post.draws.items()}
    recorder = record.open(model, post.X, lambda: params, sites=list(params), draws=draws, plan={})
    stream = Stream.of(post.seed, post.chains)
    shears = tuple(post.attrs.get("collapsed", ()))
    fresh = int(post.attrs.get("fresh", 1))
    moves = bool(post.attrs["moves"])
    chains = length.Chains(model, post.X, stream, recorder, list(params), moves, None, shears, fresh)
    clock = Clock(post.X, began, None)
    with recorder, single_threaded():
        ended = length.run(chains, State(params, done + 1), length.Fixed(done, draws, thin), clock, progress)
    added = recorder.draws()
    attrs = {name: value for name, value in post.attrs.items() if name not in OF_THE_END}
    lp = torch.cat([post.stats["lp"], recorder.lp()], 1)
    asked = {"asked": extended(attrs["asked"], lp.shape[1])} if "asked" in attrs else {}
    return replace(
        post,
        draws={site: torch.cat([values, added[site]], 1) for site, values in post.draws.items()},
        stats={"lp": lp},
        timings={**post.timings, "total": post.timings.get("total", 0.0) + clock.gone},
        attrs={**attrs, **asked, "interrupted": ended.attrs["interrupted"]},
    )


def require_extensible(post: Posterior) -> Sweeping:
    """The model of chains that can go on where they ended. Raises ValueError, in a sentence, for others."""
    again = "fit anew, or join a run with init=post and another seed"
    if post.method != "gibbs":
        raise ValueError(f"extend takes chains by gibbs, and these draws are by {post.method}: {again}")
    changed = [name for name in CHANGED if post.attrs.get(name)]
    if changed:
        raise ValueError(f"extend takes what fit returned, and attrs[{changed[0]!r}] says that it was changed: {again}")
    if post.attrs.get("rows") is not None:
        raise ValueError(f"extend takes a run of one process, and this is one process's part of another: {again}")
    missing = [site for site in post.dimensions if site not in post.draws]
    if missing:
        raise ValueError(f"extend needs where every site ended, and {', '.join(missing)} was not kept: {again}")
    require_ability("extend", post.model, Sweeping)
    assert isinstance(post.model, Sweeping)
    return post.model
