"""Tables as arrays: numbers, and categories as codes that all of them share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas

FEW = 20  # different texts that are categories, however few rows there are


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a table.

    Attributes:
        numbers: (N, P), NaN where blank.
        codes: Of categories, (N, Q), 0 where blank.
    """

    numbers: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: np.ndarray) -> "Cells":
        return Cells(self.numbers[rows], self.codes[rows])

    def some(self, most: int, rng: np.random.Generator) -> "Cells":
        """Return so many rows at most, drawn without replacement."""
        return self if len(self) <= most else self[np.sort(rng.choice(len(self), most, replace=False))]


@dataclass(frozen=True)
class Layout:
    """What the columns of :class:`Cells` are.

    Attributes:
        names: Of all that are compared, in the order of the table.
        numbers: The names of those with numbers, in their order.
        categories: The names of the others, with their categories: code 1, 2, ….
        left_out: Columns that are not compared, with the reason.
    """

    names: tuple[str, ...]
    numbers: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, str]


def to_cells(tables: Mapping[str, "pandas.DataFrame"]) -> tuple[Layout, dict[str, Cells]]:
    """Return tables, by what they are called, as arrays; the first says what is a number and what a category.

    Two different numbers are categories as well, such as 0 and 1. Texts that differ in more than half of the rows are
    names or remarks, and left out.

    Raises:
        ValueError: Naming the table, and the column.
    """
    for name, table in tables.items():
        _check(name, table)
    first = next(iter(tables))
    known = {str(column): None for table in tables.values() for column in table.columns}
    numbers: dict[str, list[np.ndarray]] = {}
    categories: dict[str, tuple[str, ...]] = {}
    codes, left_out = [], {}
    for name in known:
        lacking = [which for which, table in tables.items() if name not in _names(table)]
        if lacking:
            left_out[name] = f"not in {' and '.join(lacking)}"
            continue
        columns = {which: _without_spaces(table.iloc[:, _names(table).index(name)]) for which, table in tables.items()}
        if is_number(columns[first]):
            numbers[name] = [_to_numbers(which, name, column) for which, column in columns.items()]
            continue
        texts = [_to_texts(column) for column in columns.values()]
        if texts[0].nunique() > max(FEW, len(texts[0]) / 2):
            left_out[name] = "names or free text"
            continue
        categories[name] = tuple(dict.fromkeys(word for text in texts for word in text.value_counts().index))
        code = {word: i + 1 for i, word in enumerate(categories[name])}
        codes.append([text.map(code).fillna(0).to_numpy(np.int64) for text in texts])
    if not numbers and not categories:
        raise ValueError(f"{' and '.join(tables)}: expected tables with columns of the same names, got none to compare")
    cells = {
        which: Cells(
            _stacked([columns[i] for columns in numbers.values()], len(table), np.float64),
            _stacked([columns[i] for columns in codes], len(table), np.int64),
        )
        for i, (which, table) in enumerate(tables.items())
    }
    names = tuple(name for name in known if name not in left_out)
    return Layout(names, tuple(numbers), categories, left_out), cells


def is_number(column: "pandas.Series") -> bool:
    """Whether a column holds more than two different numbers or dates, and blanks perhaps, but nothing else."""
    import pandas

    if pandas.api.types.is_datetime64_any_dtype(column):
        return True
    if pandas.api.types.is_bool_dtype(column) or isinstance(column.dtype, pandas.CategoricalDtype):
        return False
    values = pandas.to_numeric(column.astype(object), errors="coerce")
    return bool(values.nunique() > 2 and (values.notna() | column.isna()).all())


def _check(name: str, table: "pandas.DataFrame") -> None:
    import pandas

    if not isinstance(table, pandas.DataFrame):
        raise ValueError(f"{name}: expected a data frame, got {type(table).__name__}; make it one: pandas.DataFrame(…)")
    names = _names(table)
    if len(table) == 0 or not names:
        raise ValueError(f"{name}: expected rows and columns, got {len(table):,} by {len(names):,}")
    if twice := [column for column in dict.fromkeys(names) if names.count(column) > 1]:
        raise ValueError(f"{name}: expected columns of different names, got {twice[0]} twice; rename one")


def _names(table: "pandas.DataFrame") -> list[str]:
    return [str(column) for column in table.columns]


def _without_spaces(column: "pandas.Series") -> "pandas.Series":
    """Return a column with its texts stripped, and blank where nothing is left of them; not that of a category."""
    if column.dtype.kind in "biufcmM" or hasattr(column, "cat"):
        return column
    texts = column.astype(object).map(lambda cell: cell.strip() if isinstance(cell, str) else cell)
    return texts.where(texts != "")


def _to_numbers(which: str, name: str, column: "pandas.Series") -> np.ndarray:
    import pandas

    if pandas.api.types.is_datetime64_any_dtype(column):
        return np.array([np.nan if pandas.isna(date) else date.timestamp() for date in column])
    values = pandas.to_numeric(column.astype(object), errors="coerce").to_numpy(np.float64)
    wrong = (np.isnan(values) & column.notna().to_numpy()) | np.isinf(values)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{which}: expected finite numbers in column {name}, got {str(column.iloc[row])!r} in row {row + 1}; "
            "make it blank, or remove the row"
        )
    return values


def _to_texts(column: "pandas.Series") -> "pandas.Series":
    """Return categories as texts: 1 and 1.0 are the same."""

    def text(cell: object) -> str:
        if isinstance(cell, int | float | np.number) and not isinstance(cell, bool):
            return np.format_float_positional(float(cell), trim="-")
        return str(cell)

    return column.astype(object).map(text, na_action="ignore")


def _stacked(columns: list[np.ndarray], num_rows: int, dtype: type) -> np.ndarray:
    return np.stack(columns, 1) if columns else np.empty((num_rows, 0), dtype)


def take_out(layout: Layout, column: str, table: Cells) -> tuple[Cells, np.ndarray]:
    """Return a table without a column, and the column, (N,); rows in which it is blank are left out."""
    if column in layout.categories:
        d = list(layout.categories).index(column)
        values, others = table.codes[:, d], Cells(table.numbers, np.delete(table.codes, d, 1))
        known = values != 0
    else:
        d = layout.numbers.index(column)
        values, others = table.numbers[:, d], Cells(np.delete(table.numbers, d, 1), table.codes)
        known = ~np.isnan(values)
    return others[known], values[known]
