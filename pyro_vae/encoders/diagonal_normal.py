"""The Gaussian encoder with a diagonal covariance."""

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.base import Encoder
from pyro_vae.networks import bounded_exp


class DiagonalNormal(Encoder):
    r"""The article's encoder, :math:`q(z|x) = N(z; \mu(x), \mathrm{diag}\,\sigma^2(x))`.

    Args:
        network: Maps x, (..., D), to :math:`[\mu, \log\sigma]`, (..., 2 z_dim).

    Reference:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, equation 9.

    Example:
        >>> import torch
        >>> q = DiagonalNormal(nn.Linear(4, 2 * 3))(torch.zeros(5, 4))
        >>> q.batch_shape, q.event_shape
        (torch.Size([5]), torch.Size([3]))
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    @staticmethod
    def num_outputs(z_dim: int) -> int:
        """Return 2 z_dim: a location and a log-scale for each latent dimension."""
        return 2 * z_dim

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x) for x of shape (..., D)."""
        loc, log_scale = self.network(x).chunk(2, dim=-1)
        return dist.Normal(loc, bounded_exp(log_scale)).to_event(1)
