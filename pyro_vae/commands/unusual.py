"""Which columns of a table make its most unusual examples so."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.commands.by_model import Progress, by_model
from pyro_vae.commands.outputs import to_csv
from pyro_vae.data.tables import Schema
from pyro_vae.data.tables.column import UNORDERED
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
        table: What the columns are, where they are more than numbers.
    """

    index: Tensor
    x: Tensor
    names: list[str]
    scores: ColumnScores
    table: Schema | None = None

    def columns(self, row: int) -> list[int]:
        """Return the columns to name of the example in a row: the most surprising one, and others like it."""
        surprise = self.scores.surprise[row].nan_to_num(-torch.inf, torch.inf)
        first, *others = surprise.argsort(descending=True, stable=True)[:NAMED].tolist()
        least = max(NOTABLE, surprise[first].item() / 2)
        return [first, *(d for d in others if surprise[d] > least)]

    def written(self, x: Tensor) -> list[list[str]]:
        """Return values like theirs, (R, D), as their user writes them; a blank as nothing."""
        assert self.table is not None
        decimal, columns = self.table.form.decimal, self.table.modelled
        return [
            ["" if math.isnan(v) else column.written(v, decimal) for column, v in zip(columns, row, strict=True)]
            for row in self.table.in_units(x).tolist()
        ]


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
    scores = by_model([part for part in at if len(part[1])], "columns", work)
    return Unusual(index, chosen.cpu(), names, scores, parts[0][0].config.table)


def columns_csv(unusual: Unusual) -> str:
    """Return a row for each column of each example that was looked at, as CSV."""
    count, width = unusual.x.shape
    scores = unusual.scores
    columns: dict[str, Any] = {"index": unusual.index.repeat_interleave(width), "column": unusual.names * count}
    own = {"value": unusual.x, "expected": scores.mean}
    if unusual.table is None:
        columns |= {name: values.flatten() for name, values in own.items()} | {"sd": scores.sd.flatten()}
    else:
        columns |= {name: list(itertools.chain(*unusual.written(values))) for name, values in own.items()}
        columns |= {"sd": _deviations(unusual, unusual.table).flatten()}
    figures = {"log_prob": scores.log_prob, "se": scores.se, "surprise": scores.surprise}
    figures |= {"reliable": scores.reliable.long()}
    return to_csv(columns | {name: values.flatten() for name, values in figures.items()})


def _deviations(unusual: Unusual, table: Schema) -> Tensor:
    """Return standard deviations in own units, (R, D); NaN of categories and of yes/no, which have none."""
    named = torch.tensor([column.kind in UNORDERED for column in table.modelled])
    return table.in_units(unusual.scores.sd, spread=True).masked_fill(named, torch.nan)


def named_columns(unusual: Unusual, count: int) -> list[str]:
    """Return for each of all examples which columns make it unusual; nothing for those not looked at."""
    texts = [""] * count
    for row, i in enumerate(unusual.index.tolist()):
        texts[i] = "; ".join(unusual.names[d] for d in unusual.columns(row))
    return texts


def words(unusual: Unusual) -> Iterator[str]:
    """Say of the first few what their columns hold, and what the others let expect."""
    say = _as_numbers(unusual) if unusual.table is None else _as_written(unusual, unusual.table)
    for row, i in enumerate(unusual.index[:LEAST].tolist()):
        values = (f"{unusual.names[d]} {say(row, d)}" for d in unusual.columns(row))
        yield f"            index {i}: {', '.join(values)}, given its other columns"


def _as_numbers(unusual: Unusual) -> Callable[[int, int], str]:
    x, mean, sd = unusual.x, unusual.scores.mean, unusual.scores.sd
    return lambda row, d: f"{x[row, d]:.3g} rather than {mean[row, d]:.3g} ± {sd[row, d]:.2g}"


def _as_written(unusual: Unusual, table: Schema) -> Callable[[int, int], str]:
    """Return what says of a value, in its own units or by its name, what it is and what is expected."""
    values, expected, sd = unusual.written(unusual.x), unusual.written(unusual.scores.mean), _deviations(unusual, table)

    def say(row: int, d: int) -> str:
        value, other, column = values[row][d], expected[row][d], table.modelled[d]
        if column.categories:
            return f"{value!r} rather than {other!r}"
        return f"{value} rather than {other} ± {sd[row, d]:.3g}{column.unit_name}"

    return say
