"""What all pictures share: figures that touch no global state, colours, and files that are whole or not there."""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np

from pyro_vae.machine.files import write_file

BLUE, ORANGE, GREY = "#2a6fbb", "#d9772b", "#8a8a8a"
PALE = "#c9d7e8"  # a latent dimension that is not used
PAPER = (0.93, 0.72, 0.50)  # a blank pixel
SMALL = 16  # pixels across, up to which an image is drawn smoothly
FAR = 20  # times the width of the middle four fifths of values, beyond which others would squeeze these into a line

P = ParamSpec("P")


def as_written(draw: Callable[P, None]) -> Callable[P, None]:
    """Let a function that draws a picture show all text as it is: names of columns, files and classes are no formulas.

    Any dollar sign would begin one, for matplotlib.
    """

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> None:
        from matplotlib import rc_context

        with rc_context({"text.parse_math": False}):
            draw(*args, **kwargs)

    return drawn


def new_figure(size: tuple[float, float]) -> Any:
    """Return an empty figure of this width and height, in inches."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    return Figure(figsize=size)


def save(figure: Any, path: Path) -> None:
    """Write a figure to a PNG file: whole, or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    write_file(path, content.getvalue())


def new_panels(count: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """Return a figure with ``count`` panels of this size, four in a row."""
    across = min(count, 4)
    figure = new_figure((max(size[0] * across, 4.0), size[1] * -(-count // across) + 0.4))
    panels = figure.subplots(-(-count // across), across, squeeze=False).flatten()
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, list(panels[:count])


def tidy(axes: Any) -> None:
    """Use small letters, and no frame above and to the right."""
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_size(8)
    axes.yaxis.label.set_size(8)
    axes.spines[["top", "right"]].set_visible(False)


def near(values: np.ndarray) -> np.ndarray:
    """Return which values to draw, (N,) bool: those that are finite, and not so far out that they hide the others.

    Example:
        >>> near(np.array([1.0, 2.0, 3.0, np.nan, 9.97e36]))
        array([ True,  True,  True, False, False])
    """
    shown = np.isfinite(values)
    if shown.any():
        known = values[shown].astype(np.float64)
        low, high = np.quantile(known, 0.1, method="higher"), np.quantile(known, 0.9, method="lower")
        margin = FAR * (high - low)
        shown[shown] = (margin <= 0) | ((known >= low - margin) & (known <= high + margin))
    return shown


def left_out(shown: np.ndarray) -> str:
    """Say how many values are not drawn, behind what a panel shows."""
    count = int((~shown).sum())
    return f"; {count:,} far out" if count else ""


def to_unit(images: np.ndarray) -> np.ndarray:
    """Bring images, (..., H, W), to [0, 1]; small ones to a size at which a person reads them more easily."""
    from scipy.ndimage import zoom

    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    images = (images - low) / max(high - low, 1e-12)
    if max(images.shape[-2:]) > SMALL or np.isnan(images).any():
        return images
    return zoom(images, (1,) * (images.ndim - 2) + (4, 4), order=3, mode="nearest").clip(0, 1)


def to_rgb(images: np.ndarray) -> np.ndarray:
    """Return grey images, (..., H, W), in colours, (..., H', W', 3): from black to white, and where blank (NaN) orange.

    The darkest value of all is drawn black, the brightest white.
    """
    images = to_unit(images)[..., None]
    return np.where(np.isnan(images), PAPER, images)
