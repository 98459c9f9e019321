"""Normalising flows from zuko, as Pyro distributions."""

from types import ModuleType
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.types import _size


def import_zuko() -> ModuleType:
    """Return the module zuko, and leave the validation of distributions as it was.

    Importing zuko switches validation off for all distributions in the process.
    """
    validate_args = Distribution._validate_args
    import zuko

    Distribution.set_default_validate_args(validate_args)
    return zuko


def start_at_identity(transform: Any) -> Any:
    """Make zuko's composed lazy ``transform`` the identity, so that training starts as stable as without it."""
    for step in transform.transforms:
        # In one dimension without context, zuko has the parameters themselves instead of a network.
        last = step.hyper[-1] if hasattr(step, "hyper") else step.phi
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
    return transform


class NormalizingFlow(TorchDistribution):
    r"""The distribution of :math:`z = f(\epsilon)`, where :math:`\epsilon` comes from a base distribution.

    .. math:: \log p(z) = \log p(\epsilon) - \log \left| \det \frac{\partial f}{\partial \epsilon} \right|,
        \quad \epsilon = f^{-1}(z)

    The log-density of the last draw is kept, since drawing it costs next to nothing beside
    drawing z, while computing it from z alone inverts f.

    Args:
        base: The distribution of the noise :math:`\epsilon`, with event shape (z_dim,).
        transform: f, a transform of zuko's.

    Reference:
        Papamakarios et al. (2021), Normalizing Flows for Probabilistic Modeling and Inference, equation 2.

    Example:
        >>> import pyro.distributions as dist
        >>> base = dist.Normal(torch.zeros(2), 1).to_event(1)
        >>> twice = import_zuko().lazy.UnconditionalTransform(torch.distributions.AffineTransform, 0, 2, event_dim=1)
        >>> q = NormalizingFlow(base, twice())
        >>> torch.equal(q.log_prob(torch.ones(2)), dist.Normal(torch.zeros(2), 2).to_event(1).log_prob(torch.ones(2)))
        True
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, base: TorchDistribution, transform: Any, validate_args: bool | None = None):
        self.base = base
        self.transform = transform
        self._last_draw: tuple[Tensor, Tensor, bool] | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: None = None) -> "NormalizingFlow":
        """Return the same flow with noise of batch shape ``batch_shape``."""
        return NormalizingFlow(self.base.expand(batch_shape), self.transform, validate_args=self._validate_args)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Return reparameterised draws, (*sample_shape, *batch_shape, z_dim)."""
        noise = self.base.rsample(sample_shape)
        z, log_det = self.transform.call_and_ladj(noise)
        self._last_draw = z, self.base.log_prob(noise) - log_det, torch.is_grad_enabled()
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of ``value``, in nats."""
        if self._last_draw is not None:
            z, log_prob, has_gradient = self._last_draw
            # What was drawn under no_grad does not know how the density depends on the parameters.
            if value is z and (has_gradient or not torch.is_grad_enabled()):
                return log_prob
        if self._validate_args:
            self._validate_sample(value)
        noise, log_det = self.transform.inv.call_and_ladj(value)
        return self.base.log_prob(noise) + log_det
