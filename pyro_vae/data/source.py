"""What every reader returns, and the checks that all of them share."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.arrays import ShowsShapes

# The values of a data set, as float32, may take this part of the machine's memory:
# reading holds up to three copies for a moment.
MEMORY_FRACTION = 0.25

FILL_BLANKS = "fill them with pyro-vae impute, train on what is there with --missing, or remove the rows with blanks"


@dataclass(frozen=True, eq=False, repr=False)
class Source(ShowsShapes):
    """Data as they came: uint8 or float32 values, (N, D), and what is known about them."""

    x: Tensor
    shape: tuple[int, ...]
    y: Tensor | None = None
    x_test: Tensor | None = None
    y_test: Tensor | None = None
    levels: int | None = None
    columns: tuple[str, ...] | None = None
    validation: float = 0.1
    test: float = 0.1
    shuffle: bool = True


def fingerprint(x: Tensor) -> str:
    """Return a hash of data, which differs where any of them, or their order, differs."""
    return hashlib.sha256(x.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


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


def physical_memory() -> int:
    """Return the bytes of the machine's memory, taken as 8 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30


def check_memory(data: str, num_bytes: int) -> None:
    """Refuse data that would not fit in memory, before any is taken."""
    limit = int(MEMORY_FRACTION * physical_memory())
    if num_bytes > limit:
        raise ValueError(
            f"data={data!r}: expected at most {limit / 2**30:.3g} GiB, a quarter of this machine's memory, but its "
            f"size asks for {num_bytes / 2**30:.3g} GiB; use a part of the data, or a machine with more memory"
        )


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
