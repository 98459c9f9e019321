"""The densities that the equations speak of, at draws and at quadrature nodes, and what kind they are."""

import math
from typing import NamedTuple

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints, kl_divergence
from torch.types import _size

from pyro_vae.equations import closed_forms as derivation
from pyro_vae.vae import VAE


class Terms(NamedTuple):
    """The log-densities at draws of z, (K, B) each."""

    log_q: Tensor
    log_prior: Tensor
    log_likelihood: Tensor


def log_likelihood(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log P(x|z), (..., B), for x of (B, D) and z of (..., B, Z)."""
    return vae.likelihood(vae.decoder(z)).log_prob(x)


@torch.no_grad()
def terms(vae: VAE, x: Tensor, z: Tensor) -> Terms:
    """The three log-densities at z, (K, B, Z), a few draws at once so that memory stays bounded."""
    q, prior = vae.encoder(x), vae.prior()
    at_once = max(1, 10**7 // (x.numel() * vae.likelihood.params_per_element))
    pieces = [(q.log_prob(part), prior.log_prob(part), log_likelihood(vae, x, part)) for part in z.split(at_once)]
    return Terms(*(torch.cat(piece) for piece in zip(*pieces, strict=True)))


class Halves(dist.TorchDistribution):
    """The even mixture of two distributions over vectors: no weight p / mixture exceeds 2, nor r / mixture."""

    arg_constraints: dict = {}  # noqa: RUF012  (as torch declares it)
    support = constraints.real_vector

    def __init__(self, p: torch.distributions.Distribution, r: torch.distributions.Distribution):
        self.p, self.r = p, r
        super().__init__(p.batch_shape, p.event_shape, validate_args=False)

    def expand(self, batch_shape: _size, _instance: None = None) -> "Halves":
        """Repeat both."""
        return Halves(self.p.expand(batch_shape), self.r.expand(batch_shape))

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw from either, at even odds."""
        p, r = self.p.sample(sample_shape), self.r.sample(sample_shape)
        return torch.where(torch.rand_like(p[..., :1]) < 0.5, p, r)

    def log_prob(self, value: Tensor) -> Tensor:
        """Add the densities."""
        return torch.logaddexp(self.p.log_prob(value), self.r.log_prob(value)) - math.log(2)


def quadrature_nodes(p: torch.distributions.Distribution, num: int = 48) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes, (K, B, Z), and weights, (K, 1), for expectations over a diagonal normal."""
    points, weights = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(num))
    z_dim = p.event_shape[0]
    eps = torch.cartesian_prod(*[points] * z_dim).unsqueeze(1)  # (K, 1, Z)
    weights = torch.cartesian_prod(*[weights / weights.sum()] * z_dim).prod(-1, keepdim=True)
    return derivation.reparameterize(p.mean, p.stddev, eps), weights


def as_normal(q: dist.Distribution) -> tuple[Tensor, Tensor] | None:
    """The mean and the deviations of a diagonal normal, or None."""
    base = getattr(q, "base_dist", None)
    return (base.loc, base.scale) if isinstance(base, torch.distributions.Normal) else None


def is_standard(prior: dist.Distribution) -> bool:
    """Whether a distribution is N(0, I)."""
    normal = as_normal(prior)
    return normal is not None and bool((normal[0] == 0).all() and (normal[1] == 1).all())


def closed_form_kl(vae: VAE, x: Tensor) -> Tensor | None:
    """KL[Q || P(z)], (B,), or None where torch knows no closed form."""
    try:
        return kl_divergence(vae.encoder(x), vae.prior()).detach()
    except NotImplementedError:
        return None


def no_closed_form(vae: VAE) -> str:
    """Say between what there is no closed-form KL."""
    return f"no closed form of the KL between {type(vae.encoder).__name__} and {type(vae.prior).__name__}"


def not_normal(vae: VAE) -> str:
    """Say which encoder is not a diagonal normal."""
    return f"{type(vae.encoder).__name__} is not a diagonal normal"
