"""Maps under which columns of data are logistic: from their quantiles, in the detail that serves unseen values best."""

import itertools
from typing import NamedTuple

import numpy as np
import torch

from pyro_vae.distributions.warp import Heaps, Warp, logistic_log_prob

MAX_ROWS = 100_000  # more say nothing new about quantiles
FOLDS, MAX_CHOICE = 4, 4000  # folds and rows of the choice
SURE = 2  # standard errors
LINEAR = 1e4  # ranges of the data from the centre, within which asinh is a straight line
ATOM, MAX_ATOMS = 0.02, 8  # share from which on a value that repeats is one, in a column without a grid
NARROW = 4e-6  # what float32 still tells apart, in relation to the size of values
EXTRA_KNOTS = 2 * MAX_ATOMS + 2  # at most so many beside those that are asked for: at atoms and at bounds


class Cell(NamedTuple):
    """A value that has a bin for itself, between two knots, or between one and infinity."""

    lower: float
    upper: float
    value: float


class Layout(NamedTuple):
    """Where a column may have knots.

    Attributes:
        grid: The step of a grid, at the ends of whose cells they lie; 0 for a column without, or with a finer one than
            float32 tells apart.
        spread: Of the bulk of the values.
        own_cells: Of the bounds, which have all that is beyond, and without a grid of values that repeat.
    """

    grid: float
    spread: float
    own_cells: list[Cell]

    def apart(self, x: np.ndarray) -> np.ndarray:
        """Return how far from ``x`` the next knot is at least, which float32 still tells apart."""
        return NARROW * (np.abs(x) + self.spread)


def fit_warp(x: np.ndarray, step: float, low: float, high: float, knots: int, heaps: Heaps | None = None) -> Warp:
    """Return the map for one column, as a warp of one column in float64.

    Of some numbers of knots, up to ``knots``, and of some bends, those are taken under which values that were left
    out are likeliest: few values get a smooth map, and many a detailed one.

    Args:
        x: The values, (N,).
        step: Of the grid that they lie on; 0 where there is none.
        low: The least value that there may be, or -inf.
        high: The largest value that there may be, or inf.
        knots: The largest number of quantiles at which there is a knot.
        heaps: That some of the values, of this column alone, were rounded to a coarser grid: then all knots are between
            its cells, of which the finer ones are parts.
    """
    if heaps is not None:
        whole = heaps.round(torch.from_numpy(np.round(x / step))) - heaps.offset
        coarse = fit_warp(whole.numpy() * step, heaps.ratio.item() * step, low, high, knots)
        moved = coarse.centre + ((heaps.offset + heaps.shift) * step).double()
        return coarse._replace(centre=moved, step=torch.tensor([step], dtype=torch.float64))
    x = _some(x, MAX_ROWS).astype(np.float64)
    layout = find_layout(x, step, low, high)
    sizes = sorted({min(size, knots) for size in (1, 2, 4, 8, 16, 32, knots)})
    candidates = list(itertools.product(find_bends(x, layout), sizes))
    bend, size = candidates[0]
    if len(x) >= 2 * FOLDS:
        scores = _held_out(_some(x, MAX_CHOICE), layout, candidates, knots + EXTRA_KNOTS)
        best, straight = (int(s.argmax()) for s in (scores.sum(0), scores[:, : len(sizes)].sum(0)))
        gain = scores[:, best] - scores[:, straight]
        # The tails of a bent map are heavy: only where that is better beyond doubt.
        bend, size = candidates[best if gain.sum() > SURE * len(gain) ** 0.5 * gain.std() else straight]
    return fit_knots(np.sort(x), layout, *bend, size)._replace(step=torch.tensor([step], dtype=torch.float64))


def _some(x: np.ndarray, rows: int) -> np.ndarray:
    return x[:: -(-len(x) // rows) or 1]


def _held_out(
    x: np.ndarray, layout: Layout, candidates: list[tuple[tuple[float, float], int]], room: int
) -> torch.Tensor:
    """Return the log-density of each value under each candidate, fitted to the other values, (N, candidates)."""
    fold, scores = np.arange(len(x)) % FOLDS, []
    for out in range(FOLDS):
        others = np.sort(x[fold != out])
        warps = [fit_knots(others, layout, *bend, size) for bend, size in candidates]
        values = torch.from_numpy(x[fold == out]).unsqueeze(-1).expand(-1, len(candidates))
        scores.append(log_marginal(stack(warps, room), values))
    return torch.cat(scores)


def log_marginal(warp: Warp, x: torch.Tensor) -> torch.Tensor:
    """Return the log-density under which each T(x) is standard logistic, (..., D)."""
    return logistic_log_prob(warp.cells(x), x.new_zeros(()), x.new_ones(()))


def stack(warps: list[Warp], room: int) -> Warp:
    """Return warps of one column each as one of several columns, with ``room`` knots each: the last several times."""

    def widened(table: np.ndarray, more: int) -> np.ndarray:
        return table if table.ndim == 1 else np.concatenate([table, np.repeat(table[:, -1:], more, 1)], 1)

    more = [room - warp.knots.shape[1] for warp in warps]
    # Not by torch.cat: where memory is counted, torch imports its compiler for that, which takes two seconds.
    tables = (zip(field, more, strict=True) for field in zip(*warps, strict=True))
    return Warp(*(torch.from_numpy(np.concatenate([widened(own.numpy(), m) for own, m in field])) for field in tables))


def fit_knots(x: np.ndarray, layout: Layout, centre: float, bend: float, size: int) -> Warp:
    """Return the map of ascending values through about ``size`` quantiles."""
    edges, mass = _quantiles(x, layout, size)
    v, knots = (bend * np.arcsinh((values - centre) / bend) for values in (x, edges))
    # One more value, spread widely, so that there is something in each bin and beyond.
    spread = np.ptp(v) / 4 or np.abs(x).max() or 1.0
    z = (knots - np.median(v)) / spread
    near = 0.5 / (1 + np.abs(z))
    below = (mass * len(v) + np.where(z < 0, near, 1 - near)) / (len(v) + 1)
    above = ((1 - mass) * len(v) + np.where(z < 0, 1 - near, near)) / (len(v) + 1)
    levels = np.log(below) - np.log(above)

    tails = [
        _tail_slope(below[0], knots[0] - v[v < knots[0]], spread),
        _tail_slope(above[-1], v[v > knots[-1]] - knots[-1], spread),
    ]
    if len(knots) == 1:
        tails = [(tails[0] * tails[1]) ** 0.5] * 2
    width = np.concatenate([[1], np.diff(knots), [1]])
    height = np.concatenate([tails[:1], np.diff(levels), tails[1:]])
    single, only, start = np.zeros(len(width), dtype=bool), np.zeros(len(width)), levels[[0, *range(len(levels))]]
    for lower, upper, value in layout.own_cells:
        index = np.searchsorted(edges, upper) if np.isfinite(upper) else len(edges)
        single[index], only[index] = True, value
        if not np.isfinite(lower):
            start[index], height[index] = start[index] - 1, 1

    free = ~single
    free[1:-1] &= np.diff(edges) > 1.5 * layout.grid
    slopes = _slopes(width, height, free)
    bins = np.stack([knots[[0, *range(len(knots))]], width, start, height, *slopes, single, only], -1)
    fields = bins, knots, levels, np.array(centre), np.array(bend), np.array(layout.grid), np.array(1.0)
    return Warp(*(torch.tensor(field, dtype=torch.float64).unsqueeze(0) for field in fields))


def find_bends(x: np.ndarray, layout: Layout) -> list[tuple[float, float]]:
    """Return centres and bends: of a straight line, and of asinh for both tails, the upper one and the lower one."""
    low, quarter, median, three_quarters, high = np.quantile(np.unique(x), [0, 0.25, 0.5, 0.75, 1])
    bends = [(median, LINEAR * ((high - low) or 1.0))]
    widths = ((median, (three_quarters - quarter) / 2), (low, (median - low) / 3), (high, (high - median) / 3))
    return bends + [(centre, width) for centre, width in widths if width > 10 * layout.apart(np.abs(centre))]


def find_layout(x: np.ndarray, step: float, low: float, high: float) -> Layout:
    """Return where a column with these values, on a grid or not, may have knots."""
    values, counts = np.unique(x, return_counts=True)
    quarters = np.quantile(values, [0.25, 0.75])
    free = Layout(0.0, float(np.diff(quarters)[0] or np.abs(values).max() or 1.0), [])
    if step > 4 * np.median(free.apart(values)):
        above_low, below_high = (np.round(low / step) + 0.5) * step, (np.round(high / step) - 0.5) * step
        cells = []
    else:
        margin = free.apart(values[[0, -1]])
        step, above_low, below_high = 0.0, low + margin[0], high - margin[1]
        often = [i for i in np.argsort(-counts)[:MAX_ATOMS] if counts[i] >= max(ATOM * len(x), 2)]
        atoms = [value for value in values[often] if above_low < value < below_high]
        cells = [Cell(value - free.apart(value), value + free.apart(value), value) for value in atoms]
    bounds = [Cell(-np.inf, above_low, low), Cell(below_high, np.inf, high)]
    return Layout(step, free.spread, cells + [cell for cell in bounds if np.isfinite(cell.value)])


def _quantiles(x: np.ndarray, layout: Layout, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points near to ``size`` quantiles of ascending values, and the share of the values below each."""
    if layout.grid:
        cells = np.unique(np.round(x / layout.grid))
        points = np.union1d(cells - 0.5, cells + 0.5) * layout.grid
    else:
        values = np.unique(x)
        points = (values[1:] + values[:-1]) / 2
    for lower, upper, _ in layout.own_cells:
        points = points[(points < lower - layout.apart(points)) | (points > upper + layout.apart(points))]
    ends = [end for lower, upper, _ in layout.own_cells for end in (lower, upper) if np.isfinite(end)]
    points = np.union1d(points, ends) if len(points) or ends else x[:1]
    mass = np.searchsorted(x, points) / len(x)
    wanted = (np.arange(size) + 0.5) / size
    after = np.searchsorted(mass, wanted).clip(0, len(mass) - 1)
    before = (after - 1).clip(0)
    nearest = np.unique(points[np.where(wanted - mass[before] < mass[after] - wanted, before, after)])
    chosen = np.union1d(nearest[np.diff(nearest, prepend=-np.inf) > layout.apart(nearest)], ends)
    return chosen, np.searchsorted(x, chosen) / len(x)


def _slopes(width: np.ndarray, height: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the slopes at both ends of each bin, in relation to its own mean slope.

    At a knot it is a mean of the slopes on both sides, of the tail's where there is one, and that of the bin itself
    where its neighbour is a single cell, within which the map has no meaning.
    """
    log_slope = np.log(height / width)
    weight = np.where(free, width, np.inf)
    weight[[0, -1]] = np.where(free[[0, -1]], 0, np.inf)
    left, right = weight[:-1], weight[1:]
    with np.errstate(invalid="ignore"):
        of_left = np.where(np.isinf(left), 0, np.where(np.isinf(right), 1, right / (left + right)))
        of_left = np.where(np.isnan(of_left), 0.5, of_left)  # one knot between two tails, of one slope
    at_knot = of_left * log_slope[:-1] + (1 - of_left) * log_slope[1:]
    lower, upper = np.append(log_slope[0], at_knot), np.append(at_knot, log_slope[-1])
    inner = free & (np.arange(len(width)) > 0) & (np.arange(len(width)) < len(width) - 1)
    return tuple(np.where(inner, np.exp(end - log_slope), 1) for end in (lower, upper))  # type: ignore[return-value]


def _tail_slope(share: float, excess: np.ndarray, spread: float) -> float:
    """Return the slope of a logistic tail with this share of the data, and their mean excess over where it begins."""
    return float(-np.log1p(-share) / share * (len(excess) + 1) / (excess.sum() + spread))
