"""Quasi-random draws: points that fill the space more evenly than independent ones."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.program import Program


def quasi_random(guide: Program) -> Program:
    r"""Draw the Gaussian sites of a guide from a scrambled Sobol' sequence, shifted at random for each datum.

    .. math:: z_{kb} = \mu_b + L_b\, \Phi^{-1}\big((s_k + u_b) \bmod 1\big), \quad u_b \sim \mathrm{Uniform}[0, 1)^n

    Each draw has the distribution that it had, so that the mean of the weights is P(x) without bias as before, and
    its error is usually smaller. The draws of one datum are no longer independent: a standard error that takes them
    as such, as that of :func:`log_evidence`, is then usually too large. Different data stay independent.

    Args:
        guide: A guide whose continuous sites are Gaussian, transformed or not, such as :func:`refined` returns.

    Returns:
        A guide over the same sites.

    Raises:
        ValueError: When run: if a site is not Gaussian, by name.

    Reference:
        Owen (2013), Monte Carlo theory, methods and examples, sections 17.1 and 17.3.

    Example:
        >>> from pyro_vae.evidence.exact import LinearGaussian
        >>> from pyro_vae.evidence.importance import log_evidence
        >>> exact, x = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3)), torch.zeros(1, 3)
        >>> round(log_evidence(exact.model, quasi_random(exact.guide), x, num_samples=100).mean, 3)
        -3.45
    """

    def proposal(*x: Tensor) -> Any:
        with _QuasiRandom():
            return guide(*x)

    return proposal


class _QuasiRandom(Messenger):
    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and type(msg["fn"]).__name__ != "_Subsample":
            msg["fn"] = _quasi_random(msg["fn"], msg["name"])


def _quasi_random(fn: Any, name: str) -> Any:
    """Return a distribution with the same density; of a transformed one, the one that it starts from is changed."""
    if isinstance(fn, torch.distributions.TransformedDistribution):
        return dist.TransformedDistribution(_quasi_random(fn.base_dist, name), fn.transforms)
    if isinstance(fn, torch.distributions.Independent):
        return dist.Independent(_quasi_random(fn.base_dist, name), fn.reinterpreted_batch_ndims)
    if isinstance(fn, torch.distributions.Normal):
        return _Normal(fn.loc, fn.scale)
    if isinstance(fn, torch.distributions.MultivariateNormal):
        return _MultivariateNormal(fn.loc, scale_tril=fn._unbroadcasted_scale_tril)
    raise ValueError(
        f"guide site '{name}' is {type(fn).__name__}, and only Gaussian sites can be drawn quasi-randomly: "
        "leave it out, or use refined or laplace"
    )


class _Normal(dist.Normal):
    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc + self.scale * _gaussian_points(self._extended_shape(torch.Size(sample_shape)), self.loc)


class _MultivariateNormal(dist.MultivariateNormal):
    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        points = _gaussian_points(self._extended_shape(torch.Size(sample_shape)), self.loc)
        return self.loc + torch.einsum("...mn,...n->...m", self._unbroadcasted_scale_tril, points)


def _gaussian_points(shape: torch.Size, like: Tensor) -> Tensor:
    """Return a Sobol' sequence over the first dimension, shifted at random over the others and taken to N(0, 1)."""
    seed = int(torch.randint(2**31, ()))
    sequence = torch.quasirandom.SobolEngine(shape[2:].numel(), scramble=True, seed=seed)
    points = sequence.draw(shape[0], dtype=like.dtype).to(like.device).reshape(shape[0], 1, *shape[2:])
    uniform = (points + torch.rand(shape[1:], dtype=like.dtype, device=like.device)).frac()
    edge = torch.finfo(like.dtype).eps
    return torch.special.ndtri(uniform.clamp(edge, 1 - edge))
