"""The contracts of a prior, an encoder and a likelihood."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pyro_vae.base import Encoder, Likelihood, Prior
from pyro_vae.testing.behaviour import check_part
from pyro_vae.testing.case import Case, width
from pyro_vae.testing.densities import check_elements, check_latent_density
from pyro_vae.testing.saying import alone, saying
from pyro_vae.testing.shapes import check_data, check_encoder_shapes, check_likelihood_shapes, check_prior_shapes

LEADS: list[tuple[int, ...]] = [(), (3,), (2, 3)]  # leading dimensions


def check_prior(
    prior: Prior | Callable[..., Prior], *, z_dim: int | None = None, x_dim: int = 3, **options: Any
) -> None:
    """Require of a prior p(z) what every prior does.

    That is: shapes, with any batch shape to which it is expanded; a density that integrates to one, and draws that come
    from it; a gradient for each parameter; that it can be saved and loaded, copied, moved to another type of number or
    device; and that a value outside of its support is refused.

    Args:
        prior: The class, a function that makes a prior, or a prior.
        z_dim: Number of latent dimensions, 1 or 2, so that the density can be integrated. Default: both, or of an
            instance its own.
        x_dim: Number of elements of a datum, for a prior that asks for it.
        **options: For the class or the function.

    Raises:
        AssertionError: If it breaks the contract.
        ValueError: If it can't be built, or not be checked.

    Example:
        >>> from pyro_vae.priors import StudentT
        >>> check_prior(StudentT, df=3.0)
        >>> check_prior(StudentT(z_dim=2))
    """
    with alone():
        if z_dim is None and isinstance(prior, Prior):
            z_dim = width(type(prior).__name__, prior())
        for size in (1, 2) if z_dim is None else (z_dim,):
            case = Case(Prior, prior, options, x_dim=x_dim, z_dim=size)
            for lead in LEADS:
                check_prior_shapes(case, lead)
            check_latent_density(case)
        check_part(case)


def check_encoder(
    encoder: Encoder | Callable[..., Encoder], *, z_dim: int | None = None, x_dim: int = 3, **options: Any
) -> None:
    """Require of an encoder q(z|x) what every encoder does.

    That is: shapes, with any leading dimensions of x, where each datum has the posterior that it has alone; draws
    through which gradients go; and what :func:`check_prior` requires of a prior.

    Args:
        encoder: The class, a function that makes an encoder, or an encoder.
        z_dim: Number of latent dimensions, 1 or 2, so that the density can be integrated. Default: both, or of an
            instance its own.
        x_dim: Number of elements of a datum.
        **options: For the class or the function.

    Raises:
        AssertionError: If it breaks the contract.
        ValueError: If it can't be built, or not be checked.

    Example:
        >>> from pyro_vae.encoders import DiagonalNormal
        >>> check_encoder(DiagonalNormal)
        >>> check_encoder(DiagonalNormal(torch.nn.Linear(5, 4)), x_dim=5)
    """
    with alone():
        if z_dim is None and isinstance(encoder, Encoder):
            with saying(type(encoder).__name__, f"with x of shape ({x_dim},)"):
                z_dim = width(type(encoder).__name__, copy.deepcopy(encoder).double()(torch.zeros(x_dim).double()))
        for size in (1, 2) if z_dim is None else (z_dim,):
            case = Case(Encoder, encoder, options, x_dim=x_dim, z_dim=size)
            for lead in LEADS:
                check_encoder_shapes(case, lead)
            check_latent_density(case)
        check_part(case)


def check_likelihood(likelihood: Likelihood | Callable[..., Likelihood], *, x_dim: int = 3, **options: Any) -> None:
    """Require of a likelihood p(x|z) what every likelihood does.

    That is: shapes, with any leading dimensions of the decoder's raw outputs, where each datum has the density that it
    has alone; probabilities that sum, or a density that integrates, to one over its ``support`` (unless ``is_density``
    is false), and draws that come from it and that it accepts as data; blanks and initial values; and what
    :func:`check_prior` requires of a prior.

    Args:
        likelihood: The class, a function that makes a likelihood, or a likelihood.
        x_dim: Number of elements of a datum.
        **options: For the class or the function.

    Raises:
        AssertionError: If it breaks the contract.
        ValueError: If it can't be built, or not be checked.

    Example:
        >>> from pyro_vae.likelihoods import Binomial, Laplace
        >>> check_likelihood(Binomial, x_dim=4)
        >>> check_likelihood(Laplace(scale="predicted"))
    """
    with alone():
        case = Case(Likelihood, likelihood, options, x_dim=x_dim, z_dim=2)
        for lead in LEADS:
            check_likelihood_shapes(case, lead)
        check_data(case)
        if case.vae.likelihood.is_density:
            one = isinstance(likelihood, nn.Module)
            check_elements(case if one else Case(Likelihood, likelihood, options, x_dim=1, z_dim=2))
        check_part(case)
