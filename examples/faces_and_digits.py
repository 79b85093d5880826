"""Which parts are faces and digits made of, how do principal components differ, and which digits does a part gather?

NMF adds parts and takes nothing away, so its components are pictures themselves (dark where they are strong): noses and cheeks,
strokes of a pen; of the Olivetti faces, which are not cut alike, rather whole faces. Principal components leave less of the
pictures at the same number, but add (red) and subtract (blue) whole ones. Each digit belongs to the part that it is most typical
of; above each part stands the label of most of its digits, and their share, which NMF was not told.

    python examples/faces_and_digits.py [--quick] [--out FOLDER]

The CBCL faces, the Olivetti faces and 2000 digits of MNIST are read from PPNMF_DATA or fetched once, in about two minutes of work;
what cannot be had is left out. With --quick the small digits that come with scikit-learn take the place of all three.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

import ppnmf

PAPER = "#fcfcfb"


class Pictures(NamedTuple):
    """What is looked at.

    Args:
        name: of the data. X: (N, D), a picture a row. shape, order: how its pixels lie. labels: (N,), or None.
        rank: how many parts are looked for.
    """

    name: str
    X: np.ndarray
    shape: tuple[int, int]
    order: str
    labels: np.ndarray | None
    rank: int


def chosen(quick: bool) -> list[Pictures]:
    """The sets that are at hand, their rows thinned out evenly."""
    wanted = [("digits", 300, 10)] if quick else [("faces", 2429, 36), ("olivetti", 400, 36), ("mnist", 2000, 16)]
    found = []
    for name, rows, rank in wanted:
        try:
            data = ppnmf.datasets.load(name)
        except FileNotFoundError as error:
            print(f"{name} is left out: {error}")
            continue
        at = np.linspace(0, len(data.X) - 1, min(rows, len(data.X))).astype(int)
        labels = None if data.labels is None or name == "olivetti" else data.labels[at]
        found.append(Pictures(name, data.X[at], data.picture, data.order, labels, rank))
    return found


def principal(X: np.ndarray, rank: int) -> tuple[np.ndarray, float]:
    """The principal components (rank, D), and the share of the sum of squares that they and the mean leave."""
    centred = X - X.mean(0)
    left, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    rest = centred - (left[:, :rank] * sizes[:rank]) @ directions[:rank]
    return directions[:rank], float((rest**2).sum() / (X**2).sum())


def grid(rows: np.ndarray, data: Pictures, titles: list[str], signed: bool) -> Figure:
    """Pictures side by side: from white to black, or where they are signed from blue through white to red."""
    columns = int(np.ceil(np.sqrt(len(rows))))
    lines = -(-len(rows) // columns)
    height = 1.3 if any(titles) else 1.0  # inches, of a line
    figure, axes = plt.subplots(lines, columns, figsize=(columns, height * lines), facecolor=PAPER, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, row, title in zip(axes.flat, rows, titles, strict=False):
        most = np.abs(row).max() or 1.0
        look = {"cmap": "RdBu_r", "vmin": -most} if signed else {"cmap": "gray_r", "vmin": 0}
        axis.imshow(row.reshape(data.shape, order=data.order), vmax=most, **look)
        axis.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.3)
    return figure


def gathered(found: ppnmf.diagnostics.clusters.Clusters, labels: np.ndarray, rank: int) -> list[str]:
    """For each part the label of most of its members in the first start, and their share; "-" where it has none."""
    told = []
    for part in range(rank):
        own = Counter(map(str, labels[found.assigned[0] == part])).most_common(1)
        size = int((found.assigned[0] == part).sum())
        told.append(f"{own[0][0]}: {own[0][1] / size:.0%}" if own else "-")
    return told


def look_at(data: Pictures, out: Path, restarts: int) -> None:
    """The answer for one set, in lines and pictures."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="hals: .* had not converged")
        post = ppnmf.fit(
            "exponential_gaussian", data.X, rank=data.rank, method="hals", restarts=restarts, tol=1e-4, seed=0
        )
    best = post.best()
    H = best.draws["H"][0, 0].numpy()
    left = float(((data.X - best.reconstruction().numpy()) ** 2).sum() / (data.X**2).sum())
    directions, left_by_principal = principal(data.X, data.rank)
    dark = lambda rows: float((np.abs(rows) < 0.05 * np.abs(rows).max(1, keepdims=True)).mean())  # noqa: E731
    print(
        f"{data.name}: {data.X.shape[0]} pictures of {data.shape[0]} × {data.shape[1]} pixels, {data.rank} components"
    )
    print(f"  left of the squares: parts {left:.3f}, principal components {left_by_principal:.3f}")
    print(f"  share of pixels near zero: parts {dark(H):.2f}, principal components {dark(directions):.2f}")
    titles = [""] * data.rank
    if data.labels is not None:
        found = ppnmf.clusters(post)
        titles = gathered(ppnmf.clusters(best), data.labels, data.rank)
        right, rand = found.right(data.labels), found.adjusted_rand(data.labels)
        print(f"  parts gather: {', '.join(titles)}")
        print(
            f"  {right.mean / len(data.X):.0%} have the label of most in their part ({len(found.assigned)} starts, "
            f"{right.lower / len(data.X):.0%} to {right.upper / len(data.X):.0%}); adjusted Rand index {rand.mean:.2f}"
        )
    grid(H, data, titles, signed=False).savefig(out / f"{data.name}-parts.png", dpi=120)
    grid(directions, data, [""] * data.rank, signed=True).savefig(out / f"{data.name}-principal.png", dpi=120)
    plt.close("all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small digits and few starts, in seconds")
    parser.add_argument("--out", type=Path, default=Path("faces_and_digits"), help="folder of the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for data in chosen(options.quick):
        look_at(data, options.out, restarts=2 if options.quick else 5)


if __name__ == "__main__":
    main()
