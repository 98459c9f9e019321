"""Hamiltonian Monte Carlo on many chains at once, each with a step size of its datum's own."""

from collections.abc import Callable

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], tuple[Tensor, Tensor]]


def transition(
    log_density: LogDensity, u: Tensor, step_size: Tensor, num_leapfrog: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Make one step that leaves a density invariant.

    .. math:: H(u, p) = -\log f(u) + \tfrac12 p^T p, \quad
        \Pr(\mathrm{accept}) = \min(1, e^{H(u, p) - H(u', p')})

    Args:
        log_density: u -> log f(u), (C, B), and a companion value, (C, B), that is carried along.
        u: Positions, (C, B, n).
        step_size: Of the leapfrog steps, (B, 1).
        num_leapfrog: Their number.

    Returns:
        The next positions, (C, B, n); the acceptance probabilities; the companion value
        before, and after, (C, B).

    Reference:
        Neal (2011), MCMC Using Hamiltonian Dynamics, section 3.2.
    """
    start = u
    log_f, before, gradient = _with_gradient(log_density, u)
    momentum = torch.randn_like(u)
    energy = 0.5 * momentum.square().sum(-1) - log_f
    companion = before
    for _ in range(num_leapfrog):
        momentum = momentum + 0.5 * step_size * gradient
        u = u + step_size * momentum
        log_f, companion, gradient = _with_gradient(log_density, u)
        momentum = momentum + 0.5 * step_size * gradient
    new_energy = 0.5 * momentum.square().sum(-1) - log_f
    probability = (energy - new_energy).clamp(max=0).exp().nan_to_num(0.0)  # a divergence is rejected
    accepted = torch.rand_like(probability) < probability
    return (
        torch.where(accepted[..., None], u, start),
        probability,
        before,
        torch.where(accepted, companion, before),
    )


def _with_gradient(log_density: LogDensity, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        log_f, companion = log_density(u)
        (gradient,) = torch.autograd.grad(log_f.sum(), u)
    return log_f.detach(), companion.detach(), gradient


class StepSizes:
    """A step size for each datum, driven towards an acceptance rate.

    Args:
        like: A tensor of shape (B, 1).
        target: The wanted acceptance rate.
    """

    def __init__(self, like: Tensor, target: float):
        self.now = torch.full_like(like, 0.1)
        self.target = target

    def adapt(self, accepted: Tensor) -> None:
        """Take in the acceptance probabilities, (C, B), of a transition."""
        self.now = self.now * (0.2 * (accepted.mean(0) - self.target)).exp()[:, None]
