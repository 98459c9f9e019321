"""Labels to condition on: classes 0, 1, 2, … of the data, some of which may be unknown."""

from dataclasses import replace

import torch
from torch import Tensor

from pyro_vae.data.source import Source, to_tensor

UNKNOWN = -1  # in place of a label
MAX_CLASSES = 1000
KEEP_SEED = 20140620


def take_labels(data: str, source: Source, column: str, missing: bool, required: bool) -> Source:
    """Return a table whose labels are one of its columns, blank where unknown.

    Args:
        data: Its name, for messages.
        source: The table, which may have blanks.
        column: The column's name.
        missing: The other columns may have blanks, too.
        required: Refuse a table without such a column; otherwise it is returned as it is.

    Raises:
        ValueError: If there is no such column, or it holds no classes.
    """
    names = source.columns or ()
    if column not in names:
        if required:
            known = f"one of {', '.join(names)}" if names else "a first line with the names of the columns"
            raise ValueError(f"condition={column!r}: expected a column of {data!r}, {known}; correct the name")
        return replace(source, x=to_tensor(data, source.x.numpy(), missing))
    at = names.index(column)
    others = [d for d in range(source.x.shape[1]) if d != at]
    if not others:
        raise ValueError(f"data={data!r}: expected other columns beside {column!r}, but it is the only one")
    y = torch.where(source.x[:, at].isnan(), UNKNOWN, source.x[:, at])
    if (y != y.round()).any():
        row = int((y != y.round()).nonzero()[0])
        raise ValueError(
            f"condition={column!r}: expected a column of whole numbers, the classes, but in row {row + 1} stands "
            f"{y[row].item():g}; number the classes from 0"
        )
    x = to_tensor(data, source.x[:, others].numpy(), missing)
    return replace(source, x=x, y=y.long(), shape=(len(others),), columns=tuple(names[d] for d in others))


def count_classes(condition: str, y: Tensor) -> int:
    """Return the number of classes, the largest label and one more.

    Raises:
        ValueError: If the labels, (N,), are no classes, or none is known.
    """
    low, high = int(y.min()), int(y.max())
    if low < UNKNOWN or not 0 <= high < MAX_CLASSES:
        raise ValueError(
            f"condition={condition!r}: expected classes from 0 to at most {MAX_CLASSES - 1}, or -1 where unknown, but "
            f"the labels go from {low} to {high}; number the classes from 0"
        )
    return high + 1


def keep_labels(y: Tensor, num: int, seed: int = KEEP_SEED) -> Tensor:
    """Return labels, (N,), of which all but ``num``, in equal shares of each class as far as possible, are unknown.

    Args:
        y: The labels.
        num: How many to keep.
        seed: Of the choice.

    Raises:
        ValueError: If there aren't so many.

    Example:
        >>> keep_labels(torch.tensor([0, 0, 0, 1, 1, 1]), 2).sort().values
        tensor([-1, -1, -1, -1,  0,  1])
    """
    order = (y != UNKNOWN).nonzero()[:, 0]
    if not 1 <= num <= len(order):
        raise ValueError(f"num_labels={num}: expected a number from 1 to {len(order)}, the training data with labels")
    order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))]
    turn = torch.zeros_like(order)  # of each among its class
    for label in y[order].unique():
        of_class = y[order] == label
        turn[of_class] = torch.arange(int(of_class.sum()))
    kept = order[turn.argsort(stable=True)[:num]]
    return torch.full_like(y, UNKNOWN).index_copy(0, kept, y[kept])


def with_labels(x: Tensor, y: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
    """Return the data as a program takes them: with their labels, (N,), if all are known, and else without."""
    return x if y is None or bool((y == UNKNOWN).any()) else (x, y)
