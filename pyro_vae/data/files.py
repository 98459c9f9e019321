"""A user's own arrays and tables: .npy, .npz and .csv. Nothing in a file is ever executed."""

import contextlib
import csv
import io
import math
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.source import FILL_BLANKS, Source, check_memory, one_line, to_tensor

Header = tuple[tuple[int, ...], np.dtype]
MAX_HEADER = 2**16  # bytes


@dataclass(frozen=True)
class Stored:
    """An array in a file: how to open it, and how many bytes it takes there."""

    open: Callable[[], IO[bytes]]
    size: int


# Cells of a table without a value, in capitals.
BLANKS = {"", "NA", "NAN"}


@contextlib.contextmanager
def _expecting(data: str, expected: str) -> Iterator[None]:
    """Turn whatever a broken file makes a library raise into one line."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"data={data!r}: expected {expected}, but it does not read as one: {one_line(error)}; "
            "write the file again, or give it the ending of what it is"
        ) from error


def read_npy(data: str, path: Path, missing: bool = False) -> Source:
    """Read one array."""
    return _read_arrays(data, {"x": Stored(lambda: path.open("rb"), path.stat().st_size)}, "a .npy file", missing)


def read_npz(data: str, path: Path, missing: bool = False) -> Source:
    """Read array ``x``, or the only one, or ``x_train`` and ``x_test``; labels ``y``, ``y_train`` and ``y_test``."""
    with contextlib.ExitStack() as stack:
        with _expecting(data, "a .npz file"):
            archive = stack.enter_context(zipfile.ZipFile(path))
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        files = {role: f"{name}.npy" for role, name in _roles(data, names).items()}
        stored = {
            role: Stored(partial(archive.open, name), archive.getinfo(name).file_size) for role, name in files.items()
        }
        return _read_arrays(data, stored, "a .npz file", missing)


def _roles(data: str, names: list[str]) -> dict[str, str]:
    """Return which array of a .npz file is what."""
    if "x" in names:
        wanted = {"x": "x", "y": "y"}
    elif "x_train" in names:
        wanted = {"x": "x_train", "y": "y_train", "x_test": "x_test", "y_test": "y_test"}
    elif len(others := [name for name in names if name != "y"]) == 1:
        wanted = {"x": others[0], "y": "y"}
    else:
        raise ValueError(
            f"data={data!r}: expected an array named x, a single array, or x_train and x_test, but the file holds "
            f"{', '.join(names) or 'nothing'}; name the data x"
        )
    return {role: name for role, name in wanted.items() if name in names}


def _read_arrays(data: str, stored: dict[str, Stored], expected: str, missing: bool) -> Source:
    """Read arrays by role: x and x_test are the data, y and y_test their labels. All headers come first."""
    headers = {}
    for role, array in stored.items():
        with _expecting(data, expected), array.open() as stream:
            headers[role] = _header(stream)
    shape = _datum_shape(data, *headers["x"])
    if "x_test" in headers and _datum_shape(data, *headers["x_test"]) != shape:
        raise ValueError(
            f"data={data!r}: expected x_train and x_test of one shape, but they are {headers['x'][0]} and "
            f"{headers['x_test'][0]}; leave out x_test to have a test set split off"
        )
    for role in ("y", "y_test"):
        if role in headers and headers[role][1].kind in "US":
            raise ValueError(
                f"data={data!r}: expected whole numbers as labels, but {role} holds text; number the classes, such as "
                "by numpy.unique(y, return_inverse=True)[1], or leave it out"
            )
    labels = [role for role in ("y", "y_test") if role in headers and headers[role][1].kind in "biuf"]
    for role in labels:
        of = role.replace("y", "x")
        if of not in headers or math.prod(headers[role][0]) != headers[of][0][0]:
            raise ValueError(
                f"data={data!r}: expected one label for each example, but the labels have shape {headers[role][0]} "
                f"and the data {headers[of][0] if of in headers else 'are missing'}; leave the labels out"
            )
    roles = [role for role in ("x", "x_test") if role in headers] + labels
    check_memory(data, sum(math.prod(headers[role][0]) * max(headers[role][1].itemsize, 4) for role in roles))
    arrays = {}
    for role in roles:
        with _expecting(data, expected), stored[role].open() as stream:
            _check_size(*headers[role], stored[role].size)
            arrays[role] = np.lib.format.read_array(stream, allow_pickle=False)
    return Source(
        x=to_tensor(data, arrays["x"], missing),
        shape=shape,
        y=_labels(arrays.get("y")),
        x_test=to_tensor(data, arrays["x_test"], missing) if "x_test" in arrays else None,
        y_test=_labels(arrays.get("y_test")),
    )


def _check_size(shape: tuple[int, ...], dtype: np.dtype, size: int) -> None:
    """Refuse a header that promises more than there is, before memory is taken for it."""
    if dtype.itemsize * math.prod(shape) > size:
        raise ValueError(f"its header promises {shape} values of {dtype.itemsize} bytes, but it holds {size:,} bytes")


def _header(stream: IO[bytes]) -> Header:
    """Return shape and type of an array, from the first bytes of a .npy stream."""
    stream = io.BytesIO(stream.read(MAX_HEADER))
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version} of the format is not supported")
    return shape, dtype


def _datum_shape(data: str, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Return the shape of one datum: (D,) of a table, (1, H, W) of an image."""
    if dtype.kind not in "biuf":
        raise ValueError(
            f"data={data!r}: expected an array of numbers, but its type is {dtype}; save it as a numeric array"
        )
    datum: tuple[int, ...]
    match shape:
        case (_, d):
            datum = (d,)
        case (_, h, w) | (_, 1, h, w) | (_, h, w, 1):
            datum = (1, h, w)
        case _:
            raise ValueError(
                f"data={data!r}: expected shape (N, D) for a table, or (N, H, W), (N, 1, H, W) or (N, H, W, 1) for "
                f"images with one channel, but it is {shape}; reshape the array"
            )
    if min(shape) < 1:
        raise ValueError(f"data={data!r}: expected at least one example, but the array is empty, with shape {shape}")
    return datum


def _labels(y: np.ndarray | None) -> Tensor | None:
    """Return class labels; real numbers are no labels."""
    if y is None or not (np.isfinite(y) & (y == np.round(y))).all():
        return None
    return torch.from_numpy(y.reshape(-1).astype(np.int64))


def read_csv(data: str, path: Path, missing: bool = False) -> Source:
    """Read a table of numbers, separated by commas, with or without a first line of names.

    Where some may be ``missing``, a cell that is empty, NA or NaN is a blank.
    """
    # A cell takes at least two characters of the file, and four bytes in memory.
    check_memory(data, 2 * path.stat().st_size)
    with _expecting(data, "a .csv file"), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        first = next(reader, [])
    header = _has_names(first)
    skip = reader.line_num if header else 0
    try:
        with warnings.catch_warnings(), path.open(encoding="utf-8-sig") as file:
            warnings.simplefilter("ignore", UserWarning)  # an empty table is refused below
            table = np.loadtxt(
                file, dtype=np.float32, delimiter=",", quotechar='"', comments=None, skiprows=skip, ndmin=2,
                converters=_number_or_blank if missing else None, encoding=None,
            )  # fmt: skip
    except ValueError as error:
        raise ValueError(
            f"data={data!r}: expected numbers separated by commas, as many in each row, but "
            f"{_first_mistake(path, skip, missing) or one_line(error) + '; write the file again'}"
        ) from error
    if table.size == 0:
        raise ValueError(f"data={data!r}: expected rows of numbers, but there are none; write the file again")
    if header and len(first) != table.shape[1]:
        raise ValueError(
            f"data={data!r}: expected a name for each column, but the first line has {len(first)} and the rows have "
            f"{table.shape[1]} cells; correct the first line"
        )
    columns = tuple(cell.strip() for cell in first) if header else None
    return Source(x=to_tensor(data, table, missing), shape=(table.shape[1],), columns=columns)


def read_cells(path: Path) -> tuple[list[str] | None, list[list[str]]]:
    """Return the names of a table's columns, if it has any, and the cells of each row that :func:`read_csv` reads.

    They are as their user wrote them.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [row for row in csv.reader(file) if row]
    return (lines[0], lines[1:]) if lines and _has_names(lines[0]) else (None, lines)


def _has_names(first: list[str]) -> bool:
    return not all(_is_blank(cell) for cell in first) and not any(_is_number(cell) for cell in first)


def _first_mistake(path: Path, skip: int, missing: bool) -> str | None:
    """Return in words what is wrong with a table that did not read."""
    width = None
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        with contextlib.suppress(csv.Error):  # not a table at all: the first reader's own words will do
            for row in reader:
                if not row or reader.line_num <= skip:
                    continue
                width = width or len(row)
                if len(row) != width:
                    return f"line {reader.line_num} has {len(row)} cells, not {width}; make all rows equally long"
                for column, cell in enumerate(row, 1):
                    where = f"in line {reader.line_num}, column {column}"
                    if _is_blank(cell):
                        if missing:
                            continue
                        return f"a cell is blank {where}; {FILL_BLANKS}"
                    if not _is_number(cell):
                        return f"{where} stands {cell[:40]!r}; remove the column, or write it as numbers"
    return None


def _is_blank(cell: str) -> bool:
    return cell.strip().upper() in BLANKS


def _number_or_blank(cell: str) -> float:
    return math.nan if _is_blank(cell) else float(cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
