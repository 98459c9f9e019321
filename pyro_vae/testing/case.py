"""A small model around the part that is checked."""

from typing import Any

import torch
from pyro.distributions import Distribution
from torch import Tensor, nn

from pyro_vae.base import Encoder, Likelihood, Prior
from pyro_vae.encoders import DiagonalNormal
from pyro_vae.likelihoods import Gaussian
from pyro_vae.networks import mlp
from pyro_vae.priors import StandardNormal
from pyro_vae.testing.saying import expect, make_part
from pyro_vae.vae import VAE


class Case:
    """A small VAE in float64 around the part, with parameters away from their special starting values."""

    def __init__(self, kind: type, make: Any, options: dict[str, Any], *, x_dim: int, z_dim: int):
        self.kind, self.make, self.options, self.x_dim, self.z_dim = kind, make, options, x_dim, z_dim
        self.vae = self.build()
        self.part: Any = getattr(self.vae, kind.__name__.lower())
        self.name = type(self.part).__name__

    def build(self, seed: int = 0) -> VAE:
        torch.manual_seed(seed)
        x_dim, z_dim = self.x_dim, self.z_dim
        own = self.kind is Encoder and not isinstance(self.make, nn.Module)
        encoder_class = self.make if own and hasattr(self.make, "num_outputs") else DiagonalNormal
        network = mlp(x_dim, [8], encoder_class.num_outputs(z_dim), "tanh")
        known = {"x_dim": x_dim, "z_dim": z_dim, "levels": 17, "grey": False, "network": network}
        if own and encoder_class is DiagonalNormal is not self.make:
            del known["network"]  # how wide it has to be, only the class knows
        parts: dict[type, Any] = {
            Encoder: DiagonalNormal(mlp(x_dim, [8], 2 * z_dim, "tanh")),
            Prior: StandardNormal(z_dim),
            Likelihood: Gaussian(scale="predicted"),
        }
        known["encoder"] = parts[Encoder]
        parts[self.kind] = make_part(self.make, self.kind, known, self.options)
        decoder = mlp(z_dim, [8], (x_dim, parts[Likelihood].params_per_element), "tanh")
        vae = VAE(prior=parts[Prior], encoder=parts[Encoder], decoder=decoder, likelihood=parts[Likelihood]).double()
        perturb(vae)
        return vae

    def latent(self) -> Distribution:
        """Return p(z), or q(z|x) for one x."""
        if self.kind is Prior:
            return self.vae.prior()
        return self.vae.encoder(torch.linspace(-1, 1, self.x_dim, dtype=torch.float64))

    def outputs(self, vae: VAE) -> list[Tensor]:
        """Return log p(z), log q(z|x) and log p(x|z) at fixed points."""
        torch.manual_seed(5)
        z = torch.randn(4, self.z_dim, dtype=torch.float64).to(next(vae.parameters()))
        raw = vae.decoder(z)
        with torch.no_grad():
            x = vae.likelihood(torch.zeros_like(raw)).sample()
        return [vae.prior().log_prob(z), vae.encoder(x).log_prob(z), vae.likelihood(raw).log_prob(x)]


@torch.no_grad()
def perturb(module: nn.Module) -> None:
    """Move all parameters a little."""
    for parameter in module.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))


def width(name: str, p: Any) -> int:
    """Return the number of latent dimensions of a distribution of one latent vector."""
    expect(len(p.event_shape) == 1, name, "the event shape (z_dim,)", f"{tuple(p.event_shape)}; use to_event(1)")
    return p.event_shape[0]
