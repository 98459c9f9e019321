"""A user's own images: a folder of files, read as 8-bit grey."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.source import Source, check_memory, one_line

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm"}
# Whatever the ending says, a file is read as one of these alone: to others, such as EPS, belong programs that are run.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")

# Subfolders that are sets of their own, and how a source calls these.
SETS = {"train": "", "val": "_validation", "valid": "_validation", "validation": "_validation", "test": "_test"}

# What turns into 8-bit grey without clipping values or dropping transparency.
MODES = ("1", "L", "P", "RGB")


def read_folder(data: str, path: Path) -> Source:
    """Read all images below a folder, in the order of their names; subfolders are labels.

    Where they are ``train``, and ``val`` or ``test`` or both, they are these sets, and their own subfolders labels.
    """
    roots = _sets(data, path)
    files = {name: _images_below(root) for name, root in roots.items()}
    for name, found in files.items():
        if not found:
            raise ValueError(
                f"data={data!r}: expected a folder of images ({', '.join(sorted(SUFFIXES))}), but there are none in "
                f"{str(roots[name])!r}; name the folder that holds them, or a .npz, .npy or .csv file"
            )
    pixels = torch.from_numpy(_read_all(data, [file for found in files.values() for file in found]))
    sizes = [len(found) for found in files.values()]
    sets: dict[str, Any] = {f"x{name}": x for name, x in zip(roots, pixels.flatten(1).split(sizes), strict=True)}
    labels = _labels([*roots.values()], [*files.values()])
    if labels is not None:
        y, sets["classes"] = labels
        sets |= {f"y{name}": part for name, part in zip(roots, y.split(sizes), strict=True)}
    return Source(**sets, shape=(1, *pixels.shape[1:]), levels=256)


def _sets(data: str, path: Path) -> dict[str, Path]:
    """Return the folders of the training set, "", and of "_validation" and "_test", where there are such."""
    folders = {folder.name.lower(): folder for folder in path.iterdir() if folder.is_dir()}
    sets = {SETS[name]: folders[name] for name in SETS if name in folders}
    if "" not in sets or len(sets) == 1:
        return {"": path}
    for file in _images_below(path):
        if not any(file.is_relative_to(folder) for folder in sets.values()):
            names = ", ".join(folder.name for folder in sets.values())
            raise ValueError(
                f"data={data!r}: expected all images in {names}, which are its sets, but {str(file)!r} is beside them; "
                "move it into one of them, or rename them if they are classes"
            )
    return sets


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
    from PIL import Image, ImageOps

    pixels = np.empty(0)
    size = (0, 0)
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
            if i == 0:
                check_memory(data, 4 * len(files) * image.width * image.height)
            elif sorted(image.size) != sorted(size):
                raise _of_another_size(data, files[0], size, file, image.size)
            try:
                # A camera that was held sideways says so in EXIF, and the picture is to be turned.
                grey = np.asarray(ImageOps.exif_transpose(image).convert("L"))
            except Exception as error:
                raise _broken(data, file, error) from error
        if i == 0:
            size = grey.shape[::-1]
            pixels = np.empty((len(files), *grey.shape), dtype=np.uint8)
        if grey.shape != pixels.shape[1:]:
            raise _of_another_size(data, files[0], size, file, grey.shape[::-1])
        pixels[i] = grey
    return pixels


def _of_another_size(data: str, first: Path, size: tuple[int, ...], file: Path, own: tuple[int, ...]) -> ValueError:
    return ValueError(
        f"data={data!r}: expected images of one size, but {str(first)!r} is {size[0]}x{size[1]} and "
        f"{str(file)!r} is {own[0]}x{own[1]}; resize them"
    )


def _broken(data: str, file: Path, error: Exception) -> ValueError:
    return ValueError(
        f"data={data!r}: expected images, but {str(file)!r} does not read as one: {one_line(error)}; "
        "remove it, or write it again"
    )


def _labels(roots: list[Path], files: list[list[Path]]) -> tuple[Tensor, tuple[str, ...]] | None:
    """Return the index of each image's subfolder, and their names; None where images lie in no subfolder."""
    names = [str(file.parent.relative_to(root)) for root, found in zip(roots, files, strict=True) for file in found]
    if "." in names:
        return None
    index = {name: i for i, name in enumerate(sorted(set(names)))}
    return torch.tensor([index[name] for name in names]), tuple(index)
