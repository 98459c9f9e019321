"""Where a distribution is."""

from pyro.distributions import TorchDistribution
from torch import Tensor

NUM_DRAWS = 100  # of a distribution that does not know its mean


def location(p: TorchDistribution) -> Tensor:
    """Return E[z]; where the distribution doesn't know it, the mean of draws."""
    try:
        return p.mean
    except NotImplementedError:
        return p.sample((NUM_DRAWS,)).mean(0)
