"""Where data are in the latent space, and walks through it, against closed forms."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import kl_divergence

from pyro_vae import VAE, build
from pyro_vae.encoders import DiagonalNormal, FlowPosterior
from pyro_vae.inference import encode, interpolate, manifold, reconstruct, traverse
from pyro_vae.inference.latent import marginal_log_prob, plane
from pyro_vae.likelihoods import Gaussian
from pyro_vae.priors import GaussianMixture, StandardNormal, StudentT
from tests.references import data_of
from tests.test_generate import linear_vae


def vae_with(prior, encoder=None, x_dim=4, z_dim=2):
    """A VAE of linear networks, in float64."""
    torch.manual_seed(0)
    return VAE(
        prior=prior,
        encoder=encoder or DiagonalNormal(nn.Linear(x_dim, 2 * z_dim)),
        decoder=nn.Sequential(nn.Linear(z_dim, x_dim), nn.Unflatten(-1, (x_dim, 1))),
        likelihood=Gaussian(),
    ).double()


@pytest.fixture
def x():
    return torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def kl_of_normals(loc, scale):
    return 0.5 * (loc**2 + scale**2 - 1) - scale.log()


def test_the_kl_of_each_dimension_is_exact(x):
    vae = vae_with(StandardNormal(2))
    latents = encode(vae, x)
    q = vae.encoder(x).base_dist
    expected = kl_of_normals(q.loc, q.scale).detach()
    torch.testing.assert_close(latents.kl_per_dimension, expected)
    torch.testing.assert_close(latents.kl, expected.sum(1))
    torch.testing.assert_close(latents.loc, q.loc.detach())
    torch.testing.assert_close(latents.scale, q.scale.detach())
    torch.testing.assert_close(latents.variance, q.loc.detach().var(0, correction=0))
    assert latents.estimated == ()
    assert latents.order == expected.mean(0).argsort(descending=True).tolist()


def test_a_posterior_with_a_covariance_is_exact_too():
    exact, vae = linear_vae()
    x = data_of(exact, 10)
    latents, q = encode(vae, x), exact.posterior(x)
    p = dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    torch.testing.assert_close(latents.kl, kl_divergence(q, p))
    torch.testing.assert_close(latents.kl_per_dimension, kl_of_normals(q.mean, q.stddev))
    assert latents.estimated == ()
    # The sum of the marginals' leaves out the correlation.
    covariance = q.covariance_matrix
    squared_correlation = covariance[:, 0, 1] ** 2 / (covariance[:, 0, 0] * covariance[:, 1, 1])
    assert (squared_correlation > 1e-3).all()
    torch.testing.assert_close(latents.kl - latents.kl_per_dimension.sum(1), -0.5 * (1 - squared_correlation).log())


def test_active_units_are_those_that_vary_with_x(x):
    vae = vae_with(StandardNormal(2))
    with torch.no_grad():
        network = vae.encoder.network
        network.weight[:2] = 0
        network.weight[0, 0], network.weight[1, 1] = 0.12, 0.08  # variances of about 0.0144 and 0.0064
        x = (x - x.mean(0)) / x.std(0, correction=0)
    latents = encode(vae, x)
    torch.testing.assert_close(latents.variance, torch.tensor([0.12**2, 0.08**2]).double())
    assert latents.active.tolist() == [True, False]


@pytest.mark.parametrize("name", ["mixture", "student"])
def test_estimates_agree_with_quadrature(x, name):
    """Without a closed form the KL is estimated; here it is known by numerical integration in each dimension."""
    prior = StudentT(2, df=3.0)
    if name == "mixture":  # one whose two components differ in the first dimension only, so that it is a product
        prior = GaussianMixture(2, components=2)
        with torch.no_grad():
            prior.logits.copy_(torch.tensor([0.5, -0.5]))
            prior.loc.copy_(torch.tensor([[1.0, 0.3], [-1.0, 0.3]]))
            prior.log_scale.copy_(torch.tensor([[-1.0, 0.2], [0.0, 0.2]]))
    vae = vae_with(prior)
    num_samples = 2000
    latents = encode(vae, x, num_samples=num_samples, seed=0)
    assert latents.estimated == ("kl", "kl_per_dimension")
    q, grid = vae.encoder(x).base_dist, torch.linspace(-12, 12, 4001, dtype=torch.float64)
    if name == "mixture":
        w = prior.logits.softmax(0).double()
        scale = prior.log_scale.exp()
        parts = dist.Normal(prior.loc, scale).log_prob(grid[:, None, None]) + w.log()[:, None]
        log_p = parts.logsumexp(1)  # (G, Z)
    else:
        log_p = torch.from_numpy(stats.t(3).logpdf(grid.numpy()))[:, None].expand(-1, 2)
    log_q = q.log_prob(grid[:, None, None])  # (G, N, Z)
    ratio = log_q - log_p[:, None]
    step = grid[1] - grid[0]
    kl, second = (log_q.exp() * ratio).sum(0) * step, (log_q.exp() * ratio**2).sum(0) * step
    se = ((second - kl**2) / num_samples).sqrt()
    assert ((latents.kl_per_dimension - kl).abs() < 4.5 * se).all()
    assert (latents.kl_per_dimension.mean(0) - kl.mean(0)).abs().lt(4 * se.square().sum(0).sqrt() / len(x)).all()
    torch.testing.assert_close(latents.kl, latents.kl_per_dimension.sum(1))  # the prior is a product


def test_marginals_of_a_mixture_of_gaussians_with_covariances():
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(3, 2, generator=generator).double()
    tril = torch.randn(3, 2, 2, generator=generator).double().tril() + 2 * torch.eye(2)
    logits = torch.randn(3, generator=generator).double()
    p = dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.MultivariateNormal(loc, scale_tril=tril))
    grid = torch.linspace(-25, 25, 501, dtype=torch.float64)
    plane = p.log_prob(torch.cartesian_prod(grid, grid)).exp().reshape(501, 501)
    step = grid[1] - grid[0]
    expected = torch.stack([plane.sum(1), plane.sum(0)], -1) * step
    torch.testing.assert_close(marginal_log_prob(p, grid[:, None].expand(-1, 2)).exp(), expected, rtol=1e-6, atol=1e-9)


def test_a_flow_is_estimated_and_has_no_density_of_one_dimension():
    torch.manual_seed(0)
    # At its start the flow is the diagonal Gaussian that it stands on. This one is the same for all data.
    encoder = FlowPosterior(nn.Linear(4, 3 * 2), z_dim=2)
    with torch.no_grad():
        encoder.network.weight.zero_()
        encoder.network.bias.copy_(torch.tensor([0.5, -1.0, 0.0, -1.0, 0.0, 0.0]))
    vae = vae_with(StandardNormal(2), encoder)
    latents = encode(vae, torch.zeros(60, 4).double(), num_samples=50, seed=0)
    assert latents.estimated == ("loc", "scale", "kl")
    assert latents.kl_per_dimension is None
    loc, scale = torch.tensor([0.5, -1.0]).double(), torch.tensor([1.0, math.exp(-1)]).double()
    assert ((latents.loc.mean(0) - loc).abs() < 4 * scale / (60 * 50) ** 0.5).all()
    torch.testing.assert_close(latents.scale.square().mean(0).sqrt(), scale, rtol=4 / (2 * 60 * 50) ** 0.5, atol=0)
    expected = kl_of_normals(loc, scale).sum().item()
    assert latents.kl.mean().item() == pytest.approx(expected, abs=4 * latents.kl.std().item() / 60**0.5)
    # The noise of the draws, of variance 1/50, is no variance over x: nothing is active.
    assert not latents.active.any()


def test_a_path_ends_at_the_reconstructions(x):
    vae = vae_with(StandardNormal(2))
    for path in ("linear", "spherical"):
        made = interpolate(vae, x[:3], x[3:6], num=5, path=path)
        assert made.x.shape == (5, 3, 4)
        torch.testing.assert_close(made.x[0], reconstruct(vae, x[:3]).x)
        torch.testing.assert_close(made.x[-1], reconstruct(vae, x[3:6]).x)
    a, b = reconstruct(vae, x[:3]).z, reconstruct(vae, x[3:6]).z
    straight = interpolate(vae, x[:3], x[3:6], num=5)
    torch.testing.assert_close(straight.z[1], 0.75 * a + 0.25 * b)


def test_the_spherical_path_turns_evenly():
    vae = vae_with(StandardNormal(2), x_dim=2)
    with torch.no_grad():  # E[z|x] = x
        vae.encoder.network.weight.copy_(torch.eye(4, 2))
        vae.encoder.network.bias.zero_()
    a, b, opposite = (torch.tensor(v).double() for v in ([2.0, 0.0], [0.0, 4.0], [-1.0, 0.0]))
    made = interpolate(vae, a, b, num=4, path="spherical")
    angle = torch.atan2(made.z[:, 1], made.z[:, 0])
    torch.testing.assert_close(angle, torch.linspace(0, math.pi / 2, 4, dtype=torch.float64))
    torch.testing.assert_close(made.z.norm(dim=1), torch.linspace(2, 4, 4, dtype=torch.float64))
    through = interpolate(vae, a, opposite, num=4, path="spherical")  # every way round is as good
    torch.testing.assert_close(through.z[:, 0], torch.linspace(2, -1, 4, dtype=torch.float64))


def test_the_manifold_is_the_grid_of_normal_quantiles():
    vae = vae_with(StandardNormal(2))
    made = manifold(vae, 5)
    u = stats.norm.ppf((np.arange(5) + 0.5) / 5)
    np.testing.assert_allclose(made.z[2, :, 0], u, atol=1e-6)  # to the right
    np.testing.assert_allclose(made.z[:, 3, 1], u[::-1], atol=1e-6)  # upwards
    expected = vae.likelihood(vae.decoder(made.z)).mean
    torch.testing.assert_close(made.x, expected.detach())


def test_quantiles_without_a_closed_form():
    """Those of 20,000 draws, within four standard errors: sqrt(u (1 - u) / n) / density."""
    z = manifold(vae_with(StudentT(2, df=3.0)), 9, seed=0).z[0, :, 0].numpy()
    u = (np.arange(9) + 0.5) / 9
    t = stats.t(3)
    se = np.sqrt(u * (1 - u) / 20_000) / t.pdf(t.ppf(u))
    assert (np.abs(z - t.ppf(u)) < 4 * se).all()


def test_walks_change_one_dimension_each(x):
    vae = vae_with(StandardNormal(2))
    made = traverse(vae, [1, 0], num=7, near=x[0])
    at = reconstruct(vae, x[:1])
    s = torch.linspace(-3, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(made.z[0, :, 1], s)
    torch.testing.assert_close(made.z[1, :, 0], s)
    torch.testing.assert_close(made.z[0, :, 0], at.z[0, 0].expand(7))
    torch.testing.assert_close(made.z[1, :, 1], at.z[0, 1].expand(7))
    assert made.x.shape == (2, 7, 4)
    through_the_middle = traverse(vae, [0], num=3, span=1.0)
    torch.testing.assert_close(
        through_the_middle.z[0], torch.tensor([[-1.0, 0], [0, 0], [1, 0]]).double(), atol=1e-7, rtol=0
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae, x: manifold(vae), "two latent dimensions, but the model has 3"),
        (lambda vae, x: traverse(vae, [3]), "from 0 to 2"),
        (lambda vae, x: traverse(vae, []), "at least one"),
        (lambda vae, x: traverse(vae, [0], span=0.0), "span must be above 0"),
        (lambda vae, x: interpolate(vae, x, x, num=1), "num must be at least 2"),
        (lambda vae, x: interpolate(vae, x, x, path="curved"), "linear, spherical"),
        (lambda vae, x: interpolate(vae, x, torch.zeros(2, 4)), "one shape"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(build((1, 2, 2), latent_dim=3), torch.zeros(4))


def test_the_plane_is_that_of_the_principal_components():
    from sklearn.decomposition import PCA

    loc = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([3.0, 1, 2, 1, 1])
    points, parts = plane(loc)
    expected = PCA(2).fit(loc.numpy())
    np.testing.assert_allclose(points.abs(), np.abs(expected.transform(loc.numpy())), rtol=1e-9)  # signs are free
    np.testing.assert_allclose(parts, expected.explained_variance_ratio_)
    assert plane(loc[:1])[0].tolist() == [[0, 0]]
    assert torch.equal(plane(loc[:, :1])[0], torch.nn.functional.pad(loc[:, :1], (0, 1)))
