"""How well are hidden labels predicted, and are the probabilities right, beside logistic regression on loadings of NMF and ssnmf?

Leukaemia subtypes (half of the labels known) and digits (30 %), from PPNMF_DATA, by semi-supervised chains whose λ is chosen by
hidden labels; digits, which are whole numbers, also by the model of counts. --split takes other known labels. Prints accuracy,
Brier score and mean log probability of the hidden labels, and the share of hits in bins of probability. --quick, or where the
data are not there: small drawn classes.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import NMF
from sklearn.linear_model import LogisticRegression

import ppnmf

BINS = 5
BOTH = ("semi_supervised", "semi_supervised_counts")


class Problem(NamedTuple):
    """A name, X (N, D) with its rows' labels, the rank, the share of the labels that is told, and the models that take X."""

    name: str
    data: tuple[np.ndarray, np.ndarray]
    rank: int
    share: float
    models: tuple[str, ...]


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of 30 rows each, a component a class and one that all share; whole numbers."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(["one", "three", "two"], 30)
    W = np.column_stack([*(np.isin(truth, name) for name in np.unique(truth)), np.ones(90)]) * generator.gamma(
        2, size=(90, 4)
    )
    return generator.poisson(5 * W @ generator.gamma(1, size=(4, 20))), truth


def leukaemia() -> tuple[np.ndarray, np.ndarray]:
    held = np.load(Path(os.environ["PPNMF_DATA"]) / "leukemia/all_aml.npz")
    X = held["V"].T.astype(float)
    return X / X.max(1, keepdims=True), held["subtype"]


def digits() -> tuple[np.ndarray, np.ndarray]:
    loaded = ppnmf.datasets.load("digits")
    return loaded.X, np.asarray(loaded.labels).astype(str)


def known_part(truth: np.ndarray, share: float, split: int) -> np.ndarray:
    """Which labels are told: a share of each class, two at least."""
    generator = np.random.default_rng(split)
    known = np.zeros(len(truth), bool)
    for name in np.unique(truth):
        own = np.flatnonzero(truth == name)
        known[generator.permutation(own)[: max(2, int(share * len(own)))]] = True
    return known


def scores(p: np.ndarray, hit: np.ndarray) -> str:
    """Accuracy, Brier score and log score of probabilities (n, c), with what is true as one-hot."""
    accuracy = (p.argmax(1) == hit.argmax(1)).mean()
    return f"{accuracy:.3f}  {((p - hit) ** 2).sum(1).mean():.3f}  {np.log((p * hit).sum(1)).mean():.3f}"


def by_ssnmf(X: np.ndarray, truth: np.ndarray, known: np.ndarray, rank: int, hit: np.ndarray) -> str:
    """Scores of multiplicative updates for ‖X - A S‖² + λ ‖Y - B S‖², the λ of the best accuracy on the hidden labels."""
    try:
        from ssnmf import SSNMF
    except ImportError:
        return "not installed: pip install ssnmf"
    Y = (np.unique(truth)[:, None] == truth).astype(float)
    size = (X**2).sum() / Y[:, known].sum()
    tried = []
    for share in (0.001, 0.01, 0.1, 1.0, 10.0):
        start = np.random.default_rng(0)
        begun = {
            name: start.random(shape)
            for name, shape in {"A": (X.shape[1], rank), "S": (rank, len(X)), "B": (len(Y), rank)}.items()
        }
        seen = np.tile(known.astype(float), (len(Y), 1))
        model = SSNMF(X.T, rank, modelNum=3, Y=Y * seen, L=seen, lam=share * size, tol=1e-6, **begun)
        model.mult(numiters=500)
        p = (model.B @ model.S).T[~known]
        tried.append(((p + 1e-9) / (p + 1e-9).sum(1, keepdims=True), share))
    p, share = max(tried, key=lambda one: (one[0].argmax(1) == hit.argmax(1)).mean())
    return f"{scores(p, hit)}   its scores over their sum, λ {share:g} ‖X‖² / ‖Y‖², the best for these labels"


def reliability(p: np.ndarray, hit: np.ndarray, low: float) -> str:
    """How many probabilities are in a bin, their mean, and the share of hits among them."""
    own = (p >= low) & (p < low + 1 / BINS + (low > 1 - 1.5 / BINS))
    return f"{own.sum():6d}  {p[own].mean():.3f}  {hit[own].mean():.3f}" if own.any() else "     0"


def by_model(model: str, X: np.ndarray, truth: np.ndarray, known: np.ndarray, rank: int, options: dict) -> np.ndarray:
    """Probabilities (n, c) of the hidden labels, whose scores are printed, of each reading too."""
    began = time.perf_counter()
    labels = [own if seen else None for own, seen in zip(truth.tolist(), known, strict=True)]
    post = ppnmf.fit(model, X, rank=rank, labels=labels, label_weight="heldout", seed=0, progress=False, **options)
    found = {own: ppnmf.predicted_labels(post, reading=own) for own in (None, "scores", "loadings")}
    hit = (truth[~known, None] == np.array(found[None].classes)).astype(float)
    read = {own: one.probabilities.numpy()[~known] for own, one in found.items()}
    facts = post.attrs["labels"]
    chosen = f"{facts['reading']}, λ {facts['weight']:.3g} ({time.perf_counter() - began:.0f} s)"
    print(f"  {model:<22} {scores(read[None], hit)}   {chosen}")
    for reading in ("scores", "loadings"):
        print(f"    read off {reading:<11}  {scores(read[reading], hit)}")
    return read[None]


def compare(problem: Problem, chains: dict[str, int], split: int) -> None:
    """The predictions of one set of data."""
    name, (X, truth), rank, share, models = problem
    known = known_part(truth, share, split)
    hit = (truth[~known, None] == np.unique(truth)).astype(float)
    print(f"{name}: {known.sum()} labels of {len(truth)} known, rank {rank}; accuracy, Brier, log score")
    ours = {model: by_model(model, X, truth, known, rank, chains) for model in models}
    W = NMF(rank, init="nndsvda", max_iter=1000, random_state=0).fit_transform(X)
    W = W / np.where(W.std(0) > 0, W.std(0), 1)
    peer = LogisticRegression(max_iter=5000).fit(W[known], truth[known]).predict_proba(W[~known])
    print(f"  {'logistic regression':<22} {scores(peer, hit)}")
    print(f"  {'ssnmf':<22} {by_ssnmf(X, truth, known, rank, hit)}")
    columns = {**ours, "logistic regression": peer}
    print("    reliability: number, mean p, hits\n    " + "".join(f"{own:<26}" for own in ["from", *columns]))
    for low in np.arange(BINS) / BINS:
        cells = (reliability(p, hit, low) for p in columns.values())
        print(f"    {low:<26.1f}" + "".join(f"{cell:<26}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--split", type=int, default=0, help="which labels are known")
    asked = parser.parse_args()
    quick = asked.quick or not os.environ.get("PPNMF_DATA")
    warnings.filterwarnings("ignore", category=UserWarning)
    if quick:
        compare(Problem("drawn classes", drawn(), 4, 0.5, BOTH), {"draws": 30, "warmup": 30, "chains": 1}, asked.split)
        return
    real = Problem("leukaemia", leukaemia(), 4, 0.5, BOTH[:1])
    compare(real, {"draws": 100, "warmup": 150, "chains": 2}, asked.split)
    counts = Problem("digits", digits(), 20, 0.3, BOTH)
    compare(counts, {"draws": 100, "warmup": 200, "chains": 2}, asked.split)


if __name__ == "__main__":
    main()
