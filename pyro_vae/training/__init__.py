"""Training: stochastic variational inference on data held in memory."""

from pyro_vae.training.loop import NonFiniteLoss, Training, fit

__all__ = ["NonFiniteLoss", "Training", "fit"]
