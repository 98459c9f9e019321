"""The picture of anomaly scores."""

from pathlib import Path

import numpy as np

from pyro_vae.plotting.figure import BLUE, GREY, ORANGE, as_written, left_out, near, new_figure, save, to_rgb


@as_written
def scores(
    given: np.ndarray,
    held_out: np.ndarray,
    path: Path,
    *,
    p_value: np.ndarray,
    flagged: np.ndarray,
    order: np.ndarray,
    title: str,
    images: np.ndarray | None = None,
    most: int = 24,
) -> None:
    """Save how log P(X) of data compares with that of held-out data, and the most unusual of them where images.

    Args:
        given: log P(X) of each datum, (N,), nats; what is not finite or far out is not drawn.
        held_out: log P(X) of the held-out data, (n,), nats.
        path: The PNG file.
        p_value: Of each datum, (N,).
        flagged: Which are called anomalies, (N,).
        order: The data from the most unusual on, (N,).
        title: Above the picture.
        images: The data as (N, H, W); None for tables.
        most: Draw no more than so many images.
    """
    figure = new_figure((9, 3.2 if images is None else 5.4))
    panels, gallery = figure, None
    if images is not None:
        panels, gallery = figure.subfigures(2, 1, height_ratios=(3.0, 2.4))
    left, right = panels.subplots(1, 2, width_ratios=(3, 2))
    panels.subplots_adjust(left=0.06, right=0.985, wspace=0.2, bottom=0.16, top=0.82)
    shown = near(np.concatenate([given, held_out]))
    bins = np.histogram_bin_edges(np.concatenate([given, held_out])[shown], 40)
    for values, kind, style in (
        (held_out[shown[len(given) :]], f"held out ({len(held_out):,})", {"color": GREY, "alpha": 0.55}),
        (given[shown[: len(given)]], f"given ({len(given):,})", {"color": BLUE, "histtype": "step", "linewidth": 1.5}),
    ):
        left.hist(values, bins, density=len(values) > 0, label=kind, **style)
    marked = given[flagged & shown[: len(given)]]
    if len(marked):
        height = left.get_ylim()[1]
        left.plot(marked, np.full(len(marked), -0.02 * height), "|", color=ORANGE, label="flagged")
    left.set_title(f"log P(X) of each example{left_out(shown)}", fontsize=9)
    left.set_xlabel("nats")
    left.set_yticks([])
    left.legend(frameon=False, fontsize=8)
    right.hist(p_value, np.linspace(0, 1, 21), weights=np.full(len(p_value), 20 / len(p_value)), color=BLUE, alpha=0.75)
    right.axhline(1, color=GREY, linestyle="--", linewidth=1)
    right.set_title("density of the p-values; 1 for normal data", fontsize=9)
    right.set_xlim(0, 1)
    right.set_xlabel("p-value")
    for axes in (left, right):
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(8)
        axes.spines[["top", "right"]].set_visible(False)
    if gallery is not None and images is not None:
        chosen = order[:most]
        grid = gallery.subplots(2, most // 2, squeeze=False).flatten()
        gallery.subplots_adjust(left=0.02, right=0.985, wspace=0.12, hspace=0.4, bottom=0.1, top=0.87)
        gallery.suptitle("The most unusual: index, p-value; in orange if flagged", fontsize=9)
        for axes in grid:
            axes.set_axis_off()
        for axes, i, image in zip(grid, chosen, to_rgb(images[chosen]), strict=False):
            axes.set_axis_on()
            axes.imshow(image)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            color = ORANGE if flagged[i] else "black"
            axes.set_xlabel(f"{i}: {p_value[i]:.2g}", fontsize=7, labelpad=2, color=color)
    figure.suptitle(title, fontsize=10)
    save(figure, path)
