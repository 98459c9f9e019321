"""Encoders q(z|x), one file each."""

from pyro_vae.encoders.diagonal_normal import DiagonalNormal as DiagonalNormal
