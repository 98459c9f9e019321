"""Data that a user has in memory already."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = Any  # a tensor, an array, or a data frame


def to_rows(name: str, data: Array) -> Tensor:
    """Return a tensor, an array or a data frame as a tensor with a row for each datum, (N, D).

    Args:
        name: The argument's name, for messages.
        data: (N, D), (N, H, W) or (N, 1, H, W), numbers; a tensor keeps its dtype if it is a floating one.

    Raises:
        ValueError: For anything else, in one sentence.

    Example:
        >>> to_rows("data", np.zeros((5, 4, 4), np.uint8)).shape
        torch.Size([5, 16])
    """
    try:
        x = data if isinstance(data, Tensor) else torch.as_tensor(np.asarray(data, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected numbers, as a tensor, an array or a data frame, got {type(data).__name__} ({error})"
        ) from None
    if x.dim() < 2:
        raise ValueError(f"{name}: expected a row for each datum, (N, D) or (N, H, W), got shape {tuple(x.shape)}")
    return (x if x.is_floating_point() else x.float()).flatten(1)
