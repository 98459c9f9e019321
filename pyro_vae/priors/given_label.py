"""Priors of data with labels: p(z|y), and p(z) over all classes."""

from collections.abc import Iterable, Sequence
from typing import cast

import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineTransform
from torch import Tensor, nn

from pyro_vae.base import Prior
from pyro_vae.distributions.mixture import Mixture
from pyro_vae.networks import bounded_exp


class PriorGivenLabel(nn.Module):
    """p(z|y): a prior for each class.

    Args:
        priors: One for each class, with parameters of its own.

    Example:
        >>> from pyro_vae.priors import GaussianMixture
        >>> prior = PriorGivenLabel([GaussianMixture(z_dim=2, components=5) for _ in range(10)])
        >>> prior(torch.eye(10).log()[[3, 1, 4]]).batch_shape
        torch.Size([3])
    """

    def __init__(self, priors: Iterable[nn.Module]):
        super().__init__()
        self.priors = nn.ModuleList(priors)

    def initialize(self, x: Tensor) -> None:
        """Set the priors' starting values from the training data ``x``, (N, D)."""
        for prior in self.priors:
            cast(Prior, prior).initialize(x)

    def forward(self, log_probs: Tensor) -> Mixture:
        """Return p(z|y), or where y is not sure its mixture with these log-probabilities of the classes, (..., C)."""
        return Mixture([prior() for prior in self.priors], log_probs)


class PriorOfAll(nn.Module):
    r"""The prior over all classes, :math:`p(z) = \sum_c p(c) p(z|c)`.

    Args:
        given: p(z|y).
        class_probs: p(y), (C,).
    """

    class_probs: Tensor

    def __init__(self, given: PriorGivenLabel, class_probs: Tensor):
        super().__init__()
        self.given = given
        self.register_buffer("class_probs", class_probs)

    def forward(self) -> Mixture:
        """Return p(z)."""
        return self.given(self.class_probs.log())


class Shifted(nn.Module):
    r"""A prior shifted and stretched, :math:`z = m + s \circ u` with :math:`u \sim p(u)`; starts as p(u).

    Args:
        prior: p(u).
        z_dim: Number of latent dimensions.

    Example:
        >>> from pyro_vae.priors import StandardNormal
        >>> Shifted(StandardNormal(2), z_dim=2)().event_shape
        torch.Size([2])
    """

    def __init__(self, prior: Prior, z_dim: int):
        super().__init__()
        self.prior = prior
        self.loc = nn.Parameter(torch.zeros(z_dim))
        self.log_scale = nn.Parameter(torch.zeros(z_dim))

    def initialize(self, x: Tensor) -> None:
        """Set the prior's starting values from the training data ``x``, (N, D)."""
        self.prior.initialize(x)

    def forward(self) -> dist.TorchDistribution:
        """Return the distribution of z."""
        return dist.TransformedDistribution(
            self.prior(), AffineTransform(self.loc, bounded_exp(self.log_scale), event_dim=1)
        )


@torch.no_grad()
def bring_together(priors: Sequence[nn.Module], spread: float = 0.1) -> None:
    r"""Let the priors of the classes start close to each other.

    .. math:: \theta_c \to \bar\theta + s\,(\theta_c - \bar\theta)

    Starting far apart, each would take the data that happen to be near it, whatever the few known labels say.

    Args:
        priors: Of one kind, a module for each class.
        spread: s.
    """
    for parameters in zip(*(prior.parameters() for prior in priors), strict=True):
        mean = torch.stack([*parameters]).mean(0)
        for parameter in parameters:
            parameter.copy_(mean.lerp(parameter, spread))
