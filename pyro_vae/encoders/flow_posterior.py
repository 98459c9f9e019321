"""The inverse autoregressive flow as encoder."""

from collections.abc import Sequence

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.base import Encoder
from pyro_vae.distributions.flows import NormalizingFlow, import_zuko, start_at_identity
from pyro_vae.networks import bounded_exp


class FlowPosterior(Encoder):
    r"""An inverse autoregressive flow on top of a diagonal Gaussian.

    .. math:: z_0 \sim N(\mu(x), \mathrm{diag}\,\sigma^2(x)), \qquad
        z_{t, j} = m_{t, j} + s_{t, j} z_{t-1, j}, \qquad
        m_{t, j}, s_{t, j} \text{ functions of } z_{t-1, 1 \dots j-1} \text{ and } h(x)

    (with the order of the dimensions reversed from one transform to the next). Drawing z with its
    density is one pass; the density of a z that comes from elsewhere takes one pass per
    dimension and transform. Starts as exactly the diagonal Gaussian.

    Args:
        network: Maps x, (..., D), to :math:`[\mu, \log\sigma, h]`, (..., 3 z_dim).
        z_dim: Number of latent dimensions.
        transforms: Number of autoregressive transforms.
        hidden_dims: Widths of the hidden layers in each of them.

    Raises:
        ValueError: If ``transforms`` is not positive, or the network has another number of outputs.

    Reference:
        Kingma et al. (2016), Improving Variational Inference with Inverse Autoregressive Flow, equations 10 and 11.

    Example:
        >>> import torch
        >>> q = FlowPosterior(nn.Linear(4, FlowPosterior.num_outputs(3)), z_dim=3)(torch.zeros(5, 4))
        >>> q.batch_shape, q.event_shape
        (torch.Size([5]), torch.Size([3]))
    """

    def __init__(self, network: nn.Module, z_dim: int, transforms: int = 2, hidden_dims: Sequence[int] = (128,)):
        super().__init__()
        if transforms < 1:
            raise ValueError(
                f"transforms has to be at least 1, not {transforms}; DiagonalNormal is the encoder without"
            )
        self.network = network
        self.z_dim = z_dim
        lazy_flow = import_zuko().flows.MAF(z_dim, context=z_dim, transforms=transforms, hidden_features=hidden_dims)
        self.transform = start_at_identity(lazy_flow.transform)

    @staticmethod
    def num_outputs(z_dim: int) -> int:
        """Return 3 z_dim: a location, a log-scale and a context number for each latent dimension."""
        return 3 * z_dim

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x) for x of shape (..., D)."""
        outputs = self.network(x)
        if outputs.shape[-1] != self.num_outputs(self.z_dim):
            raise ValueError(
                f"network has to put out 3 z_dim = {self.num_outputs(self.z_dim)} numbers for each datum, "
                f"not {outputs.shape[-1]}; give it a last layer of FlowPosterior.num_outputs({self.z_dim})"
            )
        loc, log_scale, context = outputs.chunk(3, dim=-1)
        base = dist.Normal(loc, bounded_exp(log_scale)).to_event(1)
        return NormalizingFlow(base, self.transform(context))
