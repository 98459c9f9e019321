"""Pictures of images: many of them, in rows, over a plane, and with their blanks filled."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from pyro_vae.plotting.figure import as_written, new_figure, save, to_rgb, to_unit


@as_written
def image_grid(
    images: Tensor, x_shape: Sequence[int], path: Path, *, columns: int, title: str, row_names: Sequence[str] = ()
) -> None:
    """Save images as one picture, row by row.

    Args:
        images: Pixels, (N, H*W); the darkest value of all is drawn black, the brightest white, a blank (NaN) orange.
        x_shape: Shape of an image, (1, H, W).
        path: The PNG file.
        columns: Images in a row.
        title: Above the picture.
        row_names: To the left of each row, or none.
    """
    rows = -(-len(images) // columns)
    array = to_rgb(images.detach().cpu().float().numpy().reshape(-1, *x_shape[1:]))
    height, width = array.shape[1:3]
    pixels = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, 3))
    for i, image in enumerate(array):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        pixels[top : top + height, left : left + width] = image
    margin = 0.05 + 0.065 * max(map(len, row_names)) if row_names else 0.0
    figure = new_figure((0.62 * columns + margin, 0.62 * rows * height / width + 0.3))
    left = margin / figure.get_figwidth()
    axes = figure.add_axes((0.01 + left, 0.01, 0.98 - left, 1 - 0.34 / figure.get_figheight()))
    axes.imshow(pixels, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for row, name in enumerate(row_names):
        axes.text(-0.1 * width, row * (height + 1) + (height - 1) / 2, name, fontsize=7, ha="right", va="center")
    axes.set_title(title, fontsize=9)
    save(figure, path)


@as_written
def image_rows(
    images: np.ndarray,
    path: Path,
    *,
    row_names: Sequence[str],
    column_names: Sequence[str],
    title: str,
    apart: Sequence[int] = (),
) -> None:
    """Save rows of images with names.

    Args:
        images: (R, C, H, W); the darkest value of all is drawn black, the brightest white, a blank one (NaN) orange.
        path: The PNG file.
        row_names: To the left of each row.
        column_names: Above each column, or none.
        title: Above the picture.
        apart: Columns after which there is a gap.
    """
    images = to_rgb(images)
    num_rows, num_columns, height, width, _ = images.shape
    gap, wide = max(1, height // 28), max(2, width // 4)
    lefts = [c * (width + gap) + wide * sum(a < c for a in apart) for c in range(num_columns)]
    canvas = np.full((num_rows * (height + gap) - gap, lefts[-1] + width, 3), 1.0)
    for r, row in enumerate(images):
        for left, image in zip(lefts, row, strict=True):
            canvas[r * (height + gap) :, left:][:height, :width] = image
    inch = min(max(0.62, 5 / num_columns), 1.5) / width  # room for the title
    margin = 0.15 + 0.065 * max(map(len, row_names), default=0)
    top = 0.57 if column_names else 0.35
    size = canvas.shape[1] * inch + margin + 0.1, canvas.shape[0] * inch + top + 0.05
    figure = new_figure(size)
    axes = figure.add_axes((margin / size[0], 0.05 / size[1], 1 - (margin + 0.1) / size[0], 1 - (top + 0.05) / size[1]))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.set_xticks([left + (width - 1) / 2 for left in lefts[: len(column_names)]], column_names)
    axes.set_yticks([r * (height + gap) + (height - 1) / 2 for r in range(num_rows)], row_names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=7)
    axes.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=9, y=1 - 0.06 / size[1], va="top")
    save(figure, path)


@as_written
def image_plane(images: np.ndarray, path: Path, *, across: np.ndarray, up: np.ndarray, title: str) -> None:
    """Save images over the plane of two latent dimensions.

    Args:
        images: (n, m, H, W), from the top left on.
        path: The PNG file.
        across: The first dimension's value in each column, (m,).
        up: The second's in each row, (n,).
        title: Above the picture.
    """
    images = to_unit(images)
    gap = max(1, images.shape[-2] // 14)
    images = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, gap)))
    n, m, height, width = images.shape
    canvas = images.transpose(0, 2, 1, 3).reshape(n * height, m * width)
    across_size = 8.0
    size = across_size + 0.75, across_size * canvas.shape[0] / canvas.shape[1] + 0.85
    figure = new_figure(size)
    axes = figure.add_axes((0.6 / size[0], 0.5 / size[1], across_size / size[0], 1 - 0.85 / size[1]))
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    for values, length, put, name in ((across, width, axes.set_xticks, "x"), (up, height, axes.set_yticks, "y")):
        chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), 9)).round().astype(int))
        put([(i + 0.5) * length - 0.5 - gap / 2 for i in chosen], [_short(values[i]) for i in chosen])
        axes.tick_params(axis=name, labelsize=7, length=2)
    axes.set_xlabel("z1", fontsize=8)
    axes.set_ylabel("z2", fontsize=8)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9)
    save(figure, path)


@as_written
def completed_images(
    observed: np.ndarray,
    completions: np.ndarray,
    path: Path,
    *,
    mean: np.ndarray,
    sd: np.ndarray,
    truth: np.ndarray | None,
    row_names: Sequence[str],
    title: str,
) -> None:
    """Save images with their blanks, and beside each the truth where known, completions, their mean and their spread.

    Args:
        observed: Images, (N, H, W), with NaN where they are blank.
        completions: (M, N, H, W).
        path: The PNG file.
        mean: Over completions, (N, H, W).
        sd: Their standard deviation, (N, H, W): the largest of all is drawn white, 0 black.
        truth: (N, H, W); None if unknown.
        row_names: To the left of each image.
        title: Above the picture.
    """
    known = [("given", observed)] if truth is None else [("given", observed), ("truth", truth)]
    filled = [(str(m + 1), images) for m, images in enumerate(completions)]
    shown = [completions, mean] if truth is None else [completions, mean, truth]
    low, high = min(float(np.nanmin(images)) for images in shown), max(float(np.nanmax(images)) for images in shown)
    spread = low + (high - low) * sd / max(float(np.nanmax(sd)), 1e-12)
    columns = [*known, *filled, ("mean", mean), ("sd", spread)]
    image_rows(
        np.stack([images for _, images in columns], 1),
        path,
        row_names=row_names,
        column_names=[name for name, _ in columns],
        title=title,
        apart=(len(known) - 1, len(known) + len(filled) - 1),
    )


def _short(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00")
