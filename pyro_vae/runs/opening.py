"""Opening a run: its model, its data, and the user's own in the same form."""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_vae import data
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.data import Data
from pyro_vae.data.arrays import ShowsShapes
from pyro_vae.data.source import Source
from pyro_vae.machine.reading import read_yaml
from pyro_vae.runs.checkpoint import load
from pyro_vae.runs.folder import CONFIG, KEPT, check_same_data
from pyro_vae.runs.kept import read as read_kept
from pyro_vae.vae import VAE


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
    """

    x: Tensor
    split: str
    name: str
    labels: Tensor | None


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
    config = read_yaml(path)
    try:
        options = {name: config[name] for name in ("data", "pixels", "validation", "test", "levels", "data_dir")}
        options |= {"missing": config.get("missing", False), "condition": config.get("condition")}
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
    if label is None:
        return dataset
    dataset = dataset.of_class(label)
    if len(dataset.train) == 0 or len(dataset.test) == 0:
        raise ValueError(f"--label {label}: {dataset.name} has no training or no test data of this class; name another")
    return dataset


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
        return run_data(run, vae.label)
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
        examples = _own(run, vae, split or "test", seed, max_examples, some)
    else:
        examples = _users(run, vae, data, levels, data_dir)
    kept = slice(max_examples)
    labels = None if examples.labels is None else examples.labels[kept]
    return Examples(examples.x[kept], examples.split, examples.name, labels)


def _own(run: Path, vae: VAE, split: str, seed: int, num: int | None, some: bool) -> Examples:
    try:
        dataset = run_data(run, vae.label)
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
    config = vae.config
    how = {"pixels": config.pixels, "levels": levels or config.levels}
    source = of_class(read_source(run, name, **how, missing=missing, data_dir=data_dir), vae.label)
    if source.x.shape[1] != math.prod(config.x_shape):
        raise ValueError(
            f"--{option} {name} holds examples of {size(source.shape)}, but the run was trained on "
            f"{size(config.x_shape)}; bring them to that size"
        )
    return source


def read_source(run: Path, name: str, **how: Any) -> Source:
    """Read the user's data, without the column of labels where the run was trained with one."""
    path = run / CONFIG
    condition = read_yaml(path).get("condition") if path.exists() else None
    return data.read(name, condition=condition, **how)


def of_class(source: Source, label: int | None) -> Source:
    """Return the data of one class, where labels are known; data without labels are all taken to be of it."""
    if label is None or source.y is None:
        return source
    rows = source.y == label
    if not rows.any():
        raise ValueError(f"--label {label}: none of the data are of this class; name another")
    return replace(source, x=source.x[rows], y=source.y[rows])


def size(shape: Sequence[int]) -> str:
    """Say how large an example is."""
    return f"{shape[-2]}x{shape[-1]} pixels" if len(shape) == 3 else f"{shape[0]} columns"
