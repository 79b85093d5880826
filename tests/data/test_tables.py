"""Tables: what is a name and what is a number, and what cannot be told."""

import bz2
import gzip
import lzma

import numpy as np
import pyarrow.parquet
import pytest

from ppnmf.data import files

NAN = float("nan")
NUMBERS = [[0.7, 1.0], [0.5, 1.6]]


@pytest.fixture
def read(tmp_path):
    """A function: the content of a file -> what is read from it."""

    def of(content, name="x.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return files.read(path, **{"missing": "nan"} | options)

    return of


def assert_table(table, X, rows, columns):
    np.testing.assert_array_equal(table.X, X)
    assert table.X.dtype == np.float64 and table.X.flags.c_contiguous
    for found, wanted in ((table.rows, rows), (table.columns, columns)):
        assert (found is None) if wanted is None else found.tolist() == wanted


@pytest.mark.parametrize(
    ("text", "rows", "columns"),
    [
        ("0.7,1\n.5,1.6\n", None, None),
        ("a,b\n.7,1\n.5,1.6\n", None, ["a", "b"]),
        ("name,a,b\nr1,.7,1\nr2,.5,1.6\n", ["r1", "r2"], ["a", "b"]),
        ("a,b\nr1,.7,1\nr2,.5,1.6\n", ["r1", "r2"], ["a", "b"]),  # as R writes it
        (",a,b\n0,.7,1\n1,.5,1.6\n", ["0", "1"], ["a", "b"]),  # as pandas writes it
        (",0,1\n0,.7,1\n1,.5,1.6\n", ["0", "1"], ["0", "1"]),  # the same, without names
        (",7157,672\n1,.7,1\n2,.5,1.6\n", ["1", "2"], ["7157", "672"]),
        (",400.5,401.25\n3,.7,1\n5,.5,1.6\n", ["3", "5"], ["400.5", "401.25"]),
        (",7157,672\na,.7,1\nb,.5,1.6\n", ["a", "b"], ["7157", "672"]),
        ("id,2001,2002\na,.7,1\nb,.5,1.6\n", ["a", "b"], ["2001", "2002"]),
        ("7157,672\na,.7,1\nb,.5,1.6\n", ["a", "b"], ["7157", "672"]),  # R, all numbers
        ("7157,672\n1,.7,1\n2,.5,1.6\n", ["1", "2"], ["7157", "672"]),
        ("well,a,b\n1_1,.7,1\n1_2,.5,1.6\n", ["1_1", "1_2"], ["a", "b"]),
        ("r1,.7,1\nr2,.5,1.6\n", ["r1", "r2"], None),
        ("TP53,.7,1\nBRCA1,.5,1.6\n", ["TP53", "BRCA1"], None),
        ("a,a\n.7,1\n.5,1.6\n", None, ["a", "a"]),
        ('"x, y","a ""b""",c\n"r,1",.7,1\nr2,.5,1.6\n', ["r,1", "r2"], ['a "b"', "c"]),
        ('a,b\n"0.7","1"\n"0.5","1.6"\n', None, ["a", "b"]),
        ("a,b\n 0.7 , 1\n+.5,16e-1\n", None, ["a", "b"]),
    ],
)
def test_names_are_found(read, text, rows, columns):
    assert_table(read(text), NUMBERS, rows, columns)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("patient,g0,g1\n1,.7,1\n2,.5,1.6\n3,2.8,6\n", "column 'patient' holds distinct whole numbers: row names?"),
        ("patient,7157,672\n1,.7,1\n2,.5,1.6\n", "column 'patient' holds distinct whole numbers"),
        ("1,.7\n2,.5\n3,2.8\n", r"column 1 counts the rows: row names\? say row_names='1' or row_names=False"),
        ("0,1,2\n.7,1,2\n", r"the first line \(0, 1, 2\) may hold names or data: say header=True or header=False"),
        ("2001,2002,2003\n1,2,3\n4,5,6\n", r"the first line \(2001, 2002, 2003\) may hold names or data"),
        ("id,1,2\na,3,4\nb,1,5\n", r"the first line \(id, 1, 2\) may hold names or data"),
        (",2.5,3\n4,5,6\n1,1,1\n", r"the first line \(2.5, 3\) may hold names or data"),  # is the first cell missing?
        ("2,3\n4,5,6\n1,1,1\n", r"the first line \(2, 3\) may hold names or data"),  # or the first line one short?
        ("id,400.5,401.5\na,3,4\nb,1,5\n", "may hold names or data"),
        ("Alice,3,5,2\nBob,2.5,4,3.5\nCarol,1,4.5,2\n", r"the first line \(Alice, 3, 5, ...\) may hold names or data"),
        ("Alice,1,2,3\nBob,2.5,4,3.5\n", "may hold names or data"),
        ("Alice,30,50,20\nBob,2,4,3\n", "may hold names or data"),
        ("Gene A,3,5,2\nGene B,2.5,4,3.5\n", "may hold names or data"),
        ("400,402,404,406\n.11,.12,.13,.12\n.21,.18,.13,.02\n", "may hold names or data"),
        ("404,402,400\n.11,.12,.13\n.21,.18,.13\n", "may hold names or data"),
        ("400.5,401.5\n.11,.12\n.21,.18\n", "may hold names or data"),
        ("1990,1995,2000\n11,12,17\n3,5,8\n", "may hold names or data"),
        ("0,0.5,1.0\n.11,.72,.13\n.21,.18,.13\n", "may hold names or data"),
        ("0,2,4\n.11,3.5,.13\n.21,.18,.13\n", "may hold names or data"),
        ("1,2,x\n4,5,6\n", "'x' in the first line .* is not a number, and others are: mend it, or say header=True"),
        ("r1,2,x\nr2,5,6\n", "'x' in the first line .* is not a number"),
        ("a,b\n1,2\nfive,3\n2,4\n", "'five' in line 3, column 'a' is not a number: mend it, or say row_names='a'"),
        ('a,b\n"1,234",2\n"2,345",3\n', "'1,234' in line 2, column 'a' is not a number"),
        ("a,b\n<0.1,2\n<0.1,3\n", "'<0.1' in line 2, column 'a' is not a number"),
        ("a;b\n1,5;2.5\n1;2\n", "some numbers have a decimal comma and others a decimal point"),
        (
            "a\tb\n12,345\t1,002\n1,000\t17\n",
            "the comma of '12,345' and of all other such numbers may divide thousands: write",
        ),
        ("a;b\n1.5;-1,002\n2;3\n", "the comma of '-1,002' and of all other such numbers may divide thousands"),
        ("a\tb\n1,234,567\t2\n5\t3\n", "the comma of '1,234,567' and of all other such numbers may divide thousands"),
    ],
)
def test_what_cannot_be_told_is_asked(read, text, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read(text)
    assert "\n" not in str(caught.value) and "x.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "options", "X", "rows", "columns"),
    [
        ("patient,g\n1,.7\n2,.5\n", {"row_names": "patient"}, [[0.7], [0.5]], ["1", "2"], ["g"]),
        ("patient,g\n1,.7\n2,.5\n", {"row_names": False}, [[1, 0.7], [2, 0.5]], None, ["patient", "g"]),
        ("g,patient\n.7,1\n.5,2\n", {"row_names": "patient"}, [[0.7], [0.5]], ["1", "2"], ["g"]),
        ("g,patient\n.7,1\n.5,2\n", {"row_names": "2"}, [[0.7], [0.5]], ["1", "2"], ["g"]),
        ("1,.7\n2,.5\n3,.6\n", {"row_names": "1"}, [[0.7], [0.5], [0.6]], ["1", "2", "3"], None),
        ("1,.7\n2,.5\n3,.6\n", {"row_names": False}, [[1, 0.7], [2, 0.5], [3, 0.6]], None, None),
        ("0,1,2\n.7,1,2\n", {"header": True}, [[0.7, 1, 2]], None, ["0", "1", "2"]),
        ("0,1,2\n.7,1,2\n", {"header": False}, [[0, 1, 2], [0.7, 1, 2]], None, None),
        ("id,1,2\na,3,4\n", {"header": True}, [[3, 4]], ["a"], ["1", "2"]),
        ("id,1,2\na,3,4\n", {"header": False}, [[1, 2], [3, 4]], ["id", "a"], None),
        ("a,b\nr,1,2\n", {"transpose": True}, [[1], [2]], ["a", "b"], ["r"]),
    ],
)
def test_the_options_answer(read, text, options, X, rows, columns):
    assert_table(read(text, **options), X, rows, columns)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("country,2001,2002,2003\nMali,.7,1,2\nPeru,.5,1.6,2\n", ["Mali", "Peru"]),
        ("who,2001,2002,2003\nAlice,.7,1,2\nBob,.5,1.6,2\n", ["Alice", "Bob"]),
        ("gene_id,7157,672,4609\nA,.7,1,2\nB,.5,1.6,2\n", ["A", "B"]),
    ],
)
def test_numbers_above_named_rows_are_names_where_they_step_evenly_or_a_heading_is_usual(read, text, rows):
    assert read(text).rows.tolist() == rows


def test_numbers_without_names_are_asked_about_hardly_ever(read):
    generator = np.random.default_rng(0)
    kinds = [
        lambda size: generator.gamma(1, 1, size).round(3),
        lambda size: generator.uniform(0, 1, size).round(1),
        lambda size: generator.poisson(5, size),
        lambda size: generator.integers(1, 6, size),
        lambda size: np.full(size, 3.5),
        lambda size: 1 + np.arange(size[0] * size[1]).reshape(size),
    ]
    asked = 0
    for number in range(300):
        X = kinds[number % len(kinds)]((int(generator.integers(3, 9)), int(generator.integers(2, 7))))
        text = "\n".join(",".join(map(str, row)) for row in X.tolist())
        try:
            assert np.array_equal(read(text).X, X)
        except ValueError:
            asked += 1
    assert asked <= 3


def test_a_headerless_table_may_miss_its_first_cell(read):
    assert_table(read(",2.5\n.5,1.6\n"), [[NAN, 2.5], [0.5, 1.6]], None, None)


def test_a_first_line_that_is_short_is_a_header_or_an_error(read):
    with pytest.raises(ValueError, match="line 1 has 2 cells and line 2 has 3"):
        read("2,3\n4,5,6\n", header=False)
    assert_table(read("2,3\n4,5,6\n1,1,1\n", header=True), [[5, 6], [1, 1]], ["4", "1"], ["2", "3"])


def test_a_column_that_is_not_there_is_refused(read):
    with pytest.raises(ValueError, match="no column 'nobody' to name the rows; the first line is a, b"):
        read("a,b\n1,2\n", row_names="nobody")
    with pytest.raises(ValueError, match="2 columns are called 'a'"):
        read("a,a\n1,2\n", row_names="a")


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("x.csv", "a;b\n0,7;1\n0,5;1,6\n", "semicolons; decimal commas"),
        ("x.csv", "sep=;\na;b\n0,7;1\n0,5;1,6\n", "decimal commas"),
        ("x.txt", "a\tb\n0,7\t1\n0,5\t1,6\n", "tabs; decimal commas"),
        ("x.tsv", "a\tb\n0.7\t1\n0.5\t1.6\n", "tabs"),
        ("x.tsv", "a,b\n0.7,1\n0.5,1.6\n", "commas"),
        ("x.txt", "a b\n 0.7   1 \n0.5\t1.6\n", "spaces"),
        ("x.dat", '"a" "b"\n0.7 1\n0.5 1.6\n', "spaces"),
        ("x.csv", "a|b\n0.7|1\n0.5|1.6\n", "bars"),
        ("x.csv", "# made\n# by us\n\na,b\n0.7,1\n# a pause\n0.5,1.6\n", "3 lines of comments"),
        ("x.txt", "# a b\n0.7 1\n0.5 1.6\n", "1 line of comments"),  # as NumPy's savetxt writes it
        ("x.csv", "a,b,\n0.7,1,\n0.5,1.6,\n", "commas"),
        ("x.csv", "a,b\n0.7,1,\n0.5,1.6,\n", "commas"),
        ("x.csv", "a,b,,\n0.7,1\n0.5,1.6\n", "commas"),
        ("x.csv", ",a,b,,\n,0.7,1,,\n,0.5,1.6,,\n,,,,\n", "commas"),
        ("x.csv", "a,b\r\n0.7,1\r\n0.5,1.6\r\n\r\n", "commas"),
        ("x.csv", "a,b\r0.7,1\r0.5,1.6\r", "commas"),
        ("x.csv", "\ufeffa,b\n0.7,1\n0.5,1.6", "commas"),
        ("x.txt", "\ufeffa\tb\r\n0.7\t1\r\n0.5\t1.6\r\n".encode("utf-16-le"), "read as UTF-16LE"),
        ("x.csv.gz", gzip.compress(b"a,b\n0.7,1\n0.5,1.6\n", mtime=0), "commas"),
        ("x.tsv.bz2", bz2.compress(b"a\tb\n0.7\t1\n0.5\t1.6\n"), "tabs"),
        ("x.txt.xz", lzma.compress(b"a b\n0.7 1\n0.5 1.6\n"), "spaces"),
    ],
)
def test_a_table_is_read_however_it_is_written(read, name, content, part):
    table = read(content, name)
    assert_table(table, NUMBERS, None, ["a", "b"])
    assert part in table.about and name in table.about


def test_names_in_windows_1252_are_read(read):
    table = read("id,Größe\nä,1.5\nb,2\n".encode("cp1252"))
    assert_table(table, [[1.5], [2]], ["ä", "b"], ["Größe"])
    assert "Windows-1252" in table.about


@pytest.mark.parametrize(("cell", "value"), [("1,5", 1.5), ("0,123", 0.123), ("1,25", 1.25), ("1234,567", 1234.567)])
def test_a_single_number_proves_decimal_commas(read, cell, value):
    assert_table(read(f"a\tb\n12,345\t1,002\n{cell}\t17\n"), [[12.345, 1.002], [value, 17]], None, ["a", "b"])
    named = read(f"id\tb\n12,345\t1.5\n{cell}\t17\n", row_names="id")
    assert_table(named, [[1.5], [17]], ["12,345", cell], ["b"])


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("a,b\n0.7,1\n0.5,1.6\n,\n,\n", "2 empty lines at the end left out"),
        (",a,b,,\n,0.7,1,,\n,0.5,1.6,,\n", "3 empty columns at the sides left out"),
    ],
)
def test_what_is_empty_is_left_out_and_said(read, content, part):
    table = read(content)
    assert_table(table, NUMBERS, None, ["a", "b"])
    assert part in table.about
    assert "left out" not in read("a,b\n0.7,1\n0.5,1.6\n").about


def test_commas_in_names_are_no_decimal_commas(read):
    table = read('"" "a, b" c\nr,1 .7 1\n"r 2" .5 1.6\n', "x.txt")
    assert_table(table, NUMBERS, ["r,1", "r 2"], ["a, b", "c"])


SPELLINGS = ["", ".", "-", "?", "<NA>", "#N/A", "NA", "n/a", "nan", "NULL", "None", " NA "]


def test_every_spelling_of_missing_counts_and_is_listed(read):
    text = "id,a,b\n" + "".join(f"r{i},{cell},{i}\n" for i, cell in enumerate([*SPELLINGS, ".", "1.5"]))
    table = read(text)
    assert np.isnan(table.X[:-1, 0]).all() and table.X[-1].tolist() == [1.5, len(SPELLINGS) + 1]
    with pytest.raises(ValueError, match="X has 13 NaN or empty entries: say missing='nan'") as caught:
        read(text, missing="error")
    sentence = str(caught.value)
    assert "1 empty" in sentence and "2 '.'" in sentence and "1 '#N/A'" in sentence and "2 'NA'" in sentence
    assert "x.csv" in sentence and "the first in row 'r0', column 'a'" in sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("a,b\n", "one line of names and no numbers"),
        ("a,b\n1,2\n\n3\n", "line 4 has 1 cells and line 2 has 2; cells are separated by commas"),
        ("a,b,c\n1.5,2,3\n# x\n4,five,6\n", "'five' in line 4, column 'b' is not a number"),
        ("a,b,c\n1.5,2,3\n4,1_1,6\n", "'1_1' in line 3, column 'b' is not a number"),
        ("id,a\nr1,5%\nr2,1\n", "'5%' in line 2, column 'a' is not a number"),
        ("2,2\n4,5,6\n", "line 1 has 2 cells and line 2 has 3"),
        ("a,b,c,d,e\n1,2,3\n", "line 1 has 5 cells and line 2 has 3"),
        ("id,symbol,s\nE1,A,2\nE2,B,3\n", r"column 'symbol' holds text \('A' in line 2\) .* say row_names='symbol'"),
        ("1:2:3.5\n4:5:6\n", "'4:5:6' in line 2 is not a number, and there is one column"),
        ("a,b\n1.5,inf\n1.5,2\n", r"1 infinite entries, the first \(inf\) in row 1, column 'b'"),
        ("id\na\nb\n", "'a' in line 2 is not a number"),
        (b"PK\x03\x04\x00\x00", "is not a text file"),
        (b"\xff\xfe\x00", "is not a text file"),
    ],
)
def test_a_bad_table_gets_one_sentence(read, content, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read(content)
    assert "\n" not in str(caught.value) and "x.csv" in str(caught.value)


def test_a_compressed_table_that_is_cut_off_gets_one_sentence(read):
    with pytest.raises(ValueError, match=r"x\.csv\.gz cannot be decompressed"):
        read(gzip.compress(b"a,b\n0.7,1\n0.5,1.6\n")[:-12], "x.csv.gz")


def test_numbers_are_read_to_the_last_bit(read):
    X = np.random.default_rng(0).gamma(1, 1, (40, 30)) ** 20
    X[3, 4], X[5, 6] = 5e-324, 1.7976931348623157e308
    text = "\n".join(",".join(map(repr, row)) for row in X.tolist())
    assert np.array_equal(read(text).X, X)


def test_what_pandas_writes_is_read_back(tmp_path):
    pandas = pytest.importorskip("pandas")
    X = np.array(NUMBERS)
    for index, columns in ((None, None), ([7, 3], [2001, 2002]), (["a", "b"], [0.5, 1.5]), ([0.5, 1.5], ["x", "y"])):
        frame = pandas.DataFrame(X, index=index, columns=columns)
        frame.to_csv(tmp_path / "x.csv")
        table = files.read(tmp_path / "x.csv")
        if index == [0.5, 1.5]:  # a nameless first column, whatever it holds
            assert table.rows.tolist() == ["0.5", "1.5"]
        assert_table(table, X, [str(name) for name in frame.index], [str(name) for name in frame.columns])


def test_a_table_wider_than_pyarrows_blocks_is_read(read):
    width = 50_000
    text = ",".join(f"gene{j}" for j in range(width)) + "\n" + ",".join(["1.25"] * width) + "\n"
    table = read(text)
    assert table.X.shape == (1, width) and (table.X == 1.25).all() and table.columns[-1] == f"gene{width - 1}"


@pytest.fixture
def parquet(tmp_path):
    """A function: columns by name, or a frame of pandas -> the path of a Parquet file."""

    def write(columns):
        path = tmp_path / "x.parquet"
        if isinstance(columns, dict):
            pyarrow.parquet.write_table(pyarrow.table(columns), path)
        else:
            columns.to_parquet(path)
        return path

    return write


def test_parquet_names_the_rows_by_its_index_or_a_column_of_text(parquet):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(NUMBERS, columns=["a", "b"], index=["r1", "r2"])
    assert_table(files.read(parquet(frame)), NUMBERS, ["r1", "r2"], ["a", "b"])
    assert_table(files.read(parquet(frame.reset_index(names="id"))), NUMBERS, ["r1", "r2"], ["a", "b"])
    assert_table(files.read(parquet(frame.set_axis([7, 3]).rename_axis("n"))), NUMBERS, ["7", "3"], ["a", "b"])
    assert_table(files.read(parquet(frame), row_names=False), NUMBERS, None, ["a", "b"])
    assert_table(files.read(parquet(frame.reset_index(drop=True))), NUMBERS, None, ["a", "b"])


def test_parquet_names_the_rows_by_its_index_where_that_is_asked_for(parquet):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(NUMBERS, columns=["a", "b"], index=pandas.Index(["r1", "r2"], name="gene"))
    assert_table(files.read(parquet(frame), row_names="gene"), NUMBERS, ["r1", "r2"], ["a", "b"])
    other = frame.assign(id=["u", "v"])
    assert_table(files.read(parquet(other), row_names="id"), NUMBERS, ["u", "v"], ["a", "b"])
    days = frame.set_axis(pandas.date_range("2020-01-01", periods=2))
    assert_table(files.read(parquet(days)), NUMBERS, ["2020-01-01", "2020-01-02"], ["a", "b"])
    when = days.rename_axis("when").reset_index()
    assert_table(files.read(parquet(when), row_names="when"), NUMBERS, ["2020-01-01", "2020-01-02"], ["a", "b"])


def test_parquet_asks_about_a_column_of_distinct_whole_numbers(parquet):
    path = parquet({"patient": [1, 2, 3], "g": [0.7, None, 2.8]})
    with pytest.raises(ValueError, match="column 'patient' holds distinct whole numbers: row names?"):
        files.read(path)
    assert_table(files.read(path, row_names="patient", missing="nan"), [[0.7], [NAN], [2.8]], ["1", "2", "3"], ["g"])
    table = files.read(path, row_names=False, missing="nan")
    assert_table(table, [[1, 0.7], [2, NAN], [3, 2.8]], None, ["patient", "g"])
    with pytest.raises(ValueError, match="1 NaN or empty entries.*1 null or NaN; the first in row '2', column 'g'"):
        files.read(path, row_names="patient")


def test_parquet_takes_every_type_of_number_and_of_text(parquet):
    from decimal import Decimal

    import pyarrow as pa

    path = parquet(
        {
            "id": pa.array(["u", "v"]).cast(pa.string_view()),
            "decimal": [Decimal("0.5"), None],
            "boolean": [True, False],
            "small": pa.array([1, 2], pa.uint8()),
            "half": pa.array([0.5, 1.5]).cast(pa.float16()),
            "text": pa.array(["1.5", "NA"]).dictionary_encode(),
            "void": pa.array([None, None]),
        }
    )
    X = [[0.5, 1, 1, 0.5, 1.5, NAN], [NAN, 0, 2, 1.5, NAN, NAN]]
    names = ["decimal", "boolean", "small", "half", "text", "void"]
    assert_table(files.read(path, missing="nan"), X, ["u", "v"], names)


def test_parquet_of_other_things_gets_one_sentence(parquet):
    with pytest.raises(ValueError, match=r"column 'when' holds timestamp\[us\] and not numbers"):
        files.read(parquet({"x": [1.5], "when": [np.datetime64("2020-01-01", "us")]}))
    with pytest.raises(ValueError, match=r"column 'name' holds text \('u' in row 1\)"):
        files.read(parquet({"x": [1.5, 1.5], "name": ["u", "v"]}))
    with pytest.raises(ValueError, match="0 rows"):
        files.read(parquet({"x": []}))
