"""The cells of a column, as pandas holds them: what is blank, and what are numbers or dates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pyro_vae.data.tables import dates
from pyro_vae.data.tables.column import DTYPE
from pyro_vae.data.tables.form import Form
from pyro_vae.data.tables.numbers import NumberFormat, is_code, to_numbers

# Cells without a value, in small letters. The second lot may be the names of categories, such as "none" of a garage:
# they are blank among numbers and dates alone.
BLANKS = frozenset({"", "?", "na", "n/a", "#n/a", "#na", "<na>", "nan", "nat", "null"})
BLANKS_AMONG_NUMBERS = BLANKS | {"-", "--", "---", ".", "..", "…", "–", "—", "none", "nil", "missing", "n.a.", "(null)"}
_DIGITS = frozenset("0123456789")
SELDOM = 0.05  # of the cells: so few with the same word among numbers are blank


def is_text(dtype: Any) -> bool:
    """Return whether cells of a type are text, or objects of Python."""
    import pandas

    return bool(pandas.api.types.is_object_dtype(dtype) or pandas.api.types.is_string_dtype(dtype))


def distinct(series: Any) -> tuple[np.ndarray, Any]:
    """Return each cell's position among the distinct values, (N,), -1 where pandas has none, and these values."""
    import pandas

    codes, values = pandas.factorize(series)
    return np.asarray(codes), values


def texts_of(values: Any) -> list[str]:
    """Return values as texts."""
    return list(map(str, np.asarray(values, dtype=object).tolist()))


def are_among(texts: Sequence[str], blanks: frozenset[str]) -> np.ndarray:
    """Return which texts are one of some that stand for no value, with any capitals, and spaces around them.

    Example:
        >>> are_among(["1", " Na", ""], BLANKS)
        array([False,  True,  True])
    """
    # None of these ends in a digit: numbers, of which there may be many, are passed by.
    return np.array([text[-1:] not in _DIGITS and text.strip().lower() in blanks for text in texts], dtype=bool)


def name_of(value: Any) -> str:
    """Return what a value that is no text is called: a whole number has no decimals.

    Example:
        >>> name_of(1.0), name_of(0.5), name_of(True)
        ('1', '0.5', 'True')
    """
    is_whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if is_whole else str(value)


def own_numbers(values: Any) -> np.ndarray:
    """Return typed values as numbers, int64 or float64, of times in seconds; NaN where they are of another type."""
    import pandas

    kind = values.dtype.kind
    if kind == "M":
        moments = pandas.DatetimeIndex(values)
        return dates.seconds_of(moments if moments.tz is None else moments.tz_convert("UTC").tz_localize(None))
    if kind == "m":
        return np.asarray(pandas.TimedeltaIndex(values).total_seconds(), dtype=np.float64)
    if kind not in "biuf":
        return np.full(len(values), np.nan)
    numbers = np.asarray(values)
    if numbers.dtype == object:  # of pandas' own types, which may be blank
        numbers = numbers.astype({"b": bool, "f": np.float64}.get(kind, np.int64))
    if kind in "bi" or (kind == "u" and numbers.max(initial=0) < 2**63):
        return numbers.astype(np.int64)
    if kind == "f" and numbers.dtype.itemsize < 8:  # the number that is meant: 0.1, not 0.10000000149
        return np.array([float(str(number)) for number in numbers], dtype=np.float64)
    return numbers.astype(np.float64)


@dataclass(frozen=True)
class Cells:
    """The cells of a column, and its distinct values that are not blank.

    Attributes:
        name: The column's name.
        dtype: What pandas calls the type of the cells.
        codes: Each cell's position among the distinct values, -1 where it is blank, (N,).
        names: The distinct values as they are written, (U,).
        counts: How many cells have each, (U,).
        numbers: The distinct values as numbers, of times in seconds, (U,); None where they are none.
        blank: How a blank is written; None where pandas has a value of its own for it.
        format: How numbers or dates are written; None where that is as pandas does.
        is_date: Whether they are dates.
        order: The names of all categories, where the type of the cells says them.
    """

    name: str
    dtype: str
    codes: np.ndarray
    names: Sequence[str]
    counts: np.ndarray
    numbers: np.ndarray | None = None
    blank: str | None = None
    format: str | None = None
    is_date: bool = False
    order: tuple[str, ...] = ()

    @property
    def num(self) -> int:
        """How many cells are not blank."""
        return int(self.counts.sum())

    @property
    def seen(self) -> list[str]:
        """The names of the values that there are."""
        return [name for name, count in zip(self.names, self.counts, strict=True) if count]

    def stripped(self) -> "Cells":
        """Return the same without spaces around names, where some differ in these alone."""
        position = {name: i for i, name in enumerate(dict.fromkeys(name.strip() for name in self.names))}
        if len(position) == len(self.names):
            return self
        at = np.array([position[name.strip()] for name in self.names])
        first = np.unique(at, return_index=True)[1]
        return replace(
            self,
            codes=np.append(at, -1)[self.codes],
            names=list(position),
            counts=np.bincount(at, self.counts).astype(self.counts.dtype),
            numbers=None if self.numbers is None else self.numbers[first],
        )

    def without(self, blank: np.ndarray) -> "Cells":
        """Return the same where some of the distinct values, (U,), are blank."""
        if not blank.any():
            return self
        num_missing = int((self.codes < 0).sum())
        commonest = int(np.argmax(np.where(blank, self.counts, -1)))
        at = np.append(np.where(blank, -1, np.cumsum(~blank) - 1), -1)
        return replace(
            self,
            codes=at[self.codes],
            names=[name for name, is_blank in zip(self.names, blank, strict=True) if not is_blank],
            counts=self.counts[~blank],
            numbers=None if self.numbers is None else self.numbers[~blank],
            blank=self.names[commonest] if self.counts[commonest] > num_missing else self.blank,
        )


def read_cells(name: str, series: Any, form: Form, kind: str = "", format: str = "") -> Cells:
    """Return the cells of a column, as numbers or dates where they are such.

    Args:
        name: The column's name.
        series: Its cells, a ``pandas.Series``.
        form: How the table was written.
        kind: What the column has to be; "" for any.
        format: Of dates, where it is known.

    Raises:
        ValueError: If they can't be, or are infinite, or of a type that is no number, date, category or text.
    """
    import pandas

    if series.dtype == object:
        series = _typed(series)
    dtype = series.dtype
    if isinstance(dtype, pandas.CategoricalDtype):
        return _read_categories(name, series)
    if DTYPE.fullmatch(str(dtype)) is None:
        raise ValueError(
            f"column {name!r}: expected numbers, dates, categories or text, got {dtype}; convert the column, or drop it"
        )
    codes, values = distinct(series)
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    if is_text(dtype):
        texts = texts_of(values)
        blank = "" if form.file == "csv" else None
        return _read_texts(Cells(name, str(dtype), codes, texts, counts, blank=blank), form.decimal, kind, format)
    numbers = own_numbers(values)
    cells = _finite(Cells(name, str(dtype), codes, [name_of(value) for value in values], counts, numbers))
    if dtype.kind != "M":
        return replace(cells, format=_decimals(numbers))
    has_time = hasattr(dtype, "tz") or bool((numbers % dates.SECONDS).any())
    time = " %H:%M:%S" * has_time + ".%6f" * bool((numbers % 1).any())
    return replace(cells, is_date=True, format=f"%Y-%m-%d{time}")


def _typed(series: Any) -> Any:
    """Return objects of Python with the type that they have in common, or as text."""
    import pandas

    match pandas.api.types.infer_dtype(series, skipna=True):
        case "string" | "empty":
            return series
        case "boolean":
            return series.astype("boolean")
        case "integer" | "floating" | "mixed-integer-float" | "decimal":
            return pandas.to_numeric(series.map(float, na_action="ignore") if series.hasnans else series)
        case "date" | "datetime" | "datetime64":
            return pandas.to_datetime(series)
        case "timedelta" | "timedelta64":
            return pandas.to_timedelta(series)
        case _:
            return series.map(str, na_action="ignore")


def _read_categories(name: str, series: Any) -> Cells:
    categories = series.cat.categories
    kept = str(categories.dtype) if DTYPE.fullmatch(f"category[{categories.dtype}]") else "str"
    dtype = f"category[{kept}{', ordered' if series.cat.ordered else ''}]"
    names = tuple(name_of(value) for value in categories)
    codes = np.asarray(series.cat.codes).astype(np.int64)
    return Cells(name, dtype, codes, names, np.bincount(codes[codes >= 0], minlength=len(names)), order=names)


def _read_texts(cells: Cells, decimal: str, kind: str, format: str) -> Cells:
    """Return cells of text as dates or numbers where all are such but for blanks."""
    surely = cells.without(are_among(cells.names, BLANKS))
    numeric = surely.without(are_among(surely.names, BLANKS_AMONG_NUMBERS))
    if not numeric.names or kind in ("category", "yes/no", "constant", "identifier", "text"):
        return surely
    if kind in ("", "date"):
        found = format or dates.find_format(numeric.names)
        seconds = dates.to_seconds(numeric.names, found) if found else np.array([np.nan])
        if not np.isnan(seconds).any():
            return replace(numeric, numbers=seconds, format=found, is_date=True)
        if kind == "date":
            wrong = numeric.names[int(np.argmax(np.isnan(seconds)))]
            raise ValueError(
                f"schema: {cells.name}=date: expected dates {f'written {format}' if format else 'in one format'}, got "
                f"{wrong[:50]!r}; say {cells.name}=date:%d/%m/%Y with the format, or another kind"
            )
    numeric = replace(numeric, numbers=to_numbers(numeric.names, decimal))
    assert numeric.numbers is not None
    wrong_at = np.isnan(numeric.numbers)
    if wrong_at.sum() == 1 and numeric.counts[wrong_at].sum() <= SELDOM * numeric.num and kind != "ordinal":
        word = numeric.names[int(np.argmax(wrong_at))]
        numeric, wrong_at = replace(numeric.without(wrong_at), blank=word), np.zeros(1, dtype=bool)
    if wrong_at.any():
        if kind in ("number", "count"):
            wrong = numeric.names[int(np.argmax(wrong_at))]
            raise ValueError(f"schema: {cells.name}={kind}: expected numbers, got {wrong[:50]!r}; say another kind")
        return surely
    if not kind and any(map(is_code, numeric.names)):
        return surely
    return replace(_finite(numeric).stripped(), format=str(NumberFormat.of(numeric.names, decimal)))


def _finite(cells: Cells) -> Cells:
    """Return cells that are finite numbers, or refuse them."""
    assert cells.numbers is not None
    if (wrong := np.flatnonzero(~np.isfinite(cells.numbers))).size:
        row = int(np.argmax(cells.codes == wrong[0])) + 1
        raise ValueError(
            f"column {cells.name!r}: expected finite numbers, but in row {row} stands {cells.names[wrong[0]]!r}; "
            "make it blank, or remove the row"
        )
    return cells


def _decimals(numbers: np.ndarray) -> str | None:
    """Return the decimals that typed numbers have, as a format; None where they are as many as 64 bits hold."""
    if numbers.dtype.kind == "i":
        return ".0f"
    largest = np.abs(numbers).max(initial=0)
    for decimals in range(16):
        if largest * 10.0**decimals >= 1e14:
            break
        if np.allclose(numbers, np.round(numbers, decimals), rtol=1e-15, atol=0):
            return str(NumberFormat(0, decimals))
    return None
