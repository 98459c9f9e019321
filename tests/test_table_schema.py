"""What the columns of a table are taken for, and that their values come back as they were."""

import datetime
import json
from decimal import Decimal

import numpy as np
import pandas
import pytest
import torch

from pyro_vae.data import from_frame
from pyro_vae.data.tables import Column, Form, Schema, as_bytes, find_schema, read_frame
from pyro_vae.data.tables.dates import find_format
from pyro_vae.data.tables.kinds import centre
from pyro_vae.runs.opening import Examples
from tests.tables import NUM, NUMBERS, RANGE, kinds, texts, there_and_back

GENERATOR = np.random.default_rng(1)

# Of each kind the cells of a text, what they are taken for, and how they are written.
TEXTS = {
    "decimals": (NUMBERS, "number", ".4f"),
    "decimals without zeros": (texts(*(f"{i / 20:.2f}".rstrip("0").rstrip(".") for i in RANGE)), "number", ".0-2f"),
    "decimals as Python has them": (texts(*(str(i / 4) for i in range(17))), "number", ".1-2f"),
    "whole numbers": (texts(*(str(i) for i in range(-20, 17))), "number", ".0f"),
    "counts": (texts(*(str(i * i) for i in range(17))), "count", ".0f"),
    "thousands": (texts(*(f"{1234 * i:,}" for i in range(1, 17))), "count", ",.0f"),
    "signs": (texts(*(f"{i - 8.5:+.1f}" for i in range(17))), "number", "+.1f"),
    "powers of ten": (texts(*(f"{10.0**i:.2e}" for i in range(-1, 5))), "number", ".2e"),
    "some powers of ten": (texts(*(str(float(f"1.5e{i}")) for i in range(-8, 4))), "number", ".2r"),
    "large offsets": ([str(10**15 + 7 * i) for i in RANGE], "number", ".0f"),
    "large offsets with decimals": ([f"{10**12 + i / 4:.2f}" for i in RANGE], "number", ".2f"),
    "nanoseconds": ([str(1_614_556_800_000_000_001 + 10**9 * i) for i in RANGE], "number", ".0f"),
    "small numbers": ([f"{i * 1e-12:.14f}" for i in RANGE], "number", ".14f"),
    "yes and no": (texts("no", "yes"), "yes/no", None),
    "true and false": (texts("TRUE", "FALSE", "TRUE"), "yes/no", None),
    "t and f": (texts("t", "f"), "yes/no", None),
    "0 and 1": (texts("0", "1"), "yes/no", None),
    "categories": (texts("red", "green", "blue", "none"), "category", None),
    "one cell of a category": (["seldom", *texts("red", "green", "blue")[1:]], "category", None),
    "codes with zeros before": (texts("01234", "00815", "90210"), "category", None),
    "grades": (texts("1", "2", "5"), "ordinal", None),
    "grades with decimals": (texts("0.5", "1.0", "12.25"), "ordinal", None),
    "constants": (texts("7.00"), "constant", None),
    "blanks": (texts(""), "constant", None),
    "ISO dates": ([f"{2000 + i}-02-{1 + i % 28:02d}" for i in RANGE], "date", "%Y-%m-%d"),
    "German dates": ([f"{1 + i % 28}.2.{2000 + i}" for i in RANGE], "date", "%-d.%-m.%Y"),
    "American dates": ([f"{1 + i % 12:02d}/{28 - i % 28:02d}/{2000 + i}" for i in RANGE], "date", "%m/%d/%Y"),
    "British dates": ([f"{28 - i % 28:02d}/{1 + i % 12:02d}/{2000 + i}" for i in RANGE], "date", "%d/%m/%Y"),
    "dates in eight digits": ([f"{1960 + i}0{1 + i % 9}{10 + i % 19}" for i in RANGE], "date", "%Y%m%d"),
    "months": ([f"{2000 + i // 12}-{1 + i % 12:02d}" for i in RANGE], "date", "%Y-%m"),
    "dates in words": (texts("3-Feb-2021", "14-Mar-2021", "29-Feb-2020"), "date", "%-d-%b-%Y"),
    "early and late dates": (texts("0001-01-01", "2021-03-01", "9999-12-31"), "date", "%Y-%m-%d"),
    "times of a day": ([f"{i % 24:02d}:{(7 * i) % 60:02d}" for i in RANGE], "date", "%H:%M"),
    "moments": ([f"2021-03-01 00:{i:02d}:{i:02d}" for i in RANGE], "date", "%Y-%m-%d %H:%M:%S"),
    "moments in UTC": ([f"2021-03-01T00:{i:02d}:{i:02d}Z" for i in RANGE], "date", "%Y-%m-%dT%H:%M:%SZ"),
    "moments of an offset": ([f"2021-03-01T00:{i:02d}+01:00" for i in RANGE], "date", "%Y-%m-%dT%H:%M+01:00"),
    "milliseconds": ([f"2021-03-01 00:00:{i:02d}.{i:02d}5" for i in RANGE], "date", "%Y-%m-%d %H:%M:%S.%3f"),
    "half days": ([f"3/{1 + i % 9}/21 {1 + i % 12}:05 {'AP'[i % 2]}M" for i in RANGE], "date", "%-m/%-d/%y %-I:%M %p"),
}  # fmt: skip


@pytest.mark.parametrize("blank", [None, "", "NA", "?"])
@pytest.mark.parametrize("name", TEXTS)
def test_texts_come_back_to_the_letter(name, blank, tmp_path):
    cells, kind, format = TEXTS[name]
    cells = cells if blank is None else [blank if i in (3, 7) else cell for i, cell in enumerate(cells)]
    frame = pandas.DataFrame({"other": NUMBERS, "x": cells})
    schema = find_schema(frame, form=Form("csv"))
    column = schema.columns[1]
    assert (column.kind, column.format) == (kind, format)
    if blank is not None and kind != "constant":
        assert (column.blank, column.blanks) == (blank, 2 / NUM)
        assert schema.encode(frame).isnan().sum() == 2
    frame, back = there_and_back(frame, schema)
    if kind == "constant":  # blanks of a constant are filled
        frame = frame.assign(x=cells[0])
    pandas.testing.assert_frame_equal(frame, back)
    assert Schema.from_dict(json.loads(json.dumps(schema.as_dict()))) == schema


def some_times(unit="ns", zone=None):
    days = pandas.Series(pandas.date_range("1950-01-01", periods=NUM, freq="30D", tz=zone))
    return days.astype(f"datetime64[{unit}{f', {zone}' if zone else ''}]")


TYPES = {
    "int64": (pandas.Series(RANGE * 3 - 7), "number"),
    "int8": (pandas.Series(RANGE - 20, dtype="int8"), "number"),
    "uint8": (pandas.Series(RANGE % 23, dtype="uint8"), "count"),
    "uint64": (pandas.Series(RANGE.astype("uint64") * 5 + 2**60), "number"),
    "large int64": (pandas.Series(1_614_556_800_000_000_001 + 7 * RANGE), "number"),
    "float64 of whole numbers": (pandas.Series([*(RANGE[:-1] // 3 * 1.0), np.nan]), "count"),
    "float64 of two decimals": (pandas.Series(np.round(RANGE * 0.07, 2)), "number"),
    "float32": (pandas.Series(RANGE * 0.1, dtype="float32"), "number"),
    "ordinal floats": (pandas.Series(RANGE % 3 * 0.5), "ordinal"),
    "ordinal int16": (pandas.Series(RANGE % 4, dtype="int16"), "ordinal"),
    "0 and 1": (pandas.Series(RANGE % 2), "yes/no"),
    "bool": (pandas.Series(RANGE % 2 == 0), "yes/no"),
    "boolean": (pandas.Series([None, *(RANGE[1:] % 2 == 0)], dtype="boolean"), "yes/no"),
    "Int64": (pandas.Series([None, *RANGE[1:]], dtype="Int64") * 3 - 50, "number"),
    "Int64 of counts": (pandas.Series([None, *(RANGE[1:] // 2)], dtype="Int64"), "count"),
    "large Int64": (pandas.Series([None, *(2**60 + 3 * RANGE[1:])], dtype="Int64"), "number"),
    "Float64": (pandas.Series([None, *(RANGE[1:] / 8)], dtype="Float64"), "number"),
    "objects of text": (pandas.Series(texts("a", "b", None, "c"), dtype=object), "category"),
    "string": (pandas.Series(texts("a", "b", None, "c"), dtype="string"), "category"),
    "str": (pandas.Series(texts("a", "b", None, "c"), dtype="str"), "category"),
    "text of numbers": (pandas.Series(["1.50", None, *(f"{i / 4:.2f}" for i in RANGE[2:])], dtype="string"), "number"),
    "category": (pandas.Series(texts("a", "b", None, "c"), dtype="category"), "category"),
    "category with one that is never": (
        pandas.Series(pandas.Categorical(texts("a", "b", "c"), categories=["b", "a", "d", "c"])), "category",
    ),
    "category of two": (pandas.Series(texts("a", "b"), dtype="category"), "yes/no"),
    "category of one": (pandas.Series(texts("a"), dtype="category"), "constant"),
    "category in order": (
        pandas.Series(pandas.Categorical(texts("low", "mid", "high"), categories=["low", "mid", "high"], ordered=True)),
        "ordinal",
    ),
    "category of numbers": (pandas.Series(RANGE % 3 * 10, dtype="category"), "category"),
    "category of floats": (pandas.Series(RANGE % 3 / 2, dtype="category"), "category"),
    "category of booleans": (pandas.Series(RANGE % 2 == 0, dtype="category"), "yes/no"),
    "datetime64[ns]": (some_times(), "date"),
    "datetime64[s]": (some_times("s"), "date"),
    "datetime64[us] with times": (some_times("us") + pandas.Timedelta(1.25, "s") * pandas.Series(RANGE), "date"),
    "datetime64 with blanks": (some_times().mask(RANGE % 7 == 0), "date"),
    "datetime64 with a zone": (some_times("ns", "Europe/Berlin"), "date"),
    "timedelta64": (pandas.Series(pandas.to_timedelta(RANGE * 90, unit="s")), "number"),
    "constant int64": (pandas.Series(RANGE * 0 + 3), "constant"),
    "constant bool": (pandas.Series(RANGE > -1), "constant"),
    "constant text": (pandas.Series(texts("a")), "constant"),
    "constant datetime64": (pandas.Series(pandas.to_datetime(texts("2021-03-01"))), "constant"),
    "nothing but blanks": (pandas.Series([np.nan] * NUM), "constant"),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_types_come_back_as_they_were(name):
    series, kind = TYPES[name]
    frame = pandas.DataFrame({"other": np.linspace(-1, 1, NUM), "x": series})
    schema = find_schema(frame)
    assert kinds(schema)["x"] == kind
    pandas.testing.assert_frame_equal(*there_and_back(frame, schema), rtol=1e-6, atol=1e-6)
    pandas.testing.assert_series_equal(*(f["x"] for f in there_and_back(frame, schema)))
    assert Schema.from_dict(json.loads(json.dumps(schema.as_dict()))) == schema


@pytest.mark.parametrize(
    ("objects", "kind", "dtype"),
    [
        ([Decimal(i) / 4 for i in range(NUM)], "number", "float64"),
        ([datetime.date(2021, 1 + i % 12, 1 + i % 28) for i in range(NUM)], "date", "datetime64"),
        ([None, *texts(*range(17), num=NUM - 1)], "count", "float64"),
        ([None, *texts(True, False, num=NUM - 1)], "yes/no", "boolean"),
        (texts(1, "a", 2.5), "category", ("object", "str")),
    ],
)
def test_objects_of_python_are_taken_for_what_they_are(objects, kind, dtype):
    frame = pandas.DataFrame({"x": pandas.Series(objects, dtype=object)})
    schema = find_schema(frame)
    assert kinds(schema) == {"x": kind}
    assert str(schema.decode(schema.encode(frame))["x"].dtype).startswith(dtype)


@pytest.mark.parametrize(
    ("cells", "kind", "num_blank"),
    [
        ([f"K{i}" for i in RANGE], "identifier", 0),
        ([f"Of guest {i} nothing is known." for i in RANGE], "text", 0),
        (list(map(str, RANGE)), "identifier", 0),
        (list(map(str, NUM - RANGE)), "identifier", 0),
        (list(map(str, RANGE + 1990)), "number", 0),
        (list(map(str, RANGE // 2)), "count", 0),
        (texts("a", "b", "c", num=7) + texts("", num=NUM - 7), "category", NUM - 7),
        (texts(*(f"K{i}" for i in range(150)), num=1500), "category", 0),
        (texts(*(f"K{i}" for i in range(150)), num=1499), "identifier", 0),
        ([*texts("3", "4", "5", "8", "9", num=NUM - 1), "oops"], "count", 1),
        ([*texts("3", "4", "5", "8", "9", num=NUM - 3), "?", "?", "oops"], "count", 3),
        ([*texts("3", "4", "5", "8", "9", num=NUM - 2), "oops", "what"], "category", 0),
        ([*texts("0", "1", num=NUM - 3), "-", "?", "?"], "yes/no", 3),
        ([*texts("0.5", "1.0", "2.0", num=NUM - 3), "-", "?", "?"], "ordinal", 3),
        ([*texts("a", "b", "-", num=NUM - 1), "none"], "category", 0),
    ],
)  # fmt: skip
def test_rules_tell_kinds_apart(cells, kind, num_blank):
    frame = pandas.DataFrame({"x": cells, "other": texts(*NUMBERS, num=len(cells))})
    schema = find_schema(frame)
    assert kinds(schema)["x"] == kind
    assert schema.encode(frame).isnan().sum() == num_blank


@pytest.mark.parametrize("name", ["id", "PassengerId", "customer_id", "Unnamed: 0", "customerID"])
def test_whole_numbers_that_differ_are_identifiers_by_their_name(name):
    cells = [str(7 * i % 1009 + 12) for i in RANGE]
    assert kinds(find_schema(pandas.DataFrame({name: cells, "acid": cells}))) == {name: "identifier", "acid": "count"}


def test_kinds_that_are_wanted_are_taken():
    frame = pandas.DataFrame({
        "grade": texts("1", "2", "5"), "size": texts("small", "large", "mid"), "day": texts("01/02/2021", "03/04/2021"),
        "plain": NUMBERS, "number": list(map(str, RANGE)),
    })  # fmt: skip
    wanted = {
        "grade": "category",
        "size": "ordinal:small<mid<large",
        "day": "date:%d/%m/%Y",
        "plain": "text",
        "number": "count",
    }
    schema = find_schema(frame, wanted=wanted, form=Form("csv"))
    assert kinds(schema) == {name: kind.partition(":")[0] for name, kind in wanted.items()}
    assert schema.columns[1].categories == ("small", "mid", "large")
    assert schema.columns[2].format == "%d/%m/%Y"
    pandas.testing.assert_frame_equal(*there_and_back(frame, schema))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"z": "count"}, "the name of a column, one of x, y, got 'z'"),
        ({"x": "colour"}, "x=colour: expected one of number, count"),
        ({"x": "count"}, "x=count: expected whole numbers from 0 up, got '0.1257'"),
        ({"y": "number"}, "y=number: expected numbers, got 'a'"),
        ({"y": "date"}, "y=date: expected dates in one format, got 'a'"),
        ({"y": "yes/no"}, "y=yes/no: expected 2 values, got 3"),
        ({"y": "constant"}, "y=constant: expected one value, got 3"),
        ({"y": "ordinal"}, "y=ordinal: expected an order of texts"),
        ({"y": "ordinal:a<b"}, "expected all values, but not 'c'"),
        ({"y": "number:a"}, "expected ordinal:low<middle<high"),
        ({"y": "date:%Q"}, "date:%d/%m/%Y with a format"),
        ({"x": "text", "y": "text"}, "expected a column to model, but 'x' is set aside"),
    ],
)
def test_kinds_that_can_not_be_are_refused(wanted, message):
    frame = pandas.DataFrame({"x": NUMBERS, "y": texts("a", "b", "c")})
    with pytest.raises(ValueError, match=message):
        find_schema(frame, wanted=wanted)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ([[1, 2]], "expected a pandas.DataFrame, got list"),
        (pandas.DataFrame({"a": []}), "expected rows and columns, got 0 rows"),
        (pandas.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are called 'a'"),
        (pandas.DataFrame({"a": [1.5, np.inf, 2.5]}), "'a': expected finite numbers, but in row 2 stands 'inf'"),
        (pandas.DataFrame({"a": ["1.5", "2.5", "-inf"]}), "'a': expected finite numbers, but in row 3 stands '-inf'"),
        (pandas.DataFrame({"a": [1 + 2j, 3j]}), "'a': expected numbers, dates, categories or text, got complex"),
        (pandas.DataFrame({"a": [1.5, 1.5]}), "'a' is set aside: all values are '1.5'"),
    ],
)
def test_frames_that_can_not_be_are_refused(frame, message):
    with pytest.raises(ValueError, match=message):
        find_schema(frame)


def small():
    frame = pandas.DataFrame({"id": [f"K{i}" for i in RANGE], "n": NUMBERS, "c": texts("a", "b", "c")})
    return frame, find_schema(frame, form=Form("csv"))


def test_neighbours_in_the_tensor_share_a_likelihood():
    frame = pandas.DataFrame({
        "five": texts(*"abcde"), "flag": texts("no", "yes"), "n": NUMBERS, "three": texts(*"abc"),
        "grade": texts("1", "2", "3"), "other": texts("f", "m"), "k": texts("x"), "also": texts(*"xyz"),
    })  # fmt: skip
    schema = find_schema(frame)
    assert [column.name for column in schema.modelled] == ["n", "grade", "flag", "other", "three", "also", "five"]
    assert schema.encode(frame)[0, 2:].tolist() == [0, 0, 0, 0, 0]
    assert list(schema.decode(schema.encode(frame)).columns) == list(frame.columns)


def test_columns_are_found_by_their_names():
    frame, schema = small()
    x = schema.encode(frame)
    assert torch.equal(schema.encode(frame[["c", "n"]]), x)
    with pytest.warns(UserWarning, match="more: no such column is known"):
        assert torch.equal(schema.encode(frame.assign(more=1)), x)
    with pytest.raises(ValueError, match="expected a column 'n', but its columns are id, c"):
        schema.encode(frame[["id", "c"]])


def test_values_that_are_unknown_are_refused_or_blank():
    frame, schema = small()
    for name, value, expected in (
        ("c", "d", "one of a, b, c"),
        ("c", "none", "one of a, b, c"),
        ("n", "1e40", "numbers"),
        ("n", "x", "numbers"),
    ):
        other = frame.copy()
        other.loc[2, name] = value
        with pytest.raises(ValueError, match=f"column '{name}': expected {expected}.*in row 3 stands '{value}'"):
            schema.encode(other)
        assert schema.encode(other, strict=False).isnan().nonzero()[:, 0].tolist() == [2]


def test_typed_values_are_taken_for_those_of_a_text():
    frame = pandas.DataFrame({
        "n": NUMBERS, "grade": texts("1", "2", "5"), "flag": texts("False", "True"), "c": texts("a", "b", ""),
        "day": [f"2021-03-{1 + i % 28:02d}" for i in RANGE], "half": texts("0.50", "1.00", "1.50"),
    })  # fmt: skip
    schema = find_schema(frame, form=Form("csv"))
    typed = pandas.DataFrame({
        "n": frame["n"].astype(float), "grade": frame["grade"].astype(float), "flag": frame["flag"] == "True",
        "c": frame["c"].replace("", None).astype("category"), "day": pandas.to_datetime(frame["day"]),
        "half": frame["half"].astype("Float64"),
    })  # fmt: skip
    torch.testing.assert_close(schema.encode(typed), schema.encode(frame), equal_nan=True, rtol=0, atol=0)


def test_numbers_are_centred_before_they_are_rounded_to_32_bits():
    frame = pandas.DataFrame({"time": [str(1_614_556_800_123 + i) for i in RANGE], "b": NUMBERS})
    schema = find_schema(frame)
    x = schema.encode(frame)[:, 0].double()
    torch.testing.assert_close(
        x.diff(), torch.full((NUM - 1,), 1 / schema.columns[0].scale, dtype=torch.float64), rtol=1e-4, atol=0
    )
    assert abs(x.mean()) < 0.1
    assert x.std(correction=0) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e9, 1e200])
@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_what_the_model_sees_depends_on_no_unit(scale, shift):
    own = GENERATOR.normal(size=200)
    frame = pandas.DataFrame({"x": (own + shift) * scale})
    column = find_schema(frame).columns[0]
    assert column.kind == "number"
    x = find_schema(frame).encode(frame, dtype=torch.float64)[:, 0]
    torch.testing.assert_close(x, (torch.tensor(own) - own.mean()) / own.std(), rtol=1e-6, atol=1e-6)


def test_values_lie_on_the_coarsest_grid():
    for cells, step in (
        ([f"{25 * i}" for i in RANGE], 25),
        ([f"{i / 4:.2f}" for i in RANGE], 0.25),
        (["3", "10", "17"], 1),
    ):
        frame = pandas.DataFrame({"x": cells})
        schema = find_schema(frame)
        column = schema.columns[0]
        assert column.step == step
        grid = schema.encode(frame, dtype=torch.float64) * column.scale / step
        torch.testing.assert_close(grid, grid.round(), atol=1e-9, rtol=0)
        between = schema.decode(schema.encode(frame) + 0.4 * step / column.scale)
        pandas.testing.assert_frame_equal(between, frame)


def test_moments_are_rounded_to_what_is_written():
    cells = [f"{2000 + i % 20}-0{1 + i % 9}-11 0{i % 10}:{i:02d}:{59 - i:02d}" for i in RANGE]
    frame = pandas.DataFrame({"x": cells})
    schema = find_schema(frame)
    assert schema.columns[0].step is None  # a second is little in twenty years
    pandas.testing.assert_frame_equal(*there_and_back(frame, schema, torch.float64))


def test_decimals_of_a_computation_are_not_written():
    cells = ["0.1", "8.3945900000000009", *texts("7.25", "8.5", "9.125", num=NUM - 2)]
    frame = pandas.DataFrame({"x": [*cells, *NUMBERS]})
    schema = find_schema(frame)
    assert schema.columns[0].format == ".1-6f"
    assert schema.decode(schema.encode(frame))["x"].tolist()[:3] == ["0.1", "8.39459", "7.25"]


def test_few_values_decide_neither_middle_nor_width():
    values = np.append(GENERATOR.normal(size=999), 1e12)
    loc, scale = centre(values, np.ones(1000, dtype=int))
    assert loc == pytest.approx(np.median(values), abs=0.01)
    assert scale == pytest.approx(1, abs=0.1)


def test_samples_stay_within_bounds_and_types():
    frame = pandas.DataFrame({
        "count": pandas.Series(RANGE // 2, dtype="uint8"), "grade": RANGE % 3, "flag": RANGE % 2 == 0,
        "c": texts(*"abc"), "day": some_times(), "hour": [f"{i % 24:02d}:30" for i in RANGE],
    })  # fmt: skip
    frame["small"] = pandas.Series(RANGE * 3 - 50, dtype="int8")
    schema = find_schema(frame)
    assert schema.decode(torch.full((1, len(schema.modelled)), 5.0))["hour"][0] == "23:59"
    for extreme in (-1e12, 1e12):
        row = schema.decode(torch.full((1, len(schema.modelled)), extreme)).iloc[0]
        assert row["count"] in (0, 255)
        assert row["grade"] in (0, 2)
        assert row["small"] in (-128, 127)
        assert row["flag"] in (True, False)
        assert row["c"] in ("a", "c")
        assert row["hour"] in ("00:00", "23:59")


def test_blanks_come_out_as_blanks_even_where_there_were_none():
    frame = pandas.DataFrame(
        {"i": RANGE * 3, "f": RANGE / 3, "b": RANGE % 2 == 0, "d": some_times(), "c": texts(*"abc")}
    )
    schema = find_schema(frame)
    back = schema.decode(torch.full((2, 5), torch.nan))
    assert back.isna().all().all()
    as_csv = small()[1]
    assert as_csv.decode(torch.full((1, 2), torch.nan)).iloc[0].tolist() == ["", ""]


def test_columns_called_by_numbers_stay_so():
    frame = pandas.DataFrame(GENERATOR.normal(size=(NUM, 2)).round(3))
    schema = find_schema(frame)
    pandas.testing.assert_frame_equal(*there_and_back(frame, schema))


STRANGE = {
    "no mapping": ([], "expected facts by name"),
    "no columns": ({"columns": [], "form": {}}, "from 1 to 16,384"),
    "names that are the same": (
        {"columns": [{"name": "a", "kind": "text", "dtype": "str"}] * 2, "form": {}},
        "1 names",
    ),
    "a file of another kind": (
        {"columns": [{"name": "a", "kind": "text", "dtype": "str"}], "form": {"file": "pickle"}},
        "file",
    ),
    "facts that are unknown": (
        {"columns": [{"name": "a", "kind": "text", "dtype": "str", "z": 1}], "form": {}},
        "none of z",
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_schemas_of_strangers_are_checked(name):
    facts, message = STRANGE[name]
    with pytest.raises(ValueError, match=message):
        Schema.from_dict(facts)


@pytest.mark.parametrize(
    "fact",
    [
        {"kind": "magic"}, {"dtype": "pickle"}, {"dtype": "datetime64[ns, x.y]"}, {"scale": 0.0},
        {"kind": "date", "format": "%Y", "dtype": "datetime64[ns, dateutil//etc/passwd]"},
        {"scale": float("nan")}, {"loc": float("inf")}, {"step": -1.0}, {"low": 2.0, "high": 1.0}, {"loc": 10**400},
        {"format": ".99f"}, {"format": "%s"}, {"format": 3}, {"low": 10**400}, {"blanks": 2.0}, {"seen": [1.0]},
        {"kind": "category", "categories": ["a"]}, {"kind": "category", "categories": [1, 2]},
        {"kind": "category", "categories": ["a", "a"]}, {"kind": "yes/no", "categories": ["a", "b", "c"]},
        {"kind": "category", "categories": [str(i) for i in range(2**16)]}, {"name": "n" * 10_000},
        {"kind": "date", "format": "%x%c"}, {"kind": "date"}, {"kind": "date", "format": "%Y", "dtype": "int64"},
        {"kind": "constant", "categories": ["a", "b"], "value": "c"}, {"kind": "number", "dtype": "category[str]"},
    ],
    ids=repr,
)  # fmt: skip
def test_columns_of_strangers_are_checked(fact):
    good = {"name": "a", "kind": "number", "dtype": "float64"}
    assert Column.from_dict(good).kind == "number"
    with pytest.raises(ValueError, match="column") as caught:
        Column.from_dict(good | fact)
    assert len(str(caught.value)) < 400


def test_a_schema_is_shown_as_lines():
    frame = pandas.DataFrame({
        "age": [*(str(20 + i) for i in range(NUM - 1)), "?"], "colour": texts("red", "green", "blue"),
        "name": [f"K{i}" for i in RANGE], "day": [f"2021-03-{1 + i % 28:02d}" for i in RANGE],
    })  # fmt: skip
    lines = find_schema(frame, form=Form("csv")).describe()
    assert lines == [
        "age     count       20 to 58, 2.5 % blank ('?')",
        "colour  category    3: blue, green, red",
        "name    identifier  set aside: 40 values in 40 cells, such as 'K0'",
        "day     date        2021-03-01 to 2021-03-28, written %Y-%m-%d",
    ]


def test_offsets_that_change_with_summer_are_brought_to_utc():
    cells = [f"2021-0{3 + i % 2}-27T12:00:00+0{1 + i % 2}:00" for i in RANGE]
    assert find_format(cells) == "%Y-%m-%dT%H:%M:%S%z"
    frame = pandas.DataFrame({"x": cells, "other": NUMBERS})
    back = find_schema(frame).decode(find_schema(frame).encode(frame))
    assert (pandas.to_datetime(back["x"], utc=True) == pandas.to_datetime(frame["x"], utc=True)).all()


SPACES = {
    "a space behind each separator": ("a, b, n\n1, yes, x y\n2, no, z\n3, , x y\n", ["yes", "no"], True),
    "quotes behind a space": ('a, b, n\n1, "yes, or", x\n2, no, y\n3, , x\n', ["yes, or", "no"], True),
    "some cells alone": ("a,b,n\n1, yes,x\n2,yes,y\n3,,x\n", [" yes", "yes"], False),
    "behind the cells": ("a,b,n\n1,yes ,x\n2,yes,y\n3,,x\n", ["yes ", "yes"], False),
    "as wide as the widest": ("a,  b,n\n1,yes,x\n2, no,y\n3,   ,x\n", ["yes", " no"], False),
}


@pytest.mark.parametrize("name", SPACES)
def test_spaces_around_categories_stay_where_they_are(name, tmp_path):
    text, categories, padded = SPACES[name]
    first, rest = text.split("\n", 1)
    text = "\n".join([first, *[rest.rstrip()] * 10, ""])
    (tmp_path / "a.csv").write_text(text)
    frame, form = read_frame("a.csv", tmp_path / "a.csv")
    schema = find_schema(frame, form=form)
    assert form.padded == padded
    assert set(schema.columns[1].categories) == set(categories)
    assert Schema.from_dict(schema.as_dict()) == schema
    written = as_bytes(schema.decode(schema.encode(frame)), schema).decode()
    assert written.replace('"', "").splitlines()[1:] == text.replace('"', "").splitlines()[1:]


def test_names_are_known_with_other_spaces_where_there_is_one_such():
    schema = find_schema(pandas.DataFrame({"a": texts(" yes", "no "), "b": texts("x", " x")}))
    x = schema.encode(pandas.DataFrame({"a": ["yes", " yes", "no"], "b": ["x", " x", "x"]}))
    assert x[:, 0].tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="column 'b': expected one of  x, x, but in row 1 stands 'x '"):
        schema.encode(pandas.DataFrame({"a": ["yes"], "b": ["x "]}))


def test_numbers_and_dates_may_have_spaces_around_them():
    frame = pandas.DataFrame(
        {"day": texts(" 2021-01-01", "2021-01-02 ", "2021-02-03"), "n": texts(" 1.5", "1.5 ", "7.25")}
    )
    schema = find_schema(frame, form=Form("csv"))
    assert kinds(schema) == {"day": "date", "n": "yes/no"}
    assert schema.columns[1].categories == ("1.5", "7.25")
    _, back = there_and_back(frame, schema)
    assert back["day"][:3].tolist() == ["2021-01-01", "2021-01-02", "2021-02-03"]
    assert back["n"][:3].tolist() == ["1.5", "1.5", "7.25"]


def test_a_schema_and_its_data_show_themselves_in_a_few_lines():
    frame = pandas.DataFrame({"age": RANGE % 37 + 18, "sex": texts("f", "m")})
    schema = find_schema(frame)
    lines = ["Schema of 2 columns (a data frame)", "  age  count   18 to 54", "  sex  yes/no  2: f, m"]
    assert repr(schema).splitlines() == lines
    data = from_frame(frame)
    assert repr(data).splitlines() == [
        "Data(name='a data frame', train=(32, 2), validation=(4, 2), test=(4, 2)), a table: " + lines[0], *lines[1:]
    ]  # fmt: skip
    wide = find_schema(pandas.DataFrame({f"a column with quite a long name {i:04}": NUMBERS for i in range(2000)}))
    shown = repr(wide).splitlines()
    assert len(shown) == 10
    assert shown[0] == "Schema of 2,000 columns (a data frame)"
    assert shown[-1] == "  …"
    long = find_schema(pandas.DataFrame({"a": texts(*("x" * 30 + str(i) for i in range(8)))}))
    assert max(map(len, repr(long).splitlines())) < 115


def test_results_with_a_frame_show_its_shape():
    frame = pandas.DataFrame({"a": NUMBERS})
    assert repr(Examples(torch.zeros(40, 1), "all", "a.csv", None, frame=frame)).endswith(
        "rows=None, frame=(40, 1), table=None)"
    )
