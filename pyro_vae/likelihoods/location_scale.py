"""What the Gaussian and the Laplace likelihood share."""

from abc import abstractmethod
from typing import Literal

import torch
from pyro.distributions import Distribution, TorchDistribution
from torch import Tensor, nn

from pyro_vae.base import Likelihood
from pyro_vae.networks import bounded_exp, inverse_of_bounded_exp


class LocationScale(Likelihood):
    r"""A symmetric density around the decoder's output, with a scale of four kinds.

    .. math:: p(x|z) = \prod_d \frac{1}{\sigma_d} f\!\left(\frac{x_d - \mu_d(z)}{\sigma_d}\right)

    A scale that is learned or predicted is :math:`\sigma = \mathrm{min\_scale} + e^s`, so the density
    is bounded: without the bound, an element that the decoder gets exactly right has no maximum.

    Args:
        scale: The standard deviation: a number fixes it, "shared" learns one, "per_element" learns
            one for each element, "predicted" lets the decoder put out one for each element and datum.
        min_scale: Lower bound of a standard deviation that is learned or predicted.
        x_dim: Number of elements of a datum; needed for "per_element" only.
    """

    pixels = "dequantized"

    def __init__(
        self,
        scale: Literal["shared", "per_element", "predicted"] | float = "shared",
        min_scale: float = 1e-3,
        x_dim: int | None = None,
    ):
        super().__init__()
        if scale not in ("shared", "per_element", "predicted") and (isinstance(scale, str) or not scale > 0):
            raise ValueError(f"scale must be 'shared', 'per_element', 'predicted' or a positive number, not {scale!r}")
        if not min_scale > 0:
            raise ValueError(f"min_scale must be positive, not {min_scale!r}")
        self.min_scale = min_scale
        self.params_per_element = 2 if scale == "predicted" else 1
        self.fixed_scale = None if isinstance(scale, str) else float(scale)
        self.log_scale: nn.Parameter | None = None
        if scale == "shared":
            self.log_scale = nn.Parameter(torch.zeros(()))
        elif scale == "per_element":
            if x_dim is None:
                raise ValueError("scale='per_element' needs x_dim, the number of elements of a datum")
            self.log_scale = nn.Parameter(torch.zeros(x_dim))

    @staticmethod
    @abstractmethod
    def family(loc: Tensor, scale: Tensor) -> TorchDistribution:
        """Return the distribution with mean ``loc`` and standard deviation ``scale``, event shape ()."""

    def forward(self, raw: Tensor) -> Distribution:
        """Return the product density with means ``raw[..., 0]``; raw is (..., D, 1), or (..., D, 2) with log-scales."""
        return self.family(raw[..., 0], self._scale(raw)).to_event(1)

    def _scale(self, raw: Tensor) -> Tensor:
        if self.fixed_scale is not None:
            return raw.new_full((), self.fixed_scale)
        return self.min_scale + bounded_exp(raw[..., 1] if self.log_scale is None else self.log_scale)

    def at_smallest_scale(self, raw: Tensor) -> Tensor | None:
        """Return where a learned or predicted scale is ``min_scale``, to a few percent, (..., D)."""
        if self.fixed_scale is not None:
            return None
        return (self._scale(raw) < 1.05 * self.min_scale).expand(raw.shape[:-1])

    def initialize(self, x: Tensor) -> None:
        """Start a learned scale at the standard deviation of the data ``x``, (N, D), around their means."""
        if self.log_scale is not None:
            variance = x.var(0, correction=0)
            self.log_scale.data.copy_(self._raw_scale(variance if self.log_scale.ndim else variance.mean()))

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return the mean of each element and, where the decoder predicts it, the raw output for its scale."""
        raw = [x.mean(0), self._raw_scale(x.var(0, correction=0))]
        return torch.stack(raw[: self.params_per_element], -1)

    def _raw_scale(self, variance: Tensor) -> Tensor:
        # An element that never varies would start with an enormous loss as soon as the decoder moves. How little is
        # little in the data's units, a smaller min_scale says.
        return inverse_of_bounded_exp((variance.sqrt() - self.min_scale).clamp(min=min(0.01, 10 * self.min_scale)))
