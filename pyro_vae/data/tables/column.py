"""What one column of a table is."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from pyro_vae.data.tables import dates
from pyro_vae.data.tables.numbers import NumberFormat, is_format
from pyro_vae.machine.facts import check_facts

NUMBERS = ("number", "count", "date", "ordinal")
MODELLED = (*NUMBERS, "yes/no", "category")  # in the order of a tensor's columns
SET_ASIDE = ("constant", "identifier", "text", "dropped")
KINDS = (*MODELLED, *SET_ASIDE)
NAMED = ("yes/no", "category", "ordinal")  # whose values are categories
UNORDERED = ("yes/no", "category")  # of whose numbers no mean or difference has a meaning

MAX_CATEGORIES = 2**16 - 1
MAX_RATIO = 1000  # of the steps of two grids
MAX_LENGTH = 2**12  # characters of a name

_NUMBER_TYPE = r"bool(?:ean)?|u?int(?:8|16|32|64)|float(?:16|32|64)|U?Int(?:8|16|32|64)|Float(?:32|64)"
_TEXT_TYPE = r"object|str|string(?:\[(?:python|pyarrow)\])?|large_string\[pyarrow\]"
_ARROW_TYPE = r"(?:bool|u?int(?:8|16|32|64)|halffloat|float|double)\[pyarrow\]"
_TIME_TYPE = r"timedelta64\[(?:s|ms|us|ns)\]|datetime64\[(?:s|ms|us|ns)(?:, (?!dateutil)[\w/+:\-]{1,40})?\]"
DTYPE = re.compile(
    f"{_NUMBER_TYPE}|{_TEXT_TYPE}|{_ARROW_TYPE}|{_TIME_TYPE}"
    rf"|category\[(?:{_NUMBER_TYPE}|{_TEXT_TYPE})(?:, ordered)?\]"
)
TEXT_DTYPE = re.compile(_TEXT_TYPE)

_FACTS: dict[str, tuple] = {
    "name": (str,), "kind": (str,), "dtype": (str,), "loc": (float, int), "scale": (float, int),
    "step": (float, int, None), "coarse": (float, int, None), "heaped": (float, int),
    "low": (float, int, None), "high": (float, int, None), "categories": ([str],),
    "format": (str, None), "blank": (str, None), "value": (str, None), "blanks": (float, int),
    "seen": ([float, int], None), "why": (str,),
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column of a table: what it is, and how its values become numbers of a model and back.

    A number ``v`` is ``(v - loc) / scale`` to the model, computed in 64 bits; a category is its position among
    ``categories``, and so is an ordinal before it is centred and scaled. A date is a number of days since 1970, or of
    seconds where its format says more than the day, in UTC where it has a time zone.

    Attributes:
        name: The column's name.
        kind: "number", "count", "date", "ordinal", "yes/no" or "category", which are modelled; "constant",
            "identifier", "text" or "dropped", which are set aside.
        dtype: What pandas calls the type of its values: "str" or "object" of text, to which all of a .csv file belong.
        loc: What is subtracted, in the column's own units; of whole numbers an int, which has all its digits.
        scale: What is divided by, in the column's own units, positive.
        step: The grid that all values lie on, ``loc`` included: 1 of whole numbers, 0.01 of two decimals. None where
            values are continuous, or the grid is too fine for 32 bits.
        coarse: The step of a grid on which more values lie than chance would have there: 1 where most were rounded to
            whole numbers and others to two decimals. None where there is none.
        heaped: How many of the values were rounded to that grid, as a share.
        low: The smallest value that there may be: 0 of a count. None where there is none.
        high: The largest.
        categories: The names of the values 0, 1, 2, … of a "yes/no", "category" or "ordinal", as they are written.
        format: How values are written: of dates as :func:`time.strftime` takes it, of numbers as ".2f" for two
            decimals, ".0-2f" for at most two.
        blank: How a blank is written; None where pandas has a value of its own for it.
        value: Of a constant, as it is written; None of a column that is wholly blank.
        blanks: The share of cells that were blank.
        seen: The smallest and the largest number that were seen, in the column's own units.
        why: Why the column is set aside.
    """

    name: str
    kind: str
    dtype: str
    loc: float = 0.0
    scale: float = 1.0
    step: float | None = None
    coarse: float | None = None
    heaped: float = 0.0
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()
    format: str | None = None
    blank: str | None = None
    value: str | None = None
    blanks: float = 0.0
    seen: tuple[float, float] | None = None
    why: str = ""

    def __post_init__(self) -> None:
        for name, ok, expected in self._requirements():
            if not ok:
                came = repr(getattr(self, name))
                raise ValueError(f"column {self.name[:50]!r}: {name}: expected {expected}, got {came[:100]}")

    def _requirements(self) -> list[tuple[str, bool, str]]:
        num = len(self.categories)
        texts = (self.name, self.blank or "", self.value or "", self.why, *self.categories)
        least, most = (2 if self.kind in NAMED else 0), (2 if self.kind == "yes/no" else MAX_CATEGORIES)
        is_known = not self.categories or self.value in (None, *self.categories)
        is_number = self.kind in ("number", "count")
        is_time = self.dtype.startswith("datetime64")
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        return [
            ("name", all(len(text) <= MAX_LENGTH for text in texts), f"texts of at most {MAX_LENGTH:,} characters"),
            ("kind", self.kind in KINDS, f"one of {', '.join(KINDS)}"),
            ("dtype", DTYPE.fullmatch(self.dtype) is not None, "a type of numbers, dates, text or categories"),
            ("dtype", self.kind != "date" or self.is_text or is_time, "a type of dates or text"),
            ("dtype", not is_number or not (is_time or self.dtype.startswith("category")), "a type of numbers or text"),
            ("loc", math.isfinite(self.loc), "a finite number"),
            ("scale", math.isfinite(self.scale) and self.scale > 0, "a positive number"),
            ("step", self.step is None or (math.isfinite(self.step) and self.step > 0), "a positive number"),
            ("coarse", self.coarse is None or self.is_heaped, "a whole multiple of a step, of a column without bounds"),
            ("heaped", 0 <= self.heaped < 1, "a share from 0 to 1"),
            ("low", all(map(math.isfinite, bounds)) and bounds == sorted(bounds), "finite bounds, the lower one first"),
            ("categories", least <= num <= most, f"from {least} to {most:,} names"),
            ("categories", len(set(self.categories)) == num, "names that differ"),
            ("blanks", 0 <= self.blanks <= 1, "a share from 0 to 1"),
            ("seen", self.seen is None or len(self.seen) == 2, "two numbers"),
            ("format", self.kind != "date" or dates.is_format(self.format), "a format of dates, such as '%Y-%m-%d'"),
            ("format", not is_number or self.format is None or is_format(self.format), "one of numbers, such as '.2f'"),
            ("value", is_known, "one of the categories"),
        ]  # fmt: skip

    @property
    def is_text(self) -> bool:
        """Whether the cells are text."""
        return TEXT_DTYPE.fullmatch(self.dtype) is not None

    @property
    def is_heaped(self) -> bool:
        """Whether values were rounded to two grids, of which the coarser is one of whole numbers of the finer."""
        if self.coarse is None or self.step is None or {self.low, self.high} != {None}:
            return False
        ratio = self.coarse / self.step
        return 2 <= ratio <= MAX_RATIO and abs(ratio - round(ratio)) < 1e-6 * ratio and self.heaped > 0

    @property
    def least(self) -> float | None:
        """The smallest number that was seen, which stands for all of a model's below 0; None where that is seen too."""
        return self.seen[0] if self.kind == "number" and self.seen is not None and self.seen[0] >= 0 else None

    @property
    def unit(self) -> int:
        """How many seconds the own unit of a date has."""
        return 1 if dates.has_time(self.format or "") else dates.SECONDS

    @property
    def unit_name(self) -> str:
        """What stands behind a difference of two values: nothing but of dates."""
        return "" if self.kind != "date" else " days" if self.unit > 1 else " s"

    @property
    def decimals(self) -> int | None:
        """How many decimals the own values have at most; None where they are as many as 64 bits hold."""
        if self.kind in ("number", "count"):
            return NumberFormat.parse(self.format).decimals if self.format else None
        return 6 if self.kind == "date" and "f" in (self.format or "") else 0

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds of it: all that is not as it would be by default."""
        default = {field.name: field.default for field in fields(self)}
        facts = {name: fact for name, fact in asdict(self).items() if fact != default[name]}
        return {name: list(fact) if isinstance(fact, tuple) else fact for name, fact in facts.items()}

    @classmethod
    def from_dict(cls, facts: Any) -> "Column":
        """Return the column that a mapping from :meth:`as_dict` describes, which may be a stranger's.

        Raises:
            ValueError: Naming the fact, what was expected, and what came.
        """
        facts = check_facts("a column of the table", facts, **_FACTS)
        if unknown := set(facts) - set(_FACTS):
            raise ValueError(f"a column of the table: expected none of {', '.join(sorted(map(str, unknown)))[:100]}")
        if missing := {"name", "kind", "dtype"} - set(facts):
            raise ValueError(f"a column of the table: expected {', '.join(sorted(missing))}, got nothing")
        tuples: Mapping[str, Any] = {name: tuple(facts[name]) for name in ("categories", "seen") if facts.get(name)}
        try:
            return cls(**{**facts, **tuples})
        except OverflowError:
            raise ValueError(f"column {facts['name'][:50]!r}: expected numbers that fit in 64 bits") from None

    def describe(self) -> str:
        """Return in a few words what the column holds.

        Example:
            >>> Column("age", "count", "str", format=".0f", blank="?", blanks=0.05, seen=(17.0, 90.0)).describe()
            "17 to 90, 5 % blank ('?')"
        """
        parts = []
        if self.kind in SET_ASIDE:
            parts.append(f"set aside: {self.why}")
        elif self.categories:
            some = ", ".join(name if len(name) <= 30 else name[:29] + "…" for name in self.categories[:6])
            parts.append(f"{len(self.categories)}: {some}{', …' if len(self.categories) > 6 else ''}")
        elif self.seen is not None:
            parts.append(f"{self.written(self.seen[0])} to {self.written(self.seen[1])}")
            if self.step is not None and self.step != 1 and self.kind != "date":
                coarse = "" if self.coarse is None else f", {100 * self.heaped:.0f} % of {self.coarse:g}"
                parts.append(f"in steps of {self.step:g}{coarse}")
        if self.kind == "date":
            parts.append(f"written {self.format}")
        if 0 < self.blanks < 1:
            spelt = "" if self.blank is None else f" ({self.blank!r})" if self.blank else " (empty)"
            parts.append(f"{100 * self.blanks:.2g} % blank{spelt}")
        return ", ".join(parts)

    def written(self, value: float, decimal: str = ".") -> str:
        """Return a value, in own units, as it is written; of what is between two categories the next one.

        Example:
            >>> Column("age", "count", "str", format=".0f").written(38.4)
            '38'
        """
        import numpy as np

        if self.kind in NAMED:
            return self.categories[min(max(round(value), 0), len(self.categories) - 1)]
        if self.kind == "date" and self.format is not None:
            return dates.write(np.array([value * self.unit]), self.format)[0]
        return NumberFormat.parse(self.format).write(np.array([value]), decimal)[0] if self.format else f"{value:g}"
