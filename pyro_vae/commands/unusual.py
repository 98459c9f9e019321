"""Which columns of a table make its most unusual examples so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.commands.by_model import Progress, by_model
from pyro_vae.commands.outputs import to_csv
from pyro_vae.inference import ColumnScores, score_columns
from pyro_vae.vae import VAE

LEAST = 5  # examples that are looked at, whether flagged or not
MOST_FITS = 5000  # of proposals: for each example with all its columns, and without each
NOTABLE = 5.0  # nats of surprise, as of a value three deviations off
NAMED = 3  # columns of an example, of which the others are half as surprising as the first at least


@dataclass(frozen=True)
class Unusual:
    """The most unusual examples, and how their columns fit.

    Attributes:
        index: Which examples they are, from the most unusual on, (R,).
        x: Their values, (R, D).
        names: Of the columns.
        scores: Of each of their values given the others.
    """

    index: Tensor
    x: Tensor
    names: list[str]
    scores: ColumnScores

    def columns(self, row: int) -> list[int]:
        """Return the columns to name of the example in a row: the most surprising one, and others like it."""
        surprise = self.scores.surprise[row].nan_to_num(-torch.inf, torch.inf)
        first, *others = surprise.argsort(descending=True, stable=True)[:NAMED].tolist()
        least = max(NOTABLE, surprise[first].item() / 2)
        return [first, *(d for d in others if surprise[d] > least)]


def look_at_columns(
    parts: Sequence[tuple[VAE, Tensor]],
    x: Tensor,
    order: Tensor,
    *,
    num_flagged: int,
    most: int,
    names: list[str],
    seed: int,
) -> Unusual | None:
    """Score the columns of the most unusual examples; None where that would take too many fits.

    Args:
        parts: Models, and the indices of the examples that are scored by each.
        x: All examples, (N, D), on the device.
        order: Their indices, from the most unusual on, (N,).
        num_flagged: How many are flagged: these are looked at, and at least five.
        most: So many at most.
        names: Of the columns.
        seed: Of the noise.
    """
    index = order[: min(most, max(LEAST, num_flagged), MOST_FITS // (x.shape[1] + 1))].cpu()
    if len(index) == 0:
        return None
    chosen = x[index]

    def work(vae: VAE, rows: Tensor, progress: Progress) -> ColumnScores:
        return score_columns(vae, chosen[rows], seed=seed, progress=progress)

    at = [(vae, torch.isin(index, rows).nonzero()[:, 0]) for vae, rows in parts]
    return Unusual(index, chosen.cpu(), names, by_model([part for part in at if len(part[1])], "columns", work))


def columns_csv(unusual: Unusual) -> str:
    """Return a row for each column of each example that was looked at, as CSV."""
    count, width = unusual.x.shape
    scores = unusual.scores
    tables = {"value": unusual.x, "expected": scores.mean, "sd": scores.sd, "log_prob": scores.log_prob}
    tables |= {"se": scores.se, "surprise": scores.surprise, "reliable": scores.reliable.long()}
    columns: dict[str, Any] = {"index": unusual.index.repeat_interleave(width), "column": unusual.names * count}
    return to_csv(columns | {name: table.flatten() for name, table in tables.items()})


def named_columns(unusual: Unusual, count: int) -> list[str]:
    """Return for each of all examples which columns make it unusual; nothing for those not looked at."""
    texts = [""] * count
    for row, i in enumerate(unusual.index.tolist()):
        texts[i] = "; ".join(unusual.names[d] for d in unusual.columns(row))
    return texts


def words(unusual: Unusual) -> Iterator[str]:
    """Say of the first few what their columns hold, and what the others let expect."""
    for row, i in enumerate(unusual.index[:LEAST].tolist()):
        values = (
            f"{unusual.names[d]} {unusual.x[row, d]:.3g} rather than "
            f"{unusual.scores.mean[row, d]:.3g} ± {unusual.scores.sd[row, d]:.2g}"
            for d in unusual.columns(row)
        )
        yield f"            index {i}: {', '.join(values)}, given its other columns"
