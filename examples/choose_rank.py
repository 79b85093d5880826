"""How many components does a matrix hold, by which criteria, and what does it mean where they differ?

Three matrices: one drawn with 10 components, where there is a right answer; counts of mutations in 21 breast-cancer
genomes, in which others found 4 or 5 signatures; gene expression of 38 leukaemia samples, of which doctors know the
classes: two diseases, one of them of two kinds of cell. For each, all criteria in one table, and what is to be seen in it.

    python examples/choose_rank.py --out figures --jobs 2       # minutes; --quick takes seconds
    python examples/choose_rank.py leukaemia                    # one of drawn, mutations, leukaemia

The real data are read from the folder that PPNMF_DATA names; where it is not set, only the drawn matrix is looked at by
default.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

import ppnmf
from ppnmf.data import toy
from ppnmf.evidence.consensus import assignments, clusters, consensus_matrix
from ppnmf.models import PAENMF, ExponentialGaussian

SHORT = {
    "chib": {"draws": 50, "warmup": 50, "replicates": 2},
    "heldout": {"folds": 3, "draws": 25, "warmup": 25, "rounds": 1, "nested": True},
    "loo": {"draws": 50, "warmup": 50, "chains": 2, "cells": 500},
    "elbo": {"steps": 200, "restarts": 1},
    "consensus": {"restarts": 10},
}
LONG = {"heldout": {"nested": True}, "loo": {"cells": 4000}, "consensus": {"restarts": 50}}
CRITERIA = ("chib", "heldout", "loo", "aic", "bic", "mdl", "consensus")


class Study(NamedTuple):
    """A matrix, the model of each rank, the ranks to try, the criteria that can be asked, and what others know of it."""

    X: Any
    model: Callable[[int], ExponentialGaussian]
    ranks: Iterable[int]
    about: str
    criteria: tuple[str, ...] = CRITERIA
    options: dict[str, Any] = {}  # noqa: RUF012  # of some criteria
    also: Callable[[bool, Path | None], None] = lambda quick, out: None


def drawn(quick: bool) -> Study:
    """W and H exponential of rate 1, noise of variance 1; entries below zero are set to zero, for the ELBO's sake."""
    N, D, rank = (40, 30, 3) if quick else (100, 80, 10)
    real = not quick and "PPNMF_DATA" in os.environ
    X = ppnmf.datasets.load("toy100x80").X if real else toy.draw(N, D, rank, seed=1).X.numpy()
    about = f"""{N} × {D}, drawn from the model with rank {rank}. A criterion that misses it here is not to be trusted elsewhere.
The consensus is another matter: it asks whether rows fall into clusters, and these rows are mixtures, in no cluster."""
    ranks = range(rank - 1, rank + 2) if quick else range(rank - 3, rank + 4)
    positive = X.clip(min=0)
    return Study(positive, ExponentialGaussian, ranks, about, also=lambda quick, out: by_elbo(positive, ranks, quick))


def by_elbo(X: np.ndarray, ranks: Iterable[int], quick: bool) -> None:
    """What PAE-NMF's bound says, of a model with the same story but for H, which is a parameter there."""
    print(ppnmf.select_rank(PAENMF, X, ranks, method="elbo", **(SHORT["elbo"] if quick else {})), "\n")


def mutations(quick: bool) -> Study:
    """Counts as they are, since signatures add up in them and not in their roots; the noise grows with the count."""
    counts = ppnmf.datasets.load("mutations").X
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    X = ppnmf.as_matrix(counts, noise=expected)
    about = """21 genomes × 96 kinds of substitution. A count varies about as much as its mean, so the noise variances are
σ² times the counts to be expected if all genomes had one spectrum. Nik-Zainal et al.
(2012) and Alexandrov et al. (2013) find 4 to 5 signatures in them. A component has 117 parameters, which bic and mdl charge
for one like the other; chib asks what they explain, and goes further; heldout and loo ask what predicts a cell, and go on
for small gains."""
    return Study(
        X,
        lambda rank: ExponentialGaussian.scaled_to(X, rank),
        range(2, 5) if quick else range(1, 8),
        about,
        ("chib", "heldout", "bic") if quick else ("chib", "heldout", "loo", "aic", "bic", "mdl", "consensus"),
        {"mdl": {"precision": 1.0}},
    )


def leukaemia(quick: bool) -> Study:
    """38 samples × 5000 genes, each sample divided by its largest level."""
    genes = ppnmf.datasets.load("genes")
    X = genes.X / genes.X.max(1, keepdims=True)
    about = """38 samples × 5000 genes, each sample divided by its largest level. The model is wrong here: levels vary in
proportion to themselves, and genes act in many programmes. So chib, aic and mdl see in 190 000 entries reason for ever more
components. A further one brings 5038 parameters, at ½ log 190 000 nats each by bic, which stops at once: most are a gene's, on
which 38 entries bear, not 190 000. The error on hidden cells hangs on a few strong genes. The consensus
asks which samples belong together, whatever the start: it falls after the ranks at which all modes agree. Brunet et al. (2004)
take 2 and 3 (ALL and AML; B and T cells among the ALL)."""
    return Study(
        X,
        lambda rank: ExponentialGaussian.scaled_to(X, rank),
        range(2, 4) if quick else range(1, 7),
        about,
        ("consensus", "bic") if quick else ("consensus", "chib", "heldout", "aic", "bic", "mdl"),
        {"chib": {"draws": 100, "warmup": 100, "replicates": 3}, "heldout": {"draws": 50, "warmup": 50}},
        lambda quick, out: samples(X, genes, quick, out),
    )


STUDIES: dict[str, Callable[[bool], Study]] = {"drawn": drawn, "mutations": mutations, "leukaemia": leukaemia}


def samples(X: np.ndarray, genes: ppnmf.datasets.Dataset, quick: bool, out: Path | None) -> None:
    """Does the strongest component of a sample tell its class? By the best mode, the posterior mean, and the consensus."""
    disease = np.array([label[:3] for label in genes.labels])  # ALL-B and ALL-T are both ALL
    restarts, draws = (10, 200) if quick else (50, 500)
    consensus = {}
    for rank, classes in {2: disease, 3: genes.labels}.items():
        model = ExponentialGaussian.scaled_to(X, rank)
        modes = ppnmf.fit(model, X, method="icm", restarts=restarts, seed=0)
        post = ppnmf.align(ppnmf.fit(model, X, draws=draws, warmup=draws, chains=2, seed=0))
        labels = assignments(modes.draws["W"][:, 0], modes.draws["H"][:, 0])
        consensus[rank] = consensus_matrix(labels)
        found = {
            "best mode": labels[int(modes.stats["lp"][:, 0].argmax())],
            "posterior mean": assignments(post.mean("W")[None], post.mean("H")[None])[0],
            "consensus": clusters(consensus[rank], rank),
        }
        print(f"Rank {rank}, {' / '.join(sorted(set(classes)))}: of 38 samples are right by")
        for name, own in found.items():
            right = rightly_placed(own, classes)
            print(f"  {name:<15} {right.sum()}" + (f"; not {', '.join(genes.rows[~right])}" if not right.all() else ""))
    if out:
        print(ppnmf.plots.save(picture(consensus, disease, genes.labels), out / "leukaemia-consensus.png"))


def rightly_placed(found: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Which observations are in the cluster of their class, where each class takes the cluster that suits all best."""
    same = found[:, None] == np.unique(found), classes[:, None] == np.unique(classes)
    of_cluster, of_class = linear_sum_assignment(-(same[0].T.astype(int) @ same[1]))
    return sum(same[0][:, k] & same[1][:, c] for k, c in zip(of_cluster, of_class, strict=True)).astype(bool)


def picture(consensus: dict[int, np.ndarray], *orders: np.ndarray) -> Figure:
    """How often two samples are together, the samples in the order of their classes."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    for ax, (rank, shares), classes in zip(figure.subplots(1, 2), consensus.items(), orders, strict=True):
        order = np.argsort(classes, kind="stable")
        image = ax.imshow(shares[order][:, order], cmap="Blues", vmin=0, vmax=1)
        names, first, count = np.unique(classes[order], return_index=True, return_counts=True)
        ax.set_xticks(first + (count - 1) / 2, names)
        ax.set_yticks(first + (count - 1) / 2, names)
        for border in first[1:] - 0.5:
            ax.axhline(border, color="black", linewidth=0.8)
            ax.axvline(border, color="black", linewidth=0.8)
        ax.set_title(f"rank {rank}", fontsize=10)
    figure.colorbar(image, ax=figure.axes, label="share of modes that put\ntwo samples together", shrink=0.8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help=f"of {', '.join(STUDIES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="finish in seconds: short runs, few ranks")
    parser.add_argument("--jobs", type=int, default=1, help="ranks worked on at once")
    parser.add_argument("--out", type=Path, help="folder of the pictures")
    options = parser.parse_args()
    unknown = [name for name in options.studies if name not in STUDIES]
    if unknown:
        parser.error(f"there is no study {', '.join(unknown)}; there are {', '.join(STUDIES)}")
    here = [name for name in STUDIES if name == "drawn" or "PPNMF_DATA" in os.environ]
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    for name in options.studies or here:
        began, study = time.perf_counter(), STUDIES[name](options.quick)
        print(f"{name.upper()}: {study.about}\n", flush=True)
        layers = (LONG, study.options, SHORT if options.quick else {})
        settings = {name: {k: v for layer in layers for k, v in layer.get(name, {}).items()} for name in study.criteria}
        table = ppnmf.select_rank(
            study.model,
            study.X,
            study.ranks,
            method=study.criteria,
            n_jobs=options.jobs,
            **settings,
        )
        print(table, "\n")
        print("The best rank, and those not told from it:")
        for method in filter(table.judged, table.methods):
            print(f"  {method:<10} {table.best_by(method)}", *(f"or {rank}" for rank in table.rivals(method)))
        study.also(options.quick, options.out)
        if options.out:
            print(ppnmf.plots.save(ppnmf.plots.rank(table), options.out / f"{name}.png"))
        print(f"{time.perf_counter() - began:.0f} seconds\n", flush=True)


if __name__ == "__main__":
    main()
