"""Tables in files are read as they are, whatever their separator, encoding or packing, or refused in a line."""

import bz2
import gzip
import lzma
import os
import sys
import zipfile

import numpy as np
import pandas
import pytest
import torch

from pyro_vae.data.tables import as_bytes, find_schema, read_frame
from tests.tables import NUM, NUMBERS, RANGE, B, C, kinds, table, texts, there_and_back


def read(tmp_path, content, name="table.csv"):
    """The table in a file with some content, as text or bytes."""
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_frame(name, tmp_path / name)


HEADED = {"a": "number", "b": "number", "c": "number"}
FILES = {
    "booleans": (table(NUMBERS, texts("False", "True"), names="af"), {"a": "number", "f": "yes/no"}),
    "names that outputs have": (
        table(NUMBERS, B, texts("1", "0"), names=["y", "index", "cls"]),
        {"y": "number", "index": "number", "cls": "yes/no"},
    ),
    "a constant": (table(NUMBERS, texts("7.0000"), names="ak"), {"a": "number", "k": "constant"}),
    "dates": (
        table([f"2021-03-{1 + i % 28:02d}" for i in RANGE], B, names=["when", "b"]),
        {"when": "date", "b": "number"},
    ),
    "blanks of many spellings": (
        table(["?", "NA", "null", "#N/A", "-", *NUMBERS[5:]], B, names="ab"), {"a": "number", "b": "number"},
    ),
    "a line without a cell": ("a\n\n" + "\n".join(NUMBERS) + "\n", {"a": "number"}),
    "names that are 0, 1, 2": (table(NUMBERS, B, C, names="012"), {"0": "number", "1": "number", "2": "number"}),
    "pandas' own index": (
        table(list(map(str, RANGE)), NUMBERS, B, names=["", "0", "1"]),
        {"column 1": "identifier", "0": "number", "1": "number"},
    ),
    "names that are 0, 1, 2 over whole numbers": (
        table(texts("3", "4", "7"), texts("0", "1"), texts("5", "8", "9"), names="012"),
        {"0": "ordinal", "1": "yes/no", "2": "ordinal"},
    ),
    "names that are years": (
        table(NUMBERS, B, C, names=["name", "2019", "2020"]), {"name": "number", "2019": "number", "2020": "number"},
    ),
    "names that are years alone": (table(NUMBERS, B, names=["2019", "2020"]), {"2019": "number", "2020": "number"}),
    "no names": (table(NUMBERS, texts("no", "yes")), {"column 1": "number", "column 2": "yes/no"}),
    "no names, whole numbers": (
        table(texts("0", "1"), texts("1", "0", "0")), {"column 1": "yes/no", "column 2": "yes/no"},
    ),
    "no names, texts alone": (
        table(texts("f", "m"), texts("red", "blue", "green")), {"column 1": "yes/no", "column 2": "category"},
    ),
    "names of rows, as R writes them": (
        table(*([str(i) for i in range(1, NUM + 1)], NUMBERS, B)).replace("", "a,b\n", 1),
        {"column 1": "identifier", "a": "number", "b": "number"},
    ),
    "ordered grades": (table(NUMBERS, texts("3", "4", "5"), names=["a", "grade"]), {"a": "number", "grade": "ordinal"}),
    "a rare class": (table(NUMBERS, ["1", *texts("0")[1:]], names=["a", "cls"]), {"a": "number", "cls": "yes/no"}),
    "semicolons": (table(NUMBERS, B, C, names="abc", separator=";"), HEADED),
    "tabs": (table(NUMBERS, B, C, names="abc", separator="\t"), HEADED),
    "bars": (table(NUMBERS, B, C, names="abc", separator="|"), HEADED),
    "spaces": (table(NUMBERS, B, C, names="abc", separator="   "), HEADED),
    "spaces after commas": (
        table(NUMBERS, texts("A11", "A12", "A13"), separator=", "), {"column 1": "number", "column 2": "category"},
    ),
    "decimal commas": (table(NUMBERS, B, C, names="abc", separator=";").replace(".", ","), HEADED),
    "decimal commas without names": (
        table(NUMBERS, B, separator=";").replace(".", ","), {"column 1": "number", "column 2": "number"},
    ),
    "decimal commas in quotes": (
        "a,b\n" + "".join(f'"{a}","{b}"\n'.replace(".", ",") for a, b in zip(NUMBERS, B, strict=True)),
        {"a": "number", "b": "number"},
    ),
    "thousands": (
        table([f'"{i + 1:,}"' for i in range(0, 400 * NUM, 400)], B, names="ab"), {"a": "count", "b": "number"},
    ),
    "texts with separators": (
        table(texts('"a, b; c"', '"d; e, f"', '"g"'), B, names="tb"), {"t": "category", "b": "number"},
    ),
    "lists in cells": (table(NUMBERS, texts("x;y", "y;z", "z;x"), names="at"), {"a": "number", "t": "category"}),
    "Windows' ends of lines": (table(NUMBERS, B, C, names="abc").replace("\n", "\r\n"), HEADED),
    "a mark of UTF-8": ("\ufeff" + table(NUMBERS, B, C, names="abc"), HEADED),
    "a mark of UTF-8 before a number": (
        "\ufeff" + table(NUMBERS, B), {"column 1": "number", "column 2": "number"},
    ),
    "UTF-16": (table(NUMBERS, B, C, names="abc").encode("utf-16"), HEADED),
    "Latin-1": (table(NUMBERS, B, names=["größe", "höhe"]).encode("latin-1"), {"größe": "number", "höhe": "number"}),
    "Windows' own signs": (table(NUMBERS, B, names=["€", "b"]).encode("cp1252"), {"€": "number", "b": "number"}),
    "bytes that Windows has no sign for": (
        table(NUMBERS, B, names=["\x81", "b"]).encode("latin-1"), {"\x81": "number", "b": "number"},
    ),
    "empty lines": ("\n\n" + table(NUMBERS, B, C, names="abc").replace("\n", "\n\n"), HEADED),
    "unix times": (
        table([str(1_614_556_800 + 10 * i) for i in RANGE], B, names=["time", "b"]),
        {"time": "number", "b": "number"},
    ),
    "twelve rows": (table(NUMBERS[:12], B[:12], C[:12], names="abc"), HEADED),
    "columns of blanks": (
        table(NUMBERS, texts(""), texts("NA"), names="abc"), {"a": "number", "b": "constant", "c": "constant"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_tables_in_files_are_read_for_what_they_are(name, tmp_path):
    content, expected = FILES[name]
    frame, form = read(tmp_path, content)
    schema = find_schema(frame, form=form)
    assert kinds(schema) == expected
    cells, back = there_and_back(frame, schema)
    pandas.testing.assert_frame_equal(*(f.replace(["NA", "null", "#N/A", "-"], "?") for f in (cells, back)))
    again, form_again = read(tmp_path, as_bytes(back, schema), "again.csv")
    assert form_again == form
    pandas.testing.assert_frame_equal(again, back)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\n\n  \n", "all lines are blank"),
        ("a,b\n", "rows below the names"),
        ("a,b\n1,2\n3\n", "line 3 has 1, not 2"),
        ("a,b\n1,2\n3,4,5\n", "line 2 has 2, not 3"),
        ("a,b\n" + "1,2\n" * 20_000 + "3,4,5\n1,2\n", "line 20002 has 3, not 2"),
        ("a,b\n" + "1,2\n" * 20_000 + "3\n", "line 20002 has 1, not 2"),
        ('a,b\n"1,2",3\n"4",5\n"6,7"\n', "line 4 has 1, not 2"),
        ('a,b\n1,2\n"3,4\n', "as many cells in each row, but line 3 has 1, not 2"),
        ("# made by hand\na,b\n1,2\n3,4\n", "line 1 has 1, not 2"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "bytes of zero"),
        (b"\xff\xfe\x00\xd8a", "no text in utf-16"),
        (",".join("a" * 20_000) + "\n", "at most 16,384 columns"),
    ],
)  # fmt: skip
def test_files_that_are_no_table_are_refused_in_a_line(content, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("data='table.csv': expected")


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.bz2", ".csv.xz", ".zip"])
def test_packed_tables_are_read(ending, tmp_path):
    text, path = table(NUMBERS, B, names="ab").encode(), tmp_path / f"table{ending}"
    pack = {".csv.gz": gzip.compress, ".csv.bz2": bz2.compress, ".csv.xz": lzma.compress}.get(ending)
    if pack:
        path.write_bytes(pack(text))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("table.csv", text)
    frame, _ = read_frame("table", path)
    assert frame["a"].tolist() == NUMBERS
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="data='table': expected a packed table, but it doesn't unpack"):
        read_frame("table", path)


def test_a_zip_holds_one_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "a\n1\n")
        archive.writestr("b.csv", "a\n1\n")
    with pytest.raises(ValueError, match=r"one file in the \.zip, got 2"):
        read_frame("two", tmp_path / "two.zip")


def test_what_would_not_fit_in_memory_is_refused_before_it_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("pyro_vae.machine.memory.physical_memory", lambda: 2**22)
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"1,2\n" * 2**20))
    assert path.stat().st_size < 2**16
    with pytest.raises(ValueError, match="a quarter of this machine's memory"):
        read_frame("bomb", path)
    path.write_bytes(gzip.compress(bytes(2**21)))
    with pytest.raises(ValueError, match="a quarter of this machine's memory"):
        read_frame("bomb", path)
    with pytest.raises(ValueError, match="a quarter of this machine's memory"):  # many cells in few bytes
        read(tmp_path, ("," * 100 + "\n") * 1000)


def test_empty_lines_are_blanks_of_a_table_with_one_column(tmp_path):
    frame, _ = read(tmp_path, "a\n\n1.5\n\n\n2.5\n\n")
    assert frame["a"].tolist() == ["", "1.5", "", "", "2.5"]


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ValueError, match="a pipe"):
        read_frame("pipe", tmp_path / "pipe.csv")


def test_known_names_tell_a_line_of_names_from_one_of_values(tmp_path):
    (tmp_path / "one.csv").write_text("red,f\n")
    (tmp_path / "two.csv").write_text("0,sex\nred,f\n")
    assert read_frame("one", tmp_path / "one.csv", names=["column 1", "column 2"])[0].shape == (1, 2)
    assert list(read_frame("two", tmp_path / "two.csv", names=["sex", "age"])[0].columns) == ["0", "sex"]


def test_names_that_occur_again_are_told_apart_and_said(tmp_path):
    with pytest.warns(UserWarning, match=r"'age' is 'age\.2'"):
        frame, _ = read(tmp_path, table(NUMBERS, B, C, names=["age", "age", "age.1"]))
    assert list(frame.columns) == ["age", "age.2", "age.1"]


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_parquet_and_feather_come_back_with_their_types(kind, tmp_path):
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({
        "i": RANGE * 3, "f": np.linspace(-1, 1, NUM, dtype="float32"), "blank": [None, *RANGE[1:] / 4],
        "Int64": pandas.Series([None, *(3 * RANGE[1:])], dtype="Int64"), "flag": RANGE % 2 == 0,
        "text": texts("a", "b", None, "c"), "category": pandas.Series(texts("a", "b", "c"), dtype="category"),
        "day": pandas.date_range("2021-03-01", periods=NUM, tz="Europe/Berlin"),
    })  # fmt: skip
    getattr(frame, f"to_{kind}")(tmp_path / f"table.{kind}")
    read_back, form = read_frame("table", tmp_path / f"table.{kind}")
    schema = find_schema(read_back, form=form)
    cells, back = there_and_back(read_back, schema)
    pandas.testing.assert_frame_equal(cells, back)
    (tmp_path / f"again.{kind}").write_bytes(as_bytes(back, schema))
    pandas.testing.assert_frame_equal(read_frame("again", tmp_path / f"again.{kind}")[0], back)


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_parquet_that_is_none_is_refused(kind, tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / f"table.{kind}").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(ValueError, match=f"expected {kind}, but it does not read as it"):
        read_frame("table", tmp_path / f"table.{kind}")


def test_without_pyarrow_parquet_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"python -m pip install 'pyro-vae\[parquet\]', or save as CSV"):
        read_frame("table", tmp_path / "table.parquet")


def test_parquet_that_would_not_fit_in_memory_is_refused_before_it_is_taken(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    path = tmp_path / "bomb.parquet"
    pandas.DataFrame({"a": np.zeros(2**20)}).to_parquet(path)
    assert path.stat().st_size < 2**16
    monkeypatch.setattr("pyro_vae.machine.memory.physical_memory", lambda: 2**22)
    with pytest.raises(ValueError, match="a quarter of this machine's memory"):
        read_frame("bomb", path)


@pytest.mark.parametrize(("lowest", "written"), [("0.50", "0.50"), ("0.00", "0.00"), ("-0.50", "-7.00")])
def test_no_number_is_written_below_zero_where_none_was_seen_there(lowest, written):
    frame = pandas.DataFrame({"income": [lowest, *(f"{value}.25" for value in range(1, NUM))]})
    schema = find_schema(frame)
    (column,) = schema.columns
    made = schema.decode(torch.tensor([[(-7.0 - column.loc) / column.scale]], dtype=torch.float64))
    assert made["income"].tolist() == [written]
