"""Components beside known signatures: how alike, over the posterior; which are mixtures; what each sample has of each.

Columns are matched by their names, whatever their order. The 96 classes of single-base substitutions are known by the usual
spellings: A[C>A]G, ACG>AAG, C>A:ACG, "C>A ACG", ACG:A.

A component is called a mixture of two references where neither is close to it (the greatest mean cosine is below `CLOSE`), some
non-negative combination of two is, and the lesser of the two surely has a part in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.checks import described
from ppnmf.data import datasets
from ppnmf.data.containers import opened
from ppnmf.data.files import read
from ppnmf.data.labelled import Labelled, Labels, order, taken
from ppnmf.diagnostics.alignment import align
from ppnmf.posterior import Posterior
from ppnmf.required import require_posterior
from ppnmf.settings import own_settings
from ppnmf.tables import Interval, interval

__all__ = ["Mixture", "Signatures", "channel", "signatures"]

DRAWS = 400  # that are looked at, at most
FEWEST, AT_ONCE = 50, 2**25  # so many fewer where X has many rows: loadings that are held together
CLOSE = 0.95  # mean cosine from which one reference, or two together, stand for a component
LEAST = 0.1  # the share that the lesser of two has with probability `level` at least
SPELLINGS = (  # of a substitution: where it stands, what it becomes, and its neighbours
    re.compile(r"(?P<left>[ACGT])\[(?P<old>[CT])>(?P<new>[ACGT])\](?P<right>[ACGT])"),
    re.compile(r"(?P<left>[ACGT])(?P<old>[CT])(?P<right>[ACGT])>(?P=left)(?P<new>[ACGT])(?P=right)"),
    re.compile(r"(?P<old>[CT])>(?P<new>[ACGT])[:., _|](?P<left>[ACGT])(?P=old)(?P<right>[ACGT])"),
    re.compile(r"(?P<left>[ACGT])(?P<old>[CT])(?P<right>[ACGT])[:., _|](?P<new>[ACGT])"),
)


def channel(name: str) -> str | None:
    """A substitution class as A[C>A]G; None where the name is none.

    >>> channel("C>A:ACG"), channel("ACG>AAG"), channel("TP53")
    ('A[C>A]G', 'A[C>A]G', None)
    """
    for spelling in SPELLINGS:
        found = spelling.fullmatch(name.strip().upper())
        if found and found["old"] != found["new"]:
            return f"{found['left']}[{found['old']}>{found['new']}]{found['right']}"
    return None


class Mixture(NamedTuple):
    """Two references that stand for a component together, and how much of it is the first's."""

    names: tuple[str, str]
    share: Interval  # of the first, in what both explain
    cosine: Interval  # of the two together with the component

    def __str__(self) -> str:
        one, other = self.names
        sure = self.share.lower == self.share.upper  # of one draw
        bounds = "" if sure else f" ({self.share.lower:.0%} to {self.share.upper:.0%})"
        return f"{self.share.mean:.0%}{bounds} {one} with {other}, together {self.cosine.mean:.3f}"


@dataclass(frozen=True, eq=False)
class Signatures:
    """What draws of a posterior say of its components beside R references; strongest component first.

    Attributes:
        names: of the components, (K,), by their place.
        references: (R,).
        draws: cosines of each of S draws, (S, K, R).
        share: of each component (K,), of all that X is expected to be.
        mutations: of each row and component (N, K), what X has of it in expectation, exposures included: its mean over the
            draws, and bounds that hold `level` of them.
        mixtures: of each component, the two references that it is a mixture of, or None.
        order: (K,), the number of each component in the aligned posterior, `ppnmf.align(post.typical())`.
        rows: names of X's rows. level: of the intervals.
    """

    names: tuple[str, ...]
    references: tuple[str, ...]
    draws: np.ndarray
    share: np.ndarray
    mutations: Interval
    mixtures: tuple[Mixture | None, ...]
    order: tuple[int, ...]
    rows: tuple[str, ...]
    level: float

    @property
    def cosines(self) -> Interval:
        """(K, R): means, and bounds that hold `level` of the draws."""
        return interval(torch.from_numpy(self.draws), self.level)

    @property
    def nearest(self) -> tuple[str, ...]:
        """The reference with the greatest mean cosine to each component."""
        return tuple(self.references[r] for r in self.draws.mean(0).argmax(1))

    def to_frame(self) -> Any:
        """A row a component: its share, the nearest reference, their cosine with its bounds, and what it is a mixture of."""
        import pandas

        found = self.cosines
        best = found.mean.argmax(1)
        at = np.arange(len(best)), best
        columns = {
            "share": self.share,
            "reference": self.nearest,
            "cosine": found.mean[at],
            "lower": found.lower[at],
            "upper": found.upper[at],
            "mixture": ["" if own is None else str(own) for own in self.mixtures],
        }
        return pandas.DataFrame(columns, index=list(self.names))

    def mutations_frame(self) -> Any:
        """A row of X and component a line: how many of its mutations are the component's, with bounds."""
        import pandas

        index = pandas.MultiIndex.from_product([self.rows, self.names], names=["row", "component"])
        return pandas.DataFrame({name: own.ravel() for name, own in self.mutations._asdict().items()}, index=index)

    def __str__(self) -> str:
        frame = self.to_frame()
        lines = [
            f"{len(self.names)} components beside {len(self.references)} references, {self.level:.0%} of the draws:"
        ]
        for name, own in frame.iterrows():
            near = f"{own['reference']} {own['cosine']:.3f} ({own['lower']:.3f} to {own['upper']:.3f})"
            mixed = f"; a mixture: {own['mixture']}" if own["mixture"] else ""
            lines.append(f"  {name}: {own['share']:.1%} of X, nearest {near}{mixed}")
        return "\n".join(lines)


@own_settings()
def signatures(post: Posterior, reference: Any = "cosmic_sbs", level: float = 0.9) -> Signatures:
    """Cosines of a posterior's components with known signatures, mixtures of two, and what each row has of each component.

    Args:
        post: whose columns have names. Of several modes the best is read.
        reference: signatures (R, D) with the names of their columns, or (D, R) with those of their rows: a DataFrame, any
            container with names, a file, a `datasets.Dataset` or the name of one.
        level: of the intervals.

    Raises:
        KeyError: W or H was not kept.
        ValueError: names are missing, on either side, or not the same ones: the sentence lists them.

    References: Alexandrov et al. (2020), doi:10.1038/s41586-020-1943-3, for the COSMIC signatures and their cosines.
    """
    require_posterior("signatures", post)
    own = _channels(post.names.get("columns"), "the fit's columns")
    names, G = _in_order(_given(reference), own)
    aligned = align(post.typical(), scale=True)
    most = int(max(FEWEST, min(DRAWS, AT_ONCE // (post.X.shape[0] * post.model.rank))))
    W, H = (_some(aligned.draws[site], most) for site in ("W", "H"))
    amount = _amounts(post, W, H)
    total = amount.mean(0).sum(0)
    strongest = total.argsort(descending=True)
    H, amount = H[:, strongest], amount[:, :, strongest]
    unit = torch.nn.functional.normalize(torch.from_numpy(G), dim=1)
    cosines = torch.nn.functional.normalize(H, dim=2) @ unit.mT  # (S, K, R)
    mixtures = tuple(_mixture(H[:, k], cosines[:, k], unit, G, names, level) for k in range(H.shape[1]))
    rows = post.names.get("rows") or [str(i) for i in range(W.shape[1])]
    return Signatures(
        names=tuple(f"component {k + 1}" for k in range(H.shape[1])),
        references=names,
        draws=cosines.numpy(),
        share=(total[strongest] / total.sum()).numpy(),
        mutations=interval(amount, level),
        mixtures=mixtures,
        order=tuple(strongest.tolist()),
        rows=tuple(rows),
        level=level,
    )


def _some(draws: Tensor, most: int) -> Tensor:
    """At most so many of draws (chain, draw, *site), evenly spread, (S, *site), float64."""
    flat = draws.flatten(0, 1)
    return flat[:: -(-len(flat) // most)].double().cpu()


def _amounts(post: Posterior, W: Tensor, H: Tensor) -> Tensor:
    """Σ_j e_ij W_ik H_kj of each draw, (S, N, K); e is 1 where the model has none."""
    model: Any = post.model
    if not hasattr(model, "exposure"):
        return W * H.sum(2)[:, None]
    return W * (model.exposure(W).expand(1, W.shape[1], H.shape[2]) @ H.mT)


def _given(reference: Any) -> Labelled:
    """The reference with its names, (R, D) or (D, R)."""
    if isinstance(reference, str) and reference in datasets.names():
        reference = datasets.load(reference)
    if isinstance(reference, datasets.Dataset):
        return Labelled.of(reference.X, reference.rows, reference.columns)
    if isinstance(reference, str) or hasattr(reference, "__fspath__"):
        reference = read(reference)
    return opened("reference", reference)


def _channels(names: Labels | Sequence[str] | None, whose: str) -> tuple[str, ...]:
    """Names of columns, substitution classes in one spelling. Raises ValueError where there are none."""
    if names is None or isinstance(names, range):
        raise ValueError(f"{whose} have no names, and signatures are matched by name: fit a DataFrame, or name them")
    return tuple(channel(str(name)) or str(name) for name in names)


def _in_order(reference: Labelled, own: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the references, and their values (R, D) over the fit's columns."""
    values = np.asarray(reference.values, float)
    if values.ndim != 2:
        raise ValueError(f"reference is {described(reference.values)}; give signatures (R, D) with names")
    rows, columns = reference.rows, reference.columns
    if _shared(rows, own) > _shared(columns, own):
        values, rows, columns = values.T, columns, rows
    what = "the reference's columns are not those of the fit"
    places = order(
        _channels(columns, "the reference's columns"), own, what, "give a value for each of the fit's columns"
    )
    values = values if places is None else taken(values, 1, places)
    if not bool(np.isfinite(values).all()) or bool((values < 0).any()) or not bool((values.sum(1) > 0).all()):
        raise ValueError("reference has entries that are negative or missing, or a signature of zeros: take it out")
    names = rows if isinstance(rows, tuple) else [f"reference {r + 1}" for r in range(len(values))]
    return tuple(names), values / values.sum(1, keepdims=True)


def _shared(names: Labels | None, own: tuple[str, ...]) -> int:
    """How many of a container's labels are among the fit's."""
    texts = [str(name) for name in names or ()]
    return len(({channel(name) or name for name in texts} | set(texts)) & set(own))


def _mixture(
    h: Tensor, cosines: Tensor, unit: Tensor, G: np.ndarray, names: tuple[str, ...], level: float
) -> Mixture | None:
    """What a component (S, D) is a mixture of; None where one reference is near it, or no two are.

    Args:
        h: draws that sum to one. cosines: with each reference, (S, R).
        unit: the references at length one, (R, D). G: the same, each summing to one.
    """
    if float(cosines.mean(0).max()) >= CLOSE or len(names) < 2:
        return None
    one, other = _best_pair(torch.nn.functional.normalize(h.mean(0), dim=0), unit)
    own = unit[[one, other]]
    weights = _weights(h @ own.mT, float(own[0] @ own[1]))  # (S, 2)
    made = weights @ own
    together = torch.nn.functional.cosine_similarity(made, h)
    parts = weights * (torch.from_numpy(G)[[one, other]].sum(1) / torch.from_numpy(G)[[one, other]].norm(dim=1))
    share = parts[:, 0] / parts.sum(1).clamp(min=1e-300)
    if float(share.mean()) < 0.5:
        one, other, share = other, one, 1 - share
    if float(together.mean()) < CLOSE or float((1 - share > LEAST).double().mean()) < level:
        return None
    return Mixture((names[one], names[other]), interval(share, level), interval(together, level))


def _best_pair(h: Tensor, unit: Tensor) -> tuple[int, int]:
    """The two of the references (R, D) whose non-negative combination is nearest to h (D,), all of length one."""
    alone = unit @ h
    gram = unit @ unit.mT
    a, b = alone[:, None], alone[None]
    inside = (a > gram * b) & (b > gram * a) & (gram < 1 - 1e-9)  # both have a positive part
    explained = (a.square() + b.square() - 2 * gram * a * b) / (1 - gram.square()).clamp(min=1e-12)
    best = torch.where(inside, explained, torch.maximum(a, b).square()).triu(1)
    return divmod(int(best.argmax()), len(unit))


def _weights(products: Tensor, gram: float) -> Tensor:
    """Non-negative least squares on two references of length one, from each draw's products with them, (S, 2)."""
    a, b = products[:, 0], products[:, 1]
    both = torch.stack([a - gram * b, b - gram * a], 1) / max(1 - gram * gram, 1e-12)
    single = torch.where((a >= b)[:, None], torch.stack([a, 0 * a], 1), torch.stack([0 * b, b], 1))
    return torch.where((both > 0).all(1, keepdim=True), both, single)
