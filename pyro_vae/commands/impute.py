"""Fill the blanks in data: ``pyro-vae impute RUN --data FILE``."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor

from pyro_vae import plotting
from pyro_vae.commands.arguments import Opened, on_run, options_of, read_chosen, refuse_unused, run_parser
from pyro_vae.commands.by_model import Progress, by_class
from pyro_vae.commands.cli import Parser
from pyro_vae.commands.imputation_report import by_example, errors_of, names_of, words
from pyro_vae.commands.masks import hidden, read_mask
from pyro_vae.commands.outputs import (
    BLOCK,
    Results,
    bytes_of_datum,
    check_fits,
    check_samples,
    column_names,
    in_units,
    to_csv,
    unordered,
    words_of,
)
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data.files import read_cells
from pyro_vae.data.labels import UNKNOWN
from pyro_vae.data.source import Source
from pyro_vae.data.tables import Schema, as_bytes
from pyro_vae.evidence.checks import check_count
from pyro_vae.evidence.result import rows_of
from pyro_vae.inference import Imputation, MissingLogProb, gibbs, impute, log_prob_missing
from pyro_vae.inference.impute import check_truth
from pyro_vae.machine.files import as_npz
from pyro_vae.runs.folder import results as earlier
from pyro_vae.runs.opening import read_like, some_data
from pyro_vae.vae import VAE

NAME = "impute"
METHODS: dict[str, Callable[..., Imputation]] = {"importance": impute, "gibbs": gibbs}
SHOWN = 8  # examples in the picture
MAX_SHOWN = 8  # completions of each


@dataclass(frozen=True)
class Task:
    """What is to be filled.

    Attributes:
        name: Where the data come from.
        x: The examples that have blanks (NaN), (N, D), in the form that the run was trained on.
        rows: Which of all they are, (N,), from 0.
        total: How many there are in all.
        shape: Of one of them.
        columns: The names of a table's columns, if known.
        truth: The examples with what is known of their blanks, (N, D), if anything is.
        labels: Of a conditional model the classes of the examples, (N,), -1 where unknown; else None.
        label_column: Which column of a table holds them.
        unlabelled: The examples that such a model can't fill, as their label is unknown, from 0.
        frame: The whole table as its user wrote it, where its columns are more than numbers.
        table: What these are, and how it was written.
    """

    name: str
    x: Tensor
    rows: Tensor
    total: int
    shape: tuple[int, ...]
    columns: tuple[str, ...] | None
    truth: Tensor | None
    labels: Tensor | None
    label_column: str | None
    unlabelled: list[int]
    frame: Any = None
    table: Schema | None = None


def parser() -> Parser:
    """Return the parser."""
    description = "Fill the blanks in data (NaN; in a .csv file also empty cells and NA), several times."
    parser = run_parser(NAME, description)
    add = parser.add_argument
    add("--mask", type=str | None, help="A file like the data, or for one example: 1 where it is blank, 0 elsewhere.")
    add(
        "--hide",
        type=str | None,
        metavar="PART",
        help="Hide a part of what is known, to see how well it is filled: a fraction of the values at random, such as "
        "0.5, columns of a table, such as age,sex, or the left, right, top or bottom half of images.",
    )
    add("--truth", type=str | None, help="A file like the data, without blanks: how well were they filled?")
    add(
        "--method",
        type=Literal[tuple(METHODS)],
        default="importance",
        help="importance: importance resampling, from a proposal fitted to each example; gibbs: "
        "Metropolis-within-Gibbs, exact in the long run.",
    )
    parser.add_options(impute, "num_completions", "num_samples", "num_starts", "steps")
    parser.add_options(gibbs, "num_steps", "num_chains")
    return parser


def check_options(args: Namespace, given: Namespace) -> None:
    """Refuse options that would have no effect, and counts that make no sense.

    Raises:
        ValueError: Naming the option.
    """
    if args.method != "gibbs" or not (args.truth or args.hide):  # whose scores are by importance sampling, too
        refuse_unused("method", METHODS, given, args.method)
    check_count(**{name: args[name] for name in ("num_completions", "num_samples", "num_starts", "steps")})
    check_count(num_steps=args.num_steps, num_chains=args.num_chains)
    if args.mask is not None and args.hide is not None:
        raise ValueError("--hide and --mask both say what is blank; leave one out")
    if args.truth is not None and args.hide is not None:
        raise ValueError("--hide hides a part of complete data, which are the truth; leave out --truth")
    if args.data is not None and args.split is not None:
        raise ValueError("--split is of the run's own data; leave it out with --data")


@on_run(NAME, parser, whole=True, check=check_options)
def main(opened: Opened) -> None:
    """Fill blanks, and leave the files in a folder."""
    args, vae = opened.args, opened.vae
    task = read_task(opened.run, vae, args)
    check_sizes(args, vae, task)
    x = task.x.to(opened.device)
    _introduce(args, vae, task)
    method = METHODS[args.method]

    def fill(model: VAE, rows: Tensor, progress: Progress) -> Imputation:
        return method(model, x[rows], **options_of(method, args), progress=progress)

    filled = by_class(vae, task.labels, len(x), "filling", fill)
    scored = None
    if (truth := task.truth) is not None:

        def score(model: VAE, rows: Tensor, progress: Progress) -> MissingLogProb:
            options = options_of(log_prob_missing, args) | {"seed": args.seed + 1, "progress": progress}
            observed = None if filled.evidence is None else rows_of(filled.evidence, rows)
            return log_prob_missing(model, x[rows], truth[rows], observed=observed, **options)

        scored = by_class(vae, task.labels, len(x), "scoring", score)
    arrays = summaries(vae, task, filled)
    results = Results(opened.folder, "completed")
    write(results, vae, task, filled, scored, arrays, args)
    print(*words(vae, task, filled, scored), sep="\n")
    results.conclude(lambda path: draw(path, vae, task, arrays))


def check_sizes(args: Namespace, vae: VAE, task: Task) -> None:
    """Refuse counts of what would not fit in memory.

    Raises:
        ValueError: Naming the option.
    """
    table = Path(args.data).stat().st_size if _is_table(args.data) else 0
    check_fits("num_completions", args.num_completions, 4 * task.x.numel() + table)
    if args.method == "gibbs":
        check_fits("num_chains", args.num_chains, 4 * bytes_of_datum(vae))
    if args.method == "importance" or task.truth is not None:
        check_samples("num_samples", args.num_samples)
        check_fits("num_starts", args.num_starts, 4 * BLOCK * vae.config.latent_dim**2)


def _is_table(data: str | None) -> bool:
    return data is not None and Path(data).suffix.lower() == ".csv"


def read_task(run: Path, vae: VAE, args: Namespace) -> Task:
    """Read the data, and find what is blank.

    Raises:
        ValueError: Naming the option, what was expected and what came.
        FileNotFoundError: When a file is not there.
    """
    if args.data is None:
        examples = read_chosen(run, vae, args)
        x, y, name, label_column, frame, table = examples.x, examples.labels, examples.name, None, None, None
        columns = some_data(run, vae).columns
    else:
        source, name = _read_like(run, vae, args, "data"), args.data
        x, y, columns, label_column = source.x[: args.max_examples], source.y, source.columns, source.label_column
        y, table = None if y is None else y[: args.max_examples], source.table
        frame = None if source.frame is None else source.frame.iloc[: args.max_examples]
    truth = None
    if args.truth is not None:
        truth = _read_like(run, vae, args, "truth").x[: args.max_examples]
    shape = vae.config.x_shape
    if args.mask is not None:
        x = torch.where(read_mask(args.mask, x, args.max_examples, vae.config.table), torch.nan, x)
    elif args.hide is not None:
        names = None if len(shape) == 3 else column_names(run, vae)
        truth, x = x, torch.where(hidden(x, shape, names, args.hide, args.seed), torch.nan, x)
    blank = x.isnan().any(1)
    if not blank.any():
        raise ValueError(
            f"data={name!r}: expected blanks (NaN, in a .csv file also empty cells or NA), but there are none; mark "
            "them with --mask, or hide something with --hide"
        )
    if truth is not None:
        check_truth(x, truth)
    labels, known = labels_for(vae, y, len(x))
    rows, other = (part.nonzero()[:, 0] for part in (blank & known, blank & ~known))
    if len(rows) == 0:
        what = "a label that the run knows; say which class they are of" if vae.label is None else "this label; see"
        raise ValueError(f"data={name!r}: none of the {len(other):,} examples with blanks has {what} (--label)")
    unlabelled = [] if labels is None else other.tolist()
    truth, labels = (None if values is None else values[rows] for values in (truth, labels))
    return Task(name, x[rows], rows, len(x), shape, columns, truth, labels, label_column, unlabelled, frame, table)


def labels_for(vae: VAE, y: Tensor | None, count: int) -> tuple[Tensor | None, Tensor]:
    """Return the classes of all examples, (N,), where their model depends on them, and which have a model, (N,)."""
    every = torch.ones(count, dtype=torch.bool)
    if not isinstance(vae, ConditionalVAE):
        return None, every if y is None or vae.label is None else y == vae.label
    labels = torch.full((count,), UNKNOWN) if y is None else torch.where(y < vae.num_classes, y, UNKNOWN)
    return labels, labels != UNKNOWN if vae.summed_out() is None else every


def _read_like(run: Path, vae: VAE, args: Namespace, option: str) -> Source:
    """Read the data, or the truth, in the form that the run was trained on."""
    how = {"levels": args.levels, "data_dir": args.data_dir, "missing": option == "data"}
    return read_like(run, vae, option, args[option], **how)


def original(x: Tensor, vae: VAE, *, spread: bool = False) -> Tensor:
    """Return values, or their ``spread``, in the units of the data: dequantized ones as levels again."""
    levels = vae.config.levels
    if vae.config.pixels != "dequantized" or levels is None:
        return in_units(vae, x, spread=spread)
    return x * levels if spread else (x * levels).floor().clamp(0, levels - 1)


def summaries(vae: VAE, task: Task, filled: Imputation) -> dict[str, Tensor]:
    """Return what was filled in, its mean and its standard deviation, in the units of the data."""
    completions, mean, sd = (values.cpu() for values in (filled.completions, filled.mean, filled.sd))
    dequantized = vae.config.pixels == "dequantized"
    arrays = {
        "completions": original(completions, vae),
        # The mean of a level is half a cell below that of the dequantized value.
        "mean": original(mean, vae, spread=True) - 0.5 if dequantized else original(mean, vae),
        "sd": original(sd, vae, spread=True),
        "observed": ~task.x.isnan(),
    }
    arrays["mean"] = torch.where(arrays["observed"], original(task.x, vae), arrays["mean"])
    return arrays


def write(
    results: Results,
    vae: VAE,
    task: Task,
    filled: Imputation,
    scored: MissingLogProb | None,
    arrays: dict[str, Tensor],
    args: Namespace,
) -> None:
    """Write all data: arrays, diagnostics, and where a table was given, tables like it."""
    image = task.shape[1:] if len(task.shape) == 3 else task.shape
    stored = {name: array.unflatten(-1, image).numpy() for name, array in arrays.items()}
    files: dict[str, bytes | str] = {"completed.npz": as_npz({"rows": task.rows.numpy(), **stored})}
    if (table := task.table) is not None:
        made = {f"completed-{m + 1}": x for m, x in enumerate(filled.completions.cpu())} | {"mean": filled.mean.cpu()}
        files |= {
            f"{name}.{table.form.suffix}": as_bytes(fill_frame(task, table, x), table) for name, x in made.items()
        }
    elif _is_table(args.data):
        tables = {f"completed-{m + 1}.csv": table for m, table in enumerate(arrays["completions"])}
        tables["mean.csv"] = arrays["mean"]
        files |= {name: fill_table(Path(args.data), task, table) for name, table in tables.items()}
    files["diagnostics.csv"] = to_csv(by_example(vae, task, filled, scored))
    if task.truth is not None and len(task.shape) == 1:
        files["columns.csv"] = to_csv({"column": names_of(task), **errors_of(vae, task, filled).as_columns()})
    results.write(files, earlier(results.folder, NAME))  # there may be more tables than this call leaves


def fill_frame(task: Task, table: Schema, x: Tensor) -> Any:
    """Return the user's table, a ``pandas.DataFrame``, with its blanks filled from the rows ``x``, (N, D)."""
    frame, made = task.frame.copy(), table.decode(x)
    fillable = (task.x.isnan() & ~x.isnan()).numpy()
    for d, column in enumerate(table.modelled):
        rows = task.rows.numpy()[fillable[:, d]]
        frame.iloc[rows, frame.columns.get_loc(column.name)] = made[column.name].to_numpy()[fillable[:, d]]
    return frame


def fill_table(path: Path, task: Task, table: Tensor) -> str:
    """Return the user's table with its blanks filled; every other cell, and the first line, as the user wrote it."""
    names, lines = read_cells(path)
    columns = [d for d, name in enumerate(names or lines[0]) if name.strip() != task.label_column]
    fillable = task.x.isnan() & ~table.isnan()
    for values, blank, row in zip(table.tolist(), fillable.tolist(), task.rows.tolist(), strict=True):
        line = lines[row]
        for at, value, fill in zip(columns, values, blank, strict=True):
            line[at] = f"{value:.6g}" if fill else line[at]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*([] if names is None else [names]), *lines[: task.total]])
    return text.getvalue()


def draw(path: Path, vae: VAE, task: Task, arrays: dict[str, Tensor]) -> None:
    """Draw the first few examples with their completions; of a table, what was filled in."""
    truth = None if task.truth is None else original(task.truth, vae)
    if len(task.shape) == 3:
        plotting.completed_images(
            _images(original(task.x, vae), task),
            _images(arrays["completions"][:MAX_SHOWN], task),
            path,
            mean=_images(arrays["mean"], task),
            sd=_images(arrays["sd"], task),
            truth=None if truth is None else _images(truth, task),
            row_names=[f"{row}" for row in task.rows[:SHOWN].tolist()],
            title="What was given, completions, their mean and standard deviation",
        )
        return
    observed, names = original(task.x, vae).numpy(), names_of(task)
    if truth is None:
        completions = arrays["completions"].numpy()
        title = "Observed values, and those filled in"
        plotting.columns_completed(observed, completions, path, names=names, title=title, words=words_of(vae))
        return
    plotting.columns_scattered(
        truth.where(task.x.isnan() & ~unordered(vae, truth), torch.nan).numpy(),
        arrays["mean"].numpy(),
        path,
        names=names,
        title="What was filled in, with its standard deviation, and the truth",
        label="filled in",
        x_label="truth",
        sd=arrays["sd"].numpy(),
    )


def _images(values: Tensor, task: Task) -> np.ndarray:
    """Return the first few images, (..., n, H, W)."""
    return values[..., :SHOWN, :].unflatten(-1, task.shape[1:]).numpy()


def _introduce(args: Namespace, vae: VAE, task: Task) -> None:
    config = vae.config
    blank = task.x.isnan()
    print(
        f"data        {task.name}: {len(task.x):,} of {task.total:,} examples have blanks, "
        f"{int(blank.sum()):,} of them, {blank.double().mean().item():.1%} of the values in these"
    )
    if config.pixels in ("binarized", "threshold"):
        how = "drawn once with the grey value as probability" if config.pixels == "binarized" else "at grey 1/2"
        print(f"pixels      0 or 1 ({how}, where they were grey): so are completions; means are probabilities")
    options = options_of(METHODS[args.method], args)
    print(f"method      {args.method}: {', '.join(f'{name} {value:,}' for name, value in options.items())}")
