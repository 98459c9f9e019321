"""What is asked of the rows of a table, in the words of its columns: cells that are given, and conditions."""

import operator
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.tables.cells import distinct
from pyro_vae.data.tables.column import NAMED, Column
from pyro_vae.data.tables.restore import from_standardised
from pyro_vae.data.tables.schema import Schema
from pyro_vae.data.tables.standardise import FARTHEST, expected, standardised, to_own

SIGNS = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
NEAR_STEP, NEAR_SCALE = 1e-6, 1e-4  # so far a value may be from what is written of it: of a step, or without, a scale


class Term(NamedTuple):
    """A name, a sign and a value, as they were written."""

    name: str
    sign: str
    value: str

    def __str__(self) -> str:
        return f"{self.name} in {self.value}" if self.sign == "in" else "".join(self)


def terms(option: str, text: str, names: Collection[str]) -> list[Term]:
    """Split a text with one comparison or more, between which are commas.

    A comma is between two where a name and a sign follow; all others belong to values.

    Args:
        option: That the text is the value of, for messages.
        text: Such as ``sex=female,age>=60``; signs are =, !=, <, <=, >, >=, and ``in`` before {a,b}.
        names: The names that are known, which may hold commas and signs.

    Raises:
        ValueError: If it is no such text.

    Example:
        >>> [str(term) for term in terms("where", "city=Washington, DC, age>=60", ["age"])]
        ['city=Washington, DC', 'age>=60']
    """
    sign = r"!=|<=|>=|==?|<|>|\bin\b(?=\s*\{)"
    starts = list(re.finditer(rf"(?:^|,)\s*({_any_of(names)}[^,=<>!{{}}]+?)\s*({sign})", text))
    ends = [*(match.start() for match in starts[1:]), len(text)][: len(starts)]
    found = [
        Term(match[1], match[2].replace("==", "="), text[match.end() : end].strip())
        for match, end in zip(starts, ends, strict=True)
    ]
    if not found or starts[0].start() > 0 or not all(term.value for term in found):
        raise ValueError(
            f"{option}: expected a column, a sign and a value, such as age=40,sex=female, got {text[:100]!r}"
        )
    return found


def _any_of(names: Collection[str]) -> str:
    """Return the beginning of a regular expression for one of some names, the longest first, or what follows."""
    return "".join(f"{re.escape(name)}|" for name in sorted(names, key=len, reverse=True))


def given_cells(text: str, names: Collection[str]) -> dict[str, str]:
    """Return the cells that a text such as ``sex=female,age=40`` gives, by the names of their columns; see `terms`.

    Raises:
        ValueError: If it is no such text, or gives a cell twice.
    """
    cells: dict[str, str] = {}
    for term in terms("given", text, names) if text else []:
        if term.sign != "=":
            raise ValueError(f"given: {term}: expected {term.name}=VALUE; other comparisons belong to where")
        if term.name in cells:
            raise ValueError(f"given: {term}: {term.name}={cells[term.name]} is given already; leave one out")
        cells[term.name] = term.value
    return cells


def as_row(cells: Mapping[str, Any], table: Schema) -> Tensor:
    """Return cells, by the names of their columns, as numbers of a model, (D,) float64; NaN where none is given.

    Args:
        cells: Texts, as the table has them, or values.
        table: What the columns are.

    Raises:
        ValueError: If there is no such column, or the value is none of it.
    """
    row = torch.full((len(table.modelled),), torch.nan, dtype=torch.float64)
    for name, value in cells.items():
        asked = f"given: {name}={value}"
        at, column = _find(asked, name, table)
        own = _own_value(asked, column, value, table)
        model = float(standardised(column, np.array([own]))[0])
        written = from_standardised(column, np.array([model]))[0]
        near = NEAR_STEP * column.step if column.step else NEAR_SCALE * column.scale
        if abs(written - own) > near:
            what = f"whole multiples of {column.step:g}" if column.step not in (None, 1) else "whole numbers"
            if column.least is not None and own <= 0:
                what = "numbers above 0" if column.least > 0 else "numbers from 0 up"
            bounds = ((column.low, "from {:g} up"), (column.high, "to {:g}"))
            within = " ".join(words.format(bound) for bound, words in bounds if bound is not None)
            raise ValueError(f"{asked}: expected {what} {within}".rstrip() + ", as all values of the column are")
        row[at] = model
    return row


@dataclass(frozen=True)
class Condition:
    """A comparison of a column with values.

    Attributes:
        text: As it was written.
        column: What is compared.
        at: Which column of a tensor it is.
        sign: One of `SIGNS`.
        values: With which, in the column's own units; one of several is enough.
    """

    text: str
    column: Column
    at: int
    sign: str
    values: tuple[float, ...]

    def holds(self, x: Tensor) -> Tensor:
        """Return for which rows, (N, D), it holds as they are written, (N,); where a cell is blank it does not."""
        cells = x[:, self.at].double().cpu().numpy()
        blank = np.isnan(cells)
        own = from_standardised(self.column, np.where(blank, 0.0, cells))
        held = np.any([SIGNS[self.sign](own, value) for value in self.values], axis=0) & ~blank
        return torch.from_numpy(held).to(x.device)


def read_conditions(text: str, table: Schema) -> tuple[Condition, ...]:
    """Return the conditions that a text holds, such as ``age>=60,sex!=male``, all of which have to hold.

    Args:
        text: See :func:`terms`; values are written as in the table, dates and decimals as well.
        table: What the columns are.

    Raises:
        ValueError: If there is no such column, the value is none of it, or the comparison makes no sense.
    """
    conditions = []
    for term in terms("where", text, [column.name for column in table.columns]) if text else []:
        asked = f"where: {term}"
        at, column = _find(asked, term.name, table)
        ordered = column.kind not in ("category", "yes/no")
        if not ordered and term.sign not in ("=", "!=", "in"):
            raise ValueError(f"{asked}: expected =, != or in {{a,b}}, since the values of {term.name} have no order")
        sign, values = term.sign, [term.value]
        if sign == "in":
            if column.kind not in NAMED or not term.value.endswith("}"):
                raise ValueError(
                    f"{asked}: expected {{a,b}} of categories after in; of numbers and dates say >= and <="
                )
            sign, values = "=", re.findall(rf"\s*({_any_of(column.categories)}[^,]+?)\s*(?:,|$)", term.value[1:-1])
        own = tuple(_own_value(asked, column, value, table) for value in values)
        conditions.append(Condition(str(term), column, at, sign, own))
    return tuple(conditions)


def _find(asked: str, name: str, table: Schema) -> tuple[int, Column]:
    """Return a column by its name, and which of a tensor's it is."""
    for at, column in enumerate(table.modelled):
        if column.name == name:
            return at, column
    aside = "".join(f" ({column.kind}: {column.why})" for column in table.columns if column.name == name)
    known = ", ".join(column.name for column in table.modelled)[:300]
    raise ValueError(f"{asked}: expected one of the columns {known}, got {name[:50]!r}{aside}")


def _own_value(asked: str, column: Column, value: Any, table: Schema) -> float:
    """Return a value of a column in its own units."""
    import pandas

    there, own = to_own(column, distinct(pandas.Series([value]))[1], table.form.decimal)
    if not there.any() or not abs(standardised(column, own)[0]) < FARTHEST:
        comma = " with decimals after a comma" * (table.form.decimal == "," and column.kind in ("number", "count"))
        raise ValueError(f"{asked}: expected {expected(column)}{comma}, got {str(value)[:50]!r}")
    return own[0].item()
