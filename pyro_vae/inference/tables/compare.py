"""How a synthetic table compares with the real one: column by column, in pairs, as a whole, in use, and row by row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_vae.evidence.checks import check_count
from pyro_vae.inference.tables.associations import associations, blanks, column_errors
from pyro_vae.inference.tables.cells import Cells, Layout, to_cells
from pyro_vae.inference.tables.copies import Copies, find_copies
from pyro_vae.inference.tables.learners import Estimate, Learned, learn, two_sample

if TYPE_CHECKING:
    import pandas

FEWEST = 10  # rows of a table


@dataclass(frozen=True, eq=False)
class Comparison:
    """How a synthetic table compares with a real one; held-out rows of the same source say what is chance.

    Attributes:
        layout: Which columns are compared, which are not, and why.
        tables: The cells of each table, by "real", "synthetic" and "held_out".
        columns: A row for each column: its kind, its error (see :func:`column_errors`), and the share of its blanks.
        pairs: A row for each two columns: their association in each table (see :func:`associations`), and its error.
        two_sample: AUC of each learner that tells synthetic rows from held-out ones, or from real ones without these.
        real_against_real: The same of real rows in place of synthetic ones; None without held-out rows.
        learned: How well a target is learned from each table; None without one.
        copies: Whether synthetic rows are copies of real ones.
    """

    layout: Layout
    tables: Mapping[str, Cells]
    columns: "pandas.DataFrame"
    pairs: "pandas.DataFrame"
    two_sample: Mapping[str, Estimate]
    real_against_real: Mapping[str, Estimate] | None
    learned: Learned | None
    copies: Copies

    def as_dict(self) -> dict[str, Any]:
        """Return the figures of the whole, as a JSON file takes them."""
        errors = {}
        for what, table in {"column_error": self.columns, "pair_error": self.pairs}.items():
            for name in (name for name in table if name.startswith("error")):
                errors[what + name.removeprefix("error")] = {"mean": table[name].mean(), "max": table[name].max()}
        copies, learned = self.copies, self.learned
        return {
            "num_rows": {name: len(table) for name, table in self.tables.items()},
            "num_columns": len(self.layout.names),
            "left_out": dict(self.layout.left_out),
            **errors,
            "two_sample_auc": _as_dicts(self.two_sample),
            "real_against_real_auc": self.real_against_real and _as_dicts(self.real_against_real),
            "target": learned
            and {
                "column": learned.target,
                "measure": learned.measure,
                "from_real": learned.from_real._asdict(),
                "from_synthetic": learned.from_synthetic._asdict(),
                "num_rows": learned.num_rows,
            },
            "copies": {
                "identical": copies.identical,
                "identical_by_chance": copies.identical_by_chance,
                "nearest_is_real": copies.nearest_is_real and copies.nearest_is_real._asdict(),
                "chance": copies.chance,
                "memorised": copies.memorised and copies.memorised._asdict(),
            },
        }


def compare_tables(
    real: "pandas.DataFrame",
    synthetic: "pandas.DataFrame",
    *,
    held_out: "pandas.DataFrame | None" = None,
    target: str | None = None,
    max_rows: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare a synthetic table with the real one that it was made after.

    Columns by the distance of their distributions, pairs of them by their association, whole rows by whether learners
    can tell which table they are from, what can be learned from them, and whether they are copies.

    Args:
        real: The table that the synthetic one was made after, such as a model's training data.
        synthetic: Rows with the same columns, in any order; columns that one of the tables lacks are left out.
        held_out: Rows of the same source as the real ones, that nothing was made after: with them, each figure has one
            beside it that says what draws from the true distribution would get.
        target: A column to predict from the others; it needs held-out rows to be tested on.
        max_rows: So many rows of each table at most, drawn at random. All real rows are searched for copies.
        seed: Of what is drawn, and of the learners.

    Returns:
        The comparison.

    Raises:
        ValueError: When the tables have no column in common, are too short, or hold what can't be compared.

    Example:
        >>> import pandas
        >>> rng = np.random.default_rng(0)
        >>> people = pandas.DataFrame({"age": rng.normal(40, 9, 900).round(), "smokes": rng.choice(["yes", "no"], 900)})
        >>> comparison = compare_tables(people[:600], people[600:])
        >>> comparison.columns.kind.to_dict()
        {'age': 'number', 'smokes': 'category'}
        >>> abs(comparison.two_sample["gradient boosting"].value - 0.5) < 0.1
        True
    """
    check_count(max_rows=max_rows)
    if target is not None and held_out is None:
        raise ValueError(f"target: {target!r} can be predicted only in rows of neither table; give held_out as well")
    frames = {"real": real, "synthetic": synthetic} | ({} if held_out is None else {"held_out": held_out})
    layout, tables = to_cells(frames)
    for name, table in tables.items():
        if len(table) < FEWEST:
            raise ValueError(f"{name}: expected at least {FEWEST} rows, got {len(table):,}")
    rng, seed = np.random.default_rng(seed), seed % 2**32  # as scikit-learn has it
    some = {name: table.some(max_rows, rng) for name, table in tables.items()}
    # Told from held-out rows, a table that repeats the real one does no better than the real one itself.
    fresh = some.get("held_out", some["real"])
    count = min(len(some["real"]), len(some["synthetic"]))
    told = {name: two_sample(fresh, some[name].some(count, rng), seed=seed) for name in some if some[name] is not fresh}
    return Comparison(
        layout=layout,
        tables=tables,
        columns=_columns(layout, some),
        pairs=_pairs(layout, some),
        two_sample=told["synthetic"],
        real_against_real=told.get("real"),
        learned=None if target is None else learn(layout, target, *some.values(), seed=seed),
        copies=find_copies(tables["real"], some["synthetic"], some.get("held_out")),
    )


def _columns(layout: Layout, tables: Mapping[str, Cells]) -> "pandas.DataFrame":
    import pandas

    kinds = ["number" if name in layout.numbers else "category" for name in layout.names]
    columns = {"kind": pandas.Series(kinds, layout.names)}
    real, *others = tables
    for name in others:
        columns[_error(name)] = column_errors(layout, tables[real], tables[name])
    columns |= {f"blank_{name}": blanks(layout, table) for name, table in tables.items()}
    return pandas.DataFrame(columns).rename_axis("column")


def _pairs(layout: Layout, tables: Mapping[str, Cells]) -> "pandas.DataFrame":
    """Return the associations of pairs that the real table has one for; one that is unknown counts as none."""
    import pandas

    found = pandas.DataFrame({name: associations(layout, table) for name, table in tables.items()})
    found = found[found["real"].notna()].fillna(0.0)
    for name in list(tables)[1:]:
        found[_error(name)] = (found[name] - found["real"]).abs()
    return found.reset_index()


def _error(table: str) -> str:
    return "error" if table == "synthetic" else f"error_{table}"


def _as_dicts(figures: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: estimate._asdict() for name, estimate in figures.items()}
