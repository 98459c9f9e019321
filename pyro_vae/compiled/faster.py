"""Functions to compute in the place of torch's own: as exact in float32, and faster on a CPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def _softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return log(1 + exp(x)); torch's own takes several times as long, since log1p is slow."""
    x = x * beta  # dropped from the graph where beta is 1
    larger = 0.5 + (x.sigmoid() - 0.5).abs()  # of sigmoid(x) and sigmoid(-x)
    return (x.relu() - larger.log()) / beta


def _softplus_backward(gradient: Tensor, x: Tensor, beta: float, threshold: float) -> Tensor:
    return gradient * (x * beta).sigmoid()


def _log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    return -_softplus(-x), x.new_empty(0)


def _log_sigmoid_backward(gradient: Tensor, x: Tensor, buffer: Tensor) -> Tensor:
    return gradient * (-x).sigmoid()


def _cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None = None, pos_weight: Tensor | None = None, reduction: int = 1
) -> Tensor:
    if pos_weight is None:
        loss = _softplus(x) - x * target
    else:
        loss = (1 - target) * x + (1 + (pos_weight - 1) * target) * _softplus(-x)
    loss = loss if weight is None else loss * weight
    return loss.mean() if reduction == 1 else loss.sum() if reduction == 2 else loss


FASTER: dict[Any, Callable[..., Any]] = {
    aten.softplus.default: _softplus,
    aten.softplus_backward.default: _softplus_backward,
    aten.log_sigmoid_forward.default: _log_sigmoid,
    aten.log_sigmoid_backward.default: _log_sigmoid_backward,
    aten.binary_cross_entropy_with_logits.default: _cross_entropy,
}
