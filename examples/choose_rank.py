"""How many components does a matrix hold, and how firmly do the data say so?

First a matrix drawn from the model, 60 × 40 of rank 3, by Chib's log evidence; then scikit-learn's digits, where no rank
is true, by the error on hidden cells. `--quick` takes shorter runs and fewer ranks.
"""

import argparse
import time
import warnings

import torch
from sklearn.datasets import load_digits

import ppnmf


def drawn(N: int, D: int, rank: int, seed: int) -> torch.Tensor:
    """W @ H with exponential factors and normal noise of variance one, (N, D)."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.empty(shape, dtype=torch.float64).exponential_(generator=generator)  # noqa: E731
    return draw(N, rank) @ draw(rank, D) + torch.randn(N, D, dtype=torch.float64, generator=generator)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="finish in seconds")
    quick = options.parse_args().quick
    warnings.filterwarnings("ignore", message="X has .* negative entries")  # the noise makes some; the story allows it
    began = time.perf_counter()

    print("A drawn matrix, 60 × 40, of rank 3, by Chib's estimate\n")
    X, settings = drawn(60, 40, rank=3, seed=0), {"draws": 300, "warmup": 200, "replicates": 4} if quick else {}
    table = ppnmf.select_rank(ppnmf.models.ExponentialGaussian(rank=1), X, range(1, 5 if quick else 7), **settings)
    print(table, "\n")

    print("Digits, 1797 × 64, by held-out cells\n")
    digits = load_digits().data
    table = ppnmf.select_rank(
        lambda rank: ppnmf.models.ExponentialGaussian.scaled_to(digits, rank),  # the prior keeps to the data's scale
        digits,
        ranks=[2, 5, 10] if quick else [2, 5, 10, 15, 20],
        method="heldout",
        used=2 if quick else 3,
        draws=15 if quick else 50,
        warmup=15 if quick else 50,
    )
    print(table, f"\n\n{time.perf_counter() - began:.1f} seconds")


if __name__ == "__main__":
    main()
