"""What does Neural NMF leave of the published matrix, and which labels does it find, beside hierarchical, deep and deep semi-NMF?

The matrix of the Neural NMF demonstration (87 × 90, nested classes of 9, 4 and 2 columns) at one, two and three layers, without
labels, with those of two columns of five, and with all. By each method ‖X - A_0 ... S‖ / ‖X‖ and the share of the columns whose
greatest entry of B S is their class; beside them the published errors of Neural NMF (jvendrow/NeuralNMF, `experiments/demo.ipynb`,
and the talk's table in brackets). It is read from PPNMF_DATA, or a matrix like it is drawn; --quick trains for fewer steps.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np

import ppnmf

METHODS = {  # what a column is called -> the method and its options
    "layerwise": ("layerwise", {}),
    "deep": ("deep", {}),
    "semi-NMF": ("deep", {"signs": "free"}),
    "neural": ("neural", {}),
}
PUBLISHED = {  # layers, labels -> error and accuracy of Neural NMF: the notebook's, and the talk's
    (1, "none"): ("0.0236", "0.029"),
    (2, "none"): ("0.2816", "0.310"),
    (3, "none"): ("0.4676", "0.492"),
    (1, "40 %"): ("0.0236, 1", "0.042, 1"),
    (2, "40 %"): ("0.3398, 1", "0.305, 1"),
    (3, "40 %"): ("0.6093, 1", "0.496, 0.990"),
    (1, "all"): ("0.0237, 1", "0.042, 1"),
    (2, "all"): ("0.3378, 1", "0.307, 1"),
    (3, "all"): ("0.6163, 0.722", "0.498, 1"),
}
RANKS = (9, 4, 2)


def published() -> dict[str, np.ndarray] | None:
    """X, its classes and which labels are known, if the file is there."""
    path = Path(os.environ.get("PPNMF_DATA", "")) / "hierarchy/neural_nmf_synthetic.npz"
    if not path.exists():
        return None
    held = np.load(path)
    return {"X": held["X"], "known": held["L40"][0] > 0, **{str(K): held[f"labels{K}"][0] for K in RANKS}}


def drawn(seed: int = 0) -> dict[str, np.ndarray]:
    """A matrix of nested blocks: nine classes of columns in four, and these in two, and a little noise."""
    generator = np.random.default_rng(seed)
    nine = np.repeat(np.arange(9), 10)
    four = np.array([0, 0, 1, 1, 2, 2, 2, 3, 3])[nine]
    two = np.array([0, 0, 1, 1])[four]
    rows = np.arange(87)
    X = (
        1.0 * (rows[:, None] // 44 == two)
        + 2.0 * (rows[:, None] // 22 == four)
        + 3.0 * (rows[:, None] * 9 // 87 == nine)
    )
    X += 0.05 * np.abs(generator.standard_normal(X.shape))
    return {"X": X, "known": generator.random(90) < 0.4, "9": nine, "4": four, "2": two}


def row(data: dict[str, np.ndarray], layers: int, labels: str, called: str, steps: int) -> tuple[float, float | None]:
    """Relative error and accuracy of one fit."""
    truth = data[str(RANKS[layers - 1])]
    given = {"none": None, "40 %": np.where(data["known"], truth, np.nan), "all": truth}[labels]
    method, options = METHODS[called]
    own = {**options, "steps": steps} if method == "neural" else options
    model = ppnmf.models.Hierarchical(RANKS[:layers])
    post = ppnmf.fit(model, data["X"], method=method, labels=given, progress=False, **own)
    error = np.linalg.norm(data["X"] - post.reconstruction().numpy()) / np.linalg.norm(data["X"])
    if given is None:
        return error, None
    return error, float((ppnmf.predicted_labels(post).codes.numpy() == truth).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    steps = 20 if quick else 400
    data = published()
    if data is None:
        print("PPNMF_DATA has no hierarchy/neural_nmf_synthetic.npz: a matrix like it is drawn")
    warnings.filterwarnings("ignore", message=".*had not converged")
    began = time.perf_counter()
    print(f"{'labels':<8}{'layers':<8}" + "".join(f"{method:<18}" for method in METHODS) + "published (the talk's)")
    for labels in ("40 %",) if quick else ("none", "40 %", "all"):
        for layers in (2,) if quick else (1, 2, 3):
            found = [row(data or drawn(), layers, labels, method, steps) for method in METHODS]
            told = [f"{e:.4f}" + ("" if a is None else f", {a:.3f}") for e, a in found]
            notebook, talk = PUBLISHED[layers, labels]
            print(
                f"{labels:<8}{layers:<8}" + "".join(f"{one:<18}" for one in told) + f"{notebook} ({talk})", flush=True
            )
    print(f"{time.perf_counter() - began:.1f} s for all fits")


if __name__ == "__main__":
    main()
