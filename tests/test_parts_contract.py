"""What holds for every prior, encoder and likelihood: those of the package, found by themselves, and a user's own.

A new part needs no line here. If its constructor has options without a default, give them in ``OPTIONS``.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Literal, get_args, get_origin, get_type_hints

import pyro.distributions as dist
import pytest
import torch
from jsonargparse import ArgumentParser
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from scipy import stats
from torch import nn

import pyro_vae.encoders
import pyro_vae.likelihoods
import pyro_vae.priors
from pyro_vae import Encoder, Likelihood, Prior
from pyro_vae.build import FILLED_IN
from pyro_vae.commands.parts import our_parts
from pyro_vae.networks import bounded_exp
from pyro_vae.objectives import ImportanceWeightedELBO, KLWeightedELBO
from pyro_vae.testing import check_encoder, check_likelihood, check_objective, check_prior
from pyro_vae.testing.case import Case

PACKAGES = {Prior: pyro_vae.priors, Encoder: pyro_vae.encoders, Likelihood: pyro_vae.likelihoods}

# Options without a default, for data of x_dim elements.
OPTIONS = {
    "Columns": lambda x_dim: {
        "groups": [(1, pyro_vae.likelihoods.Laplace())] + [(x_dim - 1, pyro_vae.likelihoods.Bernoulli())] * (x_dim > 1)
    },
}


# A user's own parts.


class OwnPrior(Prior):
    def __init__(self, z_dim: int, spread: float = 2.0):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(z_dim))
        self.spread = spread

    def forward(self) -> dist.Distribution:
        return dist.Laplace(self.loc, self.spread).to_event(1)


class OwnEncoder(Encoder):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.log_scale = nn.Parameter(torch.zeros(()))

    @staticmethod
    def num_outputs(z_dim: int) -> int:
        return z_dim

    def forward(self, x: torch.Tensor) -> dist.Distribution:
        return dist.Normal(self.network(x), bounded_exp(self.log_scale)).to_event(1)


class OwnLikelihood(Likelihood):
    params_per_element = 2

    def forward(self, raw: torch.Tensor) -> dist.Distribution:
        return dist.Logistic(raw[..., 0], bounded_exp(raw[..., 1])).to_event(1)


# Finding.


def concrete_subclasses(base: type) -> list[type]:
    found = [part for child in base.__subclasses__() for part in [child, *concrete_subclasses(child)]]
    ours = [part for part in found if part.__module__.startswith("pyro_vae.") or part.__module__ == __name__]
    return sorted((part for part in ours if not inspect.isabstract(part)), key=lambda part: part.__name__)


def variants(part: type) -> list[dict]:
    """Return the options to test a part with: the defaults, and each other choice of a ``Literal`` option."""
    defaults = inspect.signature(part).parameters
    choices = [
        (name, choice)
        for name, hint in get_type_hints(part.__init__).items()
        for alternative in (hint, *get_args(hint))
        if get_origin(alternative) is Literal
        for choice in get_args(alternative)
    ]
    return [{}] + [{name: choice} for name, choice in choices if choice != defaults[name].default]


def cases(base: type) -> list:
    for module in pkgutil.iter_modules(PACKAGES[base].__path__):
        importlib.import_module(f"{PACKAGES[base].__name__}.{module.name}")
    return [
        pytest.param(part, options, id="-".join([part.__name__, *map(str, options.values())]))
        for part in concrete_subclasses(base)
        for options in variants(part)
    ]


ALL = [pytest.param(base, *case.values, id=case.id) for base in PACKAGES for case in cases(base)]
CHECKS = {Prior: check_prior, Encoder: check_encoder, Likelihood: check_likelihood}


def given(part: type, options: dict) -> tuple[Callable, dict]:
    """Return what makes the part, and its options."""
    if part.__name__ in OPTIONS:
        return lambda x_dim: part(**OPTIONS[part.__name__](x_dim), **options), {}
    return part, options


# The contract.


@pytest.mark.parametrize(("base", "part", "options"), ALL)
def test_contract(base, part, options):
    make, options = given(part, options)
    CHECKS[base](make, **options)


@pytest.mark.parametrize(("base", "part", "options"), ALL)
def test_options_can_be_given_on_the_command_line(base, part, options):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(part, "part", skip=FILLED_IN.intersection(inspect.signature(part).parameters))
    if part.__name__ not in OPTIONS:
        arguments = [f"--part.{name}={value}" for name, value in options.items()]
        parsed = parser.parse_args(arguments).as_dict().get("part", {})
        assert parsed.items() >= options.items()


@pytest.mark.parametrize(("base", "part"), [(base, part) for base in PACKAGES for part in concrete_subclasses(base)])
def test_is_exported_and_documented(base, part):
    if part.__module__ != __name__:
        assert getattr(PACKAGES[base], part.__name__) is part
        assert ">>>" in part.__doc__


# What each objective can be asked for; those of Pyro, and our own.
OBJECTIVES = [
    (Trace_ELBO, {}, {}),
    (Trace_ELBO, {"num_particles": 3, "vectorize_particles": True}, {}),
    (TraceMeanField_ELBO, {}, {}),
    (RenyiELBO, {"num_particles": 3}, {}),
    (ImportanceWeightedELBO, {"gradient": "plain"}, {}),
    (ImportanceWeightedELBO, {"gradient": "dreg"}, {}),
    (ImportanceWeightedELBO, {"gradient": "stl"}, {"is_unbiased": False}),
    (ImportanceWeightedELBO, {"gradient": "stl", "num_particles": 1}, {}),
    (KLWeightedELBO, {}, {}),
    (KLWeightedELBO, {"analytic": True, "num_particles": 2}, {}),
    (KLWeightedELBO, {"free_bits": 0.2}, {}),
    (KLWeightedELBO, {"kl_weight": 0.5}, {"is_bound": False}),
    (KLWeightedELBO, {"warmup_epochs": 2}, {"is_bound": False}),
]


@pytest.mark.parametrize(("part", "options", "meant"), OBJECTIVES, ids=lambda value: getattr(value, "__name__", None))
def test_contract_of_objectives(part, options, meant):
    check_objective(part, **options, **meant)


def test_no_objective_is_left_out():
    assert {part for part, *_ in OBJECTIVES} == set(our_parts("objective"))


# scipy's own log-density for each of torch's families.
SCIPY = {
    dist.Normal: lambda d: stats.norm(d.loc, d.scale).logpdf,
    dist.Laplace: lambda d: stats.laplace(d.loc, d.scale).logpdf,
    dist.Logistic: lambda d: stats.logistic(d.loc, d.scale).logpdf,
    dist.StudentT: lambda d: stats.t(d.df, d.loc, d.scale).logpdf,
    dist.Bernoulli: lambda d: stats.bernoulli(d.probs).logpmf,
    dist.Binomial: lambda d: stats.binom(d.total_count, d.probs).logpmf,
    dist.Poisson: lambda d: stats.poisson(d.rate).logpmf,
    dist.NegativeBinomial: lambda d: stats.nbinom(d.total_count, 1 - d.probs).logpmf,
}


def scipy_log_prob(p: dist.Distribution, value: torch.Tensor) -> torch.Tensor | None:
    """Return scipy's log-density of one value, (D,); None where scipy has no such distribution."""
    if isinstance(p, dist.MultivariateNormal):
        return torch.tensor(stats.multivariate_normal(p.loc, p.covariance_matrix).logpdf(value))
    if isinstance(p, dist.MixtureSameFamily):
        components = p.component_distribution
        parts = [
            scipy_log_prob(type(components)(type(base)(base.loc[k], base.scale[k]), 1), value)
            for base in [components.base_dist]
            for k in range(len(base.loc))
        ]
        return torch.logsumexp(torch.stack(parts) + p.mixture_distribution.probs.log(), 0)
    if isinstance(p, dist.Independent) and type(p.base_dist) in SCIPY:
        return torch.tensor(SCIPY[type(p.base_dist)](p.base_dist)(value)).sum()
    return None


@pytest.mark.parametrize(("base", "part", "options"), ALL)
@torch.no_grad()
def test_log_density_equals_scipys(base, part, options):
    torch.manual_seed(0)
    case = Case(base, *given(part, options), x_dim=3, z_dim=2)
    if base is Likelihood:
        p = case.vae.likelihood(torch.randn(3, case.vae.likelihood.params_per_element, dtype=torch.float64))
    else:
        p = case.latent()
    value = p.sample()
    expected = scipy_log_prob(p, value)
    if expected is None:
        pytest.skip("not in scipy")
    torch.testing.assert_close(p.log_prob(value), expected, rtol=1e-10, atol=1e-10)
