"""What the likelihoods of counts share: the exposure, and the rate of counts per unit of it."""

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.base import Likelihood
from pyro_vae.networks import bounded_exp, inverse_of_bounded_exp

RATES = {"low": -30.0, "high": 15.0}  # within which a raw output is a logarithm


class Counts(Likelihood):
    r"""A likelihood of counts with means :math:`e_d\, \lambda_d(z)`.

    The exposure :math:`e_d` says how long, or over how much, element d was counted, the same for every
    datum. A depth that differs from datum to datum and is not known need not be divided out: it is
    one more thing that z explains.

    Args:
        exposure: One positive number, or one for each element of a datum.
    """

    pixels = "raw"
    support = constraints.nonnegative_integer
    accepts = "counts (whole numbers from 0)"
    exposure: Tensor

    def __init__(self, exposure: float | list[float] = 1.0):
        super().__init__()
        if not all(e > 0 for e in (exposure if isinstance(exposure, list) else [exposure])):
            raise ValueError(f"exposure must be positive, not {exposure}")
        self.register_buffer("exposure", torch.as_tensor(exposure, dtype=torch.get_default_dtype()), persistent=False)

    def _mean(self, log_rate: Tensor) -> Tensor:
        """Return the means, at least 1e-13 and growing linearly beyond a rate of 3e6, which keeps them finite."""
        return self.exposure * bounded_exp(log_rate, **RATES)

    def _initial_log_rate(self, x: Tensor) -> Tensor:
        """Return the raw output for the rate of each element, with half a count more since some have none."""
        return inverse_of_bounded_exp((x.sum(0) + 0.5) / (len(x) * self.exposure), **RATES)
