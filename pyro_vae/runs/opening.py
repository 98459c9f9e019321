"""Opening a run: its model, its data, and the user's own in the same form."""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pyro_vae import data
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data import Data
from pyro_vae.data.arrays import ShowsShapes
from pyro_vae.data.labels import in_words, named, to_classes
from pyro_vae.data.source import Source
from pyro_vae.data.tables import Schema
from pyro_vae.machine.reading import read_yaml
from pyro_vae.runs.checkpoint import load
from pyro_vae.runs.folder import CONFIG, KEPT, check_same_data
from pyro_vae.runs.kept import read as read_kept
from pyro_vae.vae import VAE

DATA_OPTIONS: dict[str, Any] = {
    "data": (str,),
    "pixels": (str, None),
    "validation": (int, float, None),
    "test": (int, float, None),
    "levels": (int, None),
    "data_dir": (str, None),
    "missing": (bool,),
    "condition": (str, None),
    "num_labels": (int, None),
    "schema": (dict, None),
    "rows": (str, int, None),
}


class DataGoneError(FileNotFoundError):
    """The data that a run was trained on are not where they were."""


@dataclass(frozen=True, repr=False)
class Examples(ShowsShapes):
    """Data that a command works on.

    Attributes:
        x: The data, (N, D), in the form that the run was trained on.
        split: "train", "validation" or "test" of the run's own data; "all" of the user's.
        name: Where they come from.
        labels: Their classes, (N,), if known.
        classes: The names of classes 0, 1, 2, …; None where labels are numbers that name themselves.
        rows: Which of the user's they are, (N,), from 0; None of the run's own.
        frame: The user's table, as it was written; None of other data.
        table: What its columns are, and how it was written.
    """

    x: Tensor
    split: str
    name: str
    labels: Tensor | None
    classes: tuple[str, ...] | None = None
    rows: Tensor | None = None
    frame: Any = None
    table: Schema | None = None

    @property
    def label_names(self) -> np.ndarray | None:
        """The labels as their user knows them, (N,), numbers or text; None where there are none."""
        return None if self.labels is None else named(self.labels, self.classes)


def load_run(run: str | os.PathLike, label: str | int | None, *, trust: Sequence[str] = ()) -> VAE:
    """Load the model of a run, in float32 as all data are; of a conditional one that of P(X | Y = label), a VAE too.

    Without a label it is that of P(X), where the sum over the classes is an ordinary VAE.

    Args:
        run: The run folder.
        label: A class, as the data call it.

    Raises:
        ValueError: When there is no such class, or a class is needed and none is named.
    """
    return of_label(run, load(run, trust=trust).float(), label)


def of_label(run: str | os.PathLike, vae: VAE, label: str | int | None) -> VAE:
    """Return what :func:`load_run` makes of a run's model."""
    if not isinstance(vae, ConditionalVAE):
        check_no_label(run, label)
        return vae
    names = vae.config.class_names
    if label is None:
        if (summed_out := vae.summed_out()) is not None:
            return summed_out
        raise ValueError(
            f"{run} was trained with --condition: say which class, --label {in_words(names)}, for P(X | Y)"
        )
    if str(label) not in names:
        raise ValueError(f"--label {label}: expected one of the classes {in_words(names)}")
    return vae.given(names.index(str(label)))


def check_no_label(run: str | os.PathLike, label: str | int | None) -> None:
    """Refuse a label for a run that has none."""
    if label is not None:
        raise ValueError(f"--label {label}: {run} was trained without --condition; leave it out, or train with it")


def run_data(run: str | os.PathLike, vae: VAE | None = None) -> Data:
    """Load the data of a run: the same splits, in the form that it was trained on.

    Args:
        run: The run folder.
        vae: Its model, whose classes the labels then are; of the model of one class, the data are those of it.

    Raises:
        FileNotFoundError: When it is no run folder, or its data are gone.
        ValueError: When its configuration is broken, or its data have changed.
    """
    path = Path(run) / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{run} is no run folder (it holds no {CONFIG})")
    config = read_yaml(path, **DATA_OPTIONS)
    try:
        options = {name: config[name] for name in ("data", "pixels", "validation", "test", "levels", "data_dir")}
        options |= {"missing": config.get("missing", False), "condition": config.get("condition")}
        options |= {"schema": config.get("schema"), "rows": config.get("rows")}
        options |= {"as_numbers": config.get("likelihood") is not None}
    except KeyError as error:
        raise ValueError(f"{path} is no run's configuration: it says nothing of {error}") from None
    try:
        dataset = data.load(**options)
    except FileNotFoundError as error:
        name = config["data"]
        why = str(error) if name in data.KNOWN else f"there is nothing at {Path(str(name)).expanduser().absolute()}"
        raise DataGoneError(
            f"{run}: its data are not there: {path} names {name!r}, but {why}; bring them there, or correct the path"
        ) from error
    check_same_data(Path(run), dataset)
    if vae is not None and vae.config.num_classes is not None:
        dataset = dataset.in_classes(vae.config.class_names)
    return dataset if vae is None or vae.label is None else dataset.of_class(vae.label)


def condition_of(run: str | os.PathLike) -> str | None:
    """Return what the data of a run are conditioned on, "label" or the name of a table's column; None if on nothing."""
    path = Path(run) / CONFIG
    return read_yaml(path, **DATA_OPTIONS).get("condition") if path.exists() else None


def some_data(run: str | os.PathLike, vae: VAE, num: int = 1) -> Data:
    """Return some of a run's data, for pictures, the names of columns and the like; of its model's class.

    Args:
        run: The run folder.
        vae: Its model.
        num: So many test data, if they are to be had. Where the run keeps fewer, all data are read.

    Raises:
        FileNotFoundError: When it keeps none, and they are gone.
        ValueError: When they don't fit the model, or none is of the class.
    """
    kept = read_kept(Path(run), vae)
    if kept is not None and 0 in (len(kept.data.train), len(kept.data.test)):
        kept = None
    if kept is not None and kept.has("test", num):
        return kept.data
    try:
        return run_data(run, vae)
    except DataGoneError:
        if kept is None:
            raise
        return kept.data


def read_examples(
    run: Path,
    vae: VAE,
    *,
    split: Literal["test", "validation", "train"] | None = None,
    data: str | None = None,
    levels: int | None = None,
    data_dir: str | None = None,
    max_examples: int | None = None,
    seed: int = 0,
    drawn: bool = True,
    some: bool = False,
) -> Examples:
    """Read some of a run's own data, or the user's, in the form that the run was trained on.

    Args:
        run: The run folder.
        vae: Its model.
        split: Which of the run's data. Default: test.
        data: Your own: a file, folder or name as for training. All of it, in its order.
        levels: The number of grey levels of your own data. Default: the run's.
        data_dir: The folder of mnist and its relatives, where the data are one of them.
        max_examples: Only the first so many. Default: all.
        seed: Of the random form that training data are given.
        drawn: Draw a random form; else return what it is drawn from, where that is known.
        some: Make do, with a warning, with the held-out data that the run keeps, where the others are gone.

    Raises:
        ValueError: Naming the option, what was expected and what came.
        FileNotFoundError: When the data are not there.
    """
    if max_examples is not None and max_examples < 1:
        raise ValueError(f"max_examples must be at least 1, got {max_examples}")
    if data is not None and split is not None:
        raise ValueError("--split is of the run's own data; leave it out with --data")
    if data is None:
        examples = _own(run, vae, split or "test", seed, drawn, max_examples, some)
    else:
        examples = _users(run, vae, data, levels, data_dir, drawn)
    kept = slice(max_examples)
    labels, rows = (None if values is None else values[kept] for values in (examples.labels, examples.rows))
    frame = None if examples.frame is None else examples.frame.iloc[kept]
    return replace(examples, x=examples.x[kept], labels=labels, rows=rows, frame=frame)


def _own(run: Path, vae: VAE, split: str, seed: int, drawn: bool, num: int | None, some: bool) -> Examples:
    try:
        dataset = run_data(run, vae)
    except DataGoneError as gone:
        kept = read_kept(run, vae)
        if kept is None:
            raise
        if not kept.has(split, num):
            part = f"the first {len(getattr(kept.data, split)):,} {split} examples"
            if not some:
                others = "held-out data" if split == "train" else f"no more than {part}"
                raise DataGoneError(f"{gone}, or ask for {others}, which {KEPT} keeps") from gone
            warnings.warn(f"{gone}; until then it is {part} alone, which {KEPT} keeps", stacklevel=3)
        dataset = kept.data
    x = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}[split]
    if len(x) == 0:
        of_class = "" if vae.label is None else f" of class {vae.config.class_names[vae.label]}"
        raise ValueError(f"--split {split}: the run has no such data{of_class}; name another split")
    if split == "train" and dataset.draw is not None and drawn:
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            x = dataset.draw(x)
    labels = None if dataset.labels is None else dataset.labels[split]
    return Examples(x, split, dataset.name, labels, dataset.classes)


def _users(run: Path, vae: VAE, name: str, levels: int | None, data_dir: str | None, drawn: bool) -> Examples:
    how: dict[str, Any] = {"levels": levels, "data_dir": data_dir, "missing": vae.missing, "drawn": drawn}
    source = read_like(run, vae, "data", name, **how)
    own, rows = of_class(source, vae), torch.arange(len(source.x))
    if source.y is not None and vae.label is not None:
        rows = rows[source.y == vae.label]
    frame = None if source.frame is None else source.frame.iloc[rows.numpy()]
    return Examples(own.x, "all", name, own.y, own.classes, rows, frame, source.table)


def read_like(
    run: Path,
    vae: VAE,
    option: str,
    name: str,
    *,
    levels: int | None,
    data_dir: str | None,
    missing: bool,
    drawn: bool = True,
) -> Source:
    """Read the user's data in the form that the run was trained on, those of all classes.

    Raises:
        ValueError: Naming the option, when they don't fit.
    """
    config = vae.config
    how = {"pixels": config.pixels, "levels": levels or config.levels}
    source = read_source(run, vae, name, **how, missing=missing, data_dir=data_dir, drawn=drawn)
    if source.x.shape[1] != math.prod(config.x_shape):
        raise ValueError(
            f"--{option} {name} holds examples of {size(source.shape)}, but the run was trained on "
            f"{size(config.x_shape)}; bring them to that size"
        )
    return source


def read_source(run: Path, vae: VAE, name: str, **how: Any) -> Source:
    """Read the user's data; of a run with labels without the column that holds them, and as classes of its model."""
    if vae.config.table is not None:
        source = data.read_table(name, vae.config.table, condition=condition_of(run))
    else:
        source = data.read(name, condition=condition_of(run), **how)
    if vae.config.num_classes is None or source.y is None:
        return source
    classes = vae.config.class_names
    return replace(source, y=to_classes(source.y, source.classes, classes), classes=classes)


def of_class(source: Source, vae: VAE) -> Source:
    """Return the data of the class that a model is of, where labels are known; data without labels are all of it."""
    if vae.label is None or source.y is None:
        return source
    rows = source.y == vae.label
    if not rows.any():
        label = vae.config.class_names[vae.label]
        raise ValueError(f"--label {label}: none of the data are of this class; name another")
    return replace(source, x=source.x[rows], y=source.y[rows])


def size(shape: Sequence[int]) -> str:
    """Say how large an example is."""
    return f"{shape[-2]}x{shape[-1]} pixels" if len(shape) == 3 else f"{shape[0]} columns"
