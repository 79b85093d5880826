"""Named data sets."""

import numpy as np
import pytest

from ppnmf.data import datasets

SHAPES = {
    "leukaemia": (5000, 38),
    "genes": (38, 5000),
    "gdsc": (705, 139),
    "faces": (2429, 361),
    "prices": (94, 1305),
    "mutations": (21, 96),
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


def test_missing_data_say_what_to_do(monkeypatch):
    monkeypatch.delenv("PPNMF_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set PPNMF_DATA to the folder that holds it"):
        datasets.load("faces")
    monkeypatch.setenv("PPNMF_DATA", "nowhere")
    with pytest.raises(FileNotFoundError, match="the folder it names now"):
        datasets.load("faces")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="did you mean 'leukaemia'.*digits"):
        datasets.load("leukemia")


def test_drawn_names_give_drawn_data():
    assert datasets.load("toy6x4x2").X.shape == (6, 4)
