"""The continuous Bernoulli likelihood."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pyro.distributions import Distribution, TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.base import Likelihood


class ContinuousBernoulli(Likelihood):
    r"""The Bernoulli's formula made a density on [0, 1], by the constant that it lacks there.

    .. math:: \log p(x|z) = \sum_d \eta_d x_d - A(\eta_d), \qquad A(\eta) = \log\frac{e^\eta - 1}{\eta}

    with the logits :math:`\eta` from the decoder.

    Reference:
        Loaiza-Ganem & Cunningham (2019), The continuous Bernoulli: fixing a pervasive error in
        variational autoencoders, section 3.

    Example:
        >>> ContinuousBernoulli()(torch.zeros(3, 1)).log_prob(torch.rand(3))  # uniform
        tensor(0.)
    """

    pixels = "dequantized"
    support = constraints.unit_interval
    accepts = "values from 0 to 1"

    def forward(self, raw: Tensor) -> Distribution:
        """Return the product of continuous Bernoullis with logits ``raw``, (..., D, 1)."""
        return _ContinuousBernoulli(raw.squeeze(-1)).to_event(1)

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return logits at which the mean of each element is that of the data."""
        grid = torch.linspace(-100, 100, 20_001, dtype=x.dtype, device=x.device)
        index = torch.searchsorted(_ContinuousBernoulli(grid).mean, x.mean(0).contiguous())
        return grid[index.clamp(max=len(grid) - 1)].unsqueeze(-1)


class _ContinuousBernoulli(TorchDistribution):
    """Exact around logits 0, where ``torch.distributions.ContinuousBernoulli`` subtracts almost equal numbers.

    The closed forms divide 0 by 0 at logits 0, so that below ``SMALL`` the first terms of the series of
    log(sinh h / h), h = logits / 2, take over; the first term left out is below 1e-18.
    """

    SMALL = 0.1
    arg_constraints: ClassVar = {"logits": constraints.real}
    support = constraints.unit_interval

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "_ContinuousBernoulli":
        return _ContinuousBernoulli(self.logits.expand(batch_shape), validate_args=self._validate_args)

    def _branches(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return where the series holds, h with 0 elsewhere, and abs(logits) with 1 where the series holds."""
        # Each branch gets harmless values where the other is chosen, for the sake of its gradient.
        small = self.logits.abs() < self.SMALL
        return small, torch.where(small, self.logits / 2, 0), torch.where(small, 1, self.logits.abs())

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        small, h, a = self._branches()
        h2 = h.square()
        near = h * (2 * value - 1) - h2 * (1 / 6 - h2 * (1 / 180 - h2 * (1 / 2835 - h2 / 37800)))
        # Measured from the end that the density favours, nothing large cancels.
        distance = torch.where(self.logits > 0, 1 - value, value)
        far = -a * distance - (-torch.expm1(-a) / a).log()
        return torch.where(small, near, far)

    @property
    def mean(self) -> Tensor:
        small, h, a = self._branches()
        h2 = h.square()
        near = h * (1 / 6 - h2 * (1 / 90 - h2 * (1 / 945 - h2 / 9450)))
        far = self.logits.sign() * (0.5 / torch.tanh(a / 2) - 1 / a)
        return 0.5 + torch.where(small, near, far)

    @property
    def variance(self) -> Tensor:
        small, h, a = self._branches()
        h2 = h.square()
        near = 1 / 12 - h2 * (1 / 60 - h2 * (1 / 378 - h2 / 2700))
        # 1 / (4 sinh²(a / 2)), without its overflow
        far = a.pow(-2) - torch.exp(-a) / torch.expm1(-a).square()
        return torch.where(small, near, far)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        u = torch.rand(
            self._extended_shape(torch.Size(sample_shape)), dtype=self.logits.dtype, device=self.logits.device
        )
        # The inverse of the distribution function for negative logits, mirrored for positive ones.
        a = self.logits.abs().clamp(min=torch.finfo(u.dtype).tiny)
        distance = (torch.log1p(u * torch.expm1(-a)) / -a).clamp(0, 1)
        return torch.where(self.logits > 0, 1 - distance, distance)
