"""What commands leave: files in a folder, and before that what is refused because nothing could come of it."""

import csv
import io
import itertools
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.commands.progress import SOON, progress_bar
from pyro_vae.data.arrays import as_small
from pyro_vae.data.tables import as_bytes
from pyro_vae.data.tables.column import UNORDERED
from pyro_vae.evidence.result import standard_error
from pyro_vae.machine.files import as_json, as_npz, write_files
from pyro_vae.machine.memory import largest
from pyro_vae.plotting.tables import Words
from pyro_vae.runs.files import beside_the_figures
from pyro_vae.runs.folder import is_result
from pyro_vae.runs.opening import read_examples, some_data
from pyro_vae.vae import VAE

BLOCK = 64  # data whose importance weights are kept at the same time, at least
KINDS = ("json", "csv", "npz", "nc", "png", "html")


class Results:
    """The files that a command leaves: the data first, each file whole or not at all, and then what only shows them.

    Args:
        folder: Where; made when there is something to put there.
        name: Of the main files, NAME.csv, NAME.png ….
        what: What to call the folder.
        check: What to do before they are written, such as to refuse them.
    """

    def __init__(self, folder: Path, name: str, what: str = "results", check: Callable[[], None] | None = None):
        self.folder, self.name, self.what, self.check = folder, name, what, check
        self.names: list[str] = []  # of what was written

    def write(self, files: Mapping[str, bytes | str | Mapping[str, Any]], outdated: Iterable[Path] = ()) -> "Results":
        """Write the data, from the content of each file by its name; a mapping is a summary, to be written as JSON.

        They take the place of what an earlier call left under the same name, and of what else is ``outdated``, once all
        are safe on the disk. A summary goes first and comes last: where it is, it belongs to the others.
        """
        if self.check is not None:
            self.check()
        self.folder.mkdir(parents=True, exist_ok=True)
        data: dict[str, bytes | str] = {}
        summaries: dict[str, bytes | str] = {}
        for name, content in files.items():
            if isinstance(content, Mapping):
                summaries[name] = as_json(content)
            else:
                data[name] = content
        earlier = [name for kind in KINDS if is_result(name := f"{self.name}.{kind}") and name not in data]
        new = {self.folder / name: content for name, content in (data | summaries).items()}
        write_files(new, [*(self.folder / name for name in earlier), *outdated])
        self.names += [path.name for path in new]
        return self

    def add(self, kind: str, write: Callable[[Path], None]) -> None:
        """Write NAME.KIND, such as a picture, by a function of its path; where that fails, say so and go on."""
        path = self.folder / f"{self.name}.{kind}"
        with beside_the_figures(path):
            write(path)
            self.names.append(path.name)

    def conclude(self, draw: Callable[[Path], None] | None = None) -> None:
        """Draw NAME.png, if there is to be one, and print where the files are, and which there are."""
        if draw is not None:
            self.add("png", draw)
        print(f"{self.what:<12}{self.folder}  ({', '.join(self.names)})")


def read_near(
    run: Path, vae: VAE, near: str, *, levels: int | None = None, data_dir: str | None = None
) -> tuple[Tensor, str]:
    """Read one example, (D,), and say which: a ROW of the test split, or FILE[:ROW]; rows count from 0.

    Raises:
        ValueError: If there is no such row, or the file doesn't fit the run.
        FileNotFoundError: If there is no such file.
    """
    name, _, row = near.rpartition(":")
    if near.isdecimal():
        name, row = "", near
    elif not (name and row.isdecimal()):
        name, row = near, "0"
    if not name and (levels is not None or data_dir is not None):
        raise ValueError(f"--near {near}: --levels and --data_dir say how to read a file; name one, as FILE:{near}")
    examples = read_examples(run, vae, data=name or None, levels=levels, data_dir=data_dir, max_examples=int(row) + 1)
    x = examples.x[check_row("near", int(row), len(examples.x))]
    return x, f"row {int(row)} of {Path(name).name if name else 'the test data'}"


def check_row(option: str, row: int, size: int) -> int:
    """Return the number of a row, from 0, if there is one of ``size`` with it.

    Raises:
        ValueError: Naming the option.
    """
    if not 0 <= row < size:
        raise ValueError(f"--{option}: there is no row {row}, the {size:,} examples are rows 0 to {size - 1}")
    return row


def check_fits(option: str, count: int, each: int, *, squared: bool = False) -> None:
    """Refuse to make so many, or the square of so many, that they would not fit in memory, before any is taken.

    Args:
        option: That says how many.
        count: How many.
        each: The bytes that each of them takes.
        squared: They are in rows and columns, ``count`` each.

    Raises:
        ValueError: Naming the option.
    """
    most = largest() // each
    _check_most(option, count, math.isqrt(most) if squared else most)


def check_samples(option: str, count: int) -> None:
    r"""Refuse more importance samples than memory is there for, which takes :math:`3 \sqrt K` weights of each datum.

    Raises:
        ValueError: Naming the option.
    """
    _check_most(option, count, (largest() // (3 * 8 * BLOCK)) ** 2)


def _check_most(option: str, count: int, most: int) -> None:
    if count > most:
        raise ValueError(f"--{option}: expected at most {most:,}, a quarter of this machine's memory, got {count:,}")


def bytes_of_datum(vae: VAE) -> int:
    """Return what a datum and its latents take in memory."""
    return 4 * (math.prod(x_shape(vae)) + vae.config.latent_dim)


def x_shape(vae: VAE) -> tuple[int, ...]:
    """Return the shape of one datum: (1, H, W), or (D,) for a table."""
    return vae.config.x_shape


def column_names(run: Path, vae: VAE) -> list[str] | None:
    """Return the names of a table's columns, from the data that the run was trained on; None of images."""
    if len(x_shape(vae)) == 3:
        return None
    dataset = some_data(run, vae)
    return list(dataset.columns or [f"column {d + 1}" for d in range(dataset.shape[0])])


def in_units(vae: VAE, x: Tensor, *, spread: bool = False) -> Tensor:
    """Return data, (..., D), or their ``spread``, as their user knows them: of a table in each column's own units."""
    return x if vae.config.table is None else vae.config.table.in_units(x, spread=spread)


def unordered(vae: VAE, x: Tensor) -> Tensor:
    """Return which elements of data, (..., D), are categories, of whose numbers no mean or difference has a meaning."""
    kinds = [] if vae.config.table is None else [column.kind for column in vae.config.table.modelled]
    return torch.tensor([kind in UNORDERED for kind in kinds] or False).expand(x.shape)


def mean_name(vae: VAE) -> str:
    """Return what stands for a distribution of x: its mean, or of categories the most probable one."""
    names = unordered(vae, torch.empty(math.prod(x_shape(vae)))).any()
    return "E[x|z], of categories the likeliest," if names else "E[x|z]"


def words_of(vae: VAE) -> Words:
    """Return what values of a table, in own units, stand for where they are no numbers."""
    return {} if vae.config.table is None else vae.config.table.words


def table_file(
    vae: VAE, name: str, names: list[str], x: Tensor, first: Mapping[str, Any] | None = None
) -> dict[str, bytes | str]:
    """Return tables of any shape, (..., D), as a file like the user's, a row for each, behind other columns."""
    rows = x.flatten(0, -2)
    if (table := vae.config.table) is None:
        return {f"{name}.csv": to_csv({**(first or {}), **dict(zip(names, rows.T, strict=True))})}
    frame = table.decode(rows)
    for at, (column, values) in enumerate((first or {}).items()):
        frame.insert(at, free_name(column, frame.columns), values.tolist() if isinstance(values, Tensor) else values)
    return {f"{name}.{table.form.suffix}": as_bytes(frame, table)}


def write_decoded(
    folder: Path,
    name: str,
    vae: VAE,
    names: list[str] | None,
    data: Mapping[str, Tensor],
    *,
    first: Mapping[str, Any] | None = None,
    **other: Tensor | np.ndarray | None,
) -> Results:
    """Write data, (..., D), by their names and other arrays to NAME.npz; of a table, ``first`` and x to NAME.csv."""
    with progress_bar("writing", after=SOON) as progress:
        files: dict[str, bytes | str] = {f"{name}.npz": to_npz(vae, data=data, other=other)}
        progress(1, 2)
        if names is not None:
            files |= table_file(vae, name, names, data["x"], first)
        progress(2, 2)
    return Results(folder, name).write(files)


def to_images(vae: VAE, x: Tensor) -> np.ndarray:
    """Return grey images as an array, (..., D) -> (..., H, W)."""
    return x.unflatten(-1, x_shape(vae)[-2:]).numpy()


def to_npz(vae: VAE, *, data: Mapping[str, Tensor], other: Mapping[str, Tensor | np.ndarray | None]) -> bytes:
    """Return the content of a .npz file.

    Args:
        vae: The VAE that the data fit: of images they become (..., H, W).
        data: By name, (..., D); whole numbers from 0 to 255 become bytes.
        other: Whatever belongs to them; what is None is left out.
    """
    shape = x_shape(vae)
    arrays = {
        name: as_small(in_units(vae, x).reshape(*x.shape[:-1], *shape[1 if shape[0] == 1 else 0 :]))
        for name, x in data.items()
    }
    for name, value in other.items():
        if value is not None:
            arrays[name] = value.cpu().numpy() if isinstance(value, Tensor) else value
    return as_npz(arrays)


def beside(ours: Mapping[str, Any], own: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Put the user's own columns behind ours; one whose name is taken gets a number behind it.

    Example:
        >>> beside({"index": [0]}, [("index", [7]), ("age", [3]), ("age", [4])])
        {'index': [0], 'index (2)': [7], 'age': [3], 'age (2)': [4]}
    """
    columns = dict(ours)
    for name, values in own:
        columns[free_name(name, columns)] = values
    return columns


def free_name(name: str, taken: Container[str]) -> str:
    """Return a name, with a number behind it where it is taken."""
    names = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
    return next(free for free in names if free not in taken)


def to_csv(columns: Mapping[str, Sequence[Any] | Tensor | np.ndarray]) -> str:
    """Return a table as CSV, from its columns by name."""
    values = [column.tolist() if isinstance(column, Tensor | np.ndarray) else column for column in columns.values()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*values, strict=True):
        writer.writerow([f"{value:.8g}" if isinstance(value, float) else value for value in row])
    return text.getvalue()


def some_of(items: Sequence[Any], most: int = 10) -> str:
    """Return the first few of several things, as text."""
    return ", ".join(map(str, items[:most])) + (", …" if len(items) > most else "")


def with_error(value: float | None, se: float | None = None, digits: int = 2) -> str:
    """Write a figure with its standard error, where it has one: over a single example there is none.

    Example:
        >>> with_error(-23.05, 0.19), with_error(-23.05, math.inf), with_error(None)
        ('-23.05 ± 0.19', '-23.05', 'unknown')
    """
    if value is None or not math.isfinite(value):
        return "unknown"
    error = f" ± {se:.{digits}f}" if se is not None and math.isfinite(se) else ""
    return f"{value:.{digits}f}{error}"


def without_impossible(log_evidence: Tensor) -> Iterator[str]:
    """Say the mean of log P(X) without the examples that the model gives no density, where there are such."""
    possible = log_evidence.isfinite()
    if not possible.all():
        rows, others = (~possible).nonzero()[:, 0].tolist(), log_evidence[possible]
        figure = with_error(others.mean().item(), standard_error(others))
        yield f"            {figure} over the others; to index {some_of(rows)} the model gives no density (-inf)"
