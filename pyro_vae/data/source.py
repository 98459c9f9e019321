"""What every reader returns, and the checks that all of them share."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.arrays import ShowsShapes
from pyro_vae.machine import memory

if TYPE_CHECKING:
    from pyro_vae.data.tables import Schema

# Times as far from the median as a column's middle four fifths are wide: no value, but a mark or a mistake.
FAR = 1000

FILL_BLANKS = "fill them with pyro-vae impute, train on what is there with --missing, or remove the rows with blanks"


@dataclass(frozen=True, eq=False, repr=False)
class Source(ShowsShapes):
    """Data as they came: uint8 or float32 values, (N, D), and what is known about them."""

    x: Tensor
    shape: tuple[int, ...]
    y: Tensor | None = None
    x_validation: Tensor | None = None
    y_validation: Tensor | None = None
    x_test: Tensor | None = None
    y_test: Tensor | None = None
    levels: int | None = None
    columns: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None  # the names of labels 0, 1, 2, …; None where these name themselves
    label_column: str | None = None
    table: "Schema | None" = None  # what the columns are, where they are more than numbers
    frame: Any = None  # the table as its user wrote it
    validation: float = 0.1
    test: float = 0.1
    shuffle: bool = True

    @property
    def parts(self) -> list[tuple[Tensor, Tensor | None]]:
        """The data and the labels of each set that there is: for training, for validation and for testing."""
        own = (self.x, self.y), (self.x_validation, self.y_validation), (self.x_test, self.y_test)
        return [(x, y) for x, y in own if x is not None]

    def joined(self) -> "Source":
        """Return all data as one set; their labels too, where all sets have them."""
        x, y = zip(*self.parts, strict=True)
        labels = None if any(labels is None for labels in y) else torch.cat(y)
        alone = replace(self, x_validation=None, y_validation=None, x_test=None, y_test=None)
        return replace(alone, x=torch.cat(x), y=labels)


def far_out(x: Tensor) -> Tensor:
    """Return which values are so far out of their column, (N, D), that they may stand for something else.

    That is where a value is more than 1000 times as far from the median as the column's middle four fifths are wide,
    where these have a width; and where no square of it fits a float32, so that no density of it can be computed.
    """
    if x.numel() == 0:
        return torch.zeros_like(x, dtype=torch.bool)
    some = x[:: max(1, len(x) // 10_000)].double()
    low, middle, high = (
        some.nanquantile(q, dim=0, interpolation=towards)
        for q, towards in ((0.1, "higher"), (0.5, "nearest"), (0.9, "lower"))
    )
    width = high - low
    beyond = ((x - middle).abs() > FAR * width) & (width > 0)
    return beyond | (x.abs() > torch.finfo(torch.float32).max ** 0.5)


def warn_far_out(data: str, x: Tensor, columns: tuple[str, ...] | None, most: int = 3) -> None:
    """Name the cells of a table, (N, D), that are far out of their columns."""
    cells = far_out(x).nonzero().tolist()
    if not cells:
        return
    some = "; ".join(
        f"row {row + 1}, column {columns[d] if columns else d + 1}: {x[row, d]:g}" for row, d in cells[:most]
    )
    warnings.warn(
        f"data={data!r}: {len(cells):,} of {x.numel():,} values are far out of their columns ({some}"
        f"{'; …' if len(cells) > most else ''}), and would decide means and scales alone: make blank what stands for a "
        "missing value, and remove what is a mistake",
        stacklevel=2,
    )


def fingerprint(x: Tensor | str) -> str:
    """Return a hash of data, which differs where any of them, or their order, differs."""
    content = x.encode() if isinstance(x, str) else x.cpu().contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def difference(known: str | Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Return the first of several data, by name, whose fingerprint is another one now; None where there is none.

    Args:
        known: The fingerprints from before. A single one, as earlier versions kept it, is of the training data.
        now: Those of now. What is in one of both alone is not compared.

    Example:
        >>> difference({"train": "ab", "test": "cd"}, {"train": "ab", "test": "ef"})
        'test'
    """
    known = {"train": known} if isinstance(known, str) else known
    return next((name for name, own in now.items() if known.get(name, own) != own), None)


def one_line(error: BaseException) -> str:
    """Return an error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def check_memory(data: str, num_bytes: int) -> None:
    """Refuse data whose values, as float32, would not fit in memory: reading holds up to three copies for a moment."""
    memory.check_memory(f"data={data!r}", num_bytes, "use a part of the data, or a machine with more memory")


def to_tensor(data: str, array: np.ndarray, missing: bool = False) -> Tensor:
    """Return an array as uint8 or float32, (N, D), and refuse infinities, and blanks unless some may be missing."""
    array = array.reshape(len(array), -1)
    if array.dtype == np.uint8:
        return torch.from_numpy(array)
    with np.errstate(over="ignore"):  # an overflow is refused below
        x = torch.from_numpy(array.astype(np.float32, copy=False))
    no_blanks = torch.zeros((), dtype=torch.bool) if missing else x.isnan()
    for wrong, what, way_out in (
        (no_blanks, "blank (NaN)", FILL_BLANKS),
        (x.isinf(), "infinite, or too large for float32", "remove these rows, or rescale"),
    ):
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            raise ValueError(
                f"data={data!r}: expected finite numbers, but {int(wrong.sum())} of {x.numel()} values are {what}, "
                f"the first of them in row {row + 1}; {way_out}"
            )
    return x
