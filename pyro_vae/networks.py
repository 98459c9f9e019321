"""Networks for encoders and decoders; each accepts any leading dimensions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
}


def mlp(
    in_dim: int,
    hidden_dims: Sequence[int],
    out_shape: int | tuple[int, ...],
    activation: str = "relu",
) -> nn.Sequential:
    """Build a multi-layer perceptron, (..., in_dim) -> (..., *out_shape).

    Args:
        in_dim: Width of the input.
        hidden_dims: Width of each hidden layer.
        out_shape: Width of the output, or its trailing shape.
        activation: One of ``ACTIVATIONS``.

    Example:
        >>> mlp(784, [400], (20, 2))(torch.zeros(5, 784)).shape
        torch.Size([5, 20, 2])
    """
    layers: list[nn.Module] = []
    for width in hidden_dims:
        layers += [nn.Linear(in_dim, width), ACTIVATIONS[activation]()]
        in_dim = width
    if isinstance(out_shape, int):
        return nn.Sequential(*layers, nn.Linear(in_dim, out_shape))
    return nn.Sequential(*layers, nn.Linear(in_dim, math.prod(out_shape)), nn.Unflatten(-1, out_shape))


def bounded_exp(x: Tensor, low: float = -15.0, high: float = 5.0) -> Tensor:
    """Return exp(x), continued by its tangent above ``high`` and constant below ``low``.

    A scale computed with it can neither overflow nor become zero, whatever the network
    puts out; inside the bounds, where trained models are, it is exp to the last bit.

    Example:
        >>> bounded_exp(torch.tensor([0.0, 100.0])).tolist()
        [1.0, 14247.674...]
    """
    return x.clamp(low, high).exp() * (1 + torch.relu(x - high))
