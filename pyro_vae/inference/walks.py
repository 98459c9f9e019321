"""Walks through the latent space: between two data, over the plane of two dimensions, along one at a time."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_vae.data.arrays import as_tensor
from pyro_vae.distributions.location import location
from pyro_vae.evidence.checks import check_count
from pyro_vae.inference.generate import Decoded, anchor, check_examples, decode, draws
from pyro_vae.inference.latent import factors
from pyro_vae.program import quiet, reseed
from pyro_vae.vae import VAE

NUM_DRAWS = 20_000  # of the prior, for quantiles that have no closed form

Path = Literal["linear", "spherical"]


def interpolate(
    vae: VAE, start: Tensor, end: Tensor, *, num: int = 11, path: Path = "linear", seed: int | None = None
) -> Decoded:
    r"""Decode a path between the posterior means of two data.

    .. math:: z(t) = (1 - t)\,a + t\,b \qquad\text{or}\qquad
        z(t) = c + r(t) \left[\frac{\sin((1 - t)\,\theta)}{\sin\theta} \frac{a - c}{|a - c|}
        + \frac{\sin(t\,\theta)}{\sin\theta} \frac{b - c}{|b - c|}\right]

    with :math:`a = \mathrm{E}[z|x_\mathrm{start}]`, :math:`b = \mathrm{E}[z|x_\mathrm{end}]`, c the prior's median,
    :math:`\theta` the angle between the two as seen from there, and r(t) going evenly from the one's distance to the
    other's. So the spherical path doesn't cut through the middle of the prior, where in many dimensions few
    draws of it are; where a, b and c are on a line it is linear.

    Args:
        vae: The VAE.
        start: The data to start from, (..., D).
        end: The data to end at, (..., D).
        num: Steps, at least 2, both ends included.
        path: "linear" or "spherical".
        seed: Of the draws where the posterior means or the prior's quantiles have no closed form.

    Returns:
        The means E[x|z] along each path, (num, ..., D), with their latents.

    Raises:
        ValueError: If ``num`` or ``path`` is not one of these, or the data are not what the likelihood accepts.

    Reference:
        White (2016), Sampling Generative Networks, section 2.1 (spherical).

    Example:
        >>> import pyro_vae
        >>> vae = pyro_vae.build((1, 8, 8), latent_dim=2)
        >>> interpolate(vae, torch.zeros(64), torch.ones(64), num=5).x.shape
        torch.Size([5, 64])
    """
    if path not in get_args(Path):
        raise ValueError(f"path: expected one of {', '.join(get_args(Path))}, got {path!r}")
    if num < 2:
        raise ValueError(f"num must be at least 2, the two ends, got {num}")
    if start.shape != end.shape:
        raise ValueError(f"start and end must have one shape, got {tuple(start.shape)} and {tuple(end.shape)}")
    ends = torch.stack([as_tensor("start", start), as_tensor("end", end)])
    ends = check_examples(vae, ends.reshape(-1, ends.shape[-1]), name="start, end").reshape(ends.shape)
    with quiet(vae.model, ends, seed) as seeds:
        reseed(seeds)
        a, b = location(vae.encoder(ends))
        t = torch.linspace(0, 1, num, dtype=a.dtype, device=a.device).reshape(-1, *[1] * a.dim())
        if path == "linear":
            z = torch.lerp(a, b, t)
        else:
            c = quantiles(vae.prior(), torch.tensor([0.5]), seeds)[0]
            z = c + _slerp(a - c, b - c, t)
    return Decoded(decode(vae, z), z)


def manifold(vae: VAE, num: int = 20, *, seed: int | None = None) -> Decoded:
    r"""Decode a grid over a two-dimensional latent space, with equal prior probability between its lines.

    .. math:: z = \left(F_1^{-1}(u),\ F_2^{-1}(v)\right), \qquad u, v \in
        \left\{\tfrac{1}{2n}, \tfrac{3}{2n}, \dots, 1 - \tfrac{1}{2n}\right\}

    where :math:`F_j` is the distribution function of the prior's dimension j: the normal one for N(0, I). Where it has
    no closed form, the quantiles are those of 20,000 draws.

    Args:
        vae: The VAE.
        num: n, points along each dimension.
        seed: Of the draws.

    Returns:
        The means E[x|z], (n, n, D), with their latents. As in a plot, :math:`z_1` grows to the right
        (the second index), :math:`z_2` upwards (against the first).

    Raises:
        ValueError: If the model has another number of latent dimensions.

    Reference:
        Kingma & Welling (2014), Auto-Encoding Variational Bayes, figure 4.

    Example:
        >>> import pyro_vae
        >>> manifold(pyro_vae.build((1, 8, 8), latent_dim=2), 3).z[0]
        tensor([[-0.9674,  0.9674],
                [ 0.0000,  0.9674],
                [ 0.9674,  0.9674]])
    """
    check_count(num=num)
    with quiet(vae.model, anchor(vae), seed) as seeds:
        p = vae.prior()
        if p.event_shape.numel() != 2:
            raise ValueError(
                f"the manifold needs two latent dimensions, but the model has {p.event_shape.numel()}: use traverse"
            )
        first, second = quantiles(p, (torch.arange(num) + 0.5) / num, seeds).T
        z = torch.stack(torch.meshgrid(first, second.flip(0), indexing="xy"), -1)
    return Decoded(decode(vae, z), z)


def traverse(
    vae: VAE,
    dims: Sequence[int],
    *,
    num: int = 11,
    span: float = 3.0,
    near: Tensor | None = None,
    seed: int | None = None,
) -> Decoded:
    r"""Decode walks along one latent dimension at a time.

    .. math:: z_j = F_j^{-1}(\Phi(s)), \quad s \in [-\mathrm{span}, \mathrm{span}], \qquad
        z_i = F_i^{-1}(\tfrac12) \ \text{or}\ \mathrm{E}[z_i | x_\mathrm{near}] \text{ for } i \ne j

    where :math:`F_j` is the distribution function of the prior's dimension j: for a Gaussian one, :math:`z_j` is s
    standard deviations from the mean. Where it has no closed form, the quantiles are those of 20,000 draws.

    Args:
        vae: The VAE.
        dims: The dimensions j, from 0.
        num: Steps along each.
        span: How far to go to both sides, in standard deviations of a Gaussian.
        near: Go through the latents of this datum, (D,), rather than the middle of the prior.
        seed: Of the draws.

    Returns:
        The means E[x|z], (len(dims), num, D), with their latents.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Higgins et al. (2017), beta-VAE, section 4.1.

    Example:
        >>> import pyro_vae
        >>> traverse(pyro_vae.build((1, 8, 8), latent_dim=2), [1], num=3).z
        tensor([[[ 0.0000, -3.0000],
                 [ 0.0000,  0.0000],
                 [ 0.0000,  3.0000]]])
    """
    check_count(num=num)
    if not 0 < span < float("inf"):
        raise ValueError(f"span must be above 0, got {span:g}")
    if near is not None:
        near = check_examples(vae, near[None], name="near")[0]
    with quiet(vae.model, anchor(vae), seed) as seeds:
        p = vae.prior()
        size = p.event_shape.numel()
        if not len(dims) or not all(0 <= j < size for j in dims):
            raise ValueError(f"dims: expected latent dimensions from 0 to {size - 1}, at least one, got {list(dims)}")
        s = torch.linspace(-span, span, num, dtype=torch.float64)
        along = quantiles(p, torch.special.ndtr(s), seeds)  # (num, Z)
        reseed(seeds)
        base = quantiles(p, torch.tensor([0.5]), seeds)[0] if near is None else location(vae.encoder(near))
        z = base.repeat(len(dims), num, 1)
        for row, j in zip(z, dims, strict=True):
            row[:, j] = along[:, j]
    return Decoded(decode(vae, z), z)


def quantiles(p: TorchDistribution, u: Tensor, seeds: torch.Generator) -> Tensor:
    """Return the quantiles of each dimension by itself, (M,) -> (M, Z): exact, or where not known those of draws."""
    single = factors(p)
    try:
        if single is None:
            raise NotImplementedError
        u = u.to(single.mean)
        return single.icdf(u.unsqueeze(-1)).expand(len(u), p.event_shape.numel())
    except NotImplementedError:
        z = draws(p, NUM_DRAWS, seeds)
        return torch.stack([column.quantile(u.to(z)) for column in z.T], -1)


def _slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Turn a into b about the origin, while the length goes from the one's to the other's."""
    length_a, length_b = (v.norm(dim=-1, keepdim=True) for v in (a, b))
    angle = ((a * b).sum(-1, keepdim=True) / (length_a * length_b).clamp(min=1e-30)).clamp(-1, 1).acos()
    direction = ((1 - t) * angle).sin() * a / length_a + (t * angle).sin() * b / length_b
    turned = torch.lerp(length_a, length_b, t) * direction / angle.sin()
    return torch.where(angle.sin() > 1e-4, turned, torch.lerp(a, b, t))
