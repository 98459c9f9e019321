"""The picture of a training."""

from collections.abc import Sequence
from pathlib import Path

from pyro_vae.plotting.figure import BLUE, GREY, ORANGE, as_written, new_figure, save


@as_written
def curves(history: Sequence[dict[str, float]], path: Path, *, title: str, held_out: str = "validation") -> None:
    """Save the course of a training: the loss and the ELBO, and the ELBO's two terms.

    Args:
        history: Each epoch's metrics, as :class:`pyro_vae.training.loop.Training` gives them.
        path: The PNG file.
        title: Above the picture.
        held_out: What the ELBO was measured on.
    """
    epochs = [row["epoch"] for row in history]
    figure = new_figure((9, 3.4))
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
    save(figure, path)
