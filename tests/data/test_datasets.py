"""Named data sets."""

import hashlib
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
import torch
from sklearn.datasets._openml import OpenMLError

import ppnmf
from ppnmf.data import datasets, originals

SHAPES = {
    "leukaemia": (5000, 38),
    "genes": (38, 5000),
    "gdsc": (705, 139),
    "faces": (2429, 361),
    "prices": (94, 1305),
    "mutations": (21, 96),
    "cosmic_sbs": (79, 96),
    "cogaps": (25, 20),
    "toy100x80": (100, 80),
    "olivetti": (400, 4096),
    "mnist": (10000, 784),
}


def test_digits_come_without_a_network(monkeypatch):
    monkeypatch.delenv("PPNMF_DATA", raising=False)
    digits = datasets.load("digits")
    assert digits.X.shape == (1797, 64) and digits.X.dtype == np.float64
    assert digits.labels.shape == (1797,) and digits.picture == (8, 8) and digits.about


def test_every_name_has_its_shape():
    assert set(datasets.names()) == {"digits", *SHAPES}


FILES = {  # name -> the archive it is read from
    "leukaemia": "leukemia/all_aml.npz",
    "genes": "leukemia/all_aml.npz",
    "gdsc": "drug_sensitivity/gdsc_ic50.npz",
    "faces": "cbcl_faces/cbcl_faces.npz",
    "prices": "finance/ftse_prices.npz",
    "mutations": "mutations/breast21_sbs96.npz",
    "cosmic_sbs": "mutations/cosmic_v3.3.1_sbs_grch37.npz",
    "cogaps": "cogaps/modsim.npz",
    "toy100x80": "toy/bnmtf_toy.npz",
    "olivetti": "orl_faces/olivetti_64x64.npz",
    "mnist": "mnist/mnist_t10k.npz",
}


@pytest.mark.parametrize("name", SHAPES)
def test_real_data_are_as_described(name, real_data):
    real_data(FILES[name])
    data = datasets.load(name)
    N, D = data.X.shape
    assert (N, D) == SHAPES[name] and data.X.dtype == np.float64
    for names, size in ((data.labels, N), (data.rows, N), (data.columns, D)):
        assert names is None or names.shape == (size,)
    assert np.isfinite(data.X if data.mask is None else data.X[data.mask]).all()
    assert data.picture is None or data.picture[0] * data.picture[1] == D


def test_drug_response_has_the_published_number_of_values(real_data):
    real_data(FILES["gdsc"])
    data = datasets.load("gdsc")
    assert data.mask.sum() == 79259 and np.array_equal(data.mask, np.isfinite(data.X))


def test_faces_lie_column_by_column(real_data):
    V = real_data(FILES["faces"])["V"]
    data = datasets.load("faces")
    assert np.array_equal(data.X[7].reshape(data.picture, order=data.order), V[:, 7].reshape(19, 19).T)


@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_missing_data_say_what_to_do(folder, monkeypatch):
    monkeypatch.delenv("PPNMF_DATA", raising=False)
    if folder:
        monkeypatch.setenv("PPNMF_DATA", folder)
    where = r"the folder it names now \(nowhere\) has none" if folder else "it is not set"
    with pytest.raises(FileNotFoundError, match=rf"set PPNMF_DATA to the folder that holds it \({where}\)$"):
        datasets.load("gdsc")  # which nobody serves


def test_the_mask_of_a_data_set_is_that_of_its_matrix():
    X = np.array([[1.0, np.nan, 2.0], [3.0, 4.0, 5.0]])
    drawn = datasets.Dataset(X, None, "", columns=np.array(list("abc")), mask=np.isfinite(X))
    assert ppnmf.as_matrix(drawn).mask.tolist() == drawn.mask.tolist()
    post = ppnmf.fit("exponential_gaussian", drawn, rank=1, method="icm", restarts=1, progress=False)
    assert post.X.n_observed == 5
    turned = datasets.Dataset(X[:, ::-1], None, "", columns=np.array(list("cba")), mask=np.isfinite(X[:, ::-1]))
    assert torch.equal(post.transform(turned).draws["W"], post.transform(drawn).draws["W"])
    own = np.array([[True, False, False], [True, True, True]])
    assert ppnmf.as_matrix(drawn, own).n_observed == 4


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="did you mean 'leukaemia'.*digits"):
        datasets.load("leukemia")
    with pytest.raises(ValueError, match="no data set 3; there are digits"):
        datasets.load(3)


def test_drawn_names_give_drawn_data():
    assert datasets.load("toy6x4x2").X.shape == (6, 4)


# The public originals, served here


class Server(ThreadingHTTPServer):
    """Files at paths, in place of the public host; it remembers what was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.told: float | None = 1.0  # of the length of a body, what its header says; None: no such header
        self.sent = 1.0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        path = self.path.removeprefix("/")
        self.server.asked.append(path)
        if path not in self.server.files:
            return self.send_error(404)
        body = self.server.files[path]
        self.send_response(200)
        if self.server.told is not None:
            self.send_header("Content-Length", str(int(self.server.told * len(body))))
        self.end_headers()
        self.wfile.write(body[: int(self.server.sent * len(body))])
        return None

    def log_message(self, format, *args):
        pass


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of pooch's, and no PPNMF_DATA."""
    pooch = pytest.importorskip("pooch", reason="pooch is in the extra data")
    monkeypatch.delenv("PPNMF_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    return tmp_path / "ppnmf"


@pytest.fixture
def server(cache, monkeypatch):
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(originals, "HOST", server.address)
        yield server
        server.shutdown()


@pytest.fixture
def tiny_faces(server, monkeypatch):
    """A server of two pictures of three pixels as the faces, with the sha256 that they have; their path."""
    path, body = f"{originals.SQUIRES}/Vfaces.csv", b"1,2\n3,4\n5,255\n"
    server.files[path] = body
    monkeypatch.setitem(originals.PINNED, path, hashlib.sha256(body).hexdigest())
    return path


STORED_AS = {"ALL_AML_data.txt": "Vgenes.txt"}  # the rest by their own names


@pytest.fixture
def published(real_data, request):
    """A server of the publishers' bytes now stands; the data sets as they are in the archives, by name."""
    raw = Path(os.environ.get("PPNMF_DATA", "")).parent / "raw"
    missing = [
        path for path in originals.PINNED if not (raw / STORED_AS.get(Path(path).name, Path(path).name)).exists()
    ]
    if missing:
        pytest.skip(f"{Path(missing[0]).name}, as it was published, is needed: in the folder raw beside PPNMF_DATA")
    names = ("faces", "prices", "genes", "leukaemia")
    assert all(real_data(FILES[name]) for name in names)
    from_archive = {name: datasets.load(name) for name in names}
    server = request.getfixturevalue("server")
    for path in originals.PINNED:
        server.files[path] = (raw / STORED_AS.get(Path(path).name, Path(path).name)).read_bytes()
    return from_archive


@pytest.mark.parametrize("name", ["faces", "prices", "genes", "leukaemia"])
def test_the_published_file_gives_the_values_of_the_archive(name, published):
    fetched, kept = datasets.load(name), published[name]
    assert fetched.X.dtype == kept.X.dtype and np.array_equal(fetched.X, kept.X)
    assert (fetched.labels is None) == (kept.labels is None) and np.array_equal(fetched.labels, kept.labels)
    assert fetched.about == kept.about and fetched.picture == kept.picture and fetched.order == kept.order
    for ours, theirs in ((fetched.rows, kept.rows), (fetched.columns, kept.columns)):
        assert np.array_equal(ours, theirs) or (
            ours is None and len(theirs) == 5000
        )  # names of genes are not published there


def test_a_second_load_does_not_fetch_again(tiny_faces, server, cache):
    first = datasets.load("faces").X
    assert np.array_equal(first, [[1, 3, 5], [2, 4, 255]])
    assert np.array_equal(datasets.load("faces").X, first) and server.asked == [tiny_faces]
    (cache / "Vfaces.csv").write_text("6,7\n")
    assert np.array_equal(datasets.load("faces").X, first) and len(server.asked) == 2, "a spoilt file is fetched anew"


def test_ppnmf_data_comes_first(tiny_faces, server, tmp_path, monkeypatch):
    (tmp_path / "cbcl_faces").mkdir()
    np.savez(tmp_path / "cbcl_faces" / "cbcl_faces.npz", V=np.array([[9], [8]], np.uint8))
    monkeypatch.setenv("PPNMF_DATA", str(tmp_path))
    assert np.array_equal(datasets.load("faces").X, [[9, 8]]) and not server.asked
    monkeypatch.setenv("PPNMF_DATA", str(tmp_path / "cbcl_faces"))  # where there is none
    assert datasets.load("faces").X.shape == (2, 3) and server.asked == [tiny_faces]


@pytest.mark.parametrize(
    ("told", "sent", "sentence"),
    [(1, 0.5, "could not be fetched"), (None, 0.5, "not the file that was expected")],
    ids=["with a length", "without one"],
)
def test_a_cut_download_is_refused_and_leaves_nothing(told, sent, sentence, tiny_faces, server, cache):
    server.told, server.sent = told, sent
    with pytest.raises(FileNotFoundError, match=f"set PPNMF_DATA.*{server.address}.*Vfaces.csv.*{sentence}"):
        datasets.load("faces")
    assert list(cache.iterdir()) == []
    server.told, server.sent = 1, 1
    assert datasets.load("faces").X.shape == (2, 3)


def test_another_file_is_refused_and_leaves_nothing(tiny_faces, server, cache):
    server.files[tiny_faces] = b"1,2\n3,4\n5,254\n"
    with pytest.raises(FileNotFoundError, match=f"{server.address}.*Vfaces.csv is not the file that was expected$"):
        datasets.load("faces")
    assert list(cache.iterdir()) == []


def test_a_file_that_is_gone_is_told(server):
    with pytest.raises(FileNotFoundError, match=r"Vfaces.csv could not be fetched \(status 404\)$"):
        datasets.load("faces")


def test_offline_says_what_to_do(cache, monkeypatch):
    with socket.socket() as closed:  # bound, and nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(originals, "HOST", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(FileNotFoundError, match=r"set PPNMF_DATA .*, or connect to the network: .*Vfinance.csv"):
            datasets.load("prices")


def test_without_pooch_the_extra_is_named(monkeypatch):
    monkeypatch.delenv("PPNMF_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(FileNotFoundError, match=r"set PPNMF_DATA .*, or install .*pip install 'ppnmf\[data\]'$"):
        datasets.load("prices")


def test_scikit_learns_olivetti_have_the_values_of_the_archive(real_data, monkeypatch):
    z = real_data(FILES["olivetti"])
    theirs = SimpleNamespace(data=(z["X"] / np.float32(242)).astype(np.float32), target=np.arange(400) // 10)
    kept = datasets.load("olivetti")
    monkeypatch.delenv("PPNMF_DATA")
    monkeypatch.setattr(sklearn.datasets, "fetch_olivetti_faces", lambda: theirs)
    fetched = datasets.load("olivetti")
    assert np.array_equal(fetched.X, kept.X) and np.array_equal(fetched.labels, kept.labels)


def test_openmls_last_ten_thousand_digits_are_the_archive(real_data, monkeypatch):
    real_data(FILES["mnist"])
    kept = datasets.load("mnist")
    X = np.concatenate([np.full((60_000, 784), 7, np.uint8), kept.X.astype(np.uint8)])
    label = np.concatenate([np.full(60_000, 7), kept.labels]).astype(str).astype(object)  # digits come as texts
    monkeypatch.delenv("PPNMF_DATA")
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda name, **options: (X, label))
    fetched = datasets.load("mnist")
    assert np.array_equal(fetched.X, kept.X) and np.array_equal(fetched.labels, kept.labels)


def test_what_openml_refuses_is_no_wrong_file(monkeypatch):
    def refused(*args, **options):
        raise OpenMLError("Dataset mnist_784 with version 1 not found.")

    monkeypatch.delenv("PPNMF_DATA", raising=False)
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", refused)
    with pytest.raises(FileNotFoundError, match=r"mnist_784 could not be fetched \(OpenMLError\)$"):
        datasets.load("mnist")


@pytest.mark.parametrize(("name", "fetcher"), [("olivetti", "fetch_olivetti_faces"), ("mnist", "fetch_openml")])
def test_scikit_learn_offline_says_what_to_do(name, fetcher, monkeypatch):
    def offline(*args, **options):
        raise URLError("no route")

    monkeypatch.delenv("PPNMF_DATA", raising=False)
    monkeypatch.setattr(sklearn.datasets, fetcher, offline)
    with pytest.raises(FileNotFoundError, match="set PPNMF_DATA .*, or connect to the network: .*URLError"):
        datasets.load(name)
