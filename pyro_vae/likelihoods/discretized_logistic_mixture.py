"""The mixture of discretized logistics."""

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.likelihoods.discretized_logistic import raw_loc, raw_log_scale, rounded_logistic
from pyro_vae.likelihoods.levels import Levels


class DiscretizedLogisticMixture(Levels):
    r"""For each element its own mixture of discretized logistics.

    .. math:: P(x_d|z) = \sum_{c=1}^C \pi_{dc}\, P(x_d \mid \mu_{dc}, s_{dc})

    Args:
        levels: Number of levels; data are whole numbers 0 … levels - 1.
        components: C, the number of logistics for each element.
        min_scale: Lower bound of each logistic's standard deviation, in levels.

    Reference:
        Salimans et al. (2017), PixelCNN++, equation 2.

    Example:
        >>> p = DiscretizedLogisticMixture(levels=256, components=3)(torch.zeros(5, 784, 9))
        >>> p.sample().shape
        torch.Size([5, 784])
    """

    def __init__(self, levels: int, components: int = 5, min_scale: float = 0.2):
        super().__init__(levels)
        self.min_scale = min_scale
        self.params_per_element = 3 * components

    def forward(self, raw: Tensor) -> dist.Distribution:
        """Return the product of mixtures for ``raw``, (..., D, 3 C): weights' logits, locations, log-scales."""
        logits, loc, log_scale = raw.chunk(3, -1)  # (..., D, C) each
        logistics = rounded_logistic(loc, log_scale, self.levels, self.min_scale)
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), logistics).to_event(1)

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return equal weights, and locations spread over a standard deviation to each side of the mean."""
        components = self.params_per_element // 3
        mean, sd = x.mean(0).unsqueeze(-1), x.std(0, correction=0).unsqueeze(-1)
        spread = torch.arange(components).to(x) * 2 + 1 - components
        loc = raw_loc(mean + sd * spread / max(components - 1, 1), self.levels)  # (D, C)
        log_scale = raw_log_scale(sd / 2, self.levels, self.min_scale).expand_as(loc)
        return torch.cat([torch.zeros_like(loc), loc, log_scale], -1)
