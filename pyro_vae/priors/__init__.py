"""Priors p(z), one file each."""

from pyro_vae.priors.standard_normal import StandardNormal as StandardNormal
