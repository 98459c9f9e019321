"""Some of a run's data, which it keeps: what needs no more than these works without the file that they came from."""

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data import SPLITS, Data
from pyro_vae.data.arrays import as_small
from pyro_vae.data.labels import UNKNOWN
from pyro_vae.data.source import one_line
from pyro_vae.machine.files import as_npz
from pyro_vae.machine.reading import check_file
from pyro_vae.runs.folder import KEPT
from pyro_vae.vae import VAE

MOST = 2**22  # bytes of the file
VALUES = 2**23  # of a split at most
TRAINING = 2000  # training data at most: they are for pictures


@dataclass(frozen=True, eq=False)
class Kept:
    """Some of a run's data.

    Attributes:
        data: Of each split the first ones, in the form that the run was trained on; training data before any is drawn.
        whole: The splits of which these are all.
    """

    data: Data
    whole: frozenset[str]

    def has(self, split: str, num: int | None) -> bool:
        """Whether the first ``num`` of a split, or all, are here; training data are random, and never are."""
        enough = num is not None and len(getattr(self.data, split)) >= num
        return split != "train" and (enough or split in self.whole)


def as_bytes(data: Data) -> bytes:
    """Return the content of the file: of each split as many as there is room for."""
    rows = max(TRAINING, len(data.validation), len(data.test))
    rows = min(rows, VALUES // (data.test.shape[1] + 2))  # a label takes as much as two values
    while len(content := _first(data, rows)) > MOST and rows:
        rows = int(0.9 * rows * MOST / len(content))
    return content


def _first(data: Data, rows: int) -> bytes:
    arrays, whole = {}, []
    for split in SPLITS:
        x, first = getattr(data, split), slice(min(rows, TRAINING) if split == "train" else rows)
        arrays[split] = as_small(x[first])
        if data.labels is not None:
            arrays[f"{split}_labels"] = data.labels[split][first].numpy()
        if len(x[first]) == len(x):
            whole.append(split)
    facts = {"name": data.name, "columns": data.columns, "classes": data.classes, "whole": whole}
    return as_npz(arrays | {"facts": np.array(json.dumps(facts).encode())})


def read(run: Path, vae: VAE) -> Kept | None:
    """Return what a run keeps of its data, of its model's class; None where there is nothing.

    Raises:
        ValueError: When the file is not what a training of this model leaves.
    """
    path = run / KEPT
    if not path.exists():
        return None
    check_file(path, MOST)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > 4 * len(SPLITS) * VALUES + MOST:
            raise ValueError(f"it unpacks to {size:,} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            kept = _unpacked(arrays, vae)
    except Exception as error:  # whatever a stranger's file makes a library raise
        raise ValueError(f"{path}: expected what a training keeps of its data ({one_line(error)}); remove it") from None
    return kept if vae.label is None else Kept(kept.data.of_class(vae.label), kept.whole)


def _unpacked(arrays: Mapping[str, np.ndarray], vae: VAE) -> Kept:
    if arrays["facts"].nbytes > MOST:
        raise ValueError("its facts are too long")
    config, facts = vae.config, json.loads(arrays["facts"].item())
    columns, classes = facts["columns"], facts["classes"]
    x = {split: _rows(arrays[split], vae) for split in SPLITS}
    for split in SPLITS[1:]:
        vae.check(x[split])
    y = {split: _labels(arrays[f"{split}_labels"], len(x[split]), vae) for split in SPLITS if "test_labels" in arrays}
    if config.num_classes is not None and not y:
        raise ValueError("labels are missing")
    if columns is not None and (type(columns), *map(type, columns)) != (list, *[str] * math.prod(config.x_shape)):
        raise ValueError("other columns")
    if classes is not None and not all(type(name) is str for name in classes):
        raise ValueError("other classes")
    data = Data(
        name=str(facts["name"]),
        train=x["train"],
        validation=x["validation"],
        test=x["test"],
        shape=config.x_shape,
        levels=config.levels,
        pixels=config.pixels,
        draw=None,
        labels=y or None,
        columns=None if columns is None else tuple(columns),
        num_classes=config.num_classes,
        table=config.table,
        classes=config.classes or (None if classes is None else tuple(classes)),
    )
    return Kept(data, frozenset(facts["whole"]))


def _rows(array: np.ndarray, vae: VAE) -> Tensor:
    expected = (len(array), math.prod(vae.config.x_shape))
    if array.dtype not in (np.uint8, np.float32) or array.shape != expected or array.size > VALUES:
        raise ValueError(f"data of shape {array.shape} and type {array.dtype}")
    x = torch.from_numpy(array).float()
    if x.isinf().any() or (x.isnan().any() and not vae.missing):
        raise ValueError("data that are not finite")
    return x


def _labels(array: np.ndarray, size: int, vae: VAE) -> Tensor:
    num_classes = vae.config.num_classes
    if array.dtype != np.int64 or array.shape != (size,):
        raise ValueError(f"labels of shape {array.shape} and type {array.dtype}")
    if num_classes is not None and ((array < UNKNOWN) | (array >= num_classes)).any():
        raise ValueError(f"labels other than those of {num_classes} classes")
    return torch.from_numpy(array)
