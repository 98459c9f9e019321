"""Which values are blank, or to be hidden: by a file, or by a part of the data."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pyro_vae import data
from pyro_vae.commands.outputs import some_of
from pyro_vae.data.tables import Schema, is_table, read_frame

SIDES = ("left", "right", "top", "bottom")


def read_mask(name: str, x: Tensor, max_examples: int | None, table: Schema | None = None) -> Tensor:
    """Return what is blank, (N, D) or (1, D); of a table by the names of its columns.

    Raises:
        ValueError: When the file doesn't fit the data, ``x``, or holds anything but 0 and 1.
        FileNotFoundError: When there is no such file.
    """
    if table is not None and is_table(Path(name)):
        import pandas

        frame, _ = read_frame(name, Path(name), names=[column.name for column in table.columns])
        if missing := [column.name for column in table.modelled if column.name not in frame.columns]:
            raise ValueError(f"--mask {name}: expected a column for each of the table's, but it has no {missing[0]!r}")
        cells = frame[[column.name for column in table.modelled]].apply(pandas.to_numeric, errors="coerce")
        mask = torch.tensor(cells.to_numpy(dtype="float64"))
    else:
        mask = data.read(name, pixels="raw").x
    if mask.numel() == x.shape[1]:
        mask = mask.reshape(1, -1)
    elif mask.shape[1] == x.shape[1] and len(mask) >= len(x):
        mask = mask[:max_examples]
    if mask.shape[1] != x.shape[1] or len(mask) not in (1, len(x)):
        raise ValueError(
            f"--mask {name}: expected one for each of the {len(x):,} examples of {x.shape[1]} values, or one for all, "
            f"but it holds {len(mask):,} rows of {mask.shape[1]}"
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"--mask {name}: expected 1 where a value is blank and 0 elsewhere, but it holds others")
    return mask == 1


def hidden(x: Tensor, shape: Sequence[int], names: Sequence[str] | None, part: str, seed: int) -> Tensor:
    """Return which values of ``x``, (N, D), to hide, (N, D) or (1, D).

    Args:
        x: The data.
        shape: Of one of them.
        names: Of the columns of a table; None of images.
        part: Columns of a table, a half of images, or a fraction of all values at random.
        seed: Of what is random.

    Raises:
        ValueError: When ``part`` is none of these.
    """
    if names is not None:
        wanted = [part] if part in names else part.split(",")
        if set(wanted) <= set(names):
            return torch.tensor([[name in wanted for name in names]])
    elif part in SIDES:
        _, height, width = shape
        mask = torch.zeros(tuple(shape), dtype=torch.bool)
        half = {
            "left": (slice(None), slice(width // 2)),
            "right": (slice(None), slice(width // 2, None)),
            "top": (slice(height // 2), slice(None)),
            "bottom": (slice(height // 2, None), slice(None)),
        }[part]
        mask[:, half[0], half[1]] = True
        return mask.reshape(1, -1)
    try:
        fraction = float(part)
    except ValueError:
        fraction = math.nan
    if not 0 < fraction < 1:
        parts = f"one of {', '.join(SIDES)}" if names is None else f"columns, some of {some_of(names)}"
        raise ValueError(f"--hide: expected a fraction between 0 and 1, or {parts}, got {part!r}")
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < fraction
