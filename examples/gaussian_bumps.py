"""Does PAE-NMF find the four Gaussian bumps that 16 000 noisy curves are mixtures of?

Each curve has 512 points and is the sum of four bumps with weights uniform on [0, 1], plus a little noise. PAE-NMF knows
neither the bumps nor the weights. The script prints how close each learned component is to its bump (the cosine between
them; 1 is the same shape), and writes the loss curve, the components and some reconstructions as pictures.

    python examples/gaussian_bumps.py [--quick] [--out FOLDER] [--seed SEED]
"""

import argparse
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

import ppnmf

CENTRES, WIDTHS = (90, 190, 290, 410), (22, 30, 26, 34)
POINTS, NOISE = 512, 0.02
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"


def curves(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """n curves (n, 512), float32, and the bumps (4, 512) they are made of."""
    at = np.arange(POINTS)
    bumps = np.stack([np.exp(-0.5 * ((at - c) / w) ** 2) for c, w in zip(CENTRES, WIDTHS, strict=True)])
    clean = generator.uniform(size=(n, len(bumps))) @ bumps
    return np.abs(clean + NOISE * generator.normal(size=clean.shape)).astype(np.float32), bumps


def matched(components: np.ndarray, bumps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each bump the component that belongs to it, and the cosine between the two."""
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-30) for rows in (bumps, components)]
    cosine = unit[0] @ unit[1].T
    order = linear_sum_assignment(-cosine)[1]
    return order, cosine[np.arange(len(bumps)), order]


def loss_picture(post: ppnmf.Posterior) -> Figure:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    loss = -np.asarray(post.attrs["elbo_curve"]) / post.X.n_observed
    axes.plot(np.linspace(1, post.attrs["steps"], len(loss)), loss - loss.min() + 1e-4, color=BLUE)
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="-ELBO above its least\n(nats per entry, + 1e-4)")
    axes.set_title(f"ELBO {post.attrs['elbo']:.6g} nats after {post.attrs['steps']} steps")
    return figure


def components_picture(components: np.ndarray, bumps: np.ndarray, cosines: np.ndarray) -> Figure:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    for axes, component, bump, cosine in zip(figure.subplots(2, 2).flat, components, bumps, cosines, strict=True):
        axes.plot(bump / bump.max(), color=GREY, linewidth=5, label="bump")
        axes.plot(component / component.max(), color=ORANGE, linewidth=1.5, label="component")
        axes.set_title(f"cosine {cosine:.5f}", fontsize=10)
    label(figure, "height / its greatest")
    return figure


def reconstruction_picture(post: ppnmf.Posterior, X: np.ndarray) -> Figure:
    shown = X[:6]
    means = post.model.decode(post.model.encode(shown).mean).numpy()
    figure = Figure(figsize=(10, 5), layout="constrained")
    for axes, curve, mean in zip(figure.subplots(2, 3, sharex=True, sharey=True).flat, shown, means, strict=True):
        axes.plot(curve, color=GREY, linewidth=0.8, label="curve")
        axes.plot(mean, color=BLUE, linewidth=1.8, label="E[w] H")
    label(figure, "height")
    return figure


def label(figure: Figure, height: str) -> None:
    """Words on the axes, and above the panels what their lines are."""
    figure.supxlabel("point of the curve")
    figure.supylabel(height)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=8)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="1000 curves: a few seconds")
    options.add_argument("--out", type=Path, default=Path("gaussian_bumps"), help="folder of the pictures")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()

    X, bumps = curves(1000 if chosen.quick else 16_000, np.random.default_rng(chosen.seed))
    start = time.perf_counter()
    training = {"batch_size": 250, "steps": 300} if chosen.quick else {"batch_size": 500, "steps": 2000}
    post = ppnmf.fit(ppnmf.models.PAENMF(rank=4), X, method="svi", draws=10, seed=chosen.seed, **training)
    seconds = time.perf_counter() - start

    components = post.mean("H").numpy()
    order, cosines = matched(components, bumps)
    mean_square = post.squared_error() / post.X.n_observed
    print(f"{len(X)} curves of {POINTS} points, {seconds:.1f} s, {post.attrs['steps']} steps")
    print("cosine of each bump with its component:", "  ".join(f"{cosine:.5f}" for cosine in cosines))
    noise = float(post.mean("sigma2")) ** 0.5
    print(f"learned sigma {noise:.4f}, root mean square error {mean_square**0.5:.4f}, true {NOISE}")

    chosen.out.mkdir(parents=True, exist_ok=True)
    loss_picture(post).savefig(chosen.out / "loss.png", dpi=120)
    components_picture(components[order], bumps, cosines).savefig(chosen.out / "components.png", dpi=120)
    reconstruction_picture(post, X).savefig(chosen.out / "reconstructions.png", dpi=120)
    print(f"pictures are in {chosen.out}")


if __name__ == "__main__":
    main()
