"""Labels to condition on: classes of the data, some of which may be unknown, and what their user calls them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.source import Source, to_tensor

UNKNOWN = -1  # in place of a label
MAX_CLASSES = 1000
KEEP_SEED = 20140620

Names = tuple[str, ...] | None  # of the labels 0, 1, 2, …; None where labels are numbers that name themselves


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
            f"{y[row].item():g}; number the classes"
        )
    x = to_tensor(data, source.x[:, others].numpy(), missing)
    columns = tuple(names[d] for d in others)
    return replace(source, x=x, y=y.long(), shape=(len(others),), columns=columns, label_column=column)


def classes_of(condition: str, y: Tensor, names: Names) -> tuple[str, ...]:
    """Return the names of the classes that were seen, in the order of their labels.

    Args:
        condition: What the data are conditioned on, for messages.
        y: The labels, (N,), -1 where unknown.
        names: Those of the labels 0, 1, 2, …; None where they are numbers that name themselves.

    Raises:
        ValueError: If the labels are no classes, or none is known.

    Example:
        >>> classes_of("label", torch.tensor([6, 3, -1, 3]), None)
        ('3', '6')
    """
    seen = y[y != UNKNOWN].unique().tolist()
    if not 0 < len(seen) <= MAX_CLASSES or seen[0] < UNKNOWN:
        came = f"{len(seen):,} of them, from {seen[0]} to {seen[-1]}" if seen else "no label is known"
        raise ValueError(
            f"condition={condition!r}: expected from 1 to {MAX_CLASSES} classes, whole numbers from 0 up, or -1 where "
            f"unknown, but {came}; name what holds the classes"
        )
    return tuple(_name(label, names) for label in seen)


def to_classes(y: Tensor, names: Names, classes: Sequence[str]) -> Tensor:
    """Return which of some classes labels are, by their names, (N,); -1 where they are unknown, or none of these.

    Example:
        >>> to_classes(torch.tensor([6, 3, -1, 4]), None, ("3", "6"))
        tensor([ 1,  0, -1, -1])
    """
    at = {name: i for i, name in enumerate(classes)}
    labels, which = y.unique(return_inverse=True)
    return torch.tensor([at.get(_name(label, names), UNKNOWN) for label in labels.tolist()], dtype=torch.long)[which]


def named(y: Tensor, names: Names) -> np.ndarray:
    """Return labels as their user knows them, (N,): as numbers, or where one of their names is none as text.

    Example:
        >>> named(torch.tensor([1, 0, -1]), ("3", "6")), named(torch.tensor([1, 0]), ("cat", "dog"))
        (array([ 6,  3, -1]), array(['dog', 'cat'], dtype='<U3'))
    """
    texts = np.array([_name(label, names) for label in y.tolist()], dtype=str)
    return texts if names and not all(map(_is_whole, names)) else texts.astype(np.int64)


def in_words(classes: Sequence[str], most: int = 10) -> str:
    """Name classes in a message.

    Example:
        >>> in_words([str(c) for c in range(10)]), in_words(["3", "4", "6"])
        ('0 to 9', '3, 4, 6')
    """
    if len(classes) > 2 and list(classes) == [str(c) for c in range(len(classes))]:
        return f"0 to {len(classes) - 1}"
    return ", ".join(classes[:most]) + (", …" if len(classes) > most else "")


def _name(label: int, names: Names) -> str:
    return str(label) if names is None or label < 0 else names[label]


def _is_whole(name: str) -> bool:
    return name.isdecimal()


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
