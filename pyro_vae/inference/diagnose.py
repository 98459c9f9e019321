"""What goes wrong in a training without an error: over-fitting, collapse, densities without a maximum."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from pyro.distributions import Distribution
from torch import Tensor, nn

from pyro_vae.base import Likelihood
from pyro_vae.inference.score import auroc
from pyro_vae.objectives import elbo_terms
from pyro_vae.program import Data, arguments, as_data, take
from pyro_vae.vae import VAE

COLLAPSED = 0.05  # nats of KL for each datum
OVERFITTED = 2 / 3  # of pairs in which the training datum has the higher ELBO; 1/2 where nothing tells the two apart
MOST_NAMED = 5


def diagnose(
    vae: VAE,
    train: Data,
    test: Data,
    *,
    columns: Sequence[str] | None = None,
    max_examples: int = 10_000,
    seed: int = 0,
) -> list[str]:
    r"""Say what a trained VAE suffers from, a line for each trouble, with the way out.

    - Over-fitting: a training datum x has a higher ELBO than a test datum x' in more than two thirds of the pairs,
      :math:`P(\mathrm{ELBO}(x) > \mathrm{ELBO}(x')) > 2/3`, and by more than three standard errors. Ranks, unlike
      means, have no unit, and a few outliers hide nothing.
    - Collapse: :math:`\mathrm{KL}[q(z|x) \,\|\, p(z)]` below 0.05 nats in the mean over the test data.
    - No maximum: for most test data, an element's standard deviation is the smallest that is allowed.

    Args:
        vae: The VAE.
        train: What it was trained on, (N, D), or with labels a tuple.
        test: Data that it did not see, (M, D), likewise.
        columns: The names of a table's columns, for the messages.
        max_examples: The first so many of each are looked at.
        seed: Of the posterior samples.

    Returns:
        The lines, none where all is well.

    Reference:
        Bowman et al. (2016), Generating Sentences from a Continuous Space, section 3.1 (collapse); Mattei & Frellsen
        (2018), Leveraging the Exact Likelihood of Deep Latent Variable Models, section 2 (no maximum).

    Example:
        >>> import pyro_vae
        >>> x = torch.rand(50, 16).round()
        >>> diagnose(pyro_vae.build((1, 4, 4), latent_dim=50), x, x)
        []
    """
    train, test = as_data(vae, train, "train"), as_data(vae, test, "test")
    if not (isinstance(train, tuple) and isinstance(test, tuple)):  # log P(X, Y) compares with nothing but itself
        train, test = arguments(train)[0], arguments(test)[0]
    train, test = take(train, slice(max_examples)), take(test, slice(max_examples))
    train_elbo = torch.sub(*elbo_terms(vae.model, vae.guide, train, seed=seed))
    with _watching(vae.likelihood) as at_bound:
        reconstruction, kl = elbo_terms(vae.model, vae.guide, test, seed=seed)
    return [
        *_overfitting(train_elbo, reconstruction - kl),
        *_collapse(kl.mean().item()),
        *_without_maximum(torch.cat(at_bound).double().mean(0) > 0.5 if at_bound else torch.zeros(0), columns),
    ]


def _overfitting(train: Tensor, test: Tensor) -> Iterator[str]:
    part, _ = auroc(test, train)
    error = math.sqrt((1 / len(train) + 1 / len(test)) / 12)  # where nothing tells the two apart
    if part > max(OVERFITTED, 0.5 + 3 * error):
        yield (
            f"over-fitting: a training example has a higher ELBO than a test example in {part:.0%} of all pairs (the "
            f"medians are {train.median():.4g} and {test.median():.4g} nats); try smaller hidden_dims or latent_dim, "
            "more data, or more of them for validation, unless the test data are of another kind"
        )


def _collapse(kl: float) -> Iterator[str]:
    if kl < COLLAPSED:
        yield (
            f"collapse: KL[q(z|x) || p(z)] is {kl:.2f} nats, so z carries nothing of x; try the objective "
            "KLWeightedELBO with warmup_epochs or free_bits, a likelihood whose scale suits the data, or a smaller lr"
        )


def _without_maximum(elements: Tensor, columns: Sequence[str] | None) -> Iterator[str]:
    if not elements.any():
        return
    rows = elements.nonzero()[:, 0].tolist()
    where = f"in {len(rows):,} of {len(elements):,} elements"
    if columns is not None:
        where = "of " + ", ".join(columns[d] for d in rows[:MOST_NAMED]) + (", …" if len(rows) > MOST_NAMED else "")
    yield (
        f"no maximum: the standard deviation {where} ran to the smallest allowed, where the density of a value hit "
        "exactly grows without end; raise the likelihood's min_scale, or take a likelihood of whole numbers or classes"
    )


@contextmanager
def _watching(likelihood: Likelihood) -> Iterator[list[Tensor]]:
    """Collect which scales are at their bound, (B, D) each, while a program runs."""
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Distribution) -> None:
        at_bound = likelihood.at_smallest_scale(inputs[0])
        if at_bound is not None:
            seen.append(at_bound.flatten(0, -2))

    handle = likelihood.register_forward_hook(look)
    try:
        yield seen
    finally:
        handle.remove()
