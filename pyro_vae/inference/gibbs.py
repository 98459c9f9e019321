"""Filling blanks by Markov chains: Metropolis-within-Gibbs, exact in the long run."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.evidence.checks import check_count, check_data, check_program
from pyro_vae.evidence.importance import default_chunk_size
from pyro_vae.evidence.latents import latent_sites, prior
from pyro_vae.inference.blanks import (
    Range,
    as_tensor_program,
    decode,
    kept_within,
    or_most_frequent,
    plausible,
    walk,
    with_blanks,
)
from pyro_vae.inference.impute import Imputation, where_possible
from pyro_vae.program import Program, Values, draw, log_density, quiet, reseed


def gibbs(
    model: Any,
    guide: Any,
    x: Tensor | None = None,
    *,
    num_completions: int = 5,
    num_steps: int = 1000,
    warmup: int | None = None,
    num_chains: int = 4,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Imputation:
    r"""Fill the blanks (NaN) of data by Metropolis-within-Gibbs.

    In turn, a proposal for z from the guide at the data as they are filled now, accepted with probability

    .. math:: \min\left(1, \frac{p(x, z')\, q(z | x)}{p(x, z)\, q(z' | x)}\right), \qquad x =
        (x_\mathrm{observed}, x_\mathrm{missing}),

    and new values :math:`x_\mathrm{missing} \sim p(x_\mathrm{missing} | z)`. Both leave
    :math:`p(z, x_\mathrm{missing} | x_\mathrm{observed})` as it is, whatever the guide; the chains start from
    pseudo-Gibbs draws. Nothing says for sure that they ran for long enough; ``rhat`` and ``acceptance`` may say
    that they didn't.

    Args:
        model: As for :func:`pyro_vae.inference.impute`.
        guide: Its guide, run on the filled data.
        x: Data with blanks, (N, D).
        num_completions: M, taken from all chains at steps as far apart as possible.
        num_steps: Steps of each chain that are kept, 2 at least.
        warmup: Steps before them; half as many by default.
        num_chains: For each datum.
        seed: Of the noise; by default it follows torch's global generator.
        progress: Called with the number of steps done, and of all.

    Returns:
        The completions, with acceptance rate and R-hat.

    Raises:
        ValueError: As :func:`pyro_vae.inference.impute`, and for more completions than steps.

    Reference:
        Mattei & Frellsen (2018), Leveraging the Exact Likelihood of Deep Latent Variable Models, algorithm 1; R-hat
        of E[x|z], or of a category itself, with variances summed over the blanks, after Brooks & Gelman (1998), General
        Methods for Monitoring Convergence of Iterative Simulations, section 1.1.

    Example:
        >>> from pyro_vae import build
        >>> x = torch.ones(3, 16)
        >>> x[:, 8:] = torch.nan
        >>> gibbs(build((1, 4, 4), latent_dim=2), x, num_steps=20, seed=0).completions.shape
        torch.Size([5, 3, 16])
    """
    model, guide, x = as_tensor_program(model, guide, x)
    warmup = num_steps // 2 if warmup is None else warmup
    check_count(num_completions=num_completions, num_steps=num_steps, num_chains=num_chains)
    if num_steps < 2 or warmup < 0:
        raise ValueError(f"num_steps must be at least 2 and warmup at least 0, got {num_steps} and {warmup}")
    if num_completions > num_chains * num_steps:
        raise ValueError(f"num_completions must be at most the {num_chains * num_steps} steps kept: take more steps")
    model = with_blanks(model)
    check_data(model, x)
    parts: list[tuple[Tensor, ...]] = []
    with quiet(model, x, seed, guide) as seeds:
        within = plausible(model, x)
        guide = kept_within(guide, within)
        reseed(seeds)
        blocks = x.split(max(1, default_chunk_size(model, x) // num_chains))
        for i, block in enumerate(blocks):
            reseed(seeds)
            chains = _Chains(model, guide, block, num_chains, within)
            record = _Record(block, num_chains, num_steps, num_completions)
            for step in range(warmup + num_steps):
                accepted, mean = chains.step()
                if step >= warmup:
                    record.add(step - warmup, chains.x.unflatten(0, (num_chains, -1)), mean, accepted)
                if progress is not None:
                    progress(i * (warmup + num_steps) + step + 1, len(blocks) * (warmup + num_steps))
            parts.append((*record.result(), chains.possible()))
    completions = torch.cat([part[0] for part in parts], dim=1)
    mean, sd, acceptance, rhat, possible = (torch.cat(part) for part in list(zip(*parts, strict=True))[1:])
    filled = where_possible(x, possible, completions, mean, sd, within)
    return Imputation(*filled, acceptance=acceptance, rhat=rhat)


class _Chains:
    """Chains of some data, as rows of one batch, chain by chain: each has values for its blanks and latents."""

    def __init__(self, model: Program, guide: Program, x: Tensor, num_chains: int, within: Range):
        self.model, self.guide, self.num_chains = model, guide, num_chains
        self.blanks = x.repeat(num_chains, 1)  # (C B, D)
        self.x, strayed = walk(model, guide, self.blanks, within)
        check_program(model, guide, self.x)
        self.latents = list(latent_sites(model, self.x))
        self.z = self._latents(draw(guide, self.x, 1)[0])
        if strayed.any():  # to where a chain might stay
            self._move(self._latents(draw(prior(model), self.x, 1)[0]), strayed)

    def _latents(self, values: Values) -> dict[str, Tensor]:
        return {name: values[name] for name in self.latents}

    def step(self) -> tuple[Tensor, Tensor]:
        """Move the latents and the blanks once; return what was accepted, (C, B), and E[x|z], (C, B, D)."""
        values, log_q_new = draw(self.guide, self.x, 1)  # (1, C B)
        new = self._latents(values)
        log_ratio = log_density(self.model, self.x, new) - log_q_new - self._log_weight()
        accepted = torch.rand_like(log_ratio).log() < log_ratio
        self._move(new, accepted)
        drawn, mean = decode(self.model, self.blanks, self.z)
        self.x = drawn[0]
        return accepted.reshape(self.num_chains, -1), mean[0].unflatten(0, (self.num_chains, -1))

    def _move(self, z: Values, moved: Tensor) -> None:
        """Replace the latents of those chains that are ``moved``, (..., C B)."""
        self.z = {
            name: torch.where(moved.reshape(1, -1, *[1] * (value.dim() - 2)), value, self.z[name])
            for name, value in z.items()
        }

    def possible(self) -> Tensor:
        """Return whether all chains of a datum are where its observed elements have a density, (B,)."""
        return log_density(self.model, self.blanks, self.z).isfinite().reshape(self.num_chains, -1).all(0)

    def _log_weight(self) -> Tensor:
        """Return log p(x, z) - log q(z | x) where the chains are, (1, C B)."""
        return log_density(self.model, self.x, self.z) - log_density(self.guide, self.x, self.z)


class _Record:
    """What is kept of the chains: sums, and a few completions."""

    def __init__(self, x: Tensor, num_chains: int, num_steps: int, num_completions: int):
        self.x, self.num_steps = x, num_steps
        # Completion m is from chain m modulo C, and the steps are spread evenly, up to the last.
        rounds = -(-num_completions // num_chains)
        self.at = [(m % num_chains, (m // num_chains + 1) * num_steps // rounds - 1) for m in range(num_completions)]
        self.completions = x.repeat(num_completions, 1, 1)
        self.mean = x.new_zeros(num_chains, *x.shape, dtype=torch.float64)  # sums of E[x|z], and of its square
        self.mean_square = torch.zeros_like(self.mean)
        self.sum = torch.zeros_like(self.mean[0])  # of x, and of its square
        self.square = torch.zeros_like(self.sum)
        self.accepted = self.mean.new_zeros(len(x))
        self.without_mean = torch.zeros_like(x, dtype=torch.bool)

    def add(self, step: int, x: Tensor, mean: Tensor, accepted: Tensor) -> None:
        """Take in one step: the filled data and E[x|z], (C, B, D), and what was accepted, (C, B)."""
        for m, (chain, when) in enumerate(self.at):
            if when == step:
                self.completions[m] = x[chain]
        self.without_mean = mean[0].isnan()
        mean = torch.where(self.without_mean, x, mean)
        self.mean += mean
        self.mean_square += mean.double().square()
        self.sum += x.double().sum(0)
        self.square += x.double().square().sum(0)
        self.accepted += accepted.double().mean(0)

    def result(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return completions, mean, standard deviation, acceptance rate and R-hat."""
        num_steps, (num_chains, *_) = self.num_steps, self.mean.shape
        blank = self.x.isnan()
        by_chain = self.mean / num_steps
        mean = by_chain.mean(0)
        count = num_chains * num_steps
        variance = (self.square / count - (self.sum / count).square()).clamp(min=0)
        within = (self.mean_square / num_steps - by_chain.square()).mean(0) * num_steps / (num_steps - 1)
        between = by_chain.var(0) if num_chains > 1 else torch.zeros_like(mean)
        within, between = ((v * blank).sum(-1) for v in (within, between))
        rhat = (((num_steps - 1) / num_steps * within + between) / within).sqrt()
        mean = torch.where(blank, mean.to(self.x.dtype), self.x).masked_fill(self.without_mean, torch.nan)
        sd = (variance.sqrt() * blank).to(self.x.dtype).masked_fill(self.without_mean, torch.nan)
        return self.completions, or_most_frequent(mean, self.completions), sd, self.accepted / num_steps, rhat
