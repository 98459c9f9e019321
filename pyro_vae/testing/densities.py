"""Densities that integrate to one, and draws that come from them."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro.distributions import Independent
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.testing.case import Case
from pyro_vae.testing.saying import ERRORS, expect, saying
from pyro_vae.testing.shapes import check_shapes

Grid = tuple[Tensor, Tensor]  # points, (N, D), and the volume that each stands for, (N,)


@torch.no_grad()
def check_latent_density(case: Case) -> None:
    if case.z_dim > 2:
        raise ValueError(
            f"{case.name}: expected z_dim 1 or 2, so that its density can be integrated, got {case.z_dim}; give the "
            "class with its options, or a smaller one"
        )
    given = f"with z_dim={case.z_dim}"
    with saying(case.name, given):
        p = case.latent()
        check_shapes(case.name, p, (), (case.z_dim,), f" {given}")
        _check_density(case.name, given, p.log_prob, _latents(case.z_dim), p.sample(torch.Size([10_000])))


def _latents(z_dim: int) -> Iterator[Grid]:
    """Yield points all over one or two dimensions, coarse ones and then fine ones, with their volumes."""
    # z = sinh t: fine steps around the origin, and tails out to 300, or 11,000.
    for widest, num in ((6.4, {1: 4001, 2: 401}[z_dim]), (10.0, {1: 40_001, 2: 2001}[z_dim])):
        t = torch.linspace(-widest, widest, num, dtype=torch.float64)
        z = torch.cartesian_prod(*[t.sinh()] * z_dim).view(-1, z_dim)
        yield z, torch.cartesian_prod(*[t.cosh() * (t[1] - t[0])] * z_dim).view(-1, z_dim).prod(-1)


@torch.no_grad()
def check_elements(case: Case) -> None:
    """Check the density of one element, or of each where they are independent."""
    likelihood, x_dim = case.vae.likelihood, case.x_dim
    with saying(case.name, f"with x_dim={x_dim}"):
        p = likelihood(0.5 * torch.randn(x_dim, likelihood.params_per_element, dtype=torch.float64))
        samples = p.sample(torch.Size([10_000]))
    independent = isinstance(p, Independent) and p.reinterpreted_batch_ndims == 1
    if not independent and x_dim > 1:
        raise ValueError(
            f"{case.name}: the elements of {type(p).__name__} may depend on each other, so that it can be summed "
            "over one only: give the class, or a function of x_dim that makes it, or x_dim=1"
        )
    with saying(case.name, f"with values all over its support, {likelihood.support}"):
        for d in range(x_dim):

            def log_prob(x: Tensor, d: int = d) -> Tensor:
                return p.log_prob(x) if x_dim == 1 else p.base_dist.log_prob(x.expand(-1, x_dim))[:, d]

            _check_density(
                case.name, f"over element {d}", log_prob, _elements(likelihood.support), samples[:, d : d + 1]
            )


def _elements(support: constraints.Constraint) -> Iterator[Grid]:
    """Yield points all over the support of one element, coarse ones and then fine ones, with their volumes."""
    if support.is_discrete:
        x = torch.arange(-1000, 1000, dtype=torch.float64)
        x = x[support.check(x)]
        yield x.unsqueeze(-1), torch.ones_like(x)
        return
    low: Any = getattr(support, "lower_bound", None)
    high: Any = getattr(support, "upper_bound", None)
    for fine in (1, 10):
        if low is not None and high is not None:
            edges = torch.linspace(float(low), float(high), 100_000 * fine + 1, dtype=torch.float64)
            x, volume = (edges[1:] + edges[:-1]) / 2, edges.diff()
        elif low is None and high is None:
            t = torch.linspace(-7.6, 7.6, 20_000 * fine + 1, dtype=torch.float64) * (1 if fine == 1 else 1.5)
            x, volume = t.sinh(), t.cosh() * (t[1] - t[0])
        else:
            t = torch.linspace(-30, 7, 40_000 * fine + 1, dtype=torch.float64) * (1 if fine == 1 else 1.5)
            x, volume = (high - t.exp() if low is None else low + t.exp()), t.exp() * (t[1] - t[0])
        yield x.unsqueeze(-1), volume


def _check_density(
    name: str, given: str, log_prob: Callable[[Tensor], Tensor], grids: Iterator[Grid], samples: Tensor
) -> None:
    # Means of bounded functions, so that heavy tails have a standard error too.
    def functions(v: Tensor) -> Tensor:
        pairs = v.unsqueeze(-1) - v.unsqueeze(-2) if v.shape[-1] > 1 else v.unsqueeze(-1)
        features = torch.cat([v, pairs.flatten(1), v.sum(-1, keepdim=True)], dim=-1)
        return torch.cat([features.tanh(), features.sin(), features.cos(), (features / 20).tanh()], dim=-1)

    # The fine points are for densities, right ones too, for which the coarse ones do not do.
    for points, volume in grids:
        total, moments = torch.zeros(()), torch.zeros(())
        for x, its_volume in zip(points.split(100_000), volume.split(100_000), strict=True):
            mass = log_prob(x).exp() * its_volume
            total, moments = total + mass.sum(), moments + (functions(x) * mass.unsqueeze(-1)).sum(0)
        if abs(total - 1) <= 2e-4:
            break
    expect(abs(total - 1) <= 2e-4, name, f"a density that integrates to one {given}", f"{total:.6g}")

    values = functions(samples)
    standard_error = values.std(0) / len(values) ** 0.5
    off = ((values.mean(0) - moments / total).abs() - 1e-6).clamp(min=0) / (standard_error + 1e-300)
    came = f"a mean that is {off.max():.3g} standard errors away"
    expect((off <= ERRORS).all(), name, f"draws that come from its density {given}", came)
