"""The variational auto-encoder as a probabilistic program in Pyro."""

from pyro_vae import data
from pyro_vae.base import Encoder, Likelihood, Prior
from pyro_vae.build import build
from pyro_vae.conditional import ConditionalVAE
from pyro_vae.evidence import log_evidence, log_weights
from pyro_vae.machine.versions import __version__
from pyro_vae.networks import mlp
from pyro_vae.runs.checkpoint import load, save
from pyro_vae.training import fit
from pyro_vae.vae import VAE

__all__ = [
    "VAE",
    "ConditionalVAE",
    "Encoder",
    "Likelihood",
    "Prior",
    "__version__",
    "build",
    "data",
    "fit",
    "load",
    "log_evidence",
    "log_weights",
    "mlp",
    "save",
]
