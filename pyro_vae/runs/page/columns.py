"""What the page shows of a table's columns."""

from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from pyro_vae.data import Data
from pyro_vae.data.tables import Column
from pyro_vae.data.tables.column import UNORDERED
from pyro_vae.runs.page import figures
from pyro_vae.runs.page.facts import general
from pyro_vae.vae import VAE

DRAWN, LISTED = 12, 60  # columns with a picture, and in the explorer
LENGTH, CATEGORIES = 60, 1000  # characters of a name, and categories whose names are there


def table(vae: VAE, dataset: Data, seed: int, num: int) -> dict[str, Any]:
    """Return each column in the data, in samples, and after reconstruction, from so many rows."""
    data = dataset.test[:num]
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        samples, again = vae.sample(num), vae.reconstruct(data)
    known = vae.config.table
    if known is not None:
        data, samples, again = (known.in_units(x) for x in (data, samples, again))
    names = column_names(dataset)
    columns, rows = [], []
    for d, name in enumerate(names[:DRAWN]):
        column = Column(name, "number", "float32") if known is None else known.modelled[d]
        show = _categories if column.kind in UNORDERED else _numbers
        picture, cells = show(name, column, *(x[:, d].numpy() for x in (data, samples, again)))
        columns.append(picture)
        rows.append([name, *cells])
    return {"columns": columns, "rows": rows, "left_out": max(0, len(names) - DRAWN), "num_samples": f"{num:,}"}


def column_names(dataset: Data) -> list[str]:
    """Return the names of a table's columns."""
    return [name[:LENGTH] for name in dataset.columns or [f"column {d + 1}" for d in range(dataset.shape[0])]]


def _numbers(
    name: str, column: Column, own: np.ndarray, drawn: np.ndarray, again: np.ndarray
) -> tuple[Markup, list[str]]:
    """Return a picture of a column, and its mean and its deviation in both tables, and how far off it is."""
    unit = column.unit_name
    picture = figures.histograms(
        {"other": own, "main": drawn}, f"{name}: data and samples", f"{name}{f',{unit} since 1970' * bool(unit)}"
    )
    spreads = np.nanstd(own), drawn.std(), np.sqrt(np.nanmean((own - again) ** 2))
    means = (float(values) for values in (np.nanmean(own), drawn.mean()))
    cells = [column.written(mean) if unit else general(mean, 3) for mean in means]
    return picture, cells + [f"{general(float(spread), 3)}{unit}" for spread in spreads]


def _categories(
    name: str, column: Column, own: np.ndarray, drawn: np.ndarray, again: np.ndarray
) -> tuple[Markup, list[str]]:
    """Return a picture of a column, and its commonest category in both tables, and how often it is wrong."""
    known = ~np.isnan(own)
    names = [category[:LENGTH] for category in column.categories]
    codes = {kind: values.astype(int) for kind, values in (("other", own[known]), ("main", drawn))}
    picture = figures.categories(names, codes, f"{name}: data and samples", f"{name}: share of rows")
    counts = [np.bincount(values, minlength=len(names)) for values in codes.values()]
    cells = [f"{names[count.argmax()]} ({count.max() / max(1, int(count.sum())):.0%})" for count in counts]
    return picture, [*cells, "", "", f"{(own != again)[known].mean():.1%} wrong"]


def in_explorer(vae: VAE, dataset: Data) -> list[dict[str, Any]]:
    """Return for each column its name, and what makes the numbers of a model its values, as explorer.js has them."""
    columns: list[dict[str, Any]] = [{"name": name} for name in column_names(dataset)[:LISTED]]
    for facts, column in zip(columns, () if vae.config.table is None else vae.config.table.modelled, strict=False):
        facts |= {"loc": column.loc, "scale": column.scale}
        if column.categories:
            facts["categories"] = [name[:LENGTH] for name in column.categories[:CATEGORIES]]
        if column.kind == "date":
            facts["seconds"] = column.unit
    return columns
