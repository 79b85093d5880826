"""Which mutational processes acted in these tumours, which of them are known, and how surely do we know them?

    python examples/mutational_signatures.py [--quick] [--out folder]

Counts of mutations in the 96 substitution classes are drawn from known signatures, in very unequal tumours, overdispersed as real
ones are: four processes of a catalogue and one that nobody knows. First all signatures are learned, by a Poisson and by a negative
binomial factorisation, and each is compared with the catalogue: its nearest signature, their cosine with its interval, and
whether it is a mixture of two. Then the known ones are held (`fixed=`) and only the new one is learned. Where PPNMF_DATA has it the
catalogue is COSMIC's; else it is drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import ppnmf
from ppnmf.plots.signatures import CLASSES

ACTIVE = ("SBS1", "SBS2", "SBS13", "SBS18")  # of the catalogue
DISPERSION = 30.0


class Tumours(NamedTuple):
    """Counts (tumours, classes), the catalogue (signatures, classes), and the new signature (classes,)."""

    X: pd.DataFrame
    catalogue: pd.DataFrame
    new: pd.Series


def catalogue() -> pd.DataFrame:
    """COSMIC's signatures, or drawn ones of those names."""
    try:
        known = ppnmf.datasets.load("cosmic_sbs")
    except FileNotFoundError:
        drawn = np.random.default_rng(5).dirichlet(np.full(96, 0.15), 20)
        return pd.DataFrame(drawn, index=[f"SBS{n}" for n in range(1, 21)], columns=CLASSES)
    return pd.DataFrame(known.X, index=known.rows, columns=known.columns)


def drawn(number: int, seed: int = 0) -> Tumours:
    """Tumours in which the active processes and a new one have unequal parts."""
    generator = np.random.default_rng(seed)
    known = catalogue()
    new = pd.Series(generator.dirichlet(np.full(96, 0.25)), index=known.columns, name="new")
    signatures = np.vstack([known.loc[list(ACTIVE)], new])
    size = generator.lognormal(7.0, 0.8, size=(number, 1))
    loadings = generator.gamma(0.5, size=(number, len(signatures))) * size
    latent = generator.gamma(DISPERSION, 1 / DISPERSION, size=(number, 96))
    counts = generator.poisson(loadings @ signatures * latent)
    return Tumours(pd.DataFrame(counts, [f"tumour {i + 1}" for i in range(number)], known.columns), known, new)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def all_learned(tumours: Tumours, out: Path, options: dict[str, object]) -> None:
    """Every signature is learned, and then looked for in the catalogue."""
    print(f"{tumours.X.shape[0]} tumours, {int(tumours.X.to_numpy().sum())} mutations; all signatures learned:")
    begin: object = "survey"
    for name in ("gamma_poisson", "negative_binomial_gamma"):
        post = ppnmf.fit(name, tumours.X, rank=len(ACTIVE) + 1, init=begin, **options)
        begin = {site: post.draws[site][:, -1] for site in ("W", "H")}  # φ takes long from a random start
        found = ppnmf.signatures(post, tumours.catalogue)
        print(f"{name}: {found}")
        print(f"  {ppnmf.summary(post).sentence}")
    print(f"  dispersion φ: {float(post.mean('dispersion')):.0f} (drawn with {DISPERSION:g})")
    ppnmf.plots.save(ppnmf.plots.signatures(post, found), out / "signatures.png")
    table = found.mutations_frame()
    table.to_csv(out / "mutations.csv")
    print(f"What {found.rows[0]} has of each, with 90 % intervals:\n{table.loc[found.rows[0]].round(0)}")


def one_learned(tumours: Tumours, out: Path, options: dict[str, object]) -> None:
    """The known signatures are held, and one is learned beside them."""
    known = tumours.catalogue.loc[list(ACTIVE)]
    post = ppnmf.fit(
        "negative_binomial_gamma", tumours.X, rank=len(ACTIVE) + 1, fixed={"H": known}, init="scaled", **options
    )
    new = post.draws["H"][:, :, -1].flatten(0, 1).numpy()
    low, middle, high = np.quantile([cosine(own, tumours.new.to_numpy()) for own in new], [0.05, 0.5, 0.95])
    print(
        f"{', '.join(ACTIVE)} held, one learned beside them: cosine with the new one {middle:.3f} ({low:.3f} to {high:.3f})"
    )
    post.save(out / "one new signature.nc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few tumours and sweeps")
    parser.add_argument("--out", type=Path, default=Path("mutational_signatures"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sweeps = 30 if given.quick else 600
    options = {"draws": sweeps // 2, "warmup": sweeps, "chains": 2, "seed": 0, "progress": not given.quick}
    tumours = drawn(24 if given.quick else 120)
    all_learned(tumours, given.out, options)
    one_learned(tumours, given.out, options)
    print(f"A picture, a table and a posterior are in {given.out}.")


if __name__ == "__main__":
    main()
