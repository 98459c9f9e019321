"""The VAE as a Pyro program."""

import copy

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO

import pyro_vae
from pyro_vae import VAE, mlp
from pyro_vae.encoders import DiagonalNormal
from pyro_vae.likelihoods import Bernoulli
from pyro_vae.networks import bounded_exp
from pyro_vae.priors import StandardNormal


def make_vae(seed=0):
    torch.manual_seed(seed)
    return VAE(
        prior=StandardNormal(2),
        encoder=DiagonalNormal(mlp(16, [8], 4)),
        decoder=mlp(2, [8], (16, 1)),
        likelihood=Bernoulli(),
    )


@pytest.fixture
def x():
    return torch.rand(30, 16, generator=torch.Generator().manual_seed(1)).round()


def test_sites_and_plate(x):
    vae = make_vae()
    guide = poutine.trace(vae.guide).get_trace(x)
    model = poutine.trace(poutine.replay(vae.model, guide)).get_trace(x)
    model.compute_log_prob()
    assert [n for n, s in guide.nodes.items() if s["type"] == "sample"] == ["data", "z"]
    assert model.nodes["x"]["is_observed"]
    for site in ("z", "x"):
        assert model.nodes[site]["log_prob"].shape == (30,)
        (plate,) = model.nodes[site]["cond_indep_stack"]
        assert (plate.name, plate.dim) == ("data", -1)


def test_model_generates():
    assert make_vae().model(size=7).shape == (7, 16)


def test_density_is_that_of_the_paper(x):
    vae = make_vae()
    trace = poutine.trace(vae.model).get_trace(x)
    z = trace.nodes["z"]["value"]
    p = vae.decoder(z).squeeze(-1).sigmoid().double()
    expected = (
        (x * p.log() + (1 - x) * (1 - p).log()).sum() - (0.5 * z**2).sum() - 30 * torch.log(torch.tensor(torch.pi * 2))
    )
    torch.testing.assert_close(trace.log_prob_sum().double(), expected.double(), rtol=1e-5, atol=0)


def test_particles_pass_as_leading_dimensions(x):
    loss = Trace_ELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=1)
    vae = make_vae()
    assert torch.isfinite(torch.tensor(loss.loss(vae.model, vae.guide, x)))


@pytest.mark.parametrize("second", ["another", "copy"])
def test_two_models_train_independently_under_plain_svi(x, second):
    def weights_after(interleaved):
        pyro.clear_param_store()
        first = make_vae(0)
        others = {"another": make_vae(1), "copy": copy.deepcopy(first)}[second]
        vaes = [others, first] if interleaved else [first]
        svis = [SVI(v.model, v.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()) for v in vaes]
        for step in range(5):
            for svi in svis:
                torch.manual_seed(step)
                svi.step(x)
        return vaes

    (alone,) = weights_after(False)
    other, together = weights_after(True)
    for a, b in zip(alone.parameters(), together.parameters(), strict=True):
        assert torch.equal(a, b)
    start = make_vae(1 if second == "another" else 0)
    assert all(not torch.equal(a, b) for a, b in zip(start.parameters(), other.parameters(), strict=True))


def test_initialize_starts_at_the_marginals():
    x = (torch.rand(1000, 16) < torch.linspace(0.1, 0.9, 16)).float()
    vae = pyro_vae.build((1, 4, 4))
    vae.decoder[-2].weight.data.zero_()
    vae.initialize(x)
    torch.testing.assert_close(vae.sample(1, mean=True)[0], x.mean(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [-1e30, -1e3, 1e3, 1e18])
def test_a_scale_is_positive_and_finite_whatever_the_network_says(value):
    raw = torch.tensor(value, requires_grad=True)
    scale = bounded_exp(raw)
    (gradient,) = torch.autograd.grad(scale, raw)
    assert 0 < scale < torch.inf
    assert torch.isfinite(gradient)


def test_build_takes_own_parts_and_convolutions(x):
    vae = pyro_vae.build((1, 5, 7), network="conv", hidden_dims=[4, 6], latent_dim=3)
    assert vae.sample(2).shape == (2, 35)
    assert vae.encoder(torch.zeros(2, 3, 35)).batch_shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, "latent_dim: expected at least 1, got 0"),
        ({"hidden_dims": [0]}, "hidden_dims"),
        ({"prior": "NoSuch"}, "prior: expected the name of a class, got 'NoSuch'"),
        ({"prior": "pyro_vae.likelihoods.Bernoulli"}, "prior: expected a subclass"),
        ({"prior": {"class_path": "StandardNormal", "init_args": {"nope": 1}}}, "StandardNormal can't be built"),
    ],
)
def test_build_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        pyro_vae.build((1, 4, 4), **options)


def test_conv_needs_images():
    with pytest.raises(ValueError, match="needs images"):
        pyro_vae.build((5,), network="conv")
