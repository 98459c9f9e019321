"""Networks for encoders and decoders; each accepts any leading dimensions."""

import math
from collections.abc import Callable, Sequence

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
    *,
    skip: bool = False,
) -> nn.Module:
    """Build a multi-layer perceptron, (..., in_dim) -> (..., *out_shape).

    Args:
        in_dim: Width of the input.
        hidden_dims: Width of each hidden layer.
        out_shape: Width of the output, or its trailing shape.
        activation: One of ``ACTIVATIONS``.
        skip: Add a linear map from the input to the output, past all layers.

    Example:
        >>> mlp(784, [400], (20, 2))(torch.zeros(5, 784)).shape
        torch.Size([5, 20, 2])
    """
    layers: list[nn.Module] = []
    first_dim = in_dim
    for width in hidden_dims:
        layers += [nn.Linear(in_dim, width), ACTIVATIONS[activation]()]
        in_dim = width
    shape = (out_shape,) if isinstance(out_shape, int) else out_shape
    layers.append(nn.Linear(in_dim, math.prod(shape)))
    if skip:
        layers = [WithSkip(nn.Sequential(*layers), first_dim, math.prod(shape))]
    return nn.Sequential(*layers, *([nn.Unflatten(-1, shape)] if len(shape) > 1 else []))


class WithSkip(nn.Module):
    """Adds a linear map of the input to a network, which has to learn but what is not linear, (..., D) -> (..., D').

    Example:
        >>> WithSkip(mlp(4, [8], 3), 4, 3)(torch.zeros(5, 4)).shape
        torch.Size([5, 3])
    """

    def __init__(self, network: nn.Module, in_dim: int, out_dim: int):
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim, bias=False)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        return self.linear(x) + self.network(x)


def bounded_exp(x: Tensor, low: float = -15.0, high: float = 5.0) -> Tensor:
    """Return exp(x), continued by its tangent above ``high`` and constant below ``low``.

    A scale computed with it can neither overflow nor become zero, whatever the network
    puts out; inside the bounds, where trained models are, it is exp to the last bit.

    Example:
        >>> bounded_exp(torch.tensor([0.0, 100.0])).tolist()
        [1.0, 14247.66...]
    """
    return x.clamp(low, high).exp() * (1 + torch.relu(x - high))


def inverse_of_bounded_exp(y: Tensor, low: float = -15.0, high: float = 5.0) -> Tensor:
    """Return x with bounded_exp(x) = y, for y from exp(low) on; ``low`` for what is less.

    Example:
        >>> inverse_of_bounded_exp(bounded_exp(torch.tensor([-100.0, 1.0, 100.0]))).round()
        tensor([-15.,   1., 100.])
    """
    x = y.clamp(min=math.exp(low)).log()
    return torch.where(x > high, high - 1 + y * math.exp(-high), x)


def conv_encoder(
    x_shape: Sequence[int], channels: Sequence[int], out_dim: int, activation: str = "relu"
) -> nn.Sequential:
    """Build a convolutional network, (..., C*H*W) -> (..., out_dim); each layer halves height and width.

    Args:
        x_shape: Shape of an image, (C, H, W).
        channels: Channels of each convolution.
        out_dim: Width of the output.
        activation: One of ``ACTIVATIONS``.

    Example:
        >>> conv_encoder((1, 28, 28), [16, 32], 40)(torch.zeros(5, 784)).shape
        torch.Size([5, 40])
    """
    layers: list[nn.Module] = []
    for inputs, outputs in zip([x_shape[0], *channels], channels, strict=False):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), ACTIVATIONS[activation]()]
    height, width = _halved(x_shape, len(channels))[-1]
    images = Images(nn.Sequential(*layers), x_shape)
    return nn.Sequential(images, nn.Linear([x_shape[0], *channels][-1] * height * width, out_dim))


def conv_decoder(
    z_dim: int, channels: Sequence[int], x_shape: Sequence[int], params: int, activation: str = "relu"
) -> nn.Sequential:
    """Build the mirror image of :func:`conv_encoder`, (..., z_dim) -> (..., C*H*W, params).

    Args:
        z_dim: Width of the input.
        channels: Channels before each transposed convolution.
        x_shape: Shape of an image, (C, H, W).
        params: Outputs for each pixel and channel.
        activation: One of ``ACTIVATIONS``.

    Example:
        >>> conv_decoder(20, [32, 16], (1, 28, 28), 2)(torch.zeros(5, 20)).shape
        torch.Size([5, 784, 2])
    """
    sizes = _halved(x_shape, len(channels))[::-1]
    layers: list[nn.Module] = []
    for inputs, outputs, small, large in zip(channels, [*channels[1:], None], sizes, sizes[1:], strict=False):
        # The odd sizes lose half a pixel on the way down; the output padding gives it back.
        padding = (large[0] - (2 * small[0] - 1), large[1] - (2 * small[1] - 1))
        layers += [
            ACTIVATIONS[activation](),
            nn.ConvTranspose2d(inputs, outputs or params * x_shape[0], 3, stride=2, padding=1, output_padding=padding),
        ]
    first = (channels[0], *sizes[0])
    elements = math.prod(x_shape)
    return nn.Sequential(
        nn.Linear(z_dim, math.prod(first)),
        Images(nn.Sequential(*layers), first),
        nn.Unflatten(-1, (params, elements)),
        ElementBias(elements, params),
    )


def _halved(x_shape: Sequence[int], times: int) -> list[tuple[int, int]]:
    """Return (height, width) before and after each of the halvings."""
    sizes = [(x_shape[1], x_shape[2])]
    for _ in range(times):
        sizes.append(tuple((size + 1) // 2 for size in sizes[-1]))  # type: ignore[arg-type]
    return sizes


class Images(nn.Module):
    """Applies a network for images, (N, C, H, W), to flat images with any leading dimensions.

    Example:
        >>> Images(nn.Conv2d(1, 2, 3), (1, 8, 8))(torch.zeros(3, 5, 64)).shape
        torch.Size([3, 5, 72])
    """

    def __init__(self, network: nn.Module, x_shape: Sequence[int]):
        super().__init__()
        self.network = network
        self.x_shape = tuple(x_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C*H*W) to the network's outputs, (..., flat)."""
        return self.network(x.reshape(-1, *self.x_shape)).reshape(*x.shape[:-1], -1)


class ElementBias(nn.Module):
    """Adds a learned bias for each element, (..., params, D) -> (..., D, params).

    Example:
        >>> ElementBias(784, 2)(torch.zeros(5, 2, 784)).shape
        torch.Size([5, 784, 2])
    """

    def __init__(self, elements: int, params: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(elements, params))

    def forward(self, x: Tensor) -> Tensor:
        """Swap the last two dimensions, and add the bias."""
        return x.transpose(-1, -2) + self.bias


class BesideLabel(nn.Module):
    """Applies a module to data and hands on the label behind them, (..., D + C) -> (..., D' + C * copies).

    Args:
        module: For the data, (..., D) -> (..., D').
        num_classes: C, how many numbers the label takes.
        copies: Of each of them: as many as there are pixels make a constant image for each class.

    Example:
        >>> BesideLabel(nn.Identity(), num_classes=2, copies=2)(torch.tensor([7.0, 1.0, 0.0]))
        tensor([7., 1., 1., 0., 0.])
    """

    def __init__(self, module: nn.Module, num_classes: int, copies: int = 1):
        super().__init__()
        self.module = module
        self.num_classes, self.copies = num_classes, copies

    def forward(self, x: Tensor) -> Tensor:
        """Split, apply and append."""
        x, label = x[..., : -self.num_classes], x[..., -self.num_classes :]
        return torch.cat([self.module(x), label.repeat_interleave(self.copies, -1)], -1)


FARTHEST = 1e6  # standard deviations


class Standardize(nn.Module):
    """Brings data into the range that networks like, (..., D) -> (..., D).

    Grey levels are divided by the largest; other data are standardized with the moments of
    the training data, set by ``initialize``, and end a million standard deviations from the mean: what is farther out,
    such as 1e30 for a missing value, would make an encoder put out nothing but NaN.

    Example:
        >>> Standardize(3, levels=17)(torch.tensor([0.0, 8.0, 16.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, x_dim: int, levels: int | None = None):
        super().__init__()
        self.levels = levels
        self.register_buffer("loc", torch.zeros(x_dim))
        self.register_buffer("scale", torch.full((x_dim,), levels - 1.0 if levels else 1.0))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Take the moments of the training data, (N, D)."""
        if self.levels is None:
            self.loc.copy_(x.mean(0))
            scale = x.std(0)
            varies = scale > torch.finfo(x.dtype).eps * self.loc.abs()  # by more than the rounding of a constant
            self.scale.copy_(torch.where(varies, scale, torch.ones_like(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Shift and scale."""
        return ((x - self.loc) / self.scale).clamp(-FARTHEST, FARTHEST)


class WithMask(Standardize):
    """Standardizes data, puts 0 where they are blank (NaN), and appends where that is, (..., D) -> (..., 2 D).

    Since the mean of the data is at 0, also of grey levels, a blank says nothing there. The D marks together are as
    large as one standardized element: if each were, the many that move together would drown the data in the first
    steps of a training.

    Args:
        x_dim: D.
        levels: Of the data, whose range becomes 1; None for data that are divided by their standard deviation.

    Reference:
        Mattei & Frellsen (2019), MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets, section 2.

    Example:
        >>> import torch
        >>> WithMask(4, levels=2)(torch.tensor([1.0, 0.0, 1.0, torch.nan]))
        tensor([1.0000, 0.0000, 1.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.5000])
    """

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Take the moments of the training data, (N, D), of which no value is blank any more."""
        super().initialize(x)
        self.loc.copy_(x.mean(0))

    def forward(self, x: Tensor) -> Tensor:
        """Standardize, fill and append."""
        blank = x.isnan()
        return torch.cat([torch.where(blank, 0.0, super().forward(x)), blank / x.shape[-1] ** 0.5], -1)


class TableInput(nn.Module):
    """Brings the columns of a table into the form that networks like, (..., D) -> (..., width).

    Of a category there is a 1 in the place of its code, so that a column with many is as large as one number. Where a
    value is blank (NaN) or its code is none of the column's, there are zeros. Marks of the blanks follow, together as
    large as one number again.

    Args:
        cardinalities: For each column the number of its categories, with the codes 0, 1, …; 0 for numbers.
        as_input: How the numbers are seen, of rows without blanks: a method of the likelihood, whose it stays.
            Default: as they are, standardized before. At most a million standard deviations from their mean.

    Attributes:
        width: How many numbers there are for each row.

    Example:
        >>> TableInput([0, 3, 0, 2])(torch.tensor([0.5, 2.0, torch.nan, 1.0]))
        tensor([0.5000, 0.0000, 0.0000, 0.0000, 1.0000, 0.0000, 1.0000, 0.0000, 0.0000,
                0.5000, 0.0000])
    """

    numbers: Tensor
    columns: Tensor
    codes: Tensor

    def __init__(self, cardinalities: Sequence[int], as_input: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.as_input = as_input
        pairs = [(column, code) for column, size in enumerate(cardinalities) for code in range(size)]
        columns, codes = torch.tensor(pairs, dtype=torch.long).view(-1, 2).unbind(-1)
        numbers = torch.tensor([column for column, size in enumerate(cardinalities) if not size], dtype=torch.long)
        for name, table in (("numbers", numbers), ("columns", columns), ("codes", codes)):
            self.register_buffer(name, table, persistent=False)
        self.width = len(numbers) + len(pairs) + len(cardinalities)

    def forward(self, x: Tensor) -> Tensor:
        """Return numbers, ones and zeros for categories, and marks for blanks."""
        blank = x.isnan()
        numbers = torch.where(blank, 0.0, x)
        if self.as_input is not None:
            numbers = torch.where(blank, 0.0, self.as_input(numbers))
        numbers = numbers[..., self.numbers].clamp(-FARTHEST, FARTHEST)
        return torch.cat([numbers, (x[..., self.columns] == self.codes).to(x), blank / x.shape[-1] ** 0.5], -1)


class AppendLabel(nn.Module):
    """Puts a label behind each vector, (..., D) -> (..., D + C).

    Example:
        >>> AppendLabel(torch.tensor(1), num_classes=3)(torch.zeros(2))
        tensor([0., 0., 0., 1., 0.])
    """

    y: Tensor

    def __init__(self, y: Tensor, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("y", y)

    def forward(self, v: Tensor) -> Tensor:
        """Append."""
        return with_label(v, self.y, self.num_classes)


def with_label(v: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Return vectors, (..., D), with their labels, (...), as numbers 0 or 1 behind them, (..., D + C)."""
    label = torch.eye(num_classes, dtype=v.dtype, device=v.device)[y]
    shape: Sequence[int] = torch.broadcast_shapes(v.shape[:-1], label.shape[:-1])
    return torch.cat([v.expand(*shape, -1), label.expand(*shape, -1)], -1)
