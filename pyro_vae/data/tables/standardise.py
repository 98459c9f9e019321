"""The cells of a column as numbers of a model."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyro_vae.data.tables import dates
from pyro_vae.data.tables.cells import (
    BLANKS,
    BLANKS_AMONG_NUMBERS,
    are_among,
    distinct,
    is_text,
    name_of,
    own_numbers,
    texts_of,
)
from pyro_vae.data.tables.column import NAMED, UNORDERED, Column
from pyro_vae.data.tables.numbers import is_code, to_numbers

FARTHEST = 1e18  # scales from the middle: the square of more doesn't fit in 32 bits


def to_model(column: Column, series: Any, decimal: str, strict: bool = True) -> np.ndarray:
    """Return the cells of a column as numbers of a model, (N,) float64, NaN where they are blank.

    Args:
        column: What the column is.
        series: Its cells, as text or as values, whichever they were when the column was found.
        decimal: The decimal mark of texts.
        strict: Refuse what is no value of the column; otherwise it is blank.

    Raises:
        ValueError: Naming the column, the value, its row and the way out.
    """
    codes, values = distinct(series)
    there, own = to_own(column, values, decimal)
    model = np.full(len(values) + 1, np.nan)  # the last one is for cells without a value, whose code is -1
    model[:-1][there] = standardised(column, own)
    wrong = ~(np.abs(model) < FARTHEST)
    known_wrong = np.flatnonzero(wrong[:-1] & there)
    if strict and known_wrong.size:
        at = known_wrong[0]
        raise ValueError(
            f"column {column.name!r}: expected {expected(column)}, but in row {int(np.argmax(codes == at)) + 1} "
            f"stands {str(values[at])[:50]!r}; correct it, or make it blank"
        )
    model[wrong] = np.nan
    return model[codes]


def to_own(column: Column, values: Any, decimal: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which values of a column, (U,), are not blank, and these in its own units, NaN where one is none of it.

    Args:
        column: What the column is.
        values: As :func:`pyro_vae.data.tables.cells.distinct` returns them.
        decimal: The decimal mark of texts.
    """
    if hasattr(values, "categories"):
        values = values.categories.take(values.codes)
    if not is_text(values.dtype):
        return np.ones(len(values), dtype=bool), _of_values(column, values, decimal)
    texts = texts_of(values)
    there = ~_are_blank(column, texts, decimal)
    return there, _of_texts(column, [texts[i] for i in np.flatnonzero(there)], decimal)


def to_values(column: Column, series: Any, decimal: str) -> Any:
    """Return the cells of a column as values, a ``pandas.Series``, blank where they are.

    Numbers and dates are in own units, in 64 bits, and so are ordinals that are called by numbers; others are 0, 1, ….
    All else are categories by their names, a new one by what stands there.
    """
    import pandas

    if column.kind == "ordinal" and not np.isnan(to_numbers(column.categories, decimal)).any():
        column = Column(column.name, "number", "float64", blank=column.blank)
    if column.kind not in UNORDERED:
        return pandas.Series(to_model(column, series, decimal) * column.scale + column.loc)
    codes, values = distinct(series)
    texts = texts_of(values) if is_text(values.dtype) else [name_of(value) for value in values]
    known = to_model(column, pandas.Series(values), decimal, strict=False)
    blank = _are_blank(column, texts, decimal)
    names = [
        None if is_blank else text if np.isnan(code) else column.categories[int(code)]
        for text, code, is_blank in zip(texts, known, blank, strict=True)
    ]
    return pandas.Series(np.array([*names, None], dtype=object)[codes]).astype("category")


def _are_blank(column: Column, texts: Sequence[str], decimal: str) -> np.ndarray:
    """Return which texts stand for no value of a column: all that did when it was found."""
    names = set(column.categories)
    named_by_numbers = not np.isnan(to_numbers(column.categories, decimal)).any()  # as what has no names
    blank = are_among(texts, BLANKS_AMONG_NUMBERS if named_by_numbers else BLANKS)
    return np.array(
        [(is_blank or text == column.blank) and text not in names for text, is_blank in zip(texts, blank, strict=True)],
        dtype=bool,
    )


def expected(column: Column) -> str:
    """Return what the values of a column have to be, in words."""
    if column.kind in NAMED:
        return f"one of {', '.join(name[:30] for name in column.categories[:8])}{', …' * (len(column.categories) > 8)}"
    return f"dates written {column.format}" if column.kind == "date" else "numbers of the column's size"


def standardised(column: Column, own: np.ndarray) -> np.ndarray:
    """Return (own - loc) / scale. Whole numbers are subtracted as such: float64 may not hold all of their digits."""
    if own.dtype.kind == "i" and isinstance(column.loc, int) and max(abs(column.loc), *_ends(own)) < 2**62:
        return (own - column.loc) / column.scale
    return (own.astype(np.float64) - column.loc) / column.scale


def _ends(own: np.ndarray) -> tuple[int, int]:
    return (-int(own.min()), int(own.max())) if own.size else (0, 0)


def _of_texts(column: Column, texts: Sequence[str], decimal: str) -> np.ndarray:
    if column.kind in NAMED:
        return _codes(column, texts, to_numbers(texts, decimal), decimal)
    if column.kind == "date":
        assert column.format is not None
        return dates.to_seconds(texts, column.format) / column.unit
    return to_numbers(texts, decimal)


def _of_values(column: Column, values: Any, decimal: str) -> np.ndarray:
    own = own_numbers(values)
    if column.kind in NAMED:
        return _codes(column, [name_of(value) for value in values], own, decimal)
    if (values.dtype.kind == "M") != (column.kind == "date"):
        return np.full(len(values), np.nan)
    return own / column.unit if column.kind == "date" else own


def _codes(column: Column, names: Sequence[str], numbers: np.ndarray, decimal: str) -> np.ndarray:
    """Return positions among the categories, by their names, or by what these and the values are as numbers.

    The spaces around a name don't count where that leaves one category.
    """
    at = {name: float(i) for i, name in enumerate(column.categories)}
    codes = np.array([at.get(name, np.nan) for name in names], dtype=np.float64)
    if (unknown := np.isnan(codes)).any():
        stripped = Counter(name.strip() for name in column.categories)
        alone = {name.strip(): code for name, code in at.items() if stripped[name.strip()] == 1}
        codes[unknown] = [alone.get(names[i].strip(), np.nan) for i in np.flatnonzero(unknown).tolist()]
    if (unknown := np.isnan(codes) & np.isfinite(numbers)).any():
        values = to_numbers(column.categories, decimal).tolist()
        at_number = {
            value: at[name] for name, value in zip(column.categories, values, strict=True) if not is_code(name)
        }
        codes[unknown] = [at_number.get(number, np.nan) for number in numbers[unknown].tolist()]
    return codes
