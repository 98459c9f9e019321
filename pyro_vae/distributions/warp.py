"""Monotone maps of columns to the scale on which they are logistic."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

FARTHEST = 1e18  # a value's size, whose square float32 still holds
LOG_2 = math.log(2)


class Cells(NamedTuple):
    """Where values lie on the warped scale: each is the interval of all that are rounded to it, (..., D).

    Attributes:
        lower: T at the lower end.
        width: T at the upper end minus T at the lower one; 0 where a value is a point.
        log_slope: The logarithm of the width in relation to the interval's own, or of the slope at a point; for a value
            without a grid that has a probability, of the width itself.
        below: Whether the interval has no lower end.
        above: Whether it has no upper end.
    """

    lower: Tensor
    width: Tensor
    log_slope: Tensor
    below: Tensor
    above: Tensor


class Heaps(NamedTuple):
    r"""Columns whose values were rounded to one of two grids, the coarser one with a probability of ``share``.

    A cell of the coarser grid consists of ``ratio`` cells of the finer one, of which ratio // 2 are below its value.

    Attributes:
        columns: Which they are, (H,).
        ratio: How many steps of the finer grid one of the coarser has, (H,).
        offset: At which multiple of the finer step a value of the coarser grid is, (H,).
        share: Of the values that are rounded to the coarser grid, (H,).
    """

    columns: Tensor
    ratio: Tensor
    offset: Tensor
    share: Tensor

    def round(self, index: Tensor) -> Tensor:
        """Return the multiple of the finer step that stands for the coarser cell of one, (..., H)."""
        below = (self.ratio / 2).floor()
        return self.offset + self.ratio * ((index - self.offset + below) / self.ratio).floor()

    @property
    def shift(self) -> Tensor:
        """How far the middle of a coarser cell is from its value, in finer steps: none where ``ratio`` is odd."""
        return self.ratio / 2 - (self.ratio / 2).floor() - 0.5


class Warp(NamedTuple):
    r"""A map :math:`u = T(x)` for each of D columns, and back.

    .. math:: v = c \operatorname{asinh}\frac{x - m}{c}, \qquad
        u = y_k + h_k \frac{r_k t + (1 - r_k)\, t^2}{1 + (r_k + r'_k - 2)\, t (1 - t)}, \quad t = \frac{v - v_k}{w_k}

    in bin k. No end of a cell lies within a bin that has other cells too, so that the width of a cell on the warped
    scale is a closed form in which nothing cancels.

    Attributes:
        bins: :math:`v_k, w_k, y_k, h_k, r_k, r'_k`, whether the bin has one value only (1 or 0), and that value (or 0),
            (D, K + 1, 8). The first bin is all that is below the first knot, the last all that is above the last.
        knots: Where bins meet, in v, ascending, (D, K).
        levels: The same in u, (D, K).
        centre: m, (D,).
        bend: c, (D,): how far from the centre the logarithm sets in.
        step: Of the grid on which the values lie, (D,); 0 where there is none.
        unit: In which densities are given, for each unit of x, (D,).

    Reference:
        Gregory & Delbourgo (1982), Piecewise rational quadratic interpolation to monotonic data.
    """

    bins: Tensor
    knots: Tensor
    levels: Tensor
    centre: Tensor
    bend: Tensor
    step: Tensor
    unit: Tensor

    def cells(self, x: Tensor) -> Cells:
        """Return what log-probabilities need to know of values, (..., D)."""
        low, high = ((x + shift - self.centre) / self.bend for shift in (-self.step / 2, self.step / 2))
        (v0, w, y0, h, r0, r1, single, _), (first, last) = self._find(
            self.knots, self.bend * ((low + high) / 2).asinh()
        )
        a, b = ((self.bend * end.asinh() - v0) / w for end in (low, high))
        # Between two knots as near to each other as float32 allows, rounding would lead out of the bin.
        a, b = (torch.where(first | last, t, t.clamp(0, 1)) for t in (a, b))
        # asinh(b) - asinh(a) and the like, as factors of b - a: the difference itself would be lost to rounding.
        one = torch.ones_like(low)
        mean_root = (torch.hypot(one, low) + torch.hypot(one, high)) / 2
        q = self.step / self.bend / (2 * mean_root)
        slope = torch.where(q > 0, q.atanh() / torch.where(q > 0, q, 1), 1) / mean_root / w
        c = r0 + r1 - 2
        bottom = (1 + c * a * (1 - a)) * (1 + c * b * (1 - b))
        slope = h * slope * (r0 + (1 - r0) * (a + b) + c * a * b) / bottom
        lower = y0 + h * (r0 * a + (1 - r0) * a * a) / (1 + c * a * (1 - a))
        # A bin with one value only is a cell as a whole; without a grid it has a probability, and no density.
        whole = single > 0
        lower, width = torch.where(whole, y0, lower), torch.where(whole, h, self.step * slope)
        below, above = first & whole, last & whole
        size = torch.where(self.step > 0, self.step * self.unit, 1)
        slope = torch.where(whole, torch.where(below | above, 1, h) / size, slope / self.unit)
        return Cells(lower, width, slope.log(), below, above)

    def inverse(self, u: Tensor) -> Tensor:
        """Return the values, on their grid, that warped ones stand for, (..., D)."""
        (v0, w, y0, h, r0, r1, single, only), _ = self._find(self.levels, u)
        y, c = (u - y0) / h, r0 + r1 - 2
        root = ((r0 - y * c).square() + 4 * y * (1 - r0 + y * c)).clamp(min=0).sqrt()
        v = v0 + w * 2 * y / (r0 - y * c + root)
        x = (self.centre + self.bend * (v / self.bend).sinh()).clamp(-FARTHEST, FARTHEST)
        grid = torch.where(self.step > 0, self.step, 1)
        x = torch.where(self.step > 0, (x / grid).round() * grid, x)
        return torch.where(single > 0, only, x)

    def of(self, columns: Tensor) -> "Warp":
        """Return the maps of some of the columns."""
        return Warp(*(field[columns] for field in self))

    def _find(self, edges: Tensor, v: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
        """Return the fields of the bin of each value, (..., D), and whether it is the first, or the last."""
        columns = edges.shape[0]
        index = torch.searchsorted(edges, v.reshape(-1, columns).T.contiguous()).T.reshape(v.shape)
        found = self.bins[torch.arange(columns, device=v.device), index]
        return found.unbind(-1), (index == 0, index == edges.shape[1])


def middle_quantiles(cells: Cells) -> Tensor:
    r"""Return where the middle of each cell lies on the warped scale; of ends, the middle of their probability.

    .. math:: \operatorname{logit} \frac{\sigma(b)}{2} = -\log(1 + 2 e^{-b})
    """
    upper = cells.lower + cells.width
    middle = torch.where(cells.below, -softplus(LOG_2 - upper), cells.lower + cells.width / 2)
    return torch.where(cells.above, softplus(LOG_2 + cells.lower), middle)


def logistic_log_prob(cells: Cells, loc: Tensor, scale: Tensor) -> Tensor:
    r"""Return the log-density under which warped values are logistic, relative to x; of ends, the log-probability.

    .. math:: \sigma(b) - \sigma(a) = \sigma(b)\, \sigma(-a)\, (1 - e^{a - b})

    a product of which no factor is lost to rounding, also where a and b are one point in the limit.
    """
    lower, width = (cells.lower - loc) / scale, cells.width / scale
    share = torch.where(width > 0, -(-width).expm1() / torch.where(width > 0, width, 1), 1)
    return (
        torch.where(cells.above, 0, logsigmoid(lower + width))
        + torch.where(cells.below, 0, logsigmoid(-lower))
        + torch.where(cells.below | cells.above, 0, share.log() - scale.log())
        + cells.log_slope
    )
