"""Filling blanks: draws from p(x_missing | x_observed), and its density at the truth."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.data.arrays import ShowsShapes
from pyro_vae.evidence import Evidence, laplace, log_evidence, refined
from pyro_vae.evidence.checks import check_count, check_data
from pyro_vae.evidence.importance import Sampler, default_chunk_size
from pyro_vae.evidence.result import RunningWeights, concatenate
from pyro_vae.inference.blanks import (
    Range,
    as_tensor_program,
    decode,
    fitted,
    kept_within,
    or_most_frequent,
    plausible,
    with_blanks,
)
from pyro_vae.program import Program, Values, arguments, quiet, reseed

Progress = Callable[[int, int], None]

_BLOCK = 256  # data that proposals are fitted to at once
_DRAWS = 500  # completions at least that the mean and the standard deviation are taken over


@dataclass(frozen=True, repr=False)
class Imputation(ShowsShapes):
    """N data, completed M times. Where they are observed, all completions and the mean are equal to x.

    Of a datum whose observed elements the model gives no density at any z that was tried, the blanks stay blank (NaN).

    Attributes:
        completions: Draws from p(x_missing | x_observed), (M, N, D).
        mean: E[x | x_observed], (N, D); of categories, which have no mean, the most frequent one of the draws.
        sd: Standard deviation of x given what is observed, (N, D), of 500 draws at least; 0 where observed, NaN of
            categories.
        implausible: Blanks, (N, D), that were filled from beyond what draws from the model, or the other data, make
            plausible (see :func:`pyro_vae.inference.blanks.plausible`), in a completion or in the mean.
        evidence: log P(x_observed) with its error, ESS and k-hat; None for Gibbs.
        acceptance: Gibbs: acceptance rate of the latents, (N,); None for importance sampling.
        rhat: Gibbs: R-hat over the chains, (N,), near 1 where they agree; None for importance sampling.
    """

    completions: Tensor
    mean: Tensor
    sd: Tensor
    implausible: Tensor
    evidence: Evidence | None = None
    acceptance: Tensor | None = None
    rhat: Tensor | None = None


def impute(
    model: Any,
    guide: Any,
    x: Tensor | None = None,
    *,
    num_completions: int = 5,
    num_samples: int = 1000,
    num_starts: int = 4,
    steps: int = 100,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Imputation:
    r"""Fill the blanks (NaN) of data by importance resampling, several times.

    .. math:: z_k \sim q(z), \quad w_k = \frac{p(x_\mathrm{observed}, z_k)}{q(z_k)}, \quad
        z^* \sim \sum_k \tilde w_k \delta_{z_k}, \quad x_\mathrm{missing} \sim p(x_\mathrm{missing} | z^*)

    The proposal q is fitted to the observed part of each datum (:func:`pyro_vae.inference.blanks.fitted`), so that
    the encoder need not have been trained with blanks. The draws are from the posterior in the limit of many
    samples; ``evidence.khat`` and ``evidence.ess`` tell how near they are.

    Args:
        model: A :class:`pyro_vae.VAE`, followed by ``x`` alone; or a Pyro model that observes x, elements independent
            given its latents, at one site, and says by an attribute ``missing = True`` that it takes blanks.
        guide: Its guide; run on completed data.
        x: Data with blanks, (N, D).
        num_completions: M.
        num_samples: K weights for each datum.
        num_starts: Gaussians that the proposal of each datum is mixed of.
        steps: Gradient steps that find the mode of each of them, and as many that fit it from there.
        seed: Of the noise; by default it follows torch's global generator.
        progress: Called with the number of data done, and of all.

    Returns:
        The completions, with log P(x_observed).

    Raises:
        ValueError: If the model can't take blanks, or the observed data are not what it describes.

    Reference:
        Mattei & Frellsen (2019), MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets,
        equations 11 to 13 (with the encoder's proposal).

    Example:
        >>> from pyro_vae import build
        >>> x = torch.ones(3, 16)
        >>> x[:, 8:] = torch.nan
        >>> impute(build((1, 4, 4), latent_dim=2), x, num_samples=100, steps=20, seed=0).completions.shape
        torch.Size([5, 3, 16])
    """
    model, guide, x = as_tensor_program(model, guide, x)
    check_count(num_completions=num_completions, num_samples=num_samples, num_starts=num_starts, steps=steps)
    model = with_blanks(model)
    check_data(model, x)
    parts, evidence = [], []
    with quiet(model, x, seed, guide) as seeds:
        within = plausible(model, x)
        guide = kept_within(guide, within)
        for rows, own_seed in _blocks(x, seeds):
            fit: dict[str, Any] = {"num_starts": num_starts, "steps": steps, "seed": own_seed, "within": within}
            proposal = fitted(model, guide, x[rows], **fit)
            sampler = Sampler(model, proposal, x[rows], num_samples, None, seeds)
            for some in sampler.blocks():
                values, weighed = resample(sampler, some, num_samples, max(num_completions, _DRAWS))
                evidence.append(weighed)
                parts.append(_summary(model, x[rows][some], values, num_completions))
                if progress is not None:
                    progress(int(rows[0] + some[-1]) + 1, len(x))
    completions, mean, sd = (torch.cat(part, dim=-2) for part in zip(*parts, strict=True))
    found = concatenate(evidence)
    filled = where_possible(x, found.log_evidence.isfinite(), completions, mean, sd, within)
    return Imputation(*filled, evidence=found)


def where_possible(
    x: Tensor, possible: Tensor, completions: Tensor, mean: Tensor, sd: Tensor, within: Range
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return completions, mean and deviation with blanks where a datum, (N,), has none, and what is implausible."""
    none = x.isnan() & ~possible[:, None]
    completions, mean, sd = (values.masked_fill(none, torch.nan) for values in (completions, mean, sd))
    low, high = within
    beyond = [((values < low) | (values > high)).any(0) for values in (completions, mean[None])]
    return completions, mean, sd, x.isnan() & (beyond[0] | beyond[1])


def _blocks(x: Tensor, seeds: torch.Generator) -> Iterator[tuple[Tensor, int]]:
    """Yield the indices of a part of the data, and a seed of its own."""
    for rows in torch.arange(len(x), device=x.device).split(_BLOCK):
        reseed(seeds)
        yield rows, int(torch.randint(2**62, (), generator=seeds))


def resample(sampler: Sampler, rows: Tensor, num_samples: int, num: int) -> tuple[Values, Evidence]:
    """Draw latents of some data from their posterior, each (num, B, ...), by ``num_samples`` weights of each datum."""
    running = RunningWeights(len(rows), num_samples, rows.device)
    kept = _Resampled(num, len(rows), rows.device)
    for z, log_weights in sampler.draws(rows, num_samples):
        running.add(slice(None), log_weights)
        kept.add(z, log_weights)
    return kept.values, running.result()


class _Resampled:
    """R draws of each datum's latents in proportion to their weights, with replacement, while the weights stream.

    A new block of samples takes the place of what a draw stands for with the probability of its share in the total
    weight, and is then represented by one of its own samples.
    """

    def __init__(self, num: int, size: int, device: torch.device):
        self.values: dict[str, Tensor] = {}
        self.num = num
        self.log_sum = torch.full((size,), -torch.inf, dtype=torch.float64, device=device)

    def add(self, z: Values, log_weights: Tensor) -> None:
        """Take in samples of each site, (K, B, ...), and their log-weights, (K, B)."""
        log_weights = log_weights.double().nan_to_num(nan=-torch.inf)
        log_new = log_weights.logsumexp(0)
        log_weights = log_weights.where(log_new.isfinite(), 0.0)  # where all are impossible, any will do
        self.log_sum = torch.logaddexp(self.log_sum, log_new)
        replaced = torch.rand(self.num, len(log_new), device=log_new.device) < (log_new - self.log_sum).exp()
        picked = log_weights.softmax(0).T.multinomial(self.num, replacement=True).T  # (R, B)
        columns = torch.arange(len(log_new), device=log_new.device)
        for name, value in z.items():
            new = value[picked, columns]
            at = replaced.reshape(replaced.shape + (1,) * (new.dim() - 2))
            self.values[name] = torch.where(at, new, self.values[name]) if name in self.values else new


def _summary(model: Program, x: Tensor, values: Values, num_completions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return some completions, the mean and the standard deviation, from latents of each site, (R, B, ...)."""
    num_draws = len(next(iter(values.values())))
    parts = []
    for rows in torch.arange(len(x), device=x.device).split(max(1, default_chunk_size(model, x) // num_draws)):
        drawn, means = decode(model, x[rows], {name: value[:, rows] for name, value in values.items()})
        mean = torch.where(x[rows].isnan(), means.mean(0), x[rows])
        sd = (drawn - mean).square().mean(0).sqrt()
        parts.append((drawn[:num_completions], or_most_frequent(mean, drawn), sd))
    completions, mean, sd = (torch.cat(part, dim=-2) for part in zip(*parts, strict=True))
    return completions, mean, sd


@dataclass(frozen=True, repr=False)
class MissingLogProb(ShowsShapes):
    """log P(x_missing | x_observed) of N data, in nats.

    Attributes:
        log_prob: log P(x) - log P(x_observed), (N,).
        se: Its Monte Carlo standard error, (N,).
        observed: The estimate of log P(x_observed).
        complete: The estimate of log P(x), of all that is known of x.
    """

    log_prob: Tensor
    se: Tensor
    observed: Evidence
    complete: Evidence


def log_prob_missing(
    model: Any,
    guide: Any,
    x: Tensor,
    truth: Tensor | None = None,
    *,
    observed: Evidence | None = None,
    num_samples: int = 1000,
    num_starts: int = 4,
    steps: int = 100,
    seed: int | None = None,
    progress: Progress | None = None,
) -> MissingLogProb:
    r"""Estimate how probable the true values of the blanks are, given what is observed.

    .. math:: \log P(x_\mathrm{missing} | x_\mathrm{observed}) = \log P(x) - \log P(x_\mathrm{observed})

    Each by importance sampling from proposals fitted to each datum. Both are too low in expectation, by about half
    their squared standard errors, so the difference is biased by about
    :math:`(\mathrm{se}_\mathrm{observed}^2 - \mathrm{se}_\mathrm{complete}^2) / 2`, and is no bound.

    Args:
        model: As for :func:`impute`; a VAE is followed by ``x`` and ``truth`` alone.
        guide: As for :func:`impute`.
        x: Data with blanks, (N, D).
        truth: The same with what is known of the blanks, (N, D). Where it is blank itself, it says nothing.
        observed: The estimate of log P(x_observed), where :func:`impute` has made it already.
        num_samples: K weights for each datum, with the blanks and without.
        num_starts: As for :func:`impute`.
        steps: As for :func:`impute`.
        seed: Of the noise; by default it follows torch's global generator.
        progress: Called with the number of data done, and of all.

    Returns:
        The estimates.

    Raises:
        ValueError: As :func:`impute`, and if ``truth`` knows none of the blanks, or contradicts ``x``.

    Example:
        >>> from pyro_vae import build
        >>> truth = torch.ones(3, 16)
        >>> x = truth.where(torch.arange(16) < 8, torch.nan)
        >>> log_prob_missing(build((1, 4, 4), latent_dim=2), x, truth, num_samples=100, steps=20, seed=0).log_prob.shape
        torch.Size([3])
    """
    if truth is None:  # (vae, x, truth)
        truth = x
        model, guide, x = as_tensor_program(model, guide, None)
    check_count(num_samples=num_samples, num_starts=num_starts, steps=steps)
    check_data(model := with_blanks(model), x)
    truth = arguments(check_data(model, truth, "truth"))[0]
    check_truth(x, truth)
    of_observed, of_all = [], []
    with quiet(model, x, seed, guide) as seeds:
        within = plausible(model, x)
        guide = kept_within(guide, within)
        for rows, own_seed in _blocks(x, seeds):
            options: dict[str, Any] = {"num_samples": num_samples, "seed": own_seed}
            fit: dict[str, Any] = {"num_starts": num_starts, "steps": steps, "seed": own_seed, "within": within}
            if observed is None:
                proposal = fitted(model, guide, x[rows], **fit)
                of_observed.append(log_evidence(model, proposal, x[rows], **options))
            if truth[rows].isnan().any():
                proposal = fitted(model, guide, truth[rows], **fit)
            else:
                mode = laplace(model, guide, truth[rows], steps=steps, seed=own_seed)
                proposal = refined(model, mode, truth[rows], steps=steps, full_rank=True, seed=own_seed)
            of_all.append(log_evidence(model, proposal, truth[rows], **options))
            if progress is not None:
                progress(int(rows[-1]) + 1, len(x))
    observed, complete = observed or concatenate(of_observed), concatenate(of_all)
    log_prob = complete.log_evidence - observed.log_evidence
    se = (observed.se.square() + complete.se.square()).sqrt()
    nothing = (x.isnan() == truth.isnan()).all(1)  # of which the probability is 1
    return MissingLogProb(log_prob.masked_fill(nothing, 0), se.masked_fill(nothing, 0), observed, complete)


def check_truth(x: Tensor, truth: Tensor) -> None:
    """Refuse a truth, (N, D), that knows nothing, or that isn't the truth of ``x``.

    Raises:
        ValueError: Naming the first row where it differs.
    """
    if truth.shape != x.shape:
        raise ValueError(f"truth must have the shape of x, {tuple(x.shape)}, but has {tuple(truth.shape)}")
    if x.isnan().any() and not (x.isnan() & ~truth.isnan()).any():
        raise ValueError("truth must know some of the blanks of x, but is blank (NaN) in all of them")
    wrong = ((truth != x) & ~x.isnan()).any(1)
    if wrong.any():
        raise ValueError(
            f"truth must be equal to x where that is observed, but is not in {int(wrong.sum())} rows, the first of "
            f"them {int(wrong.nonzero()[0])}, from 0"
        )
