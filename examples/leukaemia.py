"""Which leukaemia samples belong together, and is a consensus of many starts firmer than a posterior?

Gene expression of 38 samples whose kinds doctors know: B-cell and T-cell ALL, and AML (Golub et al. 1999, 5000 genes as
filtered by Brunet et al. 2004). NMF knows none of that. Fifty starts of multiplicative updates give a consensus, as in
Brunet et al.: which samples share a component, start after start. Gibbs sampling gives a posterior of the same. Both are
asked how many samples stand among their own kind, and who is in doubt.

    python examples/leukaemia.py            # a minute; --quick draws a small matrix of three kinds instead, in seconds
"""

import argparse
import warnings

import numpy as np

import ppnmf
from ppnmf.diagnostics.clusters import Clusters


def drawn(rows: int = 38, columns: int = 200, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Samples (rows) of three kinds, each with genes of its own, and their kinds."""
    generator = np.random.default_rng(seed)
    kinds = np.arange(rows) % 3
    patterns = generator.exponential(1.0, (3, columns)) * generator.binomial(1, 0.3, (3, columns))
    patterns[1:] += patterns[1] + patterns[2]  # the last two are much alike
    loadings = generator.exponential(0.25, (rows, 3)) + 2 * np.eye(3)[kinds]
    X = loadings @ patterns + 0.3 * generator.standard_normal((rows, columns))
    return np.clip(X, 0, None), [("one", "two-a", "two-b")[kind] for kind in kinds]


def show(title: str, found: Clusters, kinds: list[str], names: list[str]) -> None:
    """One line of the answer, and who is in doubt."""
    together = len(kinds) - len(found.wrong(kinds))
    each, rand = found.right(kinds), found.adjusted_rand(kinds)
    print(
        f"{title:24} {together} of {len(kinds)} among their own kind; in single draws or starts {each.mean:.1f} "
        f"({each.lower:.0f} to {each.upper:.0f}); adjusted Rand index {rand.mean:.2f} ({rand.lower:.2f} to {rand.upper:.2f}); "
        f"firmness {found.firmness.mean():.2f}"
    )
    if found.wrong(kinds):
        print(f"{'':24} among others: {', '.join(names[int(number)] for number in found.wrong(kinds))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small drawn matrix, a few starts and draws")
    options = parser.parse_args()
    if options.quick:
        X, kinds = drawn()
        names = [f"sample {number}" for number in range(len(X))]
        starts, sweeps, chains = 8, 100, 2
    else:
        data = ppnmf.datasets.load("genes")
        X, kinds, names = data.X, list(map(str, data.labels)), list(map(str, data.rows))
        starts, sweeps, chains = 50, 300, 4
    for rank in (2, 3):
        known = kinds if rank == 3 else [kind.split("-")[0] for kind in kinds]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="mu: .* had not converged")
            modes = ppnmf.fit(
                "exponential_gaussian", X, rank=rank, method="mu", restarts=starts, max_sweeps=sweeps, tol=1e-6
            )
        post = ppnmf.fit("exponential_gaussian", X, rank=rank, draws=sweeps, warmup=sweeps, chains=chains)
        print(f"\nrank {rank}")
        show(f"consensus of {starts} starts", ppnmf.clusters(modes), known, names)
        show("posterior", ppnmf.clusters(post), known, names)


if __name__ == "__main__":
    main()
