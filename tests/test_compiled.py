"""A compiled objective gives, from the same noise, what the objective itself gives."""

import contextlib
import functools
import itertools
import math
import random
import time
import types
import typing

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    ELBO,
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints, kl_divergence

from pyro_vae import build, mlp
from pyro_vae.build import make_part
from pyro_vae.commands.parts import our_parts
from pyro_vae.compiled import CompiledELBO, NotStatic, record
from pyro_vae.compiled.rewriting import translate
from pyro_vae.objectives import ImportanceWeightedELBO, KLWeightedELBO
from pyro_vae.training.optim import FusedOptim
from tests.test_combinations import CHOICES, spec


@pytest.fixture(autouse=True)
def _alone():
    torch.manual_seed(0)
    pyro.clear_param_store()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)
    pyro.clear_param_store()


def step(elbo, seed, model, guide, *args):
    """Return the loss and the gradients of one call, by name."""
    torch.manual_seed(seed)
    with pyro.poutine.trace(param_only=True) as seen:
        loss = float(elbo.loss_and_grads(model, guide, *args))
    gradients = {}
    for name, site in seen.trace.nodes.items():
        param = site["value"].unconstrained()
        gradients[name], param.grad = param.grad, None
    return loss, gradients


def require_same(objective, model, guide, *calls, tolerance=1e-10):
    """Require of some calls that the compiled objective gives what the objective gives; return the former."""
    elbo = CompiledELBO(objective)
    elbo.prepare(model, guide, *calls[0])  # which also sets up what a program sets up at its first run
    for seed, args in enumerate(calls):
        loss, gradients = step(objective, seed, model, guide, *args)
        if hasattr(objective, "steps"):
            objective.steps -= 1
        compiled_loss, compiled_gradients = step(elbo, seed, model, guide, *args)
        assert compiled_loss == pytest.approx(loss, rel=tolerance)
        assert gradients.keys() == compiled_gradients.keys()
        size = max(g.norm() for g in gradients.values() if g is not None)
        for name, gradient in gradients.items():
            if gradient is None:
                assert compiled_gradients[name] is None
            else:
                assert (gradient - compiled_gradients[name]).norm() <= tolerance * max(gradient.norm(), 1e-3 * size)
    return elbo


# Vaes --------------------------------------------------------------------------------------------------------------


def combinations():
    """Enough combinations to have each part, with each objective and its choices, in both precisions."""
    priors, encoders, likelihoods, objectives = map(our_parts, ("prior", "encoder", "likelihood", "objective"))
    wanted = [(objective, {}) for objective in objectives]
    wanted += [(o, {name: c}) for o in objectives for name in CHOICES for c in CHOICES[name] if has(o, name)]
    for i in range(2 * max(map(len, (likelihoods, wanted)))):
        prior, encoder = priors[i % len(priors)], encoders[i // len(priors) % len(encoders)]
        likelihood, (objective, options) = likelihoods[i % len(likelihoods)], wanted[i % len(wanted)]
        dtype = (torch.float64, torch.float32)[i // len(wanted) % 2]
        names = [part.__name__ for part in (prior, encoder, likelihood, objective)]
        yield pytest.param(prior, encoder, likelihood, objective, options, dtype, id="-".join(names))


def has(part, option):
    return option in part.__init__.__code__.co_varnames


@pytest.mark.parametrize(("prior", "encoder", "likelihood", "objective", "options", "dtype"), list(combinations()))
def test_every_part_and_objective(prior, encoder, likelihood, objective, options, dtype):
    torch.set_default_dtype(dtype)
    parts = {"prior": spec(prior), "encoder": spec(encoder), "likelihood": spec(likelihood)}
    vae = build((4,), **parts, latent_dim=2, hidden_dims=[4], activation="tanh", levels=5, pixels="levels")
    with torch.no_grad():
        x = vae.likelihood(vae.decoder(torch.randn(8, 2))).sample()
    vae.initialize(x)
    if options.get("analytic") or issubclass(objective, TraceMeanField_ELBO):
        try:
            kl_divergence(vae.encoder(x), vae.prior().expand([8]))
        except NotImplementedError:
            pytest.skip("has no closed form of the KL")
    loss = make_part(spec(objective, **options), ELBO, {"max_plate_nesting": 1, "steps_per_epoch": 3})
    with pyro.validation_enabled(False):
        elbo = require_same(
            loss, vae.model, vae.guide, (x,), (x[:3],), tolerance=1e-10 if dtype == torch.float64 else 1e-5
        )
    assert elbo.traces == 1


def tiny(**options):
    vae = build((1, 2, 2), latent_dim=2, hidden_dims=[4], **options).double()
    return vae, torch.rand(8, 4).round()


def test_smaller_batches_need_no_other_recording():
    vae, x = tiny()
    elbo = require_same(Trace_ELBO(max_plate_nesting=1), vae.model, vae.guide, *((x[:n],) for n in (7, 7, 6, 2, 3)))
    assert elbo.traces == 1
    for n, traces in ((1, 2), (8, 3), (1, 3), (7, 3), (8, 3)):
        step(elbo, 0, vae.model, vae.guide, x[:n])
        assert elbo.traces == traces, n


def test_a_warm_up_is_followed():
    vae, x = tiny()
    objective = KLWeightedELBO(kl_weight=2.0, warmup_epochs=4)
    elbo = CompiledELBO(KLWeightedELBO(kl_weight=2.0, warmup_epochs=4))
    for seed in range(6):
        expected, _ = step(objective, seed, vae.model, vae.guide, x)
        assert step(elbo, seed, vae.model, vae.guide, x)[0] == pytest.approx(expected, rel=1e-10)
    assert elbo.objective.steps == 6
    assert elbo.traces == 1


@pytest.mark.parametrize("optim", [FusedOptim(torch.optim.SGD, {"lr": 1e-2}), pyro.optim.SGD({"lr": 1e-2})])
def test_svi_takes_the_same_steps_and_remembers_no_tensors(optim):
    vae, x = tiny()
    weights = []
    for wrap in (lambda objective: objective, CompiledELBO):
        pyro.clear_param_store()
        copied = build((1, 2, 2), latent_dim=2, hidden_dims=[4]).double()
        copied.load_state_dict(vae.state_dict())
        objective = wrap(Trace_ELBO(max_plate_nesting=1))
        svi = SVI(copied.model, copied.guide, optim, loss=objective)
        for seed in range(4):
            torch.manual_seed(seed)
            with pyro.get_param_store().scope():  # forgets the parameters' names, as an epoch of training does
                losses = [svi.step(x) for _ in range(3)]
        weights.append(copied.state_dict())
        assert all(isinstance(loss, float) for loss in losses)
    assert objective.traces == 1
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-9, atol=1e-12)


def test_ten_thousand_steps_are_all_alike():
    """In short: after a first hundred, a thousand more leave not one tensor, recording or entry behind."""
    import gc

    vae, x = tiny()
    elbo = CompiledELBO(Trace_ELBO(max_plate_nesting=1))
    svi = SVI(vae.model, vae.guide, FusedOptim(torch.optim.Adam, {"lr": 1e-3}), loss=elbo)

    def count():
        gc.collect()
        return (
            sum(1 for value in gc.get_objects() if issubclass(type(value), torch.Tensor)),
            len(elbo._programs),
            elbo.traces,
        )

    for n in range(100):
        svi.step(x[: 2 + n % 7])
    before = count()
    for n in range(1000):
        svi.step(x[: 2 + n % 7])
    assert count() == before


# Noise -------------------------------------------------------------------------------------------------------------


def test_noise_is_fresh_and_independent():
    """The gradient of w z with respect to w is the draw itself."""

    def model(x):
        weight = pyro.param("weight", torch.zeros(len(x)))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("product", weight * (3.0 - 2.0 * z))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    elbo, x = CompiledELBO(Trace_ELBO()), torch.zeros(16)
    draws = torch.stack([step(elbo, n, model, guide, x)[1]["weight"] for n in range(1000)])
    z = (draws + 3) / 2  # (steps, data)
    n = z.numel()
    assert len(z.unique()) == n
    assert abs(z.mean()) < 4 / n**0.5
    assert abs(z.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((z[1:] * z[:-1]).mean()) < 4 / n**0.5
    assert (torch.corrcoef(z.T) - torch.eye(16)).abs().max() < 4.5 / len(z) ** 0.5


def test_a_seed_repeats_a_step_and_recording_draws_no_number():
    vae, x = tiny()
    elbo = CompiledELBO(Trace_ELBO(max_plate_nesting=1))
    first, again, other = (step(elbo, seed, vae.model, vae.guide, x)[0] for seed in (1, 1, 2))
    assert first == again != other


def test_dropout_draws_new_masks_in_training_and_none_in_evaluation():
    network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1)).double()

    def model(x):
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(network(x).squeeze(-1), 1.0), obs=x[:, 0])

    def guide(x):
        pass

    x = torch.randn(6, 3)
    elbo = require_same(Trace_ELBO(), model, guide, (x,), (x[:4],))
    assert len({step(elbo, seed, model, guide, x)[0] for seed in range(5)}) == 5
    network.eval()
    assert len({step(elbo, seed, model, guide, x)[0] for seed in range(5)}) == 1
    assert elbo.traces == 2
    network.train()
    assert step(elbo, 0, model, guide, x)[0] != step(elbo, 1, model, guide, x)[0]
    assert elbo.traces == 2


def test_subsamples_are_drawn_anew():
    data = torch.arange(20.0)

    def model(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", 20, subsample_size=4) as rows:
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x[rows])

    elbo = require_same(Trace_ELBO(), model, lambda x: None, *[(data,)] * 4)
    gradients = [step(elbo, seed, model, lambda x: None, data)[1]["loc"].item() for seed in range(2)]
    assert gradients[0] != gradients[1]


# Programs that are no VAEs -------------------------------------------------------------------------------------------


class Regression(PyroModule):
    def __init__(self):
        super().__init__()
        self.weight = PyroSample(dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        self.scale = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

    def forward(self, x, y=None):
        loc = (x * self.weight).sum(-1)
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(loc, self.scale), obs=y)


def by_hand(x, y):
    loc = pyro.param("loc", torch.zeros(3))
    scale = pyro.param("width", 0.3 * torch.ones(3), constraint=constraints.positive)
    pyro.sample("weight", dist.Normal(loc, scale).to_event(1))


def regression_data():
    x = torch.randn(40, 3)
    return x, x @ torch.tensor([1.0, -2.0, 0.5]) + 0.5 * torch.randn(40)


@pytest.mark.parametrize("kind", ["by hand", AutoNormal, AutoMultivariateNormal])
def test_linear_regression(kind):
    x, y = regression_data()
    model = Regression()
    guide = by_hand if kind == "by hand" else kind(model)
    for objective in (
        Trace_ELBO(),
        Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
        TraceMeanField_ELBO(),
    ):
        elbo = require_same(objective, model, guide, (x, y), (x, y), (x[:9], y[:9]))
        assert elbo.traces == 1


def test_linear_regression_finds_the_posterior():
    x, y = regression_data()

    def model(x, y):
        weight = pyro.sample("weight", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * weight).sum(-1), 0.5), obs=y)

    precision = x.T @ x / 0.25 + torch.eye(3)
    mean = torch.linalg.solve(precision, x.T @ y / 0.25)
    elbo = CompiledELBO(TraceMeanField_ELBO(num_particles=8, vectorize_particles=True))
    optim = pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.994})
    svi = SVI(model, by_hand, optim, loss=elbo)
    for _ in range(800):
        svi.step(x, y)
    deviation = precision.diagonal() ** -0.5  # of the best factorised approximation
    assert ((pyro.param("loc") - mean).abs() < 0.1 * deviation).all()
    torch.testing.assert_close(pyro.param("width"), deviation, rtol=0.1, atol=0)
    assert elbo.traces == 1


def two_layers(x):
    top, weight = pyro.param("top", torch.tensor(0.7)), pyro.param("weight", torch.tensor(0.9))
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(0.0, 1.0))
        z2 = pyro.sample("z2", dist.Normal(top * z1, 1.0))
        pyro.sample("x", dist.StudentT(4.0, weight * z2.tanh(), 0.5), obs=x)


def two_layers_guide(x):
    slope = pyro.param("slope", torch.tensor([0.1, 0.8]))
    width = pyro.param("width", torch.tensor([1.0, 0.7]), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(slope[0] * x, width[0]))
        pyro.sample("z2", dist.Normal(slope[1] * x - 0.2 * z1, width[1]))


@pytest.mark.parametrize(
    "objective",
    [
        Trace_ELBO(),
        Trace_ELBO(num_particles=3),
        TraceGraph_ELBO(),
        RenyiELBO(alpha=0.5, num_particles=3, vectorize_particles=True, max_plate_nesting=1),
        ImportanceWeightedELBO(3, "dreg"),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_two_layers(objective):
    x = torch.randn(12)
    assert require_same(objective, two_layers, two_layers_guide, (x,), (x[:5],)).traces == 1


def mixture(x):
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("components", 3):
        loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, scale)), obs=x)


def test_a_mixture_with_continuous_latents():
    x = torch.randn(15)
    guide = AutoNormal(mixture)
    assert require_same(Trace_ELBO(), mixture, guide, (x,), (x[:4],), (x,)).traces == 1


def test_discrete_latents():
    def model(x):
        loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
        with pyro.plate("data", len(x)):
            side = pyro.sample("side", dist.Bernoulli(0.4))
            pyro.sample("x", dist.Normal(loc[0] + side * (loc[1] - loc[0]), 1.0), obs=x)

    def guide(x, infer=None):
        slope = pyro.param("slope", torch.tensor(0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("side", dist.Bernoulli(logits=slope * x), infer=infer)

    x = torch.randn(10)
    for objective in (Trace_ELBO(), TraceGraph_ELBO()):
        assert require_same(objective, model, guide, (x,), (x,), (x[:4],)).traces == 1
    with pytest.raises(NotStatic, match=r"looks at the value of a tensor in line .* of .*pyro.*use TraceEnum_ELBO"):
        CompiledELBO(TraceEnum_ELBO(max_plate_nesting=1)).prepare(model, pyro.infer.config_enumerate(guide), x)


# Terms of a model in which the size of the batch takes part, in one way or another.
IN_THE_SIZE = {
    "divided": lambda x, z: z.square().sum() / len(x),
    "multiplied": lambda x, z: z.square().sum(-1) * len(x),
    "to the power": lambda x, z: z.abs() ** len(x),
    "its power": lambda x, z: len(x) ** (-z.abs().cos()),
    "powers of two": lambda x, z: 2.0 ** x.cos() + z.square().sum(-1, keepdim=True),
    "subtracted": lambda x, z: (len(x) - z.square()).abs(),
    "inverse": lambda x, z: z.square().sum() * (1 / len(x)),
    "logarithm": lambda x, z: z.square().sum(-1) - math.log(len(x)),
    "one less": lambda x, z: z.square().sum() / (len(x) - 1),
    "square": lambda x, z: z.square().sum() / len(x) ** 2,
    "of a tensor": lambda x, z: z / torch.tensor(float(len(x))),
    "filled": lambda x, z: z.square().sum(-1) * torch.full((len(x),), len(x)),
    "numbered": lambda x, z: z.square().sum(-1) * torch.arange(len(x)),
    "mean": lambda x, z: z.mean(0).square(),
    "mean of all": lambda x, z: z.square().mean(),
    "variance": lambda x, z: z.var(0),
    "sum over size": lambda x, z: (z.sum(0) / len(z)).square(),
    "distances": lambda x, z: torch.cdist(z, z).mean(),
    "softmax": lambda x, z: z[:, 0].log_softmax(0),
    "sorted": lambda x, z: z[:, 0].sort().values[-1],
    "median": lambda x, z: z[:, 0].median(),
    "halves": lambda x, z: (z[: len(z) // 2].sum() - z[len(z) // 2 :].sum()) ** 2,
    "pairs": lambda x, z: (z[:-1] - z[1:]).square(),
    "the first five": lambda x, z: z[:5].square(),
    "odd sizes": lambda x, z: z.square() * (2 if len(x) % 2 else 1),
    "one size": lambda x, z: z.square() * (100 if len(x) == 6 else 1),
    "small sizes": lambda x, z: z.square() if len(x) > 7 else z.abs(),
}


@pytest.mark.parametrize("term", [pytest.param(term, id=name) for name, term in IN_THE_SIZE.items()])
def test_the_batch_size_may_take_part_in_arithmetic(term):
    def model(x):
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1).to_event(1))
            pyro.sample("x", dist.Normal(z + loc, 1.0).to_event(1), obs=x)
        pyro.factor("more", -term(x, z).sum(), has_rsample=True)

    def guide(x):
        slope = pyro.param("slope", torch.full((2,), 0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, 1.0).to_event(1))

    x = torch.randn(12, 2)
    require_same(Trace_ELBO(), model, guide, *((x[:n],) for n in (12, 12, 7, 6, 9, 3, 2, 12)))


@pytest.mark.parametrize("objective", [Trace_ELBO(), TraceMeanField_ELBO()], ids=lambda o: type(o).__name__)
def test_scales_inside_of_the_plate(objective):
    """Pyro multiplies a scale by the plate's size and divides by it again."""

    def scaled(x, weight):
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=weight):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1).to_event(1))
            pyro.sample("x", dist.Normal(z + pyro.param("loc", torch.zeros(2)), 1.0).to_event(1), obs=x)

    def guide(x, weight):
        slope = pyro.param("slope", torch.full((2,), 0.5))
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=weight):
            pyro.sample("z", dist.Normal(slope * x, 1.0).to_event(1))

    x, buffer = torch.randn(9, 2), torch.tensor(0.3)
    for weights in ((0.1, 0.5, 0.9), (torch.tensor(0.1), torch.tensor(0.5), torch.tensor(0.9)), (buffer,) * 3):
        calls = [(x[:n], weight) for n, weight in zip((9, 9, 4), weights, strict=True)]
        assert require_same(objective, scaled, guide, *calls).traces == 1


# What a program may do -----------------------------------------------------------------------------------------------


def normal(x, loc):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def no_latents(*args, **kwargs):
    pass


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (lambda x: torch.div(x, 1, rounding_mode="floor") + x, torch.tensor([0.5, 1.5])),
        (lambda x: (-x).sum(), torch.tensor([1, 2], dtype=torch.uint8)),
    ],
)
def test_only_what_does_nothing_is_left_out(function, x):
    assert torch.equal(record(function, x)(x), function(x))


def test_floats_are_inputs_and_other_arguments_are_not():
    def model(x, temperature, power=1):
        with pyro.poutine.scale(scale=temperature):
            normal(x, pyro.param("loc", torch.tensor(0.5)) ** power)

    x = torch.randn(6)
    elbo = require_same(Trace_ELBO(), model, no_latents, (x, 0.1), (x, 0.5), (x[:3], 0.9), (x, 1.0))
    assert elbo.traces == 1
    for power in (2, 3, 2):
        assert step(elbo, 0, model, no_latents, x, 0.3, power) == step(
            Trace_ELBO(), 0, model, no_latents, x, 0.3, power
        )
    assert elbo.traces == 3


def test_nested_arguments():
    def model(batch, *, more):
        normal(batch["x"] + more[0][0], pyro.param("loc", torch.tensor(0.5)))

    x, elbo = torch.randn(6), CompiledELBO(Trace_ELBO())
    for n in (6, 6, 4):
        args, kwargs = ({"x": x[:n], "name": "a"},), {"more": [(x[:n],), None]}
        expected = Trace_ELBO().loss_and_grads(model, no_latents, *args, **kwargs)
        assert float(elbo.loss_and_grads(model, no_latents, *args, **kwargs)) == pytest.approx(expected)
    assert elbo.traces == 1


def test_buffers_are_read_and_written_where_they_are():
    def make():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)).double()

    states = []
    for wrap in (lambda objective: objective, CompiledELBO):
        pyro.clear_param_store()
        network = make()
        network.register_buffer("shift", torch.zeros(()))

        def model(x, network=network):
            pyro.module("network", network)
            network.shift.add_(1.0)
            normal(x[:, 0], network(x).squeeze(-1) + network.shift)

        x, elbo = torch.randn(8, 2), wrap(Trace_ELBO())
        losses = [step(elbo, 0, model, no_latents, x[:n])[0] for n in (8, 8, 5)]
        network.shift.fill_(-3.0)
        losses.append(step(elbo, 0, model, no_latents, x)[0])
        network.eval()
        losses.append(step(elbo, 0, model, no_latents, x)[0])
        states.append({"losses": torch.tensor(losses), **network.state_dict()})
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-10, atol=0)


def test_gradients_are_added_and_share_no_memory():
    def model(x):
        a, b = pyro.param("a", torch.zeros(2)), pyro.param("b", torch.zeros(2))
        pyro.factor("sum", (a + b).sum() + (a * x).sum())

    x, elbo = torch.ones(2), CompiledELBO(Trace_ELBO())
    elbo.prepare(model, no_latents, x)
    a, b = (pyro.get_param_store()._params[name] for name in "ab")
    assert a.grad is None
    for times in (1, 2):
        elbo.loss_and_grads(model, no_latents, x)
        assert a.grad.tolist() == [-2.0 * times] * 2
        assert b.grad.tolist() == [-1.0 * times] * 2
    a.grad.fill_(7.0)
    assert b.grad.tolist() == [-2.0, -2.0]
    assert x.tolist() == [1.0, 1.0]


def test_gradients_may_be_equal():
    def model(x):
        a, b = pyro.param("a", torch.zeros(2)), pyro.param("b", torch.zeros(2))
        pyro.factor("sum", ((a + b - x) ** 2).sum())

    x = torch.randn(2)
    require_same(Trace_ELBO(), model, no_latents, (x,))
    elbo = CompiledELBO(Trace_ELBO())
    elbo.loss_and_grads(model, no_latents, x)
    a, b = (pyro.get_param_store()._params[name] for name in "ab")
    a.grad.fill_(7.0)
    assert b.grad.tolist() != [7.0, 7.0]


def test_parameters_that_were_replaced_are_followed():
    def model(x):
        normal(x, pyro.param("loc", torch.tensor(0.5)))

    x, elbo = torch.randn(6), CompiledELBO(Trace_ELBO())
    before = step(elbo, 0, model, no_latents, x)
    with torch.no_grad():
        pyro.param("loc").fill_(3.0)
    assert step(elbo, 0, model, no_latents, x)[0] > before[0]
    pyro.clear_param_store()
    assert step(elbo, 0, model, no_latents, x) == before
    assert elbo.traces == 2


@pytest.mark.parametrize("other", [False, True])
def test_parameters_that_are_a_modules_own_are_trained(other):
    """Also where Pyro's store has another one of the same name."""
    losses = []
    for wrap in (lambda objective: objective, CompiledELBO):
        pyro.clear_param_store()
        with pyro.settings.context(module_local_params=True):

            class Model(PyroModule):
                def __init__(self):
                    super().__init__()
                    self.scale = PyroParam(torch.tensor(1.0), constraints.positive)

                def forward(self, x):
                    pyro.factor("far", -((x - self.scale) ** 2).sum())

            if other:
                pyro.param("scale", torch.tensor(7.0), constraint=constraints.positive)
            model = Model()
            svi = SVI(model, no_latents, pyro.optim.Adam({"lr": 0.1}), loss=wrap(Trace_ELBO()))
            losses.append([float(svi.step(torch.zeros(3))) for _ in range(4)])
    assert losses[0] == pytest.approx(losses[1])
    assert losses[0][-1] < losses[0][0]


def test_mixed_precision_is_recorded():
    network = mlp(3, [8], 1).float()

    def model(x):
        pyro.module("network", network)
        with torch.autocast("cpu", torch.bfloat16):
            loc = network(x).squeeze(-1)
        normal(x[:, 0], loc.float())

    x = torch.randn(6, 3, dtype=torch.float32)
    require_same(Trace_ELBO(), model, no_latents, (x,), (x[:3],), tolerance=1e-6)
    plain = step(Trace_ELBO(), 0, lambda x: normal(x[:, 0], network(x).squeeze(-1)), no_latents, x)[0]
    elbo = CompiledELBO(Trace_ELBO())
    assert step(elbo, 0, model, no_latents, x)[0] != plain
    with torch.autocast("cpu", torch.bfloat16):
        step(elbo, 0, model, no_latents, x)
    assert elbo.traces == 2


# What changes between steps ------------------------------------------------------------------------------------------


def train(objective, make, steps=6):
    """Return the losses of some steps, and the parameters after them; ``make`` gives a program and what changes."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    model, guide, change, *args = make()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=objective)
    x = torch.randn(7, 2)
    losses = []
    for n in range(steps):
        change(n)
        losses.append(svi.step(x, *args))
    store = pyro.get_param_store()
    return torch.tensor([*losses, *torch.cat([store[name].detach().flatten() for name in sorted(store.keys())])])


def require_followed(make, traces=2, **options):
    elbo = CompiledELBO(Trace_ELBO(), **options)
    torch.testing.assert_close(train(elbo, make), train(Trace_ELBO(), make), rtol=1e-9, atol=1e-12)
    assert not elbo.not_compiled
    assert elbo.traces == traces


class Settings:
    beta = 1.0
    nested: typing.ClassVar = {"deep": [1.0, {"beta": 1.0}]}

    def weight(self):
        return self.half + self.half

    @property
    def half(self):
        return self.beta / 2


class Slotted:
    __slots__ = ("beta",)


SETTINGS, BETA, ARRAY, PLACE = Settings(), 1.0, np.ones(3), types.SimpleNamespace()
OTHER_MODULE = types.ModuleType("other_module")


def weighted(weight):
    """Return a program in which the divergence has a weight that a function gives."""

    def model(x, *args):
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=weight(*args)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + loc, 1.0).to_event(1), obs=x)

    def guide(x, *args):
        slope = pyro.param("slope", torch.full((2,), 0.5))
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=weight(*args)):
            pyro.sample("z", dist.Normal(slope * x, 1.0).to_event(1))

    return model, guide


def attribute_of_a_global():
    def change(n):
        SETTINGS.beta = 1.0 if n < 3 else 0.3

    return *weighted(lambda: SETTINGS.beta), change


def attribute_of_a_class():
    def change(n):
        Settings.beta = 1.0 if n < 3 else 0.3
        vars(SETTINGS).pop("beta", None)

    return *weighted(lambda: SETTINGS.beta), change


def behind_a_method_and_a_property():
    settings = Settings()

    def change(n):
        settings.beta = 1.0 if n < 3 else 0.3

    return *weighted(settings.weight), change


def deep_in_collections():
    def change(n):
        Settings.nested["deep"][1]["beta"] = 1.0 if n < 3 else 0.3

    return *weighted(lambda: SETTINGS.nested["deep"][1]["beta"]), change


def item_of_a_list():
    weights = [1.0, 1.0]

    def change(n):
        weights[1] = 1.0 if n < 3 else 0.3

    return *weighted(lambda: weights[1]), change


def length_of_a_list():
    weights = [1.0]

    def change(n):
        if n == 3:
            weights.append(0.3)

    return *weighted(lambda: weights[-1]), change


def closed_over():
    weight = 1.0

    def change(n):
        nonlocal weight
        weight = 1.0 if n < 3 else 0.3

    return *weighted(lambda: weight), change


def global_variable():
    def change(n):
        global BETA
        BETA = 1.0 if n < 3 else 0.3

    return *weighted(lambda: BETA), change


def default_argument():
    def weight(beta=1.0, *, more=1.0):
        return beta * more

    def change(n):
        weight.__defaults__ = (1.0 if n < 3 else 0.3,)

    return *weighted(weight), change


def keyword_of_a_partial():
    weight = functools.partial(lambda beta: beta, beta=1.0)

    def change(n):
        weight.keywords["beta"] = 1.0 if n < 3 else 0.3

    return *weighted(weight), change


def namespace():
    def change(n):
        PLACE.beta = 1.0 if n < 3 else 0.3

    return *weighted(lambda: PLACE.beta), change


def slots():
    settings = Slotted()

    def change(n):
        settings.beta = 1.0 if n < 3 else 0.3

    return *weighted(lambda: settings.beta), change


def items_as_attributes():
    class Items(dict):
        __getattr__ = dict.__getitem__

    settings = Items(beta=1.0)

    def change(n):
        settings["beta"] = 1.0 if n < 3 else 0.3

    return *weighted(lambda: settings.beta), change


def by_its_name():
    settings = Settings()

    def change(n):
        settings.beta = 1.0 if n < 3 else 0.3

    return *weighted(lambda: getattr(settings, "beta")), change  # noqa: B009


def by_several_names():
    settings = types.SimpleNamespace(half=0.5, more=0.5)

    def change(n):
        settings.more = 0.5 if n < 3 else 0.3

    return *weighted(lambda: sum(getattr(settings, name) for name in ("half", "more"))), change


def content_of_a_set():
    weights = {1.0}

    def change(n):
        if n == 3:
            weights.clear()
            weights.add(0.3)

    return *weighted(lambda: sum(weights)), change


def attribute_of_an_argument():
    settings = Settings()

    def change(n):
        settings.beta = 1.0 if n < 3 else 0.3

    return *weighted(lambda argument: argument.beta), change, settings


def variable_of_a_module():
    def change(n):
        OTHER_MODULE.beta = 1.0 if n < 3 else 0.3

    return *weighted(lambda: OTHER_MODULE.beta), change


def array_in_place():
    def change(n):
        ARRAY[1] = 1.0 if n < 3 else 0.3

    return *weighted(lambda: float(ARRAY[1])), change


def method_of_an_object():
    settings = Settings()

    def change(n):
        if n == 3:
            settings.weight = lambda: 0.3

    return *weighted(lambda: settings.weight()), change


def none_at_first():
    settings = types.SimpleNamespace(beta=None)

    def change(n):
        settings.beta = None if n < 3 else 0.3

    return *weighted(lambda: 1.0 if settings.beta is None else settings.beta), change


def another_tensor():
    settings = types.SimpleNamespace(beta=torch.tensor(1.0))

    def change(n):
        if n == 3:
            settings.beta = torch.tensor(0.3)

    return *weighted(lambda: settings.beta), change


@pytest.mark.parametrize(
    "make",
    [
        *(attribute_of_a_global, attribute_of_a_class, behind_a_method_and_a_property, deep_in_collections),
        *(item_of_a_list, length_of_a_list, closed_over, global_variable, default_argument, keyword_of_a_partial),
        *(
            namespace,
            slots,
            items_as_attributes,
            by_its_name,
            by_several_names,
            content_of_a_set,
            attribute_of_an_argument,
            variable_of_a_module,
            array_in_place,
        ),
        *(method_of_an_object, none_at_first, another_tensor),
    ],
    ids=lambda make: make.__name__,
)
def test_what_functions_read_is_followed(make):
    require_followed(make)


class Tempered(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.network = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 2)).double()
        self.temperature, self.unread = 1.0, 1.0
        self.anchor, self.spare = torch.ones(()), torch.ones(())
        self.register_buffer("shift", torch.ones(()))
        self.register_parameter("offset", None)

    def forward(self, x):
        offset = 0.0 if self.offset is None else self.offset
        if self.spare is None:
            return x
        return self.network(x) * self.temperature + self.shift * self.anchor + offset


def set_temperature(module):
    module.temperature = 0.3


def set_what_is_not_read(module):
    module.unread = 0.3


def set_what_has_no_effect(module):
    module.spare = torch.zeros(())


def set_dropout(module):
    module.network[1].p = 0.1


def freeze(module):
    module.network[0].requires_grad_(False)


def freeze_a_bias(module):
    module.network[2].bias.requires_grad_(False)


def replace_a_layer(module):
    module.network[0] = nn.Linear(2, 3).double()


def replace_a_parameter(module):
    module.network[0].weight = nn.Parameter(torch.ones(3, 2))


def take_a_parameter_away(module):
    module.network[0].bias = None


def add_a_parameter(module):
    module.offset = nn.Parameter(torch.ones(2))


def append_a_layer(module):
    module.network.append(nn.Tanh())


def replace_a_buffer(module):
    module.shift = torch.full((), 3.0)


def replace_a_tensor(module):
    module.anchor = torch.full((), 3.0)


def add_a_hook(module):
    module.network.register_forward_hook(lambda module, args, out: 2 * out)


def add_a_hook_before_the_backward_pass(module):
    module.network.register_full_backward_pre_hook(lambda module, gradients: (2 * gradients[0],))


def evaluate(module):
    module.eval()


def replace_the_method(module):
    module.forward = lambda x: module.network(x)


def replace_the_method_of_a_layer(module):
    module.network[0].forward = lambda x: x.repeat(1, 2)[:, :3]


@pytest.mark.parametrize(
    "change",
    [
        *(
            set_temperature,
            set_what_is_not_read,
            set_what_has_no_effect,
            set_dropout,
            freeze,
            freeze_a_bias,
            replace_a_layer,
        ),
        *(replace_a_parameter, take_a_parameter_away, add_a_parameter, append_a_layer, replace_a_buffer),
        *(
            replace_a_tensor,
            add_a_hook,
            evaluate,
            add_a_hook_before_the_backward_pass,
            replace_the_method,
            replace_the_method_of_a_layer,
        ),
    ],
    ids=lambda change: change.__name__,
)
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # in older versions of torch
@pytest.mark.filterwarnings("ignore:.*was not registered in the param store because requires_grad=False")
def test_what_modules_read_is_followed(change):
    def make():
        module = Tempered()

        def model(x):
            pyro.module("network", module, update_module_params=False)
            pyro.sample("x", dist.Normal(module(x), 1.0).to_event(2), obs=x)

        def change_once(n):
            if n == 3:
                if change in (replace_a_layer, replace_a_parameter, add_a_parameter):
                    pyro.clear_param_store()  # else, Pyro puts the parameters of before into the module
                change(module)

        return model, no_latents, change_once

    require_followed(make, traces=1 if change in (set_what_is_not_read, set_what_has_no_effect) else 2)


def test_the_number_of_particles_is_followed():
    x = torch.randn(12)
    plain, elbo = Trace_ELBO(), CompiledELBO(Trace_ELBO())
    for seed, particles in enumerate((1, 1, 3, 3)):
        plain.num_particles = elbo.objective.num_particles = particles
        expected, _ = step(plain, seed, two_layers, two_layers_guide, x)
        assert step(elbo, seed, two_layers, two_layers_guide, x)[0] == pytest.approx(expected, rel=1e-10)
    assert elbo.traces == 2


def test_states_that_come_back_need_no_other_recording():
    settings = Settings()
    model, guide = weighted(lambda: settings.beta)

    def make():
        return model, guide, lambda n: setattr(settings, "beta", (1.0, 0.5, 0.2)[n % 3])

    elbo = CompiledELBO(Trace_ELBO())
    torch.testing.assert_close(train(elbo, make, 60), train(Trace_ELBO(), make, 60), rtol=1e-9, atol=1e-12)
    assert elbo.traces == 3
    assert not elbo.not_compiled


@pytest.mark.parametrize("fallback", [False, True])
def test_what_changes_at_each_step_is_not_recorded_again_and_again(fallback):
    def make():
        settings = Settings()
        return *weighted(lambda: settings.beta), lambda n: setattr(settings, "beta", 1 / (n + 1))

    elbo = CompiledELBO(Trace_ELBO(), fallback=fallback)
    warned = contextlib.nullcontext() if fallback else pytest.warns(UserWarning, match="'beta' of Settings")
    with warned:
        losses = train(elbo, make, 30)
    torch.testing.assert_close(losses, train(Trace_ELBO(), make, 30), rtol=1e-9, atol=1e-12)
    assert "it reads 'beta' of Settings, which changes again and again" in elbo.not_compiled
    assert elbo.traces <= 6


def test_an_integer_that_counts_the_steps_is_not_recorded_again_and_again():
    model, guide = weighted(lambda n: 1 / (1 + n))
    elbo, x = CompiledELBO(Trace_ELBO(), fallback=True), torch.randn(5, 2)
    for n in range(20):
        expected = step(Trace_ELBO(), n, model, guide, x, n)[0]
        assert step(elbo, n, model, guide, x, n)[0] == pytest.approx(expected, rel=1e-10)
    assert "pass numbers as floats" in elbo.not_compiled


def test_what_a_program_keeps_for_itself_is_no_change():
    """A module that notes down its input's size and output would else be recorded after each evaluation."""

    class Noting(nn.Linear):
        def forward(self, x):
            self.size, self.last = len(x), super().forward(x)
            return self.last * self.size

    network = Noting(2, 2).double()

    def model(x):
        pyro.module("network", network)
        pyro.sample("x", dist.Normal(network(x), 1.0).to_event(2), obs=x)

    elbo, x = CompiledELBO(Trace_ELBO()), torch.randn(6, 2)
    for n in (6, 3, 6, 4, 3, 6):
        expected = step(Trace_ELBO(), n, model, no_latents, x[:n])[0]
        network(x[:5])
        assert step(elbo, n, model, no_latents, x[:n])[0] == pytest.approx(expected, rel=1e-10)
    assert elbo.traces == 1


def test_an_experiment_may_count_its_own_steps():
    class Experiment:
        def __init__(self):
            self.steps, self.losses, self.batches = 0, [], iter(torch.randn(9, 5, 2))

        def model(self, x):
            normal(x[:, 0], pyro.param("loc", torch.tensor(0.5)))

        def train(self, elbo):
            for x in self.batches:
                self.losses.append(float(elbo.loss_and_grads(self.model, no_latents, x)))
                self.steps += 1

    elbo = CompiledELBO(Trace_ELBO(), fallback=True)
    Experiment().train(elbo)
    assert elbo.traces == 1
    assert not elbo.not_compiled


# What it refuses -----------------------------------------------------------------------------------------------------


class Counter:
    value = 0.0


def branching(x, z):
    return z if z.sum() > 0 else 2 * z


def as_integer(x, z):
    return z * torch.ones(int(z.abs().sum()) + 1).sum()


def in_numpy(x, z):
    return z * float(x.numpy().mean())


def masked(x, z):
    return z[z > 0].sum()


def counting(x, z):
    Counter.value += 1.0
    return z * Counter.value


def other_noise(x, z):
    return z * random.random()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (branching, "looks at the value of a tensor in line .* of .*test_compiled.py"),
        (as_integer, "looks at the value of a tensor"),
        (in_numpy, "looks at the value of a tensor"),
        (masked, "looks at the value of a tensor"),
        (counting, "not the same in each run"),
        (other_noise, "not the same in each run"),
    ],
)
def test_programs_that_depend_on_values_are_refused(function, reason):
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.factor("more", function(x, z).sum())

    def guide(x):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(3)), 1.0).to_event(1))

    x = torch.randn(4)
    state = torch.get_rng_state()
    with pytest.raises(
        NotStatic, match=rf"(?s)can't be compiled: .*{reason}.*; use Trace_ELBO instead of CompiledELBO"
    ):
        CompiledELBO(Trace_ELBO()).loss_and_grads(model, guide, x)
    assert pyro.param("loc").grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_other_reasons_to_refuse():
    def model(x):
        normal(x, pyro.param("loc", torch.tensor(0.5)))

    x, elbo = torch.randn(6), CompiledELBO(Trace_ELBO())
    with pytest.raises(NotStatic, match="ScaleMessenger"), pyro.poutine.scale(scale=2.0):
        elbo.loss_and_grads(model, no_latents, x)
    with pytest.raises(NotStatic, match="gradient"):
        elbo.loss_and_grads(model, no_latents, x.clone().requires_grad_())
    with pytest.raises(NotStatic, match="ndarray"):
        elbo.loss_and_grads(lambda x: model(torch.from_numpy(x)), no_latents, x.numpy())
    assert elbo.traces == 0


def test_evaluation_is_the_objectives_own():
    vae, x = tiny()
    objective = Trace_ELBO(max_plate_nesting=1)
    elbo = CompiledELBO(objective)
    for name in ("loss", "differentiable_loss"):
        torch.manual_seed(0)
        expected = torch.as_tensor(getattr(objective, name)(vae.model, vae.guide, x))
        torch.manual_seed(0)
        value = torch.as_tensor(getattr(elbo, name)(vae.model, vae.guide, x))
        assert torch.equal(value, expected)
        assert value.requires_grad == (name == "differentiable_loss")
    with torch.no_grad():
        assert math.isfinite(elbo.loss_and_grads(vae.model, vae.guide, x))
    assert all(p.grad is None for p in vae.parameters())


# Going on without ----------------------------------------------------------------------------------------------------


def random_start():
    """A program that draws its starting values, has an automatic guide, and writes to buffers."""
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).double()

    def model(x):
        pyro.module("network", network)
        start = pyro.param("start", lambda: torch.randn(2))
        if not hasattr(network, "drawn"):
            network.drawn = torch.rand(())
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(network(x + z) + start, network.drawn + 1.0).to_event(1), obs=x)

    return model, AutoNormal(model), lambda n: None, network


def outcome(objective, make, steps=4):
    """Return all that a training leaves behind: losses, parameters, buffers, gradients and random states."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    pyro.clear_param_store()
    torch.manual_seed(0)
    model, guide, change, network = make()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=objective)
    x, results = torch.randn(7, 2), []
    for n in range(steps):
        change(n)
        results += [svi.step(x[: 7 - n]), torch.get_rng_state().tolist()]
    results += [random.getstate(), np.random.rand()]  # noqa: NPY002
    results += [pyro.get_param_store()[name].tolist() for name in sorted(pyro.get_param_store().keys())]
    results += [tensor.tolist() for tensor in network.state_dict().values()]
    return results + [parameter.grad is None or parameter.grad.tolist() for parameter in network.parameters()]


def fail(*args, **kwargs):
    raise KeyError("root")


def wrong(recorded):
    run = translate(recorded)
    return lambda *inputs: (run(*inputs)[0] + 1e3, *run(*inputs)[1:])


@pytest.mark.parametrize(
    ("part", "replacement", "reason"),
    [
        *((f"elbo.{part}", fail, "root") for part in ("explore", "Reach", "Program", "compare")),
        *((f"program.{part}", fail, "root") for part in ("Recorder", "State", "_trace", "_written")),
        *((f"program.{part}", fail, "root") for part in ("simplify", "translate")),
        ("program.translate", wrong, "not the same in each run"),
    ],
)
def test_any_failure_is_as_if_nothing_had_been_tried(monkeypatch, part, replacement, reason):
    expected = outcome(Trace_ELBO(), random_start)
    monkeypatch.setattr(f"pyro_vae.compiled.{part}", replacement)
    elbo = CompiledELBO(Trace_ELBO(), fallback=True)
    assert outcome(elbo, random_start) == expected
    assert reason in elbo.not_compiled
    with pytest.raises(KeyError if part == "elbo.explore" else NotStatic, match=reason):  # that is the program's own
        outcome(CompiledELBO(Trace_ELBO()), random_start)


def test_a_failure_in_a_later_step_leaves_the_steps_before_and_after_it_alone():
    """Where its input has large values, the program looks at them."""

    def make():
        model, guide = weighted(lambda: 1.0)

        def change(n):
            Settings.beta = float(n)

        def looking(x):
            model(x * 1.5 if Settings.beta == 2 and x.sum() > -1e9 else x)

        return looking, guide, change

    elbo = CompiledELBO(Trace_ELBO(), fallback=True)
    torch.testing.assert_close(train(elbo, make), train(Trace_ELBO(), make), rtol=1e-9, atol=1e-12)
    assert "looks at the value of a tensor" in elbo.not_compiled
    assert elbo.traces == 2


def test_a_leaf_of_low_precision_excuses_no_other(monkeypatch):
    def half_off(recorded):
        run = translate(recorded)
        return lambda *inputs: (run(*inputs)[0] * 1.5, *run(*inputs)[1:])

    def model(x):
        low = pyro.param("low", torch.tensor(0.5, dtype=torch.bfloat16))
        normal(x, pyro.param("loc", torch.tensor(0.5)) + low.double())

    monkeypatch.setattr("pyro_vae.compiled.program.translate", half_off)
    elbo = CompiledELBO(Trace_ELBO())
    with pytest.raises(NotStatic, match="not the same in each run"):
        elbo.prepare(model, no_latents, torch.randn(6))
    assert elbo.traces == 0


def test_long_collections_and_arrays_are_compared_quickly(monkeypatch):
    holder = types.SimpleNamespace(items=[1.0] * 500, array=np.ones(3), names={"a", "b"})
    model, guide = weighted(lambda: holder.items[0] * float(holder.array[0]) * len(holder.names))
    x, elbo = torch.randn(5, 2), CompiledELBO(Trace_ELBO())
    elbo.prepare(model, guide, x)
    monkeypatch.setattr("pyro_vae.compiled.state.State.changed", fail)
    elbo.loss_and_grads(model, guide, x)


def test_models_made_in_each_step_are_named_as_the_reason():
    elbo, x = CompiledELBO(Trace_ELBO(), fallback=True), torch.randn(5)
    for _ in range(9):
        elbo.loss_and_grads(lambda x: normal(x, pyro.param("loc", torch.tensor(0.5))), no_latents, x)
    assert "another model or guide again and again" in elbo.not_compiled


def test_the_reason_is_a_single_line():
    def model(x):
        z = pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0), obs=x[0])
        pyro.factor("more", branching(x, z).sum())

    elbo = CompiledELBO(Trace_ELBO(), fallback=True)
    elbo.loss_and_grads(model, no_latents, torch.randn(5))
    assert "looks at the value of a tensor" in elbo.not_compiled
    assert "\n" not in elbo.not_compiled


def sparse_matrix(x, weight):
    return torch.sparse.mm(torch.eye(len(x)).to_sparse(), weight)


def sparse_gradient(x, weight):
    return nn.functional.embedding(torch.zeros(2, dtype=torch.long), weight, sparse=True)


@pytest.mark.parametrize("function", [sparse_matrix, sparse_gradient])
def test_sparse_tensors_are_refused(function):
    def model(x):
        pyro.factor("sum", function(x, pyro.param("weight", torch.ones(len(x), 1))).sum())

    with pytest.raises(NotStatic, match="sparse tensor or gradient"):
        CompiledELBO(Trace_ELBO()).loss_and_grads(model, no_latents, torch.randn(3))


def test_sparse_tensors_that_are_not_used_are_none_of_its_business():
    spare = torch.eye(3).to_sparse()

    def model(x):
        normal(x, pyro.param("loc", torch.tensor(0.5)) if spare is not None else 0.0)

    elbo = CompiledELBO(Trace_ELBO())
    elbo.loss_and_grads(model, no_latents, torch.randn(3))
    assert elbo.traces == 1


NUMBERS, GENERATOR, TORCHS = itertools.count(), np.random.default_rng(0), torch.Generator()
LIBRARY = {"__name__": "json.of_library", "random": random}
exec("def draw(): return random.random()", LIBRARY)


def next_number():
    return 1.0 + next(NUMBERS)


def of_python():
    return random.random()


def of_numpy():
    return 1.0 + 1e-9 * float(np.random.rand())  # noqa: NPY002


def of_a_library():
    return 1.0 + 1e-9 * LIBRARY["draw"]()


def of_a_generator():
    return float(GENERATOR.random())


def of_torchs_generator():
    return torch.rand((), generator=TORCHS)


def of_the_clock():
    return 1.0 + 0 * time.time()


def of_a_file():
    with open(__file__) as file:
        return float(len(file.readline()))


def counted():
    SETTINGS.beta += 1e-9
    return SETTINGS.beta


def kept_in_a_tensor():
    PLACE.mean = PLACE.mean * (1 + 1e-9)
    return PLACE.mean


def imported_inside():
    import random as other

    return other.random()


@pytest.mark.parametrize(
    "weight",
    [
        *(next_number, of_python, of_numpy, of_a_library, of_a_generator, of_torchs_generator, of_the_clock, of_a_file),
        *(counted, kept_in_a_tensor, imported_inside),
    ],
    ids=lambda weight: weight.__name__,
)
def test_what_can_not_be_watched_is_left_as_it_is(weight):
    def make():
        global NUMBERS, GENERATOR
        NUMBERS, GENERATOR = itertools.count(), np.random.default_rng(0)
        TORCHS.manual_seed(0)
        SETTINGS.beta, PLACE.mean = 1.0, torch.tensor(0.1)
        return *weighted(weight), lambda n: None, nn.Linear(1, 1)

    expected = outcome(Trace_ELBO(), make), SETTINGS.beta, PLACE.mean
    elbo = CompiledELBO(Trace_ELBO(), fallback=True)
    assert (outcome(elbo, make), SETTINGS.beta, PLACE.mean) == expected
    assert elbo.not_compiled
    make()
    with pytest.raises(NotStatic):
        outcome(CompiledELBO(Trace_ELBO()), make)


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("at", [0, 2])
def test_errors_of_the_program_are_its_own(fallback, at):
    def model(x):
        if len(x) == at + 2:
            raise LookupError("my own")
        normal(x, pyro.param("loc", torch.tensor(0.5)))

    elbo, x = CompiledELBO(Trace_ELBO(), fallback=fallback), torch.randn(9)
    for n in range(4):
        with pytest.raises(LookupError, match="my own") if n == at else contextlib.nullcontext():
            elbo.loss_and_grads(model, no_latents, x[: n + 2])
    assert not elbo.not_compiled


@pytest.mark.parametrize("fallback", [False, True])
def test_losses_that_are_not_finite_are_reported_as_pyro_does(fallback):
    def model(x):
        normal(x, pyro.param("loc", torch.tensor(0.5)))

    elbo, x = CompiledELBO(Trace_ELBO(), fallback=fallback), torch.randn(9)
    elbo.loss_and_grads(model, no_latents, x)
    gradient = pyro.param("loc").grad.clone()
    with torch.no_grad():
        pyro.param("loc").fill_(math.nan)
    for objective in (Trace_ELBO(), elbo):
        with pytest.raises(ValueError, match="Expected parameter loc"):
            objective.loss_and_grads(model, no_latents, x)
        assert pyro.param("loc").grad == gradient
    with pyro.validation_enabled(False):
        for objective in (Trace_ELBO(), elbo):
            with pytest.warns(UserWarning, match="Encountered NaN"):
                assert math.isnan(objective.loss_and_grads(model, no_latents, x))
    assert not elbo.not_compiled
    with pyro.validation_enabled(False), pytest.warns(UserWarning, match="Encountered NaN"):
        assert math.isnan(CompiledELBO(Trace_ELBO()).loss_and_grads(model, no_latents, x))


# The optimiser -------------------------------------------------------------------------------------------------------


def optimized(optim, steps=8, frozen=lambda n: ()):
    """Return some weights after some steps on random gradients, each with another learning rate."""
    torch.manual_seed(0)
    weights = [torch.randn(3, 2, requires_grad=True), torch.randn(2, requires_grad=True)]
    for n in range(steps):
        for number, weight in enumerate(weights):
            gradient = torch.randn_like(weight)
            weight.grad = None if number in frozen(n) else gradient
        optim(weights)
    return [weight.tolist() for weight in weights]


ADAM = torch.optim.Adam, {"lr": 0.1, "fused": True, "weight_decay": 0.1}, lambda step: 0.1 / (step + 1)


def plain_optim():
    optim = FusedOptim(*ADAM)
    optim.not_recorded = "since it is to be compared with"
    return optim


@pytest.mark.parametrize("frozen", [lambda n: (), lambda n: (n // 2 % 2,), lambda n: (1,) if n > 3 else ()])
def test_the_recorded_optimiser_is_the_optimiser(frozen):
    optim = FusedOptim(*ADAM)
    assert optimized(optim, 12, frozen) == optimized(plain_optim(), 12, frozen)
    assert not optim.not_recorded
    assert optim._recorded is not None


def twice(function, *inputs, frozen):
    run = record(function, *inputs, frozen=frozen)
    return lambda *inputs: (run(*inputs), run(*inputs))


def old_gradients(function, *inputs, frozen):
    run = record(function, *inputs, frozen=frozen)
    return lambda lr, *others: run(lr, *(2 * gradient for gradient in inputs[1:]))


def nothing(function, *inputs, frozen):
    return lambda *inputs: None


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (fail, "recording it raises KeyError: 'root'"),
        (twice, "not the same as its own"),
        (old_gradients, "not the same as its own"),
        (nothing, "not the same as its own"),
        (lambda *args, frozen: fail, "recording it raises KeyError: 'root'"),
    ],
)
def test_an_optimiser_that_can_not_be_recorded_runs_as_it_is(monkeypatch, wrong, reason):
    monkeypatch.setattr("pyro_vae.training.optim.record", wrong)
    optim = FusedOptim(*ADAM)
    assert optimized(optim) == optimized(plain_optim())
    assert reason in optim.not_recorded


def test_an_optimiser_is_not_recorded_again_and_again():
    optim, weights = FusedOptim(*ADAM), [torch.randn(2, requires_grad=True) for _ in range(6)]
    for n in range(200):
        for number, weight in enumerate(weights):
            weight.grad = torch.ones(2) if n < 2 or n >> number & 1 else None
        optim(weights)
    assert "other parameters have a gradient" in optim.not_recorded
