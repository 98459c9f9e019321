"""Likelihoods p(x|z), one file each."""

from pyro_vae.likelihoods.bernoulli import Bernoulli as Bernoulli
