"""A user's own images: a folder of files, read as 8-bit grey."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.source import Source, check_memory, one_line, to_tensor

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm"}
# Whatever the ending says, a file is read as one of these alone: to others, such as EPS, belong programs that are run.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")

# What turns into 8-bit grey without clipping values or dropping transparency.
MODES = ("1", "L", "P", "RGB")


def read_folder(data: str, path: Path) -> Source:
    """Read all images below a folder, in the order of their names; subfolders are labels.

    Where the folder holds ``train`` and ``test``, these are the two sets.
    """
    has_test = (path / "train").is_dir() and (path / "test").is_dir()
    roots = [path / "train", path / "test"] if has_test else [path]
    files = [_images_below(root) for root in roots]
    for root, found in zip(roots, files, strict=True):
        if not found:
            raise ValueError(
                f"data={data!r}: expected a folder of images ({', '.join(sorted(SUFFIXES))}), but there are none in "
                f"{str(root)!r}; name the folder that holds them, or a .npz, .npy or .csv file"
            )
    pixels = _read_all(data, [file for found in files for file in found])
    labels = _labels(roots, files)
    n = len(files[0])
    return Source(
        x=to_tensor(data, pixels[:n]),
        shape=(1, *pixels.shape[1:]),
        y=None if labels is None else labels[:n],
        x_test=to_tensor(data, pixels[n:]) if has_test else None,
        y_test=labels[n:] if has_test and labels is not None else None,
        levels=256,
    )


def _images_below(root: Path) -> list[Path]:
    return sorted(
        file
        for file in root.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
        and file.is_file()
    )


def _read_all(data: str, files: list[Path]) -> np.ndarray:
    """Return the images, (N, H, W) uint8."""
    from PIL import Image

    pixels = np.empty(0)
    size = None
    for i, file in enumerate(files):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image = Image.open(file, formats=FORMATS)
        except Exception as error:  # a broken file can make a decoder raise anything
            raise _broken(data, file, error) from error
        with image:
            if image.mode not in MODES or "transparency" in image.info:
                raise ValueError(
                    f"data={data!r}: expected images of 8-bit grey or RGB without transparency, but {str(file)!r} has "
                    f"the mode {image.mode}{' with transparency' * ('transparency' in image.info)}; "
                    "save it as 8-bit grey"
                )
            if size is None:
                size = image.size
                check_memory(data, 4 * len(files) * size[0] * size[1])
                pixels = np.empty((len(files), size[1], size[0]), dtype=np.uint8)
            if image.size != size:
                raise ValueError(
                    f"data={data!r}: expected images of one size, but {str(files[0])!r} is {size[0]}x{size[1]} and "
                    f"{str(file)!r} is {image.size[0]}x{image.size[1]}; resize them"
                )
            try:
                pixels[i] = np.asarray(image.convert("L"))
            except Exception as error:
                raise _broken(data, file, error) from error
    return pixels


def _broken(data: str, file: Path, error: Exception) -> ValueError:
    return ValueError(
        f"data={data!r}: expected images, but {str(file)!r} does not read as one: {one_line(error)}; "
        "remove it, or write it again"
    )


def _labels(roots: list[Path], files: list[list[Path]]) -> Tensor | None:
    """Return the index of each image's subfolder, None where images lie in no subfolder."""
    names = [str(file.parent.relative_to(root)) for root, found in zip(roots, files, strict=True) for file in found]
    if "." in names:
        return None
    index = {name: i for i, name in enumerate(sorted(set(names)))}
    return torch.tensor([index[name] for name in names])
