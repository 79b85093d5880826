"""Matrices from files."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from ppnmf.data import files

X = np.array([[1.0, 2.5, 0.0], [3.0, np.nan, 4e-3]])


def written(path, text):
    path.write_text(text)
    return path


def assert_read(path, rows=None, columns=None):
    table = files.read(path)
    np.testing.assert_array_equal(table.X, X)
    assert table.X.dtype == np.float64
    for names, wanted in ((table.rows, rows), (table.columns, columns)):
        assert (names is None) if wanted is None else names.tolist() == wanted


@pytest.mark.parametrize(
    ("text", "rows", "columns"),
    [
        ("1,2.5,0\n3,,0.004\n", None, None),
        ("a,b,c\n1,2.5,0\n3,NA,0.004\n", None, ["a", "b", "c"]),
        ("name,a,b,c\nr1,1,2.5,0\nr2,3,nan,0.004\n", ["r1", "r2"], ["a", "b", "c"]),
        ("a,b,c\nr1,1,2.5,0\nr2,3,nan,0.004\n", ["r1", "r2"], ["a", "b", "c"]),  # as R writes it
        (",a,b,c\n0,1,2.5,0\n1,3,,0.004\n", ["0", "1"], ["a", "b", "c"]),  # as pandas writes it
        (",0,1,2\n0,1,2.5,0\n1,3,,0.004\n", ["0", "1"], ["0", "1", "2"]),  # the same, without names
        ("r1,1,2.5,0\nr2,3,,0.004\n", ["r1", "r2"], None),
        ('"gene; x";a;b;c\n"r1";1;2.5;0\n"r2";3;;0.004\n', ["r1", "r2"], ["a", "b", "c"]),
        ("\ufeffa,b,c\r\n1,2.5,0\r\n3,,0.004\r\n\r\n", None, ["a", "b", "c"]),
    ],
)
def test_csv_names_are_found(tmp_path, text, rows, columns):
    assert_read(written(tmp_path / "x.csv", text), rows, columns)


def test_tsv_is_split_at_tabs(tmp_path):
    path = written(tmp_path / "x.tsv", "id\ta, or b\tc\td\nr1\t1\t2.5\t0\nr2\t3\t\t0.004\n")
    assert_read(path, ["r1", "r2"], ["a, or b", "c", "d"])


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


def test_parquet_is_read_with_its_names(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is in the extra io")
    pytest.importorskip("pyarrow", reason="pyarrow is in the extra io")
    frame = pandas.DataFrame(X, columns=["a", "b", "c"], index=["r1", "r2"])
    frame.to_parquet(tmp_path / "index.parquet")
    frame.reset_index(names="id").to_parquet(tmp_path / "column.parquet")
    for name in ("index", "column"):
        assert_read(tmp_path / f"{name}.parquet", ["r1", "r2"], ["a", "b", "c"])


def test_h5ad_is_read_with_its_names(tmp_path):
    anndata = pytest.importorskip("anndata", reason="anndata is in the extra scverse")
    data = anndata.AnnData(X)
    data.obs_names, data.var_names = ["r1", "r2"], ["a", "b", "c"]
    data.write_h5ad(tmp_path / "x.h5ad")
    assert_read(tmp_path / "x.h5ad", ["r1", "r2"], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("x.csv", "", "is empty"),
        ("x.csv", "a,b\n", "one line of names and no numbers"),
        ("x.csv", "a,b\n1,2\n3\n", "line 3 has 1 cells"),
        ("x.csv", "a,b,c\n1,2,3\n4,five,6\n", "'five' in row 2, column 2 of the numbers is not a number"),
        ("x.csv", "a,b,c,d,e\n1,2,3\n", "5 names for 3 columns"),
        ("x.npy", "no array", "not a NumPy file"),
        ("x.npz", "no archive", "not a NumPy file"),
        ("x.mtx", "no matrix", "not a Matrix Market file"),
        ("x.txt", "1 2", "the kinds that can be read are .npy"),
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
    with pytest.raises(ValueError, match="is a folder"):
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
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        files.read(tmp_path / "bytes.csv")
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
