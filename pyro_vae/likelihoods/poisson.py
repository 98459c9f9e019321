"""The Poisson likelihood."""

import pyro.distributions as dist
from torch import Tensor

from pyro_vae.likelihoods.counts import Counts


class Poisson(Counts):
    r"""Counts at a rate given by the decoder as its logarithm.

    .. math:: \log P(x|z) = \sum_d \left[ x_d \log m_d - m_d - \log x_d! \right],
        \qquad m_d = e_d\, \lambda_d(z)

    Args:
        exposure: :math:`e`, how long or over how much each element was counted:
            one positive number, or one for each element of a datum.

    Example:
        >>> import torch
        >>> Poisson(exposure=[1.0, 10.0])(torch.zeros(2, 1)).mean
        tensor([ 1., 10.])
    """

    def forward(self, raw: Tensor) -> dist.Distribution:
        """Return the product of Poisson distributions with log-rates ``raw``, (..., D, 1)."""
        return dist.Poisson(self._mean(raw.squeeze(-1))).to_event(1)

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return the log-rate of each element."""
        return self._initial_log_rate(x).unsqueeze(-1)
