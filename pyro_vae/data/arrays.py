"""Data that a user has in memory already."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = Any  # a tensor, an array, or a data frame

_CHUNK = 4096  # rows that are compared at once


class ShowsShapes:
    """A dataclass of tensors that shows their shapes rather than their values."""

    def __repr__(self) -> str:
        shown = (f"{field.name}={_shape(getattr(self, field.name))}" for field in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(shown)})"


def as_small(x: Tensor) -> np.ndarray:
    """Return numbers as an array; whole ones from 0 to 255 as bytes."""
    whole = bool(((x == x.round()) & (x >= 0) & (x <= 255)).all())
    return (x.to(torch.uint8) if whole else x).cpu().numpy()


def _shape(value: Any) -> str:
    if hasattr(value, "shape"):  # of a tensor, an array or a data frame
        return str(tuple(value.shape))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shape(item)}" for key, item in value.items()) + "}"
    return repr(value)


def as_tensor(name: str, data: Array) -> Tensor:
    """Return a tensor as it is, and an array or a data frame as a tensor; floating ones in torch's default dtype.

    Args:
        name: The argument's name, for messages.
        data: Numbers.

    Raises:
        ValueError: For anything else, in one sentence.

    Example:
        >>> as_tensor("y", [0, 1]), as_tensor("x", np.zeros(2))
        (tensor([0, 1]), tensor([0., 0.]))
    """
    if isinstance(data, Tensor):
        if data.layout != torch.strided:
            raise ValueError(
                f"{name}: expected a dense tensor, got one with layout {data.layout}; pass {name}.to_dense()"
            )
        return data
    try:
        array = np.asarray(data)
        if array.dtype == object:  # a data frame of several dtypes, or no numbers
            array = array.astype(np.float64)
        x = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected numbers, as a tensor, an array or a data frame, got {type(data).__name__} ({error})"
        ) from None
    return x.to(torch.get_default_dtype()) if x.is_floating_point() else x


def to_rows(name: str, data: Array) -> Tensor:
    """Return a tensor, an array or a data frame as a tensor with a row for each datum, (N, D).

    Args:
        name: The argument's name, for messages.
        data: (N, D), (N, H, W) or (N, C, H, W), numbers; a tensor keeps its dtype if it is a floating one.

    Raises:
        ValueError: For anything else, in one sentence.

    Example:
        >>> to_rows("data", np.zeros((5, 4, 4), np.uint8)).shape
        torch.Size([5, 16])
    """
    x = as_tensor(name, data)
    if x.dim() < 2:
        raise ValueError(f"{name}: expected a row for each datum, (N, D) or (N, H, W), got shape {tuple(x.shape)}")
    if x.is_complex():
        raise ValueError(f"{name}: expected real numbers, got {x.dtype}")
    return (x if x.is_floating_point() else x.to(torch.get_default_dtype())).flatten(1)


def find_rows(x: Tensor, among: Tensor) -> Tensor:
    """Return which row of others each row of data is equal to, value by value: the first such, or -1, (N,).

    Args:
        x: Data, (N, D); a blank (NaN) is equal to a blank.
        among: Others, (M, D).

    Example:
        >>> find_rows(torch.tensor([[1.0, 2.0], [1.0, 3.0]]), torch.tensor([[0.0, 0.0], [1.0, 2.0], [1.0, 2.0]]))
        tensor([ 1, -1])
    """
    if len(among) == 0:
        return torch.full((len(x),), -1)
    x, among = x.cpu(), among.cpu()
    known, first = np.unique(_hashes(among), return_index=True)
    at = torch.from_numpy(first[known.searchsorted(_hashes(x)).clip(max=len(known) - 1)])
    equal = torch.cat(
        [
            ((other == own) | (other.isnan() & own.isnan())).all(1)
            for own, other in zip(x.split(_CHUNK), (among[rows] for rows in at.split(_CHUNK)), strict=True)
        ]
    )
    return torch.where(equal, at, -1)


def _hashes(x: Tensor) -> np.ndarray:
    """Return a number of 64 bits for each row, (N,): the same for equal rows, and hardly ever for others."""
    weights = np.random.default_rng(0).integers(2**63, size=x.shape[1], dtype=np.uint64)
    parts = [np.zeros(0, dtype=np.uint64)]
    for part in x.split(_CHUNK):
        values = part.double().numpy() + 0.0  # no zero is negative
        values[np.isnan(values)] = np.nan
        bits = values.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # so that the few bits that differ spread
        parts.append((bits ^ (bits >> np.uint64(32))) @ weights)
    return np.concatenate(parts)
