"""How far two tables differ column by column, and how strongly the columns of one are associated."""

from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np

from pyro_vae.inference.tables.cells import Cells, Layout

if TYPE_CHECKING:
    import pandas


def column_errors(layout: Layout, real: Cells, other: Cells) -> "pandas.Series":
    r"""Return how far each column's distribution is from the real one, from 0 to 1, by the column's name.

    Numbers: the Kolmogorov-Smirnov distance :math:`\max_x |F(x) - F'(x)|` of those that are not blank. Categories: the
    total variation :math:`\frac12 \sum_k |p_k - p'_k|`, where a blank is one of them.
    """
    import pandas

    numbers = map(_kolmogorov_smirnov, real.numbers.T, other.numbers.T)
    categories = map(_total_variation, real.codes.T, other.codes.T)
    errors = dict(zip(layout.numbers, numbers, strict=True)) | dict(zip(layout.categories, categories, strict=True))
    return pandas.Series(errors).reindex(layout.names)


def blanks(layout: Layout, table: Cells) -> "pandas.Series":
    """Return the share of each column's cells that are blank, by the column's name."""
    import pandas

    shares = [*np.isnan(table.numbers).mean(0), *(table.codes == 0).mean(0)]
    return pandas.Series(shares, [*layout.numbers, *layout.categories]).reindex(layout.names)


def associations(layout: Layout, table: Cells) -> "pandas.Series":
    """Return how strongly each two columns are associated, by (first, second, measure); NaN where one is constant.

    Numbers: the correlation of their ranks, from -1 to 1. Categories: Cramér's V. One of each: the correlation ratio,
    the root of the part of the ranks' variance that lies between the categories. Both are from 0 to 1, less what they
    would be in so few rows if nothing were associated.

    Reference:
        Bergsma (2013), A bias-correction for Cramér's V and Tschuprow's T, section 3; Kelley (1935), An unbiased
        correlation ratio measure.
    """
    import pandas

    ranks = pandas.DataFrame(table.numbers, columns=list(layout.numbers)).rank()
    codes = dict(zip(layout.categories, table.codes.T, strict=True))
    correlations = ranks.corr(min_periods=3)
    found = {(a, b, "correlation"): correlations.at[a, b] for a, b in combinations(layout.numbers, 2)}
    for number, category in product(layout.numbers, layout.categories):
        found[number, category, "correlation ratio"] = _correlation_ratio(ranks[number].to_numpy(), codes[category])
    for a, b in combinations(layout.categories, 2):
        found[a, b, "Cramér's V"] = _cramers_v(codes[a], codes[b])
    index = pandas.MultiIndex.from_tuples(found, names=["first", "second", "measure"]) if found else None
    return pandas.Series(list(found.values()), index, dtype=float)


def _kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import ks_2samp

    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    if min(len(a), len(b)) == 0:
        return float(len(a) != len(b))
    return float(ks_2samp(a, b, method="asymp").statistic)


def _total_variation(a: np.ndarray, b: np.ndarray) -> float:
    size = max(a.max(), b.max()) + 1
    shares = (np.bincount(codes, minlength=size) / len(codes) for codes in (a, b))
    return float(abs(np.subtract(*shares)).sum() / 2)


def _correlation_ratio(ranks: np.ndarray, codes: np.ndarray) -> float:
    known = ~np.isnan(ranks)
    _, group, count = np.unique(codes[known], return_inverse=True, return_counts=True)
    n, values = known.sum(), ranks[known]
    total = ((values - values.mean()) ** 2).sum() if n else 0.0
    if total == 0 or not 1 < len(count) < n:
        return np.nan
    within = total - (count * (np.bincount(group, values) / count - values.mean()) ** 2).sum()
    return float(np.sqrt(max(0.0, 1 - within / (n - len(count)) * (n - 1) / total)))


def _cramers_v(a: np.ndarray, b: np.ndarray) -> float:
    (kinds_a, a), (kinds_b, b) = (np.unique(codes, return_inverse=True) for codes in (a, b))
    r, c, n = len(kinds_a), len(kinds_b), len(a)
    observed = np.bincount(a * c + b, minlength=r * c).reshape(r, c) / n
    expected = np.outer(observed.sum(1), observed.sum(0))
    smaller = min(size - (size - 1) ** 2 / (n - 1) for size in (r, c)) - 1 if n > 1 else 0.0
    if smaller <= 0:
        return np.nan
    phi = ((observed - expected) ** 2 / expected).sum() - (r - 1) * (c - 1) / (n - 1)
    return float(np.sqrt(min(1.0, max(0.0, phi) / smaller)))
