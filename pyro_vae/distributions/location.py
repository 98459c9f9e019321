"""Where a distribution is."""

from pyro.distributions import MaskedDistribution, TorchDistribution
from torch import Tensor
from torch.distributions import Independent

NUM_DRAWS = 100  # of a distribution that does not know its mean


def location(p: TorchDistribution) -> Tensor:
    """Return E[z]; where the distribution doesn't know it, the mean of draws."""
    try:
        return p.mean
    except NotImplementedError:
        return p.sample((NUM_DRAWS,)).mean(0)


def middle(p: TorchDistribution) -> Tensor:
    """Return one value that stands for p: its mean, or its own ``middle`` where some elements have no mean.

    Example:
        >>> import pyro.distributions as dist
        >>> middle(dist.Poisson(2.5))
        tensor(2.5000)
    """
    while isinstance(p, Independent | MaskedDistribution):
        p = p.base_dist
    own: Tensor | None = getattr(p, "middle", None)
    return p.mean if own is None else own
