"""The decoder in a form that a page can compute with: rounded weights, or a grid of decoded means."""

import base64
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyro_vae import likelihoods
from pyro_vae.distributions.location import middle
from pyro_vae.networks import ACTIVATIONS
from pyro_vae.vae import VAE

BUDGET = 3 * 2**19  # bytes of weights, or of the grid; base64 adds a third
MAX_GRID, MIN_GRID = 32, 5  # nodes along each of its two axes
MAX_ERROR = 0.02  # of the values' range; rounded weights that are further off are not used
CHUNK = 2**22  # numbers that the decoder puts out at once

# What makes a mean of the decoder's first output for an element, up to a factor; explorer.js has the same.
LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda raw: raw,
    "sigmoid": torch.sigmoid,
    "exp": torch.exp,
}
# Of each likelihood, the link and the factor. What they say is checked against the likelihood's own mean.
MEANS: dict[type, Callable[[Any], tuple[str, Any]]] = {
    likelihoods.Bernoulli: lambda _: ("sigmoid", 1.0),
    likelihoods.Binomial: lambda p: ("sigmoid", p.levels - 1.0),
    likelihoods.Gaussian: lambda _: ("identity", 1.0),
    likelihoods.Laplace: lambda _: ("identity", 1.0),
    likelihoods.Poisson: lambda p: ("exp", p.exposure),
    likelihoods.NegativeBinomial: lambda p: ("exp", p.exposure),
}


@dataclass(frozen=True)
class Layer:
    """A linear layer with whole numbers as weights, (outputs, inputs), times a scale for each output."""

    weight: np.ndarray
    scale: Tensor
    bias: Tensor
    activation: str

    def __call__(self, x: Tensor) -> Tensor:
        """Map (N, inputs) to (N, outputs), as the page does."""
        weight = torch.from_numpy(self.weight.astype(np.float32)) * self.scale.unsqueeze(-1)
        x = x @ weight.T + self.bias
        return ACTIVATIONS[self.activation]()(x) if self.activation else x


@dataclass(frozen=True)
class Network:
    """A rounded decoder, up to the mean E[x|z]: the layers, and the link of each run of elements."""

    layers: list[Layer]
    links: list[tuple[str, int]]
    factors: Tensor  # (D,)

    def __call__(self, z: Tensor) -> Tensor:
        """Return E[x|z], (N, D), for z, (N, Z)."""
        for layer in self.layers:
            z = layer(z)
        runs = z.split([count for _, count in self.links], -1)
        means = [LINKS[name](run) for (name, _), run in zip(self.links, runs, strict=True)]
        return self.factors * torch.cat(means, -1)

    def facts(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        layers = [
            {
                "bits": 8 * layer.weight.itemsize,
                "weight": encode(layer.weight),
                "scale": encode(layer.scale),
                "bias": encode(layer.bias),
                "activation": layer.activation,
            }
            for layer in self.layers
        ]
        return {"layers": layers, "links": self.links, "factors": encode(self.factors)}


@dataclass(frozen=True)
class Grid:
    """Means decoded on a grid over two latent dimensions, the others held fixed.

    Attributes:
        values: (n, n, D) as 16-bit numbers between ``low`` and ``high``; the first axis is the vertical one.
        low: (D,)
        high: (D,)
        nearest: Which elements are categories, (D,): there is nothing between two of them.
    """

    values: np.ndarray
    low: Tensor
    high: Tensor
    nearest: Tensor

    def __call__(self, at: Tensor) -> Tensor:
        """Return E[x|z], (N, D), by bilinear interpolation at positions in [0, 1], (N, 2): across, then up."""
        n = len(self.values)
        position = at * (n - 1)
        corner = position.floor().clamp(0, n - 2).long()
        (i, j), between = corner.unbind(1), (position - corner).unsqueeze(-1)
        right, up = torch.where(self.nearest, (between >= 0.5).to(between), between).unbind(1)
        nodes = torch.from_numpy(self.values.astype(np.float32))
        below = torch.lerp(nodes[j, i], nodes[j, i + 1], right)
        above = torch.lerp(nodes[j + 1, i], nodes[j + 1, i + 1], right)
        return self.low + (self.high - self.low) * torch.lerp(below, above, up) / 65535

    def facts(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        grid = {"size": len(self.values), "values": encode(self.values)}
        grid |= {"low": encode(self.low), "high": encode(self.high)}
        return {"grid": grid | {"nearest": self.nearest.nonzero()[:, 0].tolist()}}


@dataclass(frozen=True)
class Plane:
    """The part of the latent space that is shown first.

    Attributes:
        base: Where the other dimensions are held, (Z,).
        axes: The two dimensions shown: across, and up.
        low: Where the map begins in every dimension, (Z,).
        high: Where it ends.
    """

    base: Tensor
    axes: tuple[int, int]
    low: Tensor
    high: Tensor

    def place(self, at: Tensor) -> Tensor:
        """Return z, (N, Z), at positions in [0, 1], (N, 2)."""
        z, axes = self.base.repeat(len(at), 1), list(self.axes)
        z[:, axes] = self.low[axes] + at * (self.high - self.low)[axes]
        return z


def explore(vae: VAE, plane: Plane, codes: Tensor, span: Tensor) -> tuple[Network | Grid | None, dict[str, float]]:
    """Return what the page decodes with, and how far it is from the decoder itself.

    Args:
        vae: The model, on the CPU.
        plane: What is shown.
        codes: Some z of data, (N, Z), at which the error is measured too.
        span: The range of each element's values, (D,) or (): the error's unit.

    Returns:
        The network, or where it can't be had, the grid; None if even that is too large. The median and the
        largest absolute error over points and elements but categories, as a part of the span, and the number of points.
    """
    at = torch.rand(256, 2, generator=torch.Generator().manual_seed(0))
    z = torch.cat([plane.place(at), codes])
    network = round_decoder(vae)
    if network is not None:
        errors = _errors(network(z), means(vae, z), span)
        if errors["largest"] <= MAX_ERROR:
            return network, errors
    grid = decode_grid(vae, plane)
    if grid is None:
        return grid, {}
    return grid, _errors(grid(at), means(vae, z[: len(at)]), span.masked_fill(grid.nearest, math.inf))


def _errors(ours: Tensor, exact: Tensor, span: Tensor) -> dict[str, float]:
    error = (ours - exact).abs().div(span).nan_to_num(math.inf)
    return {"median": error.median().item(), "largest": error.max().item(), "points": len(error)}


@torch.no_grad()
def means(vae: VAE, z: Tensor) -> Tensor:
    """Return E[x|z], (N, D), or of categories the most probable, a few rows at a time."""
    width = next((p.numel() for p in reversed(list(vae.decoder.parameters()))), 1)
    rows = max(1, CHUNK // max(1, width))
    return torch.cat([middle(vae.likelihood(vae.decoder(part))) for part in z.split(rows)])


def round_decoder(vae: VAE) -> Network | None:
    """Return the decoder with weights of 16 bits, or of 8 if those are too many bytes; None if it has no such form."""
    layers = _linear_layers(vae.decoder)
    last = layers[-1][0] if layers else None
    per_element = vae.likelihood.params_per_element
    if last is None or last.out_features % per_element:
        return None
    links = _links(vae.likelihood, last.out_features // per_element)
    if links is None:
        return None
    # Of an element's outputs the mean needs the first alone.
    first = _first_outputs(vae.likelihood, last.out_features // per_element)
    rows = [torch.arange(linear.out_features) for linear, _ in layers[:-1]] + [first]
    sizes = [linear.weight[kept].numel() for (linear, _), kept in zip(layers, rows, strict=True)]
    kind = next((kind for kind in (np.int16, np.int8) if sum(sizes) * np.dtype(kind).itemsize <= BUDGET), None)
    if kind is None:
        return None
    rounded = [_round(linear, name, kept, kind) for (linear, name), kept in zip(layers, rows, strict=True)]
    factors = torch.cat([torch.as_tensor(factor).float().expand(count) for _, count, factor in links])
    return Network(rounded, [(name, count) for name, count, _ in links], factors)


def _linear_layers(decoder: nn.Module) -> list[tuple[nn.Linear, str]]:
    """Return the linear layers, each with the name of the activation behind it; none for another kind of decoder."""
    names = {kind: name for name, kind in ACTIVATIONS.items()}
    layers: list[tuple[nn.Linear, str]] = []
    for module in decoder if isinstance(decoder, nn.Sequential) else [decoder]:
        if type(module) is nn.Linear and module.bias is not None:
            layers.append((module, ""))
        elif type(module) in names and layers and not layers[-1][1] and repr(module) == repr(type(module)()):
            layers[-1] = (layers[-1][0], names[type(module)])
        elif type(module) is not nn.Unflatten:
            return []
    return layers


def _links(likelihood: nn.Module, count: int) -> list[tuple[str, int, Any]] | None:
    """Return (link, number of elements, factor) of each run of elements; None for a mean of another form."""
    if type(likelihood) is likelihoods.Columns:
        groups = zip(likelihood.widths, likelihood.likelihoods, strict=True)
        parts = [_links(part, width) for width, part in groups]
        return None if None in parts else [run for part in parts for run in part or []]
    if type(likelihood) not in MEANS:
        return None
    link, factor = MEANS[type(likelihood)](likelihood)
    return [(link, count, factor)]


def _first_outputs(likelihood: Any, count: int) -> Tensor:
    """Return which of the decoder's outputs is the first of each of ``count`` elements."""
    if type(likelihood) is not likelihoods.Columns or not likelihood.packed:
        return likelihood.params_per_element * torch.arange(count)
    starts = itertools.accumulate(likelihood.sizes, initial=0)
    groups = zip(starts, likelihood.widths, likelihood.likelihoods, strict=False)
    return torch.cat([start + _first_outputs(part, width) for start, width, part in groups])


def _round(linear: nn.Linear, activation: str, rows: Tensor, kind: type) -> Layer:
    weight, bias = linear.weight.detach()[rows].float(), linear.bias.detach()[rows].float()
    scale = weight.abs().amax(-1).clamp(min=1e-30) / np.iinfo(kind).max
    return Layer((weight / scale.unsqueeze(-1)).round().numpy().astype(kind), scale, bias, activation)


def decode_grid(vae: VAE, plane: Plane) -> Grid | None:
    """Decode a grid over the plane, as fine as the budget allows; None if that is too coarse to be of use."""
    elements = means(vae, plane.base.unsqueeze(0)).numel()
    n = min(MAX_GRID, math.isqrt(BUDGET // (2 * elements)))
    if n < MIN_GRID:
        return None
    steps = torch.linspace(0, 1, n)
    up, across = torch.meshgrid(steps, steps, indexing="ij")
    decoded = means(vae, plane.place(torch.stack([across.flatten(), up.flatten()], -1)))
    low, high = decoded.amin(0), decoded.amax(0)
    values = 65535 * (decoded - low) / (high - low).clamp(min=1e-30)
    table = vae.config.table
    kinds = [] if table is None else [column.kind for column in table.modelled]
    nearest = torch.tensor([kind == "category" for kind in kinds] or [False]).expand(elements)
    return Grid(values.round().numpy().astype(np.uint16).reshape(n, n, -1), low, high, nearest)


def encode(array: np.ndarray | Tensor) -> str:
    """Return an array's bytes, the lowest first, as base64."""
    array = np.asarray(array)
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()).decode()
