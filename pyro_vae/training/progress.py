"""How a training shows itself: a progress bar on a terminal or in a notebook, plain lines elsewhere."""

import time
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
        show: Whether to show anything. Default: only where a bar can be drawn, on a terminal or in a notebook.
        lines: How many plain lines to print, about, where it can't.
        seconds: How long to print none at most.
    """

    def __init__(
        self,
        epochs: int,
        done: int = 0,
        is_density: bool = True,
        show: bool | None = None,
        lines: int = 20,
        seconds: float = 60.0,
    ):
        self.console = Console(highlight=False)
        draws = self.console.is_terminal or self.console.is_jupyter
        self.draws, self.prints = draws and show is not False, bool(show) and not draws
        self.epochs = epochs
        self.label = "ELBO" if is_density else "minus loss"
        self.every = max(1, epochs // lines)
        self.seconds, self.last = seconds, time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.draws,
        )
        self.task = self.bar.add_task(_title(done, epochs), total=epochs, completed=done, metrics="")
        self.epoch = done

    def __enter__(self) -> "TrainingProgress":
        if self.draws:  # some versions print a line even for a bar that is switched off
            self.bar.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        if self.draws:
            self.bar.stop()

    def step(self, step: int, steps: int, loss: float) -> None:
        """Show that a step of the current epoch is done."""
        self.bar.update(self.task, completed=self.epoch + step / steps)
        if self.prints and step < steps and self._is_time():
            self._print(
                f"{_title(self.epoch + 1, self.epochs)}  step {step:,} of {steps:,}, loss {loss:.2f} nats per example"
            )

    def row(self, row: Row) -> None:
        """Show an epoch's metrics."""
        self.epoch = int(row["epoch"])
        metrics = (
            f"{self.label} {row['elbo']:.2f} = {row['reconstruction']:.2f} - KL {row['kl']:.2f} nats, "
            f"{row['examples_per_second']:,.0f} examples/s"
        )
        self.bar.update(self.task, completed=self.epoch, description=_title(self.epoch, self.epochs), metrics=metrics)
        if self.prints and (self.epoch % self.every == 0 or self.epoch in (1, self.epochs) or self._is_time()):
            self._print(f"{_title(self.epoch, self.epochs)}  {metrics}")

    def _is_time(self) -> bool:
        return time.monotonic() - self.last >= self.seconds

    def _print(self, line: str) -> None:
        print(line, flush=True)
        self.last = time.monotonic()


def _title(epoch: int, epochs: int) -> str:
    return f"epoch {epoch:>{len(str(epochs))}}/{epochs}"
