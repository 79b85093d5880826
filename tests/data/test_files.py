"""Matrices from files that are no tables; tables are in test_tables.py."""

import gzip

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from ppnmf.data import files

X = np.array([[1.0, 2.5, 0.0], [3.0, np.nan, 4e-3]])


def written(path, text):
    path.write_text(text)
    return path


def assert_read(path, rows=None, columns=None, **options):
    table = files.read(path, missing="nan", **options)
    np.testing.assert_array_equal(table.X, X)
    assert table.X.dtype == np.float64
    for names, wanted in ((table.rows, rows), (table.columns, columns)):
        assert (names is None) if wanted is None else names.tolist() == wanted


def test_numpy_files_are_read(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "one.npz", data_matrix=X, label=np.arange(2))
    np.savez(tmp_path / "many.npz", other=X.T, X=X)
    for name in ("x.npy", "one.npz", "many.npz"):
        assert_read(tmp_path / name)


def test_sparse_files_are_read_with_their_zeros(tmp_path):
    sparse = scipy.sparse.csr_matrix(X)
    scipy.sparse.save_npz(tmp_path / "x.npz", sparse)
    scipy.io.mmwrite(tmp_path / "x.mtx", sparse)
    assert_read(tmp_path / "x.npz")
    assert_read(tmp_path / "x.mtx")


@pytest.fixture
def cells():
    """An AnnData object, X sparse, with a dense layer and a sparse one."""
    anndata = pytest.importorskip("anndata", reason="anndata is in the extra scverse")
    data = anndata.AnnData(scipy.sparse.csr_matrix(np.nan_to_num(X)))
    data.obs_names, data.var_names = ["r1", "r2"], ["a", "b", "c"]
    data.layers["whole"] = X
    data.layers["counts"] = scipy.sparse.csc_matrix(np.nan_to_num(X) * 2)
    return data


def test_h5ad_is_read_with_its_names_and_layers(tmp_path, cells):
    path = tmp_path / "x.h5ad"
    cells.write_h5ad(path)
    assert np.array_equal(files.read(path).X, np.nan_to_num(X))
    assert_read(path, ["r1", "r2"], ["a", "b", "c"], layer="whole")
    kept = files.read(path, dense=False, layer="counts")
    assert scipy.sparse.issparse(kept.X) and np.array_equal(kept.X.toarray(), np.nan_to_num(X) * 2)
    assert "layer 'counts'" in kept.about
    with pytest.raises(ValueError, match="no layer 'raw'; the layers are counts, whole"):
        files.read(path, layer="raw")


def test_an_h5ad_file_without_X_asks_which_layer(tmp_path, cells):
    cells.X = None
    cells.write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(ValueError, match="has no matrix X; the layers are counts, whole; say which by layer='counts'"):
        files.read(tmp_path / "x.h5ad")


def test_an_npz_file_gives_its_names_and_the_array_that_is_asked_for(tmp_path):
    np.savez(tmp_path / "x.npz", X=X, rows=["r1", "r2"], columns=["a", "b", "c"])
    assert_read(tmp_path / "x.npz", ["r1", "r2"], ["a", "b", "c"])
    np.savez(tmp_path / "two.npz", a=X.T, b=X)
    assert_read(tmp_path / "two.npz", layer="b")
    with pytest.raises(ValueError, match=r"a \(3, 2\), b \(2, 3\).*say which by layer='a'"):
        files.read(tmp_path / "two.npz")
    np.savez(tmp_path / "long.npz", X=X, rows=["r1", "r2", "r3"])
    with pytest.raises(ValueError, match="'rows' holds 3 names, and the matrix has 2 rows"):
        files.read(tmp_path / "long.npz")


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_a_numpy_file_that_is_cut_off_gets_one_sentence(tmp_path, name):
    (np.savez if name == "x.npz" else np.save)(tmp_path / name, X)
    whole = (tmp_path / name).read_bytes()
    for size in (1, 30, len(whole) // 2, len(whole) - 30):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"x\.np. is not a NumPy file") as caught:
            files.read(tmp_path / name)
        assert "\n" not in str(caught.value)


INTEGERS = "%%MatrixMarket matrix coordinate integer general\n2 3 3\n1 1 2.9\n2 2 4\n2 3 1\n"


def test_a_matrix_market_file_of_integers_keeps_what_is_not_whole(tmp_path):
    read = files.read(written(tmp_path / "x.mtx", INTEGERS)).X
    assert read.tolist() == [[2.9, 0, 0], [0, 4, 1]]


def test_a_compressed_matrix_market_file_is_read(tmp_path):
    (tmp_path / "x.mtx.gz").write_bytes(gzip.compress(INTEGERS.encode()))
    kept = files.read(tmp_path / "x.mtx.gz", dense=False).X
    assert scipy.sparse.issparse(kept) and kept[0, 0] == 2.9
    (tmp_path / "x.mtx.gz").write_bytes(gzip.compress(INTEGERS.encode())[:40])
    with pytest.raises(ValueError, match=r"x\.mtx\.gz cannot be decompressed"):
        files.read(tmp_path / "x.mtx.gz")


def test_missing_entries_of_a_matrix_market_file(tmp_path):
    path = written(tmp_path / "x.mtx", INTEGERS.replace("4\n", "nan\n"))
    with pytest.raises(ValueError, match="1 NaN or empty entries: say missing='nan'.*the first in row 2, column 2"):
        files.read(path, dense=False)
    read = files.read(path, dense=False, missing="nan").X
    assert np.array_equal(read, [[2.9, 0, 0], [0, np.nan, 1]], equal_nan=True)


@pytest.fixture(params=["", ".gz"])
def tenx(tmp_path, request):
    """A folder of 10x Genomics: three genes, of which two share a symbol, and two cells."""
    parts = {
        "matrix.mtx": "%%MatrixMarket matrix coordinate integer general\n3 2 2\n1 1 5\n3 2 7\n",
        "barcodes.tsv": "AAC-1\nAAG-1\n",
        "features.tsv": "E1\tTP53\tGene\nE2\tMATR3\tGene\nE3\tMATR3\tGene\n",
    }
    for name, text in parts.items():
        raw = gzip.compress(text.encode()) if request.param else text.encode()
        (tmp_path / (name + request.param)).write_bytes(raw)
    return tmp_path


def test_a_10x_folder_has_cells_as_rows(tenx):
    table = files.read(tenx, dense=False)
    assert scipy.sparse.issparse(table.X) and table.X.toarray().tolist() == [[5, 0, 0], [0, 0, 7]]
    assert table.rows.tolist() == ["AAC-1", "AAG-1"]
    assert table.columns.tolist() == ["TP53", "MATR3 (E2)", "MATR3 (E3)"]


def test_a_10x_folder_whose_parts_do_not_fit_is_refused(tenx):
    for path in tenx.glob("barcodes.tsv*"):
        path.unlink()
    written(tenx / "barcodes.tsv", "AAC-1\n")
    with pytest.raises(ValueError, match=r"3 genes and 2 cells; features\.tsv(\.gz)? names 3 and barcodes\.tsv 1"):
        files.read(tenx)
    (tenx / "barcodes.tsv").unlink()
    with pytest.raises(ValueError, match=r"0 files barcodes\.tsv"):
        files.read(tenx)


def test_a_file_is_transposed_with_its_names(tmp_path):
    np.savez(tmp_path / "x.npz", X=X, rows=["r1", "r2"], columns=["a", "b", "c"])
    table = files.read(tmp_path / "x.npz", transpose=True, missing="nan")
    assert np.array_equal(table.X, X.T, equal_nan=True) and table.X.flags.c_contiguous
    assert table.rows.tolist() == ["a", "b", "c"] and table.columns.tolist() == ["r1", "r2"]
    scipy.io.mmwrite(tmp_path / "x.mtx", scipy.sparse.coo_array(np.eye(3, 5)))
    assert files.read(tmp_path / "x.mtx", transpose=True, dense=False).X.shape == (5, 3)


def test_infinite_entries_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "x.npz", X=[[1, np.inf]], rows=["r1"], columns=["a", "b"])
    with pytest.raises(ValueError, match=r"1 infinite entries, the first \(inf\) in row 'r1', column 'b'"):
        files.read(tmp_path / "x.npz", missing="nan")


def test_an_option_for_other_kinds_of_file_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(ValueError, match="layer='counts' is for .npz, .h5ad"):
        files.read(tmp_path / "x.npy", layer="counts")
    with pytest.raises(ValueError, match="header=False is for .csv"):
        files.read(tmp_path / "x.npy", header=False)
    with pytest.raises(ValueError, match="missing is 'maybe'"):
        files.read(tmp_path / "x.npy", missing="maybe")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("x.npy", "no array", "not a NumPy file"),
        ("x.npz", "no archive", "not a NumPy file"),
        ("x.mtx", "no matrix", "not a Matrix Market file"),
        ("x.h5ad", "no cells", "not an HDF5 file"),
        ("x.parquet", "no columns", "not a Parquet file"),
        ("x.xls", "1 2", "the kinds that can be read are .npy"),
        ("x.npy.gz", "1 2", "is compressed"),
    ],
)
def test_a_bad_file_gets_one_sentence(tmp_path, name, text, sentence):
    path = written(tmp_path / name, text)
    with pytest.raises(ValueError, match=sentence) as caught:
        files.read(path)
    assert "\n" not in str(caught.value)


def test_other_bad_files_get_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        files.read(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match="is a folder with 0 files matrix.mtx"):
        files.read(tmp_path)
    np.save(tmp_path / "line.npy", np.arange(3))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        files.read(tmp_path / "line.npy")
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    with pytest.raises(ValueError, match="real numbers are needed"):
        files.read(tmp_path / "text.npy")
    np.savez(tmp_path / "two.npz", a=X, b=X)
    with pytest.raises(ValueError, match=r"a \(2, 3\), b \(2, 3\)"):
        files.read(tmp_path / "two.npz")
    pickle = np.array([[{}]], dtype=object)
    np.save(tmp_path / "pickle.npy", pickle)
    with pytest.raises(ValueError, match="without pickles"):
        files.read(tmp_path / "pickle.npy")


def test_a_sparse_file_stays_sparse_and_a_big_one_stays_on_disk_where_that_will_do(tmp_path, monkeypatch):
    monkeypatch.setattr("ppnmf.data.files.BIG", 10)
    X = np.eye(3, 5)
    scipy.io.mmwrite(tmp_path / "x.mtx", scipy.sparse.coo_array(X))
    np.save(tmp_path / "x.npy", X)
    kept = files.read(tmp_path / "x.mtx", dense=False).X
    assert scipy.sparse.issparse(kept) and np.array_equal(kept.toarray(), X)
    assert isinstance(files.read(tmp_path / "x.npy", dense=False).X, np.memmap)
    for name in ("x.mtx", "x.npy"):
        read = files.read(tmp_path / name).X
        assert not isinstance(read, np.memmap) and np.array_equal(read, X)
