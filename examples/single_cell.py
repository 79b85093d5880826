"""Which gene programs do these cells run, how surely do we know the genes of each, and does sequencing depth mislead?

    python examples/single_cell.py [--quick] [--out folder]

Counts of molecules are drawn from the model: cells run a few gene programs, each cell is sequenced to a depth of its own, and three
entries of a hundred are not zero. A Poisson-gamma factorisation is fitted twice, with the depth as an exposure and without. The
programs are compared with those that were drawn, and loadings with the depth, which they should not follow. Factors, their
deviations and the verdict on the chains go into an AnnData, as `ppnmf.anndata.fit` writes them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
import scipy.sparse

import ppnmf

PROGRAMS, FILLED = 6, 0.03  # gene programs; the share of the entries that are not zero
SHAPES = 0.4, 0.3  # of the gamma priors of loadings and of programs: most are small
SHOWN = 4  # genes of a program


class Cells(NamedTuple):
    """An AnnData of counts, the programs (PROGRAMS, genes) and the depths (cells,) that they were drawn from."""

    adata: anndata.AnnData
    programs: pd.DataFrame
    depth: np.ndarray


def drawn(cells: int, genes: int, seed: int = 0) -> Cells:
    """Counts, Poisson given depth × loadings × programs."""
    generator = np.random.default_rng(seed)
    names = [f"gene {j + 1}" for j in range(genes)]
    programs = generator.gamma(SHAPES[1], size=(PROGRAMS, genes))
    programs /= programs.sum(1, keepdims=True)
    loadings = generator.gamma(SHAPES[0], size=(cells, PROGRAMS))
    depth = generator.lognormal(0.0, 0.6, size=cells)
    mean = depth[:, None] * (loadings @ programs)
    size = 1.0
    for _ in range(30):  # the size at which so many entries are expected not to be zero
        size *= FILLED / (-np.expm1(-size * mean)).mean()
    counts = scipy.sparse.csr_matrix(generator.poisson(size * mean).astype(np.float32))
    adata = anndata.AnnData(counts, obs=pd.DataFrame(index=[f"cell {i + 1}" for i in range(cells)]))
    adata.var_names = names
    return Cells(adata, pd.DataFrame(programs, [f"program {k + 1}" for k in range(PROGRAMS)], names), depth)


def fitted(cells: Cells, exposed: bool, options: dict[str, object]) -> ppnmf.Posterior:
    """With each cell's own depth, which is the sum of its counts, as its exposure; or with none."""
    total = np.asarray(cells.adata.X.sum(1), float).clip(min=1)
    exposures = total / total.mean() if exposed else 1.0
    scaled = ppnmf.models.GammaPoisson.for_data(cells.adata, PROGRAMS, exposures=exposures)
    rates = SHAPES[0] * scaled.rate_W, SHAPES[1] * scaled.rate_H  # the same means
    model = ppnmf.models.GammaPoisson(PROGRAMS, *SHAPES, *rates, exposures)
    key = "programs" if exposed else "programs_without_depth"
    return ppnmf.anndata.fit(cells.adata, model=model, key=key, **options)


def report(cells: Cells, post: ppnmf.Posterior, name: str) -> None:
    """How near the programs are to those that were drawn, and how far loadings follow the depth."""
    found = ppnmf.signatures(post, cells.programs)
    at = found.draws.mean(0).argmax(1)
    bounds = found.cosines
    shown = ", ".join(
        f"{found.references[r]} {bounds.mean[k, r]:.2f} ({bounds.lower[k, r]:.2f} to {bounds.upper[k, r]:.2f})"
        for k, r in enumerate(at)
    )
    follows = np.corrcoef(post.loadings().mean.sum(1), cells.depth)[0, 1]
    print(f"{name}: cosines with the programs drawn: {shown}")
    print(f"  loadings' correlation with the depth: {follows:.2f}; {ppnmf.summary(post).sentence}")


def genes_of(post: ppnmf.Posterior) -> None:
    """The strongest genes of each program, in per cent of it, with 90 % intervals."""
    table = post.components()
    for k, name in enumerate(table.rows):
        first = np.argsort(-table.mean[k])[:SHOWN]
        genes = ", ".join(
            f"{table.columns[j]} {table.mean[k, j]:.1%} ({table.lower[k, j]:.1%} to {table.upper[k, j]:.1%})"
            for j in first
        )
        print(f"  {name}: {genes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cells, genes and sweeps")
    parser.add_argument("--out", type=Path, default=Path("single_cell"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    cells = drawn(200, 100) if given.quick else drawn(3000, 2000)
    N, D = cells.adata.shape
    print(f"{N} cells × {D} genes, {cells.adata.X.nnz / N / D:.1%} of the entries not zero")
    sweeps = 30 if given.quick else 300
    options = {"draws": sweeps, "warmup": sweeps, "chains": 2, "seed": 0, "survey": 0, "progress": not given.quick}
    post = fitted(cells, True, options)
    report(cells, post, "depth as exposure")
    genes_of(post)
    report(cells, fitted(cells, False, options), "depth left out")
    path = given.out / "cells.h5ad"
    cells.adata.write_h5ad(path)
    print(f"{path}: obsm {', '.join(cells.adata.obsm)}; varm {', '.join(cells.adata.varm)}")


if __name__ == "__main__":
    main()
