"""What holds for every prior, encoder and likelihood: those of the package, found by themselves, and a user's own.

A new part needs no line here. If its constructor has options without a default, give them in ``OPTIONS``.
"""

import copy
import importlib
import inspect
import math
import pkgutil
from typing import Literal, get_args, get_origin, get_type_hints

import pyro
import pyro.distributions as dist
import pytest
import safetensors.torch
import torch
from jsonargparse import ArgumentParser
from pyro.infer import Trace_ELBO
from scipy import stats
from torch import nn
from torch.distributions import constraints

import pyro_vae.encoders
import pyro_vae.likelihoods
import pyro_vae.priors
from pyro_vae import VAE, Encoder, Likelihood, Prior, mlp
from pyro_vae.build import make_part
from pyro_vae.networks import bounded_exp

PACKAGES = {Prior: pyro_vae.priors, Encoder: pyro_vae.encoders, Likelihood: pyro_vae.likelihoods}
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()

# What a part is given because it asks for it by name; the other parameters are its options.
SIZES = {"x_dim", "z_dim", "levels", "grey", "network", "encoder"}

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


# Finding and building.


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


PRIORS, ENCODERS, LIKELIHOODS = cases(Prior), cases(Encoder), cases(Likelihood)
ALL = [pytest.param(base, *case.values, id=case.id) for base in PACKAGES for case in cases(base)]
LATENT = [case for case in ALL if case.values[0] is not Likelihood]


def build_vae(base: type, part: type, options: dict, *, x_dim: int = 3, z_dim: int = 2, seed: int = 0) -> VAE:
    """Build a small float64 VAE around one part, with parameters away from their special starting values."""
    torch.manual_seed(seed)
    spec = {
        "class_path": f"{part.__module__}.{part.__qualname__}",
        "init_args": OPTIONS.get(part.__name__, lambda _: {})(x_dim) | options,
    }
    encoder_class = part if base is Encoder else pyro_vae.encoders.DiagonalNormal
    network = mlp(x_dim, [8], encoder_class.num_outputs(z_dim), "tanh")
    known = {"x_dim": x_dim, "z_dim": z_dim, "levels": 17, "grey": False, "network": network}
    encoder = make_part(spec, Encoder, known) if base is Encoder else encoder_class(network)
    prior = make_part(spec, Prior, known | {"encoder": encoder}) if base is Prior else OwnPrior(z_dim)
    likelihood = make_part(spec, Likelihood, known) if base is Likelihood else OwnLikelihood()
    decoder = mlp(z_dim, [8], (x_dim, likelihood.params_per_element), "tanh")
    vae = VAE(prior=prior, encoder=encoder, decoder=decoder, likelihood=likelihood).double()
    perturb(vae)
    return vae


@torch.no_grad()
def perturb(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter += 0.1 * torch.randn_like(parameter)


def latent_distribution(base: type, vae: VAE) -> dist.Distribution:
    """Return p(z), or q(z|x) for one x."""
    x_dim = vae.encoder.network[0].in_features
    return vae.prior() if base is Prior else vae.encoder(torch.linspace(-1, 1, x_dim, dtype=torch.float64))


def draw_data(vae: VAE, *shape: int) -> torch.Tensor:
    """Return data that the likelihood can explain, (*shape, D)."""
    z_dim = vae.decoder[0].in_features
    with torch.no_grad():
        return vae.likelihood(vae.decoder(torch.randn(*shape, z_dim, dtype=torch.float64))).sample()


def outputs(vae: VAE) -> list[torch.Tensor]:
    """Return log p(z), log q(z|x) and log p(x|z) at fixed points."""
    torch.manual_seed(5)
    parameter = next(vae.parameters())
    z = torch.randn(4, vae.decoder[0].in_features, dtype=torch.float64).to(parameter)
    raw = vae.decoder(z)
    p = vae.likelihood(raw)
    with torch.no_grad():
        x = vae.likelihood(torch.zeros_like(raw)).sample()
    return [vae.prior().log_prob(z), vae.encoder(x).log_prob(z), p.log_prob(x)]


# The contract.


@pytest.mark.parametrize(("base", "part", "options"), ALL)
def test_options_can_be_given_on_the_command_line(base, part, options):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(part, "part", skip=SIZES.intersection(inspect.signature(part).parameters))
    if part.__name__ not in OPTIONS:
        arguments = [f"--part.{name}={value}" for name, value in options.items()]
        parsed = parser.parse_args(arguments).as_dict().get("part", {})
        assert parsed.items() >= options.items()


@pytest.mark.parametrize(("base", "part"), [(base, part) for base in PACKAGES for part in concrete_subclasses(base)])
def test_is_exported_and_documented(base, part):
    if part.__module__ != __name__:
        assert getattr(PACKAGES[base], part.__name__) is part
        assert ">>>" in part.__doc__


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
class TestShapes:
    @pytest.mark.parametrize(("part", "options"), PRIORS)
    def test_prior(self, part, options, lead):
        p = build_vae(Prior, part, options).prior()
        assert (p.batch_shape, p.event_shape) == ((), (2,))
        assert p.log_prob(p.sample(lead)).shape == lead
        expanded = p.expand(lead)
        z = expanded.sample((5,))
        assert z.shape == (5, *lead, 2)
        assert len(z.flatten(0, -2).unique(dim=0)) == 5 * math.prod(lead)  # independent draws
        torch.testing.assert_close(expanded.log_prob(z.clone()), p.log_prob(z))

    @pytest.mark.parametrize(("part", "options"), ENCODERS)
    def test_encoder(self, part, options, lead):
        encoder = build_vae(Encoder, part, options).encoder
        x = torch.randn(*lead, 3, dtype=torch.float64)
        q = encoder(x)
        assert (q.batch_shape, q.event_shape) == (lead, (2,))
        assert q.has_rsample
        z = q.rsample((5,))
        assert z.shape == (5, *lead, 2)
        one_by_one = [
            encoder(row).log_prob(draw)
            for draws in z
            for row, draw in zip(x.reshape(-1, 3), draws.reshape(-1, 2), strict=True)
        ]
        torch.testing.assert_close(q.log_prob(z), torch.stack(one_by_one).view(5, *lead))
        torch.testing.assert_close(q.expand((4, *lead)).log_prob(z[:4].clone()), q.log_prob(z)[:4])

    @pytest.mark.parametrize(("part", "options"), LIKELIHOODS)
    def test_likelihood(self, part, options, lead):
        likelihood = build_vae(Likelihood, part, options).likelihood
        raw = torch.randn(*lead, 3, likelihood.params_per_element, dtype=torch.float64)
        p = likelihood(raw)
        assert (p.batch_shape, p.event_shape) == (lead, (3,))
        assert p.mean.shape == (*lead, 3)
        x = p.sample((5,))
        assert x.shape == (5, *lead, 3)
        likelihood.check(x.reshape(-1, 3))
        rows = raw.view(-1, 3, likelihood.params_per_element)
        one_by_one = [
            likelihood(row).log_prob(draw) for draws in x for row, draw in zip(rows, draws.reshape(-1, 3), strict=True)
        ]
        torch.testing.assert_close(p.log_prob(x), torch.stack(one_by_one).view(5, *lead))


@pytest.mark.parametrize(("base", "part", "options"), ALL)
def test_gradients_reach_every_parameter(base, part, options):
    vae = build_vae(base, part, options)
    x = draw_data(vae, 5)
    loss = Trace_ELBO(max_plate_nesting=1).differentiable_loss(vae.model, vae.guide, x)
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("base", "part", "options"), LATENT)
@pytest.mark.parametrize("z_dim", [1, 2])
@torch.no_grad()
def test_latent_density_integrates_to_one_and_samples_match_it(base, part, options, z_dim):
    p = latent_distribution(base, build_vae(base, part, options, z_dim=z_dim))
    # z = sinh t: fine steps around the origin, and tails out to 300.
    t = torch.linspace(-6.4, 6.4, {1: 4001, 2: 401}[z_dim], dtype=torch.float64)
    z = torch.cartesian_prod(*[t.sinh()] * z_dim).view(-1, z_dim)
    volume = torch.cartesian_prod(*[t.cosh() * (t[1] - t[0])] * z_dim).view(-1, z_dim).prod(-1)
    mass = p.log_prob(z).exp() * volume
    assert mass.sum().item() == pytest.approx(1, abs=2e-4)
    assert_means_agree(p.sample((10_000,)), z, mass)


@pytest.mark.parametrize(("part", "options"), LIKELIHOODS)
@torch.no_grad()
def test_likelihood_sums_to_one_and_samples_match_it(part, options):
    likelihood = build_vae(Likelihood, part, options, x_dim=1).likelihood
    if not likelihood.is_density:
        pytest.skip("a loss, not a density")
    p = likelihood(0.5 * torch.randn(1, likelihood.params_per_element, dtype=torch.float64))
    x, volume = elements(likelihood.support)
    mass = p.log_prob(x.unsqueeze(-1)).exp() * volume
    assert mass.sum().item() == pytest.approx(1, abs=2e-4)
    assert_means_agree(p.sample((10_000,)), x.unsqueeze(-1), mass)


def elements(support: constraints.Constraint) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points all over the support of one element, and the volume that each stands for."""
    if support.is_discrete:
        x = torch.arange(1000, dtype=torch.float64)
        x = x[support.check(x)]
        return x, torch.ones_like(x)
    if hasattr(support, "upper_bound"):
        edges = torch.linspace(support.lower_bound, support.upper_bound, 100_001, dtype=torch.float64)
        return (edges[1:] + edges[:-1]) / 2, edges.diff()
    t = torch.linspace(-7.6, 7.6, 20_001, dtype=torch.float64)
    return t.sinh(), t.cosh() * (t[1] - t[0])


def assert_means_agree(samples: torch.Tensor, points: torch.Tensor, mass: torch.Tensor) -> None:
    """Compare means of bounded functions, so that heavy tails have a standard error too; within 5 of them."""

    def functions(v: torch.Tensor) -> torch.Tensor:
        pairs = v.unsqueeze(-1) - v.unsqueeze(-2) if v.shape[-1] > 1 else v.unsqueeze(-1)
        features = torch.cat([v, pairs.flatten(1), v.sum(-1, keepdim=True)], dim=-1)
        return torch.cat([features.tanh(), features.sin(), features.cos(), (features / 20).tanh()], dim=-1)

    values = functions(samples)
    expected = (functions(points) * mass.unsqueeze(-1)).sum(0) / mass.sum()
    standard_error = values.std(0) / len(values) ** 0.5
    assert ((values.mean(0) - expected).abs() <= 5 * standard_error + 1e-6).all()


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
    vae = build_vae(base, part, options)
    if base is Likelihood:
        p = vae.likelihood(torch.randn(3, vae.likelihood.params_per_element, dtype=torch.float64))
    else:
        p = latent_distribution(base, vae)
    value = p.sample()
    expected = scipy_log_prob(p, value)
    if expected is None:
        pytest.skip("not in scipy")
    torch.testing.assert_close(p.log_prob(value), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("base", "part", "options"), ALL)
def test_saved_and_loaded_parts_are_equal(base, part, options):
    vae, other = (build_vae(base, part, options, seed=seed) for seed in (0, 1))
    # safetensors refuses what is saved twice under two names.
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(vae.state_dict())))
    assert all(map(torch.equal, outputs(vae), outputs(other)))


@pytest.mark.parametrize(("base", "part", "options"), ALL)
@pytest.mark.parametrize("device", DEVICES)
def test_dtype_and_device_moves(base, part, options, device):
    vae = build_vae(base, part, options)
    expected = outputs(vae)
    for dtype in (torch.float32, torch.float64):
        vae.to(device=device, dtype=dtype)
        parameter = next(vae.parameters())
        z = vae.prior().sample((4,))
        x = vae.likelihood(vae.decoder(z)).sample()
        for tensor in (z, x, vae.encoder(x).rsample(), *outputs(vae)):
            assert (tensor.dtype, tensor.device) == (dtype, parameter.device)
    if device == "cpu":  # elsewhere, the random numbers at which the outputs are compared differ
        for before, after in zip(expected, outputs(vae), strict=True):
            torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("base", "part", "options"), ALL)
def test_no_tensor_stays_behind_on_the_cpu(base, part, options):
    # "meta" tensors have a shape, but no memory: they are refused beside those of another device, as a GPU's are.
    vae = build_vae(base, part, options).to("meta")
    z, x = (torch.zeros(4, size, dtype=torch.float64, device="meta") for size in (2, 3))
    with pyro.validation_enabled(False):  # there are no values to validate
        q = vae.encoder(x)
        draw = q.rsample()
        p = vae.likelihood(vae.decoder(z))
        for tensor in (draw, q.log_prob(draw), q.log_prob(z), vae.prior().log_prob(z), p.log_prob(x)):
            assert tensor.device.type == "meta"


@pytest.mark.parametrize(("base", "part", "options"), ALL)
def test_a_deep_copy_is_independent(base, part, options):
    vae = build_vae(base, part, options)
    Trace_ELBO(max_plate_nesting=1).loss(vae.model, vae.guide, draw_data(vae, 4))  # nothing left behind prevents a copy
    before = outputs(vae)
    copied = copy.deepcopy(vae)
    perturb(vae)
    assert all(map(torch.equal, before, outputs(copied)))
    after = outputs(vae)
    perturb(copied)
    assert all(map(torch.equal, after, outputs(vae)))


@pytest.mark.parametrize(("base", "part", "options"), ALL)
def test_each_tensor_has_one_owner(base, part, options):
    vae = build_vae(base, part, options)
    tensors = [tensor for name in ("prior", "encoder", "likelihood") for tensor in getattr(vae, name).parameters()]
    assert len({id(tensor) for tensor in tensors}) == len(tensors)


@pytest.mark.parametrize(("base", "part", "options"), ALL)
def test_validation_stays_on(base, part, options):
    vae = build_vae(base, part, options)
    with pytest.raises(ValueError, match="scale"):
        dist.Normal(0.0, -1.0)
    if base is Likelihood:
        p = vae.likelihood(vae.decoder(torch.zeros(2, dtype=torch.float64)))
    else:
        p = latent_distribution(base, vae)
    with pytest.raises(ValueError, match="within the support"):
        p.log_prob(torch.full(p.event_shape, math.nan, dtype=torch.float64))
