"""Training: stochastic variational inference on data held in memory."""

from pyro_vae.training.cross_fit import cross_fit
from pyro_vae.training.fit import fit
from pyro_vae.training.loop import NonFiniteLoss, Training
from pyro_vae.training.options import Options

__all__ = ["NonFiniteLoss", "Options", "Training", "cross_fit", "fit"]
