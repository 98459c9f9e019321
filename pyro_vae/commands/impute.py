"""Fill the blanks in data: ``pyro-vae impute RUN --data FILE``."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor

from pyro_vae import data, plotting
from pyro_vae.commands.arguments import add_data_arguments, add_out_arguments, add_run_arguments, new_folder
from pyro_vae.commands.cli import Parser, command
from pyro_vae.commands.outputs import by_column, to_csv
from pyro_vae.commands.progress import progress_bar
from pyro_vae.data.source import Source
from pyro_vae.evidence.checks import check_count
from pyro_vae.evidence.result import standard_error
from pyro_vae.inference import Imputation, MissingLogProb, gibbs, impute, log_prob_missing
from pyro_vae.inference.impute import check_truth
from pyro_vae.machine.devices import resolve_device
from pyro_vae.runs.files import write_file
from pyro_vae.runs.opening import load_run, read_examples, read_like, run_data
from pyro_vae.vae import VAE

NAME = "impute"
# The options of each method, with their defaults; those of the other are refused.
METHODS: dict[str, dict[str, int]] = {
    "importance": {"num_samples": 1000, "num_starts": 4, "steps": 100},
    "gibbs": {"num_steps": 1000, "num_chains": 4},
}
SIDES = ("left", "right", "top", "bottom")
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
        truth: The complete examples, (N, D), if known.
    """

    name: str
    x: Tensor
    rows: Tensor
    total: int
    shape: tuple[int, ...]
    columns: tuple[str, ...] | None
    truth: Tensor | None


def parser() -> Parser:
    """Return the parser. What it leaves at None has its default in ``METHODS``."""
    parser = Parser(
        prog="pyro-vae impute",
        description="Fill the blanks in data (NaN; in a .csv file also empty cells and NA), several times.",
    )
    add = parser.add_argument
    add_run_arguments(parser)
    add_data_arguments(parser)
    add("--mask", type=str | None, help="A file like the data, or for one example: 1 where it is blank, 0 elsewhere.")
    add(
        "--hide",
        type=str | None,
        metavar="PART",
        help="Hide a part of complete examples, to see how well it is filled: a fraction of the values at random, such "
        "as 0.5, or the left, right, top or bottom half of images.",
    )
    add("--truth", type=str | None, help="A file like the data, without blanks: how well were they filled?")
    add("--num_completions", type=int, default=5, help="How often to fill each example.")
    add(
        "--method",
        type=Literal[tuple(METHODS)],
        default="importance",
        help="importance: importance resampling, from a proposal fitted to each example; gibbs: "
        "Metropolis-within-Gibbs, exact in the long run.",
    )
    add("--num_samples", type=int | None, help="importance: samples for each example. Default: 1000.")
    add("--num_starts", type=int | None, help="importance: Gaussians in each proposal. Default: 4.")
    add("--steps", type=int | None, help="importance: gradient steps that fit each of them, twice. Default: 100.")
    add("--num_steps", type=int | None, help="gibbs: steps, after half as many to warm up. Default: 1000.")
    add("--num_chains", type=int | None, help="gibbs: chains for each example. Default: 4.")
    add_out_arguments(parser, NAME)
    return parser


@command
def main(argv: list[str] | None = None) -> None:
    """Fill blanks, and leave the files in a folder."""
    args = complete(parser().parse_args(argv))
    run, device = Path(args.run), resolve_device(args.device)
    vae = load_run(run, args.label).to(device)
    folder = new_folder(args.out, run, NAME, args.overwrite)
    task = read_task(run, vae, args)
    x = task.x.to(device)
    _introduce(args, vae, task)
    options = {name: args[name] for name in ("num_completions", "seed", *METHODS[args.method])}
    with progress_bar("filling") as progress:
        filled = (gibbs if args.method == "gibbs" else impute)(vae, x, **options, progress=progress)
    scored = None
    if task.truth is not None:
        with progress_bar("scoring") as progress:
            options = METHODS["importance"] | {name: args[name] for name in METHODS["importance"] if args[name]}
            known = {"observed": filled.evidence, "seed": args.seed + 1, "progress": progress}
            scored = log_prob_missing(vae, x, task.truth.to(device), **options, **known)
    folder.mkdir(parents=True, exist_ok=True)
    names = write(folder, vae, task, filled, scored, args)
    for line in _words(task, filled, scored):
        print(line)
    print(f"results     {folder}  ({names})")


def complete(args: Namespace) -> Namespace:
    """Fill in the defaults, and refuse options that would have no effect.

    Raises:
        ValueError: Naming the option.
    """
    for method, defaults in METHODS.items():
        for option, default in defaults.items():
            if method == args.method:
                args[option] = default if args[option] is None else args[option]
                check_count(**{option: args[option]})
            elif args[option] is not None and not (method == "importance" and (args.truth or args.hide)):
                raise ValueError(f"--{option} belongs to --method {method}, not {args.method}; leave it out")
    check_count(num_completions=args.num_completions)
    if args.mask is not None and args.hide is not None:
        raise ValueError("--hide and --mask both say what is blank; leave one out")
    if args.truth is not None and args.hide is not None:
        raise ValueError("--hide hides a part of complete data, which are the truth; leave out --truth")
    if args.data is not None and args.split is not None:
        raise ValueError("--split is of the run's own data; leave it out with --data")
    return args


def read_task(run: Path, vae: VAE, args: Namespace) -> Task:
    """Read the data, and find what is blank.

    Raises:
        ValueError: Naming the option, what was expected and what came.
        FileNotFoundError: When a file is not there.
    """
    if args.data is None:
        options = {name: args[name] for name in ("split", "max_examples", "seed")}
        examples = read_examples(run, vae, **options)
        x, name, columns = examples.x, examples.name, run_data(run).columns
    else:
        source, name = _read_like(run, vae, args, "data"), args.data
        x, columns = source.x[: args.max_examples], source.columns
    truth = None
    if args.truth is not None:
        truth = _read_like(run, vae, args, "truth").x[: args.max_examples]
    shape = tuple((vae.config or {})["x_shape"])
    if args.mask is not None:
        x = torch.where(_read_mask(args.mask, x, args.max_examples), torch.nan, x)
    elif args.hide is not None:
        if x.isnan().any():
            raise ValueError("--hide: the data have blanks already; leave it out")
        truth, x = x, torch.where(hidden(x, shape, args.hide, args.seed), torch.nan, x)
    rows = x.isnan().any(1).nonzero().squeeze(1)
    if len(rows) == 0:
        raise ValueError(
            f"data={name!r}: expected blanks (NaN, in a .csv file also empty cells or NA), but there are none; mark "
            "them with --mask, or hide something with --hide"
        )
    if truth is not None:
        check_truth(x, truth)
    return Task(name, x[rows], rows, len(x), shape, columns, None if truth is None else truth[rows])


def _read_like(run: Path, vae: VAE, args: Namespace, option: str) -> Source:
    """Read the data, or the truth, in the form that the run was trained on."""
    how = {"levels": args.levels, "data_dir": args.data_dir, "missing": option == "data"}
    return read_like(run, vae, option, args[option], **how)


def _read_mask(name: str, x: Tensor, max_examples: int | None) -> Tensor:
    """Return what is blank, (N, D) or (1, D)."""
    mask = data.read(name, pixels="raw").x
    if mask.numel() == x.shape[1]:
        mask = mask.reshape(1, -1)
    elif mask.shape[1] == x.shape[1] and len(mask) >= len(x):
        mask = mask[:max_examples]
    if mask.shape[1] != x.shape[1] or len(mask) not in (1, len(x)):
        raise ValueError(
            f"--mask {name}: expected one for each of the {len(x):,} examples of {x.shape[1]} values, or one for all, "
            f"but it holds {len(mask):,} rows of {mask.shape[1]}"
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"--mask {name}: expected 1 where a value is blank and 0 elsewhere, but it holds others")
    return mask == 1


def hidden(x: Tensor, shape: Sequence[int], part: str, seed: int) -> Tensor:
    """Return which values of ``x``, (N, D), to hide, (N, D) or (1, D): a fraction at random, or a half of images.

    Raises:
        ValueError: When it is neither.
    """
    if part in SIDES:
        if len(shape) != 3:
            raise ValueError(f"--hide {part}: is of images, but the run is on a table; give a fraction")
        _, height, width = shape
        mask = torch.zeros(shape, dtype=torch.bool)
        half = {
            "left": (slice(None), slice(width // 2)),
            "right": (slice(None), slice(width // 2, None)),
            "top": (slice(height // 2), slice(None)),
            "bottom": (slice(height // 2, None), slice(None)),
        }[part]
        mask[:, half[0], half[1]] = True
        return mask.reshape(1, -1)
    try:
        fraction = float(part)
    except ValueError:
        fraction = math.nan
    if not 0 < fraction < 1:
        raise ValueError(f"--hide: expected a fraction between 0 and 1, or one of {', '.join(SIDES)}, got {part!r}")
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < fraction


def original(x: Tensor, vae: VAE, *, spread: bool = False) -> Tensor:
    """Return values, or their ``spread``, in the units of the data: dequantized ones as levels again."""
    config = vae.config or {}
    if config["pixels"] != "dequantized":
        return x
    return x * config["levels"] if spread else (x * config["levels"]).floor().clamp(0, config["levels"] - 1)


def write(
    folder: Path, vae: VAE, task: Task, filled: Imputation, scored: MissingLogProb | None, args: Namespace
) -> str:
    """Write all files, and say in words which."""
    completions, mean, sd = (values.cpu() for values in (filled.completions, filled.mean, filled.sd))
    dequantized = (vae.config or {})["pixels"] == "dequantized"
    arrays = {
        "completions": original(completions, vae),
        # The mean of a level is half a cell below that of the dequantized value.
        "mean": original(mean, vae, spread=True) - 0.5 * dequantized,
        "sd": original(sd, vae, spread=True),
        "observed": ~task.x.isnan(),
    }
    arrays["mean"] = torch.where(arrays["observed"], original(task.x, vae), arrays["mean"])
    # There may be more tables of an earlier call than this one leaves.
    done_before = (folder / "completed.npz").exists()
    earlier_tables = [*folder.glob("completed-*.csv"), folder / "mean.csv"] if done_before else []
    image = task.shape[1:] if len(task.shape) == 3 else task.shape
    stored = {name: array.unflatten(-1, image).numpy() for name, array in arrays.items()}
    content = io.BytesIO()
    np.savez_compressed(content, rows=task.rows.numpy(), **stored)
    write_file(folder / "completed.npz", content.getvalue())
    write_file(folder / "diagnostics.csv", to_csv(_by_example(task, filled, scored)))
    names, texts = "completed.npz", {}
    if args.data is not None and Path(args.data).suffix.lower() == ".csv":
        tables = {f"completed-{m + 1}.csv": table for m, table in enumerate(arrays["completions"])}
        tables["mean.csv"] = arrays["mean"]
        texts = {name: fill_table(Path(args.data), task, table) for name, table in tables.items()}
        names += f", completed-1.csv … completed-{len(completions)}.csv, mean.csv"
    for earlier in earlier_tables:
        if earlier.name not in texts:
            earlier.unlink(missing_ok=True)
    for name, text in texts.items():
        write_file(folder / name, text)
    _draw(folder, vae, task, arrays)
    return f"{names}, diagnostics.csv, completed.png"


def _by_example(task: Task, filled: Imputation, scored: MissingLogProb | None) -> dict[str, Any]:
    columns: dict[str, Any] = {"row": task.rows, "blanks": task.x.isnan().sum(1)}
    if filled.evidence is not None:
        evidence = filled.evidence
        columns |= {"log_p_observed": evidence.log_evidence, "se": evidence.se, "ess": evidence.ess}
        columns |= {"khat": evidence.khat, "reliable": evidence.reliable.long()}
    else:
        columns |= {"acceptance": filled.acceptance, "rhat": filled.rhat}
    if scored is not None:
        columns |= {"squared_error": squared_error(task, filled)}
        columns |= {"log_p_missing": scored.log_prob, "log_p_missing_se": scored.se}
    return columns


def squared_error(task: Task, filled: Imputation) -> Tensor:
    """Return the squared error of the mean over the blanks of each example, (N,)."""
    assert task.truth is not None
    blank = task.x.isnan()
    return (filled.mean.cpu() - task.truth).square().sum(1).double() / blank.sum(1)


def fill_table(path: Path, task: Task, table: Tensor) -> str:
    """Return the user's table with its blanks filled; every other cell, and the first line, as the user wrote it."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line) or len(line) > 1]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    first = 0 if task.columns is None else 1
    for values, blank, row in zip(table.tolist(), task.x.isnan().tolist(), task.rows.tolist(), strict=True):
        line = lines[first + row]
        lines[first + row] = [f"{v:.6g}" if b else cell for v, b, cell in zip(values, blank, line, strict=True)]
    writer.writerows(lines[: first + task.total])
    return text.getvalue()


def _draw(folder: Path, vae: VAE, task: Task, arrays: dict[str, Tensor]) -> None:
    path = folder / "completed.png"
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
        plotting.columns_completed(observed, completions, path, names=names, title="Observed values, and those filled")
        return
    plotting.columns_scattered(
        truth.where(task.x.isnan(), torch.nan).numpy(),
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


def names_of(task: Task) -> list[str]:
    """Return the names of a table's columns."""
    return list(task.columns or [f"column {d + 1}" for d in range(task.shape[0])])


def _introduce(args: Namespace, vae: VAE, task: Task) -> None:
    config = vae.config or {}
    blank = task.x.isnan()
    print(
        f"data        {task.name}: {len(task.x):,} of {task.total:,} examples have blanks, "
        f"{int(blank.sum()):,} of them, {blank.double().mean().item():.1%} of the values in these"
    )
    if config["pixels"] in ("binarized", "threshold"):
        how = "drawn once with the grey value as probability" if config["pixels"] == "binarized" else "at grey 1/2"
        print(f"pixels      0 or 1 ({how}, where they were grey): so are completions; means are probabilities")
    chosen = ", ".join(f"{name} {args[name]:,}" for name in METHODS[args.method])
    print(f"method      {args.method}: {chosen}, seed {args.seed}")


def _words(task: Task, filled: Imputation, scored: MissingLogProb | None) -> list[str]:
    lines = []
    if filled.evidence is not None:
        evidence = filled.evidence
        doubtful = int((~evidence.reliable).sum())
        lines.append(
            f"observed    log P(x_observed) {evidence.mean:.3f} nats per example; ESS {evidence.ess.median():.0f} in "
            f"the median, {evidence.ess.min():.0f} at least; k-hat too high in {doubtful:,} of {len(task.x):,}"
        )
        if doubtful:
            lines.append("            whose completions may be too alike: try more --num_samples, or more --num_starts")
    else:
        assert filled.acceptance is not None
        assert filled.rhat is not None
        lines.append(
            f"chains      accepted {filled.acceptance.mean():.1%}; R-hat {filled.rhat.median():.2f} in the median, "
            f"{filled.rhat.max():.2f} at most"
        )
    if scored is not None:
        assert task.truth is not None
        blank = task.x.isnan()
        off = (filled.mean.cpu() - task.truth).where(blank, torch.nan)  # (N, D)
        if len(task.shape) == 3:
            lines.append(f"truth       mean squared error {off.square().nanmean():.4g} per pixel")
        else:
            lines += by_column("truth", names_of(task), off, task.truth.where(blank, torch.nan))
        error, monte_carlo = standard_error(scored.log_prob), scored.se.square().sum().sqrt().item() / len(off)
        lines.append(
            f"            log P(x_missing|x_observed) {scored.log_prob.mean():.3f} "
            + (f"± {error:.3f} " if math.isfinite(error) else "")
            + f"nats per example (Monte Carlo {monte_carlo:.3f})"
        )
    return lines


if __name__ == "__main__":
    main()
