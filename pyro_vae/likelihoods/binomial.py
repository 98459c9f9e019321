"""The binomial likelihood."""

import pyro.distributions as dist
from torch import Tensor

from pyro_vae.likelihoods.levels import Levels


class Binomial(Levels):
    r"""Each level as the number of successes in levels - 1 trials: one parameter, and it knows the order.

    .. math:: \log P(x|z) = \sum_d \left[ \log\binom{n}{x_d} + x_d \log p_d + (n - x_d) \log(1 - p_d) \right],
        \qquad n = \mathrm{levels} - 1

    with the logits of :math:`p` from the decoder. It suits levels that are counts, like the
    17 of scikit-learn's digits (black pixels in a block of 4 x 4).

    Args:
        levels: Number of levels; data are whole numbers 0 … levels - 1.

    Example:
        >>> import torch
        >>> Binomial(levels=17)(torch.zeros(64, 1)).mean.unique()
        tensor([8.])
    """

    def forward(self, raw: Tensor) -> dist.Distribution:
        """Return the product of binomials with logits ``raw``, (..., D, 1)."""
        return dist.Binomial(self.levels - 1, logits=raw.squeeze(-1)).to_event(1)

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return the logits of the mean share of successes of each element, kept away from 0 and 1."""
        return (x.mean(0) / (self.levels - 1)).clamp(0.01, 0.99).logit().unsqueeze(-1)
