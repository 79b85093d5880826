"""Frames and other labelled containers: names reach the posterior, missing is missing, nothing goes by position in silence."""

import subprocess
import sys
import warnings
from decimal import Decimal

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch
import xarray as xr
import zarr

import ppnmf
from ppnmf.data.labelled import NO_NAMES, Labelled, Names, order
from ppnmf.data.labels import as_labels
from ppnmf.data.matrix import as_matrix, in_memory
from ppnmf.models import ExponentialGaussian

N, D = 8, 5
ROWS, COLUMNS = tuple(f"cell {i}" for i in range(N)), ("TP53", "EGFR", "MYC", "KRAS", "PTEN")
NAMES = Names(ROWS, COLUMNS)
VALUES = np.random.default_rng(0).gamma(2.0, size=(N, D))
SEEN = VALUES > 0.7
SHORT = {"draws": 3, "warmup": 2, "chains": 1, "progress": False}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*zarr v2:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Zarr format 3 specification:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Zarr V3 specification"),
    pytest.mark.filterwarnings("ignore:Consolidated metadata"),
]


def frame(values=VALUES):
    return pd.DataFrame(values, ROWS, COLUMNS)


def data_array(values=VALUES):
    return xr.DataArray(values, dims=("cell", "gene"), coords={"cell": list(ROWS), "gene": list(COLUMNS)})


def annotated(values=VALUES):
    return anndata.AnnData(values, obs=pd.DataFrame(index=list(ROWS)), var=pd.DataFrame(index=list(COLUMNS)))


def from_parquet(path):
    frame().to_parquet(path / "X.parquet")
    return pd.read_parquet(path / "X.parquet")


def backed(path, values=VALUES):
    annotated(values).write_h5ad(path / "X.h5ad")
    return anndata.read_h5ad(path / "X.h5ad", backed="r")


def store(path, values=VALUES):
    annotated(values).write_zarr(path / "X.zarr")
    return path / "X.zarr"


def xarray_store(path):
    data_array().to_dataset(name="counts").to_zarr(path / "X.zarr")
    return zarr.open_group(path / "X.zarr", mode="r")["counts"]


def with_attributes(path):
    array = zarr.create_array(store=path / "X.zarr", data=VALUES, attributes={"rows": ROWS, "columns": COLUMNS})
    return zarr.open_array(array.store, mode="r")


CONTAINERS = {
    "pandas": lambda path: frame(),
    "pandas, nullable": lambda path: frame().convert_dtypes(),
    "pandas, pyarrow": lambda path: frame().convert_dtypes(dtype_backend="pyarrow"),
    "pandas, sparse": lambda path: frame().astype(pd.SparseDtype(float, 0.0)),
    "Parquet with an index": from_parquet,
    "pyarrow": lambda path: pa.Table.from_pandas(frame()),
    "xarray": lambda path: data_array(),
    "AnnData": lambda path: annotated(),
    "AnnData, sparse": lambda path: annotated(scipy.sparse.csr_matrix(VALUES)),
    "AnnData, columns": lambda path: annotated(scipy.sparse.csc_matrix(VALUES)),
    "AnnData, a view": lambda path: annotated(scipy.sparse.csr_matrix(VALUES))[:, list(COLUMNS)],
    "AnnData, backed": backed,
    "AnnData, sparse and backed": lambda path: backed(path, scipy.sparse.csr_matrix(VALUES)),
    "AnnData's Zarr store": store,
    "AnnData's sparse Zarr store": lambda path: store(path, scipy.sparse.csr_matrix(VALUES)),
    "AnnData's Zarr group": lambda path: zarr.open_group(store(path), mode="r"),
    "AnnData's Zarr array": lambda path: zarr.open_group(store(path), mode="r")["X"],
    "xarray's Zarr array": xarray_store,
    "Zarr array with attributes": with_attributes,
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_names_stay_with_the_values(kind, tmp_path):
    found = as_matrix(CONTAINERS[kind](tmp_path))
    assert found.names == NAMES
    np.testing.assert_array_equal(in_memory(found, "a test").values.numpy(), VALUES)
    assert in_memory(found, "a test").names == NAMES


@pytest.mark.parametrize("kind", ["pandas", "xarray", "AnnData, sparse", "AnnData's Zarr store"])
@pytest.mark.parametrize("method", ["gibbs", "icm", "svi"])
def test_names_reach_the_posterior_arviz_and_a_file(kind, method, tmp_path):
    options = {"gibbs": SHORT, "icm": {"restarts": 1, "progress": False}, "svi": {"steps": 2, "progress": False}}
    X = CONTAINERS[kind](tmp_path)
    model = ppnmf.models.PAENMF(2) if method == "svi" else ExponentialGaussian.scaled_to(X, 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="icm: .* had not converged")
        post = ppnmf.fit(model, X, method=method, **options[method])
    assert post.names == {"rows": list(ROWS), "columns": list(COLUMNS)}
    tree = post.to_arviz()["posterior"]
    assert list(tree["row"].values) == list(ROWS) and list(tree["column"].values) == list(COLUMNS)
    assert ppnmf.Posterior.load(post.save(tmp_path / "fit.nc")).names == post.names


def test_polars_names_columns_alone():
    given = pl.DataFrame(VALUES, schema=list(COLUMNS))
    post = ppnmf.fit(ExponentialGaussian(2), given, **SHORT)
    assert post.names == {"columns": list(COLUMNS)}
    np.testing.assert_array_equal(post.X.values.numpy(), VALUES)


def test_what_a_library_counts_by_itself_names_nothing(tmp_path):
    counted = [
        pd.DataFrame(VALUES),
        pd.DataFrame(VALUES).iloc[2:],
        pd.DataFrame(VALUES, pd.Index(range(N), dtype="int64"), pd.Index(range(D), dtype="int64")),
        pl.DataFrame(VALUES),
        xr.DataArray(VALUES),
        xr.DataArray(VALUES, dims=("row", "column"), coords={"row": np.arange(N), "column": np.arange(D)}),
        anndata.AnnData(VALUES),
        zarr.create_array(store=tmp_path / "X.zarr", data=VALUES),
    ]
    for X in counted:
        assert as_matrix(X).names == NO_NAMES
    assert ppnmf.fit(ExponentialGaussian(2), counted[0], **SHORT).names == {}


def test_whole_numbers_that_do_not_count_are_names():
    entrez = pd.DataFrame(VALUES, range(1, N + 1), [7157, 1956, 4609, 3845, 5728])
    assert as_matrix(entrez).names == Names(None, ("7157", "1956", "4609", "3845", "5728"))
    shuffled = pd.DataFrame(VALUES).iloc[[3, 0, 2]]
    assert as_matrix(shuffled).names.rows == ("3", "0", "2")


def test_levels_and_dates_become_names_of_one_word():
    levels = pd.MultiIndex.from_product([["mouse", "man"], range(4)])
    given = pd.DataFrame(VALUES, levels, pd.date_range("2020-01-01", periods=D))
    names = as_matrix(given).names
    assert names.rows[:2] == ("mouse_0", "mouse_1") and names.columns[0] == "2020-01-01"


def test_an_array_in_xarray_is_turned_where_its_dims_say_so():
    turned = xr.DataArray(VALUES.T, dims=("column", "row"), coords={"row": list(ROWS)})
    found = as_matrix(turned)
    np.testing.assert_array_equal(found.values.numpy(), VALUES)
    assert found.names == Names(ROWS, None)


def test_names_stay_through_a_matrix_and_hiding_and_are_no_part_of_the_data():
    found = as_matrix(frame())
    assert as_matrix(found, SEEN).names == found.hide(torch.from_numpy(SEEN)).names == NAMES
    assert as_matrix(found, noise=np.full(D, 2.0)).names == NAMES
    from ppnmf.fingerprints import fingerprint

    assert fingerprint(found) == fingerprint(as_matrix(VALUES))


def test_the_type_of_a_frame_is_that_of_its_columns():
    assert as_matrix(frame().astype("float32")).dtype == torch.float32
    assert as_matrix(frame().astype("float32").astype("Float32")).dtype == torch.float32
    assert as_matrix(pl.DataFrame(VALUES.astype("float32"))).dtype == torch.float32
    mixed = pd.DataFrame({"a": np.ones(3, "float32"), "b": [1, 2, 3], "c": [True, False, True]})
    assert as_matrix(mixed).dtype == torch.float64
    np.testing.assert_array_equal(as_matrix(mixed).values[:, 2].numpy(), [1, 0, 1])


def test_a_frame_of_sparse_columns_is_not_made_dense():
    assert type(as_matrix(frame().astype(pd.SparseDtype(float, 0.0)))).__name__ == "Sparse"
    assert type(as_matrix(frame().astype(pd.SparseDtype(float, np.nan)))).__name__ == "Dense"


MISSING = {
    "Int64": pd.DataFrame({"a": pd.array([1, None, 3], "Int64"), "b": [1, 2, 3]}),
    "Float64": pd.DataFrame({"a": pd.array([1.0, None, 3.0], "Float64"), "b": [1, 2, 3]}),
    "boolean": pd.DataFrame({"a": pd.array([True, None, True], "boolean"), "b": [1, 2, 3]}),
    "int64[pyarrow]": pd.DataFrame({"a": pd.array([1, None, 3], "int64[pyarrow]"), "b": [1, 2, 3]}),
    "double[pyarrow]": pd.DataFrame({"a": pd.array([1.5, None, 3], "double[pyarrow]"), "b": [1, 2, 3]}),
    "NaN": pd.DataFrame({"a": [1.0, np.nan, 3.0], "b": [1, 2, 3]}),
    "polars": pl.DataFrame({"a": [1, None, 3], "b": [1, 2, 3]}),
    "xarray": xr.DataArray([[1.0, 1.0], [np.nan, 2.0], [3.0, 3.0]]),
    "pyarrow": pa.table({"a": [1, None, 3], "b": [1, 2, 3]}),
}


@pytest.mark.parametrize("kind", MISSING)
def test_a_missing_value_of_any_type_is_missing(kind):
    found = as_matrix(MISSING[kind], missing="nan")
    assert found.mask.tolist() == [[True, True], [False, True], [True, True]]
    with pytest.raises(ValueError, match="X has 1 NaN entries; if they are missing, say so with missing='nan'"):
        as_matrix(MISSING[kind])


@pytest.mark.parametrize(
    "nothing", [[None, None], [pd.NA, pd.NA], pd.Categorical([None, None])], ids=["None", "NA", "category"]
)
@pytest.mark.filterwarnings("ignore:.* have nothing observed")
def test_a_column_of_nothing_is_missing(nothing):
    given = pd.DataFrame({"a": [1, 2], "b": nothing})
    kept = given.copy()
    assert as_matrix(given, missing="nan").mask.tolist() == [[True, False]] * 2
    pd.testing.assert_frame_equal(given, kept)
    assert as_matrix(pl.DataFrame({"a": [1, 2], "b": [None, None]}), missing="nan").mask.tolist() == [[True, False]] * 2


def object_columns(*values):
    return pd.DataFrame({"a": [1.0, 2.0], "b": list(values), "c": list(values)}, ["r", "s"], dtype=object).astype(
        {"a": float}
    )


REFUSED = {
    "text": (object_columns("T47D", "MCF7"), r"X's column 'b' holds text \('T47D' is the first\).* X.set_index\('b'\)"),
    "a category": (object_columns("x", "y").astype({"b": "category"}), "X's column 'b' holds text .* X.set_index"),
    "arrow text": (object_columns("x", "y").astype({"b": "string[pyarrow]"}), "X's column 'b' holds text"),
    "numbers as text": (object_columns("3.5", "4"), r"X's column 'b' holds numbers as text \('3.5' is the first\)"),
    "a note among numbers": (object_columns("3.5", "n.d."), "X's column 'b' holds 'n.d.' in row 's'; real numbers"),
    "numbers as objects": (object_columns(3, 4), "X's column 'b' holds numbers as objects of type object"),
    "decimals": (object_columns(Decimal("3.5"), 4), r"holds numbers as objects.* pass X.apply\(pandas.to_numeric\)"),
    "dates": (
        pd.DataFrame({"a": [1.0], "when": pd.to_datetime(["2020-01-01"])}),
        "X's column 'when' is of type datetime",
    ),
    "complex": (pd.DataFrame({"a": [1.0], "z": [1j]}), "X's column 'z' is of type complex128; real numbers"),
    "polars text": (
        pl.DataFrame({"id": ["u", "v"], "a": [1, 2]}),
        r"X's column 'id' .*to_pandas\(\).set_index\('id'\)",
    ),
    "polars numbers as text": (pl.DataFrame({"a": ["1", "2"]}), r"numbers as text .* pass X.cast\(polars.Float64\)"),
    "polars dates": (pl.DataFrame({"a": [1]}).select(pl.col("a").cast(pl.Date)), "X's column 'a' is of type Date"),
    "a plan": (pl.LazyFrame({"a": [1]}), r"X is a polars LazyFrame, .*: pass X.collect\(\)"),
    "a data set": (xr.Dataset({"u": 1, "v": 2}), r"X is an xarray Dataset of 'u', 'v'; pass one of them"),
    "xarray text": (xr.DataArray([["a"]]), "X has entries of type <U1; real numbers are needed"),
    "three dims": (xr.DataArray(np.ones((2, 2, 2))), r"X has shape \(2, 2, 2\); a matrix"),
    "AnnData without X": (anndata.AnnData(obs=pd.DataFrame(index=["a"])), "X is an AnnData without X; to use a layer"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_columns_are_refused_in_a_sentence_that_names_the_first(kind):
    given, sentence = REFUSED[kind]
    with pytest.raises(ValueError, match=sentence):
        as_matrix(given)


def test_the_advice_can_be_followed():
    named = frame().reset_index(names="cell line")
    with pytest.raises(ValueError, match=r"pass X.set_index\('cell line'\)"):
        as_matrix(named)
    assert as_matrix(named.set_index("cell line")).names == NAMES
    for columns in (object_columns("3.5", None), object_columns(pd.NA, 4), object_columns(Decimal("3.5"), 4)):
        with pytest.raises(ValueError, match="pandas.to_numeric"):
            as_matrix(columns)
        as_matrix(columns.apply(pd.to_numeric), missing="nan")


def test_frames_of_other_libraries_are_told_of():
    import dask.dataframe as dd

    with pytest.raises(ValueError, match=r"X is a dask\..*DataFrame; pass it as a pandas DataFrame"):
        as_matrix(dd.from_pandas(frame(), npartitions=2))


# Masks and noise


MASKS = {
    "itself": frame(SEEN),
    "another order": frame(SEEN).iloc[::-1, [2, 0, 1, 4, 3]],
    "nullable": frame(SEEN).astype("boolean").iloc[::-1],
    "pyarrow": frame(SEEN).astype("bool[pyarrow]").iloc[::-1],
    "polars": pl.DataFrame(SEEN, schema=list(COLUMNS)).select(sorted(COLUMNS)),
    "xarray": data_array(SEEN)[::-1],
    "AnnData": annotated(SEEN)[list(ROWS[::-1])],
    "an array": SEEN,
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("X", [frame(), data_array(), annotated()], ids=["pandas", "xarray", "AnnData"])
def test_a_mask_is_matched_by_name(kind, X):
    assert as_matrix(X, MASKS[kind]).mask.tolist() == SEEN.tolist()


def test_a_mask_of_a_matrix_is_matched_by_its_names():
    assert as_matrix(as_matrix(frame()), MASKS["another order"]).mask.tolist() == SEEN.tolist()


def test_a_mask_in_xarray_goes_by_its_dims_with_names_and_without():
    X = xr.DataArray(VALUES[:D], dims=("cell", "gene"))
    assert as_matrix(data_array(), data_array(SEEN)[::-1].T).mask.tolist() == SEEN.tolist()
    assert as_matrix(X, xr.DataArray(SEEN[:D].T, dims=("gene", "cell"))).mask.tolist() == SEEN[:D].tolist()
    with pytest.raises(ValueError, match=r"mask has the dims \('gene', 'site'\) and X \('cell', 'gene'\)"):
        as_matrix(X, xr.DataArray(SEEN[:D], dims=("gene", "site")))


def test_a_mask_of_counted_rows_goes_by_their_numbers():
    X, seen = pd.DataFrame(VALUES), pd.DataFrame(SEEN)
    assert as_matrix(X, seen[::-1]).mask.tolist() == SEEN.tolist()
    assert as_matrix(X.iloc[2:6], seen.iloc[2:6]).mask.tolist() == SEEN[2:6].tolist()
    with pytest.raises(ValueError, match="mask's rows are not X's: '0', '1' are missing and '4', '5' are unknown"):
        as_matrix(X.iloc[:4], seen.iloc[2:6])


OTHER_MASKS = {
    "other columns": (
        frame(SEEN).rename(columns={"TP53": "P53"}),
        "mask's columns are not X's: 'TP53' is missing and 'P53'",
    ),
    "fewer rows": (
        frame(SEEN)[1:],
        "mask's rows are not X's: 'cell 0' is missing; give it X's names, or pass mask.to_numpy",
    ),
    "without names": (
        pd.DataFrame(SEEN),
        "mask's rows are not X's: 'cell 0', 'cell 1', 'cell 2' and 5 more are missing",
    ),
    "a column twice": (frame(SEEN).iloc[:, [0, 0, 2, 3, 4]], "'EGFR' is missing and 'TP53' is there twice"),
    "numbers": (frame(), "mask's column 'TP53' is of type float64; booleans are needed, True where observed"),
    "a missing value": (
        frame(SEEN).astype("boolean").mask(~SEEN),
        r"mask has \d+ missing entries, the first in column 'TP53'",
    ),
    "nulls": (pl.DataFrame({"TP53": [True, None]}), "mask has nulls, the first in column 'TP53'"),
}


@pytest.mark.parametrize("kind", OTHER_MASKS)
def test_another_mask_is_refused(kind):
    mask, sentence = OTHER_MASKS[kind]
    with pytest.raises(ValueError, match=sentence):
        as_matrix(frame(), mask)


PER_ROW, PER_COLUMN = np.arange(1.0, N + 1), np.arange(1.0, D + 1)
NOISE = {
    "a series of columns": (pd.Series(PER_COLUMN, COLUMNS)[::-1], PER_COLUMN),
    "a series of rows": (pd.Series(PER_ROW, ROWS)[::-1], PER_ROW[:, None]),
    "nullable": (pd.Series(PER_ROW, ROWS).astype("Int64")[::-1], PER_ROW[:, None]),
    "a frame of one column": (pd.DataFrame({"variance": PER_ROW}, ROWS)[::-1], PER_ROW[:, None]),
    "a frame of one row": (pd.DataFrame([PER_COLUMN], ["variance"], COLUMNS).iloc[:, ::-1], PER_COLUMN),
    "a frame": (frame()[list(COLUMNS[::-1])], VALUES),
    "xarray": (data_array()[:, ::-1], VALUES),
    "a dim of columns": (data_array()[0].drop_vars("cell") * 0 + PER_COLUMN, PER_COLUMN),
    "polars": (pl.Series(PER_COLUMN), PER_COLUMN),
}


@pytest.mark.parametrize("kind", NOISE)
def test_noise_is_matched_by_name(kind):
    noise, plain = NOISE[kind]
    found, wanted = as_matrix(frame(), noise=noise).noise, as_matrix(VALUES, noise=plain).noise
    assert found.along == wanted.along and found.variance.tolist() == wanted.variance.tolist()


def test_noise_in_xarray_goes_by_its_dim():
    square = data_array()[:D].drop_vars(("cell", "gene"))
    for dim, along in (("cell", "rows"), ("gene", "columns")):
        assert as_matrix(square, noise=xr.DataArray(PER_COLUMN, dims=dim)).noise.along == along
    with pytest.raises(ValueError, match="noise has the labels of neither X's rows nor its columns"):
        as_matrix(square, noise=xr.DataArray(PER_COLUMN, dims="site"))


def test_other_noise_is_refused():
    with pytest.raises(ValueError, match="noise has the labels of neither X's rows nor its columns"):
        as_matrix(frame(), noise=pd.Series(PER_COLUMN))
    with pytest.raises(ValueError, match="noise has the labels of both X's rows and its columns"):
        as_matrix(pd.DataFrame(VALUES[:D]), noise=pd.Series(PER_COLUMN))
    with pytest.raises(ValueError, match="noise's columns are not X's: 'TP53' is missing"):
        as_matrix(frame(), noise=frame().drop(columns="TP53"))


# What takes X


def test_a_start_is_matched_by_name():
    W, H = np.ones((N, 2)) * PER_ROW[:, None], np.ones((2, D)) * PER_COLUMN
    model, frozen = ExponentialGaussian(2), {"draws": 1, "warmup": 0, "chains": 1, "progress": False, "seed": 3}
    named = {"W": pd.DataFrame(W, ROWS)[::-1], "H": pd.DataFrame(H, columns=list(COLUMNS)).iloc[:, ::-1]}
    plain = ppnmf.fit(model, VALUES, init={"W": W, "H": H}, **frozen)
    assert torch.equal(ppnmf.fit(model, frame(), init=named, **frozen).draws["W"], plain.draws["W"])
    other = ppnmf.fit(model, frame().iloc[::-1, ::-1], init={"W": W[::-1], "H": H[:, ::-1]}, **frozen)
    again = ppnmf.fit(model, frame(), init=other, **frozen)
    straight = {
        "W": other.draws["W"][0, 0].flip(0),
        "H": other.draws["H"][0, 0].flip(1),
        "sigma2": other.draws["sigma2"][0, 0],
    }
    assert torch.equal(again.draws["W"], ppnmf.fit(model, frame(), init=straight, **frozen).draws["W"])
    with pytest.raises(ValueError, match="init's H is not named as X is: 'TP53' is missing and 'P53' is unknown"):
        ppnmf.fit(model, frame(), init={"W": W, "H": named["H"].rename(columns={"TP53": "P53"})}, **frozen)


def test_a_start_of_counted_rows_goes_by_their_numbers():
    W, H = np.ones((N, 2)) * PER_ROW[:, None], np.ones((2, D)) * PER_COLUMN
    frozen = {"draws": 1, "warmup": 0, "chains": 1, "progress": False, "seed": 3}
    counted = {"W": pd.DataFrame(W).iloc[::-1], "H": pd.DataFrame(H).iloc[:, [1, 0, *range(2, D)]]}
    plain = ppnmf.fit(ExponentialGaussian(2), VALUES, init={"W": W, "H": H}, **frozen)
    assert torch.equal(ppnmf.fit(ExponentialGaussian(2), VALUES, init=counted, **frozen).draws["H"], plain.draws["H"])


@pytest.mark.filterwarnings("ignore:log_evidence by chib")  # few draws, which the numbers here do not mind
def test_evidence_takes_the_same_containers():
    model = ExponentialGaussian.scaled_to(frame(), 1, MASKS["another order"])
    options = {"method": "chib", "draws": 20, "warmup": 10, "replicates": 2, "progress": False}
    plain = ppnmf.log_evidence(model, VALUES, mask=SEEN, **options)
    assert ppnmf.log_evidence(model, frame(), mask=MASKS["another order"], **options).log_evidence == plain.log_evidence
    table = ppnmf.select_rank(model, annotated(), [1], mask=MASKS["nullable"], **options)
    assert table.scores["chib"][1].log_evidence == plain.log_evidence


def test_order_says_where_names_are():
    assert order(("a", "b"), ("a", "b"), "", "") is None
    assert order(range(2), ("0", "1"), "", "") is None
    assert order(("b", "a"), ("a", "b"), "", "") == [1, 0]
    assert order(("a", "a"), ("a", "a"), "", "") is None  # equal as they stand
    with pytest.raises(ValueError, match="what: 'a' is there twice and 'a' is wanted twice; advice"):
        order(("a", "b", "a"), ("a", "a", "b"), "what", "advice")


def test_an_array_and_names_that_lie_apart_are_labelled_together():
    found = as_matrix(Labelled.of(VALUES, np.array(ROWS), None))
    assert found.names == Names(ROWS, None)


def test_no_library_of_frames_is_imported_for_an_array():
    code = (
        "import sys, numpy, ppnmf; ppnmf.as_matrix(numpy.ones((3, 2))); "
        "print([name for name in ('polars', 'anndata', 'zarr') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_nan_among_names_is_no_class():
    for missing in (float("nan"), None, "", pd.NA):
        found = as_labels(["a", "b", missing, "a"], 4, "rows of X")
        assert found.classes == ("a", "b") and found.known.tolist() == [True, True, False, True]
