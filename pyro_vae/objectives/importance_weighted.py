"""The importance-weighted bound, with low-variance gradients."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.objectives.per_datum import PerDatumELBO, joint_at, latents_of
from pyro_vae.program import Data, log_prob, trace


class ImportanceWeightedELBO(PerDatumELBO):
    r"""The importance-weighted bound of each datum, with a choice of gradient estimators.

    .. math:: \log \frac1K \sum_k w_k \le \log p(x) \text{ in expectation}, \quad
              w_k = \frac{p(x, z_k)}{q(z_k|x)}, \quad z_k \sim q(z|x)

    With :math:`\tilde w_k = w_k / \sum_j w_j`, the gradient with respect to the guide's parameters is

    - "plain": :math:`\sum_k \tilde w_k \nabla \log w_k`. With growing K its signal shrinks faster than its noise.
    - "stl", sticking the landing: without the part of zero mean,
      :math:`\sum_k \tilde w_k \frac{\partial \log w_k}{\partial z_k} \nabla z_k`. It vanishes at the exact posterior;
      for K > 1 it is biased.
    - "dreg", doubly reparameterised: :math:`\sum_k \tilde w_k^2 \frac{\partial \log w_k}{\partial z_k} \nabla z_k`.
      Unbiased, and its signal-to-noise ratio grows with K.

    The model's parameters always follow :math:`\sum_k \tilde w_k \nabla \log p(x, z_k)`.

    Args:
        num_particles: Samples of z for each datum, K. With one, the bound is the ELBO.
        gradient: How to estimate the gradient with respect to the guide's parameters.

    Raises:
        ValueError: From its methods, for a latent site that can't be reparameterised, and for any site
            outside of the data plate or with a scale.

    Reference:
        Burda et al. (2016), Importance Weighted Autoencoders, equations 8 and 14; Roeder et al. (2017), Sticking the
        Landing; Tucker et al. (2019), Doubly Reparameterized Gradient Estimators, equation 8; Rainforth et al. (2018),
        Tighter Variational Bounds are Not Necessarily Better.

    Example:
        >>> from pyro_vae import build
        >>> vae, x = build((1, 4, 4)), torch.ones(3, 16)
        >>> ImportanceWeightedELBO(num_particles=8, gradient="dreg").bounds(vae.model, vae.guide, x).shape
        torch.Size([3])
    """

    def __init__(self, num_particles: int = 8, gradient: Literal["plain", "stl", "dreg"] = "dreg"):
        if num_particles < 1:
            raise ValueError(f"num_particles: expected at least 1, got {num_particles}")
        if gradient not in ("plain", "stl", "dreg"):
            raise ValueError(f'gradient: expected "plain", "stl" or "dreg", got {gradient!r}')
        super().__init__(num_particles=num_particles, max_plate_nesting=1, vectorize_particles=True)
        self.gradient = gradient

    def bounds(self, model: Callable, guide: Callable, x: Data) -> Tensor:
        """Return log-mean-exp of each datum's log-weights, (B,), in nats."""
        drawn = trace(guide, x, self.num_particles)
        z = latents_of(drawn)
        if self.gradient == "plain" or not torch.is_grad_enabled():
            log_w = log_prob(joint_at(model, x, self.num_particles, z)) - log_prob(drawn)  # (K, B)
            return log_w.logsumexp(0) - math.log(self.num_particles)

        # d log w / dz is taken apart: through the model by autograd as usual, through log q with the guide's
        # parameters held fixed. Both arrive at `gated`, and go on from there to the guide's parameters.
        gated = {name: value.clone() for name, value in z.items()}
        log_p = log_prob(joint_at(model, x, self.num_particles, gated))  # (K, B)
        leaves = {name: value.detach().requires_grad_() for name, value in z.items()}
        log_q = log_prob(_at(drawn, guide, x, leaves))  # (K, B)
        weights = (log_p - log_q).detach().softmax(0)
        surrogate = (weights * log_p).sum(0)
        for value, dq in zip(
            gated.values(), torch.autograd.grad((weights * log_q).sum(), [*leaves.values()]), strict=True
        ):
            surrogate = surrogate - (dq * value).reshape(*weights.shape, -1).sum((0, -1))
            if self.gradient == "dreg" and value.requires_grad:
                value.register_hook(
                    lambda gradient: gradient * weights.reshape(weights.shape + (1,) * (gradient.dim() - 2))
                )
        bound = (log_p - log_q).detach().logsumexp(0) - math.log(self.num_particles)
        return bound + surrogate - surrogate.detach()


def _at(drawn: poutine.Trace, guide: Callable, x: Data, leaves: dict[str, Tensor]) -> poutine.Trace:
    """Return the guide's trace with its draws replaced by leaves of the graph."""
    if len(leaves) > 1:  # the distribution of one draw may depend on another
        return trace(guide, x, len(next(iter(leaves.values()))), leaves)
    copied = drawn.copy()
    for name, leaf in leaves.items():
        copied.nodes[name] = drawn.nodes[name].copy()
        copied.nodes[name]["value"] = leaf
    return copied
