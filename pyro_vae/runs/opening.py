"""What the commands on a trained run share: opening it, its data or the user's own, and a folder for the results."""

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from pyro_vae import data
from pyro_vae.runs.checkpoint import load
from pyro_vae.commands.cli import Parser
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data import Data
from pyro_vae.data.source import Source
from pyro_vae.runs.keeping import CONFIG, check_same_data
from pyro_vae.vae import VAE

LABEL_HELP = "Of a run with --condition: the class y, for P(X | Y = y)."


@dataclass(frozen=True)
class Examples:
    """Data that a command works on.

    Attributes:
        x: The data, (N, D), in the form that the run was trained on.
        split: "train", "validation" or "test" of the run's own data; "all" of the user's.
        name: Where they come from.
        labels: Their classes, (N,), if known.
    """

    x: Tensor
    split: str
    name: str
    labels: Tensor | None


def add_run_arguments(parser: Parser, *, label: bool = True) -> None:
    """Add the options of every command on a run: the run, the class of a conditional one, the seed and the device."""
    parser.add_argument("run", help="A run folder.")
    if label:
        parser.add_argument(
            "--label", type=int | None, help="Of a run with --condition: the class y, for P(X | Y = y)."
        )
    parser.add_argument("--seed", type=int, default=0, help="Of the random numbers.")
    parser.add_argument("--device", type=str, default="auto", help='"cpu", "cuda", …; "auto" takes a GPU if there is.')


def add_data_arguments(parser: Parser) -> None:
    """Add the options of every command on examples: which, and how to read them."""
    add = parser.add_argument
    add("--split", type=Literal["test", "validation", "train"] | None, help="Which of the run's data. Default: test.")
    add("--data", type=str | None, help="Your own: a file, folder or name as for training. All of it, in its order.")
    add("--levels", type=int | None, help="The number of grey levels of your own data. Default: the run's.")
    add("--data_dir", type=str | None, help="The folder of mnist and its relatives, where --data names one of them.")
    add("--max_examples", type=int | None, help="Only the first so many. Default: all.")


def add_out_arguments(parser: Parser, name: str) -> None:
    """Add the options of every command that leaves files in a folder of its own."""
    parser.add_argument("--out", type=str | None, help=f"The folder for the results. Default: RUN/{name}.")
    parser.add_argument("--overwrite", action="store_true", help="Replace earlier results in that folder.")


def load_run(run: str | os.PathLike, label: int | None) -> VAE:
    """Load the model of a run; of a conditional one that of P(X | Y = label), an ordinary VAE too.

    Without a label it is that of P(X), where the sum over the classes is an ordinary VAE.

    Raises:
        ValueError: When there is no such class, or a class is needed and none is named.
    """
    vae = load(run)
    if not isinstance(vae, ConditionalVAE):
        check_no_label(run, label)
        return vae
    if label is None:
        if (summed_out := vae.summed_out()) is not None:
            return summed_out
        raise ValueError(
            f"{run} was trained with --condition: say which class, --label 0 to {vae.num_classes - 1}, for P(X | Y)"
        )
    return vae.given(label)


def check_no_label(run: str | os.PathLike, label: int | None) -> None:
    """Refuse a label for a run that has none."""
    if label is not None:
        raise ValueError(f"--label {label}: {run} was trained without --condition; leave it out, or train with it")


def run_data(run: str | os.PathLike, label: int | None = None) -> Data:
    """Load the data of a run: the same splits, in the form that it was trained on.

    Args:
        run: The run folder.
        label: Only those of this class.

    Raises:
        FileNotFoundError: When it is no run folder, or its data are gone.
        ValueError: When its configuration is broken, or its data have changed, or none is of the class.
    """
    path = Path(run) / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{run} is no run folder (it holds no {CONFIG})")
    try:
        config = yaml.safe_load(path.read_text())
        options = {name: config[name] for name in ("data", "pixels", "validation", "test", "levels", "data_dir")}
        options |= {"missing": config.get("missing", False), "condition": config.get("condition")}
    except (yaml.YAMLError, TypeError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no run's configuration ({' '.join(str(error).split())})") from None
    dataset = data.load(**options)
    check_same_data(Path(run), dataset)
    if label is None:
        return dataset
    dataset = dataset.of_class(label)
    if len(dataset.train) == 0 or len(dataset.test) == 0:
        raise ValueError(f"--label {label}: {dataset.name} has no training or no test data of this class; name another")
    return dataset


def read_examples(
    run: Path,
    vae: VAE,
    *,
    split: str | None = None,
    data: str | None = None,
    levels: int | None = None,
    data_dir: str | None = None,
    max_examples: int | None = None,
    seed: int = 0,
) -> Examples:
    """Read some of a run's own data, or the user's, in the form that the run was trained on.

    Args:
        run: The run folder.
        vae: Its model.
        split: Which of the run's data: "train", "validation" or "test". Default: "test".
        data: The user's own, as for :func:`pyro_vae.data.read`.
        levels: The number of grey levels of the user's own. Default: the run's.
        data_dir: The folder of mnist and its relatives.
        max_examples: Only the first so many.
        seed: Of the random form that training data are given.

    Raises:
        ValueError: Naming the option, what was expected and what came.
        FileNotFoundError: When the data are not there.
    """
    if max_examples is not None and max_examples < 1:
        raise ValueError(f"max_examples must be at least 1, got {max_examples}")
    if data is not None and split is not None:
        raise ValueError("--split is of the run's own data; leave it out with --data")
    examples = _own(run, vae, split or "test", seed) if data is None else _users(run, vae, data, levels, data_dir)
    kept = slice(max_examples)
    labels = None if examples.labels is None else examples.labels[kept]
    return Examples(examples.x[kept], examples.split, examples.name, labels)


def _own(run: Path, vae: VAE, split: str, seed: int) -> Examples:
    dataset = run_data(run, vae.label)
    x = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}[split]
    if len(x) == 0:
        raise ValueError(f"--split {split}: the run has no such data; name another split")
    if split == "train" and dataset.draw is not None:
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            x = dataset.draw(x)
    return Examples(x, split, dataset.name, None if dataset.labels is None else dataset.labels[split])


def _users(run: Path, vae: VAE, name: str, levels: int | None, data_dir: str | None) -> Examples:
    source = read_like(run, vae, "data", name, levels=levels, data_dir=data_dir, missing=vae.missing)
    return Examples(source.x, "all", name, source.y)


def read_like(
    run: Path, vae: VAE, option: str, name: str, *, levels: int | None, data_dir: str | None, missing: bool
) -> Source:
    """Read the user's data in the form that the run was trained on; of the model of one class, those of the class.

    Raises:
        ValueError: Naming the option, when they don't fit.
    """
    config = vae.config or {}
    how = {"pixels": config["pixels"], "levels": levels or config["levels"]}
    source = of_class(read_source(run, name, **how, missing=missing, data_dir=data_dir), vae.label)
    if source.x.shape[1] != math.prod(config["x_shape"]):
        raise ValueError(
            f"--{option} {name} holds examples of {size(source.shape)}, but the run was trained on "
            f"{size(config['x_shape'])}; bring them to that size"
        )
    return source


def read_source(run: Path, name: str, **how: Any) -> Source:
    """Read the user's data, without the column of labels where the run was trained with one."""
    path = run / CONFIG
    condition = (yaml.safe_load(path.read_text()) or {}).get("condition") if path.exists() else None
    return data.read(name, condition=condition, **how)


def of_class(source: Source, label: int | None) -> Source:
    """Return the data of one class, where labels are known; data without labels are all taken to be of it."""
    if label is None or source.y is None:
        return source
    rows = source.y == label
    if not rows.any():
        raise ValueError(f"--label {label}: none of the data are of this class; name another")
    return replace(source, x=source.x[rows], y=source.y[rows])


def new_folder(out: str | None, run: Path, name: str, overwrite: bool) -> Path:
    """Return the folder for a command's results, RUN/NAME unless the user says otherwise; make it by ``write_file``.

    Raises:
        FileExistsError: When there is something in it already, unless ``overwrite`` is set.
    """
    folder = run / name if out is None else Path(out)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--out: {folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(
            f"--out: {folder} holds results already; replace them with --overwrite, or name another folder with --out"
        )
    return folder


def to_csv(columns: Mapping[str, Sequence[Any] | Tensor]) -> str:
    """Return a table as CSV, from its columns by name."""
    values = [column.tolist() if isinstance(column, Tensor) else column for column in columns.values()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*values, strict=True):
        writer.writerow([f"{value:.8g}" if isinstance(value, float) else value for value in row])
    return text.getvalue()


def by_column(what: str, names: Sequence[str], error: Tensor, x: Tensor, most: int = 12) -> list[str]:
    """Say how large the errors of a table's columns are, (N, D), beside the spread of the true values ``x``."""
    rms, sd = error.square().nanmean(0).sqrt(), (x - x.nanmean(0)).square().nanmean(0).sqrt()
    shown = [f"{name} {e:.3g} ({s:.3g})" for name, e, s in zip(names, rms.tolist(), sd.tolist(), strict=True)]
    shown = [column for column, e in zip(shown, rms.tolist(), strict=True) if not math.isnan(e)]
    more = ", …" if len(shown) > most else ""
    head = f"{what:<12}root mean square error of each column (standard deviation of its values):"
    return [head, f"            {', '.join(shown[:most])}{more}"]


def size(shape: Sequence[int]) -> str:
    """Say how large an example is."""
    return f"{shape[-2]}x{shape[-1]} pixels" if len(shape) == 3 else f"{shape[0]} columns"


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
