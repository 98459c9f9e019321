"""Whether a synthetic table holds rows of the real one that it was made after."""

from dataclasses import dataclass

import numpy as np

from pyro_vae.inference.tables.cells import Cells
from pyro_vae.inference.tables.features import as_points
from pyro_vae.inference.tables.learners import Estimate


@dataclass(frozen=True, eq=False)
class Copies:
    """How near synthetic rows are to real ones.

    Attributes:
        identical: The share of synthetic rows that are equal to a real one.
        identical_by_chance: The share of held-out rows that are; without these, of real rows equal to another one.
        nearest_is_real: Of real and held-out rows together, the share of synthetic rows whose nearest one is real.
            None without held-out rows, as are all others.
        chance: What that is in expectation where nothing was learned by heart: the share of real ones among them.
        distance: From each synthetic row to the nearest real one.
        distance_held_out: From each held-out row to the nearest real one.
    """

    identical: float
    identical_by_chance: float
    nearest_is_real: Estimate | None = None
    chance: float | None = None
    distance: np.ndarray | None = None
    distance_held_out: np.ndarray | None = None

    @property
    def memorised(self) -> Estimate | None:
        """The share of synthetic rows that would be copies if the others were as near as chance has it."""
        if self.nearest_is_real is None or self.chance is None:
            return None
        value, se = self.nearest_is_real
        return Estimate((value - self.chance) / (1 - self.chance), se / (1 - self.chance))


def find_copies(real: Cells, synthetic: Cells, held_out: Cells | None = None) -> Copies:
    r"""Look for synthetic rows that are equal to real ones, or nearer to them than to held-out ones.

    Where the synthetic rows depend on the distribution of the real rows alone, held-out ones are as good neighbours:
    the nearest of both is real with the probability :math:`c` of their share, however good the synthetic rows are. With
    :math:`m_j` of :math:`M` synthetic rows at neighbour :math:`j`, the standard error of that is
    :math:`\sqrt{c (1 - c) \sum_j m_j^2} / M`.

    Args:
        real: What the synthetic rows were made after, (N, ...).
        synthetic: (M, ...).
        held_out: Rows of the same source as the real ones, that nothing was made after.
    """
    from sklearn.neighbors import NearestNeighbors

    kinds = _numbered(real, synthetic, *([] if held_out is None else [held_out]))
    of_real, of_synthetic = kinds[:2]
    identical = float(np.isin(of_synthetic, of_real).mean())
    if held_out is None:
        _, place, count = np.unique(of_real, return_inverse=True, return_counts=True)
        return Copies(identical, float((count[place] > 1).mean()))
    points, made, other = as_points(real, synthetic, held_out)
    near_real = NearestNeighbors(n_neighbors=1).fit(points)
    distance, distance_held_out = (near_real.kneighbors(x)[0][:, 0] for x in (made, other))

    # Rows that are equal are one neighbour, real in a part: which of them is found first must not matter.
    _, first, place, count = np.unique(
        np.concatenate([of_real, kinds[2]]), return_index=True, return_inverse=True, return_counts=True
    )
    is_real = np.bincount(place[: len(real)], minlength=len(count)) / count
    both = np.concatenate([points, other])[first]
    found = NearestNeighbors(n_neighbors=1).fit(both).kneighbors(made)[1][:, 0]
    chance = len(real) / (len(real) + len(held_out))
    visits = np.bincount(found, minlength=len(count)) / len(made)
    se = np.sqrt(chance * (1 - chance) * (visits**2 / count).sum())
    return Copies(
        identical=identical,
        identical_by_chance=float(np.isin(kinds[2], of_real).mean()),
        nearest_is_real=Estimate(float(is_real[found].mean()), float(se)),
        chance=chance,
        distance=distance,
        distance_held_out=distance_held_out,
    )


def _numbered(*tables: Cells) -> list[np.ndarray]:
    """Return for each row of each table a number that equal rows have in common."""
    import pandas

    columns = [pandas.DataFrame(np.hstack([table.numbers, table.codes])) for table in tables]
    joined = pandas.util.hash_pandas_object(pandas.concat(columns), index=False).to_numpy()
    return np.split(joined, np.cumsum([len(table) for table in tables])[:-1])
