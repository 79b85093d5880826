"""Which mutational processes acted in these tumours, and how surely do we know them?

    python examples/mutational_signatures.py [--quick] [--out folder]

Counts of mutations in 96 channels are drawn from known signatures, in very unequal tumours, once as Poisson counts and once
overdispersed. A Poisson and a negative binomial factorisation are fitted to both, and the components are compared with the
truth by their cosine, each with its interval over the posterior.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

import ppnmf

CHANNELS, SIGNATURES = 96, 4


def drawn(tumours: int, dispersion: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts (tumours, 96), and the signatures (4, 96) that they were drawn from; no dispersion: Poisson counts."""
    generator = np.random.default_rng(seed)
    signatures = generator.dirichlet(np.full(CHANNELS, 0.15), SIGNATURES)
    loadings = generator.gamma(0.7, size=(tumours, SIGNATURES)) * generator.lognormal(6.5, 0.8, size=(tumours, 1))
    mean = loadings @ signatures
    if np.isfinite(dispersion):
        mean = mean * generator.gamma(dispersion, 1 / dispersion, size=mean.shape)
    return generator.poisson(mean), signatures


def cosines(H: torch.Tensor, signatures: np.ndarray) -> torch.Tensor:
    """Of each draw's components (S, K, 96) with the signature that each is matched with, (S, signatures)."""
    truth = torch.from_numpy(signatures)
    unit = lambda values: values / values.norm(dim=-1, keepdim=True)  # noqa: E731
    each = unit(truth) @ unit(H).mT  # (S, signatures, K)
    mean = each.mean(0).numpy()
    rows, columns = linear_sum_assignment(-mean)
    return each[:, rows, columns]


def report(name: str, post: ppnmf.Posterior, signatures: np.ndarray) -> list[str]:
    aligned = ppnmf.align(post)
    found = cosines(aligned.draws["H"].flatten(0, 1), signatures)
    low, middle, high = found.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=found.dtype), 0)
    shown = ", ".join(f"{m:.3f} ({a:.3f} to {b:.3f})" for a, m, b in zip(low, middle, high, strict=True))
    return [f"  {name}: cosine with each true signature {shown}", f"    {ppnmf.summary(post).sentence}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few tumours and sweeps")
    parser.add_argument("--out", type=Path, default=Path("mutational_signatures"))
    given = parser.parse_args()
    tumours, sweeps = (24, 30) if given.quick else (120, 800)
    given.out.mkdir(parents=True, exist_ok=True)
    for kind, dispersion in (("Poisson counts", np.inf), ("overdispersed counts (φ = 10)", 10.0)):
        X, signatures = drawn(tumours, dispersion)
        print(f"{kind}: {X.shape[0]} tumours × {X.shape[1]} channels, {X.sum()} mutations")
        begin = "scaled"
        for name in ("gamma_poisson", "negative_binomial_gamma"):
            options = {"draws": sweeps // 2, "warmup": sweeps, "chains": 2, "seed": 0, "progress": not given.quick}
            post = ppnmf.fit(name, X, rank=SIGNATURES, init=begin, **options)
            begin = {
                site: post.draws[site][:, -1] for site in ("W", "H")
            }  # for the next: φ takes long from a random start
            print("\n".join(report(name, post, signatures)))
            if name == "negative_binomial_gamma":
                print(f"    dispersion φ: {float(post.mean('dispersion')):.1f}")
            post.save(given.out / f"{name}, {kind.split()[0]}.nc")
    figure = ppnmf.plots.components(post)
    ppnmf.plots.save(figure, given.out / "components.png")
    print(f"Posteriors and a picture are in {given.out}.")


if __name__ == "__main__":
    main()
