"""The standard normal prior."""

import pyro.distributions as dist
import torch

from pyro_vae.base import Prior


class StandardNormal(Prior):
    r"""The article's prior, :math:`p(z) = N(z; 0, I)`.

    Args:
        z_dim: Number of latent dimensions.

    Reference:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, section 3.

    Example:
        >>> StandardNormal(z_dim=2)().event_shape
        torch.Size([2])
    """

    loc: torch.Tensor
    scale: torch.Tensor

    def __init__(self, z_dim: int):
        super().__init__()
        self.register_buffer("loc", torch.zeros(z_dim))
        self.register_buffer("scale", torch.ones(z_dim))

    def forward(self) -> dist.Distribution:
        """Return N(0, I)."""
        return dist.Normal(self.loc, self.scale).to_event(1)
