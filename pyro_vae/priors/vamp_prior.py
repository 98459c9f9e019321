"""The VampPrior."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.base import Encoder, Prior


class VampPrior(Prior):
    r"""The variational mixture of posteriors, :math:`p(z) = \frac{1}{K} \sum_k q(z|u_k)`.

    The pseudo-inputs :math:`u_k` are learned, and the encoder is the VAE's own: it receives
    gradients both as posterior and as prior. Call :meth:`initialize` with the training data,
    so that the pseudo-inputs start on typical ones. Scoring one z takes K densities of the
    encoder, so choose one whose density is cheap at any z: a Gaussian, not a flow.

    Args:
        encoder: q(z|x), the encoder of the same VAE.
        x_dim: Number of elements of a datum.
        components: Number of pseudo-inputs.

    Raises:
        ValueError: If ``components`` is not positive.

    Reference:
        Tomczak & Welling (2018), VAE with a VampPrior, section 3.

    Example:
        >>> from pyro_vae.encoders import DiagonalNormal
        >>> encoder = DiagonalNormal(nn.Linear(784, 2 * 3))
        >>> prior = VampPrior(encoder, x_dim=784, components=50)
        >>> prior().event_shape, [name for name, _ in prior.named_parameters()]
        (torch.Size([3]), ['pseudo_inputs'])
    """

    def __init__(self, encoder: Encoder, x_dim: int, components: int = 50):
        super().__init__()
        if components < 1:
            raise ValueError(f"components, the number of pseudo-inputs, has to be at least 1, not {components}")
        self.pseudo_inputs = nn.Parameter(torch.rand(components, x_dim))
        # The VAE owns the encoder. An attribute of its own would make it a submodule here too, and its
        # parameters would be trained, counted and saved twice; nn.Module does not look inside a tuple.
        # deepcopy does, so that in a copied VAE the copied prior holds the copied encoder.
        self._encoder = (encoder,)

    def initialize(self, x: Tensor) -> None:
        """Set the pseudo-inputs to random rows of ``x``, (N, D), each as rarely repeated as N allows."""
        components = len(self.pseudo_inputs)
        rows = torch.randperm(len(x), device=x.device)[torch.arange(components, device=x.device) % len(x)]
        with torch.no_grad():
            self.pseudo_inputs.copy_(x[rows])

    def forward(self) -> dist.Distribution:
        """Return the equally weighted mixture of the posteriors of the pseudo-inputs."""
        (encoder,) = self._encoder
        weights = dist.Categorical(logits=self.pseudo_inputs.new_zeros(len(self.pseudo_inputs)))
        return dist.MixtureSameFamily(weights, encoder(self.pseudo_inputs))
