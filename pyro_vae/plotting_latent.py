"""Pictures of the latent space: maps, walks, and what data become by way of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.plotting import BLUE, GREY, SMALL, _figure, _save

PALE = "#c9d7e8"  # a latent dimension that is not used
MAX_CLASSES = 20  # that get a colour each


def latent_map(
    points: np.ndarray,
    path: Path,
    *,
    axes_names: tuple[str, str],
    labels: np.ndarray | None,
    use: np.ndarray,
    use_name: str,
    active: np.ndarray,
    title: str,
    most: int = 40,
) -> None:
    """Save where data are in the latent space, and what its dimensions are used for.

    Args:
        points: On a plane, (N, 2).
        path: The PNG file.
        axes_names: Of the plane's axes.
        labels: The classes of the data, (N,); None if unknown.
        use: Of each latent dimension, (Z,).
        use_name: What that is, with its unit.
        active: Which dimensions are used, (Z,) bool.
        title: Above the picture.
        most: Draw no more than so many dimensions, the most used ones.
    """
    figure = _figure((10, 5.2))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _scatter(figure, left, points, labels)
    left.set_xlabel(axes_names[0])
    left.set_ylabel(axes_names[1])
    left.set_aspect("equal", adjustable="datalim")
    left.set_title(f"E[z|x] of {len(points):,} examples", fontsize=9)

    order = np.argsort(-use, kind="stable")[:most]
    colors = [BLUE if active[j] else PALE for j in order]
    right.barh(range(len(order)), use[order], color=colors, height=0.75)
    right.set_yticks(range(len(order)), [f"z{j + 1}" for j in order], fontsize=max(4, min(8, 160 / len(order))))
    right.set_ylim(max(len(order), 6) - 0.4, -0.6)
    right.set_xlabel(use_name)
    more = f", the first {most} of them" if len(use) > most else ""
    right.set_title(f"{int(active.sum())} of {len(use)} dimensions are active{more}", fontsize=9)
    for axes in (left, right):
        _tidy(axes)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    _save(figure, path)


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
        images: (R, C, H, W); the darkest value of all is drawn black, the brightest white, a blank one (NaN) grey.
        path: The PNG file.
        row_names: To the left of each row.
        column_names: Above each column, or none.
        title: Above the picture.
        apart: Columns after which there is a gap.
    """
    images = _unit(images)
    num_rows, num_columns, height, width = images.shape
    gap, wide = max(1, height // 28), max(2, width // 4)
    lefts = [c * (width + gap) + wide * sum(a < c for a in apart) for c in range(num_columns)]
    canvas = np.full((num_rows * (height + gap) - gap, lefts[-1] + width, 3), 1.0, dtype=np.float32)
    for r, row in enumerate(images):
        for left, image in zip(lefts, row, strict=True):
            shown = np.where(np.isnan(image), 0.6, image)[..., None]
            canvas[r * (height + gap) :, left:][:height, :width] = shown
    inch = min(max(0.62, 5 / num_columns), 1.5) / width  # room for the title
    margin = 0.15 + 0.065 * max(map(len, row_names), default=0)
    top = 0.57 if column_names else 0.35
    size = canvas.shape[1] * inch + margin + 0.1, canvas.shape[0] * inch + top + 0.05
    figure = _figure(size)
    axes = figure.add_axes((margin / size[0], 0.05 / size[1], 1 - (margin + 0.1) / size[0], 1 - (top + 0.05) / size[1]))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.set_xticks([left + (width - 1) / 2 for left in lefts[: len(column_names)]], column_names)
    axes.set_yticks([r * (height + gap) + (height - 1) / 2 for r in range(num_rows)], row_names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=7)
    axes.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=9, y=1 - 0.06 / size[1], va="top")
    _save(figure, path)


def image_plane(images: np.ndarray, path: Path, *, across: np.ndarray, up: np.ndarray, title: str) -> None:
    """Save images over the plane of two latent dimensions.

    Args:
        images: (n, m, H, W), from the top left on.
        path: The PNG file.
        across: The first dimension's value in each column, (m,).
        up: The second's in each row, (n,).
        title: Above the picture.
    """
    images = _unit(images)
    gap = max(1, images.shape[-2] // 14)
    images = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, gap)))
    n, m, height, width = images.shape
    canvas = images.transpose(0, 2, 1, 3).reshape(n * height, m * width)
    across_size = 8.0
    size = across_size + 0.75, across_size * canvas.shape[0] / canvas.shape[1] + 0.85
    figure = _figure(size)
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
    _save(figure, path)


def columns_plane(
    x: np.ndarray, path: Path, *, across: np.ndarray, up: np.ndarray, names: Sequence[str], title: str, most: int = 12
) -> None:
    """Save each column of a table over the plane of two latent dimensions.

    Args:
        x: (n, m, D), from the top left on.
        path: The PNG file.
        across: The first dimension's value in each column of the grid, (m,).
        up: The second's in each row, (n,).
        names: Of the table's columns.
        title: Above the picture.
        most: Draw no more than so many columns.
    """
    figure, panels = _panels(min(x.shape[-1], most), (2.7, 2.3))
    for d, axes in enumerate(panels):
        mesh = axes.pcolormesh(across, up, x[..., d], shading="nearest", cmap="viridis", rasterized=True)
        figure.colorbar(mesh, ax=axes).ax.tick_params(labelsize=6)
        axes.set_title(names[d], fontsize=8)
        axes.set_xlabel("z1", fontsize=7)
        axes.set_ylabel("z2", fontsize=7)
        axes.tick_params(labelsize=6)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    _save(figure, path)


def columns_along(
    x: np.ndarray,
    t: np.ndarray,
    path: Path,
    *,
    names: Sequence[str],
    line_names: Sequence[str],
    t_name: str,
    title: str,
    ends: np.ndarray | None = None,
    most: int = 12,
    most_lines: int = 8,
) -> None:
    """Save each column of a table along some walks.

    Args:
        x: (W, T, D).
        t: How far, (T,).
        path: The PNG file.
        names: Of the columns.
        line_names: Of the walks.
        t_name: What ``t`` is.
        title: Above the picture.
        ends: The data that each walk goes between, (W, 2, D); None if it has none.
        most: Draw no more than so many columns.
        most_lines: Nor more than so many walks.
    """
    from matplotlib import colormaps

    figure, panels = _panels(min(x.shape[-1], most), (2.6, 2.1))
    for d, axes in enumerate(panels):
        for w, (walk, name) in enumerate(zip(x[:most_lines], line_names, strict=False)):
            color = colormaps["tab10"](w)
            axes.plot(t, walk[:, d], color=color, linewidth=1.3, label=name)
            if ends is not None:
                axes.plot(t[[0, -1]], ends[w, :, d], "o", color=color, markersize=3.5)
        axes.set_title(names[d], fontsize=8)
        axes.set_xlabel(t_name, fontsize=7)
        _tidy(axes)
    panels[0].legend(frameon=False, fontsize=6)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    _save(figure, path)


def columns_scattered(
    x: np.ndarray, other: np.ndarray, path: Path, *, names: Sequence[str], title: str, label: str, most: int = 12
) -> None:
    """Save each column of a table against what it became.

    Args:
        x: The data, (N, D).
        other: What they became, (N, D).
        path: The PNG file.
        names: Of the columns.
        title: Above the picture.
        label: What ``other`` is.
        most: Draw no more than so many columns.
    """
    figure, panels = _panels(min(x.shape[1], most), (2.5, 2.4))
    size = float(np.clip(2000 / max(len(x), 1), 2, 12))
    for d, axes in enumerate(panels):
        seen = np.isfinite(x[:, d])
        own, became = x[seen, d], other[seen, d]
        axes.axline((own.mean() if len(own) else 0.0,) * 2, slope=1, color=GREY, linewidth=0.8)
        axes.scatter(own, became, s=size, color=BLUE, alpha=0.6, linewidths=0)
        axes.set_title(names[d], fontsize=8)
        axes.set_xlabel("data", fontsize=7)
        axes.set_ylabel(label, fontsize=7)
        _tidy(axes)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    _save(figure, path)


def _scatter(figure: Any, axes: Any, points: np.ndarray, labels: np.ndarray | None) -> None:
    """Draw points, by class where they have any: in a mixed order, so that no class hides another."""
    from matplotlib import colormaps

    size = float(np.clip(20000 / max(len(points), 1), 3, 14))
    order = np.random.default_rng(0).permutation(len(points))
    classes = np.array([]) if labels is None else np.unique(labels)
    if labels is None or len(classes) > MAX_CLASSES:
        style = {"color": BLUE} if labels is None else {"c": labels[order], "cmap": "viridis"}
        drawn = axes.scatter(*points[order].T, s=size, alpha=0.7, linewidths=0, **style)
        if labels is not None:
            figure.colorbar(drawn, ax=axes, label="label").ax.tick_params(labelsize=7)
        return
    colors = colormaps["tab10" if len(classes) <= 10 else "tab20"](np.arange(len(classes)))
    axes.scatter(*points[order].T, s=size, alpha=0.7, linewidths=0, c=colors[np.searchsorted(classes, labels[order])])
    for name, color in zip(classes, colors, strict=True):
        axes.scatter([], [], s=18, color=color, label=str(name))
    axes.legend(frameon=False, fontsize=7, title="label", title_fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _unit(images: np.ndarray) -> np.ndarray:
    """Bring images to [0, 1], and small ones to a size at which a person reads them more easily."""
    from scipy.ndimage import zoom

    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    images = (images - low) / max(high - low, 1e-12)
    if max(images.shape[-2:]) > SMALL or np.isnan(images).any():
        return images
    return zoom(images, (1, 1, 4, 4), order=3, mode="nearest").clip(0, 1)


def _panels(count: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """Return a figure with ``count`` panels, four in a row."""
    across = min(count, 4)
    figure = _figure((max(size[0] * across, 4.0), size[1] * -(-count // across) + 0.4))
    panels = figure.subplots(-(-count // across), across, squeeze=False).flatten()
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, list(panels[:count])


def _tidy(axes: Any) -> None:
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_size(8)
    axes.yaxis.label.set_size(8)
    axes.spines[["top", "right"]].set_visible(False)


def _short(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00")
