"""The models of a check without a run, and models that a check makes from another."""

import copy

import torch
from torch import Tensor, nn

from pyro_vae.encoders import DiagonalNormal
from pyro_vae.equations import closed_forms as derivation
from pyro_vae.likelihoods import Bernoulli, Gaussian
from pyro_vae.networks import mlp
from pyro_vae.priors import StandardNormal
from pyro_vae.vae import VAE


def linear_gaussian(*, orthogonal: bool = False) -> tuple[VAE, derivation.LinearGaussian, Tensor]:
    """Return a small linear-Gaussian VAE, its closed form, and data, in float64.

    Args:
        orthogonal: Make the posterior's covariance diagonal, so that the guide can equal it.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        decoder = mlp(2, [], (5, 1)).double()
        encoder = DiagonalNormal(mlp(5, [], 2 * 2).double())
        weight, bias, scale = 0.7 * torch.randn(5, 2).double(), torch.randn(5).double(), 1.5
        if orthogonal:
            weight = torch.linalg.qr(weight)[0] * torch.tensor([1.0, 3.0])
        x = torch.randn(8, 5).double()
    exact = derivation.LinearGaussian(weight, bias, torch.full_like(bias, scale))
    with torch.no_grad():
        for parameter, value in zip(decoder.parameters(), (weight, bias), strict=True):
            parameter.copy_(value)
    vae = VAE(prior=StandardNormal(2).double(), encoder=encoder, decoder=decoder, likelihood=Gaussian(scale=scale))
    return vae, exact, x


def bernoulli() -> tuple[VAE, Tensor]:
    """Return a small VAE of the article's kind and data, in float64."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        vae = VAE(
            prior=StandardNormal(2),
            encoder=DiagonalNormal(mlp(12, [16], 2 * 2)),
            decoder=mlp(2, [16], (12, 1)),
            likelihood=Bernoulli(),
        )
        return vae.double(), torch.rand(8, 12).double().round()


@torch.no_grad()
def set_to_posterior(vae: VAE, exact: derivation.LinearGaussian) -> None:
    """Give the linear encoder of ``vae`` the mean and the deviations of P(z|x)."""
    layer = next(module for module in vae.encoder.modules() if isinstance(module, nn.Linear))
    origin, cov = exact.posterior(torch.zeros_like(exact.bias))
    slope = exact.posterior(torch.eye(len(exact.bias)).to(origin))[0] - origin  # (D, Z)
    layer.weight.copy_(torch.cat([slope.T, torch.zeros_like(slope.T)]))
    layer.bias.copy_(torch.cat([origin, 0.5 * cov.diagonal().log()]))


@torch.no_grad()
def perturbed(vae: VAE, size: float = 0.05) -> VAE:
    """Return a copy whose encoder's weights are moved a little."""
    vae = copy.deepcopy(vae)
    for parameter in vae.encoder.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=size)
    return vae


def untrained(vae: VAE) -> VAE:
    """Return a copy whose encoder and decoder are as they were before training."""
    vae = copy.deepcopy(vae)
    for module in [*vae.encoder.modules(), *vae.decoder.modules()]:
        if callable(initialize := getattr(module, "reset_parameters", None)):
            initialize()
    return vae
