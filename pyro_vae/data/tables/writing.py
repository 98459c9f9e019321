"""A table as the file that it came from."""

import io
import re
from typing import Any

from pyro_vae.data.tables.schema import Schema


def as_bytes(frame: Any, schema: Schema) -> bytes:
    """Return a table as a file of the kind that its schema was found from: Parquet, Feather or CSV.

    Args:
        frame: A ``pandas.DataFrame``, as :meth:`Schema.decode` returns it.
        schema: What says how the table was written.
    """
    form, file = schema.form, io.BytesIO()
    if form.file in ("parquet", "feather"):
        getattr(frame, f"to_{form.file}")(file)
        return file.getvalue()
    text = frame.to_csv(
        None, sep=form.separator, decimal=form.decimal, index=False, header=form.header != "none",
        lineterminator=form.newline,
    )  # fmt: skip
    return (_padded(text, form.separator) if form.padded else text).encode(form.encoding)


def _padded(text: str, separator: str) -> str:
    """Put a space behind each separator that is not in quotes."""
    if '"' not in text:
        return text.replace(separator, f"{separator} ")
    return re.sub(rf'("[^"]*")|{re.escape(separator)}', lambda match: match[1] or f"{separator} ", text)
