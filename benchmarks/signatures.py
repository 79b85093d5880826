r"""Which mutational signatures come back from drawn tumours, how many are chosen, and how does that compare with the field's tools?

A found signature is right where it is matched one to one to a true one at cosine >= 0.9; precision = matched / found and
recall = matched / true, as in the published studies, whose figures for the same recipe (other draws of it) are printed beside.

How it is done, without the true number: where counts vary by more than Poisson ones about a fit of many components, large
tumours are thinned to 3000 mutations, which leaves a Poisson count Poisson and takes most of the overdispersion away. Exposures
are the tumours' sizes. Variational Bayes of `gamma_poisson` climbs from random starts at a rank that is too great; the evidence
lower bound (ELBO) then decides. Components go while it rises without them; how common each signature is (shape and rate of its
column of W) is learned; and a component is split in two along what its tumours leave unexplained, or a rare one begun at a tumour
that has more than its mean, where that raises the bound. Needs PPNMF_DATA. --quick takes few tumours and sweeps.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.inference import vb
from ppnmf.inference.chain import State
from ppnmf.models import GammaPoisson
from ppnmf.progress import bar

CAP, EVEN = 3000, 1.5  # mutations that a tumour keeps, where counts vary by more than so many times their means
AGREES = 0.9  # cosine from which a signature is found
SPARSITY, ROUGHNESS = 0.3, 0.5  # shapes of the priors of exposures, until they are learned, and of signatures
BRIEF, PATIENT = 30, 100  # sweeps after which a component less is judged, and twice which one more is
CLEAR = 3.0  # nats that a component more has to bring
RARE, LOOKS = 0.05, 25  # the shape of a component that begins rare, and how many tumours are tried for one
BIRTH = 0.7  # how far a split goes along what is unexplained
PUBLISHED = {  # precision, recall, found; from steverozen and others' supplementary tables, see the data's README
    "synthetic_sbs_set1_like, realistic": {
        "mSigHdp": (0.776, 0.870, 25.8),
        "mSigHdp, 3k": (0.991, 0.887, 20.6),
        "SigProfilerExtractor": (0.927, 0.687, 17.0),
        "signeR": (0.578, 0.757, 30.2),
        "SignatureAnalyzer": (0.291, 0.583, 46.0),
    },
}


class Fit(NamedTuple):
    """A variational approximation (`ppnmf.poisson.moments`) under a model, and its ELBO."""

    model: GammaPoisson
    q: dict[str, Tensor]
    elbo: float

    @property
    def signatures(self) -> np.ndarray:
        H = self.q["H"][0].numpy()
        return H / H.sum(1, keepdims=True)


class Tumours(NamedTuple):
    """Counts (tumours, channels), and what they are exposed to."""

    X: Any
    exposures: Tensor

    @classmethod
    def of(cls, counts: np.ndarray, opportunity: np.ndarray | None) -> Tumours:
        """Opportunities are relative to each tumour's mean."""
        size = counts.sum(1, keepdims=True).clip(1).astype(float)
        even = 1.0 if opportunity is None else opportunity / opportunity.mean(1, keepdims=True)
        return cls(as_matrix(counts.astype(float)), torch.from_numpy(size * even))

    def thinned(self, seed: int = 0) -> Tumours:
        """The same with at most `CAP` mutations each."""
        generator = np.random.default_rng(seed)
        counts = self.X.values.numpy()
        kept = np.array([thinned(own, generator) for own in counts.astype(int)], dtype=float)
        share = kept.sum(1, keepdims=True) / counts.sum(1, keepdims=True).clip(1)
        return Tumours(as_matrix(kept), self.exposures * torch.from_numpy(share))

    def variance(self, rank: int) -> float:
        """Of the counts over their means, by a fit of so many components: 1 for Poisson counts."""
        model = replace(model_for(self, rank), shape_W=1.0, shape_H=1.0)
        post = ppnmf.fit(model, self.X, method="mu", max_sweeps=300, tol=0.0, progress=False)
        mean = post.reconstruction()
        N, D = self.X.shape
        return float(((self.X.values - mean).square() / mean.clamp(min=1e-9)).sum()) / max(N * D - rank * (N + D), 1)


def thinned(counts: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A random choice of `CAP` of a tumour's mutations, or all."""
    return counts if counts.sum() <= CAP else generator.multivariate_hypergeometric(counts, CAP)


def model_for(tumours: Tumours, rank: int) -> GammaPoisson:
    """Exposures are shares of a tumour with mean 1 / rank, signatures spread over the channels."""
    D = tumours.X.shape[1]
    shape, rate = torch.full((rank,), SPARSITY), torch.full((rank,), SPARSITY * rank)
    return GammaPoisson(rank, shape, ROUGHNESS, rate, ROUGHNESS * D, tumours.exposures)


def climbed(fit: Fit, tumours: Tumours, sweeps: int) -> Fit:
    """So many sweeps later."""
    state, bound = State(fit.q, 1), None
    for _ in range(sweeps):
        state, bound = vb.step(fit.model, state, tumours.X)
    assert bound is not None
    return Fit(fit.model, dict(state.params), float(bound.elbo))


def begun(tumours: Tumours, rank: int, seed: int) -> Fit:
    """At random values."""
    generator = np.random.default_rng(seed)
    N, D = tumours.X.shape
    shares = generator.dirichlet(np.full(rank, 5.0), N), generator.dirichlet(np.full(D, 5.0), rank)
    params = {site: torch.from_numpy(values)[None] for site, values in zip("WH", shares, strict=True)}
    model = model_for(tumours, rank)
    return Fit(model, dict(model.approximated(params, tumours.X)), -np.inf)


def chosen(fit: Fit, components: list[int]) -> Fit:
    """Some of the components."""
    q = {name: values[:, :, components] if name[0] == "W" else values[:, components] for name, values in fit.q.items()}
    own = {name: getattr(fit.model, name)[components] for name in ("shape_W", "rate_W")}  # type: ignore[index]
    return Fit(replace(fit.model, rank=len(components), **own), q, fit.elbo)


def pruned(fit: Fit, tumours: Tumours) -> Fit:
    """Without the components without which the ELBO is greater, the least first."""
    while True:
        sizes = (fit.q["W"][0] * tumours.exposures.mean(1, keepdim=True)).sum(0) * fit.q["H"][0].sum(1)
        fit = climbed(fit, tumours, BRIEF)
        for k in sizes.argsort()[: max(4, len(sizes) // 3)].tolist():
            fewer = climbed(chosen(fit, [m for m in range(len(sizes)) if m != k]), tumours, BRIEF)
            if fewer.elbo > fit.elbo:
                fit = fewer
                break
        else:
            return fit


def learned(fit: Fit, tumours: Tumours, sweeps: int) -> Fit:
    """With the shape and the rate of each component's exposures at their most likely values, found along the way."""
    for _ in range(max(1, sweeps // 10)):
        fit = climbed(fit, tumours, 10)
        mean, log = fit.q["W"][0].mean(0), fit.q["W.log"][0].mean(0)
        gap = (mean.log() - log).clamp(min=1e-3)
        shape = (3 - gap + ((gap - 3).square() + 24 * gap).sqrt()) / (12 * gap)  # Minka's first guess, within 1.5 %
        shape = shape.clamp(0.02, 5.0)
        fit = fit._replace(model=replace(fit.model, shape_W=shape, rate_W=shape / mean))
    return climbed(fit, tumours, 10)


def unexplained(fit: Fit, tumours: Tumours) -> list[tuple[float, int, Tensor, Tensor]]:
    """For each component the strongest pattern of what is left of its tumours: its size, over tumours, and over channels."""
    W, H, X = fit.q["W"][0], fit.q["H"][0], tumours.X.values
    mean = tumours.exposures * (W @ H)
    left, found = (X - mean) / mean.sqrt(), []
    for k in range(len(H)):
        share = (tumours.exposures * W[:, k : k + 1] * H[k] / mean).sqrt()
        U, S, Vt = torch.linalg.svd(left * share, full_matrices=False)
        found.append((float(S[0]), k, U[:, 0], Vt[0] * mean.mean(0).sqrt()))
    return sorted(found, key=lambda one: -one[0])


def split(fit: Fit, tumours: Tumours, k: int, over_tumours: Tensor, over_channels: Tensor) -> Fit:
    """Component k as two, on either side of it."""
    grown = chosen(fit, [*range(fit.model.rank), k])
    h = fit.q["H"][0, k]
    step = BIRTH * h.sum() * over_channels / over_channels.abs().sum()
    W, H = fit.q["W"][0], torch.cat([fit.q["H"][0], (h - step).clamp(min=1e-7 * h.sum())[None]])
    H[k] = (h + step).clamp(min=1e-7 * h.sum())
    share = 0.5 + 0.4 * over_tumours.sign()
    W = torch.cat([W, (W[:, k] * (1 - share))[:, None]], 1)
    W[:, k] *= share
    return grown._replace(q=dict(grown.model.approximated({"W": W[None], "H": H[None]}, tumours.X)))


def born(fit: Fit, tumours: Tumours, i: int) -> Fit:
    """A further component, rare at first: what tumour i has beyond its mean, as much of it as each tumour has."""
    mean = tumours.exposures * (fit.q["W"][0] @ fit.q["H"][0])
    beyond = (tumours.X.values - mean).clamp(min=0)
    h = (beyond[i] + 0.05 * beyond[i].mean()) / (1.05 * beyond[i].sum())
    left = (tumours.X.values - mean) @ h / (h.square().sum() * tumours.exposures.mean(1))
    W = torch.cat([fit.q["W"][0], left.clamp(min=1e-4)[:, None]], 1)
    H = torch.cat([fit.q["H"][0], h[None]])
    grown = chosen(fit, [*range(fit.model.rank), 0])
    shape, rate = grown.model.shape_W.clone(), grown.model.rate_W.clone()  # type: ignore[union-attr]
    shape[-1] = RARE
    rate[-1] = RARE / float(W[:, -1].mean())
    model = replace(grown.model, shape_W=shape, rate_W=rate)
    return Fit(model, dict(model.approximated({"W": W[None], "H": H[None]}, tumours.X)), fit.elbo)


def surprising(fit: Fit, tumours: Tumours) -> list[int]:
    """The tumours by what they have beyond their means, most first."""
    mean = tumours.exposures * (fit.q["W"][0] @ fit.q["H"][0])
    beyond = ((tumours.X.values - mean) / mean.sqrt() - 1.5).clamp(min=0)
    return beyond.square().sum(1).argsort(descending=True)[:LOOKS].tolist()


def grown(fit: Fit, tumours: Tumours) -> Fit:
    """With components split, and rare ones begun at tumours that surprise, while that raises the ELBO."""
    tried: set[tuple[str, int]] = set()
    while True:
        fit = learned(fit, tumours, PATIENT)
        plain = learned(climbed(fit, tumours, PATIENT), tumours, PATIENT)
        for name, number, more in offers(fit, tumours):
            if (name, number) in tried:
                continue
            tried.add((name, number))
            other = learned(climbed(more(), tumours, PATIENT), tumours, PATIENT)
            if other.elbo > plain.elbo + CLEAR:
                fit, tried = other, {own for own in tried if own[0] == "birth" and name == "split"}
                break
        else:
            return plain


def offers(fit: Fit, tumours: Tumours) -> Iterator[tuple[str, int, Callable[[], Fit]]]:
    """Ways to have one component more, the likeliest first."""
    for i in surprising(fit, tumours):
        yield "birth", i, partial(born, fit, tumours, i)
    for _, k, *directions in unexplained(fit, tumours):
        yield "split", k, partial(split, fit, tumours, k, *directions)


def recovered(tumours: Tumours, most: int, starts: int, sweeps: int) -> Fit:
    """The best of several starts with as many components as the ELBO asks for."""
    ends = []
    with bar(starts, f"at most {most} signatures, {starts} starts", True) as ticker:
        for seed in range(starts):
            fit = pruned(climbed(begun(tumours, most, seed), tumours, sweeps), tumours)
            fit = learned(fit, tumours, sweeps // 2)
            fit = grown(fit, tumours)
            fit = grown(pruned(learned(fit, tumours, sweeps), tumours), tumours)
            ends.append(pruned(learned(fit, tumours, sweeps), tumours))
            ticker.update(1)
    return max(ends, key=lambda one: one.elbo)


class Score(NamedTuple):
    precision: float
    recall: float
    cosine: float  # mean of the matched
    found: int
    least: float  # of the best cosines of the true ones
    missed: list[str]


def score(found: np.ndarray, true: np.ndarray, names: list[str]) -> Score:
    """Signatures (K, D) found, and true ones: matched one to one by least total distance, at `AGREES` or more alone."""
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    cosines = unit(found) @ unit(true).T
    rows, columns = linear_sum_assignment(np.where(cosines >= AGREES, 1 - cosines, 10.0))
    right = cosines[rows, columns] >= AGREES
    matched = cosines[rows, columns][right]
    missed = [name for n, name in enumerate(names) if n not in set(columns[right])]
    least = float(cosines.max(0).min())
    return Score(len(matched) / len(found), len(matched) / len(true), float(matched.mean()), len(found), least, missed)


class Problem(NamedTuple):
    name: str
    file: str
    counts: str
    most: int


PROBLEMS = [
    Problem("synthetic_sbs_set1_like, realistic", "synthetic_sbs_set1_like", "V_realistic", 20),
    Problem("synthetic_sbs_set1_like, poisson", "synthetic_sbs_set1_like", "V_poisson", 20),
    *(
        Problem(f"bayespower_ovary, {kind}", "bayespower_ovary", f"V_{kind}", 20)
        for kind in ("clean", "contamination", "overdispersed", "perturbed")
    ),
    Problem("signer_opportunity", "signer_opportunity", "V", 10),
]


def measure(problem: Problem, folder: Path, starts: int, quick: bool) -> None:
    held = np.load(folder / f"{problem.file}.npz")
    some = slice(0, 40 if quick else None)
    opportunity = held["opportunity"].T[some] if "opportunity" in held else None
    tumours = Tumours.of(held[problem.counts].T[some], opportunity)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged: nor need it be
        variance = tumours.variance(min(problem.most, min(tumours.X.shape) // 2))
    if variance > EVEN:
        tumours = tumours.thinned()
    if quick:
        globals().update(PATIENT=5, LOOKS=2)
    fit = recovered(tumours, 6 if quick else problem.most, starts, 20 if quick else 400)
    names = [str(name) for name in held["signature"]]
    own = score(fit.signatures, held["W"].T, names)
    print(f"{problem.name}: {len(names)} true signatures, {tumours.X.shape[0]} tumours, variance {variance:.2f}")
    line = f"precision {own.precision:.3f}  recall {own.recall:.3f}  found {own.found}  cosine {own.cosine:.4f}"
    print(f"  ppnmf                {line}  least {own.least:.3f}  {time.perf_counter() - began:.0f} s")
    print(f"  missed: {', '.join(own.missed) or 'none'}")
    for tool, (precision, recall, found) in PUBLISHED.get(problem.name, {}).items():
        print(f"  {tool:20s} precision {precision:.3f}  recall {recall:.3f}  found {found} (published)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--only", default="", help="problems whose names have this in them")
    given = parser.parse_args()
    if "PPNMF_DATA" not in os.environ:
        print("set PPNMF_DATA to the folder with signatures/: nothing to measure")
        return
    torch.set_num_threads(1)
    problems = [own for own in PROBLEMS if given.only in own.name]
    for problem in problems[:1] if given.quick else problems:
        measure(problem, Path(os.environ["PPNMF_DATA"]) / "signatures", given.starts, given.quick)


if __name__ == "__main__":
    main()
