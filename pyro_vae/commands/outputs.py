"""What the commands that decode data share: an example named on the command line, and files of what was made."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.source import MEMORY_FRACTION, physical_memory
from pyro_vae.runs.opening import read_examples, run_data
from pyro_vae.vae import VAE


def read_near(
    run: Path, vae: VAE, near: str, *, levels: int | None = None, data_dir: str | None = None
) -> tuple[Tensor, str]:
    """Read one example, (D,), and say which: a ROW of the test split, or FILE[:ROW]; rows count from 0.

    Raises:
        ValueError: If there is no such row, or the file doesn't fit the run.
        FileNotFoundError: If there is no such file.
    """
    name, _, row = near.rpartition(":")
    if near.isdecimal():
        name, row = "", near
    elif not (name and row.isdecimal()):
        name, row = near, "0"
    if not name and (levels is not None or data_dir is not None):
        raise ValueError(f"--near {near}: --levels and --data_dir say how to read a file; name one, as FILE:{near}")
    examples = read_examples(run, vae, data=name or None, levels=levels, data_dir=data_dir)
    x = examples.x[check_row("near", int(row), len(examples.x))]
    return x, f"row {int(row)} of {Path(name).name if name else 'the test data'}"


def check_row(option: str, row: int, size: int) -> int:
    """Return the number of a row, from 0, if there is one of ``size`` with it.

    Raises:
        ValueError: Naming the option.
    """
    if not 0 <= row < size:
        raise ValueError(f"--{option}: there is no row {row}, the {size:,} examples are rows 0 to {size - 1}")
    return row


def check_memory(option: str, count: int, vae: VAE) -> None:
    """Refuse to make so many data that they would not fit in memory, before any is taken.

    Raises:
        ValueError: Naming the option.
    """
    each = 4 * (int(np.prod(x_shape(vae))) + (vae.config or {})["latent_dim"])
    most = int(MEMORY_FRACTION * physical_memory()) // each
    if count > most:
        raise ValueError(
            f"--{option}: expected at most {most:,} data, a quarter of this machine's memory, got {count:,}"
        )


def x_shape(vae: VAE) -> tuple[int, ...]:
    """Return the shape of one datum: (1, H, W), or (D,) for a table."""
    return tuple((vae.config or {})["x_shape"])


def is_image(vae: VAE) -> bool:
    """Whether the data are images."""
    return len(x_shape(vae)) == 3


def column_names(run: Path) -> list[str]:
    """Return the names of a table's columns, from the data that the run was trained on."""
    dataset = run_data(run)
    return list(dataset.columns or [f"column {d + 1}" for d in range(dataset.shape[0])])


def rows_of_table(names: list[str], x: Tensor, first: Mapping[str, Any] | None = None) -> str:
    """Return tables of any shape, (..., D), as CSV, a row for each, behind other columns."""
    return to_csv({**(first or {}), **dict(zip(names, x.flatten(0, -2).T, strict=True))})


def to_images(vae: VAE, x: Tensor) -> np.ndarray:
    """Return grey images as an array, (..., D) -> (..., H, W)."""
    return x.unflatten(-1, x_shape(vae)[-2:]).numpy()


def to_npz(vae: VAE, *, data: Mapping[str, Tensor], other: Mapping[str, Tensor | None]) -> bytes:
    """Return the content of a .npz file.

    Args:
        vae: The VAE that the data fit: of images they become (..., H, W).
        data: By name, (..., D); whole numbers from 0 to 255 become bytes.
        other: Whatever belongs to them; what is None is left out.
    """
    shape = x_shape(vae)
    arrays = {name: _small(x.reshape(*x.shape[:-1], *shape[1 if shape[0] == 1 else 0 :])) for name, x in data.items()}
    arrays |= {name: value.cpu().numpy() for name, value in other.items() if value is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # its stubs expect allow_pickle among them
    return buffer.getvalue()


def _small(x: Tensor) -> np.ndarray:
    whole = bool(((x == x.round()) & (x >= 0) & (x <= 255)).all())
    return (x.to(torch.uint8) if whole else x).cpu().numpy()


def to_csv(columns: Mapping[str, Sequence[Any] | Tensor]) -> str:
    """Return a table as CSV, from its columns by name."""
    values = [column.tolist() if isinstance(column, Tensor) else column for column in columns.values()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*values, strict=True):
        writer.writerow([f"{value:.8g}" if isinstance(value, float) else value for value in row])
    return text.getvalue()


def by_column(what: str, names: Sequence[str], error: Tensor, x: Tensor, most: int = 12) -> list[str]:
    """Say how large the errors of a table's columns are, (N, D), beside the spread of the true values ``x``."""
    rms, sd = error.square().nanmean(0).sqrt(), (x - x.nanmean(0)).square().nanmean(0).sqrt()
    shown = [f"{name} {e:.3g} ({s:.3g})" for name, e, s in zip(names, rms.tolist(), sd.tolist(), strict=True)]
    shown = [column for column, e in zip(shown, rms.tolist(), strict=True) if not math.isnan(e)]
    more = ", …" if len(shown) > most else ""
    head = f"{what:<12}root mean square error of each column (standard deviation of its values):"
    return [head, f"            {', '.join(shown[:most])}{more}"]
