"""How many components does a matrix hold, and how firmly do the data say so?

First a matrix drawn from the model, 60 × 40 of rank 3, by Chib's log evidence, with criteria that cost less beside it and
what other priors would do; then scikit-learn's digits, where no rank is true, by the error on hidden cells. `--quick`
takes shorter runs and fewer ranks; `--plot FOLDER` draws both tables.
"""

import argparse
import time
import warnings
from pathlib import Path

import torch
from sklearn.datasets import load_digits

import ppnmf


def drawn(N: int, D: int, rank: int, seed: int) -> torch.Tensor:
    """W @ H with exponential factors and normal noise of variance one, (N, D)."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.empty(shape, dtype=torch.float64).exponential_(generator=generator)  # noqa: E731
    return draw(N, rank) @ draw(rank, D) + torch.randn(N, D, dtype=torch.float64, generator=generator)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="finish in seconds")
    parser.add_argument("--plot", type=Path, help="folder for two pictures")
    options = parser.parse_args()
    quick = options.quick
    warnings.filterwarnings("ignore", message="X has .* negative entries")  # the noise makes some; the story allows it
    began = time.perf_counter()

    print("A drawn matrix, 60 × 40, of rank 3, by Chib's estimate and beside it by other criteria\n")
    X = drawn(60, 40, rank=3, seed=0)
    known = ppnmf.select_rank(
        ppnmf.models.ExponentialGaussian(rank=1),
        X,
        range(1, 5 if quick else 7),
        method=["chib", "aic", "bic", "mdl"],
        chib={"draws": 300, "warmup": 200, "replicates": 4} if quick else {},
        sensitivity=not quick,
    )
    print(known, "\n")

    print("Digits, 1797 × 64, by held-out cells\n")
    digits = load_digits().data
    unknown = ppnmf.select_rank(
        lambda rank: ppnmf.models.ExponentialGaussian.scaled_to(digits, rank),  # the prior keeps to the data's scale
        digits,
        ranks=[2, 5, 10] if quick else [2, 5, 10, 15, 20],
        method="heldout",
        used=2 if quick else 3,
        draws=15 if quick else 50,
        warmup=15 if quick else 50,
    )
    print(unknown, f"\n\n{time.perf_counter() - began:.1f} seconds")
    if options.plot:
        options.plot.mkdir(parents=True, exist_ok=True)
        for name, table in (("drawn", known), ("digits", unknown)):
            print(ppnmf.plots.save(ppnmf.plots.rank(table), options.plot / f"{name}.png"))


if __name__ == "__main__":
    main()
