"""Peers of tables.py, each with the defaults of its library: functions of a typed table, and a seed."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import norm
from table_data import numbers_of, step_of

EPOCHS: dict[str, int] = {}  # of ctgan, where others than its own are asked for


# Synthesis: (train, number of rows, seed) -> rows.


def independent(train: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Draw each column by itself."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({name: rng.choice(column.to_numpy(), count) for name, column in train.items()})


def copula(train: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Draw from a Gaussian copula with the columns' own values; categories are ordered by how frequent they are."""
    rng = np.random.default_rng(seed)
    scores, ordered = [], []
    for name, column in train.items():
        key = column if name in numbers_of(train) else column.map(column.value_counts().rank(method="first"))
        order = np.lexsort([rng.random(len(train)), key.fillna(-np.inf)])
        ordered.append(column.to_numpy()[order])
        scores.append(norm.ppf((order.argsort() + 0.5) / len(train)))
    drawn = rng.multivariate_normal(np.zeros(len(scores)), np.corrcoef(scores), count)
    rows = (norm.cdf(drawn) * len(train)).astype(int).clip(0, len(train) - 1)
    return pd.DataFrame({name: ordered[d][rows[:, d]] for d, name in enumerate(train)})


def of_ctgan(name: str) -> Callable[[pd.DataFrame, int, int], pd.DataFrame]:
    """Return a synthesizer of ctgan, which takes no blank numbers: they are the median."""

    def draw(train: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
        import ctgan
        import torch

        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # what ctgan draws with
        model = getattr(ctgan, name)(**EPOCHS)
        numbers = numbers_of(train)
        model.fit(train.fillna(train[numbers].median()), [column for column in train if column not in numbers])
        return model.sample(count)[list(train)]

    return draw


SYNTHESIS = {"independent": independent, "copula": copula, "TVAE": of_ctgan("TVAE"), "CTGAN": of_ctgan("CTGAN")}


# Imputation: (table with NaN, seed) -> table without.


def simple(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Fill in the mean, or the most frequent category."""
    numbers = numbers_of(table)
    return table.fillna({name: table[name].mean() if name in numbers else table[name].mode()[0] for name in table})


def one_hot(table: pd.DataFrame) -> pd.DataFrame:
    """Return the categories of a table as columns of zeros and ones, zeros where blank, behind its numbers."""
    numbers = numbers_of(table)
    return pd.get_dummies(table, columns=[name for name in table if name not in numbers], dtype=float)


def knn(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Fill in by scikit-learn's KNNImputer: numbers are standardised, categories one-hot."""
    from sklearn.impute import KNNImputer

    numbers = numbers_of(table)
    loc, scale = table[numbers].mean(), table[numbers].std()
    parts = [(table[numbers] - loc) / scale]
    words = {name: pd.get_dummies(table[name], dtype=float) for name in table if name not in numbers}
    parts += [np.where(table[[name]].isna(), np.nan, marks) for name, marks in words.items()]
    filled = np.split(
        KNNImputer().fit_transform(np.hstack(parts)), np.cumsum([part.shape[1] for part in parts]), axis=1
    )
    best = {name: marks.columns[own.argmax(1)] for (name, marks), own in zip(words.items(), filled[1:-1], strict=True)}
    made = pd.DataFrame(filled[0] * scale.to_numpy() + loc.to_numpy(), columns=numbers).assign(**best)
    return table.fillna(made)


def iterative(make: Callable[[int], dict[str, object]]) -> Callable[[pd.DataFrame, int], pd.DataFrame]:
    """Return scikit-learn's IterativeImputer: categories are codes by how frequent they are, the nearest one wins.

    One-hot columns would not do: each follows from the others of its category, which are as unknown.
    """

    def fill(table: pd.DataFrame, seed: int) -> pd.DataFrame:
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401
        from sklearn.impute import IterativeImputer

        known = {name: table[name].value_counts().index for name in table if name not in numbers_of(table)}
        codes = table.assign(**{name: known[name].get_indexer(table[name]).astype(float) for name in known})
        codes = codes.where(table.notna())
        loc, scale = codes.mean(), codes.std().replace(0, 1)
        found = IterativeImputer(random_state=seed, **make(seed)).fit_transform((codes - loc) / scale)
        made = pd.DataFrame(found * scale.to_numpy() + loc.to_numpy(), columns=list(table))
        for name, words in known.items():
            made[name] = words[made[name].round().clip(0, len(words) - 1).astype(int)]
        return table.fillna(made)

    return fill


def bayesian_ridge(seed: int) -> dict[str, object]:
    return {}  # scikit-learn's default


def random_forest(seed: int) -> dict[str, object]:
    from sklearn.ensemble import RandomForestRegressor

    return {"estimator": RandomForestRegressor(random_state=seed)}


def miss_forest(table: pd.DataFrame, seed: int, rounds: int = 5) -> pd.DataFrame:
    """Fill in each column in turn by a random forest on all others, which classifies categories."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    numbers, filled = numbers_of(table), simple(table, seed)
    for _ in range(rounds):
        for name in (name for name in table if table[name].isna().any()):
            others = one_hot(filled.drop(columns=name)).to_numpy()
            blank = table[name].isna().to_numpy()
            forest = (RandomForestRegressor if name in numbers else RandomForestClassifier)(random_state=seed)
            filled.loc[blank, name] = forest.fit(others[~blank], table[name][~blank]).predict(others[blank])
    return filled


IMPUTATION = {
    "mean and mode": simple,
    "KNN": knn,
    "iterative, Bayesian ridge": iterative(bayesian_ridge),
    "iterative, random forest": iterative(random_forest),
    "missForest": miss_forest,
}


# Anomalies: (normal rows, rows, seed) -> scores, high where unusual.


def as_points(train: pd.DataFrame, *others: pd.DataFrame) -> list[np.ndarray]:
    """Return tables as standardised numbers, blanks the mean, and categories one-hot."""
    numbers = numbers_of(train)
    loc, scale = train[numbers].mean(), train[numbers].std().replace(0, 1)
    joined = one_hot(pd.concat([train, *others]))
    joined[numbers] = ((joined[numbers] - loc) / scale).fillna(0)
    return np.split(joined.to_numpy(), np.cumsum([len(train), *map(len, others)])[:-1])


def detector(make: Callable[[int], object]) -> Callable[[pd.DataFrame, pd.DataFrame, int], np.ndarray]:
    """Return a detector of scikit-learn, by what makes it."""

    def score(train: pd.DataFrame, rows: pd.DataFrame, seed: int) -> np.ndarray:
        normal, points = as_points(train, rows)
        return -make(seed).fit(normal).score_samples(points)  # type: ignore[attr-defined]

    return score


def isolation_forest(seed: int) -> object:
    from sklearn.ensemble import IsolationForest

    return IsolationForest(random_state=seed)


def local_outlier_factor(seed: int) -> object:
    from sklearn.neighbors import LocalOutlierFactor

    return LocalOutlierFactor(novelty=True)


class Mixture:
    """A Gaussian mixture with as many components, up to 10, as the Bayesian information criterion asks for."""

    def __init__(self, seed: int):
        self.seed = seed

    def fit(self, x: np.ndarray) -> "Mixture":
        from sklearn.mixture import GaussianMixture

        most = max(1, min(10, len(x) // (2 * x.shape[1])))
        models = [GaussianMixture(k, random_state=self.seed, reg_covar=1e-4).fit(x) for k in range(1, most + 1)]
        self.model = min(models, key=lambda model: model.bic(x))
        return self

    def score_samples(self, x: np.ndarray) -> np.ndarray:
        return self.model.score_samples(x)


ANOMALY = {
    "IsolationForest": detector(isolation_forest),
    "LOF": detector(local_outlier_factor),
    "Gaussian mixture": detector(Mixture),
}


# Likelihood: (train, rows, seed) -> log density of each row in the table's own units.


def spread(train: pd.DataFrame, rows: pd.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return numbers as standardised points, each spread over the cell that it was rounded to, and log |dx / dpoint|.

    The mean of a log density over a cell is at most the log of the cell's probability by its width: a density that is
    spiked where values repeat wins nothing.
    """
    rng = np.random.default_rng(seed)
    steps = np.array([step_of(train[name].dropna().to_numpy()) for name in train])
    loc, scale = train.mean().to_numpy(), train.std().to_numpy()
    points = [(t.to_numpy() + steps * (rng.random(t.shape) - 0.5) - loc) / scale for t in (train, rows)]
    return points[0], points[1], float(np.log(scale).sum())


def mixture_density(train: pd.DataFrame, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Return the log density of a Gaussian mixture; of tables of numbers without blanks."""
    if len(numbers_of(train)) < train.shape[1] or train.isna().any(axis=None) or rows.isna().any(axis=None):
        raise ValueError("takes numbers without blanks alone")
    x, points, log_scale = spread(train, rows, seed)
    return Mixture(seed).fit(x).score_samples(points) - log_scale


def independent_density(train: pd.DataFrame, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Return the sum of each column's own: a Gaussian mixture of numbers, and how frequent a category or a blank is."""
    total = np.zeros(len(rows))
    for name in train:
        own, other = train[[name]], rows[[name]]
        if name not in numbers_of(train):
            counts = train[name].value_counts()
            size = len(counts.index.union(rows[name].unique()))
            total += np.log((rows[name].map(counts).fillna(0) + 1) / (len(train) + size)).to_numpy(float)
            continue
        known = other.notna().to_numpy()[:, 0]  # what is blank is left out, as in P(observed)
        total[known] += mixture_density(own.dropna(), other[known], seed)
    return total


LIKELIHOOD = {"independent": independent_density, "Gaussian mixture": mixture_density}
