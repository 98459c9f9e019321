"""Arrays to pictures."""

from pyro_vae.plotting.curves import curves
from pyro_vae.plotting.evidence import evidence
from pyro_vae.plotting.figure import SMALL
from pyro_vae.plotting.images import completed_images, image_grid, image_plane, image_rows
from pyro_vae.plotting.latent import latent_map
from pyro_vae.plotting.scores import scores
from pyro_vae.plotting.tables import (
    columns_along,
    columns_compared,
    columns_completed,
    columns_plane,
    columns_scattered,
)

__all__ = [
    "SMALL",
    "columns_along",
    "columns_compared",
    "columns_completed",
    "columns_plane",
    "columns_scattered",
    "completed_images",
    "curves",
    "evidence",
    "image_grid",
    "image_plane",
    "image_rows",
    "latent_map",
    "scores",
]
