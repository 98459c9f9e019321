"""The variational auto-encoder as a probabilistic program in Pyro."""

from pyro_vae.base import Encoder, Likelihood, Prior
from pyro_vae.networks import mlp
from pyro_vae.vae import VAE

__all__ = ["VAE", "Encoder", "Likelihood", "Prior", "mlp"]
