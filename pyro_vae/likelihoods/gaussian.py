"""The Gaussian likelihood."""

import pyro.distributions as dist
from torch import Tensor

from pyro_vae.likelihoods.location_scale import LocationScale


class Gaussian(LocationScale):
    r"""Independent normal densities around the decoder's output.

    .. math:: \log p(x|z) = -\sum_d \left[ \tfrac{(x_d - \mu_d)^2}{2\sigma_d^2}
        + \log\sigma_d + \tfrac12\log 2\pi \right]

    With a fixed scale this is the squared error, weighted and with its constants.

    Args:
        scale: The standard deviation: a number fixes it, "shared" learns one, "per_element" learns
            one for each element, "predicted" lets the decoder put out one for each element and datum.
        min_scale: Lower bound of a standard deviation that is learned or predicted.
        x_dim: Number of elements of a datum; needed for "per_element" only.

    Reference:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, equation 12 (predicted);
        Rybkin, Daniilidis & Levine (2021), Simple and Effective VAE Training with Calibrated Decoders (shared).

    Example:
        >>> import torch
        >>> Gaussian(scale=1.0)(torch.zeros(2, 1)).log_prob(torch.zeros(2))  # -log 2 pi
        tensor(-1.8379)
    """

    @staticmethod
    def family(loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        """Return Normal(loc, scale)."""
        return dist.Normal(loc, scale)
