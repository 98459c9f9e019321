"""Encoders q(z|x), one file each."""

from pyro_vae.encoders.diagonal_normal import DiagonalNormal as DiagonalNormal
from pyro_vae.encoders.flow_posterior import FlowPosterior as FlowPosterior
from pyro_vae.encoders.full_rank_normal import FullRankNormal as FullRankNormal
