"""What is identified of a factorisation, and R-hat and effective sample sizes of it.

W and H themselves are known only up to order and, nearly, scale, so they are not judged. The log joint, the noise,
entries of W @ H and the sorted strengths ‖W_k‖‖H_k‖ are; the strengths are the ones that tell: W @ H can look mixed
while the chains hold different components.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ppnmf.posterior import Posterior
from ppnmf.required import require_posterior
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings

if TYPE_CHECKING:
    import xarray

__all__ = [
    "AGREE",
    "ESS_PER_CHAIN",
    "LEAST_DRAWS",
    "MIXED",
    "Diagnosis",
    "Quantity",
    "chosen_cells",
    "diagnose",
    "entries",
    "identified",
    "judged",
    "named_draws",
    "strengths",
]

# Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), doi:10.1214/20-BA1221: R-hat below 1.01, and a bulk and tail ESS of
# 50 for each half of a chain, below which R-hat itself is not to be trusted. With some sixty quantities a run that is good
# for every use exceeds 1.01 somewhere, so "agree" is drawn at 1.05 and 1.01 earns the word "well".
AGREE, MIXED, ESS_PER_CHAIN, LEAST_DRAWS = 1.05, 1.01, 100, 4
TAILS = (0.05, 0.95)  # quantiles whose ESS is the tail ESS


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
def diagnose(post: Posterior, n: int = 100, seed: int = 0) -> Diagnosis:
    """R-hat, bulk and tail ESS and the Monte Carlo error of the identified quantities, by `arviz_stats`.

    R-hat is the rank-normalised split one; a single chain is cut in two first. Fewer than four draws a chain have none.
    """
    require_posterior("diagnose", post)
    return Diagnosis(tuple(judged(post, n, seed)), post.chains, post.n_draws)


def judged(post: Posterior, n: int = 100, seed: int = 0, first: str | None = None) -> Iterator[Quantity]:
    """The quantities of `diagnose`, one by one; the one of a name first, such as the last that was found wanting."""
    for name, draws in sorted(named_draws(post, n, seed), key=lambda pair: pair[0] != first):
        yield _quantity(name, draws)


def named_draws(post: Posterior, n: int = 100, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """The name of each quantity of `diagnose`, and its draws (chain, draw)."""
    data = identified(post, n, seed)
    return [pair for name in data.data_vars for pair in _named_draws(str(name), data[name])]


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
        if values.ndim > 3:  # between layers: its rows and columns have neither order nor scale
            continue
        places = [f"place of {site}"] if values.ndim == 3 else []
        data[site] = ((*sample, *places), -np.sort(-values, axis=-1) if values.ndim == 3 else values)
    if {"W", "H"} <= set(post.draws):
        rows, columns = chosen_cells(post.X.shape, n, seed).unbind(-1)
        data["strength"] = ((*sample, "place"), _array(strengths(post)))
        data["WH"] = ((*sample, "entry"), _array(entries(post, n, seed)))
        data = data.assign_coords({size: np.arange(data.sizes[size]) for size in data.sizes})
        labels = {"row": _named(post, "rows", rows), "column": _named(post, "columns", columns)}
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


def _named_draws(name: str, values: xarray.DataArray) -> Iterator[tuple[str, np.ndarray]]:
    """Each quantity's name and draws (chain, draw)."""
    draws = np.moveaxis(values.values.reshape(*values.shape[:2], -1), -1, 0)  # (quantity, chain, draw)
    names = [name] if values.ndim == 2 else [f"{name}[{label}]" for label in _labels(values)]
    yield from zip(names, draws, strict=True)


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
        return Quantity(name, mean, sd, *(None if math.isnan(f) else float(f) for f in figures))


def _named(post: Posterior, axis: str, places: Tensor) -> np.ndarray:
    """The names of some of X's "rows" or "columns"; their numbers where the posterior has no names."""
    names = post.names.get(axis)
    return places.numpy() if names is None else np.array(names, dtype=object)[places.numpy()]


def _array(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()
