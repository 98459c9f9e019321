"""What learners make of two tables: whether they tell them apart, and what they learn from each."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from pyro_vae.inference.score import auroc
from pyro_vae.inference.tables.cells import Cells, Layout, take_out
from pyro_vae.inference.tables.features import as_features, as_points, boosting

FOLDS = 5


class Estimate(NamedTuple):
    """A figure, and its standard error."""

    value: float
    se: float


def two_sample(a: Cells, b: Cells, *, seed: int = 0) -> dict[str, Estimate]:
    """Return how well each learner tells rows of one table from rows of another: the AUC on rows it was not trained on.

    It is 0.5 where both are draws from one distribution, and 1 where every row gives itself away. The mean over five
    folds; the standard error is DeLong's of a fold, with Nadeau and Bengio's allowance for the rows that folds share.

    Args:
        a: A table.
        b: Another one; each has the same weight, however many rows it has.
        seed: Of the folds, and of the learners.

    Reference:
        Lopez-Paz & Oquab (2017), Revisiting Classifier Two-Sample Tests; Nadeau & Bengio (2003), Inference for the
        Generalization Error, section 3.
    """
    from sklearn.linear_model import LogisticRegression

    logistic = LogisticRegression(class_weight="balanced", max_iter=1000)
    trees = boosting("Classifier", a, seed, class_weight="balanced")
    is_b = np.repeat([False, True], [len(a), len(b)])
    return {
        "logistic regression": _told_apart(logistic, np.concatenate(as_points(a, b)), is_b, seed),
        "gradient boosting": _told_apart(trees, np.concatenate([as_features(a), as_features(b)]), is_b, seed),
    }


def _told_apart(learner: Any, x: np.ndarray, is_b: np.ndarray, seed: int) -> Estimate:
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    areas = []
    for train, test in folds.split(x, is_b):
        scores = torch.from_numpy(learner.fit(x[train], is_b[train]).predict_proba(x[test])[:, 1])
        areas.append(auroc(scores[~is_b[test]], scores[is_b[test]]))
    value, se = np.array(areas).T
    k = len(areas)
    return Estimate(float(value.mean()), float(np.sqrt((se**2).mean() * (1 / k + 1 / (k - 1)))))


@dataclass(frozen=True)
class Learned:
    """How well a column is predicted from the others in rows that belong to neither table.

    Attributes:
        target: The column.
        measure: The AUC of categories, of each against the others in the mean; R² of numbers.
        from_real: By gradient boosting trained on the real table.
        from_synthetic: The same, trained on as many synthetic rows at most.
        num_rows: How many it was tested on.
    """

    target: str
    measure: Literal["AUC", "R²"]
    from_real: Estimate
    from_synthetic: Estimate
    num_rows: int


def learn(layout: Layout, target: str, real: Cells, synthetic: Cells, test: Cells, *, seed: int = 0) -> Learned:
    """Train on the real and on the synthetic table to predict a column, and test on other rows.

    Raises:
        ValueError: When there is no such column, or it is the same in all rows of a table.
    """
    if target not in layout.names:
        why = layout.left_out.get(target, f"the columns are {', '.join(layout.names)}")
        raise ValueError(f"target: expected a column to predict from others, got {target!r} ({why}); name another")
    synthetic = synthetic.some(len(real), np.random.default_rng(seed))
    parts = [take_out(layout, target, table) for table in (real, synthetic, test)]
    for name, (_, y) in zip(("real", "synthetic", "held-out"), parts, strict=True):
        if len(np.unique(y)) < 2:
            raise ValueError(f"target: {target!r} is the same in all rows of the {name} table; name another column")
    *train, (x, y) = parts
    estimate = _auc if target in layout.categories else _r2
    from_real, from_synthetic = (estimate(*pair, x, y, seed) for pair in train)
    return Learned(target, "AUC" if estimate is _auc else "R²", from_real, from_synthetic, len(y))


def _auc(x_train: Cells, y_train: np.ndarray, x: Cells, y: np.ndarray, seed: int) -> Estimate:
    model = boosting("Classifier", x, seed).fit(as_features(x_train), y_train)
    shares = dict(zip(model.classes_, torch.from_numpy(model.predict_proba(as_features(x))).T, strict=True))
    never = torch.zeros(len(y), dtype=torch.float64)  # of a category that was not trained on
    areas = [auroc(*(shares.get(k, never)[mask] for mask in (y != k, y == k))) for k in np.unique(y)]
    # The areas of the categories depend on each other: their mean varies at most as much as they do in the mean.
    value, se = np.mean(areas, 0)
    return Estimate(float(value), float(se))


def _r2(x_train: Cells, y_train: np.ndarray, x: Cells, y: np.ndarray, seed: int) -> Estimate:
    predicted = boosting("Regressor", x, seed).fit(as_features(x_train), y_train).predict(as_features(x))
    off, spread = (y - predicted) ** 2, (y - y.mean()) ** 2
    r2 = 1 - off.mean() / spread.mean()
    influence = ((1 - r2) * spread - off) / spread.mean()
    return Estimate(float(r2), float(influence.std() / np.sqrt(len(y))))
