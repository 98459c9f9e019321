"""Data sets in memory, as one tensor for each split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.data import pixels as _pixels
from pyro_vae.data.arrays import ShowsShapes
from pyro_vae.data.files import read_csv, read_npy, read_npz
from pyro_vae.data.frames import find_columns, read_new_table, read_table
from pyro_vae.data.images import read_folder
from pyro_vae.data.known import KNOWN, existing
from pyro_vae.data.labels import UNKNOWN, classes_of, keep_labels, take_labels, to_classes
from pyro_vae.data.source import Source, fingerprint, warn_far_out
from pyro_vae.data.tables import Schema, wanted_kinds
from pyro_vae.data.tables.reading import is_table
from pyro_vae.machine.progress import Progress
from pyro_vae.machine.reading import check_file

__all__ = ["KNOWN", "SPLITS", "SPLIT_SEED", "Data", "from_frame", "load", "read", "read_table"]

# The order in which a user's own data are split is that of this seed.
SPLIT_SEED = 20190103

SPLITS = ("train", "validation", "test")

_READERS = {".npz": read_npz, ".npy": read_npy, ".csv": read_csv}


@dataclass(frozen=True, eq=False, repr=False)
class Data(ShowsShapes):
    """A data set, split into three.

    Attributes:
        name: The data set's name, or the file's path as given.
        train: Training data, (N, D) float32. Where ``draw`` is given, ``draw(train[i])`` is what to train on.
        validation: Validation data, (M, D) float32; M may be 0. Fixed, also where training data are random.
        test: Test data, (T, D) float32. Fixed, also where training data are random.
        shape: Shape of one datum: (1, H, W) for images, (D,) for a table.
        levels: The number of grey levels that the data came in, None for real values.
        pixels: The form that the data are in: "binarized", "threshold", "grey", "levels", "dequantized" or "raw".
        draw: Makes a fresh random version of a batch of ``train``, by torch's default generator on the batch's
            device; None where nothing is random.
        labels: Class labels of "train", "validation" and "test", as long tensors; None if unknown. Where the data are
            conditioned on them, they are 0, 1, 2, … for the classes that were seen, and -1 marks single unknown ones.
        columns: The names of a table's columns; None if unknown.
        num_classes: How many classes there are, of data that are conditioned on their labels.
        classes: The names of labels 0, 1, 2, …; None where labels are numbers that name themselves.
        label_column: The name of a table's column that the labels were in.
        table: What the columns are, of a table of more than numbers.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    shape: tuple[int, ...]
    levels: int | None
    pixels: str
    draw: Callable[[Tensor], Tensor] | None
    labels: dict[str, Tensor] | None
    columns: tuple[str, ...] | None
    num_classes: int | None = None
    classes: tuple[str, ...] | None = None
    label_column: str | None = None
    table: Schema | None = None

    def __repr__(self) -> str:
        if self.table is None:
            return super().__repr__()
        sizes = ", ".join(f"{split}={tuple(getattr(self, split).shape)}" for split in SPLITS)
        return f"Data(name={self.name!r}, {sizes}), a table: {self.table!r}"

    def in_classes(self, classes: tuple[str, ...]) -> "Data":
        """Return the same with labels 0, 1, 2, … for these classes, by their names, and -1 for any other."""
        labels = self.labels and {split: to_classes(y, self.classes, classes) for split, y in self.labels.items()}
        return replace(self, labels=labels, classes=classes)

    def fingerprints(self) -> dict[str, str]:
        """Return what tells all of these data, by the name of each part, from others."""
        found = {split: fingerprint(getattr(self, split)) for split in SPLITS}
        if self.columns is not None:
            found["names of columns"] = fingerprint("\n".join(self.columns))
        return found | {f"{split} labels": fingerprint(y) for split, y in (self.labels or {}).items()}

    def with_few_labels(self, num: int) -> "Data":
        """Return the data as if few labels were known: ``num`` for training, none for validation, all to test.

        Raises:
            ValueError: When there aren't so many, or none to condition on.
        """
        if self.num_classes is None or self.labels is None:
            raise ValueError(f"num_labels={num}: there are no labels to keep without --condition label; add it")
        unknown = torch.full_like(self.labels["validation"], UNKNOWN)
        few = {"train": keep_labels(self.labels["train"], num), "validation": unknown}
        return replace(self, labels=self.labels | few)

    def of_class(self, label: int) -> "Data":
        """Return the data of one class, where labels are known; otherwise all."""
        return self if self.labels is None else self.where({split: y == label for split, y in self.labels.items()})

    def where(self, rows: dict[str, Tensor]) -> "Data":
        """Return the data of some rows, by the name of their split; of the other splits all."""
        labels = self.labels and {split: y[rows.get(split, slice(None))] for split, y in self.labels.items()}
        return replace(self, **{split: getattr(self, split)[of] for split, of in rows.items()}, labels=labels)


def load(
    data: str = "digits",
    *,
    pixels: str | None = None,
    preferred: str = "binarized",
    validation: float | None = None,
    test: float | None = None,
    levels: int | None = None,
    missing: bool = False,
    condition: str | None = None,
    num_labels: int | None = None,
    schema: Mapping[str, str] | str | None = None,
    columns: str | None = None,
    drop: Sequence[str] | str | None = None,
    rows: str | int | None = None,
    as_numbers: bool = True,
    data_dir: str | None = None,
    progress: Progress | None = None,
) -> Data:
    """Load a data set into memory and split it into training, validation and test data.

    A user's own data are split in a fixed random order; the named sets, and files with a test set, keep theirs.

    Args:
        data: A name (digits, mnist, fashion-mnist, kmnist, emnist, qmnist), or a path: a .npz file with array x
            (or the only array, or x_train and x_test), a .npy or .csv file, or a folder of images, whose subfolders
            are their classes, or train, val and test with such subfolders.
            Arrays are tables (N, D) or images (N, H, W).
        pixels: The form to give pixels: binarized (0 or 1, drawn afresh for each training batch with the grey value
            as its probability), threshold (1 where the grey value is above 1/2), grey (in [0, 1]), levels (whole
            numbers from 0), dequantized (levels with uniform noise, in [0, 1]) or raw (as in the file). Default: what
            suits the likelihood and the data, such as binarized for Bernoulli and raw for a table of real numbers.
        preferred: The form to choose where ``pixels`` is None, if the data have it; otherwise they are left raw.
        validation: The part of the training data to set aside for validation: a fraction below 1, or a number of
            examples; 0 trains on all. Default: the validation set that the data have, or as many as is usual (digits
            350, emnist 18800, its relatives 5000), or 0.1.
        test: The part of your own data to set aside for testing, likewise. Default: the test set that the data
            have, or 0.1.
        levels: The number of grey levels of your own data, whole numbers from 0 to levels - 1; 256 for 8 bits.
        missing: Take data with blanks: NaN, in a .csv file also empty cells and NA.
        condition: What to condition on, P(X | Y): "label" for the labels that the data have, in a .csv file the name of
            a column. Labels are whole numbers, or -1 (in a .csv file also a blank) where unknown; of a folder of images
            they are the names of its subfolders. There are as many classes as were seen.
        num_labels: Forget the labels of all training data but so many, balanced over the classes, and of all validation
            data, to see what few labels are worth. Default: keep all.
        schema: What some columns of a table are, such as age=count,zip=category: number, count, date, yes/no, category,
            ordinal, or identifier, text, constant and dropped, which are set aside. Default: what their values look
            like.
        columns: A YAML file that says the same of many columns, a line for each: age: count.
        drop: Columns of a table to leave out, such as name,address: they are neither learned nor written.
        rows: The rows of a table to take, all others are left out before anything else: the first so many, such as
            10000, or START:END, such as 0:5000, counted from 0.
        as_numbers: Take a table as it is, all columns numbers. Otherwise each column is what it looks like, and
            ``train`` and the others hold the numbers of a model, as ``table`` makes them.
        data_dir: The folder that mnist and its relatives are kept in, or downloaded to. Default: the environment
            variable PYRO_VAE_DATA, or ~/.cache/pyro_vae.
        progress: Called with how much of a table with columns of any kind is done, and of how much.

    Returns:
        The data. Random forms of the validation and test data are drawn once, by seeds of their own: they are the
        same in every run. The state of torch's generator does not change.

    Raises:
        ValueError: If the data, or an argument, are not what was expected: which, what came, and the way out.
        FileNotFoundError: If the data are not there, or could not be downloaded.

    Example:
        >>> digits = load("digits", pixels="levels")
        >>> digits.train.shape, digits.validation.shape, digits.test.shape
        (torch.Size([1000, 64]), torch.Size([350, 64]), torch.Size([447, 64]))
        >>> digits.shape, digits.levels
        ((1, 8, 8), 17)
    """
    _check_arguments(pixels, levels)
    as_table = not as_numbers and data not in KNOWN and is_table(Path(data))
    of_tables = {"schema": schema, "columns": columns, "drop": drop, "rows": rows}
    if not as_table and (given := next((name for name, value in of_tables.items() if value is not None), None)):
        raise ValueError(
            f"{given}: expected a table, and no likelihood for all its columns alike; leave it out, or the likelihood"
        )
    if as_table:
        source = read_new_table(data, condition, wanted_kinds(schema, columns, drop), rows, progress)
    else:
        source = _read(data, data_dir, missing, condition, required=True)
    if condition is not None and source.y is None:
        raise ValueError(
            f"condition={condition!r}: expected data with labels, but {data!r} has none: save them as array y of a "
            ".npz file with as many rows, or name a column of a .csv file"
        )
    if source.table is not None:
        if pixels not in (None, "raw") or levels is not None:
            raise ValueError("pixels, levels: a table has neither; leave them out")
        blank = bool(source.x.isnan().any())
        dataset = _divided(data, source, validation, test, "raw", None, blank, condition)
        return dataset if num_labels is None else dataset.with_few_labels(num_labels)
    if levels is not None and source.levels not in (None, levels):
        raise ValueError(f"levels={levels}: expected {source.levels}, which {data!r} has; leave it out")
    levels = levels or source.levels
    parts = [x for x, _ in source.parts]
    if pixels is None and preferred != "binarized":
        if levels is None and len(source.shape) == 3 and _pixels.look_like_levels(source.x):
            raise ValueError(
                f"data={data!r}: expected the number of grey levels of these whole numbers; --levels 256 reads them as "
                "8 bits, --pixels raw takes them as they are"
            )
        pixels = preferred if levels is not None else "raw"
    elif pixels is None:
        forms = [_pixels.choose(data, x, levels, is_table=len(source.shape) == 1) for x in parts]
        pixels = "raw" if "raw" in forms else "binarized"
    for x in parts:
        _pixels.check(data, x, pixels, levels)
    dataset = _divided(data, source, validation, test, pixels, levels, missing, condition)
    return dataset if num_labels is None else dataset.with_few_labels(num_labels)


def from_frame(
    frame: Any,
    *,
    schema: Mapping[str, str] | str | None = None,
    columns: str | None = None,
    drop: Sequence[str] | str | None = None,
    rows: str | int | None = None,
    condition: str | None = None,
    validation: float | None = None,
    test: float | None = None,
) -> Data:
    """Take a table in memory, find what its columns are, and split it into training, validation and test data.

    Args:
        frame: A ``pandas.DataFrame``.
        schema: What some columns are, as for :func:`load`.
        columns: A file that says so, likewise.
        drop: Columns to leave out, likewise.
        rows: The rows to take, likewise.
        condition: A column with the classes to condition on.
        validation: The part to set aside for validation, as for :func:`load`.
        test: The part to set aside for testing, likewise.

    Returns:
        The data, whose ``table`` says what the columns are, for ``build(data.shape, table=data.table)``.

    Raises:
        ValueError: If the table, or an argument, is not what was expected.

    Example:
        >>> import pandas
        >>> data = from_frame(pandas.DataFrame({"age": range(20, 70), "sex": ["f", "m"] * 25}))
        >>> data.columns, data.train.shape
        (('age', 'sex'), torch.Size([40, 2]))
    """
    source = find_columns("frame", frame, None, condition, wanted_kinds(schema, columns, drop), rows)
    return _divided("a data frame", source, validation, test, "raw", None, bool(source.x.isnan().any()), condition)


def _divided(
    data: str,
    source: Source,
    validation: float | None,
    test: float | None,
    pixels: str,
    levels: int | None,
    missing: bool,
    condition: str | None,
) -> Data:
    """Split data, and give them their form."""
    train, valid, held_out, labels = _split(data, source, validation, test)
    train, valid, held_out = (_pixels.prepare(x, pixels, levels) for x in (train, valid, held_out))
    classes = source.classes
    if condition is not None:
        if labels is None:
            raise ValueError(f"condition={condition!r}: expected labels of all sets, such as y_test; add them")
        classes = classes_of(condition, torch.cat([*labels.values()]), source.classes)
        labels = {split: to_classes(y, source.classes, classes) for split, y in labels.items()}
    return Data(
        name=data,
        train=train,
        validation=_pixels.draw_once(valid, pixels, levels, _pixels.VALIDATION_SEED),
        test=_pixels.draw_once(held_out, pixels, levels, _pixels.TEST_SEED),
        shape=source.shape,
        levels=levels,
        pixels=pixels,
        draw=_pixels.draw_from(pixels, levels, missing),
        labels=labels,
        columns=source.columns,
        num_classes=None if condition is None or classes is None else len(classes),
        classes=classes,
        label_column=source.label_column,
        table=source.table,
    )


def read(
    data: str,
    *,
    pixels: str,
    levels: int | None = None,
    missing: bool = False,
    condition: str | None = None,
    data_dir: str | None = None,
    drawn: bool = True,
) -> Source:
    """Read all examples of a data set in the order of the file, unsplit, in the form that a model was trained on.

    Args:
        data: A name or a path, as for :func:`load`. Sets for validation and testing that come with it follow.
        pixels: The form, as for :func:`load`.
        levels: The number of grey levels. Values that all lie in [0, 1] already are taken as they are where the
            form is binarized, threshold or grey, unless the format itself has levels.
        missing: Take data with blanks, as for :func:`load`.
        condition: A column of a .csv file that holds labels; a file without it has none.
        data_dir: The folder that mnist and its relatives are kept in.
        drawn: Draw a random form; else return what it is drawn from.

    Returns:
        The data ``x``, (N, D) float32, with the ``shape`` of one datum and labels ``y`` where known. A random form
        is drawn once, by the seed of the test data: the values are the same in every run.

    Raises:
        ValueError: If the data do not fit the form: which, what came, and the way out.
        FileNotFoundError: If the data are not there.

    Example:
        >>> read("digits", pixels="binarized").x.shape
        torch.Size([1797, 64])
    """
    _check_arguments(pixels, levels)
    source = _read(data, data_dir, missing, condition, required=False).joined()
    x = source.x
    in_unit_interval = not bool(((x < 0) | (x > 1)).any())
    if pixels in ("levels", "dequantized") and source.levels not in (None, levels):
        raise ValueError(
            f"data={data!r}: expected {levels} grey levels, but it has {source.levels}; rescale it to as many levels"
        )
    levels = source.levels or levels
    if source.levels is None and in_unit_interval and pixels in ("binarized", "threshold", "grey"):
        levels = None
    _pixels.check(data, x, pixels, levels)
    x = _pixels.prepare(x, pixels, levels)
    x = _pixels.draw_once(x, pixels, levels, _pixels.TEST_SEED) if drawn else x
    return replace(source, x=x, levels=levels)


def _check_arguments(pixels: str | None, levels: int | None) -> None:
    if pixels is not None and pixels not in _pixels.FORMS:
        raise ValueError(f"pixels={pixels!r}: expected one of {', '.join(_pixels.FORMS)}; choose one, or leave it out")
    if levels is not None and not 2 <= levels <= _pixels.MAX_LEVELS:
        raise ValueError(
            f"levels={levels}: expected from 2 to {_pixels.MAX_LEVELS}; for values of other kinds use --pixels raw"
        )


def _read(data: str, data_dir: str | None, missing: bool, condition: str | None, required: bool) -> Source:
    if data in KNOWN:
        return KNOWN[data](data_dir)
    source = _read_path(data, missing, condition, required)
    if len(source.shape) == 1:
        warn_far_out(data, source.joined().x, source.columns)
    return source


def _read_path(data: str, missing: bool, condition: str | None, required: bool) -> Source:
    path = existing(data)
    if path.is_dir():
        return read_folder(data, path)
    if path.suffix.lower() not in _READERS:
        raise ValueError(
            f"data={data!r}: expected a .npz, .npy, .csv or .parquet file or a folder of images, but the ending is "
            f"{path.suffix!r}; save the data as one of these"
        )
    if check_file(path) == 0:
        raise ValueError(f"data={data!r}: expected data, but the file is empty; write it again")
    if path.suffix.lower() == ".csv" and condition is not None:
        return take_labels(data, read_csv(data, path, missing=True), condition, missing, required)
    return _READERS[path.suffix.lower()](data, path, missing)


def _split(
    data: str, source: Source, validation: float | None, test: float | None
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor] | None]:
    """Return training, validation and test data, and their labels."""
    total = len(source.x)
    for name, asked, own in (("validation", validation, source.x_validation), ("test", test, source.x_test)):
        if asked is not None and own is not None:
            raise ValueError(
                f"{name}={asked:g}: expected no value, since {data!r} has a {name} set of its own; leave it out"
            )
    num_valid = num_test = 0
    if source.x_validation is None:
        num_valid = _count("validation", source.validation if validation is None else validation, total)
    if source.x_test is None:
        num_test = _count("test", source.test if test is None else test, total)
    num_train = total - num_valid - num_test
    if num_train < 2:
        raise ValueError(
            f"data={data!r}: expected at least 2 examples to train on, but {total} less {num_valid} for validation "
            f"and {num_test} for testing leave {num_train}; use more data, or a smaller --validation or --test"
        )
    if source.x_test is None and num_test < 1:
        raise ValueError(
            f"test={test:g}: expected at least 1 example to test on, since {data!r} has no test set of its own; "
            "give a fraction or a number of examples"
        )
    sizes = [num_train, num_valid, num_test]

    def pieces(values: Tensor, *own: Tensor | None) -> list[Tensor]:
        if source.shuffle:
            values = values[torch.randperm(total, generator=torch.Generator().manual_seed(SPLIT_SEED))]
        train, *split_off = values.split(sizes)
        return [train, *(b if a is None else a for a, b in zip(own, split_off, strict=True))]

    train, valid, held_out = pieces(source.x, source.x_validation, source.x_test)
    if any(y is None for _, y in source.parts):
        return train, valid, held_out, None
    assert source.y is not None
    labels = pieces(source.y, source.y_validation, source.y_test)
    return train, valid, held_out, dict(zip(("train", "validation", "test"), labels, strict=True))


def _count(name: str, part: float, total: int) -> int:
    """Return how many of ``total`` examples a fraction, or a number, asks for."""
    if 0 < part < 1:
        return max(1, round(part * total))
    if not (part >= 0 and float(part).is_integer()):
        raise ValueError(f"{name}={part:g}: expected a fraction below 1, or a whole number of examples, from 0 up")
    return int(part)
