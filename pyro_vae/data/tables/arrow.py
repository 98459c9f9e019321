"""Parquet and Feather, by pyarrow where it is installed."""

from pathlib import Path
from typing import Any

from pyro_vae.data.source import check_memory, one_line
from pyro_vae.data.tables.form import Form
from pyro_vae.data.tables.schema import MAX_COLUMNS


def read_arrow(data: str, path: Path, kind: str) -> tuple[Any, Form]:
    """Read a Parquet or a Feather file; its parts are counted one by one, so that no more than fits is ever taken."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"data={data!r}: expected pyarrow to read {kind}; python -m pip install 'pyro-vae[parquet]', or save as CSV"
        ) from None
    try:
        if kind == "parquet":
            file = pyarrow.parquet.ParquetFile(path)
            schema, parts = file.schema_arrow, file.iter_batches(batch_size=2**14)
            check_memory(data, 4 * file.metadata.num_rows * file.metadata.num_columns)
        else:
            reader = pyarrow.ipc.open_file(path)
            schema, parts = reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
        if len(schema.names) > MAX_COLUMNS:
            raise ValueError(f"data={data!r}: expected at most {MAX_COLUMNS:,} columns, got {len(schema.names):,}")
        batches, size = [], 0
        for batch in parts:
            size += batch.nbytes
            check_memory(data, 2 * size)
            batches.append(batch)
        frame = pyarrow.Table.from_batches(batches, schema).to_pandas()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"data={data!r}: expected {kind}, but it does not read as it: {one_line(error)}") from error
    return frame, Form(kind)
