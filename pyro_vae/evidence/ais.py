"""Annealed importance sampling: the reference where no exact value exists, and its bound from above."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.data.arrays import ShowsShapes
from pyro_vae.evidence.checks import check_count, check_data, check_program
from pyro_vae.evidence.hmc import StepSizes, transition
from pyro_vae.evidence.importance import default_chunk_size
from pyro_vae.evidence.latents import Latents, latent_sites, prior
from pyro_vae.evidence.result import Evidence, concatenate, from_log_weights
from pyro_vae.program import (
    Data,
    Program,
    arguments,
    as_model,
    draw,
    log_density,
    log_prob,
    num_data,
    quiet,
    reseed,
    sample_sites,
    take,
    trace,
)

Progress = Callable[[int, int], None]
_TUNING_CHAINS = 4


def ais(
    model: Any,
    x: Data,
    *,
    guide: Program | None = None,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    target_acceptance: float = 0.65,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Evidence:
    r"""Estimate log P(x) by annealing from the prior, or a guide, to the posterior.

    .. math:: f_\beta(z) = q(z|x)^{1-\beta}\, p(x, z)^\beta, \quad
        \log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) [\log p(x, z_{t-1}) - \log q(z_{t-1}|x)]

    where :math:`z_t` follows :math:`z_{t-1}` by a Hamiltonian Monte Carlo step that leaves
    :math:`f_{\beta_t}` invariant. E[w] = P(x) without bias, so that in expectation the estimate
    is a lower bound. The step sizes, one for each temperature and datum, are tuned in a run of their own.

    Args:
        model: A Pyro model with continuous latents in one data plate, or a :class:`pyro_vae.VAE`.
        x: Data, (N, ...).
        guide: Where to start; by default the prior.
        num_temperatures: T, on a sigmoidal schedule.
        num_chains: Independent chains, and so weights, for each datum.
        num_leapfrog: Leapfrog steps of each transition.
        target_acceptance: Acceptance rate that the step sizes are tuned to.
        seed: Of the noise; by default it follows torch's global generator.
        progress: Called with the number of transitions done, and of all.

    Returns:
        The estimates. Their ``elbo`` is the mean log-weight of the chains.

    Raises:
        ValueError: If a latent is discrete, or the data are not what the model describes.

    Reference:
        Neal (2001), Annealed Importance Sampling; Wu et al. (2017), On the Quantitative Analysis of
        Decoder-Based Generative Models, section 3.

    Example:
        >>> from pyro_vae.evidence.exact import LinearGaussian
        >>> exact = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3))
        >>> result = ais(exact.model, torch.zeros(1, 3), num_temperatures=30, seed=0)
        >>> bool((result.log_evidence - exact.log_evidence(torch.zeros(1, 3))).abs() < 4 * result.se)
        True
    """
    model = as_model(model)
    check_count(num_temperatures=num_temperatures, num_chains=num_chains, num_leapfrog=num_leapfrog)
    x = check_data(model, x)
    start = prior(model) if guide is None else guide
    parts = []
    with quiet(model, x, seed, start) as seeds:
        reseed(seeds)
        check_program(model, start, x)
        blocks = _blocks(model, x, num_chains)
        report = _Progress(progress, len(blocks) * 2 * num_temperatures)
        for rows in blocks:
            reseed(seeds)
            path = _Path(model, guide, take(x, rows), num_temperatures, num_leapfrog)
            step_sizes = path.tune(min(_TUNING_CHAINS, num_chains), target_acceptance, report)
            parts.append(from_log_weights(path.forward(num_chains, step_sizes, report)))
    return concatenate(parts)


@dataclass(frozen=True, repr=False)
class Bidirectional(ShowsShapes):
    """Bounds on log P(x) from both sides, for data simulated from the model.

    Attributes:
        x: The simulated data, (N, ...).
        lower: Annealed importance sampling from the prior to the posterior.
        upper: The same path from the true latents back to the prior, (N,), nats.
    """

    x: Tensor
    lower: Evidence
    upper: Tensor

    @property
    def gap(self) -> Tensor:
        """Upper less lower bound, (N,): in expectation at least the error of either."""
        return self.upper - self.lower.log_evidence


def bidirectional(
    model: Any,
    x: Tensor,
    *,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    target_acceptance: float = 0.65,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Bidirectional:
    r"""Bound log P(x) from below and above, on data simulated from the model.

    The pair (z, x) ~ p(x, z) makes z an exact draw from p(z|x), from which the chain can run backwards:

    .. math:: \mathrm{E}\Bigl[\log \tfrac1C \sum_c w_c\Bigr] \le \log P(x)
        \le \mathrm{E}\Bigl[-\log \tfrac1C \sum_c \tilde w_c^{-1}\Bigr]

    On real data there is no upper bound, but a small gap here says that the same settings serve there too.

    Args:
        model: A Pyro model with continuous latents in one data plate, or a :class:`pyro_vae.VAE`.
        x: Data, (N, ...), that serve for their shape only: as many are simulated.
        num_temperatures: T, on a sigmoidal schedule.
        num_chains: Independent chains for each datum, in each direction.
        num_leapfrog: Leapfrog steps of each transition.
        target_acceptance: Acceptance rate that the step sizes are tuned to.
        seed: Of the noise; by default it follows torch's global generator.
        progress: Called with the number of transitions done, and of all.

    Returns:
        The simulated data and both bounds.

    Raises:
        ValueError: If a latent is discrete, or the model does not observe exactly one site.

    Reference:
        Grosse et al. (2015), Sandwiching the marginal likelihood using bidirectional Monte Carlo;
        Wu et al. (2017), On the Quantitative Analysis of Decoder-Based Generative Models, section 4.

    Example:
        >>> from pyro_vae.evidence.exact import LinearGaussian
        >>> exact = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3))
        >>> bounds = bidirectional(exact.model, torch.zeros(5, 3), num_temperatures=30, seed=0)
        >>> bool(bounds.gap.mean() < 0.1)
        True
    """
    model = as_model(model)
    check_count(num_temperatures=num_temperatures, num_chains=num_chains, num_leapfrog=num_leapfrog)
    x = arguments(check_data(model, x))[0]
    lower, upper, simulated = [], [], []
    with quiet(model, x, seed) as seeds:
        reseed(seeds)
        check_program(model, prior(model), x)
        blocks = _blocks(model, x, num_chains)
        report = _Progress(progress, len(blocks) * 3 * num_temperatures)
        for rows in blocks:
            reseed(seeds)
            z, data = _simulate(model, x[rows])
            path = _Path(model, None, data, num_temperatures, num_leapfrog)
            step_sizes = path.tune(min(_TUNING_CHAINS, num_chains), target_acceptance, report)
            lower.append(from_log_weights(path.forward(num_chains, step_sizes, report)))
            upper.append(-from_log_weights(-path.backward(z, num_chains, step_sizes, report)).log_evidence)
            simulated.append(data)
    return Bidirectional(torch.cat(simulated), concatenate(lower), torch.cat(upper))


def _simulate(model: Program, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Draw latents, each (1, B, ...), and data, (B, ...), from the model."""
    sites = dict(sample_sites(trace(poutine.uncondition(model), x, 1)))
    latents = latent_sites(model, x)
    observed = [name for name in sites if name not in latents]
    if len(observed) != 1:
        raise ValueError(f"the model must observe one site for its data to be simulated, but it observes {observed}")
    return {name: sites[name]["value"] for name in latents}, sites[observed[0]]["value"][0]


def _blocks(model: Program, x: Data, num_chains: int) -> tuple[Tensor, ...]:
    """Split the data so that a block, with its chains, is as large as a chunk of importance samples."""
    device = arguments(x)[0].device
    return torch.arange(num_data(x), device=device).split(max(1, default_chunk_size(model, x) // num_chains))


class _Progress:
    def __init__(self, call: Progress | None, total: int):
        self.call, self.total, self.done = call, total, 0

    def __call__(self) -> None:
        self.done += 1
        if self.call is not None:
            self.call(self.done, self.total)


class _Path:
    """The annealed densities between a guide and the posterior, for some data."""

    def __init__(self, model: Program, guide: Program | None, x: Data, num_temperatures: int, num_leapfrog: int):
        self.model, self.guide, self.x, self.num_leapfrog = model, guide, x, num_leapfrog
        self.latents = Latents(model, x)
        # Most of the change happens near both ends, where the schedule is therefore finest.
        logistic = torch.linspace(-4, 4, num_temperatures + 1, dtype=torch.float64).sigmoid()
        self.betas = ((logistic - logistic[0]) / (logistic[-1] - logistic[0])).tolist()

    def draw(self, num_chains: int) -> Tensor:
        """Return starting points, (C, B, n)."""
        return self.latents.flatten(draw(self.guide or prior(self.model), self.x, num_chains)[0])

    def at(self, beta: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return the density at a temperature, as u -> log f, and the log-ratio log p(x, z) - log q(z|x) at u."""

        def log_f(u: Tensor) -> tuple[Tensor, Tensor]:
            values, log_jacobian = self.latents.unflatten(u)
            joint = trace(self.model, self.x, len(u), values)
            if self.guide is None:
                log_start = log_prob(joint, values)
                log_ratio = log_prob(joint, [name for name, _ in sample_sites(joint) if name not in values])
            else:
                log_start = log_density(self.guide, self.x, values)
                log_ratio = log_prob(joint) - log_start
            return log_start + log_jacobian + beta * log_ratio, log_ratio

        return log_f

    def tune(self, num_chains: int, target: float, report: Callable[[], None]) -> list[Tensor]:
        """Return a step size for each temperature, (B, 1), that reaches the wanted acceptance."""
        u = self.draw(num_chains)
        sizes = StepSizes(u[0, :, :1], target)
        for _ in range(50):
            u, accepted = transition(self.at(0.0), u, sizes.now, self.num_leapfrog)[:2]
            sizes.adapt(accepted)
        tuned = []
        for beta in self.betas[1:]:
            u, accepted = transition(self.at(beta), u, sizes.now, self.num_leapfrog)[:2]
            sizes.adapt(accepted)
            tuned.append(sizes.now)
            report()
        return tuned

    def forward(self, num_chains: int, step_sizes: list[Tensor], report: Callable[[], None]) -> Tensor:
        """Return log-weights, (C, B), whose exponentials are unbiased for P(x)."""
        u = self.draw(num_chains)
        log_weights = u.new_zeros(u.shape[:2], dtype=torch.float64)
        for before, beta, step_size in zip(self.betas[:-1], self.betas[1:], step_sizes, strict=True):
            u, _, log_ratio, _ = transition(self.at(beta), u, step_size, self.num_leapfrog)
            log_weights += (beta - before) * log_ratio
            report()
        return log_weights

    def backward(
        self, z: dict[str, Tensor], num_chains: int, step_sizes: list[Tensor], report: Callable[[], None]
    ) -> Tensor:
        """Return log-weights, (C, B), of chains from the posterior draw z: their inverses are unbiased for 1 / P(x)."""
        u = self.latents.flatten(z).expand(num_chains, -1, -1)
        log_weights = u.new_zeros(u.shape[:2], dtype=torch.float64)
        for before, beta, step_size in reversed(list(zip(self.betas[:-1], self.betas[1:], step_sizes, strict=True))):
            u, _, _, log_ratio = transition(self.at(beta), u, step_size, self.num_leapfrog)
            log_weights += (beta - before) * log_ratio
            report()
        return log_weights
