"""Programs whose log P(X) is known, to hold every estimate against."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.evidence.checks import check_count, check_data
from pyro_vae.evidence.importance import default_chunk_size
from pyro_vae.evidence.latents import Latents, prior
from pyro_vae.program import ChunkedLogDensity, Data, as_model, draw, num_data, quiet, reseed, take


class LinearGaussian:
    r"""A linear-Gaussian model of any size, with its exact evidence and posterior.

    .. math:: z \sim N(0, I), \quad x | z \sim N(W z + b, \mathrm{diag}\,\sigma^2)
        \quad\Rightarrow\quad x \sim N(b, W W^T + \mathrm{diag}\,\sigma^2)

    Args:
        weight: W, (D, z_dim).
        bias: b, (D,); zero by default.
        scale: The standard deviations :math:`\sigma`, (D,).

    Reference:
        Tipping & Bishop (1999), Probabilistic Principal Component Analysis, equations 4 and 6.

    Example:
        >>> exact = LinearGaussian(torch.tensor([[2.0]]), scale=torch.ones(1))
        >>> exact.log_evidence(torch.zeros(1, 1))  # log N(0; 0, 5)
        tensor([-1.7237])
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, scale: Tensor):
        self.weight = weight
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias
        self.scale = scale
        precision = torch.eye(weight.shape[1], dtype=weight.dtype) + (weight.T / scale.square()) @ weight
        self.posterior_tril = torch.linalg.cholesky(torch.linalg.inv(precision))

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """p(x, z), conditioned on ``x``, (B, D), or generating ``size`` data."""
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(self.weight.new_zeros(self.weight.shape[1]), 1).to_event(1))
            return pyro.sample("x", dist.Normal(z @ self.weight.T + self.bias, self.scale).to_event(1), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """The exact posterior as a guide."""
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.posterior(x))

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        r"""Return p(z|x) = N(S W^T \Sigma^{-1} (x - b), S), where S = (I + W^T \Sigma^{-1} W)^{-1}."""
        covariance = self.posterior_tril @ self.posterior_tril.T
        loc = ((x - self.bias) / self.scale.square()) @ self.weight @ covariance
        return dist.MultivariateNormal(loc, scale_tril=self.posterior_tril)

    def log_evidence(self, x: Tensor) -> Tensor:
        """Return log P(x) of each row, (B,), nats."""
        return dist.LowRankMultivariateNormal(self.bias, self.weight, self.scale.square()).log_prob(x)


def quadrature(
    model: Any, x: Data, *, num_points: int = 200, chunk_size: int | None = None, max_zooms: int = 12
) -> Tensor:
    r"""Compute log P(x) on a grid, for a model with one or two continuous latent dimensions.

    .. math:: \log P(x) = \log \int p(x, z)\,dz \approx \log \sum_g p(x, z_g)\, h^n

    The trapezoidal rule, whose error falls exponentially for smooth densities. The grid starts wide
    around the prior and shrinks, for each datum, to where the density is not negligible
    (within 40 nats of its maximum). A mode much narrower than the first grid's spacing can be
    missed: compare with twice the ``num_points``.

    Args:
        model: A Pyro model of ``x`` with one data plate, or a :class:`pyro_vae.VAE`.
        x: Data, (N, ...).
        num_points: Points along each latent dimension.
        chunk_size: The most (datum, point) pairs decoded at once.
        max_zooms: How often the grid may shrink.

    Returns:
        log P(x) for each datum, (N,), nats.

    Raises:
        ValueError: If the model has more than two latent dimensions, or discrete ones.

    Reference:
        Trefethen & Weideman (2014), The Exponentially Convergent Trapezoidal Rule, section 5.

    Example:
        >>> exact = LinearGaussian(torch.tensor([[2.0]]), scale=torch.ones(1))
        >>> quadrature(exact.model, torch.zeros(1, 1))
        tensor([-1.7237])
    """
    model = as_model(model)
    check_count(num_points=num_points, max_zooms=max_zooms)
    x = check_data(model, x)
    chunk_size = default_chunk_size(model, x) if chunk_size is None else chunk_size
    with quiet(model, x, seed=0) as seeds:
        reseed(seeds)
        parts = [
            _quadrature(model, take(x, slice(i, i + 1)), num_points, chunk_size, max_zooms) for i in range(num_data(x))
        ]
        return torch.cat(parts)


def _quadrature(model: Any, x: Data, num_points: int, chunk_size: int, max_zooms: int) -> Tensor:
    """Integrate for one datum."""
    latents = Latents(model, x)
    if latents.size > 2:
        raise ValueError(f"quadrature takes one or two latent dimensions, but the model has {latents.size}: use ais")
    draws = latents.flatten(draw(prior(model), x, 1000)[0])[:, 0]  # (1000, n)
    centre, width = draws.mean(0), 8 * draws.std(0)
    low, high = centre - width, centre + width
    log_density = ChunkedLogDensity(model, chunk_size)
    for _ in range(max_zooms):
        axes = [
            torch.linspace(a, b, num_points, dtype=draws.dtype, device=draws.device)
            for a, b in zip(low.tolist(), high.tolist(), strict=True)
        ]
        grid = torch.cartesian_prod(*axes).reshape(-1, 1, latents.size)  # (G, 1, n)
        values, log_jacobian = latents.unflatten(grid)
        log_joint = log_density(x, values) + log_jacobian  # (G, 1)
        spacing = (high - low) / (num_points - 1)
        inside = grid[(log_joint > log_joint.max() - 40)[:, 0], 0]
        new_low = torch.maximum(inside.min(0).values - spacing, low)
        new_high = torch.minimum(inside.max(0).values + spacing, high)
        if ((new_high - new_low) > 0.8 * (high - low)).all():
            break
        low, high = new_low, new_high
    return log_joint.logsumexp(0) + spacing.log().sum()
