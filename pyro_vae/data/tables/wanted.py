"""What a user says of a table: the kinds of columns, which to leave out, and which rows to take."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_vae.machine.reading import read_yaml


def wanted_kinds(
    schema: Mapping[str, str] | str | None = None,
    columns: str | None = None,
    drop: Sequence[str] | str | None = None,
) -> dict[str, str]:
    """Return the kinds of some columns by their names, as :func:`find_schema` takes them.

    Args:
        schema: The kinds, or a text such as "age=count,zip=category". They win over those of the file.
        columns: A YAML file with a kind for each of many columns, ``age: count``.
        drop: Columns to leave out, or their names with commas between.

    Raises:
        ValueError: If one of them is something else.
        FileNotFoundError: If there is no such file.

    Example:
        >>> wanted_kinds("age=count,day=date:%d/%m/%Y", drop="name,note")
        {'age': 'count', 'day': 'date:%d/%m/%Y', 'name': 'dropped', 'note': 'dropped'}
    """
    found = {} if columns is None else _kinds(f"columns: {columns}", read_yaml(Path(columns).expanduser()))
    if isinstance(schema, str):
        pairs = [part.partition("=") for part in schema.split(",")]
        if wrong := next((name for name, equals, kind in pairs if not (name and equals and kind)), None):
            raise ValueError(f"schema: expected NAME=KIND, such as age=count,zip=category, got {wrong[:50]!r}")
        schema = {name.strip(): kind.strip() for name, _, kind in pairs}
    names = drop.split(",") if isinstance(drop, str) else drop or ()
    return found | _kinds("schema", schema or {}) | {str(name).strip(): "dropped" for name in names}


def _kinds(what: str, kinds: Mapping[Any, Any]) -> dict[str, str]:
    """Return names and kinds, or refuse what is none, such as a name that YAML takes for something else."""
    for name, kind in kinds.items():
        if not isinstance(name, str) or not isinstance(kind, str):
            raise ValueError(
                f"{what}: expected a kind for each name, both text, such as age: count, got {name!r:.50}: "
                f"{kind!r:.50}; put it in quotes"
            )
    return dict(kinds)


def some_rows(frame: Any, rows: str | int | None) -> Any:
    """Return the first so many rows of a ``pandas.DataFrame``, or those from one to before another, "START:END" from 0.

    Raises:
        ValueError: If it is neither, or there are none.

    Example:
        >>> import pandas
        >>> some_rows(pandas.DataFrame({"a": range(9)}), "5:7")["a"].tolist()
        [5, 6]
    """
    if rows is None:
        return frame
    match = re.fullmatch(r"(\d*):(\d*)|(\d+)", str(rows).strip(), re.ASCII)
    if match is None:
        raise ValueError(f"rows: expected a number, such as 10000, or START:END, such as 0:5000, got {rows!r}")
    start, end, count = (int(part[:18]) if part else None for part in match.groups())
    chosen = frame.iloc[start : end if count is None else count]
    if chosen.empty:
        raise ValueError(
            f"rows: expected some of the {len(frame):,} rows of the table, which are from 0 on, got {rows!r}"
        )
    return chosen
