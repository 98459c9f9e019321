"""Samples, variations and reconstructions: exact on linear-Gaussian VAEs; temperature is what it says."""

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_vae import VAE, build
from pyro_vae.base import Encoder
from pyro_vae.distributions.flows import NormalizingFlow, import_zuko
from pyro_vae.inference import decode, encode, generate, reconstruct, sample, tempered
from pyro_vae.likelihoods import Gaussian
from pyro_vae.priors import StandardNormal
from tests.references import data_of, linear_gaussian

NOISE = 0.5


class ExactPosterior(Encoder):
    """The posterior of a linear-Gaussian model."""

    def __init__(self, exact):
        super().__init__()
        self.exact = exact

    @staticmethod
    def num_outputs(z_dim):
        return 0

    def forward(self, x):
        return self.exact.posterior(x)


def linear_vae(**options):
    """A linear-Gaussian model, and the VAE that it is."""
    exact = linear_gaussian(**options)
    exact.scale = torch.full_like(exact.scale, NOISE)
    exact = type(exact)(exact.weight, exact.bias, scale=exact.scale)
    x_dim, z_dim = exact.weight.shape
    decoder = nn.Linear(z_dim, x_dim)
    with torch.no_grad():
        decoder.weight.copy_(exact.weight)
        decoder.bias.copy_(exact.bias)
    vae = VAE(
        prior=StandardNormal(z_dim),
        encoder=ExactPosterior(exact),
        decoder=nn.Sequential(decoder, nn.Unflatten(-1, (x_dim, 1))),
        likelihood=Gaussian(scale=NOISE),
    )
    return exact, vae.double()


def assert_moments(x, mean, covariance, errors=4):
    """Draws, (N, D), have this mean and covariance within so many standard errors."""
    n, variance = len(x), covariance.diagonal()
    assert ((x.mean(0) - mean).abs() < errors * (variance / n).sqrt()).all()
    error = ((variance[:, None] * variance + covariance.square()) / n).sqrt()  # of Gaussian data
    assert ((x.T.cov() - covariance).abs() < errors * error).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_have_the_exact_moments(temperature):
    # Were the noise of x that of z once more, the covariance would have cross terms.
    exact, vae = linear_vae()
    made = sample(vae, 20_000, temperature=temperature, seed=0)
    of_mean = temperature**2 * exact.weight @ exact.weight.T
    assert_moments(made.x, exact.bias, of_mean + NOISE**2 * torch.eye(6))
    assert_moments(made.z, torch.zeros(2), temperature**2 * torch.eye(2, dtype=torch.float64))
    means = sample(vae, 10, temperature=temperature, mean=True, seed=0)
    torch.testing.assert_close(means.x, means.z @ exact.weight.T + exact.bias)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_variations_have_the_exact_moments(temperature):
    exact, vae = linear_vae()
    near = data_of(exact, 1)[0]
    made = sample(vae, 20_000, near=near, temperature=temperature, seed=0)
    posterior = exact.posterior(near)
    covariance = temperature**2 * exact.weight @ posterior.covariance_matrix @ exact.weight.T
    assert_moments(made.x, posterior.mean @ exact.weight.T + exact.bias, covariance + NOISE**2 * torch.eye(6))


def test_variations_of_several_data_are_each_their_own():
    exact, vae = linear_vae(noise=0.1)
    near = data_of(exact, 3)
    made = sample(vae, 500, near=near, mean=True, seed=0)
    assert made.x.shape == (500, 3, 6)
    expected = exact.posterior(near).mean
    assert ((made.z.mean(0) - expected).abs() < 5 * exact.posterior(near).stddev / 500**0.5).all()


@pytest.mark.parametrize("temperature", [0.3, 2.5])
def test_tempered_densities(temperature):
    generator = torch.Generator().manual_seed(0)
    loc, z = torch.randn(2, 3, generator=generator).double(), torch.randn(7, 3, generator=generator).double()
    logits = torch.tensor([0.2, -1.0], dtype=torch.float64)

    def mixture(scale):
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, scale).to_event(1))

    twice = import_zuko().lazy.UnconditionalTransform(torch.distributions.AffineTransform, 1.0, 2.0, event_dim=1)()

    def flow(scale):
        return NormalizingFlow(dist.Normal(torch.zeros(3).double(), scale).to_event(1), twice)

    tril = torch.tensor([[1.0, 0, 0], [0.5, 2, 0], [-1, 1, 1]], dtype=torch.float64)
    for of_scale in (
        lambda s: dist.Normal(loc[0], s).to_event(1),
        lambda s: dist.StudentT(5.0, loc[0], s).to_event(1),
        lambda s: dist.MultivariateNormal(loc[0], scale_tril=s * tril),
        mixture,
        flow,
    ):
        p, expected = (
            tempered(of_scale(torch.ones(()).double()), temperature),
            of_scale(torch.tensor(temperature).double()),
        )
        torch.testing.assert_close(p.log_prob(z), expected.log_prob(z))
        assert p.sample((5,)).shape == (5, 3)


def test_a_tempered_gaussian_is_a_power_of_its_density():
    p, z = (
        dist.Normal(torch.tensor([1.0]).double(), 2.0).to_event(1),
        torch.linspace(-60, 60, 20_001, dtype=torch.float64)[:, None],
    )
    power = p.log_prob(z) / 1.7**2
    normalised = power - (power.logsumexp(0) + torch.log(z[1, 0] - z[0, 0]))
    inside = z[:, 0].abs() < 20
    torch.testing.assert_close(tempered(p, 1.7).log_prob(z)[inside], normalised[inside])


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_temperatures_out_of_range(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        sample(build((1, 2, 2), latent_dim=1), 2, temperature=temperature)


def test_refuses_what_has_no_location():
    with pytest.raises(ValueError, match="Uniform has no location"):
        tempered(dist.Uniform(torch.zeros(2), 1).to_event(1), 2.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda vae: reconstruct(vae, torch.zeros(3, 5)),
        lambda vae: reconstruct(vae, torch.zeros(0, 4)),
        lambda vae: reconstruct(vae, torch.full((1, 4), 0.3)),
        lambda vae: sample(vae, 3, near=torch.zeros(5)),
        lambda vae: sample(vae, 0),
        lambda vae: encode(vae, torch.zeros(3, 5)),
        lambda vae: encode(vae, torch.zeros(3, 4), num_samples=1),
    ],
)
def test_refuses_data_that_do_not_fit(call):
    with pytest.raises(ValueError, match=r"expected rows of 4|zeros and ones|num must be|num_samples must be"):
        call(build((1, 2, 2), latent_dim=1))


@pytest.mark.parametrize("encoder", ["DiagonalNormal", "FullRankNormal"])
@pytest.mark.parametrize("num_classes", [None, 3])
def test_a_reconstruction_means_the_same_everywhere(encoder, num_classes):
    torch.manual_seed(0)
    vae, x = build((1, 4, 4), encoder=encoder, latent_dim=2, num_classes=num_classes), torch.ones(5, 16)
    again = vae.reconstruct(x) if num_classes is None else vae.reconstruct(x, torch.full((5,), 2))
    torch.testing.assert_close(again, reconstruct(vae if num_classes is None else vae.given(2), x).x)


def test_reconstructions_are_the_means_at_the_posterior_mean():
    exact, vae = linear_vae()
    x = data_of(exact, 5)
    made = reconstruct(vae, x)
    torch.testing.assert_close(made.z, exact.posterior(x).mean)
    torch.testing.assert_close(made.x, made.z @ exact.weight.T + exact.bias)
    drawn = reconstruct(vae, x.expand(4000, -1, -1)[:, 0], mean=False, seed=0)
    covariance = exact.weight @ exact.posterior(x[0]).covariance_matrix @ exact.weight.T + NOISE**2 * torch.eye(6)
    assert_moments(drawn.x, made.x[0], covariance)


def test_chunks_do_not_change_the_result(monkeypatch):
    exact, vae = linear_vae()
    x, z = data_of(exact, 23), torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0)).double()
    whole = reconstruct(vae, x), encode(vae, x), decode(vae, z)
    monkeypatch.setattr(generate, "CHUNK_ELEMENTS", 13)  # two data of six elements
    chunked = reconstruct(vae, x), encode(vae, x), decode(vae, z)
    torch.testing.assert_close(chunked[0].x, whole[0].x)
    torch.testing.assert_close(chunked[1].kl_per_dimension, whole[1].kl_per_dimension)
    torch.testing.assert_close(chunked[2], whole[2])
    assert chunked[2].shape == (3, 5, 6)
    # Each block has noise of its own.
    drawn = sample(vae, 50, seed=0)
    assert len(drawn.z.unique(dim=0)) == 50
    assert len((drawn.x - decode(vae, drawn.z)).unique(dim=0)) == 50


def test_seeds_and_the_modes_of_the_modules():
    vae = build((1, 4, 4), latent_dim=2)
    vae.decoder.insert(0, nn.Dropout(0.5))
    vae.train()
    x = torch.zeros(3, 16)
    before = torch.get_rng_state()
    first, again, other = (sample(vae, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.z, other.z)
    assert torch.equal(reconstruct(vae, x, seed=1).x, reconstruct(vae, x, seed=2).x)
    assert torch.equal(torch.get_rng_state(), before)
    assert vae.decoder[0].training
    torch.manual_seed(5)
    unseeded = sample(vae, 4)
    torch.manual_seed(5)
    assert torch.equal(unseeded.x, sample(vae, 4).x)
