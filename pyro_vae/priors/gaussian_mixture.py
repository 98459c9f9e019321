"""The mixture-of-Gaussians prior."""

import pyro.distributions as dist
import torch
from torch import nn

from pyro_vae.base import Prior
from pyro_vae.networks import bounded_exp


class GaussianMixture(Prior):
    r"""A mixture of diagonal Gaussians, :math:`p(z) = \sum_k \pi_k N(z; \mu_k, \mathrm{diag}\,\sigma_k^2)`.

    The weights, means and scales are learned. The means start as draws from N(0, I), since
    components that start at the same place would stay together.

    Args:
        z_dim: Number of latent dimensions.
        components: Number of Gaussians.

    Raises:
        ValueError: If ``components`` is not positive.

    Reference:
        Tomczak & Welling (2018), VAE with a VampPrior, section 4 (the "MoG" prior).

    Example:
        >>> p = GaussianMixture(z_dim=2, components=5)()
        >>> p.batch_shape, p.event_shape
        (torch.Size([]), torch.Size([2]))
    """

    def __init__(self, z_dim: int, components: int = 10):
        super().__init__()
        if components < 1:
            raise ValueError(f"components, the number of Gaussians, has to be at least 1, not {components}")
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, z_dim))
        self.log_scale = nn.Parameter(torch.zeros(components, z_dim))

    def forward(self) -> dist.Distribution:
        """Return the mixture."""
        gaussians = dist.Normal(self.loc, bounded_exp(self.log_scale)).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), gaussians)
