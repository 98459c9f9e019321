"""Densities that integrate to one, and draws that come from them."""

import torch
from pyro.distributions import Independent
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.testing.case import Case
from pyro_vae.testing.saying import ERRORS, expect, saying
from pyro_vae.testing.shapes import check_shapes


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
        # z = sinh t: fine steps around the origin, and tails out to 300.
        t = torch.linspace(-6.4, 6.4, {1: 4001, 2: 401}[case.z_dim], dtype=torch.float64)
        z = torch.cartesian_prod(*[t.sinh()] * case.z_dim).view(-1, case.z_dim)
        volume = torch.cartesian_prod(*[t.cosh() * (t[1] - t[0])] * case.z_dim).view(-1, case.z_dim).prod(-1)
        _check_mass(case.name, given, p.log_prob(z).exp() * volume, z, p.sample(torch.Size([10_000])))


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
        points, volume = _elements(likelihood.support)
        x = points.unsqueeze(-1)
        log_prob = p.base_dist.log_prob(x.expand(-1, x_dim)) if x_dim > 1 else p.log_prob(x).unsqueeze(-1)
        for d in range(x_dim):
            mass = log_prob[:, d].exp() * volume
            _check_mass(case.name, f"over element {d}", mass, points.unsqueeze(-1), samples[:, d : d + 1])


def _elements(support: constraints.Constraint) -> tuple[Tensor, Tensor]:
    """Return points all over the support of one element, and the volume that each stands for."""
    if support.is_discrete:
        x = torch.arange(-1000, 1000, dtype=torch.float64)
        x = x[support.check(x)]
        return x, torch.ones_like(x)
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if low is not None and high is not None:
        edges = torch.linspace(float(low), float(high), 100_001, dtype=torch.float64)
        return (edges[1:] + edges[:-1]) / 2, edges.diff()
    if low is None and high is None:
        t = torch.linspace(-7.6, 7.6, 20_001, dtype=torch.float64)
        return t.sinh(), t.cosh() * (t[1] - t[0])
    t = torch.linspace(-30, 7, 40_001, dtype=torch.float64)
    return (low + t.exp() if low is not None else high - t.exp()), t.exp() * (t[1] - t[0])


def _check_mass(name: str, given: str, mass: Tensor, points: Tensor, samples: Tensor) -> None:
    total = mass.sum().item()
    expect(abs(total - 1) <= 2e-4, name, f"a density that integrates to one {given}", f"{total:.6g}")

    # Means of bounded functions, so that heavy tails have a standard error too.
    def functions(v: Tensor) -> Tensor:
        pairs = v.unsqueeze(-1) - v.unsqueeze(-2) if v.shape[-1] > 1 else v.unsqueeze(-1)
        features = torch.cat([v, pairs.flatten(1), v.sum(-1, keepdim=True)], dim=-1)
        return torch.cat([features.tanh(), features.sin(), features.cos(), (features / 20).tanh()], dim=-1)

    values = functions(samples)
    expected = (functions(points) * mass.unsqueeze(-1)).sum(0) / total
    standard_error = values.std(0) / len(values) ** 0.5
    off = ((values.mean(0) - expected).abs() - 1e-6).clamp(min=0) / (standard_error + 1e-300)
    came = f"a mean that is {off.max():.3g} standard errors away"
    expect((off <= ERRORS).all(), name, f"draws that come from its density {given}", came)
