"""Whether the chains agree, judged on what is identified and said in words.

W and H themselves are known only up to order and, nearly, scale, so they are not judged. The log joint, the noise,
entries of W @ H and the sorted strengths ‖W_k‖‖H_k‖ are; the strengths are the ones that tell: W @ H can look mixed
while the chains hold different components.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ppnmf.diagnostics.names import named
from ppnmf.diagnostics.printed import Summary
from ppnmf.posterior import Kind, Posterior, require_posterior
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings

if TYPE_CHECKING:
    import xarray

__all__ = [
    "Diagnosis",
    "Quantity",
    "Summary",
    "chosen_cells",
    "diagnose",
    "entries",
    "identified",
    "strengths",
    "summary",
]

# Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), doi:10.1214/20-BA1221: R-hat below 1.01, and a bulk and tail ESS of
# 50 for each half of a chain, below which R-hat itself is not to be trusted. With some sixty quantities a run that is good
# for every use exceeds 1.01 somewhere, so "agree" is drawn at 1.05 and 1.01 earns the word "well".
AGREE, MIXED, ESS_PER_CHAIN, LEAST_DRAWS = 1.05, 1.01, 100, 4
TAILS = (0.05, 0.95)  # quantiles whose ESS is the tail ESS
SAME_MODE = 0.01  # relative distance of W @ H below which two modes count as one


@dataclass(frozen=True)
class Quantity:
    """One judged number; None where a figure does not exist (of a constant, or of too few draws)."""

    name: str
    mean: float
    sd: float
    mcse: float | None
    rhat: float | None  # infinite: chains that never move and differ, or values that are not finite
    ess_bulk: float | None
    ess_tail: float | None


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; `agree` is None where the draws cannot say."""

    quantities: tuple[Quantity, ...]
    chains: int
    draws: int

    @property
    def worst(self) -> Quantity | None:
        """The quantity with the greatest R-hat."""
        return max((q for q in self.quantities if q.rhat is not None), key=lambda q: q.rhat or 0.0, default=None)

    @property
    def scarcest(self) -> Quantity | None:
        """The quantity with the least bulk ESS."""
        return min(
            (q for q in self.quantities if q.ess_bulk is not None), key=lambda q: q.ess_bulk or 0.0, default=None
        )

    @property
    def worst_rhat(self) -> float | None:
        return None if self.worst is None else self.worst.rhat

    @property
    def least_ess(self) -> float | None:
        return None if self.scarcest is None else self.scarcest.ess_bulk

    @property
    def least_tail_ess(self) -> float | None:
        return min((q.ess_tail for q in self.quantities if q.ess_tail is not None), default=None)

    @property
    def agree(self) -> bool | None:
        if self.worst_rhat is None:
            return None
        if self.worst_rhat > AGREE:
            return False
        return True if self.chains > 1 else None

    @property
    def enough(self) -> bool:
        """Whether bulk and tail ESS reach 100 a chain, so that R-hat and the errors can be trusted."""
        found = [ess for ess in (self.least_ess, self.least_tail_ess) if ess is not None]
        return bool(found) and min(found) >= ESS_PER_CHAIN * self.chains


@own_settings()
def summary(post: Posterior, n: int = 100, seed: int = 0) -> Summary:
    """Judge a posterior, and say the judgement in a sentence.

    Chains are compared by rank-normalised split R-hat of the log joint, sigma2, the sorted strengths and n entries of
    W @ H; modes by their log joint and W @ H. Draws that are independent by construction are said to be so.

    Args:
        n, seed: how many entries of W @ H, and which choice of them.

    References: Vehtari et al. (2021), doi:10.1214/20-BA1221.
    """
    require_posterior("summary", post)
    if post.kind is Kind.MODES:
        return _of_modes(post)
    found = diagnose(post, n, seed)
    independent = post.kind is Kind.APPROXIMATION  # no chain to judge
    sentence = _about_guide(post) if independent else _about_chains(found)
    return Summary(
        heading=_heading(post),
        table=tuple(asdict(q) for q in found.quantities),
        sentence=" ".join([sentence, *_remarks(post)]),
        agree=None if independent else found.agree,
        worst_rhat=None if independent else found.worst_rhat,
        least_ess=found.least_ess,
    )


@own_settings()
def diagnose(post: Posterior, n: int = 100, seed: int = 0) -> Diagnosis:
    """R-hat, bulk and tail ESS and the Monte Carlo error of the identified quantities, by `arviz_stats`.

    R-hat is the rank-normalised split one; a single chain is cut in two first. Fewer than four draws a chain have none.
    """
    require_posterior("diagnose", post)
    data = identified(post, n, seed)
    quantities = [q for name in data.data_vars for q in _judged(str(name), data[name])]
    return Diagnosis(tuple(quantities), post.chains, post.n_draws)


@own_settings()
def identified(post: Posterior, n: int = 100, seed: int = 0) -> xarray.Dataset:
    """The quantities that are judged: lp, sigma2 and what else is small, strength (place), WH (entry): (chain, draw, ...).

    Of a site with a value a component the values are sorted, greatest first: components have no order.

    WH carries the coordinates `row` and `column` of its entries: names where the posterior has them, else numbers.
    strength and WH are left out when W or H was not kept.
    """
    import xarray as xr

    sample = ("chain", "draw")
    data = xr.Dataset({"lp": (sample, _array(post.stats["lp"]))})
    for site in post.small_sites:
        values = _array(post._kept(site))
        places = [f"place of {site}"] if values.ndim == 3 else [f"{site}_{axis}" for axis in range(values.ndim - 2)]
        data[site] = ((*sample, *places), -np.sort(-values, axis=-1) if values.ndim == 3 else values)
    if {"W", "H"} <= set(post.draws):
        rows, columns = chosen_cells(post.X.shape, n, seed).unbind(-1)
        data["strength"] = ((*sample, "place"), _array(strengths(post)))
        data["WH"] = ((*sample, "entry"), _array(entries(post, n, seed)))
        data = data.assign_coords({size: np.arange(data.sizes[size]) for size in data.sizes})
        labels = {"row": named(post, "rows", rows), "column": named(post, "columns", columns)}
        data = data.assign_coords({axis: ("entry", own) for axis, own in labels.items()})
    return data


@own_settings()
def strengths(post: Posterior) -> Tensor:
    """‖W_k‖‖H_k‖ of the components of each draw, greatest first, float64, shape (chain, draw, K)."""
    W, H = post._kept("W"), post._kept("H")
    norm = torch.linalg.vector_norm
    return (norm(W, dim=-2, dtype=torch.float64) * norm(H, dim=-1, dtype=torch.float64)).sort(descending=True).values


@own_settings()
def entries(post: Posterior, n: int = 100, seed: int = 0) -> Tensor:
    """Entries of W @ H at the `chosen_cells`, float64, shape (chain, draw, n)."""
    rows, columns = chosen_cells(post.X.shape, n, seed).to(post.X.device).unbind(-1)
    W, H = post._kept("W"), post._kept("H")
    return (W[..., rows, :].double() * H[..., :, columns].mT.double()).sum(-1)


@own_settings()
def chosen_cells(shape: tuple[int, int], n: int, seed: int = 0) -> Tensor:
    """Row and column of n different cells of an (N, D) matrix, or of all where there are no more, shape (n, 2)."""
    N, D = shape
    if n >= N * D:
        return torch.cartesian_prod(torch.arange(N), torch.arange(D))
    cells: dict[int, None] = {}
    for u in _uniforms(seed):  # one at a time, so that a greater n keeps the cells of a smaller one
        if len(cells) == n:
            break
        cells[min(int(u * N * D), N * D - 1)] = None
    flat = torch.tensor(list(cells), dtype=torch.int64)
    return torch.stack([flat // D, flat % D], -1)


def _uniforms(seed: int) -> Iterable[float]:
    stream, step = Stream.of(seed), 0
    while True:
        yield from stream.uniforms(step, Site.ENTRIES, range(256), 1)[0, :, 0].tolist()
        step += 1


def _judged(name: str, values: xarray.DataArray) -> Iterable[Quantity]:
    draws = np.moveaxis(values.values.reshape(*values.shape[:2], -1), -1, 0)  # (quantity, chain, draw)
    names = [name] if values.ndim == 2 else [f"{name}[{label}]" for label in _labels(values)]
    for own, one in zip(names, draws, strict=True):
        yield _quantity(own, one)


def _labels(values: xarray.DataArray) -> list[str]:
    if "row" not in values.coords:
        return [str(k) for k in range(values.shape[2])]
    return [f"{i}, {j}" for i, j in zip(values["row"].values, values["column"].values, strict=True)]


def _quantity(name: str, draws: np.ndarray) -> Quantity:
    """The figures of draws (chain, draw)."""
    from arviz_stats import ess, mcse, rhat

    chains, n = draws.shape
    with np.errstate(all="ignore"):
        mean, sd = float(draws.mean()), float(draws.std())
        if not np.isfinite(draws).all():
            return Quantity(name, mean, sd, None, math.inf, 0.0, 0.0)
        if np.ptp(draws) == 0 or n < LEAST_DRAWS:
            return Quantity(name, mean, sd, None, None, None, None)
        if (np.ptp(draws, axis=1) == 0).all():  # no chain moves, and they differ
            return Quantity(name, mean, sd, None, math.inf, float(chains), float(chains))
        parts = draws if chains > 1 else draws[0, : n - n % 2].reshape(2, -1)
        figures = (mcse(draws), rhat(parts), ess(draws), ess(draws, method="tail", prob=TAILS))
        return Quantity(name, mean, sd, *(float(f) if math.isfinite(f) else None for f in figures))


def _about_chains(found: Diagnosis) -> str:
    worst, rhat = found.worst, found.worst_rhat
    if worst is None or rhat is None:
        return (
            f"{found.draws} draw(s) in each of {found.chains} chain(s) are too few to judge: R-hat needs "
            f"{LEAST_DRAWS if found.chains > 1 else 2 * LEAST_DRAWS}, "
            f"and {ESS_PER_CHAIN} effective ones a chain to be trusted."
        )
    chains = f"The {found.chains} chains" if found.chains > 1 else "The chain"
    figure = f"R-hat of {worst.name} is {_number(rhat)}"
    if rhat > AGREE and found.chains > 1:
        bad = sum((q.rhat or 0) > AGREE for q in found.quantities)
        return (
            f"{chains} do not agree: {figure} ({bad} of {len(found.quantities)} quantities exceed {AGREE}): run longer, "
            "or doubt it."
        )
    if rhat > AGREE:
        return f"{chains} does not even agree with itself: {figure} between its parts: run longer, or doubt it."
    figures = f"worst R-hat {_number(rhat)} ({worst.name}), {_scarcity(found)}"
    if found.chains == 1:
        return (
            f"One chain cannot show that it found the whole posterior: its parts agree ({figures}), but run several "
            "from different starts."
        )
    if not found.enough:
        wanted = ESS_PER_CHAIN * found.chains
        return f"{chains} agree: {figures}; but effective draws are few ({wanted} are wanted): run longer for exact averages."
    return f"{chains} agree{' well' if rhat <= MIXED else ''}: {figures}."


def _scarcity(found: Diagnosis) -> str:
    scarcest, tail = found.scarcest, found.least_tail_ess
    if scarcest is None or scarcest.ess_bulk is None or tail is None:
        return "no effective sample size"
    return f"least bulk ESS {scarcest.ess_bulk:.0f} ({scarcest.name}), least tail ESS {tail:.0f}"


def _about_guide(post: Posterior) -> str:
    if not post.attrs.get("converged", True):
        return (
            f"The training had not converged after {post.attrs.get('steps', 'its')} steps: train longer, or doubt it. "
            "The draws are independent ones from the guide, so R-hat and ESS say nothing about that."
        )
    return (
        "The draws are independent ones from the fitted guide: there are no chains to agree, and R-hat and ESS say nothing "
        "about how near the guide is to the posterior. Its ELBO does, between fits: train from several seeds and compare."
    )


def _remarks(post: Posterior) -> list[str]:
    remarks = [] if post.survey is None else [str(post.survey)]
    if post.attrs.get("interrupted"):
        remarks.append("The run was interrupted, so this is less than was asked for.")
    if not {"W", "H"} <= set(post.draws):
        remarks.append("W or H was not kept: strengths and entries of W @ H could not be judged.")
    if post.attrs.get("lp_without_prior_constant"):
        remarks.append(
            "A rate is zero, so the log joint lacks its prior's constant: compare it with others of the same model only."
        )
    divergences = post.attrs.get("divergences")
    if divergences and sum(divergences):
        remarks.append(f"{sum(divergences)} transitions diverged.")
    return remarks


def _of_modes(post: Posterior) -> Summary:
    """Restarts of an optimiser: which is best, and whether the others reached the same W @ H."""
    lp = post.stats["lp"][:, 0].double()
    small = {site: post._kept(site)[:, 0].double() for site in post.small_sites if post._kept(site).ndim == 2}
    best, distance = int(lp.argmax()), _distances(post)
    short = lp[best] - lp
    table = [
        {
            "restart": c,
            "lp": float(lp[c]),
            "below_best": float(short[c]),
            **{site: float(values[c]) for site, values in small.items()},
            "distance": float(distance[c]),
        }
        for c in range(post.chains)
    ]
    same = int((distance < SAME_MODE).sum())
    if not bool(lp.isfinite().all()):
        sentence, agree = "The log joint of a restart is not finite: the run failed.", False
    elif post.chains == 1:
        sentence, agree = "One restart reached one mode: more restarts would show whether there are better ones.", None
    elif same == post.chains:
        sentence, agree = (
            f"All {post.chains} restarts reached the same W @ H, within {SAME_MODE:.0%}; restart {best} is best.",
            True,
        )
    else:
        others = (
            f"{same} of {post.chains} restarts reached its W @ H (within {SAME_MODE:.0%})"
            if same > 1
            else "no other reached its W @ H"
        )
        sentence, agree = (
            (
                f"The restarts do not agree: restart {best} is best (lp {_number(float(lp[best]))}), {others}, and the worst falls "
                f"{_number(float(short.max()))} nats short of it: there are several modes."
            ),
            False,
        )
    late = post.attrs.get("converged", []).count(False) if isinstance(post.attrs.get("converged"), list) else 0
    dead = max(post.attrs.get("dead_components", [0]), default=0)
    remarks = ["A mode has no spread: it says nothing about uncertainty."]
    if late:
        remarks.append(f"{late} of {post.chains} restart(s) had not converged: raise max_sweeps.")
    if dead:
        remarks.append(f"{dead} component(s) died in the worst restart.")
    text = " ".join([sentence, *remarks, *_remarks(post)])
    return Summary(_heading(post), tuple(table), text, agree, None, None)


def _distances(post: Posterior) -> Tensor:
    """‖W H - best W H‖ / ‖best W H‖ of each restart, shape (chain,), from Gram matrices."""
    W, H = post._kept("W")[:, 0].double(), post._kept("H")[:, 0].double()
    best = int(post.stats["lp"][:, 0].argmax())
    inner = lambda A, B, F, G: ((A.mT @ F) * (B @ G.mT)).sum((-2, -1))  # noqa: E731  # <A B, F G>
    size = inner(W[best], H[best], W[best], H[best])
    square = inner(W, H, W, H) - 2 * inner(W, H, W[best], H[best]) + size
    square[best] = 0.0
    return (square.clamp(min=0) / size.clamp(min=torch.finfo(size.dtype).tiny)).sqrt()


def _heading(post: Posterior) -> str:
    (N, D), each = post.X.shape, "restart" if post.kind is Kind.MODES else "chain"
    size = f"{post.chains} {each}{'s' if post.chains > 1 else ''}"
    draws = "" if each == "restart" else f" × {post.n_draws} draws"
    return f"{post.model.name} by {post.method}: X {N} × {D}, rank {post.model.rank}; {size}{draws}"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "infinite" if value == math.inf else str(value)
    return f"{value:.3f}" if 0.9 < value < 1.1 else f"{value:.2f}" if abs(value) < 100 else f"{value:.6g}"


def _array(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()
