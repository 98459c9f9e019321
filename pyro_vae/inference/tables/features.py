"""Cells as learners take them."""

from typing import Any, Literal

import numpy as np

from pyro_vae.inference.tables.cells import Cells

MOST = 250  # categories of a column that a learner tells apart: the rarest of more are one


def as_features(cells: Cells) -> np.ndarray:
    """Return numbers, NaN where blank, and behind them the codes of categories, (N, P + Q)."""
    return np.hstack([cells.numbers, np.minimum(cells.codes, MOST)])


def boosting(kind: Literal["Classifier", "Regressor"], cells: Cells, seed: int, **options: Any) -> Any:
    """Return gradient boosting of trees for features of tables with such cells."""
    from sklearn import ensemble

    is_category = np.repeat([False, True], [cells.numbers.shape[1], cells.codes.shape[1]])
    make = getattr(ensemble, f"HistGradientBoosting{kind}")
    return make(categorical_features=is_category, random_state=seed, **options)


def as_points(*tables: Cells) -> tuple[np.ndarray, ...]:
    """Return tables as points, (N, C) each, in which any two columns count about the same.

    Numbers are the normal scores of their ranks in all tables together, 0 with a mark beside where they are blank.
    Categories have a coordinate each.
    """
    from sklearn.preprocessing import OneHotEncoder, QuantileTransformer

    numbers, codes = (np.concatenate([getattr(table, kind) for table in tables]) for kind in ("numbers", "codes"))
    parts = []
    if numbers.shape[1]:
        blank = np.isnan(numbers)
        ranked = QuantileTransformer(n_quantiles=min(1000, len(numbers)), output_distribution="normal", random_state=0)
        parts += [np.where(blank, 0.0, ranked.fit_transform(numbers)), blank[:, blank.any(0)]]
    if codes.shape[1]:
        parts.append(OneHotEncoder(sparse_output=False).fit_transform(np.minimum(codes, MOST)))
    return tuple(np.split(np.hstack(parts), np.cumsum([len(table) for table in tables])[:-1]))
