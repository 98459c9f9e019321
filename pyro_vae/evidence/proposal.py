"""Proposals as parts, to be chosen by name and options where the data come later, such as on the command line."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyro_vae.evidence.gaussian import laplace, refined
from pyro_vae.evidence.proposals import defensive, widened
from pyro_vae.program import Data, Program

Progress = Callable[[int, int], None]


class Proposal(ABC):
    """What to sample from in place of the guide. The parameters of a subclass's constructor are its options.

    Example:
        >>> import torch
        >>> from pyro_vae.evidence import LinearGaussian, log_evidence
        >>> exact, x = LinearGaussian(torch.ones(3, 1), scale=torch.ones(3)), torch.zeros(1, 3)
        >>> proposal = Refined(steps=100)(exact.model, exact.guide, x, seed=1)
        >>> estimate = log_evidence(exact.model, proposal, x, num_samples=100, seed=0)
        >>> abs(estimate.mean - exact.log_evidence(x).mean()) < 0.05
        tensor(True)
    """

    @abstractmethod
    def __call__(
        self, model: Program, guide: Program, x: Data, *, seed: int | None = None, progress: Progress | None = None
    ) -> Program:
        """Return a guide over the same sites, for these data.

        Args:
            model: A Pyro model of ``x``.
            guide: Its guide.
            x: Data, (N, ...).
            seed: Of the noise of a fit; another one than that of the estimate.
            progress: Called with the number of data done, and of all.
        """


@dataclass(frozen=True)
class Widened(Proposal):
    """The guide, with larger deviations. See :func:`widened`.

    Args:
        factor: Factor on the deviations.
    """

    factor: float = 1.2

    def __call__(self, model: Program, guide: Program, x: Data, **how: Any) -> Program:
        """Return the wider guide."""
        return widened(guide, self.factor)


@dataclass(frozen=True)
class Defensive(Proposal):
    """The guide, mixed with the prior. See :func:`defensive`.

    Args:
        fraction: The prior's part.
    """

    fraction: float = 0.1

    def __call__(self, model: Program, guide: Program, x: Data, **how: Any) -> Program:
        """Return the mixture."""
        return defensive(model, guide, self.fraction)


@dataclass(frozen=True)
class Refined(Proposal):
    """A Gaussian fitted to each datum, by gradient steps from the guide. See :func:`refined`.

    Args:
        steps: Gradient steps.
        num_particles: Samples for each gradient.
        learning_rate: In units of the guide's deviations.
        full_rank: Fit a full covariance, from Laplace's approximation, rather than a diagonal one.
    """

    steps: int = 200
    num_particles: int = 8
    learning_rate: float = 0.05
    full_rank: bool = False

    def __call__(self, model: Program, guide: Program, x: Data, **how: Any) -> Program:
        """Return the fitted Gaussians."""
        if self.full_rank:  # a full covariance is found sooner from Laplace's than from independent dimensions
            seed = how.get("seed")
            guide = laplace(model, guide, x, **how | {"seed": None if seed is None else seed + 1})
        return refined(model, guide, x, **vars(self), **how)


@dataclass(frozen=True)
class Laplace(Proposal):
    """A Gaussian at the mode of each datum's posterior. See :func:`laplace`.

    Args:
        steps: Gradient steps to the mode.
        learning_rate: In units of the guide's deviations.
    """

    steps: int = 200
    learning_rate: float = 0.05

    def __call__(self, model: Program, guide: Program, x: Data, **how: Any) -> Program:
        """Return the fitted Gaussians."""
        return laplace(model, guide, x, **vars(self), **how)
