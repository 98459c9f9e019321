"""How a text with a table is written, told from its first lines: encoding, separator, names and decimal mark."""

import codecs
import contextlib
import csv
import io
import itertools
import re
from collections.abc import Collection
from typing import Any

import numpy as np

from pyro_vae.data.tables.cells import BLANKS, are_among
from pyro_vae.data.tables.form import SEPARATORS

SAMPLE = 2**16  # characters
CELLS = 20_000  # that the decimal mark is told from, about
SAME = 0.9  # of the rows have as many cells as any
_BLOCK = 2**20  # bytes
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_POWER = r"(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(rf"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+|\d{{1,3}}(?:[.,]\d{{3}})+(?:[.,]\d+)?){_POWER}")
# A comma or a point before any but three digits is no mark of thousands.
_COMMA = re.compile(rf"[+-]?(?:0,\d+|\d*,(?:\d{{1,2}}|\d{{4,}})|\d{{1,3}}(?:\.\d{{3}})+,\d*){_POWER}")
_POINT = re.compile(rf"[+-]?(?:0\.\d+|\d*\.(?:\d{{1,2}}|\d{{4,}})|\d{{1,3}}(?:,\d{{3}})+\.\d*){_POWER}")

Rows = list[list[str]]


def find_encoding(content: bytes) -> str:
    """Return the encoding of a text: by its first bytes, UTF-8 where it is, else that of Western Windows.

    Raises:
        ValueError: If it is no text.
    """
    marked = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    if marked is None and b"\0" in content:
        raise ValueError("it has bytes of zero, as no text has; save it as CSV in UTF-8")
    for encoding in [marked] if marked else ["utf-8", "cp1252", "latin-1"]:
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            for start in range(0, len(content), _BLOCK):
                decoder.decode(content[start : start + _BLOCK])
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        return encoding
    raise ValueError(f"it is no text in {marked}, as its first bytes say; save it as CSV in UTF-8")


def split(sample: str, separator: str, whole: bool) -> Rows:
    """Return the cells of the rows of a text, but of its last row where the text is cut off."""
    lines = io.StringIO(sample, newline="")
    rows: Rows = []
    try:
        if separator == " ":
            rows += (line.split() for line in lines)
        else:
            rows += csv.reader(lines, delimiter=separator, skipinitialspace=True)
    except csv.Error:  # pandas says what is wrong there
        pass
    rows = [row for row in rows if len(row) > 1 or (row and row[0].strip())]
    return rows if whole or len(rows) < 2 else rows[:-1]


def find_separator(sample: str, whole: bool) -> str:
    """Return what is between the cells: what gives rows of one length, with the fewest other separators in cells."""
    best, chosen = (0.0, 0), ","
    for separator in SEPARATORS:
        rows = split(sample, separator, whole)
        body = rows[1:] or rows
        widths = [len(row) for row in body]
        width = max(set(widths), key=widths.count, default=0)
        same = widths.count(width) / max(1, len(widths))
        if width < 2 or same < SAME or len(rows[0]) not in (width, width - 1):
            continue
        cells = list(itertools.chain.from_iterable(body))
        numbers = sum(map(is_number, cells)) / len(cells)
        if separator == " " and (best[1] or numbers < 0.5):  # spaces are in texts as well
            continue
        clean = sum(is_number(cell) or not any(mark in cell for mark in SEPARATORS[:4]) for cell in cells) / len(cells)
        if (score := (clean * same, width)) > best:
            best, chosen = score, separator
    return chosen


def is_padded(sample: str, separator: str) -> bool:
    """Return whether a space follows each separator; or there are quotes behind one, which none may be before.

    Two spaces are of columns as wide as their widest cell: they belong to the cells.
    """
    cells: list[str] = []
    with contextlib.suppress(csv.Error):
        for row in csv.reader(io.StringIO(sample, newline=""), delimiter=separator):
            cells += row[1:]
    some = [cell for cell in cells if cell]
    all_alike = all(cell[0] == " " and cell[1:2] != " " for cell in some)
    return bool(some) and (all_alike or any(cell.startswith(' "') for cell in some))


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, whatever its decimal mark."""
    return _NUMBER.fullmatch(cell.strip()) is not None


def find_names(rows: Rows, width: int, known: Collection[str] = ()) -> list[str] | None:
    """Return the first row where it holds the names of the columns, and not values as those below do.

    It does where a text stands over numbers; where whole numbers count the columns, or stand over numbers with
    decimals; and where all are texts that do not occur again below.

    Args:
        rows: The first rows.
        width: How many columns there are; names may be one fewer, as R writes them beside those of the rows.
        known: Names that there may be; then the first row holds names where it has one of these, and only then.
    """
    first, body = [cell.strip() for cell in rows[0]], rows[1:]
    if len(first) == width - 1 > 1 and body:
        first = ["", *first]
    if len(first) != width or not any(first):
        return None
    if known:
        return None if set(first).isdisjoint(known) else first
    named = [not is_number(cell) and not blank for cell, blank in zip(first, are_among(first, BLANKS), strict=True)]
    columns = [[row[d] for row in body if d < len(row)] for d in range(width)]
    below = [[cells[i] for i in np.flatnonzero(~are_among(cells, BLANKS))] for cells in columns]
    numeric = [bool(cells) and all(map(is_number, cells)) for cells in below]
    if any(name and number for name, number in zip(named, numeric, strict=True)):
        return first
    if all(named):
        again = any(name in cells for name, cells in zip(first, below, strict=True))
        return None if again or len(set(first)) < width else first
    numbers = first if first[0] else first[1:]
    if not all(cell.isdecimal() for cell in numbers) or len(set(numbers)) < len(numbers):
        return None
    over = [cells for cell, cells, number in zip(first, below, numeric, strict=True) if number and cell]
    if over and not any(all(cell.strip().isdecimal() for cell in cells) for cells in over):
        return first
    count_columns = any(numbers == [str(i) for i in range(start, start + len(numbers))] for start in (0, 1))
    return first if count_columns and (len(numbers) > 2 or not first[0]) else None


def find_decimal(frame: Any) -> str:
    """Return the decimal mark of a table of texts: a comma where more numbers have one than have a point."""
    some = frame.iloc[:: max(1, len(frame) * frame.shape[1] // CELLS)]
    cells = [cell.strip() for d in range(frame.shape[1]) for cell in some.iloc[:, d]]
    commas, points = (sum(mark.fullmatch(cell) is not None for cell in cells) for mark in (_COMMA, _POINT))
    return "," if commas > points else "."
