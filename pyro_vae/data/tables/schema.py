"""A table's columns, and the tensor of a model that they become."""

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_vae.data.tables.column import MODELLED, NAMED, NUMBERS, UNORDERED, Column
from pyro_vae.data.tables.form import Form
from pyro_vae.data.tables.restore import constant, from_model
from pyro_vae.data.tables.standardise import to_model, to_values
from pyro_vae.machine.facts import check_facts
from pyro_vae.machine.memory import check_memory
from pyro_vae.machine.progress import Progress, reported

MAX_COLUMNS = 2**14
SHOWN, WIDTH = 9, 110  # columns that are shown, each in a line of so many characters at most


@dataclass(frozen=True, repr=False)
class Schema:
    """What the columns of a table are, and how it was written.

    Categories are called as they stand in the table, to the letter: " yes" and "yes" are two. Where a file has a space
    behind every separator, this belongs to the separators. Spaces around numbers and dates say nothing.

    Attributes:
        columns: All columns, in the order of the table.
        form: How the table was written.
    """

    columns: tuple[Column, ...]
    form: Form = field(default_factory=Form)

    def __post_init__(self) -> None:
        names = {column.name for column in self.columns}
        if not 0 < len(names) == len(self.columns) <= MAX_COLUMNS:
            raise ValueError(
                f"columns: expected from 1 to {MAX_COLUMNS:,} whose names differ, got {len(self.columns):,} with "
                f"{len(names):,} names"
            )

    def __repr__(self) -> str:
        lines = self.describe() if len(self.columns) <= SHOWN else [*self.describe()[: SHOWN - 1], "…"]
        head = f"Schema of {len(self.columns):,} columns ({self.form.describe()})"
        return "\n  ".join([head, *(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines)])

    @property
    def modelled(self) -> tuple[Column, ...]:
        """The columns of the tensor, in its order: numbers, counts, dates and ordinals, then yes/no, then categories.

        Categories are sorted by how many there are, so that those with as many are neighbours.
        """

        def turn(column: Column) -> tuple[int, int]:
            group = 0 if column.kind in NUMBERS else MODELLED.index(column.kind)
            return group, len(column.categories) if column.kind == "category" else 0

        return tuple(sorted((column for column in self.columns if column.kind in MODELLED), key=turn))

    def encode(
        self,
        frame: Any,
        *,
        strict: bool = True,
        dtype: torch.dtype = torch.float32,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return a table as numbers of a model, (N, D), in the order of :attr:`modelled`; NaN where a cell is blank.

        Args:
            frame: A ``pandas.DataFrame`` with these columns in any order. Others are left out, with a warning.
            strict: Refuse a value that the schema does not know, such as a new category; otherwise it is blank.
            dtype: Of the result; numbers are centred and scaled in float64 before.
            progress: Called with the number of columns done, and of all.

        Raises:
            ValueError: If a column is missing, or a cell holds what it can't: which, what came, and the way out.
        """
        at = {str(label): i for i, label in enumerate(frame.columns)}
        modelled = self.modelled
        if missing := [column.name for column in modelled if column.name not in at]:
            raise ValueError(
                f"the table: expected a column {missing[0]!r}, but its columns are {', '.join(at)[:300]}; add "
                f"{'it' if len(missing) == 1 else ', '.join(missing)[:300]}, or make it blank"
            )
        if extra := [name for name in at if name not in {column.name for column in self.columns}]:
            warnings.warn(
                f"the table: {', '.join(extra)[:300]}: no such column is known, and it is left out", stacklevel=2
            )
        check_memory("the table", len(frame) * len(modelled) * dtype.itemsize, "take fewer rows at a time")
        x = torch.empty(len(frame), len(modelled), dtype=dtype)
        for d, column in reported([*enumerate(modelled)], progress):
            own = to_model(column, frame.iloc[:, at[column.name]], self.form.decimal, strict)
            x[:, d] = torch.from_numpy(own)
        return x

    def values(self, frame: Any, decimal: str | None = None) -> Any:
        """Return the modelled columns that a table has, a ``pandas.DataFrame``, as numbers in own units and categories.

        Args:
            frame: A ``pandas.DataFrame`` with some of these columns.
            decimal: The decimal mark of its texts. Default: that of the schema.

        Raises:
            ValueError: If a cell holds what it can't; a new category is none of these.

        Example:
            >>> import pandas
            >>> schema = Schema((Column("age", "count", "str", blank="?"), Column("x", "constant", "str", value="a")))
            >>> schema.values(pandas.DataFrame({"x": ["a", "a"], "age": ["38", "?"]}))["age"].tolist()
            [38.0, nan]
        """
        import pandas

        known = {column.name: column for column in self.columns if column.kind in MODELLED}
        columns = {str(name): frame.iloc[:, i] for i, name in enumerate(frame.columns)}
        decimal = self.form.decimal if decimal is None else decimal
        return pandas.DataFrame(
            {name: to_values(known[name], cells, decimal) for name, cells in columns.items() if name in known}
        )

    def decode(self, x: Tensor) -> Any:
        """Return numbers of a model as a table, a ``pandas.DataFrame``, with values as its user wrote them.

        Numbers are rounded to the grid that the column's values lie on, categories are their names, constants are
        there, NaN is a blank. Identifiers and texts, which are not modelled, are left out.

        Args:
            x: Numbers, (N, D), in the order of :attr:`modelled`.
        """
        import pandas

        modelled = self.modelled
        if x.dim() != 2 or x.shape[1] != len(modelled):
            raise ValueError(
                f"x: expected shape (N, {len(modelled)}), a column for each that is modelled, got {tuple(x.shape)}"
            )
        at = {column.name: d for d, column in enumerate(modelled)}
        numbers = x.detach().cpu()
        cells = {}
        for column in self.columns:
            if column.name in at:
                own = numbers[:, at[column.name]].double().numpy()
                cells[column.name] = from_model(column, own, self.form.decimal)
            elif column.kind == "constant":
                cells[column.name] = constant(column, len(x))
        frame = pandas.DataFrame(cells, index=pandas.RangeIndex(len(x)), copy=False)
        if self.form.header == "numbers":
            frame.columns = [int(name) for name in frame.columns]
        return frame

    def in_units(self, x: Tensor, *, spread: bool = False) -> Tensor:
        """Return numbers of a model, (..., D), or their ``spread``, in the columns' own units, in 64 bits.

        Of a category it is its number, and so of yes/no: of a probability that of the likelier one.
        """
        modelled = self.modelled
        loc, scale = torch.tensor([(c.loc, c.scale) for c in modelled], dtype=torch.float64).T
        if spread:
            return x.double().cpu() * scale
        own = x.double().cpu() * scale + loc
        return torch.where(torch.tensor([c.kind in UNORDERED for c in modelled]), own.round(), own)

    @property
    def words(self) -> dict[int, tuple[str, ...] | Callable[[float], str]]:
        """What values in own units stand for where they are no numbers, by the place of their column in a tensor.

        The names of the categories 0, 1, …; of dates what writes one.
        """
        said = {d: column.categories or column.written for d, column in enumerate(self.modelled)}
        return {d: words for d, words in said.items() if self.modelled[d].kind in (*NAMED, "date")}

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        return {"columns": [column.as_dict() for column in self.columns], "form": asdict(self.form)}

    @classmethod
    def from_dict(cls, facts: Any) -> "Schema":
        """Return the schema that a mapping from :meth:`as_dict` describes, which may be a stranger's.

        Raises:
            ValueError: Naming the fact, what was expected, and what came.
        """
        facts = check_facts("the table", facts, columns=([dict],), form=(dict,))
        if set(facts) != {"columns", "form"}:
            raise ValueError(f"the table: expected columns and form, got {', '.join(sorted(map(str, facts)))[:100]}")
        names = ("file", "separator", "decimal", "encoding", "newline", "header")
        form = check_facts("the table: form", facts["form"], **dict.fromkeys(names, (str,)), padded=(bool,))
        if unknown := set(form) - {*names, "padded"}:
            raise ValueError(f"the table: form: expected none of {', '.join(sorted(map(str, unknown)))[:100]}")
        if len(facts["columns"]) > MAX_COLUMNS:
            raise ValueError(f"the table: expected at most {MAX_COLUMNS:,} columns, got {len(facts['columns']):,}")
        return cls(tuple(map(Column.from_dict, facts["columns"])), Form(**form))

    def describe(self) -> list[str]:
        """Return a line for each column: its name, its kind and what it holds, or why it is set aside.

        Example:
            >>> print(*Schema((Column("a", "yes/no", "str", categories=("no", "yes")),)).describe(), sep="\\n")
            a  yes/no  2: no, yes
        """
        shown = [column.name if len(column.name) <= 40 else column.name[:39] + "…" for column in self.columns]
        width, kinds = max(map(len, shown)), max(len(column.kind) for column in self.columns)
        return [
            f"{name:{width}}  {column.kind:{kinds}}  {column.describe()}".rstrip()
            for name, column in zip(shown, self.columns, strict=True)
        ]
