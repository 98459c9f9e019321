"""The Laplace likelihood."""

import math

import pyro.distributions as dist
from torch import Tensor

from pyro_vae.likelihoods.location_scale import LocationScale


class Laplace(LocationScale):
    r"""Independent Laplace densities around the decoder's output: heavier tails than the Gaussian's.

    .. math:: \log p(x|z) = -\sum_d \left[ \tfrac{|x_d - \mu_d|}{b_d} + \log 2 b_d \right],
        \qquad b_d = \sigma_d / \sqrt 2

    With a fixed scale this is the absolute error, weighted and with its constants. Like every scale
    here, ``scale`` is the standard deviation :math:`\sigma`, not :math:`b`.

    Args:
        scale: The standard deviation: a number fixes it, "shared" learns one, "per_element" learns
            one for each element, "predicted" lets the decoder put out one for each element and datum.
        min_scale: Lower bound of a standard deviation that is learned or predicted.
        x_dim: Number of elements of a datum; needed for "per_element" only.

    Example:
        >>> import torch
        >>> Laplace(scale=2**0.5)(torch.zeros(2, 1)).log_prob(torch.zeros(2))  # -2 log 2
        tensor(-1.3863)
    """

    @staticmethod
    def family(loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        """Return the Laplace distribution with mean ``loc`` and standard deviation ``scale``."""
        return dist.Laplace(loc, scale / math.sqrt(2))
