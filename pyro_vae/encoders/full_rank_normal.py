"""The Gaussian encoder with a full covariance."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.base import Encoder
from pyro_vae.networks import bounded_exp


class FullRankNormal(Encoder):
    r"""A Gaussian with any covariance, :math:`q(z|x) = N(z; \mu(x), L(x) L(x)^\top)`.

    L is lower triangular with a positive diagonal, so that it is the Cholesky factor of the covariance.

    Args:
        network: Maps x, (..., D), to :math:`\mu`, the logarithm of the diagonal of L and the rows
            of L below it, (..., 2 z_dim + z_dim (z_dim - 1) / 2).
        z_dim: Number of latent dimensions.

    Raises:
        ValueError: If the network has another number of outputs.

    Reference:
        Kingma & Welling (2019), An Introduction to Variational Autoencoders, section 2.5.1.

    Example:
        >>> q = FullRankNormal(nn.Linear(4, FullRankNormal.num_outputs(3)), z_dim=3)(torch.zeros(5, 4))
        >>> q.batch_shape, q.event_shape
        (torch.Size([5]), torch.Size([3]))
    """

    def __init__(self, network: nn.Module, z_dim: int):
        super().__init__()
        self.network = network
        self.z_dim = z_dim

    @staticmethod
    def num_outputs(z_dim: int) -> int:
        """Return 2 z_dim + z_dim (z_dim - 1) / 2: a location, a diagonal and the triangle below it."""
        return 2 * z_dim + z_dim * (z_dim - 1) // 2

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x) for x of shape (..., D)."""
        outputs = self.network(x)
        if outputs.shape[-1] != self.num_outputs(self.z_dim):
            raise ValueError(
                f"network has to put out {self.num_outputs(self.z_dim)} numbers for each datum, "
                f"not {outputs.shape[-1]}; give it a last layer of FullRankNormal.num_outputs({self.z_dim})"
            )
        loc, log_diagonal, below = outputs.tensor_split((self.z_dim, 2 * self.z_dim), dim=-1)
        scale_tril = bounded_exp(log_diagonal).diag_embed()  # (..., z_dim, z_dim)
        rows, columns = torch.tril_indices(self.z_dim, self.z_dim, offset=-1, device=outputs.device)
        scale_tril[..., rows, columns] = below
        return dist.MultivariateNormal(loc, scale_tril=scale_tril)
