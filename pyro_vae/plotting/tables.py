"""Pictures of tables, a panel for each column."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.plotting.figure import BLUE, GREY, as_written, left_out, near, new_panels, save, tidy

# By the place of a column the names of the categories 0, 1, …, or what writes a value, such as a date.
Words = Mapping[int, Sequence[str] | Callable[[float], str]]
MOST_NAMED, LONGEST = 10, 12  # categories with a name at the axis, and characters of it


@as_written
def columns_compared(
    real: Tensor,
    other: Tensor,
    path: Path,
    *,
    names: Sequence[str],
    title: str,
    label: str,
    words: Words = MappingProxyType({}),
    most: int = 12,
) -> None:
    """Save a histogram of each column of a table, for the data and for what the model makes.

    Args:
        real: The data, (N, D); blanks (NaN) are left out.
        other: What the model made, (M, D); likewise.
        path: The PNG file.
        names: Of the columns.
        title: Above the picture.
        label: What ``other`` is.
        words: What values stand for, where they are no numbers.
        most: Draw no more than so many columns.
    """
    _histograms(
        [column[~column.isnan()].cpu().numpy() for column in real.T[:most]],
        [column[~column.isnan()].cpu().numpy() for column in other.T[:most]],
        path,
        names=names,
        labels=("data", label),
        title=title,
        words=words,
    )


@as_written
def columns_completed(
    observed: np.ndarray,
    completions: np.ndarray,
    path: Path,
    *,
    names: Sequence[str],
    title: str,
    words: Words = MappingProxyType({}),
    most: int = 12,
) -> None:
    """Save a histogram of each column that has blanks: its observed values, and those filled in.

    Args:
        observed: A table, (N, D), with NaN where it is blank.
        completions: (M, N, D); what stayed blank is left out.
        path: The PNG file.
        names: Of the columns.
        title: Above the picture.
        words: What values stand for, where they are no numbers.
        most: Draw no more than so many columns.
    """
    blank = np.isnan(observed)
    chosen = np.flatnonzero(blank.any(0))[:most]
    _histograms(
        [observed[~blank[:, d], d] for d in chosen],
        [filled[~np.isnan(filled)] for filled in (completions[:, blank[:, d], d].flatten() for d in chosen)],
        path,
        names=[names[d] for d in chosen],
        labels=("observed", "filled in"),
        title=title,
        words={place: words[d] for place, d in enumerate(chosen) if d in words},
    )


def num_bins(num: int) -> int:
    """Return how many bins show the shape of so many values, rather than their noise.

    Example:
        >>> num_bins(30), num_bins(10_000)
        (10, 30)
    """
    return min(30, max(5, 2 * math.isqrt(num)))


def _say(axes: Any, said: Sequence[str] | Callable[[float], str] | None) -> None:
    """Write at an axis what its values stand for."""
    if callable(said):
        axes.locator_params(axis="x", nbins=3)
        axes.xaxis.set_major_formatter(lambda value, _: said(value))
    elif said is not None:
        short = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in said]
        few = len(said) <= MOST_NAMED
        axes.set_xticks(range(len(said)) if few else [], short if few else [])
        if few and sum(map(len, short)) > 2 * LONGEST:
            axes.tick_params(axis="x", rotation=30, labelsize=6)


def _histograms(
    given: Sequence[np.ndarray],
    other: Sequence[np.ndarray],
    path: Path,
    *,
    names: Sequence[str],
    labels: tuple[str, str],
    title: str,
    words: Words,
) -> None:
    """Save a histogram of each column's values of two kinds, as grey bars and as a blue line."""
    figure, panels = new_panels(len(given), (2.6, 2.1))
    for d, (axes, bars, line, name) in enumerate(zip(panels, given, other, names, strict=False)):
        said = words.get(d)
        if said is None or callable(said):
            both = np.concatenate([bars, line])
            both = both[near(both)]
            low, high = np.quantile(both, (0.005, 0.995)) if len(both) else (0, 1)
            bins = np.linspace(low - 1e-6, high + 1e-6, 1 + num_bins(min(len(bars), len(line))))
        else:
            bins = np.arange(len(said) + 1) - 0.5
        _say(axes, said)
        for values, label, style in (
            (bars, labels[0], {"color": GREY, "alpha": 0.6}),
            (line, labels[1], {"color": BLUE, "histtype": "step", "linewidth": 1.5}),
        ):
            inside = values[(values >= bins[0]) & (values <= bins[-1])]
            axes.hist(inside, bins, density=len(inside) > 0, label=label, **style)
        axes.set_title(name, fontsize=8)
        axes.set_yticks([])
    panels[0].legend(frameon=False, fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    save(figure, path)


@as_written
def columns_scattered(
    x: np.ndarray,
    other: np.ndarray,
    path: Path,
    *,
    names: Sequence[str],
    title: str,
    label: str,
    x_label: str = "data",
    sd: np.ndarray | None = None,
    most: int = 12,
) -> None:
    """Save each column of a table against what it became.

    Args:
        x: The data, (N, D); blanks (NaN) and values far out are left out, and so are columns of nothing else.
        other: What they became, (N, D).
        path: The PNG file.
        names: Of the columns.
        title: Above the picture.
        label: What ``other`` is.
        x_label: What ``x`` is.
        sd: Standard deviation of ``other``, (N, D), drawn as a line to both sides; None to leave it out.
        most: Draw no more than so many columns.
    """
    chosen = np.flatnonzero(np.isfinite(x).any(0))[:most]
    figure, panels = new_panels(max(len(chosen), 1), (2.5, 2.4))
    size = float(np.clip(2000 / max(len(x), 1), 2, 12))
    for d, axes in zip(chosen, panels, strict=False):
        known = np.isfinite(x[:, d])
        seen = known & near(x[:, d]) & near(other[:, d])
        own, became = x[seen, d], other[seen, d]
        axes.axline((own.mean(),) * 2, slope=1, color=GREY, linewidth=0.8)
        axes.scatter(own, became, s=size, color=BLUE, alpha=0.6, linewidths=0)
        if sd is not None:
            axes.errorbar(own, became, sd[seen, d], fmt="none", ecolor=BLUE, elinewidth=0.6, alpha=0.4)
        axes.set_title(f"{names[d]}{left_out(seen[known])}", fontsize=8)
        axes.set_xlabel(x_label, fontsize=7)
        axes.set_ylabel(label, fontsize=7)
        tidy(axes)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    save(figure, path)


@as_written
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

    figure, panels = new_panels(min(x.shape[-1], most), (2.6, 2.1))
    for d, axes in enumerate(panels):
        for w, (walk, name) in enumerate(zip(x[:most_lines], line_names, strict=False)):
            color = colormaps["tab10"](w)
            axes.plot(t, walk[:, d], color=color, linewidth=1.3, label=name)
            if ends is not None:
                axes.plot(t[[0, -1]], ends[w, :, d], "o", color=color, markersize=3.5)
        axes.set_title(names[d], fontsize=8)
        axes.set_xlabel(t_name, fontsize=7)
        tidy(axes)
    panels[0].legend(frameon=False, fontsize=6)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    save(figure, path)


@as_written
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
    figure, panels = new_panels(min(x.shape[-1], most), (2.7, 2.3))
    for d, axes in enumerate(panels):
        mesh = axes.pcolormesh(across, up, x[..., d], shading="nearest", cmap="viridis", rasterized=True)
        figure.colorbar(mesh, ax=axes).ax.tick_params(labelsize=6)
        axes.set_title(names[d], fontsize=8)
        axes.set_xlabel("z1", fontsize=7)
        axes.set_ylabel("z2", fontsize=7)
        axes.tick_params(labelsize=6)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    save(figure, path)
