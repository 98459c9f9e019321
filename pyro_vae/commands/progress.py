"""How much of a long computation is done: a bar on a terminal, a few plain lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how much is done: a bar on a terminal, a few plain lines elsewhere."""
    console = Console(highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.percentage:>3.0f} %")
    bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
    task, shown = bar.add_task(f"{what:<12}", total=None), 0

    def report(done: int, total: int) -> None:
        nonlocal shown
        bar.update(task, completed=done, total=total)
        fifth = 5 * done // total
        if not console.is_terminal and fifth > shown:
            print(f"{what:<12}{20 * fifth:3} %", flush=True)
            shown = fifth

    # Some versions of rich print a line even for a bar that is switched off.
    with bar if console.is_terminal else nullcontext():
        yield report
