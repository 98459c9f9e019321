"""What the likelihoods of grey levels share."""

from torch.distributions import constraints

from pyro_vae.base import Likelihood


class Levels(Likelihood):
    """A likelihood of whole numbers 0 … levels - 1.

    Args:
        levels: Number of levels.
    """

    def __init__(self, levels: int):
        super().__init__()
        if not isinstance(levels, int) or levels < 2:
            raise ValueError(
                f"levels must be a whole number of at least 2, not {levels!r}; for data without levels use "
                "Gaussian (real numbers), Poisson (counts) or Bernoulli (zeros and ones)"
            )
        self.levels = levels
        self.support = constraints.integer_interval(0, levels - 1)
        self.accepts = f"whole numbers from 0 to {levels - 1}"
