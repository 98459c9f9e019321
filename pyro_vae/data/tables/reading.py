"""Tables in files: text with any separator, decimal mark and encoding, packed or not, Parquet and Feather."""

import bz2
import contextlib
import csv
import gzip
import io
import itertools
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any

from pyro_vae.data.source import check_memory, one_line
from pyro_vae.data.tables import sniffing
from pyro_vae.data.tables.form import Form
from pyro_vae.data.tables.schema import MAX_COLUMNS
from pyro_vae.machine.reading import check_file

TEXTS = (".csv", ".tsv", ".tab", ".txt", ".data", ".dat", ".zip")
ARROW = {".parquet": "parquet", ".pq": "parquet", ".feather": "feather", ".arrow": "feather"}
PACKED: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BLOCK = 2**20  # bytes
CELL = 57  # bytes that a cell takes in memory beside its characters
_NO_ARCHIVE = (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)


def is_table(path: Path) -> bool:
    """Return whether a file is a table by its name.

    Example:
        >>> is_table(Path("a/table.CSV.gz")), is_table(Path("table.zip")), is_table(Path("x.npy.gz"))
        (True, True, False)
    """
    return _ending(path) in (*TEXTS, *ARROW)


def _ending(path: Path) -> str:
    return (Path(path.stem) if path.suffix.lower() in PACKED else path).suffix.lower()


def read_frame(data: str, path: Path, names: Collection[str] = ()) -> tuple[Any, Form]:
    """Read a table: of a text all cells as they stand, as text; of Parquet and Feather with their types.

    Encoding, separator, decimal mark, and whether there is a line of names are told from the first lines.

    Args:
        data: The table's name, for messages.
        path: The file: .parquet or .feather; any other is text, also one within .gz, .bz2, .xz or .zip.
        names: Names of columns that there may be, where some are known: a first line with none of them is one of
            values.

    Returns:
        A ``pandas.DataFrame``, and how it was written.

    Raises:
        ValueError: If it is no table: what was expected, what came, and the way out.
        FileNotFoundError: If there is no such file.
    """
    size = check_file(path)
    if size == 0:
        raise ValueError(f"data={data!r}: expected a table, but the file is empty; write it again")
    if (kind := ARROW.get(_ending(path))) is not None:
        from pyro_vae.data.tables.arrow import read_arrow

        return read_arrow(data, path, kind)
    check_memory(data, 2 * size)
    return _read_text(data, _content(data, path), names)


def _content(data: str, path: Path) -> bytes:
    """Return what is in a file, or in a packed one, if that is no more than a table may take."""
    is_packed = path.suffix.lower() in (*PACKED, ".zip")
    content = io.BytesIO()
    try:
        with _open(data, path) as file:
            while block := file.read(BLOCK):
                content.write(block)
                check_memory(data, 2 * content.tell())
    except _NO_ARCHIVE as error:
        if not is_packed:
            raise
        raise ValueError(f"data={data!r}: expected a packed table, but it doesn't unpack: {one_line(error)}") from error
    return content.getvalue()


@contextlib.contextmanager
def _open(data: str, path: Path) -> Iterator[IO[bytes]]:
    suffix = path.suffix.lower()
    if suffix != ".zip":
        with PACKED[suffix](path) if suffix in PACKED else path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise ValueError(f"data={data!r}: expected one file in the .zip, got {len(names)}; pack one table alone")
        with archive.open(names[0]) as file:
            yield file


def _read_text(data: str, content: bytes, known: Collection[str]) -> tuple[Any, Form]:
    import pandas

    try:
        encoding = sniffing.find_encoding(content)
    except ValueError as error:
        raise ValueError(f"data={data!r}: expected a table as text, but {error}") from error
    readable = encoding
    if encoding == "utf-16":
        content, readable = content.decode(encoding).encode(), "utf-8"
    sample = content[: 4 * sniffing.SAMPLE].decode(readable, errors="ignore")[: sniffing.SAMPLE]
    whole = len(sample) < sniffing.SAMPLE
    separator = sniffing.find_separator(sample, whole)
    rows = sniffing.split(sample, separator, whole)
    if not rows:
        raise ValueError(f"data={data!r}: expected rows of a table, but all lines are blank; write the file again")
    width = max(map(len, rows))
    if width > MAX_COLUMNS:
        raise ValueError(f"data={data!r}: expected at most {MAX_COLUMNS:,} columns, got {width:,}; drop some")
    names = sniffing.find_names(rows, width, known)
    padded = separator != " " and sniffing.is_padded(sample, separator)
    num_cells = content.count(separator.encode()) + content.count(b"\n") + content.count(b"\r") + 1
    check_memory(data, num_cells * CELL + 2 * len(content))
    before = sum(1 for _ in itertools.takewhile(lambda line: not line.strip(), io.StringIO(sample)))
    problem: Exception | None = None
    try:
        # An empty line is a blank cell of a table with one column. Rows that are too long are found below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pandas.errors.ParserWarning)
            frame = pandas.read_csv(
            io.BytesIO(content), sep=r"\s+" if separator == " " else separator, encoding=readable, dtype=str,
            header=None, names=range(width), index_col=False, skiprows=before + bool(names), na_filter=False,
            skip_blank_lines=width > 1, skipinitialspace=padded,
        )  # fmt: skip
    except (pandas.errors.ParserError, UnicodeError) as error:
        problem = error
    except pandas.errors.EmptyDataError:
        frame = pandas.DataFrame(columns=range(width))
    mistake = None
    if problem is not None or not _is_complete(content, separator, width, len(frame) + bool(names)):
        mistake = _first_mistake(content, readable, separator, padded, width, bool(names) and len(rows[0]) < width)
    if problem is not None or mistake is not None:
        raise ValueError(
            f"data={data!r}: expected as many cells in each row, but {mistake or one_line(problem or ValueError())}; "
            "write the file again"
        ) from problem
    if width == 1:  # empty lines at the end are none
        filled = frame[0].str.strip().ne("").to_numpy().nonzero()[0]
        frame = frame.iloc[: filled[-1] + 1] if len(filled) else frame.iloc[:0]
    if frame.empty:
        raise ValueError(f"data={data!r}: expected rows below the names of the columns, but there are none")
    frame.columns = _unique(data, names or [""] * width)
    newline = next((end for end in ("\r\n", "\n", "\r") if end in sample), "\n")
    header = "names" if names else "none"
    return frame, Form("csv", separator, sniffing.find_decimal(frame), encoding, newline, header, padded)


def _is_complete(content: bytes, separator: str, width: int, num_rows: int) -> bool:
    """Return whether there are surely as many cells as columns in all rows; pandas fills up those that are short."""
    is_plain = separator != " " and b'"' not in content
    return width == 1 or (is_plain and content.count(separator.encode()) == num_rows * (width - 1))


def _first_mistake(
    content: bytes, encoding: str, separator: str, padded: bool, width: int, is_short: bool
) -> str | None:
    """Return in words which row has another number of cells, or doesn't read; the first one is short by one or not."""
    lines = io.TextIOWrapper(io.BytesIO(content), encoding, newline="")
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=padded)
    rows: Iterator[list[str]] = (line.split() for line in lines) if separator == " " else reader
    try:
        for number, row in enumerate(rows, 1):
            if not row or (width > 1 and len(row) == 1 and not row[0].strip()):
                continue
            if len(row) != width - is_short:
                return f"line {number if separator == ' ' else reader.line_num} has {len(row)}, not {width}"
            is_short = False
    except csv.Error as error:
        return f"line {reader.line_num} doesn't read: {one_line(error)}"
    return None


def _unique(data: str, names: list[str]) -> list[str]:
    """Return names that differ: a blank one is called by its position, one that was there already gets a number."""
    unique: dict[str, None] = {}
    again = []
    for i, name in enumerate(names, 1):
        own = name or f"column {i}"
        tries = itertools.chain([own], (f"{own}.{k}" for k in itertools.count(1)))
        new = next(called for called in tries if called not in unique and (called == own or called not in names))
        again += [f"{own!r} is {new!r}"] if new != own else []
        unique[new] = None
    if again:
        some = ", ".join(again[:5]) + ", …" * (len(again) > 5)
        warnings.warn(f"data={data!r}: columns whose names occur again are given others: {some}", stacklevel=4)
    return list(unique)
