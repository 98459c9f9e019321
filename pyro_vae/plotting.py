"""Arrays to pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

BLUE, ORANGE, GREY = "#2a6fbb", "#d9772b", "#8a8a8a"
SMALL = 16


def image_grid(images: Tensor, x_shape: Sequence[int], path: Path, *, columns: int, title: str) -> None:
    """Save images as one picture, row by row.

    Args:
        images: Pixels, (N, C*H*W); the darkest value of all is drawn black, the brightest white.
        x_shape: Shape of an image, (C, H, W).
        path: The PNG file.
        columns: Images in a row.
        title: Above the picture.
    """
    from scipy.ndimage import zoom

    channels, height, width = x_shape
    rows = -(-len(images) // columns)
    array = images.detach().cpu().float().numpy().reshape(-1, channels, height, width)
    low, high = float(array.min()), float(array.max())
    array = (array - low) / max(high - low, 1e-12)
    if max(height, width) <= SMALL:  # a person reads so few pixels more easily when they are drawn smoothly
        array = zoom(array, (1, 1, 4, 4), order=3, mode="nearest").clip(0, 1)
        height, width = array.shape[2:]
    canvas = np.ones((channels, rows * (height + 1) - 1, columns * (width + 1) - 1), dtype=np.float32)
    for i, image in enumerate(array):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        canvas[:, top : top + height, left : left + width] = image
    pixels = canvas[0] if channels == 1 else canvas.transpose(1, 2, 0)

    figure = _figure((0.62 * columns, 0.62 * rows * height / width + 0.3))
    axes = figure.add_axes((0.01, 0.01, 0.98, 1 - 0.34 / figure.get_figheight()))
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)
    _save(figure, path)


def curves(history: Sequence[dict[str, float]], path: Path, *, title: str, held_out: str = "validation") -> None:
    """Save the course of a training: the loss and the ELBO, and the ELBO's two terms.

    Args:
        history: Each epoch's metrics, as :class:`pyro_vae.training.Training` gives them.
        path: The PNG file.
        title: Above the picture.
        held_out: What the ELBO was measured on.
    """
    epochs = [row["epoch"] for row in history]
    figure = _figure((9, 3.4))
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [-row["loss"] for row in history], color=GREY, label="training objective")
    left.plot(epochs, [row["elbo"] for row in history], color=BLUE, label=f"ELBO, {held_out}")
    left.set_ylabel("nats per example")
    # The first epochs would squeeze all that follows into a line.
    settled = [row[key] * sign for row in history[len(history) // 10 :] for key, sign in (("elbo", 1), ("loss", -1))]
    spread = max(max(settled) - min(settled), 1e-3)
    left.set_ylim(min(settled) - 0.1 * spread, max(settled) + 0.1 * spread)
    left.legend(frameon=False, loc="lower right")
    right.plot(epochs, [-row["reconstruction"] for row in history], color=BLUE, label="−E[log p(x|z)]")
    right.plot(epochs, [row["kl"] for row in history], color=ORANGE, label="KL[q(z|x) ‖ p(z)]")
    right.set_ylim(bottom=0)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    _save(figure, path)


def columns_compared(
    real: Tensor, other: Tensor, path: Path, *, names: Sequence[str], title: str, label: str, most: int = 12
) -> None:
    """Save a histogram of each column of a table, for the data and for what the model makes.

    Args:
        real: The data, (N, D).
        other: What the model made, (M, D).
        path: The PNG file.
        names: Of the columns.
        title: Above the picture.
        label: What ``other`` is.
        most: Draw no more than so many columns.
    """
    count = min(real.shape[1], most)
    across = min(count, 4)
    figure = _figure((2.6 * across, 2.1 * -(-count // across) + 0.4))
    grid = figure.subplots(-(-count // across), across, squeeze=False).flatten()
    for d, axes in enumerate(grid):
        axes.set_axis_on() if d < count else axes.set_axis_off()
        if d < count:
            both = real[:, d].cpu().numpy(), other[:, d].cpu().numpy()
            low, high = np.quantile(np.concatenate(both), (0.005, 0.995))
            bins = np.linspace(low - 1e-6, high + 1e-6, 31)
            axes.hist(both[0], bins, density=True, color=GREY, alpha=0.6, label="data")
            axes.hist(both[1], bins, density=True, histtype="step", color=BLUE, linewidth=1.5, label=label)
            axes.set_title(names[d], fontsize=8)
            axes.set_yticks([])
    grid[0].legend(frameon=False, fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    _save(figure, path)


def evidence(
    log_evidence: np.ndarray,
    path: Path,
    *,
    bounds: dict[str, tuple[np.ndarray, np.ndarray]],
    level: tuple[float, float, str],
    quality: np.ndarray,
    quality_name: str,
    doubtful: np.ndarray,
    threshold: float | None,
    title: str,
    images: np.ndarray | None = None,
) -> None:
    """Save what there is to see in estimates of log P(X): their spread, how they came about, and whom to trust.

    Args:
        log_evidence: An estimate for each datum, (N,), nats.
        path: The PNG file.
        bounds: The mean bound on log P(X), by the name of its proposal: numbers of samples K, and nats.
        level: What the bounds should reach and its standard error, in nats, and its name.
        quality: How good each estimate is, (N,); what is not finite is not drawn.
        quality_name: What that is, with its unit.
        doubtful: Which estimates can't be trusted, (N,).
        threshold: Of the quality, beyond which they are doubtful; None if there is none.
        title: Above the picture.
        images: The data as (N, H, W, C), of which the best and the worst explained are drawn; None for tables.
    """
    figure = _figure((11, 3.3 if images is None else 5.6))
    panels, gallery = figure, None
    if images is not None:
        panels, gallery = figure.subfigures(2, 1, height_ratios=(3.3, 2.3))
    left, middle, right = panels.subplots(1, 3)
    panels.subplots_adjust(left=0.055, right=0.985, wspace=0.24, bottom=0.16, top=0.8)
    left.hist(log_evidence, bins=min(40, 5 + len(log_evidence) // 5), color=BLUE, alpha=0.75)
    left.set_ylim(top=1.15 * left.get_ylim()[1])  # room for the mean
    mean = float(log_evidence.mean())
    left.axvline(mean, color=ORANGE, linewidth=1.5)
    left.annotate(
        f" mean {mean:.2f} ", (mean, 0.99), xycoords=("data", "axes fraction"), color=ORANGE, fontsize=8, va="top",
        ha="left" if mean < sum(left.get_xlim()) / 2 else "right",
    )  # fmt: skip
    left.set_title("log P(X) of each example", fontsize=9)
    left.set_xlabel("nats")
    left.set_ylabel("examples")

    nats, se, name = level
    middle.axhline(nats, color=GREY, linestyle="--", linewidth=1, label=name)
    if np.isfinite(se):
        middle.axhspan(nats - se, nats + se, color=GREY, alpha=0.2, linewidth=0)
    for (name, (ks, means)), color in zip(bounds.items(), (BLUE, ORANGE), strict=False):
        middle.semilogx(ks, means, color=color, marker="o", markersize=3, label=name)
    middle.set_title("bound on log P(X), by number of samples K", fontsize=9)
    middle.set_xlabel("K")
    middle.xaxis.set_major_formatter("{x:,.0f}")
    middle.set_ylabel("nats per example")
    middle.legend(frameon=False, fontsize=7, loc="lower right")

    finite, above = np.isfinite(quality), ""
    size = float(np.clip(2000 / max(len(quality), 1), 3, 14))
    for chosen, color in ((finite & ~doubtful, BLUE), (finite & doubtful, ORANGE)):
        right.scatter(log_evidence[chosen], quality[chosen], s=size, color=color, alpha=0.7, linewidths=0)
    if threshold is not None:
        right.axhline(threshold, color=GREY, linestyle="--", linewidth=1)
        right.set_ylim(top=max(right.get_ylim()[1], threshold + 0.1))
        above = f": {int(doubtful.sum())} of {len(quality):,} doubtful"
    right.set_title(f"{quality_name}{above}", fontsize=9)
    right.set_xlabel("log P(X), nats")
    for axes in (left, middle, right):
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)
        axes.spines[["top", "right"]].set_visible(False)
    if gallery is not None and images is not None:
        _best_and_worst(gallery, images, log_evidence)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _best_and_worst(figure: Any, images: np.ndarray, log_evidence: np.ndarray, each: int = 12) -> None:
    """Draw the examples that a model explains best, and worst, with the log P(X) of each below it."""
    order = np.argsort(-log_evidence, kind="stable")
    each = min(each, len(order))
    low, high = float(images.min()), float(images.max())
    grid = figure.subplots(2, each, squeeze=False)
    figure.subplots_adjust(left=0.085, right=0.985, wspace=0.12, hspace=0.32, bottom=0.09, top=0.98)
    rows = (("best\nexplained", order[:each]), ("worst\nexplained", order[::-1][:each]))
    for axes_of_row, (name, chosen) in zip(grid, rows, strict=True):
        axes_of_row[0].annotate(
            name, (0, 0.5), (-10, 0), xycoords="axes fraction", textcoords="offset points", fontsize=8, ha="right",
            va="center",
        )  # fmt: skip
        for axes, i in zip(axes_of_row, chosen, strict=True):
            image = (images[i] - low) / max(high - low, 1e-12)
            axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(f"{log_evidence[i]:.1f}", fontsize=7, labelpad=2)


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    return Figure(figsize=size)


def _save(figure: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png", dpi=130)
    temporary.replace(path)
