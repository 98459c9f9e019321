"""New data from a VAE, and data encoded and decoded again."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.transforms import AffineTransform
from torch import Tensor

from pyro_vae.data.arrays import Array, ShowsShapes
from pyro_vae.distributions.flows import NormalizingFlow
from pyro_vae.distributions.location import location, middle
from pyro_vae.evidence.checks import check_count
from pyro_vae.machine.progress import Progress, reported
from pyro_vae.program import quiet, reseed
from pyro_vae.vae import VAE

CHUNK_ELEMENTS = 2**20  # of the decoder's output, or of the latents drawn at once


@dataclass(frozen=True, repr=False)
class Decoded(ShowsShapes):
    """Data that a VAE made.

    Attributes:
        x: Draws of x, or their means E[x|z], (..., D); of categories, which have no mean, the most probable ones.
        z: The latents that they were made from, (..., Z).
    """

    x: Tensor
    z: Tensor


def sample(
    vae: VAE,
    num: int,
    *,
    near: Tensor | None = None,
    temperature: float = 1.0,
    mean: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Decoded:
    r"""Generate data, or variations of a given datum.

    .. math:: z \sim p_T(z) \ \text{or}\ q_T(z | x_\mathrm{near}), \qquad x \sim p(x|z)

    with the temperature T as in :func:`tempered`. The memory for the decoder doesn't depend on ``num``.

    Args:
        vae: The VAE.
        num: How many.
        near: Vary this datum, (D,), or each of several, (..., D); by default new ones are made.
        temperature: T, above 0; at 1 the prior, or the posterior, as it is.
        mean: Return the means E[x|z] rather than draws of x.
        seed: Of the noise; by default it follows torch's global generator.
        progress: Called with how much is decoded, and of how much.

    Returns:
        The data, (num, D), or the variations, (num, ..., D), with their latents.

    Raises:
        ValueError: If an argument is out of range, or the distribution of z can't be tempered.

    Example:
        >>> import pyro_vae
        >>> sample(pyro_vae.build((1, 8, 8), latent_dim=2), 3).x.shape
        torch.Size([3, 64])
    """
    check_count(num=num)
    if near is not None:
        near = check_examples(vae, near.reshape(-1, near.shape[-1]), name="near").reshape(near.shape)
    with quiet(vae.model, anchor(vae), seed) as seeds:
        p = tempered(vae.prior() if near is None else vae.encoder(near), temperature)
        z = draws(p, num, seeds)
        return Decoded(_decode(vae, z, mean, seeds, progress), z)


def reconstruct(vae: VAE, x: Tensor, *, mean: bool = True, seed: int | None = None) -> Decoded:
    r"""Encode data and decode them again.

    .. math:: \hat x = \mathrm{E}[x | z = \mathrm{E}_q[z]] \qquad\text{or}\qquad z \sim q(z|x),\ \hat x \sim p(x|z)

    Args:
        vae: The VAE.
        x: Data, (N, D).
        mean: Return the means; else draws of both z and x. Where the encoder doesn't know :math:`\mathrm{E}_q[z]`
            (a flow), it is estimated from 100 draws.
        seed: Of the noise; by default it follows torch's global generator.

    Returns:
        The reconstructions, (N, D), with their latents.

    Raises:
        ValueError: If the data are not what the likelihood accepts.

    Example:
        >>> import pyro_vae
        >>> reconstruct(pyro_vae.build((1, 8, 8), latent_dim=2), torch.zeros(3, 64)).x.shape
        torch.Size([3, 64])
    """
    x = check_examples(vae, x)
    with quiet(vae.model, x, seed) as seeds:
        z = torch.cat([location(q) if mean else q.sample() for q in posteriors(vae, x, seeds)])
        return Decoded(_decode(vae, z, mean, seeds), z)


def decode(vae: VAE, z: Tensor, *, mean: bool = True, seed: int | None = None) -> Tensor:
    """Return E[x|z], or with ``mean=False`` a draw of x, for latents of any shape, (..., Z) -> (..., D).

    Example:
        >>> import pyro_vae
        >>> decode(pyro_vae.build((1, 8, 8), latent_dim=2), torch.zeros(3, 5, 2)).shape
        torch.Size([3, 5, 64])
    """
    with quiet(vae.model, z, seed) as seeds:
        return _decode(vae, z, mean, seeds)


def tempered(p: TorchDistribution, temperature: float) -> TorchDistribution:
    r"""Scale the noise of a distribution about the location that it belongs to.

    .. math:: z = m + T\,(z' - m), \quad z' \sim p

    where m is the location of a Normal, Student's t or any other location-scale family, of the component that z'
    was drawn from in a mixture, and of the base distribution, before the transformation, in a flow. For
    a Gaussian this is :math:`p(z)^{1/T^2}`, normalised; of the others the deviations within a component grow by
    T, while the weights of the components stay.

    Args:
        p: The distribution of z.
        temperature: T, above 0.

    Raises:
        ValueError: If T is not positive, or the distribution has no location to scale its noise about.

    Reference:
        Kingma & Dhariwal (2018), Glow: Generative Flow with Invertible 1x1 Convolutions, section 6.

    Example:
        >>> tempered(dist.Normal(torch.tensor([1.0]), 2.0).to_event(1), 0.5).log_prob(torch.tensor([1.0]))
        tensor(-0.9189)
    """
    check_temperature(temperature)
    if temperature == 1:
        return p
    if isinstance(p, torch.distributions.Independent):
        return dist.Independent(tempered(p.base_dist, temperature), p.reinterpreted_batch_ndims)
    if isinstance(p, torch.distributions.MixtureSameFamily):
        return dist.MixtureSameFamily(p.mixture_distribution, tempered(p.component_distribution, temperature))
    if isinstance(p, NormalizingFlow):
        return NormalizingFlow(tempered(p.base, temperature), p.transform)
    if isinstance(p, torch.distributions.TransformedDistribution):
        return dist.TransformedDistribution(tempered(p.base_dist, temperature), p.transforms)
    if not isinstance(getattr(p, "loc", None), Tensor):
        raise ValueError(
            f"temperature={temperature:g}: {type(p).__name__} has no location to scale about; leave it at 1"
        )
    affine = AffineTransform((1 - temperature) * p.loc, temperature, event_dim=len(p.event_shape))
    return dist.TransformedDistribution(p, [affine])


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is none.

    Raises:
        ValueError: If it is not positive.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be above 0, got {temperature:g}; 1 leaves the spread as it is")


def check_examples(vae: VAE, x: Array, name: str = "x") -> Tensor:
    """Return data as rows, (N, D), and refuse those of another width, or that the likelihood does not accept.

    Raises:
        ValueError: Naming what was expected and what came.
    """
    with quiet(vae.model, anchor(vae), seed=0):
        width = vae.sample(1).shape[1]
    x = vae.rows(x, name)
    if len(x) == 0 or x.shape[1] != width:
        raise ValueError(f"{name}: expected rows of {width} numbers each, at least one, got shape {tuple(x.shape)}")
    vae.check(x)
    return x


def anchor(vae: VAE) -> Tensor:
    """Return an empty tensor of the VAE's dtype and on its device, where there are no data to tell them."""
    return next(vae.parameters()).new_empty(0)


def posteriors(vae: VAE, x: Tensor, seeds: torch.Generator, per_row: int = 1) -> Iterator[TorchDistribution]:
    """Yield q(z|x) of some data after the others, so few that ``per_row`` numbers for each fit in memory."""
    for rows in x.split(max(1, CHUNK_ELEMENTS // max(x.shape[1], per_row))):
        reseed(seeds)
        yield vae.encoder(rows)


def draws(p: TorchDistribution, num: int, seeds: torch.Generator) -> Tensor:
    """Draw (num, *batch_shape, Z), in blocks with a seed each."""
    rows = max(1, CHUNK_ELEMENTS // (p.batch_shape.numel() * num_components(p) * p.event_shape.numel()))
    blocks = []
    for start in range(0, num, rows):
        reseed(seeds)
        blocks.append(p.sample((min(rows, num - start),)))
    return torch.cat(blocks)


def num_components(p: TorchDistribution) -> int:
    """Return how many components a mixture has, all of which torch draws and scores at once; 1 for what is none."""
    return p.mixture_distribution.param_shape[-1] if isinstance(p, torch.distributions.MixtureSameFamily) else 1


def _decode(vae: VAE, z: Tensor, mean: bool, seeds: torch.Generator, progress: Progress | None = None) -> Tensor:
    flat = z.reshape(-1, z.shape[-1])
    rows = max(1, CHUNK_ELEMENTS // vae.decoder(flat[:1]).numel())
    chunks = []
    for part in reported(flat.split(rows), progress):
        reseed(seeds)
        p = vae.likelihood(vae.decoder(part))
        chunks.append(middle(p) if mean else p.sample())
    return torch.cat(chunks).reshape(*z.shape[:-1], -1)
