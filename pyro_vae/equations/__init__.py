"""Every equation of the derivation as two numbers that must agree.

The one side comes from the program (its parts, its Pyro model and guide), the other from
:mod:`pyro_vae.equations.closed_forms` or from another line of the same derivation.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor

from pyro_vae.equations.evidence import evidence_rows, exact_rows
from pyro_vae.equations.gradients import landing_row, pathwise_row, variance_rows
from pyro_vae.equations.kl import kl_rows, noise_rows
from pyro_vae.equations.models import bernoulli, linear_gaussian, perturbed, set_to_posterior, untrained
from pyro_vae.equations.objectives import article_rows, elbo_rows
from pyro_vae.equations.rows import Row
from pyro_vae.inference.blanks import pseudo_gibbs
from pyro_vae.vae import VAE

__all__ = ["Row", "check", "check_derivation"]


def check(vae: VAE, x: Tensor, *, num_draws: int = 1000, num_gradients: int = 200) -> list[Row]:
    r"""Check each equation of the derivation on a model, trained or not, and data.

    .. math:: \log P(x) - KL[Q \,\|\, P(z|x)] = E_Q[\log P(x|z)] - KL[Q \,\|\, P(z)]

    It computes in float64, on a copy of the model and with fixed seeds. What is
    intractable is estimated, and has a standard error.

    Args:
        vae: The model.
        x: Data, (B, D); a few dozen rows are enough. Where the model was trained with blanks (NaN), they are filled
            by a draw first: each equation is one of complete data.
        num_draws: How many z are drawn for each datum.
        num_gradients: How many gradients are drawn.

    Returns:
        A row for each equation, in the order of the derivation.

    Raises:
        ValueError: If the data are not what the likelihood accepts.

    Reference:
        Doersch (2016), Tutorial on Variational Autoencoders, equations 1 to 10.

    Example:
        >>> vae, x = bernoulli()
        >>> {row.verdict for row in check(vae, x, num_gradients=20)} - {"not applicable", "measured"}
        {'pass'}
    """
    x = vae.rows(x)
    vae.check(x)
    with _own_state():
        vae, x = copy.deepcopy(vae).double(), x.double()
        if x.isnan().any():
            with torch.no_grad():
                x = pseudo_gibbs(vae.model, vae.guide, x)
        return [
            *evidence_rows(vae, x, num_draws),
            *kl_rows(vae, x, num_draws),
            *noise_rows(vae, x, num_draws),
            pathwise_row(vae, x, num_gradients),
            *elbo_rows(vae, x, num_gradients),
            *article_rows(vae, x),
            *variance_rows(untrained(vae), x, "at initialisation", num_gradients),
            *variance_rows(vae, x, "after training", num_gradients),
        ]


def check_derivation(*, num_draws: int = 1000, num_gradients: int = 200) -> list[Row]:
    """Check each equation on models so small that every term is known.

    The evidence is that of a linear-Gaussian model, where quadrature gives the program's side
    and closed forms the other; the loss is the article's, of a Bernoulli model.

    Args:
        num_draws: How many z are drawn for each datum.
        num_gradients: How many gradients are drawn.

    Returns:
        A row for each equation, in the order of the derivation.

    Reference:
        Tipping & Bishop (1999), Probabilistic Principal Component Analysis, section 3.

    Example:
        >>> {row.verdict for row in check_derivation(num_gradients=20)} == {"pass", "measured"}
        True
    """
    with _own_state():
        vae, exact, x = linear_gaussian()
        small, x_small = bernoulli()
        start, *_ = linear_gaussian(orthogonal=True)
        optimum, exact_optimum, x_optimum = linear_gaussian(orthogonal=True)
        set_to_posterior(optimum, exact_optimum)
        near = perturbed(optimum)
        return [
            *exact_rows(vae, x, exact),
            *kl_rows(vae, x, num_draws),
            *noise_rows(vae, x, num_draws),
            pathwise_row(vae, x, num_gradients, quadrature=True),
            *elbo_rows(small, x_small, num_gradients),
            *article_rows(small, x_small),
            landing_row(optimum, x_optimum),
            *variance_rows(start, x_optimum, "at initialisation", num_gradients),
            *variance_rows(near, x_optimum, "near the optimum", num_gradients),
        ]


@contextmanager
def _own_state() -> Iterator[None]:
    """Fix the seed and use a parameter store of our own; leave both as they were."""
    with torch.random.fork_rng([]), pyro.get_param_store().scope():
        torch.manual_seed(0)
        yield
