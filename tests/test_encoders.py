"""Each encoder against its definition."""

import copy

import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy import stats
from torch import nn

from pyro_vae import VAE, mlp
from pyro_vae.encoders import DiagonalNormal, FlowPosterior, FullRankNormal
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.priors import StandardNormal


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def flow_posterior(z_dim=3, **options):
    """Return a flow away from the identity where it starts."""
    encoder = FlowPosterior(nn.Linear(5, 3 * z_dim), z_dim=z_dim, **options).double()
    with torch.no_grad():
        for parameter in encoder.transform.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return encoder


@pytest.fixture
def x():
    return torch.randn(4, 5, dtype=torch.float64)


def count_passes(encoder):
    passes = []
    for step in encoder.transform.transforms:
        step.hyper.register_forward_hook(lambda *_: passes.append(1))
    return passes


def test_diagonal_normal_takes_locations_then_log_scales():
    outputs = torch.randn(4, 6, dtype=torch.float64)
    q = DiagonalNormal(nn.Identity())(outputs)
    torch.testing.assert_close(q.mean, outputs[:, :3])
    torch.testing.assert_close(q.stddev, outputs[:, 3:].exp())


def test_full_rank_normal_takes_locations_then_the_cholesky_factor():
    outputs = torch.tensor([1.0, 2.0, 3.0, 0.1, 0.2, 0.3, 4.0, 5.0, 6.0], dtype=torch.float64)
    q = FullRankNormal(nn.Identity(), z_dim=3)(outputs)
    diagonal = outputs[3:6].exp()
    unit = torch.tensor([[1, 0, 0], [4, 1, 0], [5, 6, 1]], dtype=torch.float64)
    factor = diagonal[:, None] * unit
    torch.testing.assert_close(q.scale_tril, factor)
    z = torch.randn(7, 3, dtype=torch.float64)
    expected = stats.multivariate_normal([1, 2, 3], factor @ factor.T).logpdf(z)
    torch.testing.assert_close(q.log_prob(z), torch.from_numpy(expected))


@pytest.mark.parametrize("z_dim", [1, 3])
def test_full_rank_normal_contains_the_diagonal_one(z_dim):
    outputs = torch.randn(4, FullRankNormal.num_outputs(z_dim), dtype=torch.float64)
    outputs[:, 2 * z_dim :] = 0
    z = torch.randn(4, z_dim, dtype=torch.float64)
    full = FullRankNormal(nn.Identity(), z_dim=z_dim)(outputs)
    diagonal = DiagonalNormal(nn.Identity())(outputs[:, : 2 * z_dim])
    torch.testing.assert_close(full.log_prob(z), diagonal.log_prob(z))


@pytest.mark.parametrize("encoder_class", [FullRankNormal, FlowPosterior])
def test_a_network_of_the_wrong_width_is_refused(encoder_class):
    encoder = encoder_class(nn.Linear(5, 6), z_dim=3)
    with pytest.raises(ValueError, match=r"network has to put out .*9 numbers for each datum, not 6"):
        encoder(torch.zeros(5))


def test_flow_posterior_refuses_to_have_no_transforms():
    with pytest.raises(ValueError, match="transforms has to be at least 1, not 0"):
        FlowPosterior(nn.Linear(5, 9), z_dim=3, transforms=0)


@pytest.mark.parametrize("z_dim", [1, 3])
def test_flow_posterior_starts_as_the_diagonal_normal(z_dim, x):
    network = nn.Linear(5, 3 * z_dim).double()
    q = FlowPosterior(network, z_dim=z_dim).double()(x)
    diagonal = DiagonalNormal(nn.Identity())(network(x)[:, : 2 * z_dim])
    z = torch.randn(4, z_dim, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(z), diagonal.log_prob(z))


@pytest.mark.parametrize("transforms", [1, 2, 3])
def test_flow_posterior_scores_by_the_change_of_variables(transforms, x):
    q = flow_posterior(transforms=transforms)(x[0])
    noise = q.base.sample((6,))
    z = torch.stack([q.transform(row) for row in noise])
    jacobian = torch.stack([torch.autograd.functional.jacobian(q.transform, row) for row in noise])
    expected = q.base.log_prob(noise) - jacobian.det().abs().log()
    torch.testing.assert_close(q.log_prob(z), expected)
    if transforms == 1:
        torch.testing.assert_close(jacobian, jacobian.tril())  # autoregressive
        assert (jacobian.tril(-1).abs().sum(0) > 1e-6).sum() == 3  # and not just diagonal


def test_flow_posterior_depends_on_the_datum_through_its_context():
    encoder = FlowPosterior(nn.Identity(), z_dim=2)
    nn.init.normal_(encoder.transform.transforms[0].hyper[-1].weight)
    q = encoder(torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, -1.0, 1.0]]))
    assert not torch.isclose(*q.log_prob(torch.zeros(2)))


def test_drawing_and_scoring_is_one_pass_and_equals_scoring_alone(x):
    encoder = flow_posterior(transforms=2)
    q = encoder(x)
    passes = count_passes(encoder)
    z = q.rsample((10,))
    own = q.log_prob(z)
    assert len(passes) == 2  # one for each transform
    torch.testing.assert_close(own, q.log_prob(z.clone()))
    assert len(passes) > 2


def test_pyro_finds_the_score_of_its_own_draws(x):
    encoder = flow_posterior(transforms=2)
    vae = VAE(prior=StandardNormal(3), encoder=encoder, decoder=mlp(3, [8], (5, 1)), likelihood=Bernoulli()).double()
    passes = count_passes(encoder)
    elbo = Trace_ELBO(num_particles=6, vectorize_particles=True, max_plate_nesting=1)
    elbo.differentiable_loss(vae.model, vae.guide, (x > 0).double()).backward()
    assert len(passes) == 2


@pytest.mark.parametrize("method", ["sample", "rsample"])
def test_gradients_of_a_draws_own_score_are_those_of_any_value(method, x):
    encoder = flow_posterior()
    q = encoder(x)
    z = getattr(q, method)()
    parameters = list(encoder.parameters())
    own = torch.autograd.grad(q.log_prob(z).sum(), parameters, retain_graph=True, allow_unused=True)
    other = torch.autograd.grad(q.log_prob(z.clone()).sum(), parameters, allow_unused=True)
    for a, b in zip(own, other, strict=True):
        torch.testing.assert_close(a, b)


def test_a_draw_is_scored_anew_by_another_posterior(x):
    encoder = flow_posterior()
    q, other = encoder(x), copy.deepcopy(encoder)(x + 1)
    z = q.rsample()
    torch.testing.assert_close(other.log_prob(z), other.log_prob(z.detach().clone()))
    assert not torch.isclose(other.log_prob(z), q.log_prob(z)).any()
    first = q.log_prob(z)
    q.rsample()
    torch.testing.assert_close(q.log_prob(z), first)  # no longer the last draw
