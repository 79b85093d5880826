"""What differs between a posterior's draws, its mode, and an amortised approximation of it, on the same data?

A matrix of rank 3 is drawn, so the truth is known; a tenth of its cells is hidden. Gibbs sampling, ICM and PAE-NMF are fitted
to the rest. The table shows their errors on the hidden cells; below it stands how often their 90 % intervals cover the true
mean of a hidden cell, which is where they differ most. `--quick` finishes in seconds.
"""

import argparse
import warnings

import torch

import ppnmf
from ppnmf.data import toy


def coverage(post: ppnmf.Posterior, truth: torch.Tensor, hidden: torch.Tensor) -> float:
    """Share of the hidden cells whose true mean lies within the middle 90 % of the draws of W @ H."""
    W, H = (post.draws[site].flatten(0, 1)[-200:] for site in ("W", "H"))
    low, high = torch.quantile((W @ H)[:, hidden], torch.tensor([0.05, 0.95], dtype=W.dtype), dim=0)
    return float(((low <= truth[hidden]) & (truth[hidden] <= high)).double().mean())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="finish in seconds")
    quick = options.parse_args().quick
    warnings.filterwarnings("ignore", message="X has .* negative entries")  # the noise makes some; the story allows it

    N, D = (60, 40) if quick else (200, 100)
    X, W, H = toy.draw(N, D, rank=3, noise=0.5, seed=1)
    X = X.clamp(min=0)  # PAE-NMF takes no negative entries
    hidden = torch.rand(N, D, generator=torch.Generator().manual_seed(0)) < 0.1

    model = ppnmf.models.ExponentialGaussian.scaled_to(X, rank=3, mask=~hidden)
    draws = 200 if quick else 1000
    fits = {
        "gibbs": ppnmf.fit(model, X, mask=~hidden, method="gibbs", draws=draws, warmup=draws, seed=0),
        "icm": ppnmf.fit(model, X, mask=~hidden, method="icm", restarts=2 if quick else 8, seed=0),
        "pae": ppnmf.fit(
            ppnmf.models.PAENMF(3), X, mask=~hidden, method="svi", steps=300 if quick else 2000, draws=draws, seed=0
        ),
    }
    print(ppnmf.compare(fits, X, mask=~hidden))

    print("\n90 % intervals of the mean of a hidden cell cover it in")
    for name in ("gibbs", "pae"):
        print(f"  {name:<6}{coverage(fits[name], W @ H, hidden):6.1%} of the cells")
    print("  icm   none: a mode has no intervals")


if __name__ == "__main__":
    main()
