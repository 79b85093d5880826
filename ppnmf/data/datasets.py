"""Data sets by name. `digits` comes with scikit-learn; the others are read from the folder that PPNMF_DATA names.

Where it does not hold them, leukaemia, genes, faces and prices are fetched from where they were published (pooch, the extra
`data`), olivetti and mnist by scikit-learn: once, into the user's cache, and checked. The values are the same either way; the
names of the genes are in the folder's file alone.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppnmf.data import originals

__all__ = ["Dataset", "load", "names", "picture_facts"]

FEWEST_VALUES = 3  # of a cell line of the drug-response data; the published experiments drop those with fewer


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data matrix and what is known about it.

    Args:
        X: (N, D) float64; rows are observations. NaN where `mask` is False, unless the value was hidden on purpose.
        labels: what each row is, (N,), or None.
        about: what the data are, their units and orientation, where they come from.
        rows, columns: names of the rows and columns, or None.
        mask: boolean (N, D), True where observed, or None when everything is.
        picture: (height, width) of a row that is a picture, or None.
        order: how a picture lies in its row: "C" row by row, "F" column by column.
    """

    X: np.ndarray
    labels: np.ndarray | None
    about: str
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    mask: np.ndarray | None = None
    picture: tuple[int, int] | None = None
    order: str = "C"


def picture_facts(picture: tuple[int, int] | None, order: str) -> dict[str, Any]:
    """What a posterior's `attrs` say of rows that are pictures; nothing where they are none."""
    return {} if picture is None else {"picture": {"shape": list(picture), "order": order}}


def names() -> list[str]:
    """The names that `load` knows; drawn ones, such as "toy60x40" (rank 3) or "toy60x40x5", come on top.

    >>> "digits" in names()
    True
    """
    return list(_LOADERS)


def load(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        ValueError: there is none of that name.
        FileNotFoundError: PPNMF_DATA does not lead to its file, and it cannot be fetched; the sentence says what to do.

    >>> load("digits").X.shape
    (1797, 64)
    """
    if isinstance(name, str) and name in _LOADERS:
        return _LOADERS[name]()
    drawn = _drawn(name) if isinstance(name, str) and name.startswith("toy") else None
    if drawn is not None:
        return drawn
    close = difflib.get_close_matches(str(name), _LOADERS, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"there is no data set {name!r}{meant}; there are {', '.join(_LOADERS)}, and drawn ones such as toy60x40"
    )


def _drawn(name: str) -> Dataset | None:
    from ppnmf.data import toy  # it takes torch, which the names of data sets do not

    drawn = toy.named(name)
    if drawn is None:
        return None
    N, D = drawn.X.shape
    about = f"Drawn: W, H ~ Exponential(1), true rank {drawn.W.shape[1]}, noise variance 1; {N} × {D}."
    return Dataset(drawn.X.numpy(), None, about)


def _arrays(path: str, original: Callable[[], Mapping[str, Any]] | None = None) -> Mapping[str, Any]:
    """The arrays of an archive below PPNMF_DATA; where it has none, those of the public original."""
    folder = os.environ.get("PPNMF_DATA", "")
    if folder and (Path(folder) / path).is_file():
        return np.load(Path(folder) / path)
    where = f"the folder it names now ({folder}) has none" if folder else "it is not set"
    sentence = f"{path} is needed: set PPNMF_DATA to the folder that holds it ({where})"
    if original is None:
        raise FileNotFoundError(sentence)
    try:
        return original()
    except OSError as error:
        raise FileNotFoundError(f"{sentence}, or {error}") from error


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    about = (
        "UCI handwritten digits: 1797 pictures of 8 × 8 pixels, grey levels 0 to 16, one picture a row (scikit-learn)."
    )
    return Dataset(bunch.data.astype(float), bunch.target, about, columns=np.array(bunch.feature_names), picture=(8, 8))


def _leukaemia() -> Dataset:
    z = _arrays("leukemia/all_aml.npz", originals.genes)
    about = (
        "Leukaemia gene expression (Golub 1999, filtered by Brunet 2004): 5000 genes a row, 38 samples a column, levels 20 "
        "to 61225. `genes` is its transpose."
    )
    return Dataset(z["V"].astype(float), None, about, rows=z.get("gene"), columns=z["sample"])


def _genes() -> Dataset:
    z = _arrays("leukemia/all_aml.npz", originals.genes)
    about = (
        "Leukaemia gene expression (Golub 1999, filtered by Brunet 2004): 38 samples a row, 5000 genes a column, levels 20 "
        "to 61225; labels are subtypes. `leukaemia` is its transpose."
    )
    return Dataset(np.ascontiguousarray(z["V"].T, float), z["subtype"], about, rows=z["sample"], columns=z.get("gene"))


def _gdsc() -> Dataset:
    z = _arrays("drug_sensitivity/gdsc_ic50.npz")
    kept = np.isfinite(z["R"]).sum(1) >= FEWEST_VALUES
    X = z["R"][kept]
    about = (
        "Drug response (GDSC release 5): IC50 in micromolar, capped at 100; 705 cell lines a row, 139 drugs a column, NaN where "
        "not measured (cell lines with fewer than 3 values are dropped); labels are tissues."
    )
    return Dataset(X, z["tissue"][kept], about, z["cell_line"][kept], z["drug"], mask=np.isfinite(X))


def _faces() -> Dataset:
    X = np.ascontiguousarray(_arrays("cbcl_faces/cbcl_faces.npz", originals.faces)["V"].T, float)
    about = (
        "MIT CBCL faces: 2429 pictures of 19 × 19 pixels, grey levels 0 to 255, one picture a row, its pixels column by column "
        "(show one as X[i].reshape(19, 19).T)."
    )
    return Dataset(X, None, about, picture=(19, 19), order="F")


def _prices() -> Dataset:
    X = np.ascontiguousarray(_arrays("finance/ftse_prices.npz", originals.prices)["V"].T, float)
    about = "Share prices of 94 companies, one a row, over 1305 trading days, divided by the largest price of all."
    return Dataset(X, None, about)


def _mutations() -> Dataset:
    z = _arrays("mutations/breast21_sbs96.npz")
    about = "Counts of the 96 substitution classes, a column each, in 21 breast-cancer genomes, a row each (Nik-Zainal 2012)."
    return Dataset(np.ascontiguousarray(z["V"].T, float), None, about, rows=z["sample"], columns=z["channel"])


def _cosmic_sbs() -> Dataset:
    z = _arrays("mutations/cosmic_v3.3.1_sbs_grch37.npz")
    about = (
        "COSMIC 3.3.1 reference signatures of single-base substitutions, GRCh37: 79 signatures, a row each, that sum to one over "
        "the 96 classes, a column each (COSMIC terms: free for academic use)."
    )
    return Dataset(np.ascontiguousarray(z["W"].T, float), None, about, rows=z["signature"], columns=z["channel"])


def _cogaps() -> Dataset:
    about = "The drawn 25 × 20 matrix of three patterns that comes with CoGAPS (modsim)."
    return Dataset(_arrays("cogaps/modsim.npz")["V"].astype(float), None, about)


def _toy100x80() -> Dataset:
    z = _arrays("toy/bnmtf_toy.npz")
    about = "Drawn (BNMTF): W, H ~ Exponential(1), rank 10, noise variance 1, 100 × 80; `mask` hides one tenth."
    return Dataset(z["R"].astype(float), None, about, mask=z["M"].astype(bool))


def _olivetti() -> Dataset:
    z = _arrays("orl_faces/olivetti_64x64.npz", originals.olivetti)
    about = "Olivetti faces: 400 pictures of 64 × 64 pixels, grey levels 0 to 1, one picture a row; labels are the 40 people."
    return Dataset(z["X"] / float(z["scale"]), z["subject"], about, picture=(64, 64))


def _mnist() -> Dataset:
    z = _arrays("mnist/mnist_t10k.npz", originals.mnist)
    about = "MNIST test set: 10000 pictures of 28 × 28 pixels, grey levels 0 to 255, one picture a row; labels are the digits."
    return Dataset(z["X"].astype(float), z["label"], about, picture=(28, 28))


_LOADERS: dict[str, Callable[[], Dataset]] = {
    "digits": _digits,
    "leukaemia": _leukaemia,
    "genes": _genes,
    "gdsc": _gdsc,
    "faces": _faces,
    "prices": _prices,
    "mutations": _mutations,
    "cosmic_sbs": _cosmic_sbs,
    "cogaps": _cogaps,
    "toy100x80": _toy100x80,
    "olivetti": _olivetti,
    "mnist": _mnist,
}
