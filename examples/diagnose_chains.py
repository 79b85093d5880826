"""Do the chains agree, and what does it look like when they do not?

The same matrix is sampled twice by Gibbs: with the moves along the ridge W @ H = constant, and without. Both runs
reconstruct X equally well; only the strengths of the components give the second one away. ArviZ draws the rank plots,
traces and effective sample sizes, and replicates of X are compared with X.

    python examples/diagnose_chains.py --out figures        # half a minute; --quick takes seconds
"""

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import arviz
import matplotlib.pyplot as plt
import torch
import xarray

import ppnmf
from ppnmf.arviz import for_arviz
from ppnmf.diagnostics.convergence import identified


def draw_data(N: int, D: int, rank: int) -> torch.Tensor:
    """X = W H + noise with exponential W, H of rate 0.1 and noise of variance 2.5."""
    generator = torch.Generator().manual_seed(1)
    W, H = (torch.empty(size, dtype=torch.float64) for size in ((N, rank), (rank, D)))
    for factor in (W, H):
        factor.exponential_(0.1, generator=generator)
    return W @ H + 2.5**0.5 * torch.randn(N, D, dtype=torch.float64, generator=generator)


def judged(post: ppnmf.Posterior) -> object:
    """What ArviZ draws: log joint, noise, the strength of the strongest component and of the weakest."""
    data = identified(post)
    strength = data["strength"].drop_vars("place")
    chosen = {"strongest": strength[..., 0], "weakest": strength[..., -1]}
    return for_arviz(xarray.DataTree.from_dict({"posterior": data[["lp", "sigma2"]].assign(chosen)}))


def save_chains(post: ppnmf.Posterior, name: str, out: Path) -> None:
    """Rank plots, traces and effective sample sizes by ArviZ."""
    form = judged(post)
    for what, plot in {"rank": arviz.plot_rank, "trace": arviz.plot_trace, "ess": arviz.plot_ess}.items():
        plot(form, var_names=["lp", "sigma2", "strongest", "weakest"])
        figure = plt.gcf()
        figure.set_size_inches(13, 7)
        figure.suptitle(f"{what} plot, {name}")
        if what == "trace":
            figure.supxlabel("value, a line a chain (left); kept draw (right)")
        figure.set_layout_engine("tight")
        figure.savefig(out / f"{what}_{name.replace(' ', '_')}.png", dpi=80)
        plt.close("all")


def save_predictive(post: ppnmf.Posterior, out: Path) -> float:
    """Replicates of X beside X, and how many entries lie in their 90 % interval."""
    thinned = replace(post, draws={site: values[:, ::10] for site, values in post.draws.items()})
    X, replicates = post.X.values, thinned.predictive(seed=1).flatten(0, 1)
    low, high = (torch.quantile(replicates, q, dim=0) for q in (0.05, 0.95))
    inside = float((X.gt(low) & X.lt(high)).double().mean())
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for replicate in replicates[:30]:
        left.hist(replicate.flatten(), bins=60, histtype="step", density=True, color="tab:blue", alpha=0.2)
    left.hist(X.flatten(), bins=60, histtype="step", density=True, color="black", linewidth=1.5)
    left.set(title="entries of X (black) and of 30 replicates", xlabel="value", ylabel="density", yscale="log")
    residual = (X - replicates.mean(0)).flatten()
    right.scatter(replicates.mean(0).flatten(), residual, s=2, color="black")
    half = (high - low).mean() / 2
    right.axhspan(-float(half), float(half), color="tab:blue", alpha=0.2)
    right.set(
        title=f"{inside:.1%} of X inside the 90 % interval", xlabel="predictive mean", ylabel="X - predictive mean"
    )
    figure.savefig(out / "predictive.png", dpi=80)
    plt.close(figure)
    return inside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small matrix and few draws")
    parser.add_argument("--out", type=Path, default=Path("diagnose_chains"), help="folder of the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    (N, D), rank, draws = ((30, 20), 3, 400) if options.quick else ((100, 80), 10, 2000)
    X = draw_data(N, D, rank)
    model = ppnmf.models.ExponentialGaussian(rank, rate_W=0.1, rate_H=0.1)
    for name, moves in (("with moves", True), ("without moves", False)):
        post = ppnmf.fit(model, X.clamp(min=0), draws=draws, warmup=draws, chains=4, seed=0, moves=moves)
        print(f"{name}\n{ppnmf.summary(post)}\n")
        save_chains(post, name, options.out)
        if moves:
            inside = save_predictive(post, options.out)
            print(f"{inside:.1%} of X lies in the 90 % interval of its replicates (more than 90 %: X was fitted)\n")
    print(f"pictures in {options.out.resolve()}")


if __name__ == "__main__":
    main()
