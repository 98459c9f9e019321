"""The logistic likelihood on a learned scale, for the numbers of a table."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from pyro.distributions import Distribution, TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.base import Likelihood
from pyro_vae.distributions.marginals import EXTRA_KNOTS, fit_warp, stack
from pyro_vae.distributions.warp import Heaps, Warp, logistic_log_prob, middle_quantiles
from pyro_vae.networks import bounded_exp, inverse_of_bounded_exp

LOGISTIC_SD = math.pi / math.sqrt(3)
FARTHEST = 16 / LOGISTIC_SD  # a probability of 1e-7, of which there are no more than a few in any data


class WarpedLogistic(Likelihood):
    r"""Numbers, counts, dates and grades, each column on the scale on which it is logistic as a whole.

    .. math:: p(x|z) = \prod_d \frac{F(b_d) - F(a_d)}{b_d - a_d}, \qquad
        F(x) = \mathrm{sigmoid}\frac{T_d(x) - \mu_d(z)}{s_d(z)}

    from :math:`a = x - \tfrac{step}{2}` to :math:`b = x + \tfrac{step}{2}` where values are rounded, and else their
    limit, a density. :math:`T_d` is monotone, with :math:`\mathrm{sigmoid}\, T_d` the smoothed distribution function of
    the training data: at :math:`\mu = 0, s = 1`, where training starts, each column has its own marginal, whatever
    its shape, its unit and its outliers. Values that are repeated, though there is no grid, and bounds, which take all
    that is beyond, have a probability instead of a density.

    Args:
        x_dim: D, the number of columns; where it isn't given, the length of one of the lists.
        units: The columns' own units for each unit of x: log-densities are those in a column's own unit. Default: 1.
        steps: Of the grid, the whole multiples of ``step``, to which the values of a column are rounded; None for a
            column without. Default: no grids.
        lows: The least value there may be; None where there is no such bound. On the grid. Default: no bounds.
        highs: The largest value there may be, likewise.
        heaps: Of columns of which a part was rounded to a coarser grid, as (ratio, offset, share): how many steps that
            has, at which multiple of the step one of its values is, and the share; None for a column without.
            The probability of a value is then that of both ways to it. Default: none.
        knots: The largest number of quantiles through which T goes; how many, held-out data decide.
        min_scale: Lower bound of s.

    Reference:
        Durkan et al. (2019), Neural Spline Flows, section 3.1 (the pieces of T); Salimans et al. (2017), PixelCNN++,
        equation 2 (the rounding).

    Example:
        >>> likelihood = WarpedLogistic(steps=[1.0], lows=[0.0])
        >>> x = torch.tensor([0.0, 0, 0, 0, 1, 1, 2, 5]).unsqueeze(-1)
        >>> likelihood.initialize(x)
        >>> likelihood(likelihood.initial_raw(x)).log_prob(torch.zeros(1)).exp().round(decimals=1)  # 4 / 8
        tensor(0.5000)
    """

    params_per_element = 2
    pixels = "raw"
    takes_blanks = True

    def __init__(
        self,
        x_dim: int | None = None,
        units: list[float] | None = None,
        steps: list[float | None] | None = None,
        lows: list[float | None] | None = None,
        highs: list[float | None] | None = None,
        heaps: list[tuple[int, int, float] | None] | None = None,
        knots: int = 32,
        min_scale: float = 0.01,
    ):
        super().__init__()
        given = {"units": units, "steps": steps, "lows": lows, "highs": highs, "heaps": heaps}
        sizes = {name: len(values) for name, values in given.items() if values is not None}
        size = x_dim or next(iter(sizes.values()), 0)
        if size < 1 or set(sizes.values()) - {size}:
            raise ValueError(
                "expected x_dim, the number of columns, or units, steps, lows, highs or heaps with one for each, "
                f"got x_dim={x_dim} and {', '.join(f'{number} {name}' for name, number in sizes.items()) or 'no list'}"
            )
        self.unit, self.step, self.low, self.high = (
            [default if value is None else float(value) for value in values or [None] * size]
            for values, default in ((units, 1.0), (steps, 0.0), (lows, -math.inf), (highs, math.inf))
        )
        _require(all(0 < unit < math.inf for unit in self.unit), "units must be positive", units)
        _require(all(0 <= step < math.inf for step in self.step), "steps must be positive, or None", steps)
        _require(all(map(float.__lt__, self.low, self.high)), "highs must be above lows", highs)
        _require(knots > 0, "knots must be at least 1", knots)
        _require(min_scale > 0, "min_scale must be positive", min_scale)
        self.num_knots, self.min_scale = knots, min_scale
        self.heaps = {column: tuple(heap) for column, heap in enumerate(heaps or []) if heap is not None}
        for column, (ratio, offset, share) in self.heaps.items():
            holds = ratio >= 2 and 0 <= offset < ratio and 0 < share < 1 and self.step[column] > 0
            holds = holds and math.isinf(self.low[column]) and math.isinf(self.high[column])
            _require(holds, "heaps must be of columns with steps and no bounds, with a share below 1", heaps)
        facts = [self.heaps, *zip(*self.heaps.values(), strict=True)] if self.heaps else [[]] * 4
        for name, values in zip(Heaps._fields, facts, strict=True):
            dtype = torch.long if name == "columns" else torch.get_default_dtype()
            self.register_buffer(f"heap_{name}", torch.tensor(list(values), dtype=dtype), persistent=False)
        self.support: _Rounded = _Rounded(self.step, self.low, self.high)
        self.accepts = "numbers that are whole multiples of each column's step, if any, from its low to its high"
        warp = self._fit([np.array([-1.0, 0.0, 1.0])] * size)
        for name, table in zip(Warp._fields, warp, strict=True):
            self.register_buffer(f"warp_{name}", table.to(torch.get_default_dtype()))

    def forward(self, raw: Tensor) -> Distribution:
        """Return the product of warped logistics for ``raw``, (..., D, 2): locations and log-scales, where T leads."""
        heaps = Heaps(*(getattr(self, f"heap_{name}") for name in Heaps._fields)) if self.heaps else None
        return _Warped(raw[..., 0], self._scale(raw), self._warp, self.support, heaps).to_event(1)

    def as_input(self, x: Tensor) -> Tensor:
        """Return T(x) with the standard deviation 1, at most ``FARTHEST``: whatever their unit, tails and outliers."""
        return (middle_quantiles(self._warp.cells(x)) / LOGISTIC_SD).clamp(-FARTHEST, FARTHEST)

    @property
    def _warp(self) -> Warp:
        return Warp(*(getattr(self, f"warp_{name}") for name in Warp._fields))

    def _scale(self, raw: Tensor) -> Tensor:
        return self.min_scale + bounded_exp(raw[..., 1])

    def at_smallest_scale(self, raw: Tensor) -> Tensor:
        """Return where there is no grid and the scale is ``min_scale``, to a few percent, (..., D)."""
        return (self._scale(raw) < 1.05 * self.min_scale) & (self.warp_step == 0)

    def initialize(self, x: Tensor) -> None:
        """Learn T from the data ``x``, (N, D), blanks left out."""
        columns = x.double().cpu().numpy().T
        for name, table in zip(Warp._fields, self._fit([column[~np.isnan(column)] for column in columns]), strict=True):
            getattr(self, f"warp_{name}").copy_(table)

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return location 0 and scale 1, where each column has its own marginal."""
        log_scale = inverse_of_bounded_exp(torch.ones_like(x[0]) - self.min_scale)
        return torch.stack([torch.zeros_like(log_scale), log_scale], -1)

    def fill(self, x: Tensor) -> Tensor:
        """Return ``x``, (..., D), with a value within the bounds where it is blank (NaN)."""
        return torch.where(x.isnan(), self.support.clamp(torch.zeros_like(x)), x)

    def _fit(self, columns: Sequence[np.ndarray]) -> Warp:
        """Return the maps for the values of each column, or for any where it has none."""
        heaps = [
            Heaps(*(torch.tensor(fact, dtype=torch.float64) for fact in (d, *self.heaps[d])))
            if d in self.heaps
            else None
            for d in range(len(columns))
        ]
        facts = zip(columns, self.step, self.low, self.high, [self.num_knots] * len(columns), heaps, strict=True)
        warps = [fit_warp(*of_column) for of_column in facts]
        return stack(warps, self.num_knots + EXTRA_KNOTS)._replace(unit=torch.tensor(self.unit))


def _require(holds: bool, rule: str, came: object) -> None:
    if not holds:
        raise ValueError(f"{rule}, not {came!r}")


NODES = 64  # of the quadrature of means


class _Warped(TorchDistribution):
    """A value whose warp is logistic, one for each column.

    Args:
        loc: Location on the warped scale, (..., D).
        scale: The logistic's scale there.
        warp: For D columns.
        support: What values there may be.
        heaps: Which columns were rounded to one of two grids; None where none was.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        warp: Warp,
        support: "_Rounded",
        heaps: Heaps | None = None,
        validate_args: bool | None = None,
    ):
        self.loc, self.scale, self.warp, self._support, self.heaps = loc, scale, warp, support, heaps
        super().__init__(loc.shape, validate_args=validate_args)

    @constraints.dependent_property(event_dim=0)
    def support(self) -> constraints.Constraint:
        return self._support

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "_Warped":
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return _Warped(loc, scale, self.warp, self._support, self.heaps, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_prob = logistic_log_prob(self.warp.cells(value), self.loc, self.scale)
        if self.heaps is None:
            return log_prob
        at = self.heaps.columns
        return log_prob.index_copy(-1, at, self._of_heaps(value[..., at], log_prob[..., at], self.heaps))

    def _of_heaps(self, value: Tensor, log_prob: Tensor, heaps: Heaps) -> Tensor:
        """Return the log-density of values that were rounded to one of two grids, from that by the finer one."""
        warp = self.warp.of(heaps.columns)
        cells = warp._replace(step=heaps.ratio * warp.step).cells(value + heaps.shift * warp.step)
        loc, scale = self.loc[..., heaps.columns], self.scale[..., heaps.columns]
        # Relative to the finer cell, as all densities of the column.
        coarse = heaps.share.log() + logistic_log_prob(cells, loc, scale) + heaps.ratio.log()
        fine = (-heaps.share).log1p() + log_prob
        is_coarse = torch.remainder((value / warp.step).round() - heaps.offset, heaps.ratio) == 0
        return torch.where(is_coarse, torch.logaddexp(fine, coarse), fine)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        x = self._quantile(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device))
        if self.heaps is None:
            return x
        at = self.heaps.columns
        step, own = self.warp.step[at], x[..., at]
        coarse = self.heaps.round((own / step).round()) * step
        return x.index_copy(-1, at, torch.where(torch.rand_like(own) < self.heaps.share, coarse, own))

    @property
    def mean(self) -> Tensor:
        return self._expectation(lambda x: x)

    @property
    def variance(self) -> Tensor:
        mean = self.mean
        return self._expectation(lambda x: (x - mean).square())

    def _quantile(self, p: Tensor) -> Tensor:
        u = self.loc + self.scale * p.clamp(torch.finfo(p.dtype).tiny).logit()
        return self._support.clamp(self.warp.inverse(u))

    def _expectation(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        # Gauss-Legendre over the probability; one term at a time, since all together would be large.
        total = torch.zeros_like(self.loc)
        for node, weight in zip(*np.polynomial.legendre.leggauss(NODES), strict=True):
            total = total + weight / 2 * function(self._quantile(total.new_tensor((node + 1) / 2)))
        return total


class _Rounded(constraints.Constraint):
    """Whole multiples of each column's step (0: all numbers) within its bounds."""

    def __init__(self, step: list[float], low: list[float], high: list[float]):
        self.step, self.low, self.high = step, low, high
        self.is_discrete = all(step)

    def clamp(self, value: Tensor) -> Tensor:
        """Return values, (..., D), moved to the nearest bound where they are beyond."""
        return value.clamp(value.new_tensor(self.low), value.new_tensor(self.high))

    def check(self, value: Tensor) -> Tensor:
        """Return where it is so, to rounding, (..., D)."""
        step, low, high = (value.new_tensor(facts) for facts in (self.step, self.low, self.high))
        multiple = value / torch.where(step > 0, step, 1)
        rounding = 1e-3 + 4 * torch.finfo(value.dtype).eps * multiple.abs()  # in steps
        on_grid = (step == 0) | ((multiple - multiple.round()).abs() <= rounding)
        slack = rounding * step
        return on_grid & (value >= low - slack) & (value <= high + slack)
