"""The map of the latent space."""

from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.plotting.figure import BLUE, PALE, as_written, left_out, near, new_figure, save, tidy

MAX_CLASSES = 20  # that get a colour each


@as_written
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
        points: On a plane, (N, 2); those far out are left out.
        path: The PNG file.
        axes_names: Of the plane's axes.
        labels: The classes of the data, (N,), numbers or text; None if unknown.
        use: Of each latent dimension, (Z,).
        use_name: What that is, with its unit.
        active: Which dimensions are used, (Z,) bool.
        title: Above the picture.
        most: Draw no more than so many dimensions, the most used ones.
    """
    figure = new_figure((10, 5.2))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    shown = near(points[:, 0]) & near(points[:, 1])
    _scatter(figure, left, points[shown], None if labels is None else labels[shown])
    left.set_xlabel(axes_names[0])
    left.set_ylabel(axes_names[1])
    left.set_aspect("equal", adjustable="datalim")
    left.set_title(f"E[z|x] of {len(points):,} examples{left_out(shown)}", fontsize=9)

    order = np.argsort(-use, kind="stable")[:most]
    colors = [BLUE if active[j] else PALE for j in order]
    right.barh(range(len(order)), use[order], color=colors, height=0.75)
    right.set_yticks(range(len(order)), [f"z{j + 1}" for j in order], fontsize=max(4, min(8, 160 / len(order))))
    right.set_ylim(max(len(order), 6) - 0.4, -0.6)
    right.set_xlabel(use_name)
    more = f", the first {most} of them" if len(use) > most else ""
    right.set_title(f"{int(active.sum())} of {len(use)} dimensions are active{more}", fontsize=9)
    for axes in (left, right):
        tidy(axes)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    save(figure, path)


def _scatter(figure: Any, axes: Any, points: np.ndarray, labels: np.ndarray | None) -> None:
    """Draw points, by class where they have any: in a mixed order, so that no class hides another."""
    from matplotlib import colormaps

    size = float(np.clip(20000 / max(len(points), 1), 3, 14))
    order = np.random.default_rng(0).permutation(len(points))
    classes, at = (np.array([]), order) if labels is None else np.unique(labels, return_inverse=True)
    if labels is None or len(classes) > MAX_CLASSES:
        values = at if labels is None or labels.dtype.kind == "U" else labels
        style = {"color": BLUE} if labels is None else {"c": values[order], "cmap": "viridis"}
        drawn = axes.scatter(*points[order].T, s=size, alpha=0.7, linewidths=0, **style)
        if labels is not None and labels.dtype.kind != "U":
            figure.colorbar(drawn, ax=axes, label="label").ax.tick_params(labelsize=7)
        return
    colors = colormaps["tab10" if len(classes) <= 10 else "tab20"](np.arange(len(classes)))
    axes.scatter(*points[order].T, s=size, alpha=0.7, linewidths=0, c=colors[at[order]])
    for name, color in zip(classes, colors, strict=True):
        axes.scatter([], [], s=18, color=color, label=str(name))
    axes.legend(frameon=False, fontsize=7, title="label", title_fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
