"""The comparison of two tables as one HTML page."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from pyro_vae.inference import Comparison
from pyro_vae.runs.page import figures, render
from pyro_vae.runs.page.facts import figure, general

DRAWN, LISTED = 24, 100  # columns that are drawn, and rows of a list
LENGTH = 60  # characters of a name


def comparison_page(comparison: Comparison, names: Mapping[str, str], protocol: str) -> str:
    """Return a comparison of tables as an HTML page that needs nothing but itself.

    Args:
        comparison: The comparison.
        names: What to call each table: "real", "synthetic", and "held_out" where there is one.
        protocol: How its figures came about.
    """
    has_held_out = "held_out" in comparison.tables
    return render(
        "comparison.html",
        names=names,
        counts={name: f"{len(table):,}" for name, table in comparison.tables.items()},
        num_columns=len(comparison.layout.names),
        left_out=[(name[:LENGTH], why) for name, why in comparison.layout.left_out.items()],
        has_held_out=has_held_out,
        told=_told(comparison),
        learned=_learned(comparison),
        copies=_copies(comparison),
        columns=_rows(comparison.columns.reset_index(), has_held_out),
        pairs=_rows(comparison.pairs, has_held_out),
        num_pairs=f"{len(comparison.pairs):,}",
        column_pictures=_column_pictures(comparison),
        pair_picture=_pair_picture(comparison),
        protocol=protocol,
    )


def _told(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Return for each learner its AUC, and that of real against real."""
    chance = comparison.real_against_real or {}
    return [
        (name, figure(*auc, digits=3), figure(*chance[name], digits=3) if name in chance else "")
        for name, auc in comparison.two_sample.items()
    ]


def _learned(comparison: Comparison) -> dict[str, str] | None:
    found = comparison.learned
    if found is None:
        return None
    figures = {"real": figure(*found.from_real, digits=3), "synthetic": figure(*found.from_synthetic, digits=3)}
    return {"target": found.target[:LENGTH], "measure": found.measure, "num_rows": f"{found.num_rows:,}", **figures}


def _copies(comparison: Comparison) -> dict[str, Any]:
    copies = comparison.copies
    facts: dict[str, Any] = {name: _percent(getattr(copies, name)) for name in ("identical", "identical_by_chance")}
    if copies.nearest_is_real is None or copies.distance is None or copies.distance_held_out is None:
        return facts | {"nearest": None}
    value, se = copies.nearest_is_real
    distances = {"other": copies.distance_held_out, "main": copies.distance}
    return facts | {
        "nearest": figure(100 * value, 100 * se, digits=1),
        "chance": _percent(copies.chance),
        "picture": figures.histograms(distances, "Distance to the nearest real row", "distance"),
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _rows(table: Any, has_held_out: bool) -> list[list[str]]:
    """Return what identifies each row, with its errors, the largest first."""
    first = [name for name in ("column", "kind", "first", "second", "measure") if name in table]
    numbers = ["real", "synthetic", "error", *(["error_held_out"] if has_held_out else [])]
    worst = table.sort_values("error", ascending=False, kind="stable").head(LISTED)
    texts = [worst[name].str.slice(0, LENGTH) for name in first]
    texts += [worst[name].map(lambda value: general(value, 3)) for name in numbers if name in table]
    return [list(row) for row in zip(*texts, strict=True)]


def _column_pictures(comparison: Comparison) -> list[tuple[str, Markup]]:
    """Return a picture of each column in both tables, those with the largest errors first."""
    layout, real, synthetic = comparison.layout, comparison.tables["real"], comparison.tables["synthetic"]
    order = comparison.columns["error"].sort_values(ascending=False, kind="stable").index[:DRAWN]
    pictures = []
    for name in order:
        what = f"{name[:LENGTH]}: real and synthetic"
        if name in layout.numbers:
            d = layout.numbers.index(name)
            values = {"other": real.numbers[:, d], "main": synthetic.numbers[:, d]}
            pictures.append((name[:LENGTH], figures.histograms(values, what, "value")))
        else:
            d = list(layout.categories).index(name)
            names = ["(blank)", *(category[:LENGTH] for category in layout.categories[name])]
            codes = {"other": real.codes[:, d], "main": synthetic.codes[:, d]}
            pictures.append((name[:LENGTH], figures.categories(names, codes, what, "share of rows")))
    return pictures


def _pair_picture(comparison: Comparison) -> Markup | None:
    pairs = comparison.pairs
    if pairs.empty:
        return None
    points = pairs[["real", "synthetic"]].to_numpy()
    axes = ("in the real table", "in the synthetic one")
    return figures.scatter(points[:2000], "Association of each two columns", axes, equal=True, diagonal=True)
