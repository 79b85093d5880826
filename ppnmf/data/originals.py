"""The public originals of data sets: where they lie, how they are fetched and checked, how they are read.

Each function gives the arrays of an archive by their names there, as NumPy's `load` would. What is fetched is compared
with its sha256 (by pooch, or by scikit-learn for its own), kept in the user's cache, and not fetched again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np

__all__ = ["faces", "genes", "mnist", "olivetti", "prices"]

Arrays = dict[str, np.ndarray]

HOST = "https://raw.githubusercontent.com"
SQUIRES = "stevensquires/MDL-ObjFunc-NMF/9153cb39c271f4b90743457de32fa911d271ac87/Data"
NIMFA = "mims-harvard/nimfa/8df13b07b964ccd13547674462c3e283253cb5ef/nimfa/datasets/ALL_AML"
PINNED = {  # a path of HOST, at one commit -> sha256
    f"{SQUIRES}/Vfaces.csv": "25df208a885e5e8c83f1d6e2fabb81e6e7c6bf9a5f70b8a1f1c21922da95c9c6",
    f"{SQUIRES}/Vfinance.csv": "a8d8f4f30c9b7a6bc08ed3abdf16a84d5a8e95b95fee6d8a2918d81328a25745",
    f"{NIMFA}/ALL_AML_data.txt": "0fddaec764bd7797357f587db2db1db76b6e848ce30724b53b4df96020547bcf",
    f"{NIMFA}/ALL_AML_samples.txt": "99a4c5d6cb32e07d76f4ff7f434a8ccde17ffc0c7dd49284f316ca7e84d4eaa6",
}
OLIVETTI_SCALE = 242  # scikit-learn's grey levels are whole multiples of 1 / 242, in float32
MNIST_TRAINING = 60_000  # pictures, before the test set's


def faces() -> Arrays:
    """`V` (361, 2429), a picture a column. Every column is kept: the first is a picture, not an index."""
    return {"V": np.loadtxt(_fetched(f"{SQUIRES}/Vfaces.csv"), np.uint8, delimiter=",")}


def prices() -> Arrays:
    """`V` (1305, 94), a company a column, the first one included."""
    return {"V": np.loadtxt(_fetched(f"{SQUIRES}/Vfinance.csv"), delimiter=",")}


def genes() -> Arrays:
    """`V` (5000, 38), and of its columns the names, `sample`, and kinds of leukaemia, `subtype`. Genes have no names here."""
    V = np.loadtxt(_fetched(f"{NIMFA}/ALL_AML_data.txt"), np.int32)
    text = _fetched(f"{NIMFA}/ALL_AML_samples.txt").read_text(encoding="ascii")
    samples = text.rstrip("\0").split()  # the file is filled up with zero bytes
    kind = {"B-cell": "ALL-B", "T-cell": "ALL-T"}
    subtypes = [kind.get(sample.rsplit("_", 1)[1], "AML") for sample in samples]
    return {"V": V, "sample": np.array(samples), "subtype": np.array(subtypes)}


def olivetti() -> Arrays:
    """`X` (400, 4096), whole numbers that `scale` divides, and `subject`, from 1 to 40; through scikit-learn."""
    from sklearn.datasets import fetch_olivetti_faces

    with _reaching("scikit-learn's Olivetti faces"), redirect_stdout(sys.stderr):  # it prints where it fetches from
        found = fetch_olivetti_faces()
    X = np.rint(OLIVETTI_SCALE * found.data).astype(np.uint8)
    return {"X": X, "scale": np.array(OLIVETTI_SCALE), "subject": (found.target + 1).astype(np.int16)}


def mnist() -> Arrays:
    """The test set, `X` (10000, 784) and `label`; through scikit-learn, from OpenML."""
    from sklearn.datasets import fetch_openml

    with _reaching("OpenML's mnist_784"):
        X, label = fetch_openml("mnist_784", version=1, as_frame=False, return_X_y=True)
    return {"X": X[MNIST_TRAINING:].astype(np.uint8), "label": label[MNIST_TRAINING:].astype(np.uint8)}


def _fetched(path: str) -> Path:
    """The file of HOST in the user's cache, fetched where it is not there yet.

    Raises:
        OSError: pooch is missing, the file cannot be fetched, or what came is another one; nothing of it is kept.
    """
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise OSError("install what fetches it: pip install 'ppnmf[data]'") from error
    url = f"{HOST}/{path}"
    whole = pooch.HTTPDownloader(stream=False)  # a few megabytes; streamed, a refused request would stay open
    with _reaching(url):
        known, name, folder = f"sha256:{PINNED[path]}", path.rsplit("/", 1)[1], pooch.os_cache("ppnmf")
        return Path(pooch.retrieve(url, known, fname=name, path=folder, downloader=whole))


@contextmanager
def _reaching(place: str) -> Iterator[None]:
    """What goes wrong there, in a sentence."""
    try:
        yield
    except (OSError, ValueError) as error:
        if type(error) is ValueError:  # of a sha256; OpenML's own error is a kind of ValueError
            raise OSError(f"fetch it again: what came from {place} is not the file that was expected") from error
        raise OSError(f"connect to the network: {place} could not be fetched ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    return type(error).__name__ if response is None else f"status {response.status_code}"
