"""How much of a long computation is done: a bar on a terminal, a few plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SOON = 3.0  # seconds: what takes less needs no bar


@contextmanager
def progress_bar(what: str, after: float = 0.0) -> Iterator[Callable[[int, int], None]]:
    """Show how much is done: a bar on a terminal, a few plain lines elsewhere.

    Args:
        what: What is done.
        after: Show nothing in the first so many seconds: what is done by then needs none.
    """
    console = Console(highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.percentage:>3.0f} %")
    bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
    task, shown, began = bar.add_task(f"{what:<12}", total=None), 0, time.monotonic()

    with ExitStack() as stack:

        def report(done: int, total: int) -> None:
            nonlocal shown
            if time.monotonic() - began < after:
                return
            # Some versions of rich print a line even for a bar that is switched off.
            if console.is_terminal and not bar.live.is_started:
                stack.enter_context(bar)
            bar.update(task, completed=done, total=total)
            fifth = 5 * done // total
            if not console.is_terminal and fifth > shown:
                print(f"{what:<12}{20 * fifth:3} %", flush=True)
                shown = fifth

        report(0, 1)
        yield report
