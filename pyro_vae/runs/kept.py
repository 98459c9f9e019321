"""Some of a run's data, which it keeps: what needs no more than these works without the file that they came from."""

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data import Data
from pyro_vae.data.pixels import FORMS
from pyro_vae.data.source import one_line
from pyro_vae.machine.files import as_npz
from pyro_vae.machine.reading import check_file
from pyro_vae.runs.folder import KEPT

SPLITS = ("train", "validation", "test")
FACTS = ("name", "shape", "levels", "pixels", "columns", "num_classes")
MOST, LARGEST = 2**22, 2**25  # bytes of the file, and of what is compressed in it
SOME = 2000  # training data at most, which are for pictures


@dataclass(frozen=True, eq=False)
class Kept:
    """Some of a run's data.

    Attributes:
        data: The data: of each split the first ones, in the form that the run was trained on.
        counts: How many each split has in all.
    """

    data: Data
    counts: Mapping[str, int]

    def has(self, split: str, num: int | None = None) -> bool:
        """Whether the first ``num`` of a split are here, by default all; or as many as there are."""
        here = len(getattr(self.data, split))
        return here >= self.counts[split] or (num is not None and here >= num)


def all_of(data: Data) -> Kept:
    """Return all of some data."""
    return Kept(data, {split: len(getattr(data, split)) for split in SPLITS})


def as_bytes(data: Data) -> bytes:
    """Return the content of the file: of each split as many as there is room for."""
    labels = data.labels or {}
    facts = {name: getattr(data, name) for name in FACTS} | {"counts": all_of(data).counts}
    if data.num_classes is not None:
        facts["by_class"] = {
            split: torch.bincount(y[y >= 0], minlength=data.num_classes).tolist() for split, y in labels.items()
        }
    rows = LARGEST // (4 * len(SPLITS) * (data.test.shape[1] + 2))  # with labels
    while True:
        arrays = {"facts": np.array(json.dumps(facts))}
        for split in SPLITS:
            first = slice(min(rows, SOME) if split == "train" else rows)
            arrays[split] = small(getattr(data, split)[first])
            if split in labels:
                arrays[f"{split}_labels"] = labels[split][first].numpy()
        content = as_npz(arrays)
        if len(content) <= MOST:
            return content
        rows //= 2


def read(run: Path, label: int | None = None) -> Kept | None:
    """Return what a run keeps of its data, or of those of one class; None where there is nothing.

    Raises:
        ValueError: When the file is not what a training leaves.
    """
    path = run / KEPT
    if not path.exists():
        return None
    check_file(path, MOST)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST + MOST:
            raise ValueError(f"it unpacks to {size:,} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            return _unpacked({name: arrays[name] for name in arrays}, label)
    except Exception as error:  # whatever a stranger's file makes a library raise
        raise ValueError(f"{path}: expected what a training keeps of its data ({one_line(error)}); remove it") from None


def _unpacked(arrays: Mapping[str, np.ndarray], label: int | None) -> Kept:
    facts: dict[str, Any] = json.loads(str(arrays["facts"]))
    shape, columns, counts = tuple(facts["shape"]), facts["columns"], facts["counts"]
    x = {split: torch.from_numpy(arrays[split].astype(np.float32)) for split in SPLITS}
    y = {split: torch.from_numpy(arrays[f"{split}_labels"]) for split in SPLITS if f"{split}_labels" in arrays}
    fits = (
        len(shape) in (1, 3)
        and all(part.shape == (len(part), math.prod(shape)) and counts[split] >= len(part) for split, part in x.items())
        and all(part.shape == x[split].shape[:1] and part.dtype == torch.int64 for split, part in y.items())
        and (not y or y.keys() == x.keys())
        and (columns is None or (len(columns) == shape[0] and all(isinstance(name, str) for name in columns)))
        and facts["pixels"] in FORMS
        and isinstance(facts["levels"], int | None)
    )
    if not fits:
        raise ValueError("its parts don't fit each other")
    data = Data(
        name=str(facts["name"]),
        train=x["train"],
        validation=x["validation"],
        test=x["test"],
        shape=shape,
        levels=facts["levels"],
        pixels=facts["pixels"],
        draw=None,
        labels=y or None,
        columns=None if columns is None else tuple(columns),
        num_classes=facts["num_classes"],
    )
    if label is None or not y:
        return Kept(data, counts)
    return Kept(data.of_class(label), {split: facts["by_class"][split][label] for split in SPLITS})


def small(x: Tensor) -> np.ndarray:
    """Return numbers as an array; whole ones from 0 to 255 as bytes."""
    whole = bool(((x == x.round()) & (x >= 0) & (x <= 255)).all())
    return (x.to(torch.uint8) if whole else x).cpu().numpy()
