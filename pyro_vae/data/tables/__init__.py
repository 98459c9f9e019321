"""Tables as they are: read with the spelling of every cell, told what each column is, to a tensor and back."""

from pyro_vae.data.tables.column import Column
from pyro_vae.data.tables.form import Form
from pyro_vae.data.tables.kinds import find_schema
from pyro_vae.data.tables.reading import is_table, read_frame
from pyro_vae.data.tables.schema import Schema
from pyro_vae.data.tables.wanted import some_rows, wanted_kinds
from pyro_vae.data.tables.writing import as_bytes

__all__ = [
    "Column", "Form", "Schema", "as_bytes", "find_schema", "is_table", "read_frame", "some_rows", "wanted_kinds",
]  # fmt: skip
