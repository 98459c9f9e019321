"""Memory: how much there is, and what must not take more than its share of it."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

# What the user asks for may take this part of the machine's memory, in float32: there are copies of it for a moment.
FRACTION = 0.25


def physical_memory() -> int:
    """Return the bytes of the machine's memory, taken as 8 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30


def largest() -> int:
    """Return how many bytes one thing may take: a quarter of the machine's memory."""
    return int(FRACTION * physical_memory())


def check_memory(what: str, num_bytes: int, way_out: str) -> None:
    """Refuse what would not fit in memory, before any is taken.

    Raises:
        ValueError: Naming it, and the way out.
    """
    if num_bytes > largest():
        raise ValueError(
            f"{what}: expected at most {largest() / 2**30:.3g} GiB, a quarter of this machine's memory, but its "
            f"size asks for {num_bytes / 2**30:.3g} GiB; {way_out}"
        )


@contextlib.contextmanager
def at_most(num_bytes: int, num_operations: int | None = None) -> Iterator[None]:
    """Take no more memory for tensors than this inside, counting all that are made, also those that are gone again.

    Args:
        num_bytes: In all.
        num_operations: The most that torch may be asked to do, since each takes time, and a module some memory.

    Raises:
        MemoryError: Before a tensor is made that would be too much.

    Example:
        >>> with at_most(2**20):
        ...     torch.nn.Linear(10**6, 10**6)
        Traceback (most recent call last):
        MemoryError: expected tensors of at most 1,048,576 bytes, got 4,000,000,000,000 more
    """
    try:
        with _Counting(num_bytes, num_operations):
            yield
    except (RuntimeError, TypeError, ValueError) as error:
        if "verflow" not in str(error):
            raise
        raise MemoryError(f"expected tensors of at most {num_bytes:,} bytes, got sizes that overflow") from error


class _Dispatch:
    """What `_Counting` does: for a method of the mode itself torch would import its compiler, which takes a second."""

    num_bytes: int
    left: int
    operations_left: float

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.operations_left -= 1
        if self.operations_left < 0:
            raise MemoryError("expected fewer tensors")
        try:
            like, like_kwargs = tree_map_only(Tensor, _without_values, (args, kwargs))
            if "device" in kwargs:
                like_kwargs["device"] = torch.device("meta")
            expected = function(*like, **like_kwargs)
        except (NotImplementedError, RuntimeError):
            # It depends on values, as `unique` does: then on those that are there, and its result is no larger.
            expected = None
        if expected is not None:
            self._take(function, expected)
        made = function(*args, **kwargs)
        if expected is None:
            self._take(function, made)
        return made

    def _take(self, function: Any, results: Any) -> None:
        """Count the results that have memory of their own."""
        results = results if isinstance(results, tuple | list) else [results]
        for result, declared in zip(results, function._schema.returns, strict=False):
            if isinstance(result, Tensor) and declared.alias_info is None:
                size = result.untyped_storage().nbytes()
                if size > self.left:
                    raise MemoryError(f"expected tensors of at most {self.num_bytes:,} bytes, got {size:,} more")
                self.left -= size


class _Counting(_Dispatch, TorchDispatchMode):
    def __init__(self, num_bytes: int, num_operations: int | None):
        super().__init__()
        self.num_bytes = self.left = num_bytes
        self.operations_left = float("inf") if num_operations is None else num_operations


def _without_values(x: Tensor) -> Tensor:
    return torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device="meta")
