"""A mixture of distributions of any kind, with weights for each datum."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor


class Mixture(dist.TorchDistribution):
    r"""A mixture of distributions of any kind, :math:`p(z) = \sum_c w_c p_c(z)`, with other weights for each datum.

    Args:
        parts: The distributions, C of them, with one event shape and no batch shape.
        log_weights: log w, (..., C); -inf for parts that are left out.
    """

    support = dist.constraints.real_vector
    arg_constraints: ClassVar[dict] = {}

    def __init__(self, parts: Sequence[dist.TorchDistribution], log_weights: Tensor):
        self.parts, self.log_weights = parts, log_weights
        super().__init__(log_weights.shape[:-1], parts[0].event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Mixture":
        """Expand the batch."""
        return Mixture(self.parts, self.log_weights.expand(*batch_shape, -1))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw a part for each, and then from it."""
        shape = self._extended_shape(torch.Size(sample_shape))[:-1]
        chosen = dist.Categorical(logits=self.log_weights).sample(torch.Size(sample_shape))
        drawn = torch.stack([p.sample(shape) for p in self.parts], -1)  # (..., Z, C)
        return drawn.gather(-1, chosen[..., None, None].expand(*drawn.shape[:-1], 1))[..., 0]

    def joint(self, z: Tensor) -> Tensor:
        """Return log w_c + log p_c(z), (..., C)."""
        return torch.stack([p.log_prob(z) for p in self.parts], -1) + self.log_weights

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log-density."""
        return self.joint(z).logsumexp(-1)
