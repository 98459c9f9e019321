"""Tables as data: known columns read, or found, and turned into the numbers of a model."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from pyro_vae.data.known import existing
from pyro_vae.data.labels import UNKNOWN
from pyro_vae.data.source import Source
from pyro_vae.data.tables import Form, Schema, find_schema, read_frame, some_rows
from pyro_vae.machine.progress import Progress, part_of


def read_table(data: str, table: Schema, *, condition: str | None = None) -> Source:
    """Read all rows of a table whose columns are known, in the order of the file.

    Args:
        data: A path.
        table: What the columns are. Blanks are NaN.
        condition: A column that holds labels; a file without it has none.

    Raises:
        ValueError: If a column is missing, or holds what it can't.
        FileNotFoundError: If there is no such file.
    """
    names = [column.name for column in table.columns]
    frame, form = read_frame(data, existing(data), names=names if condition is None else [*names, condition])
    table = replace(table, form=form)  # its cells are written in its own way
    with _naming(data):
        if condition is None or condition not in frame.columns:
            return as_source(frame, table)
        y, classes = _labels_of(frame, condition)
        source = as_source(frame.drop(columns=condition), table)
    return replace(source, frame=frame, y=y, classes=classes, label_column=condition)


@contextlib.contextmanager
def _naming(data: str) -> Iterator[None]:
    """Name the file in what is said of its columns."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(("column ", "the table: ")):
            raise ValueError(f"data={data!r}: {error}") from error
        raise


def read_new_table(
    data: str, condition: str | None, wanted: Mapping[str, str], rows: str | int | None, progress: Progress | None
) -> Source:
    """Read a table of any columns, and find what each of them is."""
    frame, form = read_frame(data, existing(data))
    with _naming(data):
        return find_columns(data, frame, form, condition, wanted, rows, progress)


def find_columns(
    data: str,
    frame: Any,
    form: Form | None,
    condition: str | None,
    wanted: Mapping[str, str],
    rows: str | int | None,
    progress: Progress | None = None,
) -> Source:
    """Find what each column of a table is, in some of its rows; one may hold the labels."""
    frame = some_rows(frame, rows)
    y = names = None
    if condition is not None:
        if condition not in frame.columns or frame.shape[1] == 1:
            known = ", ".join(name for name in frame.columns if name != condition)
            raise ValueError(
                f"condition={condition!r}: expected one of the columns of {data!r}, beside others: {known}"
            )
        y, names = _labels_of(frame, condition)
        frame = frame.drop(columns=condition)
    table = find_schema(frame, form=form, wanted=wanted, progress=part_of(progress, 0, 2))
    source = as_source(frame, table, part_of(progress, 1, 2))
    return replace(source, y=y, classes=names, label_column=condition)


def as_source(frame: Any, table: Schema, progress: Progress | None = None) -> Source:
    """Return a table, a ``pandas.DataFrame``, as the numbers of a model."""
    x, names = table.encode(frame, progress=progress), tuple(column.name for column in table.modelled)
    return Source(x=x, shape=(x.shape[1],), columns=names, table=table, frame=frame)


def _labels_of(frame: Any, condition: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return the labels in a column of a table, and the names of the classes."""
    labels = find_schema(frame[[condition]], wanted={condition: "category"})
    return labels.encode(frame[[condition]])[:, 0].nan_to_num(UNKNOWN).long(), labels.columns[0].categories
