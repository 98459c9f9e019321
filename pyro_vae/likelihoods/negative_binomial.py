"""The negative binomial likelihood."""

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.likelihoods.counts import Counts
from pyro_vae.networks import bounded_exp, inverse_of_bounded_exp


class NegativeBinomial(Counts):
    r"""Counts that vary more than the Poisson's, with mean m and variance :math:`m + m^2 / r`.

    .. math:: P(x|z) = \prod_d \frac{\Gamma(x_d + r_d)}{\Gamma(r_d)\, x_d!}
        \left(\frac{r_d}{r_d + m_d}\right)^{r_d} \left(\frac{m_d}{r_d + m_d}\right)^{x_d},
        \qquad m_d = e_d\, \lambda_d(z)

    The decoder gives log rate :math:`\log\lambda` and log concentration :math:`\log r`.

    Args:
        exposure: :math:`e`, how long or over how much each element was counted:
            one positive number, or one for each element of a datum.

    Reference:
        Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics, methods.

    Example:
        >>> NegativeBinomial()(torch.zeros(2, 2)).variance  # m + m^2 / r with m = r = 1
        tensor([2., 2.])
    """

    params_per_element = 2

    def forward(self, raw: Tensor) -> dist.Distribution:
        """Return the product of negative binomials for ``raw``, (..., D, 2): log-rates and log-concentrations."""
        # Above e^5 the concentration grows linearly: the log-gammas of a larger one cancel badly in float32.
        mean, concentration = self._mean(raw[..., 0]), bounded_exp(raw[..., 1])
        return dist.NegativeBinomial(concentration, logits=mean.log() - concentration.log()).to_event(1)

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return the log-rate and the log-concentration that match each element's mean and variance."""
        mean, variance = x.mean(0), x.var(0, correction=0)
        concentration = mean.square() / (variance - mean).clamp(min=1e-6)
        return torch.stack([self._initial_log_rate(x), inverse_of_bounded_exp(concentration.clamp(0.1, 100))], -1)
