"""What the columns of a table are, found from their cells."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pyro_vae.data.tables import dates
from pyro_vae.data.tables.cells import Cells, read_cells
from pyro_vae.data.tables.column import KINDS, MAX_CATEGORIES, MAX_LENGTH, MAX_RATIO, SET_ASIDE, Column
from pyro_vae.data.tables.form import Form
from pyro_vae.data.tables.numbers import NumberFormat
from pyro_vae.data.tables.schema import Schema
from pyro_vae.machine.progress import Progress, reported

FEW = 10  # distinct numbers at most are ordered categories, where there are that many cells of each in the mean
REPEATED, OFTEN, MANY = (
    2,
    10,
    100,
)  # times that a text is there in the mean where it is a category; where there are many
LEAST_HEAPED, MOST_HEAPED = 0.1, 0.999  # share of values rounded to a coarser grid, and the most that is taken for one
SURE_GAIN = 10  # nats by which a coarser grid is likelier than chance
FINEST = 1e-4  # of a scale: on a finer grid 32 bits don't tell neighbours apart well enough to take differences
HEAVY = 5.0  # times that the standard deviation is wider than the middle four fifths would have it
MIDDLE = 2.5631  # the width of the middle four fifths of a normal distribution, in standard deviations
DIGITS = 4 * 2.0**-23  # of a scale: what 32 bits resolve a few scales away from the middle

_IDENTIFIER = re.compile(
    r"(?i:^$|^column \d+$|^unnamed: \d+$|(^|[\s_.\-])(id|ids|index|idx|uuid|guid|key|rowid)$)|[a-z](ID|Id)$"
)


def find_schema(
    frame: Any, *, wanted: Mapping[str, str] | None = None, form: Form | None = None, progress: Progress | None = None
) -> Schema:
    """Return what the columns of a table are.

    A column is, by the first of these rules that holds,

    - a constant, where there is one value at most;
    - a date, where all cells are dates in one format, or of such a type;
    - yes/no, where there are two values, in four cells at least;
    - an identifier, where whole numbers count the rows, or all differ in a column that is called so;
    - an ordinal, where there are at most 10 numbers, each in 10 cells in the mean; or where the type says so;
    - a count, where there are whole numbers from 0 up, and the smallest is nearer to 0 than to the largest;
    - a number, where all cells are numbers;
    - a category, where a text is in two cells in the mean, or in ten where there are more than 100;
    - else text, where most cells have spaces, or an identifier.

    Cells that are empty, ``?`` or spelt like NA are blank; among numbers and dates also ``-``, ``none`` and alike, and
    a single word that is in at most 5 % of the cells. Numbers with zeros before them, such as postal codes, are text.

    Args:
        frame: A ``pandas.DataFrame``, of text as :func:`read_frame` returns it, or with types.
        wanted: Kinds by the name of a column, which are taken instead of those found: "category";
            "ordinal:low<middle<high" with the order, "date:%d/%m/%Y" with the format.
        form: How the table was written. Default: a data frame in memory.
        progress: Called with the number of columns done, and of all.

    Raises:
        ValueError: Naming the column, what was expected, what came, and the way out.

    Example:
        >>> import pandas
        >>> schema = find_schema(pandas.DataFrame({"age": [31, 45, 27, 38], "sex": ["f", "m", "f", "f"]}))
        >>> [(column.name, column.kind) for column in schema.columns]
        [('age', 'number'), ('sex', 'yes/no')]
    """
    names, form = _check_frame(frame, form)
    wanted = wanted or {}
    if unknown := next((name for name in wanted if name not in names), None):
        raise ValueError(f"schema: expected the name of a column, one of {', '.join(names)[:300]}, got {unknown!r}")
    columns = tuple(
        find_column(name, frame.iloc[:, i], form, wanted.get(name, ""))
        for i, name in reported([*enumerate(names)], progress)
    )
    if all(column.kind in SET_ASIDE for column in columns):
        why = "; ".join(f"{column.name[:50]!r} is set aside: {column.why}" for column in columns[:3])
        raise ValueError(
            f"the table: expected a column to model, but {why}{'; …' * (len(columns) > 3)}; correct the table, or say "
            f"what a column is, such as {columns[0].name[:50]}=category"
        )
    return Schema(columns, form)


def _check_frame(frame: Any, form: Form | None) -> tuple[list[str], Form]:
    """Return the names of a table's columns, and how it was written, or refuse what is no table."""
    import pandas

    if not isinstance(frame, pandas.DataFrame):
        raise ValueError(f"frame: expected a pandas.DataFrame, got {type(frame).__name__}")
    names = [str(label) for label in frame.columns]
    if 0 in frame.shape:
        raise ValueError(f"the table: expected rows and columns, got {len(frame)} rows and {len(names)} columns")
    if long := next((name for name in names if len(name) > MAX_LENGTH), None):
        raise ValueError(f"the table: expected names of at most {MAX_LENGTH:,} characters, got {long[:50]!r}…")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the table: expected names that differ, but two columns are called {twice!r}; rename one")
    numbered = all(isinstance(label, int | np.integer) for label in frame.columns)
    return names, form or Form(header="numbers" if numbered else "names")


def find_column(name: str, series: Any, form: Form, wanted: str = "") -> Column:
    """Return what one column is, or what is wanted of it; see :func:`find_schema`."""
    kind, _, detail = wanted.partition(":")
    if kind not in ("", *KINDS):
        raise ValueError(f"schema: {name}={wanted}: expected one of {', '.join(KINDS)}, got {kind!r}")
    if detail and (kind not in ("ordinal", "date") or (kind == "date" and not dates.is_format(detail))):
        raise ValueError(
            f"schema: {name}={wanted}: expected ordinal:low<middle<high with an order, or date:%d/%m/%Y with a format"
        )
    if kind == "dropped":
        return Column(name, kind, "object", why="as asked for")
    cells = read_cells(name, series, form, kind, detail if kind == "date" else "")
    kind = kind or _kind(cells, "ordered" in cells.dtype)
    column = _MAKERS[kind](cells, kind, detail)
    return replace(column, blank=cells.blank, blanks=(len(cells.codes) - cells.num) / len(cells.codes))


def _kind(cells: Cells, ordered: bool) -> str:
    """Return what a column is, by the rules of :func:`find_schema`."""
    num_values = int((cells.counts > 0).sum())
    if num_values <= 1:
        return "constant"
    if cells.is_date:
        return "date"
    if (cells.order and len(cells.order) == 2) or (not cells.order and num_values == 2 and cells.num >= 4):
        return "yes/no"
    if cells.numbers is None:
        can_be = len(cells.names) <= MAX_CATEGORIES and max(map(len, cells.names)) <= MAX_LENGTH
        if can_be and num_values * (REPEATED if num_values <= MANY else OFTEN) <= cells.num:
            return "ordinal" if ordered else "category"
        return "text" if np.mean([" " in name.strip() for name in cells.names]) > 0.5 else "identifier"
    whole = bool((cells.numbers == np.round(cells.numbers)).all())
    if whole and num_values == cells.num > 2 and _counts_rows(cells.name, cells.numbers):
        return "identifier"
    if num_values <= FEW and cells.num >= FEW * num_values:
        return "ordinal"
    low, high = cells.numbers.min(), cells.numbers.max()
    is_count = whole and 0 <= low < high - low and not cells.dtype.startswith("timedelta")
    return "count" if is_count else "number"


def _counts_rows(name: str, numbers: np.ndarray) -> bool:
    """Whether whole numbers that differ count the rows: one by one from 0 or 1, or by their column's name."""
    steps = np.diff(numbers.astype(np.float64))
    return bool(numbers.min() in (0, 1) and (abs(steps) == 1).all()) or _IDENTIFIER.search(name) is not None


def _make_constant(cells: Cells, kind: str, detail: str) -> Column:
    if len(cells.seen) > 1:
        raise ValueError(
            f"schema: {cells.name}=constant: expected one value, got {len(cells.seen):,}; to set the column aside, say "
            f"{cells.name}=text"
        )
    value = next(iter(cells.seen), None)
    if value is not None and len(value) > MAX_LENGTH:
        return _make_aside(cells, "text", detail)
    why = "all cells are blank" if value is None else f"all values are {value[:50]!r}"
    return Column(cells.name, kind, cells.dtype, categories=cells.order, value=value, why=why)


def _make_aside(cells: Cells, kind: str, detail: str) -> Column:
    such = f", such as {cells.seen[0][:30]!r}" if cells.seen else ""
    return Column(cells.name, kind, cells.dtype, why=f"{len(cells.seen):,} values in {cells.num:,} cells{such}")


def _make_named(cells: Cells, kind: str, detail: str) -> Column:
    if detail:
        names = tuple(part.strip() for part in detail.split("<"))
        if unknown := next((name for name in cells.seen if name not in names), None):
            raise ValueError(
                f"schema: {cells.name}={kind}:{detail}: expected all values, but not {unknown[:50]!r}; add it"
            )
    elif cells.numbers is not None:
        names = tuple(cells.names[i] for i in np.argsort(cells.numbers, kind="stable"))
    elif kind == "ordinal" and not cells.order:
        raise ValueError(f"schema: {cells.name}=ordinal: expected an order of texts; say ordinal:low<middle<high")
    else:
        names = cells.order or tuple(sorted(cells.names))
    most = 2 if kind == "yes/no" else MAX_CATEGORIES
    if not 2 <= len(names) <= most:
        raise ValueError(
            f"schema: {cells.name}={kind}: expected {'2' if most == 2 else f'from 2 to {most:,}'} values, got "
            f"{len(names):,}; say another kind"
        )
    column = Column(cells.name, kind, cells.dtype, categories=names)
    if kind != "ordinal":
        return column
    at = {name: i for i, name in enumerate(names)}
    loc, scale = centre(np.array([at[name] for name in cells.names if name in at], dtype=np.float64), cells.counts)
    return replace(column, loc=float(round(loc)), scale=scale, step=1.0, low=0.0, high=float(len(names) - 1))


def _make_number(cells: Cells, kind: str, detail: str) -> Column:
    own = cells.numbers
    if own is None or cells.is_date or not own.size:
        came = repr(cells.names[0][:50]) if cells.names else "blanks alone"
        raise ValueError(f"schema: {cells.name}={kind}: expected numbers, got {came}; say another kind")
    if kind == "count" and not ((own == np.round(own)).all() and own.min() >= 0):
        wrong = cells.names[int(np.argmax((own != np.round(own)) | (own < 0)))]
        raise ValueError(
            f"schema: {cells.name}=count: expected whole numbers from 0 up, got {wrong!r}; say {cells.name}=number"
        )
    column = Column(cells.name, kind, cells.dtype, format=cells.format, low=0.0 if kind == "count" else None)
    return _shorter(_with_grid(column, own, cells.counts, column.decimals))


def _shorter(column: Column) -> Column:
    """Return a column that is written with no more decimals than 32 bits tell apart, six at least, if it may be.

    Where numbers have as many decimals as they need, a few of them often have 16 from a computation.
    """
    if column.format is None or column.seen is None:
        return column
    format = NumberFormat.parse(column.format)
    decimals = max(6, math.floor(-math.log10(DIGITS * column.scale)))
    if format.least < format.most:
        format = replace(format, most=min(format.most, max(format.least, decimals)))
    elif format.style in "gGrR":
        largest = max(column.scale, *map(abs, column.seen))
        digits = min(format.most, max(1, math.floor(math.log10(largest)) + 1 + decimals))
        format = replace(format, least=digits, most=digits)
    return replace(column, format=str(format))


def _make_date(cells: Cells, kind: str, detail: str) -> Column:
    if not cells.is_date or cells.numbers is None:
        came = repr(cells.names[0][:50]) if cells.names else "blanks alone"
        raise ValueError(f"schema: {cells.name}={kind}: expected dates, got {came}; say another kind")
    column = Column(cells.name, kind, cells.dtype, format=cells.format)
    if not dates.has_day(column.format or ""):
        column = replace(column, low=dates.NO_DAY, high=dates.NO_DAY + dates.SECONDS - 1)
    return _with_grid(column, cells.numbers / column.unit, cells.counts, column.decimals)


def _with_grid(column: Column, own: np.ndarray, counts: np.ndarray, decimals: int | None) -> Column:
    """Return a column of numbers, told where these are, how wide, and the grid that they lie on.

    The grid is that of their last decimal, or where ten values or more all lie on a coarser one this; chance would
    have them on one in less than a case of 500.
    """
    values = own.astype(np.float64)
    loc, scale = centre(values, counts)
    step, coarse, heaped = None, None, 0.0
    base = 10 ** (decimals or 0)
    is_whole = decimals == 0 and own.dtype.kind == "i"
    if decimals is not None and np.abs(values).max() * base < (2.0**62 if is_whole else 2.0**53):
        units = own if is_whole else np.round(values * base).astype(np.int64)
        first = int(units[0])
        unit = int(np.gcd.reduce(units - first)) if len(units) >= FEW else 1
        nearest = first + unit * round((loc * base - first) / unit)
        loc = nearest if decimals == 0 else nearest / base
        if unit / base >= FINEST * scale:
            step = unit / base
            if column.kind == "number" and np.abs(units).max() < 2**52:
                coarse, heaped = _heaps(units, counts, unit, scale * base)
    seen = float(values.min()), float(values.max())
    coarse = None if coarse is None else coarse / base
    return replace(column, loc=loc, scale=scale, step=step, coarse=coarse, heaped=heaped, seen=seen)


def _heaps(values: np.ndarray, counts: np.ndarray, step: int, scale: float) -> tuple[int | None, float]:
    """Return the step of the coarser grid to which a share of the values were rounded, and the share; None if to none.

    The values, their step and their scale are in whole units of the last decimal, and so is the result. Of the grids
    that are fine beside the width of all values, it is the one that explains most: by chance one in ``ratio`` of the
    values is on a grid, and a single value that repeats says nothing.
    """
    from scipy.special import rel_entr

    best: tuple[int | None, float] = (None, 0.0)
    others = np.arange(len(values)) != np.argmax(counts)
    most = 0.0
    for ratio in (5, 10, 20, 50, 100, 200, 500, MAX_RATIO):
        coarse = ratio * step
        if coarse > scale / 2:
            break
        on_grid = values % coarse == 0
        found = [(counts * on_grid * these).sum() / (counts * these).sum() for these in (others, others | True)]
        of_others, of_all = ((part - 1 / ratio) / (1 - 1 / ratio) for part in found)
        part, num = found[0], (counts * others).sum()
        gain = num * float(rel_entr([part, 1 - part], [1 / ratio, 1 - 1 / ratio]).sum())
        if min(of_others, of_all) > LEAST_HEAPED and gain > max(most, SURE_GAIN):
            best, most = (coarse, min(float(of_all), MOST_HEAPED)), gain
    return best


def centre(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return where numbers are, and how wide: mean and standard deviation, or of heavy tails median and middle.

    Args:
        values: Distinct numbers, (U,).
        counts: How often there is each, (U,).

    Example:
        >>> centre(np.array([-1.0, 1.0]), np.array([5, 5]))
        (0.0, 1.0)
    """
    order = np.argsort(values)
    below = np.cumsum(counts[order]) / counts.sum()
    low, median, high = (float(values[order][np.searchsorted(below, q)]) for q in (0.1, 0.5, 0.9))
    size = float(np.abs(values - median).max()) or 1.0  # squares of what is left neither overflow nor vanish
    rest = (values - median) / size
    mean = float(np.average(rest, weights=counts))
    scale = size * math.sqrt(np.average((rest - mean) ** 2, weights=counts))
    middle = (high - low) / MIDDLE
    if 0 < HEAVY * middle < scale:
        return median, middle
    return median + size * mean, scale or 1.0


_MAKERS: dict[str, Callable[[Cells, str, str], Column]] = {
    "constant": _make_constant, "identifier": _make_aside, "text": _make_aside,
    "yes/no": _make_named, "category": _make_named, "ordinal": _make_named,
    "number": _make_number, "count": _make_number, "date": _make_date,
}  # fmt: skip
