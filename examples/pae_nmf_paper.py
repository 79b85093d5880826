"""Do the published figures of PAE-NMF come out again, and does what is said of them hold in numbers?

Faces, share prices and leukaemia genes, as in Squires, Prügel-Bennett and Niranjan (2019), every data point included: in
the published setting (trained at the guide's median, σ² = 1/2), in ours (the exact bound, σ² learned), and by ordinary NMF.
The script prints squared errors beside the least that singular values allow, how wide the densities of loadings are after
each of the paper's four trainings, and whether faces that are alike have densities that are alike; it writes the pictures.

    python examples/pae_nmf_paper.py [--quick] [--out FOLDER] [--seed SEED]

The data come through `ppnmf.datasets`, from PPNMF_DATA or fetched; `--quick` draws small ones in their place.
"""

import argparse
import math
import time
import warnings
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, ScalarFormatter
from scipy.stats import spearmanr
from sklearn.decomposition import NMF
from torch.distributions import Weibull, kl_divergence

import ppnmf
from ppnmf.models import PAENMF

BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#BBBBBB", "#333333"
CURVES = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
COLUMN, PAGE = 3.4, 6.9  # inches: the widths of a paper's column and page
PICTURE, GAP = (19, 19), 2  # pixels of a face, which lie column by column, and between two faces
PUBLISHED, OURS = "PAE-NMF, published", "PAE-NMF, σ² learned"
TRAININGS = list(
    product(("median", "random"), (False, True))
)  # the loadings trained at, and is the KL to the prior added?
NARROW = 9  # the rank at which densities are shown
PAIRS = 1000


class Data(NamedTuple):
    """A matrix on the scale of the paper, a data point a row, and how it is fitted there."""

    X: np.ndarray  # float32
    rank: int
    steps: int  # of ours, at most
    published: dict[str, Any]  # how the published setting is trained
    kinds: np.ndarray | None = None  # of rows


class Fitted(NamedTuple):
    """Both settings of PAE-NMF on the same data, and what these and ordinary NMF make of X."""

    fits: dict[str, ppnmf.Posterior]
    means: dict[str, np.ndarray]


# Data


def published_data() -> dict[str, Data]:
    faces, prices, genes = (ppnmf.datasets.load(name) for name in ("faces", "prices", "genes"))
    return {
        "faces": Data(by_largest(faces.X), 81, 800, {"steps": 3000, "batch_size": 500, "learning_rate": 0.05}),
        "prices": Data(by_own_maximum(prices.X), 9, 3000, {"steps": 3000, "learning_rate": 0.005}),
        "genes": Data(by_own_maximum(genes.X), 3, 3000, {"steps": 3000, "learning_rate": 0.005}, genes.labels),
    }


def drawn_data(generator: np.random.Generator) -> dict[str, Data]:
    """Small stand-ins: pictures of blobs, series of a few trends, expression levels of three groups."""
    y, x = np.mgrid[:19, :19]
    centres = generator.uniform(3, 16, (12, 2))
    blobs = np.stack([np.exp(-((y - row) ** 2 + (x - column) ** 2) / 12).ravel(order="F") for row, column in centres])
    faces = generator.exponential(size=(120, 12)) @ blobs
    trends = np.exp(np.cumsum(0.05 * generator.normal(size=(4, 200)), axis=1))
    prices = generator.exponential(size=(40, 4)) @ trends * np.exp(0.05 * generator.normal(size=(40, 200)))
    levels = np.exp(1.5 * generator.normal(size=(3, 300)) + generator.normal(size=300))
    kinds = np.repeat(["A", "B", "C"], 8)
    genes = np.repeat(levels, 8, axis=0) * np.exp(0.3 * generator.normal(size=(24, 300)))
    steps, published = 100, {"steps": 200, "learning_rate": 0.05}
    return {
        "faces": Data(by_largest(faces), 9, steps, published),
        "prices": Data(by_own_maximum(prices), 4, steps, published),
        "genes": Data(by_own_maximum(genes), 3, steps, published, kinds),
    }


def by_largest(X: np.ndarray) -> np.ndarray:
    return (X / X.max()).astype(np.float32)


def by_own_maximum(X: np.ndarray) -> np.ndarray:
    return (X / X.max(1, keepdims=True)).astype(np.float32)


# Fits


def published(data: Data, training: str, divergence: bool, seed: int) -> ppnmf.Posterior:
    model = PAENMF.paper(data.rank, training, divergence)
    return ppnmf.fit(model, data.X, method="svi", draws=20, seed=seed, **data.published)


def fitted(data: Data, seed: int) -> Fitted:
    fits = {
        PUBLISHED: published(data, "median", True, seed),
        OURS: ppnmf.fit(PAENMF(data.rank), data.X, method="svi", steps=data.steps, draws=20, seed=seed),
    }
    means = {name: post.model.decode(loadings(post)).numpy() for name, post in fits.items()}
    return Fitted(fits, {"NMF": ordinary_nmf(data, seed)} | means)


def guide(post: ppnmf.Posterior) -> Weibull:
    """Of the loadings (N, K) of the fit's own rows, float64."""
    found = post.model.encode(post.X.values)
    return Weibull(found.scale.double(), found.concentration.double())


def loadings(post: ppnmf.Posterior) -> torch.Tensor:
    """(N, K): the guide's median where it was trained at that, else its mean."""
    found = post.model.encode(post.X.values)
    return quantile(found, 0.5) if post.attrs["objective"] == "median" else found.mean


def quantile(found: Weibull, share: float) -> torch.Tensor:
    return found.icdf(torch.full_like(found.scale, share))


def ordinary_nmf(data: Data, seed: int) -> np.ndarray:
    nmf = NMF(data.rank, init="nndsvda", tol=1e-5, max_iter=500, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Maximum number of iterations"
        )  # of faces, where as many again gain 5 %
        return nmf.fit_transform(data.X) @ nmf.components_


# Numbers


def print_errors(problems: Mapping[str, Data], found: Mapping[str, Fitted]) -> None:
    print("\nSquared errors, and in brackets what they are times ordinary NMF's")
    print(f"{'':8}{'rank':>5}{'least (SVD)':>13}{'NMF':>10}{PUBLISHED:>26}{OURS:>26}")
    for name, data in problems.items():
        least = np.square(np.linalg.svd(data.X.astype(float), compute_uv=False)[data.rank :]).sum()
        error = {way: np.square(data.X - mean, dtype=float).sum() for way, mean in found[name].means.items()}
        pae = "".join(f"{error[way]:>18.5g} ({error[way] / error['NMF']:5.2f})" for way in (PUBLISHED, OURS))
        print(f"{name:8}{data.rank:>5}{least:>13.5g}{error['NMF']:>10.5g}{pae}")


def print_widths(four: Mapping[tuple[str, bool], ppnmf.Posterior]) -> None:
    """Interquartile range over median: it does not change with a loading's scale, and is finite for any k."""
    print(f"\nDensities of the loadings of faces, rank {NARROW}: lower quartile and median over faces and components")
    print(f"{'':30}{'interquartile range / median':>31}{'k':>18}{'KL to the prior, nats':>26}")
    one = torch.ones((), dtype=torch.float64)
    prior = Weibull(one, one)
    for name, found in ({label(*key): guide(post) for key, post in four.items()} | {"the prior": prior}).items():
        width = (quantile(found, 0.75) - quantile(found, 0.25)) / quantile(found, 0.5)
        columns = ((width, 23), (found.concentration, 10), (kl_divergence(found, prior), 18))
        cells = (f"{np.quantile(part, 0.25):>{room}.2f}{np.quantile(part, 0.5):>8.2f}" for part, room in columns)
        print(f"{name:30}" + "".join(cells))


def label(training: str, divergence: bool) -> str:
    return f"{training} training, {'with' if divergence else 'without'} KL"


def apart(found: Weibull, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """KL between the densities of pairs of rows, there and back, summed over components."""
    one, two = (Weibull(found.scale[rows], found.concentration[rows]) for rows in (first, second))
    return (kl_divergence(one, two) + kl_divergence(two, one)).sum(-1).numpy()


def pairs(N: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two different rows each."""
    generator = np.random.default_rng(seed)
    first = generator.integers(N, size=PAIRS)
    return first, (first + generator.integers(1, N, size=PAIRS)) % N


# Pictures


def plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=7)


def greys(faces: np.ndarray) -> tuple[float, float]:
    """What is black and what white: all but the darkest and the brightest hundredth of the pixels lie between."""
    low, high = np.quantile(faces, [0.01, 0.99])
    return float(low), float(max(high, low + 1e-9))


def each_on_its_own(faces: np.ndarray) -> np.ndarray:
    """Faces (n, D), each from its own black to its own white: such loadings say little of brightness."""
    low, high = np.quantile(faces, [0.01, 0.99], axis=1, keepdims=True)
    return (faces - low) / (high - low).clip(1e-9)


def mosaic(ax: Axes, faces: np.ndarray, across: int, scale: tuple[float, float], cmap: str = "gray") -> None:
    """Faces (n, D), `across` in a line, upright; `scale` is black and white."""
    height, width = (side + GAP for side in PICTURE)
    canvas = np.full((-(-len(faces) // across) * height - GAP, across * width - GAP), np.nan)
    for number, pixels in enumerate(faces):
        top, left = number // across * height, number % across * width
        canvas[top : top + PICTURE[0], left : left + PICTURE[1]] = pixels.reshape(PICTURE, order="F")
    between = "white" if cmap == "gray" else GREY
    colours = matplotlib.colormaps[cmap].with_extremes(bad=between)
    ax.imshow(canvas, cmap=colours, vmin=scale[0], vmax=scale[1], interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def face_lines(lines: Mapping[str, np.ndarray], scale: tuple[float, float]) -> Figure:
    """A line of as many faces beside each name, all of one grey scale."""
    across, height = len(next(iter(lines.values()))), PICTURE[0] + GAP
    figure = Figure(figsize=(PAGE, PAGE / (across + 1.5) * len(lines)), layout="constrained")
    ax = figure.subplots()
    mosaic(ax, np.concatenate(list(lines.values())), across, scale)
    ax.set_yticks(height * np.arange(len(lines)) + PICTURE[0] / 2, [fill(name, 13) for name in lines], fontsize=8)
    ax.tick_params(length=0)
    return figure


def reconstructed_faces(data: Data, found: Fitted, rows: np.ndarray) -> Figure:
    lines = {"original": data.X} | found.means
    return face_lines({name: faces[rows] for name, faces in lines.items()}, greys(data.X))


def reconstructed_prices(data: Data, found: Fitted, rows: np.ndarray) -> Figure:
    """A line of panels for each method, so that none hides another."""
    figure = Figure(figsize=(PAGE, 4.2), layout="constrained")
    grid = figure.subplots(len(found.means), len(rows), sharex=True, sharey=True)
    for axes, (name, mean), colour in zip(grid, found.means.items(), (GREEN, ORANGE, BLUE), strict=True):
        for ax, row in zip(axes, rows, strict=True):
            ax.plot(data.X[row], color=GREY, linewidth=3, label="original")
            ax.plot(mean[row], color=colour, linewidth=0.9, label=name)
            ax.xaxis.set_major_locator(MaxNLocator(3))
            plain(ax)
        axes[0].set_ylabel(fill(name, 10), fontsize=8)
    for ax, row in zip(grid[0], rows, strict=True):
        ax.set_title(f"company {row + 1}", fontsize=8)
    figure.supxlabel("trading day", fontsize=8)
    figure.supylabel("price / the company's highest (grey: original)", fontsize=8)
    return figure


def reconstructed_genes(data: Data, found: Fitted) -> Figure:
    """Levels against reconstructed levels; a line for the first sample of each kind."""
    kinds, rows = np.unique(data.kinds, return_index=True)
    figure = Figure(figsize=(PAGE, 1.9 * len(kinds) + 0.3), layout="constrained")
    low = float(data.X[rows].min())
    for axes, kind, row in zip(figure.subplots(len(kinds), 3, sharex=True, sharey=True), kinds, rows, strict=True):
        for ax, (name, mean) in zip(axes, found.means.items(), strict=True):
            level, ours = data.X[row], mean[row].clip(low / 3)
            ax.plot(level, ours, ".", color=BLUE, markersize=1.5, alpha=0.3)
            ax.plot([low, 1], [low, 1], color=INK, linewidth=0.8)
            ax.set(xscale="log", yscale="log")
            ax.minorticks_off()
            correlation = np.corrcoef(np.log(level), np.log(ours))[0, 1]
            ax.set_title(f"{kind}: {name}\ncorrelation of logarithms {correlation:.2f}", fontsize=8)
            plain(ax)
    figure.supxlabel("level of a gene / the sample's highest", fontsize=8)
    figure.supylabel("reconstructed", fontsize=8)
    return figure


def components(post: ppnmf.Posterior) -> np.ndarray:
    """(K, D): rows of H times their mean loadings, those that add most to X first."""
    mean = (loadings(post).mean(0)[:, None] * post.model.H.detach()).numpy()
    return mean[np.argsort(-mean.sum(1))]


def parts(found: Fitted) -> Figure:
    """Each part on its own scale, as ink: most of its pixels are near zero."""
    figure = Figure(figsize=(PAGE, PAGE / 2 + 0.2), layout="constrained")
    for ax, (name, post) in zip(figure.subplots(1, 2), found.fits.items(), strict=True):
        shown = components(post)
        top = np.quantile(shown, 0.99, axis=1, keepdims=True)
        mosaic(ax, shown / top.clip(1e-9), math.isqrt(len(shown)), (0, 1), "gray_r")
        ax.set_title(name, fontsize=8)
    return figure


def trends(found: Fitted) -> Figure:
    figure = Figure(figsize=(PAGE, PAGE / 2 + 0.2), layout="constrained")
    for half, (name, post) in zip(figure.subfigures(1, 2), found.fits.items(), strict=True):
        shown = components(post)
        across = math.isqrt(len(shown))
        for number, (ax, trend) in enumerate(
            zip(half.subplots(across, across, sharex=True, sharey=True).flat, shown, strict=True)
        ):
            ax.plot(trend, color=BLUE, linewidth=0.8)
            ax.set_title(f"trend {number + 1}", fontsize=7, pad=2)
            ax.xaxis.set_major_locator(MaxNLocator(3))
            plain(ax)
        half.axes[0].set_ylim(0, 1.05 * shown.max())
        half.suptitle(name, fontsize=8)
        half.supxlabel("trading day", fontsize=8)
        half.supylabel("mean loading × trend", fontsize=8)
    return figure


def densities(four: Mapping[tuple[str, bool], ppnmf.Posterior], row: int) -> Figure:
    """The densities of the loadings of one face, a panel for each training; high ones are drawn closer together."""
    figure = Figure(figsize=(PAGE, 3.8), layout="constrained")
    x = torch.linspace(0, 4, 2001, dtype=torch.float64)[1:]
    for ax, (key, post) in zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, four.items(), strict=True):
        found = guide(post)
        curves = Weibull(found.scale[row], found.concentration[row]).log_prob(x[:, None]).exp()
        ax.plot(x, curves, color=BLUE, linewidth=1, alpha=0.7)
        ax.plot(x, (-x).exp(), color=INK, linewidth=1.5, linestyle="--")
        ax.set_yscale("asinh", linear_width=1.0)
        ax.yaxis.set_major_locator(FixedLocator([0, 1, 3, 10, 30, 100, 300, 1000]))
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_xlim(0, 4)
        ax.set_title(label(*key), fontsize=8)
        plain(ax)
    figure.supxlabel("loading of a component", fontsize=8)
    for ax in figure.axes[:1]:
        ax.set_ylim(0, 1.1 * ax.get_ylim()[1])
    figure.supylabel("density (dashed: the prior)", fontsize=8)
    return figure


def similar(pictures: np.ndarray, densities: np.ndarray) -> Figure:
    figure = Figure(figsize=(COLUMN, 2.8), layout="constrained")
    ax = figure.subplots()
    ax.plot(pictures, densities, ".", color=BLUE, markersize=2.5, alpha=0.6)
    ax.set_yscale("log")
    ax.set_xlabel("distance of two faces", fontsize=8)
    ax.set_ylabel("KL of their densities, there and back, nats", fontsize=8)
    plain(ax)
    return figure


def neighbours(post: ppnmf.Posterior, rows: np.ndarray) -> Figure:
    X, found = post.X.values.numpy(), guide(post)
    far = np.stack([apart(found, np.full(len(X), row), np.arange(len(X))) for row in rows])
    order = far.argsort(1)  # a face itself comes first
    lines = {"face": X[rows], "nearest density": X[order[:, 1]], "farthest density": X[order[:, -1]]}
    return face_lines(lines, greys(X))


def prior_loadings(n: int, rank: int, generator: np.random.Generator) -> np.ndarray:
    return generator.exponential(size=(n, rank))


def resampled_loadings(n: int, post: ppnmf.Posterior, generator: np.random.Generator) -> torch.Tensor:
    """Of the mean of all rows' guides: a row at random, then a draw of its own."""
    W = post.draws["W"][0]
    return W[generator.integers(len(W), size=n), generator.integers(W.shape[1], size=n)]


def generated_faces(post: ppnmf.Posterior, rows: np.ndarray, generator: np.random.Generator) -> Figure:
    """Means, as in the paper (`post.generate` adds the noise), each face from its own black to its own white."""
    model, X, n = post.model, post.X.values, len(rows)
    lines = {
        "loadings from the prior": model.decode(prior_loadings(n, model.rank, generator)),
        "loadings of random faces": model.decode(resampled_loadings(n, post, generator)),
        "loadings of one face, again": model.decode(post.draws["W"][0, :n, rows[0]]),
        "from one face to another": model.interpolate(X[rows[0]], X[rows[-1]], n),
    }
    return face_lines({name: each_on_its_own(faces.numpy()) for name, faces in lines.items()}, (0, 1))


def generated_prices(found: Fitted, generator: np.random.Generator, n: int = 6) -> Figure:
    """On a logarithmic axis: after training at the median only the KL holds the guide's spread, so draws stray."""
    figure = Figure(figsize=(PAGE, 4), layout="constrained")
    grid = figure.subplots(2, 3, sharex=True, sharey=True)
    for line, (name, post) in zip(grid, found.fits.items(), strict=True):
        X, model = post.X.values, post.model
        panels = {
            "companies": X[generator.integers(len(X), size=n)],
            f"{name}:\nloadings from the prior": model.decode(prior_loadings(n, model.rank, generator)),
            f"{name}:\nloadings of random companies": model.decode(resampled_loadings(n, post, generator)),
        }
        for ax, (title, series) in zip(line, panels.items(), strict=True):
            for one, colour in zip(np.asarray(series), CURVES, strict=True):
                ax.plot(one, color=colour, linewidth=0.7)
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(ScalarFormatter())
            ax.yaxis.set_minor_locator(NullLocator())
            ax.set_title(title, fontsize=8)
            plain(ax)
    figure.supxlabel("trading day", fontsize=8)
    figure.supylabel("price / the company's highest", fontsize=8)
    return figure


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="drawn data and few steps: seconds")
    options.add_argument("--out", type=Path, default=Path("pae_nmf_paper"), help="folder of the pictures")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    generator, began = np.random.default_rng(chosen.seed), time.perf_counter()

    problems = drawn_data(generator) if chosen.quick else published_data()
    found = {name: fitted(data, chosen.seed) for name, data in problems.items()}
    print_errors(problems, found)

    narrow = problems["faces"]._replace(rank=NARROW)
    four = {key: published(narrow, *key, chosen.seed) for key in TRAININGS}
    print_widths(four)

    first, second = pairs(len(narrow.X), chosen.seed)
    pictures = np.linalg.norm(narrow.X[first] - narrow.X[second], axis=1)
    print(f"\nRank correlation of the distance of two faces and that of their densities, {PAIRS} pairs")
    for key, post in four.items():
        print(f"{label(*key):30}{spearmanr(pictures, apart(guide(post), first, second)).statistic:>7.2f}")

    faces, prices = found["faces"], found["prices"]
    shown = generator.choice(len(narrow.X), 8, replace=False)
    companies = np.sort(generator.choice(len(problems["prices"].X), 4, replace=False))
    random = four["random", True]
    figures = {
        "faces": reconstructed_faces(narrow, faces, shown),
        "prices": reconstructed_prices(problems["prices"], prices, companies),
        "genes": reconstructed_genes(problems["genes"], found["genes"]),
        "parts": parts(faces),
        "trends": trends(prices),
        "densities": densities(four, shown[0]),
        "similar": similar(pictures, apart(guide(random), first, second)),
        "neighbours": neighbours(random, shown),
        "generated_faces": generated_faces(faces.fits[OURS], shown, generator),
        "generated_faces_published": generated_faces(random, shown, generator),
        "generated_prices": generated_prices(prices, generator),
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(chosen.out / f"{name}.png", dpi=150)
    print(f"\n{len(figures)} pictures are in {chosen.out}; {time.perf_counter() - began:.0f} seconds")


if __name__ == "__main__":
    main()
