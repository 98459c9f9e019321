"""Gaussian proposals fitted to each datum: gradient steps on the guide's, or Laplace's approximation."""

import functools
from collections.abc import Callable, Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.evidence.checks import check_count, check_data, check_program
from pyro_vae.evidence.importance import default_chunk_size
from pyro_vae.evidence.latents import Latents, prior
from pyro_vae.program import Data, Program, arguments, draw, log_density, num_data, quiet, reseed, take

Progress = Callable[[int, int], None]
Fitted = tuple[Tensor, Tensor, Tensor]  # a location, a scale, and terms of their bound

# What is added to the seed of an estimate to get that of a proposal.
_NOISE_OF_FITS = 20190104
_MOMENTS = 100  # draws for the mean and the deviations of a guide
_COMPARED = 64  # draws that tell which of two Gaussians is the better one


class GaussianProposal:
    r"""A guide that is Gaussian, with its own location and covariance for each datum.

    .. math:: q_b(u) = N(u;\, m_b,\, L_b L_b^T)

    over all continuous latents together, in unconstrained space; each site is drawn given those
    before it, so that the guide can also be scored, widened or mixed. Made by :func:`refined` and
    :func:`laplace`.

    Args:
        latents: The layout of the model's latents.
        x: The data that it was fitted to, (N, ...); it proposes for these only.
        loc: m, (N, n).
        scale_tril: L, (N, n, n), lower triangular.
    """

    def __init__(self, latents: Latents, x: Data, loc: Tensor, scale_tril: Tensor):
        self.latents, self.loc, self.scale_tril = latents, loc, scale_tril
        self._rows = {key: row for row, key in enumerate(_keys(x))}

    def rows(self, x: Data) -> Tensor:
        """Return where each datum stands among those fitted to."""
        try:
            return torch.tensor([self._rows[key] for key in _keys(x)], device=self.loc.device)
        except KeyError:
            raise ValueError(
                "the proposal was fitted to other data than these: fit it again with refined or laplace"
            ) from None

    def __call__(self, *x: Tensor) -> None:
        """Sample all latent sites of the model."""
        rows = self.rows(x)
        loc, scale_tril = self.loc[rows], self.scale_tril[rows]
        noise = loc.new_zeros(len(loc), 0)  # (..., B, dimensions so far), whitened
        with pyro.plate("data", len(rows), dim=-1):
            for name, at in self.latents.slices.items():
                here = scale_tril[:, at, at]
                conditional = loc[:, at] + _matvec(scale_tril[:, at, : at.start], noise)
                transforms = self.latents.transforms(name)
                fn = _Normal(conditional, scale_tril=here)
                value = pyro.sample(name, dist.TransformedDistribution(fn, transforms) if transforms else fn)
                if at.stop < self.latents.size:
                    for transform in reversed(transforms):
                        value = transform.inv(value)
                    whitened = _solve(here, value - conditional)
                    noise = torch.cat([noise.expand(whitened.shape[:-1] + noise.shape[-1:]), whitened], dim=-1)


class _Normal(dist.MultivariateNormal):
    """A multivariate normal that doesn't copy its Cholesky factor for every sample."""

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = torch.randn(
            self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        return self.loc + _matvec(self._unbroadcasted_scale_tril, noise)


def _matvec(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return the product of (B, m, n) and (..., B, n)."""
    return torch.einsum("bmn,...bn->...bm", matrix, vector)


def _solve(tril: Tensor, vector: Tensor) -> Tensor:
    """Return the solution y, (..., B, n), of tril y = vector, with tril (B, n, n)."""
    flat = vector.reshape(-1, *vector.shape[-2:]).permute(1, 2, 0)  # (B, n, K)
    return torch.linalg.solve_triangular(tril, flat, upper=False).permute(2, 0, 1).reshape(vector.shape)


def _keys(x: Data) -> list[bytes]:
    """Return each datum's bytes."""
    columns = [a.detach().cpu().contiguous().numpy() for a in arguments(x)]
    return [b"".join(a[row].tobytes() for a in columns) for row in range(len(columns[0]))]


def refined(
    model: Program,
    guide: Program,
    x: Data,
    *,
    steps: int = 200,
    num_particles: int = 8,
    learning_rate: float = 0.05,
    full_rank: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> GaussianProposal:
    r"""Fit a Gaussian to each datum's posterior, by gradient steps from the guide.

    .. math:: \max_{m_b, L_b}\; \mathrm{E}_{q_b}[\log p(x_b, z) - \log q_b(z)]

    This removes the amortisation gap, and with ``full_rank`` the error of independent dimensions.
    The proposal is fixed once fitted, and the samples that weigh it are drawn afresh, so that
    the estimate of P(x) stays unbiased.

    No datum ends with less than it began with: where this bound, seen in 64 draws, is lower than at the start, the
    start is kept. Where the prior's mean and deviations are a better start than the guide's, they are taken.

    Args:
        model: A Pyro model with continuous latents.
        guide: Where to start: its mean and deviations in unconstrained space, from 100 draws.
        x: Data, (N, ...).
        steps: Steps of Adam, with a rate that falls to zero.
        num_particles: Samples for each gradient.
        learning_rate: In units of the guide's standard deviations.
        full_rank: Fit a full covariance rather than a diagonal one.
        seed: Of the noise; by default it follows torch's global generator.
        progress: Called with the number of data done, and of all.

    Returns:
        A guide for these data, to be used as any other.

    Raises:
        ValueError: If a latent is discrete, or the data are not what the model describes.

    Reference:
        Cremer, Li & Duvenaud (2018), Inference Suboptimality in Variational Autoencoders, section 4.

    Example:
        >>> from pyro_vae.evidence.exact import LinearGaussian
        >>> exact = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3))
        >>> proposal = refined(exact.model, exact.guide, torch.zeros(1, 3), seed=0)
        >>> proposal.scale_tril.allclose(torch.tensor(0.5), rtol=0.1)  # the exact posterior has 1 / sqrt(1 + 3)
        True
    """
    check_count(steps=steps, num_particles=num_particles)

    def fit(latents: Latents, x: Data, loc: Tensor, scale_tril: Tensor) -> tuple[Tensor, Tensor]:
        # Whitened by the start: u = m0 + L0 (shift + T eps), with T = exp(log_diagonal) + below.
        shift, log_diagonal = torch.zeros_like(loc), torch.zeros_like(loc)
        below = torch.zeros_like(scale_tril) if full_rank else scale_tril.new_zeros(())
        free = [shift, log_diagonal, below] if full_rank else [shift, log_diagonal]

        def negative_elbo() -> Tensor:
            tril = below.tril(-1) + log_diagonal.exp().diag_embed() if full_rank else log_diagonal.exp().diag_embed()
            noise = torch.randn(num_particles, *loc.shape, dtype=loc.dtype, device=loc.device)
            u = loc + _matvec(scale_tril, shift + _matvec(tril, noise))
            return -(_log_joint(model, latents, x, u).mean(0) + log_diagonal.sum(-1)).sum()

        _minimise(negative_elbo, free, steps, learning_rate)
        tril = below.tril(-1) + log_diagonal.exp().diag_embed() if full_rank else log_diagonal.exp().diag_embed()
        return loc + _matvec(scale_tril, shift), scale_tril @ tril

    return _fit_each(model, guide, x, fit, num_particles, seed, progress)


def laplace(
    model: Program,
    guide: Program,
    x: Data,
    *,
    steps: int = 200,
    learning_rate: float = 0.05,
    seed: int | None = None,
    progress: Progress | None = None,
) -> GaussianProposal:
    r"""Fit Laplace's approximation to each datum's posterior: a Gaussian with full covariance at the mode.

    .. math:: m = \arg\max_u \log p(x, u), \quad (L L^T)^{-1} = -\nabla^2 \log p(x, u) \big|_{u = m}

    Where its ELBO is lower than that of the start, the start is kept, as by :func:`refined`.

    Args:
        model: A Pyro model with continuous latents.
        guide: Where the search for the mode starts: at its mean.
        x: Data, (N, ...).
        steps: Steps of Adam, with a rate that falls to zero.
        learning_rate: In units of the guide's standard deviations.
        seed: Of the draws that find the guide's mean; by default it follows torch's global generator.
        progress: Called with the number of data done, and of all.

    Returns:
        A guide for these data, to be used as any other.

    Raises:
        ValueError: As :func:`refined`.

    Reference:
        MacKay (2003), Information Theory, Inference, and Learning Algorithms, chapter 27.

    Example:
        >>> from pyro_vae.evidence.exact import LinearGaussian
        >>> exact = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3))
        >>> laplace(exact.model, exact.guide, torch.zeros(1, 3), seed=0).scale_tril  # 1 / sqrt(1 + 3)
        tensor([[[0.5000]]])
    """
    check_count(steps=steps)

    def fit(latents: Latents, x: Data, loc: Tensor, scale_tril: Tensor) -> tuple[Tensor, Tensor]:
        shift = torch.zeros_like(loc)

        def energy(u: Tensor) -> Tensor:
            return -_log_joint(model, latents, x, u[None]).sum()

        _minimise(lambda: energy(loc + _matvec(scale_tril, shift)), [shift], steps, learning_rate)
        mode = loc + _matvec(scale_tril, shift)
        with torch.enable_grad():
            u = mode.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(energy(u), u, create_graph=True)
            rows = [torch.autograd.grad(g, u, retain_graph=True)[0] for g in gradient.sum(0)]
        hessian = torch.stack(rows, dim=-1).nan_to_num(0, 0, 0)  # (B, n, n); of what can't be fitted it says nothing
        # A direction in which the mode is flat or a saddle gets ten times the guide's widest deviation.
        widest = 10 * scale_tril.square().sum(-1).amax(-1, keepdim=True).sqrt()
        curvature, axes = torch.linalg.eigh((hessian + hessian.mT) / 2)
        root = axes / torch.maximum(curvature, widest**-2).sqrt()[:, None, :]  # times its transpose, the covariance
        # As its Cholesky factor, but also where curvatures are so unlike that rounding leaves no covariance.
        upper = torch.linalg.qr(root.mT).R
        return mode, upper.mT * upper.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]

    return _fit_each(model, guide, x, fit, 1, seed, progress)


def _fit_each(
    model: Program,
    guide: Program,
    x: Data,
    fit: Callable[[Latents, Data, Tensor, Tensor], tuple[Tensor, Tensor]],
    num_particles: int,
    seed: int | None,
    progress: Progress | None,
) -> GaussianProposal:
    """Run ``fit`` on blocks of data, from the guide's location and scale."""
    x = check_data(model, x)
    with quiet(model, x, seed, guide) as seeds:
        # Other noise than that of an estimate with the same seed: a proposal must not know the draws that weigh it.
        seeds.manual_seed(seeds.initial_seed() + _NOISE_OF_FITS)
        reseed(seeds)
        check_program(model, guide, x)
        latents = Latents(model, x)
        chunk_size = default_chunk_size(model, x)
        step = max(1, chunk_size // num_particles)
        fitted, num_possible = [], 0
        for begin in range(0, num_data(x), step):
            part = take(x, slice(begin, begin + step))
            loc, scale_tril = _moments(prior(model), latents, part)
            noise = torch.randn(_COMPARED, *loc.shape, dtype=loc.dtype, device=loc.device)
            terms = functools.partial(_terms, model, latents, part, noise.split(max(1, chunk_size // len(loc))))
            best = terms(loc, scale_tril)
            reseed(seeds)
            best = _not_worse(best, terms(*_start(guide, latents, part)))
            best = _not_worse(best, terms(*fit(latents, part, *best[:2])))
            fitted.append(best[:2])
            num_possible += int(best[2].isfinite().all(0).sum())
            if progress is not None:
                progress(min(begin + step, num_data(x)), num_data(x))
        if num_possible == 0:
            raise ValueError(
                "log p(x, z) must be finite at the guide's mean or at the prior's, where a fit starts, but is for none "
                f"of the {num_data(x)} data; look for values that are far out of range"
            )
        locs, scale_trils = zip(*fitted, strict=True)
        return GaussianProposal(latents, x, torch.cat(locs), torch.cat(scale_trils))


def _start(guide: Program, latents: Latents, x: Data) -> tuple[Tensor, Tensor]:
    """Return a Gaussian's location and scale, or the mean and deviations of another guide."""
    if isinstance(guide, GaussianProposal):
        rows = guide.rows(x)
        return guide.loc[rows], guide.scale_tril[rows]
    return _moments(guide, latents, x)


def _moments(guide: Program, latents: Latents, x: Data) -> tuple[Tensor, Tensor]:
    u = latents.flatten(draw(guide, x, _MOMENTS)[0])
    return u.mean(0), u.std(0).diag_embed()


def _terms(
    model: Program, latents: Latents, x: Data, noise: Sequence[Tensor], loc: Tensor, scale_tril: Tensor
) -> Fitted:
    """Return a Gaussian with log p(x, u) - log q(u) at some draws, (K, B), but for what all Gaussians share."""
    log_joint = torch.cat([_log_joint(model, latents, x, loc + _matvec(scale_tril, part)) for part in noise])
    return loc, scale_tril, log_joint + scale_tril.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)


def _not_worse(before: Fitted, after: Fitted) -> Fitted:
    """Return the second Gaussian, but the first for those data where its bound is higher, by two standard errors."""
    gain = after[2] - before[2]
    error = gain.std(0) / len(gain) ** 0.5
    taken = (gain.mean(0) >= -2 * error) | ~before[2].isfinite().all(0)
    taken &= after[2].isfinite().all(0)
    loc, scale_tril = (
        torch.where(taken.reshape(-1, *[1] * (a.dim() - 1)), b, a) for a, b in zip(before[:2], after[:2], strict=True)
    )
    return loc, scale_tril, torch.where(taken, after[2], before[2])


def _log_joint(model: Program, latents: Latents, x: Data, u: Tensor) -> Tensor:
    """Return log p(x, u), (K, B), at unconstrained latents u, (K, B, n)."""
    values, log_jacobian = latents.unflatten(u)
    return log_density(model, x, values) + log_jacobian


def _minimise(loss: Callable[[], Tensor], free: list[Tensor], steps: int, learning_rate: float) -> None:
    """Take steps of Adam, in place."""
    optimiser = torch.optim.Adam(free, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        with torch.enable_grad():
            for tensor in free:
                tensor.requires_grad_()
            gradients = torch.autograd.grad(loss(), free)
        for tensor, gradient in zip(free, gradients, strict=True):
            tensor.grad = gradient
        optimiser.step()
        schedule.step()
    for tensor in free:
        tensor.requires_grad_(False)
