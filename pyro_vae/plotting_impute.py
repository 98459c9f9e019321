"""Pictures of data whose blanks were filled."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyro_vae.plotting import BLUE, GREY, _figure, _save

PAPER = (0.93, 0.72, 0.50)  # a blank pixel


def completed_images(
    observed: np.ndarray,
    completions: np.ndarray,
    mean: np.ndarray,
    path: Path,
    *,
    truth: np.ndarray | None = None,
    title: str,
) -> None:
    """Save images with their blanks, and beside each its completions, their mean and the truth where known.

    Args:
        observed: Images, (N, H, W), with NaN where they are blank.
        completions: (M, N, H, W).
        mean: (N, H, W).
        path: The PNG file.
        truth: (N, H, W); None if unknown.
        title: Above the picture.
    """
    columns = [("given", observed), *((str(m + 1), x) for m, x in enumerate(completions)), ("mean", mean)]
    columns += [] if truth is None else [("truth", truth)]
    low, high = float(min(np.nanmin(x) for _, x in columns)), float(max(np.nanmax(x) for _, x in columns))
    n, height, width = mean.shape
    canvas = np.ones((n * (height + 1) - 1, len(columns) * (width + 1) - 1, 3), dtype=np.float32)
    for j, (_, images) in enumerate(columns):
        for i, image in enumerate((images - low) / max(high - low, 1e-12)):
            top, left = i * (height + 1), j * (width + 1)
            blank = np.isnan(image)[..., None]
            canvas[top : top + height, left : left + width] = np.where(blank, PAPER, image[..., None])

    figure = _figure((0.62 * len(columns), 0.62 * n * height / width + 0.5))
    axes = figure.add_axes((0.01, 0.01, 0.98, 1 - 0.54 / figure.get_figheight()))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for j, (name, _) in enumerate(columns):
        axes.text(j * (width + 1) + width / 2, -0.06 * height, name, fontsize=7, ha="center")
    figure.suptitle(title, fontsize=8)
    _save(figure, path)


def completed_columns(
    observed: np.ndarray, completions: np.ndarray, path: Path, *, names: Sequence[str], title: str, most: int = 12
) -> None:
    """Save a histogram of each column that has blanks: its observed values, and those filled in.

    Args:
        observed: A table, (N, D), with NaN where it is blank.
        completions: (M, N, D).
        path: The PNG file.
        names: Of the columns.
        title: Above the picture.
        most: Draw no more than so many columns.
    """
    chosen = np.flatnonzero(np.isnan(observed).any(0))[:most]
    across = min(len(chosen), 4)
    figure = _figure((2.6 * max(across, 2), 2.1 * -(-len(chosen) // across) + 0.4))
    grid = figure.subplots(-(-len(chosen) // across), across, squeeze=False).flatten()
    for axes in grid[len(chosen) :]:
        axes.set_axis_off()
    for axes, d in zip(grid, chosen, strict=False):
        blank = np.isnan(observed[:, d])
        seen, filled = observed[~blank, d], completions[:, blank, d].flatten()
        low, high = np.quantile(np.concatenate([seen, filled]), (0.005, 0.995))
        bins = np.linspace(low - 1e-6, high + 1e-6, 25)
        if len(seen):
            axes.hist(seen, bins, density=True, color=GREY, alpha=0.6, label="observed")
        axes.hist(filled, bins, density=True, histtype="step", color=BLUE, linewidth=1.5, label="filled in")
        axes.set_title(names[d], fontsize=8)
        axes.set_yticks([])
    grid[0].legend(frameon=False, fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    _save(figure, path)
