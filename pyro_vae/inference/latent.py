"""Where an encoder puts data, and what each latent dimension is used for."""

from dataclasses import dataclass
from functools import cache

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.data.arrays import ShowsShapes
from pyro_vae.evidence.checks import check_count
from pyro_vae.inference.generate import check_examples, num_components, posteriors
from pyro_vae.program import quiet
from pyro_vae.vae import VAE

ACTIVE = 0.01  # the threshold of Burda et al.


@dataclass(frozen=True, repr=False)
class Latents(ShowsShapes):
    r"""The posteriors of some data.

    Attributes:
        loc: :math:`\mathrm{E}_q[z]`, (N, Z).
        scale: The standard deviations of q(z|x), (N, Z).
        kl: KL[q(z|x) || p(z)] of each datum, (N,), nats.
        kl_per_dimension: :math:`\mathrm{KL}[q(z_j|x) || p(z_j)]`, (N, Z), nats: it adds up to ``kl`` if q and p are
            products over the dimensions. None where the density of one dimension by itself is not known (a flow).
        variance: :math:`\mathrm{Var}_x(\mathrm{E}_q[z_j])`, (Z,).
        estimated: The attributes that are Monte Carlo estimates; the others are exact.
    """

    loc: Tensor
    scale: Tensor
    kl: Tensor
    kl_per_dimension: Tensor | None
    variance: Tensor
    estimated: tuple[str, ...]

    @property
    def active(self) -> Tensor:
        r"""Which dimensions carry something of x, :math:`\mathrm{Var}_x(\mathrm{E}_q[z_j]) > 0.01`, (Z,) bool."""
        return self.variance > ACTIVE

    @property
    def order(self) -> list[int]:
        """The dimensions, from the most used on: by their mean KL, or where it is not known by their variance."""
        use = self.variance if self.kl_per_dimension is None else self.kl_per_dimension.mean(0)
        return use.argsort(descending=True, stable=True).tolist()


def encode(vae: VAE, x: Tensor, *, num_samples: int = 100, seed: int | None = None) -> Latents:
    r"""Encode data: the moments of q(z|x) and its divergence from the prior, in all and for each dimension.

    .. math:: \mathrm{KL}[q \,\|\, p] = \mathrm{E}_q[\log q(z|x) - \log p(z)], \qquad
        \mathrm{KL}_j = \mathrm{E}_q[\log q(z_j|x) - \log p(z_j)]

    Exact where a closed form is known, else the mean over ``num_samples`` draws of z, without bias. The KL of a
    dimension is that of the marginals.

    Args:
        vae: The VAE.
        x: Data, (N, D).
        num_samples: Draws of z for each datum, at least 2, where there is no closed form.
        seed: Of the draws; by default it follows torch's global generator.

    Returns:
        The latents, with ``estimated`` naming what is no closed form.

    Raises:
        ValueError: If the data are not what the likelihood accepts, or ``num_samples`` is below 2.

    Reference:
        Burda et al. (2016), Importance Weighted Autoencoders, section 5.2 (active units); Kingma & Welling (2014),
        Auto-Encoding Variational Bayes, appendix B (the KL of Gaussians).

    Example:
        >>> import pyro_vae
        >>> latents = encode(pyro_vae.build((1, 8, 8), latent_dim=2), torch.zeros(3, 64))
        >>> latents.loc.shape, latents.kl.shape, latents.estimated
        (torch.Size([3, 2]), torch.Size([3]), ())
    """
    x = check_examples(vae, x)
    check_count(num_samples=num_samples)
    if num_samples < 2:
        raise ValueError("num_samples must be at least 2, since a scale may have to be estimated from them; got 1")
    with quiet(vae.model, x, seed) as seeds:
        p = vae.prior()
        size = num_samples * p.event_shape.numel() * num_components(p)
        parts = [_encode(q, p, num_samples) for q in posteriors(vae, x, seeds, size)]
    (loc, scale, kl, *per_dimension) = (
        torch.cat(column) for column in zip(*(values for values, _ in parts), strict=True)
    )
    estimated = parts[0][1]
    variance = loc.var(0, correction=0)
    if "loc" in estimated:  # the noise of the draws is no variance over x
        variance = (variance - scale.square().mean(0) / num_samples).clamp(min=0)
    return Latents(loc, scale, kl, per_dimension[0] if per_dimension else None, variance, estimated)


def plane(loc: Tensor) -> tuple[Tensor, tuple[float, float] | None]:
    """Return locations on a plane, (N, 2): two dimensions as they are, more by their principal components.

    With them goes the part of the variance that each of the two components has; None where there was nothing to choose.

    Args:
        loc: Locations, (N, Z).

    Example:
        >>> points, parts = plane(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]))
        >>> points.abs(), parts
        (tensor([[1., 0.],
                [0., 0.],
                [1., 0.]]), (1.0, 0.0))
    """
    if loc.shape[1] <= 2:
        return torch.nn.functional.pad(loc, (0, 2 - loc.shape[1])), None
    centred = loc.double() - loc.double().mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=len(loc) < 2)
    parts = torch.nn.functional.pad(values.square() / values.square().sum().clamp(min=1e-30), (0, 1))
    return (centred @ directions[:2].T).to(loc.dtype), (parts[0].item(), parts[1].item())


def factors(p: TorchDistribution) -> TorchDistribution | None:
    """Return p(z_1), …, p(z_Z) as one distribution with event shape (), None where it is no known family."""
    if isinstance(p, torch.distributions.Independent) and not p.base_dist.event_shape:
        return p.base_dist
    return dist.Normal(p.loc, p.stddev) if isinstance(p, torch.distributions.MultivariateNormal) else None


def marginal_log_prob(p: TorchDistribution, z: Tensor) -> Tensor:
    r"""Return the log-density of each dimension by itself, :math:`\log p(z_j)`, shaped like z, (..., Z).

    Raises:
        NotImplementedError: Where it is not known.
    """
    if isinstance(p, torch.distributions.MixtureSameFamily):
        log_weights = p.mixture_distribution.logits.log_softmax(-1).unsqueeze(-1)  # (..., K, 1)
        return (log_weights + marginal_log_prob(p.component_distribution, z.unsqueeze(-2))).logsumexp(-2)
    single = factors(p)
    if single is None:
        raise NotImplementedError(f"{type(p).__name__} doesn't know the density of one dimension by itself")
    return single.log_prob(z)


def _encode(q: TorchDistribution, p: TorchDistribution, num_samples: int) -> tuple[list[Tensor], tuple[str, ...]]:
    """Return the moments, the KL and, if known, the KL of each dimension; and which of them are estimates."""
    estimated: list[str] = []
    drawn = cache(lambda: q.sample((num_samples,)))  # (S, B, Z), once, if anything needs it
    try:
        loc, scale = q.mean, q.variance.sqrt()
    except NotImplementedError:
        estimated += ["loc", "scale"]
        loc, scale = drawn().mean(0), drawn().std(0)
    values = [loc, scale]
    try:
        values.append(kl_divergence(q, _like(q, p)))
    except NotImplementedError:
        estimated.append("kl")
        values.append((q.log_prob(drawn()) - p.log_prob(drawn())).mean(0))
    try:
        values.append(_kl_of_factors(q, p))
    except NotImplementedError:
        try:
            values.append((marginal_log_prob(q, drawn()) - marginal_log_prob(p, drawn())).mean(0))
            estimated.append("kl_per_dimension")
        except NotImplementedError:
            pass
    return values, tuple(estimated)


def _kl_of_factors(q: TorchDistribution, p: TorchDistribution) -> Tensor:
    q_factors, p_factors = factors(q), factors(p)
    if q_factors is None or p_factors is None:
        raise NotImplementedError
    return kl_divergence(q_factors, p_factors)


def _like(q: TorchDistribution, p: TorchDistribution) -> TorchDistribution:
    """Return a diagonal Gaussian p as one with a covariance where q is one: between two such the KL is known."""
    if isinstance(q, torch.distributions.MultivariateNormal) and isinstance(factors(p), torch.distributions.Normal):
        return dist.MultivariateNormal(p.mean, scale_tril=p.variance.sqrt().diag_embed())
    return p
