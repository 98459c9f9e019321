"""How much of a long computation is done, for whoever shows it."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Progress = Callable[[int, int], None]
T = TypeVar("T")


def reported(items: Sequence[T], progress: Progress | None) -> Iterator[T]:
    """Yield items, and after the work on each of them call ``progress`` with how many are done, and of how many.

    Example:
        >>> list(reported("ab", lambda done, total: print(done, "of", total)))
        1 of 2
        2 of 2
        ['a', 'b']
    """
    for done, item in enumerate(items, 1):
        yield item
        if progress is not None:
            progress(done, len(items))


def part_of(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """Return what reports the progress of one of several parts, the first of which has the number 0."""
    if progress is None:
        return None
    return lambda done, total: progress(number * total + done, parts * total)
