"""The Bernoulli likelihood."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.base import Likelihood


class Bernoulli(Likelihood):
    r"""The article's likelihood, :math:`\log p(x|z) = \sum_d x_d \log p_d + (1 - x_d) \log(1 - p_d)`.

    The decoder gives the logits of :math:`p`; computed from logits, the log-probability stays
    exact where :math:`p` would round to 0 or 1.

    Args:
        grey: Accept values between 0 and 1. The sum above is then the article's loss
            (the binary cross-entropy), but not the logarithm of a density.

    Reference:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, equation 11.

    Example:
        >>> import torch
        >>> Bernoulli()(torch.zeros(2, 1)).log_prob(torch.ones(2))  # 2 log 1/2
        tensor(-1.3863)
    """

    pixels = "binarized"

    def __init__(self, grey: bool = False):
        super().__init__()
        self.is_density = not grey
        self.support = constraints.unit_interval if grey else constraints.boolean
        self.accepts = "values from 0 to 1" if grey else "zeros and ones"

    def forward(self, raw: Tensor) -> dist.Distribution:
        """Return the product of Bernoullis with logits ``raw``, (..., D, 1)."""
        logits = raw.squeeze(-1)
        if not self.is_density:
            return _GreyBernoulli(logits=logits).to_event(1)
        return _Product(dist.Bernoulli(logits=logits), 1)

    def initial_raw(self, x: Tensor) -> Tensor:
        """Return the logits of the mean of each element, kept away from 0 and 1."""
        return x.mean(0).clamp(0.01, 0.99).logit().unsqueeze(-1)


class _Product(dist.Independent):
    """Independent Bernoullis, scored in fewer passes over the logits than one by one."""

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits = self.base_dist.logits.expand(torch.broadcast_shapes(self.base_dist.logits.shape, value.shape))
        if logits.requires_grad or value.requires_grad:
            return _SumLogProb.apply(logits, value)
        return torch.ops.pyro_vae.sum_log_prob_bernoulli(logits, value)


class _SumLogProb(torch.autograd.Function):
    """The sum over the last dimension, with its gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(logits, value)
        return torch.ops.pyro_vae.sum_log_prob_bernoulli(logits, value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, value = ctx.saved_tensors
        gradient = gradient.unsqueeze(-1)
        of_value = (gradient * logits).sum_to_size(value.shape) if ctx.needs_input_grad[1] else None
        return gradient * (value - logits.sigmoid()), of_value


# An operation of torch's, so that a recording of the program repeats it as a whole, with its look at the values.
_library = torch.library.Library("pyro_vae", "FRAGMENT")
_library.define("sum_log_prob_bernoulli(Tensor logits, Tensor value) -> Tensor")


@torch.library.impl(_library, "sum_log_prob_bernoulli", "CompositeExplicitAutograd")
def _sum_log_prob(logits: Tensor, value: Tensor) -> Tensor:
    r"""Return the log-probability of zeros and ones, summed over the last dimension.

    .. math:: \sum_d \log \sigma(y_d) = \sum_d \log \prod_{e=1}^4 \sigma(y_{de}), \quad y = (2 x - 1) \cdot logits

    One logarithm does for four elements, so that little more than the sigmoid has to be computed. Where a product
    comes near to the smallest number there is, the sum is computed again, in a way that can't underflow.
    """
    signs = 2 * value - 1
    if logits.device.type == "cpu":  # on a GPU, one would wait for the smallest product
        products = _products((signs * logits).sigmoid_(), 4)
        if products.numel() and products.amin() > 100 * torch.finfo(products.dtype).tiny:
            return products.log_().sum(-1)
    return -_sum_softplus_(-signs * logits)


def _sum_softplus_(y: Tensor) -> Tensor:
    r"""Return the sum of softplus over the last dimension, overwriting ``y``.

    .. math:: \sum_d \log(1 + e^{y_d}) = \sum_d \max(y_d, 0) + \log 2\, \log_2 \prod_d (1 + 2^{-|y_d| / \log 2})

    Powers of 2 are fast, and a product of 16 factors from 1 to 2 can't overflow.
    """
    positive = y.relu().sum(-1)
    factors = y.abs_().mul_(-1 / math.log(2)).exp2_().add_(1)
    return positive + math.log(2) * _products(factors, 16).log2_().sum(-1)


def _products(factors: Tensor, size: int) -> Tensor:
    """Return the products of groups of ``size`` factors, and of those that are left over."""
    columns, rest = divmod(factors.shape[-1], size)
    products = factors[..., : size * columns].unflatten(-1, (size, columns)).prod(-2)
    if rest:
        products = torch.cat([products, factors[..., size * columns :].prod(-1, keepdim=True)], -1)
    return products


class _GreyBernoulli(dist.Bernoulli):
    support = constraints.unit_interval
