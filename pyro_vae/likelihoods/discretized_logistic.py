"""The discretized logistic likelihood."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pyro.distributions import Distribution, TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyro_vae.likelihoods.levels import Levels
from pyro_vae.networks import bounded_exp, inverse_of_bounded_exp

LOGISTIC_SD = math.pi / math.sqrt(3)  # of the standard logistic


class DiscretizedLogistic(Levels):
    r"""A logistic density's mass in each grey level; the first and the last level take the tails.

    .. math:: P(x_d|z) = \mathrm{sigmoid}\frac{x_d + \frac12 - \mu_d}{s_d}
        - \mathrm{sigmoid}\frac{x_d - \frac12 - \mu_d}{s_d}

    The decoder gives location and log-scale in units of the whole range of levels, so that its
    outputs are of order one whatever the number of levels.

    Args:
        levels: Number of levels; data are whole numbers 0 … levels - 1.
        min_scale: Lower bound of the logistic's standard deviation, in levels.

    Reference:
        Salimans et al. (2017), PixelCNN++, equation 2.

    Example:
        >>> p = DiscretizedLogistic(levels=4)(torch.zeros(1, 2))
        >>> p.log_prob(torch.arange(4.0).unsqueeze(-1)).exp().sum()
        tensor(1.)
    """

    params_per_element = 2

    def __init__(self, levels: int, min_scale: float = 0.2):
        super().__init__(levels)
        self.min_scale = min_scale

    def forward(self, raw: Tensor) -> Distribution:
        """Return the product of discretized logistics for ``raw``, (..., D, 2)."""
        return rounded_logistic(raw[..., 0], raw[..., 1], self.levels, self.min_scale).to_event(1)

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return the location and log-scale of each element."""
        sd = x.std(0, correction=0)
        return torch.stack([raw_loc(x.mean(0), self.levels), raw_log_scale(sd, self.levels, self.min_scale)], -1)


class RoundedLogistic(TorchDistribution):
    """A logistic variable, rounded to the nearest of 0 … levels - 1.

    Args:
        loc: Location, in levels.
        scale: The logistic's scale, in levels: its standard deviation times √3/π.
        levels: Number of levels.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(self, loc: Tensor, scale: Tensor, levels: int, validate_args: bool | None = None):
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "RoundedLogistic":
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return RoundedLogistic(loc, scale, self.levels, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # With u - l = 1/s: sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(-1/s)), a product of which
        # no factor is lost to rounding; where a tail is included its sigmoid is 1, and the last factor too.
        below_top, above_bottom = value < self.levels - 1, value > 0
        centred = value - self.loc
        log_width = (-torch.expm1(-1 / self.scale)).log()
        return (
            torch.where(below_top, logsigmoid((centred + 0.5) / self.scale), 0)
            + torch.where(above_bottom, logsigmoid((0.5 - centred) / self.scale), 0)
            + torch.where(below_top & above_bottom, log_width, 0)
        )

    @property
    def mean(self) -> Tensor:
        # E x = sum over k >= 1 of P(x >= k); one term at a time, since a tensor with all levels would be large.
        total = torch.zeros_like(self.loc)
        for k in range(1, self.levels):
            total += torch.sigmoid((self.loc - (k - 0.5)) / self.scale)
        return total

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        u = torch.rand(self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device)
        logistic = u.clamp(min=torch.finfo(u.dtype).tiny).logit()
        return (self.loc + self.scale * logistic).round().clamp(0, self.levels - 1)


def rounded_logistic(loc: Tensor, log_scale: Tensor, levels: int, min_scale: float) -> RoundedLogistic:
    """Return the distribution for raw outputs: the levels fill [0, 1], and the scale is bounded from below."""
    sd = min_scale + levels * bounded_exp(log_scale)
    return RoundedLogistic(levels * loc - 0.5, sd / LOGISTIC_SD, levels)


def raw_loc(loc: Tensor, levels: int) -> Tensor:
    """Return the raw output for a location in levels."""
    return (loc + 0.5) / levels


def raw_log_scale(sd: Tensor, levels: int, min_scale: float) -> Tensor:
    """Return the raw output for a standard deviation in levels, half a level at least beyond the bound."""
    return inverse_of_bounded_exp((sd - min_scale).clamp(min=0.5) / levels)
