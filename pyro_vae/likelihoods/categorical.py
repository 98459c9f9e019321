"""The categorical likelihood."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pyro.distributions import Distribution, TorchDistribution
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import constraints

from pyro_vae.likelihoods.levels import Levels


class Categorical(Levels):
    r"""A free probability for each level of each element.

    .. math:: \log P(x|z) = \sum_d \left[ \eta_{d x_d} - \log \sum_k e^{\eta_{dk}} \right]

    It can have any shape over the levels.

    Args:
        levels: Number of levels; data are whole numbers 0 … levels - 1.
        ordered: The levels have an order, as those of grey have. Otherwise their numbers are names, which have no mean
            (it is NaN): the most probable one stands for all.

    Example:
        >>> Categorical(levels=17)(torch.zeros(1, 17)).log_prob(torch.zeros(1))  # -log 17
        tensor(-2.8332)
    """

    def __init__(self, levels: int, ordered: bool = True):
        super().__init__(levels)
        self.params_per_element = levels
        self.ordered = ordered

    def forward(self, raw: Tensor) -> Distribution:
        """Return the product of categorical distributions with logits ``raw``, (..., D, levels)."""
        return (_Categorical if self.ordered else _Names)(raw).to_event(1)

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return the logarithms of each element's frequencies, with one more datum spread over the levels."""
        num_elements, levels = x.shape[1], self.params_per_element
        offsets = levels * torch.arange(num_elements, device=x.device)
        counts = torch.bincount((offsets + x.long()).flatten(), minlength=num_elements * levels)
        return ((counts.view(num_elements, levels).to(x) + 1 / levels) / (len(x) + 1)).log()


class _Categorical(TorchDistribution):
    """Over levels as numbers: float values, a mean, and no normalised copy of the (large) logits."""

    arg_constraints: ClassVar = {"logits": constraints.real_vector}

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.logits.shape[-1] - 1)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "_Categorical":
        logits = self.logits.expand(*batch_shape, self.logits.shape[-1])
        return type(self)(logits, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        index = value.long().expand(shape).unsqueeze(-1)
        logits = self.logits.expand(*shape, self.logits.shape[-1])
        return logits.gather(-1, index).squeeze(-1) - self.logits.logsumexp(-1)

    @property
    def mean(self) -> Tensor:
        return self.logits.softmax(-1) @ torch.arange(self.logits.shape[-1]).to(self.logits)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return (
            TorchCategorical(logits=self.logits, validate_args=False).sample(torch.Size(sample_shape)).to(self.logits)
        )


class _Names(_Categorical):
    """Over levels whose numbers are names."""

    @property
    def mean(self) -> Tensor:
        return torch.full_like(self.logits[..., 0], torch.nan)

    @property
    def middle(self) -> Tensor:
        return self.logits.argmax(-1).to(self.logits)
