"""The Bernoulli likelihood."""

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.base import Likelihood


class Bernoulli(Likelihood):
    r"""The article's likelihood, :math:`\log p(x|z) = \sum_d x_d \log p_d + (1 - x_d) \log(1 - p_d)`.

    The decoder gives the logits of :math:`p`; computed from logits, the log-probability stays
    exact where :math:`p` would round to 0 or 1.

    Args:
        grey: Accept values between 0 and 1. The sum above is then the article's loss
            (the binary cross-entropy), but not the logarithm of a density.

    Reference:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, equation 11.

    Example:
        >>> import torch
        >>> Bernoulli()(torch.zeros(2, 1)).log_prob(torch.ones(2))  # 2 log 1/2
        tensor(-1.3863)
    """

    pixels = "binarized"

    def __init__(self, grey: bool = False):
        super().__init__()
        self.is_density = not grey
        self.support = constraints.unit_interval if grey else constraints.boolean
        self.accepts = "values from 0 to 1" if grey else "zeros and ones"

    def forward(self, raw: Tensor) -> dist.Distribution:
        """Return the product of Bernoullis with logits ``raw``, (..., D, 1)."""
        family = dist.Bernoulli if self.is_density else _GreyBernoulli
        return family(logits=raw.squeeze(-1)).to_event(1)

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return the logits of the mean of each element, kept away from 0 and 1."""
        return x.mean(0).clamp(0.01, 0.99).logit().unsqueeze(-1)


class _GreyBernoulli(dist.Bernoulli):
    support = constraints.unit_interval
