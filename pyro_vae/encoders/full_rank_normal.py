"""The Gaussian encoder with a full covariance."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.base import Encoder
from pyro_vae.networks import bounded_exp


class FullRankNormal(Encoder):
    r"""A Gaussian with any covariance.

    .. math:: q(z|x) = N(z; \mu(x), L(x) L(x)^\top), \quad L = \mathrm{diag}(\sigma) (I + A)

    A is strictly lower triangular, so that L is the Cholesky factor of the covariance. Its entries are in units of
    :math:`\sigma`: as that shrinks in training, the noise that they add to z shrinks along.

    Args:
        network: Maps x, (..., D), to :math:`\mu`, :math:`\log\sigma` and the rows of A below its diagonal,
            (..., 2 z_dim + z_dim (z_dim - 1) / 2).
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
        loc, log_scale, below = outputs.tensor_split((self.z_dim, 2 * self.z_dim), dim=-1)
        scale = bounded_exp(log_scale)
        scale_tril = scale.diag_embed()  # (..., z_dim, z_dim)
        rows, columns = torch.tril_indices(self.z_dim, self.z_dim, offset=-1, device=outputs.device)
        scale_tril[..., rows, columns] = scale[..., rows] * below
        return dist.MultivariateNormal(loc, scale_tril=scale_tril)
