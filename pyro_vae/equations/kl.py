"""The closed-form divergences, and z = mu + sigma * eps."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.equations import closed_forms as derivation
from pyro_vae.equations.densities import as_normal, is_standard, not_normal, terms
from pyro_vae.equations.rows import Row, estimated, exact, exactly, mean, not_applicable
from pyro_vae.vae import VAE


def kl_rows(vae: VAE, x: Tensor, num: int) -> list[Row]:
    """The closed-form divergences against torch's and against sampling."""
    q = vae.encoder(x)
    normal = as_normal(q)
    by_torch = "KL[Q || N(0, I)]: closed form = torch.distributions"
    by_sampling = "KL[Q || N(0, I)]: closed form = E_Q[log Q - log P(z)]"
    if normal is None or not is_standard(vae.prior()):
        reason = f"no closed form is derived for {type(vae.encoder).__name__} and {type(vae.prior).__name__}"
        rows = not_applicable([by_torch, by_sampling], reason)
    else:
        closed = derivation.kl_standard_normal(*normal)
        log_q, log_prior, _ = terms(vae, x, q.sample((num,)))
        rows = [
            exact(by_torch, closed, kl_divergence(q, vae.prior())),
            estimated(by_sampling, exactly(closed), mean(log_q - log_prior)),
        ]
    between = "KL[N(m, s^2) || N(m', s'^2)]: closed form = torch.distributions"
    if normal is None:
        return rows + not_applicable([between], not_normal(vae))
    loc, scale = normal
    other_loc, other_scale = loc.flip(0), scale.flip(0) * 1.5  # each datum's Q against another's
    p = dist.Normal(other_loc, other_scale).to_event(1)
    closed = derivation.kl_diagonal_normals(loc, scale, other_loc, other_scale)
    return [*rows, exact(between, closed, kl_divergence(dist.Normal(loc, scale).to_event(1), p))]


def noise_rows(vae: VAE, x: Tensor, num: int) -> list[Row]:
    """The density of mu + sigma * eps by change of variables, and the spread of the guide's own draws."""
    density = "z = mu + sigma * eps has the density N(mu, sigma^2)"
    spread = "E_Q[(z - mu)^2 / sigma^2] = 1, z from the Pyro guide"
    normal = as_normal(vae.encoder(x))
    if normal is None:
        return not_applicable([density, spread], not_normal(vae))
    loc, scale = (parameter.detach() for parameter in normal)
    eps = torch.randn_like(loc).requires_grad_()
    z = derivation.reparameterize(loc, scale, eps)
    (slope,) = torch.autograd.grad(z.sum(), eps)  # dz/deps; diagonal, since each z depends on its own eps
    changed = derivation.log_normal(eps, torch.zeros_like(loc), torch.ones_like(scale)) - slope.abs().log().sum(-1)
    draws = torch.stack([vae.guide(x).detach() for _ in range(num)])
    squares = mean(((draws - loc) / scale).square().mean(-1))
    return [
        exact(density, changed, dist.Normal(loc, scale).to_event(1).log_prob(z)),
        estimated(spread, squares, exactly(torch.ones_like(squares.value))),
    ]
