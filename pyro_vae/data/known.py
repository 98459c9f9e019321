"""Data sets known by name: scikit-learn's digits, and the relatives of MNIST through torchvision."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pyro_vae.data.source import Source, one_line

# Where torchvision's files are kept, unless a folder is given.
ENVIRONMENT = "PYRO_VAE_DATA"
CACHE = Path("~/.cache/pyro_vae")


def read_digits(data_dir: str | None = None) -> Source:
    """Read scikit-learn's digits: 1797 images of 8 x 8 pixels with 17 levels.

    The last 447 are the test set, and the 350 before them the validation set.

    Reference:
        Tomczak (2022), Deep Generative Modeling, for the split: [:1000], [1000:1350], [1350:].
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = torch.from_numpy(digits.data).to(torch.uint8), torch.from_numpy(digits.target).long()
    return Source(
        x=x[:1350],
        y=y[:1350],
        x_test=x[1350:],
        y_test=y[1350:],
        shape=(1, 8, 8),
        levels=17,
        validation=350,
        shuffle=False,
    )


def read_torchvision(
    data_dir: str | None, *, name: str, cls: str, validation: int, transposed: bool = False, **options: Any
) -> Source:
    """Read a relative of MNIST: images of 28 x 28 pixels with 256 levels; download it when it is not there."""
    root = Path(os.path.expanduser(data_dir or os.environ.get(ENVIRONMENT) or CACHE))
    way_out = "use a file of your own (--data FILE) or the embedded digits (--data digits)"
    try:
        from torchvision import datasets
    except Exception as error:  # beside a CPU-only torch it is a RuntimeError
        raise ValueError(
            f"data={name!r}: expected a torchvision that fits torch {torch.__version__}, but it does not import: "
            f"{one_line(error)}; install the matching one, or {way_out}"
        ) from error
    try:
        # With the files there, torchvision downloads nothing.
        train, test = (getattr(datasets, cls)(root, train=train, download=True, **options) for train in (True, False))
        images = [part.data.transpose(1, 2) if transposed else part.data for part in (train, test)]
        labels = [part.targets.reshape(len(part.targets), -1)[:, 0].long() for part in (train, test)]
        x, x_test = (part.reshape(len(part), -1) for part in images)
    except Exception as error:  # no network, no permission, a broken file
        raise FileNotFoundError(
            f"data={name!r}: expected its files in {str(root)!r} or a download to there, but that failed: "
            f"{one_line(error)}; name the folder that holds {cls}/raw (--data_dir), or {way_out}"
        ) from error
    return Source(
        x=x,
        y=labels[0],
        x_test=x_test,
        y_test=labels[1],
        shape=(1, *images[0].shape[1:]),
        levels=256,
        validation=validation,
        shuffle=False,
    )


def _torchvision(name: str, cls: str, validation: int = 5000, **options: Any) -> Callable[[str | None], Source]:
    return partial(read_torchvision, name=name, cls=cls, validation=validation, **options)


KNOWN: dict[str, Callable[[str | None], Source]] = {
    "digits": read_digits,
    "mnist": _torchvision("mnist", "MNIST"),
    "fashion-mnist": _torchvision("fashion-mnist", "FashionMNIST"),
    "kmnist": _torchvision("kmnist", "KMNIST"),
    # Its images are stored with rows and columns exchanged. Validation is as large as its test set.
    "emnist": _torchvision("emnist", "EMNIST", validation=18800, transposed=True, split="balanced"),
    "qmnist": _torchvision("qmnist", "QMNIST"),
}


def existing(data: str) -> Path:
    """Return a path that is there.

    Raises:
        FileNotFoundError: If it isn't.
    """
    path = Path(os.path.expanduser(data))
    if not path.exists():
        raise FileNotFoundError(
            f"data={data!r}: expected a data set's name ({', '.join(KNOWN)}), a .npz, .npy or .csv file or a folder "
            "of images, but no such file exists; correct the name or the path"
        )
    return path
