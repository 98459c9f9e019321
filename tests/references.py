"""Programs with known answers, shared by the tests."""

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.evidence import LinearGaussian

ARVIZ_0 = arviz.__version__.startswith("0.")  # the line before DataTree


def psislw(log_weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """ArviZ's smoothed and normalised log-weights, (K, B), and its k-hat, (B,)."""
    by_datum = log_weights.double().T.numpy()
    if ARVIZ_0:
        smoothed, khat = arviz.psislw(by_datum)
    else:
        from arviz_stats.base import array_stats

        # From 1.0 it takes log-likelihoods, of which leave-one-out weights are the inverses.
        smoothed, khat = array_stats.psislw(-by_datum)
    return smoothed.T, khat


def linear_gaussian(x_dim: int = 6, z_dim: int = 2, noise: float = 1.0, seed: int = 0) -> LinearGaussian:
    """A random linear-Gaussian model in float64."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(x_dim, z_dim, dtype=torch.float64, generator=generator)
    bias = torch.randn(x_dim, dtype=torch.float64, generator=generator)
    scale = noise * (0.5 + torch.rand(x_dim, dtype=torch.float64, generator=generator))
    return LinearGaussian(weight, bias, scale=scale)


def data_of(exact: LinearGaussian, size: int, seed: int = 0) -> Tensor:
    """Data drawn from the model itself."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return exact.model(None, size)


def shifted_guide(exact: LinearGaussian, shift: float = 0.0, factor: float = 1.0):
    """The exact posterior's marginals, displaced by and widened to some of their deviations."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            posterior = exact.posterior(x)
            scale = posterior.stddev
            pyro.sample("z", dist.Normal(posterior.mean + shift * scale, factor * scale).to_event(1))

    return guide
