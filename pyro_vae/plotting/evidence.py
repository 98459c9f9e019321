"""The picture of estimates of log P(X)."""

from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.plotting.figure import BLUE, GREY, ORANGE, as_written, left_out, near, new_figure, save, to_rgb


@as_written
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
        log_evidence: An estimate for each datum, (N,), nats; what is not finite or far out is not drawn.
        path: The PNG file.
        bounds: The mean bound on log P(X), by the name of its proposal: numbers of samples K, and nats.
        level: What the bounds should reach and its standard error, in nats, and its name.
        quality: How good each estimate is, (N,); what is not finite is not drawn.
        quality_name: What that is, with its unit.
        doubtful: Which estimates can't be trusted, (N,).
        threshold: Of the quality, beyond which they are doubtful; None if there is none.
        title: Above the picture.
        images: The data as (N, H, W), of which the best and the worst explained are drawn; None for tables.
    """
    figure = new_figure((11, 3.3 if images is None else 5.6))
    panels, gallery = figure, None
    if images is not None:
        panels, gallery = figure.subfigures(2, 1, height_ratios=(3.3, 2.3))
    left, middle, right = panels.subplots(1, 3)
    panels.subplots_adjust(left=0.055, right=0.985, wspace=0.24, bottom=0.16, top=0.8)
    shown = near(log_evidence)
    left.hist(log_evidence[shown], bins=min(40, 5 + len(log_evidence) // 5), color=BLUE, alpha=0.75)
    left.set_ylim(top=1.15 * left.get_ylim()[1])  # room for the mean
    if shown.all():
        mean = float(log_evidence.mean())
        left.axvline(mean, color=ORANGE, linewidth=1.5)
        left.annotate(
            f" mean {mean:.2f} ", (mean, 0.99), xycoords=("data", "axes fraction"), color=ORANGE, fontsize=8, va="top",
            ha="left" if mean < sum(left.get_xlim()) / 2 else "right",
        )  # fmt: skip
    left.set_title(f"log P(X) of each example{left_out(shown)}", fontsize=9)
    left.set_xlabel("nats")
    left.set_ylabel("examples")

    nats, se, name = level
    if np.isfinite(nats):
        middle.axhline(nats, color=GREY, linestyle="--", linewidth=1, label=name)
    if np.isfinite(se):
        middle.axhspan(nats - se, nats + se, color=GREY, alpha=0.2, linewidth=0)
    for (name, (ks, means)), color in zip(bounds.items(), (BLUE, ORANGE), strict=False):
        middle.semilogx(ks, means, color=color, marker="o", markersize=3, label=name)
    middle.set_title("bound on log P(X), by number of samples K", fontsize=9)
    middle.set_xlabel("K")
    middle.xaxis.set_major_formatter("{x:,.0f}")
    middle.xaxis.set_minor_formatter("")  # which would be formulas
    middle.set_ylabel("nats per example")
    middle.legend(frameon=False, fontsize=7, loc="lower right")

    finite, above = np.isfinite(quality) & shown, ""
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
    save(figure, path)


def _best_and_worst(figure: Any, images: np.ndarray, log_evidence: np.ndarray, each: int = 12) -> None:
    """Draw the examples that a model explains best, and worst, with the log P(X) of each below it."""
    order = np.argsort(-log_evidence, kind="stable")
    each = min(each, len(order))
    grid = figure.subplots(2, each, squeeze=False)
    figure.subplots_adjust(left=0.085, right=0.985, wspace=0.12, hspace=0.32, bottom=0.09, top=0.98)
    rows = (("best\nexplained", order[:each]), ("worst\nexplained", order[::-1][:each]))
    for axes_of_row, (name, chosen) in zip(grid, rows, strict=True):
        axes_of_row[0].annotate(
            name, (0, 0.5), (-10, 0), xycoords="axes fraction", textcoords="offset points", fontsize=8, ha="right",
            va="center",
        )  # fmt: skip
        for axes, i, image in zip(axes_of_row, chosen, to_rgb(images[chosen]), strict=True):
            axes.imshow(image)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(f"{log_evidence[i]:.1f}", fontsize=7, labelpad=2)
