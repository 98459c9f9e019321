"""log P(X) by importance sampling, for each datum of any Pyro model and guide."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyro_vae.base import Likelihood
from pyro_vae.evidence.checks import (
    check_count,
    check_data,
    check_program,
    check_support,
    inside_support,
    may_leave_support,
)
from pyro_vae.evidence.result import Evidence, RunningWeights, concatenate
from pyro_vae.machine.devices import keep_freed_memory
from pyro_vae.program import (
    ChunkedLogDensity,
    Data,
    Program,
    arguments,
    as_program,
    draw,
    num_data,
    quiet,
    reseed,
    take,
)

# Elements of x in a chunk, so that the decoder's output stays in the cache, or on a GPU that it is busy.
_CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
_BLOCK_ELEMENTS = 2**24  # and in a block of noise, which costs Pyro's overhead once
_MIN_ROWS = 64  # data in a block, so that running the encoder for each of them stays cheap


def log_weights(
    model: Any,
    guide: Any,
    x: Data | None = None,
    *,
    num_samples: int = 1000,
    chunk_size: int | None = None,
    seed: int | None = None,
) -> Tensor:
    r"""Draw importance weights for each datum.

    .. math:: \log w_{kb} = \log p(x_b, z_{kb}) - \log q(z_{kb} | x_b), \quad z_{kb} \sim q(z | x_b)

    Works for every model and guide with one data plate, at dim -1, and any number of latent sites in
    it, discrete and masked ones included. The scale of a site (subsampling, KL weights) never enters.

    Args:
        model: A Pyro model of ``x``, or a :class:`pyro_vae.VAE` followed by ``x`` alone.
        guide: Its guide, or any proposal over the same sites, such as :func:`refined` returns.
        x: Data, (B, ...), or a tuple of tensors with a row for each datum, passed as ``model(*x)``.
        num_samples: K, exactly as many as are drawn for each datum.
        chunk_size: The most (datum, sample) pairs decoded at once, which bounds the memory but does
            not change the result. Default: about a million elements of x.
        seed: Of the noise; by default it follows torch's global generator.

    Returns:
        Log-weights, (K, B), nats. :math:`\mathrm{E}[w] = P(x)` without bias.

    Raises:
        ValueError: If a sample site is outside the data plate, or the data are not what the model describes.

    Reference:
        Burda et al. (2016), Importance Weighted Autoencoders, section 3.

    Example:
        >>> from pyro_vae.evidence.exact import LinearGaussian
        >>> exact = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3))
        >>> log_weights(exact.model, exact.guide, torch.zeros(1, 3), num_samples=2)  # each is log P(X)
        tensor([[-3.4500],
                [-3.4500]])
    """
    model, guide, x = as_program(model, guide, x)
    check_count(num_samples=num_samples)
    check_data(model, x)
    with quiet(model, x, seed, guide) as seeds:
        sampler = Sampler(model, guide, x, num_samples, chunk_size, seeds)
        columns = [torch.cat([w for _, w in sampler.draws(rows, num_samples)]) for rows in sampler.blocks()]
        return torch.cat(columns, dim=1)


def log_evidence(
    model: Any,
    guide: Any,
    x: Data | None = None,
    *,
    num_samples: int = 1000,
    target_se: float | None = None,
    target_khat: float | None = None,
    max_num_samples: int | None = None,
    chunk_size: int | None = None,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evidence:
    r"""Estimate log P(x) for each datum by importance sampling, and how far to trust it.

    .. math:: \log \hat P(x) = \log \frac1K \sum_k \frac{p(x, z_k)}{q(z_k | x)}

    In expectation it is a lower bound on log P(x), by about half the squared standard error.
    The weights stream: memory depends on ``chunk_size`` and not on K.

    Args:
        model: A Pyro model of ``x``, or a :class:`pyro_vae.VAE` followed by ``x`` alone.
        guide: Its guide, or any proposal over the same sites, such as :func:`refined` returns.
        x: Data, (N, ...), or a tuple of tensors with a row for each datum, passed as ``model(*x)``.
        num_samples: K, exactly as many as are drawn for each datum.
        target_se: Double K for the data whose standard error, in nats, is above this.
        target_khat: Double K for the data whose k-hat is above this.
        max_num_samples: Where the doubling ends; 64 times ``num_samples`` by default.
        chunk_size: The most (datum, sample) pairs decoded at once, which bounds the memory but does
            not change the result. Default: about a million elements of x.
        seed: Of the noise; by default it follows torch's global generator.
        progress: Called with the number of data done, and of all.

    Returns:
        The estimates, with ``failed`` naming the data that did not reach a target.

    Raises:
        ValueError: As :func:`log_weights`.

    Reference:
        Burda et al. (2016), Importance Weighted Autoencoders, section 3; Vehtari et al. (2024),
        Pareto Smoothed Importance Sampling, section 3.

    Example:
        >>> from pyro_vae.evidence.exact import LinearGaussian
        >>> exact = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3))
        >>> result = log_evidence(exact.model, exact.guide, torch.zeros(1, 3), num_samples=100)
        >>> round(result.mean, 3), round(exact.log_evidence(torch.zeros(1, 3)).item(), 3)
        (-3.45, -3.45)
    """
    model, guide, x = as_program(model, guide, x)
    if max_num_samples is None:
        max_num_samples = 64 * num_samples if target_se or target_khat else num_samples
    check_count(num_samples=num_samples, max_num_samples=max_num_samples)
    if max_num_samples < num_samples:
        raise ValueError(f"max_num_samples must be at least num_samples = {num_samples}, got {max_num_samples}")
    check_data(model, x)
    parts: list[Evidence] = []
    with quiet(model, x, seed, guide) as seeds:
        sampler = Sampler(model, guide, x, num_samples, chunk_size, seeds)
        for rows in sampler.blocks():
            running = RunningWeights(len(rows), max_num_samples, rows.device)
            active, more = torch.arange(len(rows), device=rows.device), num_samples
            while True:
                for _, weights in sampler.draws(rows[active], more):
                    running.add(active, weights)
                result = running.result()
                unmet = _unmet(result, target_se, target_khat)
                drawn = int(running.count.max())
                more = min(drawn, max_num_samples - drawn)
                if len(unmet) == 0 or more == 0:
                    break
                active = unmet
            parts.append(replace(result, failed=rows[unmet]))
            if progress is not None:
                progress(int(rows[-1]) + 1, num_data(x))
    return concatenate(parts)


class Sampler:
    """Draws log-weights in fixed blocks of data and samples, one seed each, whatever the chunk size."""

    def __init__(
        self,
        model: Program,
        guide: Program,
        x: Data,
        num_samples: int,
        chunk_size: int | None,
        seeds: torch.Generator,
    ):
        first = arguments(x)[0]
        self.model, self.guide, self.x, self.seeds = model, guide, x, seeds
        elements = max(_BLOCK_ELEMENTS, _CHUNK_ELEMENTS.get(first.device.type, 0))
        self.pairs = max(1, elements // max(1, first[0].numel()))
        self.rows = min(num_data(x), max(min(_MIN_ROWS, self.pairs), self.pairs // num_samples))
        chunk_size = default_chunk_size(model, x) if chunk_size is None else chunk_size
        check_count(chunk_size=chunk_size)
        self.log_density = ChunkedLogDensity(model, chunk_size)
        keep_freed_memory()
        reseed(seeds)
        self.latents = check_program(model, guide, x)
        self.loose = may_leave_support(model, guide, x)

    def blocks(self) -> tuple[Tensor, ...]:
        """Return the indices of the data in each block."""
        return torch.arange(num_data(self.x), device=arguments(self.x)[0].device).split(self.rows)

    def draws(self, rows: Tensor, num_samples: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Yield latents, each (K, B, ...) in all, and log-weights of some data, block after block of samples."""
        x = take(self.x, rows)
        step = 2 ** int(math.log2(max(1, self.pairs // len(rows))))  # so many quasi-random points are the evenest
        for start in range(0, num_samples, step):
            reseed(self.seeds)
            values, log_q = draw(self.guide, x, min(step, num_samples - start))
            z = {name: values[name] for name in self.latents}
            if start == 0:
                check_support(self.model, x, z)
            weights = self.log_density(x, z) - log_q
            if self.loose:  # p(x, z) = 0 there, which a density does not always say of itself
                weights = torch.where(inside_support(self.model, x, z, self.loose), weights, -math.inf)
            yield z, weights


def default_chunk_size(model: Program, x: Data) -> int:
    """Return how many (datum, sample) pairs give the likelihood about a million parameters."""
    first = arguments(x)[0]
    likelihood = getattr(getattr(model, "__self__", None), "likelihood", None)
    per_element = likelihood.params_per_element if isinstance(likelihood, Likelihood) else 1
    return max(1, _CHUNK_ELEMENTS.get(first.device.type, 2**20) // max(1, first[0].numel() * per_element))


def _unmet(result: Evidence, target_se: float | None, target_khat: float | None) -> Tensor:
    """Return the indices of the data that miss a target."""
    missed = torch.zeros_like(result.se, dtype=torch.bool)
    if target_se is not None:
        missed |= ~(result.se <= target_se)
    if target_khat is not None:
        missed |= ~(result.khat <= target_khat)
    return missed.nonzero().squeeze(1)
