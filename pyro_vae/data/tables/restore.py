"""Numbers of a model as the cells of a column, as its user wrote them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyro_vae.data.tables import dates
from pyro_vae.data.tables.column import NAMED, TEXT_DTYPE, Column
from pyro_vae.data.tables.numbers import NumberFormat, to_numbers

NANOSECONDS = 9_223_372_036.0  # from 1970, in seconds: what fits in 64 bits
LARGEST_WHOLE = 2.0**62


def from_model(column: Column, x: np.ndarray, decimal: str) -> Any:
    """Return numbers of a model as the cells of a column, a ``pandas.Series``.

    Args:
        column: What the column is.
        x: Numbers of a model, (N,) float64; NaN is blank.
        decimal: The decimal mark of texts.
    """
    blank = np.isnan(x)
    own = from_standardised(column, np.where(blank, 0.0, x))
    if column.kind in NAMED:
        codes = np.clip(own, 0, len(column.categories) - 1).astype(np.int64)
        return _named(column, column.categories, np.where(blank, -1, codes))
    if column.kind == "date":
        own = own * column.unit
    if not column.is_text:
        return _typed(own, blank, column.dtype)
    if column.kind == "date":
        return _text(column, dates.write(own, column.format or ""), blank)
    return _text(column, NumberFormat.parse(column.format or ".17g").write(own, decimal), blank)


def constant(column: Column, num: int) -> Any:
    """Return ``num`` cells of a constant column, a ``pandas.Series``."""
    names = column.categories or (() if column.value is None else (column.value,))
    return _named(column, names, np.full(num, -1 if column.value is None else names.index(column.value)))


def from_standardised(column: Column, x: np.ndarray) -> np.ndarray:
    """Return numbers of a model in the column's own units, on its grid, within its bounds and not below its 0.

    They are computed in whole numbers of the last decimal, where 64 bits hold these: the result is the very number
    that is written with so many decimals.
    """
    own = x * column.scale  # from loc
    if column.step is not None:
        own = np.round(own / column.step) * column.step
    decimals = column.decimals
    base = 10.0 ** (decimals or 0)
    if decimals is None or max(abs(column.loc), np.abs(own).max(initial=0)) * base >= LARGEST_WHOLE:
        own = own + column.loc
    else:
        is_whole = isinstance(column.loc, int) or column.loc.is_integer()
        loc = int(column.loc) * 10**decimals if is_whole else round(column.loc * base)
        rest = 0.0 if is_whole else column.loc * base - loc
        own = np.round(own * base + rest).astype(np.int64) + loc
        own = own if decimals == 0 else own / base
    for bound, within in ((column.low, np.maximum), (column.high, np.minimum)):
        if bound is not None:
            own = within(own, round(bound) if own.dtype.kind == "i" else bound)
    if column.least is not None:
        least = round(column.least) if own.dtype.kind == "i" else column.least
        own = np.where((own < 0) | ((own == 0) & (least > 0)), least, own)
    return own


def _text(column: Column, texts: Sequence[str], blank: np.ndarray) -> Any:
    import pandas

    cells = np.array(texts, dtype=object)
    cells[blank] = column.blank
    return pandas.Series(cells, dtype=object).astype(column.dtype)


def _typed(own: np.ndarray, blank: np.ndarray, dtype: str) -> Any:
    """Return numbers, of times in seconds, with a type; where this has no blank and there is one, with a wider type."""
    import pandas

    into = pandas.api.types.pandas_dtype(dtype)
    if into.kind in "Mm":
        first, last = (-NANOSECONDS, NANOSECONDS) if "ns" in dtype or into.kind == "m" else (dates.FIRST, dates.LAST)
        micros = np.round(np.clip(own, first, last) * 1e6).astype(np.int64)
        values = micros.astype("datetime64[us]" if into.kind == "M" else "timedelta64[us]")
        values[blank] = np.array("NaT", dtype=values.dtype)
        series = pandas.Series(values)
        return (series.dt.tz_localize("UTC") if hasattr(into, "tz") else series).astype(dtype)
    if into.kind in "iu":
        limits = np.iinfo(f"{into.kind}{into.itemsize}")
        own = np.clip(own, limits.min, min(limits.max, 2**63 - 1))  # what is computed is of 64 bits with a sign
    if into.kind == "b":
        own = own != 0
    series = pandas.Series(own)
    if not blank.any():
        return series.astype(dtype)
    if not isinstance(into, np.dtype):
        nullable = {"b": "boolean", "i": "Int64"}.get(own.dtype.kind, "Float64")
        return series.astype(nullable).mask(blank).astype(dtype)
    wider = {"b": "object", "f": dtype}.get(into.kind, "float64")
    return series.astype(wider).mask(blank)


def _named(column: Column, names: Sequence[str], codes: np.ndarray) -> Any:
    """Return the values of some names at positions, (N,), blank at -1."""
    import pandas

    blank = codes < 0
    if column.is_text:
        return _text(column, np.array([*names, ""], dtype=object)[codes], blank)
    if not column.dtype.startswith("category"):
        return _typed(np.append(_numbers(names, column.dtype), 0)[codes], blank, column.dtype)
    kept, _, ordered = column.dtype.removeprefix("category[").removesuffix("]").partition(", ")
    if TEXT_DTYPE.fullmatch(kept):
        values = pandas.Series(list(names), dtype=object).astype(kept)
    else:
        values = _typed(_numbers(names, kept), np.zeros(len(names), dtype=bool), kept)
    return pandas.Series(pandas.Categorical.from_codes(codes, categories=pandas.Index(values), ordered=bool(ordered)))


def _numbers(names: Sequence[str], dtype: str) -> np.ndarray:
    """Return what names of typed values stand for, as numbers, of times in seconds."""
    import pandas

    match pandas.api.types.pandas_dtype(dtype).kind:
        case "b":
            return np.array([name == "True" for name in names], dtype=np.int64)
        case "M":
            return dates.seconds_of(pandas.to_datetime(list(names), utc=True).tz_localize(None))
        case "m":
            return np.asarray(pandas.to_timedelta(list(names)).total_seconds())
        case _:
            return to_numbers(names)
