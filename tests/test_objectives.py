"""Objectives against exact bounds: each row of a batch has parameters of its own, so that one backward pass
gives as many independent gradients as there are rows."""

import math
from typing import ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import Adam
from torch import nn

import pyro_vae
from pyro_vae.encoders import DiagonalNormal, FlowPosterior
from pyro_vae.equations import closed_forms as derivation
from pyro_vae.equations.closed_forms import log_normal
from pyro_vae.evidence import log_weights
from pyro_vae.likelihoods import Gaussian
from pyro_vae.objectives import ImportanceWeightedELBO, KLWeightedELBO, check_closed_forms, elbo_terms
from pyro_vae.priors import GaussianMixture, StandardNormal, VampPrior
from pyro_vae.program import reseed
from pyro_vae.training import Training

X = 0.7


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    pyro.clear_param_store()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class OneLayer:
    """z ~ N(0, I) of two dimensions, x ~ N(w·z + b, s²); q(z|x) = N(a x + c, t²)."""

    theta: ClassVar[dict] = {"weight": [0.8, -0.5], "bias": 0.3, "log_scale": -0.3}
    phi: ClassVar[dict] = {"slope": [0.5, -0.2], "offset": [0.1, 0.2], "log_width": [-0.2, 0.1]}

    def __init__(self, rows, **changes):
        self.v = {}
        for name, value in (self.theta | self.phi | changes).items():
            value = torch.tensor(value)
            self.v[name] = value.expand(rows, *value.shape).clone().requires_grad_()

    def likelihood(self, z):
        return (self.v["weight"] * z).sum(-1) + self.v["bias"], self.v["log_scale"].exp()

    def posterior(self, x):
        return self.v["slope"] * x.unsqueeze(-1) + self.v["offset"], self.v["log_width"].exp()

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1).to_event(1))
            pyro.sample("x", dist.Normal(*self.likelihood(z)), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(*self.posterior(x)).to_event(1))

    def log_weight(self, x, eps):
        loc, scale = self.posterior(x)
        z, zero, one = loc + scale * eps, torch.zeros(2), torch.ones(2)
        x_loc, x_scale = (value.unsqueeze(-1) for value in self.likelihood(z))
        return log_normal(z, zero, one) + log_normal(x, x_loc, x_scale) - log_normal(z, loc, scale)

    @classmethod
    def at_posterior(cls, rows):
        """With w = (0.8, 0), whose posterior factorises."""
        variance = math.exp(-0.6)
        gain = 0.8 / (variance + 0.64)
        width = 0.5 * math.log(variance / (variance + 0.64))
        at = {"weight": [0.8, 0.0], "slope": [gain, 0.0], "offset": [-0.3 * gain, 0.0], "log_width": [width, 0.0]}
        return cls(rows, **at), dist.Normal(torch.tensor(0.3), (variance + 0.64) ** 0.5)


class TwoLayers(OneLayer):
    """z1 ~ N(0, 1), z2 ~ N(u z1, 1), x ~ N(w z2 + v z1, s²); q(z1|x) = N(a x, t²), q(z2|z1, x) = N(c z1 + d x, r²)."""

    theta: ClassVar[dict] = {"top": 0.7, "weight": 0.9, "skip": -0.4, "log_scale": -0.2}
    phi: ClassVar[dict] = {"slope1": 0.1, "log_width1": 0.2, "pull": 0.2, "slope2": 0.8, "log_width2": 0.0}

    def model(self, x):
        v = self.v
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", dist.Normal(torch.zeros(()), 1))
            z2 = pyro.sample("z2", dist.Normal(v["top"] * z1, 1))
            pyro.sample("x", dist.Normal(v["weight"] * z2 + v["skip"] * z1, v["log_scale"].exp()), obs=x)

    def guide(self, x):
        v = self.v
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", dist.Normal(v["slope1"] * x, v["log_width1"].exp()))
            pyro.sample("z2", dist.Normal(v["pull"] * z1 + v["slope2"] * x, v["log_width2"].exp()))

    def log_weight(self, x, eps):
        v, zero, one = self.v, torch.zeros(1), torch.ones(1)
        q1 = v["slope1"] * x, v["log_width1"].exp()
        z1 = q1[0] + q1[1] * eps[..., :1]
        q2 = v["pull"] * z1 + v["slope2"] * x, v["log_width2"].exp()
        z2 = q2[0] + q2[1] * eps[..., 1:]
        log_p = log_normal(z1, zero, one) + log_normal(z2, v["top"] * z1, one)
        log_p = log_p + log_normal(x, v["weight"] * z2 + v["skip"] * z1, v["log_scale"].exp())
        return log_p - log_normal(z1, *q1) - log_normal(z2, *q2)

    @classmethod
    def at_posterior(cls, rows):
        """With w = 1 and v = 0."""
        u, s2 = 0.7, math.exp(-0.4)
        at = {"weight": 1.0, "skip": 0.0, "slope1": u / (1 + s2 + u * u), "pull": u * s2 / (1 + s2)}
        at |= {"log_width1": 0.5 * math.log((1 + s2) / (1 + s2 + u * u))}
        at |= {"slope2": 1 / (1 + s2), "log_width2": 0.5 * math.log(s2 / (1 + s2))}
        return cls(rows, **at), dist.Normal(torch.tensor(0.0), (1 + s2 + u * u) ** 0.5)


def data(rows, value=X):
    return torch.full((rows,), value)


def gradients(objective, program, x):
    """The ascent direction of each row's bound, in its own parameters, {name: (rows, ...)}."""
    loss = objective.differentiable_loss(program.model, program.guide, x)
    return dict(zip(program.v, torch.autograd.grad(-loss, [*program.v.values()]), strict=True))


def exact_bound(program, num_particles, points=18):
    """E[log 1/K Σ_k w_k] by Gauss-Hermite quadrature over the 2 K standard normals behind the draws."""
    nodes, weights = (torch.tensor(a) for a in np.polynomial.hermite_e.hermegauss(points))
    axes = 2 * num_particles
    eps = torch.cartesian_prod(*[nodes] * axes).reshape(-1, num_particles, 2)
    probs = torch.cartesian_prod(*[weights / weights.sum()] * axes).prod(-1)
    log_w = program.log_weight(data(1), eps)  # (G, K)
    return (probs * (log_w.logsumexp(-1) - math.log(num_particles))).sum()


def exact_gradients(kind, num_particles):
    program = kind(1)
    grads = torch.autograd.grad(exact_bound(program, num_particles), [*program.v.values()])
    return {name: grad[0] for name, grad in zip(program.v, grads, strict=True)}


def worst(samples, exact, names):
    """The most standard errors by which a mean over the rows is away from the exact value."""
    errors = {name: samples[name].std(0) / len(samples[name]) ** 0.5 + 1e-12 for name in names}
    return max(((samples[name].mean(0) - exact[name]).abs() / errors[name]).max().item() for name in names)


# Gradients


def test_the_quadrature_is_the_closed_form():
    program = OneLayer(1)
    exact = derivation.LinearGaussian(program.v["weight"], program.v["bias"], program.v["log_scale"].exp())
    loc, scale = program.posterior(data(1))
    elbo = exact.elbo(data(1).unsqueeze(-1), loc, scale.square().diag_embed())
    bound = exact_bound(program, 1)
    assert bound.item() == pytest.approx(elbo.item(), abs=1e-10)
    expected = torch.autograd.grad(elbo.sum(), [*program.v.values()])
    torch.testing.assert_close(torch.autograd.grad(bound, [*program.v.values()]), expected, atol=1e-10, rtol=0)
    assert exact_bound(program, 2, 24).item() == pytest.approx(exact_bound(program, 2).item(), abs=1e-6)


@pytest.mark.parametrize("kind", [OneLayer, TwoLayers])
@pytest.mark.parametrize(
    "objective",
    [
        Trace_ELBO(max_plate_nesting=1),
        TraceMeanField_ELBO(max_plate_nesting=1),
        KLWeightedELBO(),
        KLWeightedELBO(analytic=True, num_particles=3),
        *(ImportanceWeightedELBO(1, gradient) for gradient in ("plain", "stl", "dreg")),
    ],
    ids=lambda o: type(o).__name__,
)
def test_gradients_are_those_of_the_elbo(kind, objective):
    program = kind(20_000)
    assert worst(gradients(objective, program, data(20_000)), exact_gradients(kind, 1), program.v) < 3


@pytest.mark.parametrize("kind", [OneLayer, TwoLayers])
@pytest.mark.parametrize("gradient", ["plain", "stl", "dreg"])
def test_gradients_are_those_of_the_importance_weighted_bound(kind, gradient):
    program = kind(40_000)
    sampled = gradients(ImportanceWeightedELBO(2, gradient), program, data(40_000))
    exact = exact_gradients(kind, 2)
    assert worst(sampled, exact, kind.theta) < 3
    if gradient == "stl":  # biased, and that should show
        assert worst(sampled, exact, kind.phi) > 10
    else:
        assert worst(sampled, exact, kind.phi) < 3


@pytest.mark.parametrize("kind", [OneLayer, TwoLayers])
def test_no_gradient_at_the_exact_posterior(kind):
    x = torch.randn(50)
    for gradient in ("stl", "dreg"):
        for k in (1, 5):
            program, evidence = kind.at_posterior(50)
            objective = ImportanceWeightedELBO(k, gradient)
            bounds = objective.bounds(program.model, program.guide, x)
            torch.testing.assert_close(bounds, evidence.log_prob(x), atol=1e-10, rtol=0)
            found = gradients(objective, program, x)
            assert all(found[name].abs().max() < 1e-10 for name in kind.phi)
    found = gradients(Trace_ELBO(max_plate_nesting=1), program, x)
    assert all(found[name].abs().mean() > 0.05 for name in kind.phi)


@pytest.mark.parametrize("kind", [OneLayer, TwoLayers])
def test_signal_to_noise_ratio(kind):
    """It falls as K^-1/2 for the plain gradient (Rainforth 2018), and rises as K^1/2 for DReG (Tucker 2019)."""

    def ratios(gradient, k, rows=4000):
        found = gradients(ImportanceWeightedELBO(k, gradient), kind(rows), data(rows))
        return torch.cat([(found[name].mean(0) / found[name].std(0)).abs().reshape(-1) for name in kind.phi]).median()

    plain = [ratios("plain", k) for k in (1, 8, 64)]
    dreg = [ratios("dreg", k) for k in (1, 8, 64)]
    assert plain[2] < 0.5 * plain[0]
    assert dreg[0] < dreg[1] < dreg[2]
    assert dreg[2] > 2 * dreg[0]


def vae_of(prior, encoder=None):
    """A small VAE, none of whose parameters is where it starts; the prior is made from the encoder."""
    encoder = encoder or DiagonalNormal(nn.Linear(3, 4))
    decoder = pyro_vae.mlp(2, [5], (3, 1), "tanh")
    vae = pyro_vae.VAE(prior=prior(encoder), encoder=encoder, decoder=decoder, likelihood=Gaussian(scale=0.8))
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return vae


def standard(_):
    return StandardNormal(2)


@pytest.mark.parametrize("part", ["flow", "vamp"])
def test_gradients_agree_where_the_posterior_is_a_flow_or_shared_with_the_prior(part):
    if part == "flow":
        vae = vae_of(standard, FlowPosterior(nn.Linear(3, 6), z_dim=2, hidden_dims=(8,)))
    else:
        vae = vae_of(lambda encoder: VampPrior(encoder, x_dim=3, components=4))
    x = torch.randn(1, 3).expand(100, 3)
    parameters = [*vae.parameters()]
    directions = [torch.randn_like(p) for p in parameters]

    def sample(gradient, k, repeats=60):
        """Each parameter's gradient along a random direction, averaged over 100 equal data, (repeats, P)."""
        rows = []
        for _ in range(repeats):
            loss = ImportanceWeightedELBO(k, gradient).differentiable_loss(vae.model, vae.guide, x) / len(x)
            grads = torch.autograd.grad(loss, parameters)
            rows.append(torch.stack([(g * d).sum() for g, d in zip(grads, directions, strict=True)]))
        return torch.stack(rows)

    for gradient, k in (("stl", 1), ("dreg", 4)):
        a, b = sample("plain", k), sample(gradient, k)
        error = ((a.var(0) + b.var(0)) / len(a)).sqrt() + 1e-12
        assert ((a.mean(0) - b.mean(0)).abs() / error).max() < 3


# Values


def test_importance_weighted_value_is_that_of_the_weights_and_of_pyro():
    program, x = OneLayer(1), torch.randn(40)
    expected = log_weights(program.model, program.guide, x, num_samples=6, seed=3).logsumexp(0) - math.log(6)

    def same_noise():
        seeds = torch.Generator().manual_seed(3)
        reseed(seeds)  # log_weights spends the first seed on checking the program
        reseed(seeds)

    for gradient in ("plain", "stl", "dreg"):
        objective = ImportanceWeightedELBO(6, gradient)
        same_noise()
        torch.testing.assert_close(objective.bounds(program.model, program.guide, x), expected, atol=1e-12, rtol=0)
        same_noise()
        assert objective.loss(program.model, program.guide, x) == pytest.approx(-expected.sum().item())
    same_noise()
    renyi = RenyiELBO(alpha=0, num_particles=6, max_plate_nesting=1, vectorize_particles=True)
    assert renyi.loss(program.model, program.guide, x) == pytest.approx(-expected.sum().item())


@pytest.mark.parametrize("kind", [OneLayer, TwoLayers])
def test_kl_weight_one_is_pyros_elbo(kind):
    # A guide close to the prior: the estimated KL is then negative now and then.
    program = kind(3, **{name: np.multiply(0.1, value).tolist() for name, value in kind.phi.items()})
    x, negative = data(3), 0
    for seed in range(20):
        torch.manual_seed(seed)
        expected = Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1)
        expected = expected.loss(program.model, program.guide, x)
        torch.manual_seed(seed)
        assert KLWeightedELBO(num_particles=2).loss(program.model, program.guide, x) == pytest.approx(expected)
        negative += elbo_terms(program.model, program.guide, x, seed=seed)[1].mean() < 0
    assert negative > 0
    torch.manual_seed(0)
    expected = TraceMeanField_ELBO(max_plate_nesting=1).loss(program.model, program.guide, x)
    torch.manual_seed(0)
    assert KLWeightedELBO(analytic=True).loss(program.model, program.guide, x) == pytest.approx(expected)


@pytest.mark.parametrize("weight", [0.0, 0.5, 4.0])
def test_kl_weight(weight):
    program, x = TwoLayers(5), data(5)
    reconstruction, kl = elbo_terms(program.model, program.guide, x, seed=0)
    torch.manual_seed(0)
    bounds = KLWeightedELBO(weight).bounds(program.model, program.guide, x)
    torch.testing.assert_close(bounds, reconstruction - weight * kl)


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(4, 1), (2, 2), (0.5, 8)])
def test_warm_up(epochs, steps_per_epoch):
    program, x = OneLayer(5), data(5)
    reconstruction, kl = (term.sum().item() for term in elbo_terms(program.model, program.guide, x, seed=0))
    objective = KLWeightedELBO(2.0, warmup_epochs=epochs, steps_per_epoch=steps_per_epoch)
    for weight in (0.5, 1.0, 1.5, 2.0, 2.0):
        torch.manual_seed(0)
        loss = objective.loss_and_grads(program.model, program.guide, x)
        assert loss == pytest.approx(weight * kl - reconstruction)
        objective.loss(program.model, program.guide, x)  # to look is no step
    assert objective.steps == 5


def test_free_bits_of_each_dimension():
    program = OneLayer(4, weight=[0.8, 0.0], offset=[1.5, 0.1])  # x tells nothing about the second one
    x = torch.tensor([-3.0, 0.0, 5.0, X])
    kl = derivation.kl_standard_normal(*(value.unsqueeze(-1) for value in program.posterior(x)))
    assert (kl.min(0).values < 0.3).all()
    assert (kl.max(0).values > 0.3).all()
    assert kl.mean(0)[0] > 0.3 > kl.mean(0)[1]  # it is the mean over the batch that counts
    objective = KLWeightedELBO(2.0, free_bits=0.3, analytic=True)
    reconstruction, _ = elbo_terms(program.model, program.guide, x, seed=0)
    torch.manual_seed(0)
    bounds = objective.bounds(program.model, program.guide, x)
    torch.testing.assert_close(bounds, reconstruction - 2 * (kl[:, 0] + 0.3))
    found = gradients(objective, program, x)
    for name in ("offset", "log_width"):
        assert (found[name][:, 1] == 0).all()
        assert (found[name][:, 0] != 0).all()


def test_free_bits_of_a_site():
    exact = pyro_vae.evidence.LinearGaussian(torch.tensor([[1.0, 0.3]]), scale=torch.ones(1))
    x = torch.ones(3, 1)
    q = exact.posterior(x)
    total = derivation.kl_normals(q.mean, q.covariance_matrix, torch.zeros(2), torch.eye(2))
    reconstruction, _ = elbo_terms(exact.model, exact.guide, x, seed=0)

    def model(x):  # the prior as one with a full covariance, so that torch knows the KL
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
            pyro.sample("x", dist.Normal(z @ exact.weight.T, 1).to_event(1), obs=x)

    for free_bits in (0.5 * total[0].item(), 0.9 * total[0].item(), 2 * total[0].item()):
        torch.manual_seed(0)
        bounds = KLWeightedELBO(free_bits=free_bits, analytic=True).bounds(model, exact.guide, x)
        torch.testing.assert_close(bounds, reconstruction - total.clamp(min=free_bits))


@pytest.mark.parametrize("kind", [OneLayer, TwoLayers])
def test_elbo_terms_add_up_to_the_evidence_at_the_posterior(kind):
    program, evidence = kind.at_posterior(1)
    x = torch.randn(7)
    state = torch.get_rng_state()
    reconstruction, kl = elbo_terms(program.model, program.guide, x, batch_size=3)
    torch.testing.assert_close(reconstruction - kl, evidence.log_prob(x), atol=1e-10, rtol=0)
    assert torch.equal(torch.get_rng_state(), state)


# Refusals


@pytest.mark.parametrize("objective", [ImportanceWeightedELBO(), ImportanceWeightedELBO(2, "plain"), KLWeightedELBO()])
def test_programs_that_are_refused(objective):
    program, two, x = OneLayer(3), TwoLayers(3), data(3)

    def discrete(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Poisson(torch.ones_like(x)))

    def outside(x):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1).to_event(1))

    def less(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z1", dist.Normal(torch.zeros(()), 1))

    def penalised(x):
        pyro.sample("penalty", dist.Normal(torch.zeros(()), 1), obs=torch.ones(()))
        program.model(x)

    for model, guide, message in (
        (program.model, discrete, "latent site 'z', Poisson, can't be reparameterised; use Trace_ELBO or"),
        (program.model, poutine.scale(program.guide, 2.0), "site 'z' has the scale 2.0"),
        (poutine.scale(program.model, 2.0), program.guide, "site 'z' has the scale 2.0"),
        (program.model, outside, "site 'z' is outside of the data plate"),
        (penalised, program.guide, "site 'penalty' is outside of the data plate"),
        (two.model, less, r"the model has the latent sites \['z1', 'z2'\], but the guide has \['z1'\]"),
        (less, two.guide, r"the model has the latent sites \['z1'\], but the guide has \['z1', 'z2'\]"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            objective.loss(model, guide, x)
        assert "\n" not in str(error.value)


def test_a_mask_counts_or_is_refused():
    program, x, mask = OneLayer(1), data(3), torch.tensor([True, False, True])
    masked = poutine.mask(program.model, mask), poutine.mask(program.guide, mask)
    assert (ImportanceWeightedELBO(2).bounds(*masked, x) == 0).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="latent site 'z' has a mask; KLWeightedELBO takes none"):
        KLWeightedELBO().loss(*masked, x)


@pytest.mark.parametrize("objective", [KLWeightedELBO(analytic=True), TraceMeanField_ELBO(max_plate_nesting=1)])
def test_analytic_is_refused_without_a_closed_form(objective):
    vae, x = vae_of(lambda _: GaussianMixture(2, components=3)), torch.randn(20, 3)
    message = r"'z' has no closed form: KL\[Normal \|\| MixtureSameFamily\]; use Trace_ELBO"
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=message) as error:
        check_closed_forms(objective, vae.model, vae.guide, x)
    assert "\n" not in str(error.value)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match=message):
        Training(vae, x, objective=objective, batch_size=10)
    with pytest.raises(ValueError, match=message):
        KLWeightedELBO(analytic=True).loss(vae.model, vae.guide, x)
    check_closed_forms(objective, TwoLayers(1).model, TwoLayers(1).guide, data(2))
    check_closed_forms(KLWeightedELBO(), vae.model, vae.guide, x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImportanceWeightedELBO(0), "num_particles: expected at least 1, got 0"),
        (lambda: ImportanceWeightedELBO(2, "drag"), 'gradient: expected "plain", "stl" or "dreg", got \'drag\''),
        (lambda: KLWeightedELBO(-1.0), "kl_weight: expected a number of at least 0, got -1.0"),
        (lambda: KLWeightedELBO(warmup_epochs=math.inf), "warmup_epochs: expected a number of at least 0, got inf"),
        (lambda: KLWeightedELBO(free_bits=math.nan), "free_bits: expected a number of at least 0, got nan"),
        (lambda: KLWeightedELBO(num_particles=0), "num_particles: expected at least 1, got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Use


@pytest.mark.parametrize(
    "objective", [ImportanceWeightedELBO(4), ImportanceWeightedELBO(1, "stl"), KLWeightedELBO(num_particles=2)]
)
def test_svi_on_a_program_of_the_users_own(objective):
    program, evidence = TwoLayers.at_posterior(1)
    x = torch.randn(20)

    def guide(x):
        program.v |= {name: pyro.param(name, torch.tensor([0.0])) for name in TwoLayers.phi}
        program.guide(x)

    svi = SVI(program.model, guide, Adam({"lr": 0.05}), loss=objective)
    before = svi.evaluate_loss(x)
    for _ in range(150):
        svi.step(x)
    gap = svi.evaluate_loss(x) + evidence.log_prob(x).sum().item()
    assert gap < 0.05 * (before + evidence.log_prob(x).sum().item())
    if isinstance(objective, ImportanceWeightedELBO):  # without noise at the end, it gets there
        assert abs(gap) < 0.05


def test_warm_up_resumes():
    x = torch.randn(40, 3)

    def training(vae):
        objective = KLWeightedELBO(warmup_epochs=3, steps_per_epoch=4)
        return Training(vae, x, objective=objective, epochs=2, batch_size=10, device="cpu")

    through = training(vae_of(standard))
    epochs = through.run()
    next(epochs)
    tensors, facts = through.state_dict()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    list(epochs)
    resumed = training(vae_of(standard))
    resumed.load_state_dict(tensors, facts)
    assert resumed.objective.steps == 4
    list(resumed.run())
    assert resumed.objective.steps == through.objective.steps == 8
    for a, b in zip(resumed.vae.parameters(), through.vae.parameters(), strict=True):
        assert torch.equal(a, b)
