"""The heavy-tailed prior."""

import math

import pyro.distributions as dist
import torch

from pyro_vae.base import Prior


class StudentT(Prior):
    r"""Independent Student's t, :math:`p(z) = \prod_j t_\nu(z_j)`, with location 0 and scale 1.

    Its tails fall as a power of z, so that a datum far from the others is not pulled to the origin
    as hard as under a Gaussian.

    Args:
        z_dim: Number of latent dimensions.
        df: Degrees of freedom :math:`\nu > 0`; the variance is finite above 2, and the
            prior becomes N(0, I) as :math:`\nu` grows.

    Raises:
        ValueError: If ``df`` is not a positive number.

    Reference:
        Abiri & Ohlsson (2019), Variational auto-encoders with Student's t-prior.

    Example:
        >>> StudentT(z_dim=2, df=1.0)().log_prob(torch.zeros(2))  # 2 log 1/pi
        tensor(-2.2895)
    """

    df: torch.Tensor
    loc: torch.Tensor
    scale: torch.Tensor

    def __init__(self, z_dim: int, df: float = 5.0):
        super().__init__()
        if not 0 < df < math.inf:
            raise ValueError(f"df, the degrees of freedom, has to be a positive number, not {df:g}; 5 is usual")
        self.register_buffer("df", torch.tensor(float(df)))
        self.register_buffer("loc", torch.zeros(z_dim))
        self.register_buffer("scale", torch.ones(z_dim))

    def forward(self) -> dist.Distribution:
        """Return the product of Student's t distributions."""
        return dist.StudentT(self.df, self.loc, self.scale).to_event(1)
