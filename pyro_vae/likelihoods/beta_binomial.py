"""The beta-binomial likelihood."""

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.likelihoods.levels import Levels
from pyro_vae.networks import bounded_exp


class BetaBinomial(Levels):
    r"""Each level as the number of successes in levels - 1 trials that are alike: U-shaped where they agree.

    .. math:: P(x|z) = \prod_d \binom{n}{x_d} \frac{B(x_d + a_d,\, n - x_d + b_d)}{B(a_d, b_d)},
        \qquad n = \mathrm{levels} - 1,\; a = c\,p,\; b = c\,(1 - p)

    The decoder gives the logit of the mean share :math:`p` and the log concentration :math:`\log c`; with growing c
    it becomes the binomial. It suits counts over neighbouring pixels, which tend to be black or white together.

    Args:
        levels: Number of levels; data are whole numbers 0 … levels - 1.

    Reference:
        Skellam (1948), A probability distribution derived from the binomial distribution by regarding the
        probability of success as variable between the sets of trials.

    Example:
        >>> p = BetaBinomial(levels=3)(torch.zeros(1, 2))  # a = b = 1/2
        >>> p.log_prob(torch.tensor([[0.0], [1.0], [2.0]])).exp()
        tensor([0.3750, 0.2500, 0.3750])
    """

    params_per_element = 2

    def forward(self, raw: Tensor) -> dist.Distribution:
        """Return the product of beta-binomials for ``raw``, (..., D, 2): logits and log-concentrations."""
        # A share of at least 1e-4 on either side, and a concentration that grows only linearly above e^5:
        # beyond them float32's log-gammas overflow or cancel.
        share, concentration = raw[..., 0].sigmoid() * (1 - 2e-4) + 1e-4, bounded_exp(raw[..., 1], low=-5)
        return dist.BetaBinomial(concentration * share, concentration * (1 - share), self.levels - 1).to_event(1)

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return the logits of each element's mean share, and a concentration of one."""
        share = (x.mean(0) / (self.levels - 1)).clamp(0.01, 0.99)
        return torch.stack([share.logit(), torch.zeros_like(share)], -1)
