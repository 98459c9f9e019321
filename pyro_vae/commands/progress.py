"""How a training shows itself: a progress bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pyro_vae.training.loop import Row


class TrainingProgress:
    """Shows epochs and steps, the ELBO with its two parts, and the speed.

    Args:
        epochs: How many there will be at most.
        done: How many there have been.
        is_density: Whether the figure is an ELBO, or only minus a loss.
        lines: How many plain lines to print, about, where the output is no terminal.
    """

    def __init__(self, epochs: int, done: int = 0, is_density: bool = True, lines: int = 20):
        self.console = Console(highlight=False)
        self.epochs = epochs
        self.label = "ELBO" if is_density else "minus loss"
        self.every = max(1, epochs // lines)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(_title(done, epochs), total=epochs, completed=done, metrics="")
        self.epoch = done

    def __enter__(self) -> "TrainingProgress":
        self.bar.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self.bar.stop()

    def step(self, step: int, steps: int, loss: float) -> None:
        """Show that a step of the current epoch is done."""
        self.bar.update(self.task, completed=self.epoch + step / steps)

    def row(self, row: Row) -> None:
        """Show an epoch's metrics."""
        self.epoch = int(row["epoch"])
        metrics = (
            f"{self.label} {row['elbo']:.2f} = {row['reconstruction']:.2f} - KL {row['kl']:.2f} nats, "
            f"{row['examples_per_second']:,.0f} examples/s"
        )
        self.bar.update(self.task, completed=self.epoch, description=_title(self.epoch, self.epochs), metrics=metrics)
        if not self.console.is_terminal and (self.epoch % self.every == 0 or self.epoch in (1, self.epochs)):
            print(f"{_title(self.epoch, self.epochs)}  {metrics}", flush=True)


def _title(epoch: int, epochs: int) -> str:
    return f"epoch {epoch:>{len(str(epochs))}}/{epochs}"


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

    with bar:
        yield report
