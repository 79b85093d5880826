r"""Whether chains whose R-hat is too great are in different modes, or in one and too short.

R-hat of chains that agree is no smaller than their few effective draws let it be. With S effective draws in M halves of chains, the
halves' means differ by chance alone by

.. math:: \hat R^2 \lesssim 1 + \frac{M / S}{1 - M / S} \, \frac{\chi^2_{M-1}}{M-1},

so that four chains with 100 effective draws in all exceed 1.05 in one run of five. S is counted *within* each chain: chains that
stay apart mix each for itself, and their R-hat is greater than so many effective draws explain.

References: Vehtari et al. (2021), doi:10.1214/20-BA1221, for R-hat by halves of chains, rank-normalised.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from ppnmf.diagnostics.modes import SHARED, groups
from ppnmf.identified import AGREE, ESS_PER_CHAIN, Diagnosis, named_draws
from ppnmf.posterior import Posterior

__all__ = ["Crawling", "crawling", "explained"]

BY_CHANCE = 0.999  # of the runs of chains that agree have a smaller R-hat
LEVEL = "lp"  # that tells modes apart first: where it does not agree, nothing is said of the others


class Crawling(NamedTuple):
    """What chains of one mode are too short for.

    Args:
        name: the quantity with the fewest effective draws of those whose R-hat is too great; its rhat, and its ess, the
            lesser of bulk and tail.
        others: how many more there are.
        draws: of each chain that would do, about.
    """

    name: str
    rhat: float
    ess: float
    others: int
    draws: int


def crawling(post: Posterior, found: Diagnosis, n: int = 100, seed: int = 0) -> Crawling | None:
    """What the chains are too short for, if that is all that is wrong; None where they agree, or may be in several modes.

    They are in one mode, and too short, where R-hat of the log joint agrees, none exceeds 1.2, each that exceeds 1.05 is what
    chains as slow as these give by chance, and `modes.groups` finds one group.

    Args:
        found: the diagnosis of the same n entries by the same seed.
    """
    over = {q.name: q for q in found.quantities if (q.rhat or 0.0) > AGREE}
    if found.chains == 1 or not over or LEVEL in over or max(q.rhat or 0.0 for q in over.values()) > SHARED:
        return None
    draws = {name: values for name, values in named_draws(post, n, seed) if name in over}
    if not all(explained(over[name].rhat or 0.0, values) for name, values in draws.items()):
        return None
    if len(groups(post, n, seed)) > 1:
        return None
    ess = {name: min(q.ess_bulk or 1.0, q.ess_tail or 1.0) for name, q in over.items()}
    scarcest = min(ess, key=lambda name: ess[name])
    wanted = ESS_PER_CHAIN * found.chains * found.draws / ess[scarcest]
    return Crawling(scarcest, over[scarcest].rhat or 0.0, ess[scarcest], len(over) - 1, _rounded_up(wanted))


def explained(rhat: float, draws: np.ndarray) -> bool:
    """Whether chance alone gives chains that agree so great an R-hat, as slow as each is for itself; draws (chain, draw)."""
    from arviz_stats.base import array_stats

    each = [float(array_stats.ess(chain[None], chain_axis=0, draw_axis=1)) for chain in draws]
    share = 2 * sum(1 / ess for ess in each) / len(draws)  # M / S, by the mean of the chains' autocorrelation times
    if not share < 1:  # fewer than one effective draw in a half: they tell nothing, or are not numbers
        return False
    freedom = 2 * len(draws) - 1
    by_chance = float(chi2.ppf(BY_CHANCE, freedom)) / freedom
    return rhat**2 <= 1 + share / (1 - share) * by_chance


def _rounded_up(number: float) -> int:
    """To two digits, upwards.

    >>> _rounded_up(2317.0), _rounded_up(96.2)
    (2400, 97)
    """
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit
