"""The checks for parts of one's own find what is broken, and say it in one sentence that names the part."""

import inspect
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.distributions import constraints

from pyro_vae import Encoder, Likelihood, Prior, mlp
from pyro_vae.likelihoods import Categorical, Columns, Gaussian, Laplace
from pyro_vae.networks import bounded_exp
from pyro_vae.objectives import ImportanceWeightedELBO, KLWeightedELBO, PerDatumELBO
from pyro_vae.priors import StandardNormal
from pyro_vae.program import draw, log_density
from pyro_vae.testing import check_encoder, check_likelihood, check_objective, check_prior

# Parts that keep their contract, each of which the broken ones change in one place.


class Shifted(Prior):
    def __init__(self, z_dim: int = 2, scale: float = 1.5):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(z_dim))
        self.scale = scale

    def forward(self):
        return dist.Laplace(self.loc, self.scale).to_event(1)


class Linear(Encoder):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    @staticmethod
    def num_outputs(z_dim: int) -> int:
        return 2 * z_dim

    def forward(self, x):
        loc, log_scale = self.network(x).chunk(2, -1)
        return dist.Normal(loc, bounded_exp(log_scale)).to_event(1)


class StudentT(Likelihood):
    def __init__(self, df: float = 3.0):
        super().__init__()
        self.df = df
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, raw):
        return dist.StudentT(self.df, raw[..., 0], bounded_exp(self.log_scale)).to_event(1)


class Plain(PerDatumELBO):
    def __init__(self, num_particles: int = 2):
        super().__init__(num_particles=num_particles, max_plate_nesting=1, vectorize_particles=True)

    def bounds(self, model, guide, x):
        z, log_q = draw(guide, x, self.num_particles)
        return (log_density(model, x, z) - log_q).mean(0)


def test_what_is_right_passes_and_leaves_no_trace():
    prior, encoder, likelihood = Shifted(2), Linear(mlp(5, [4], 4)), StudentT(df=3)
    state, names = torch.get_rng_state(), set(pyro.get_param_store().keys())
    before = [p.clone() for p in (*prior.parameters(), *likelihood.parameters())]
    check_prior(prior)
    check_prior(Shifted, scale=0.7)
    check_encoder(Linear)
    check_encoder(encoder, x_dim=5)
    check_encoder(lambda x_dim, z_dim: Linear(nn.Linear(x_dim, 2 * z_dim)))
    check_likelihood(likelihood)
    check_likelihood(StudentT, df=4.0, x_dim=2)
    check_likelihood(Gaussian(scale="per_element", x_dim=4), x_dim=4)
    check_objective(Plain(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert set(pyro.get_param_store().keys()) == names
    assert all(map(torch.equal, before, (*prior.parameters(), *likelihood.parameters())))


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_prior(Shifted(2), scale=3.0), "scale: expected no options beside a Shifted already made"),
        (lambda: check_prior(StudentT()), "expected a Prior, its class, or a function that makes one, got StudentT"),
        (lambda: check_prior(3), "expected a Prior, its class, or a function that makes one, got 3"),
        (lambda: check_prior(lambda: StudentT()), "expected a Prior, got StudentT"),
        (lambda: check_prior(Shifted, width=3), "Shifted can't be built: .*width"),
        (lambda: check_prior(Shifted(5)), "Shifted: expected z_dim 1 or 2, .* got 5; give the class"),
        (lambda: check_encoder(lambda network: Linear(network)), "can't be built: .*network"),
        (lambda: check_likelihood(Columns([(1, Laplace()), (2, Laplace())])), "Columns: the elements of _Joint may"),
    ],
)
def test_what_cannot_be_checked(check, message):
    with pytest.raises(ValueError, match=message):
        check()


def broken(base, **methods):
    """Return a subclass with other methods, called Broken."""
    return type("Broken", (base,), methods)


def init(base, **attributes):
    """Return a constructor that also sets these attributes, each made by a function."""

    def __init__(self, *args, **kwargs):
        base.__init__(self, *args, **kwargs)
        for name, make in attributes.items():
            setattr(self, name, make())

    __init__.__signature__ = inspect.signature(base.__init__)  # so that the sizes are still filled in
    return __init__


class Heavier(dist.Normal):
    """Twice the density of a normal distribution."""

    def log_prob(self, value):
        return super().log_prob(value) + math.log(2)


class Elsewhere(dist.Normal):
    """Draws that do not come from its density."""

    def rsample(self, sample_shape=()):
        return super().rsample(sample_shape) + 0.2

    sample = rsample


class OneForAll(dist.Normal):
    """The same draw for the whole batch."""

    def rsample(self, sample_shape=()):
        return super().rsample(sample_shape)[..., :1, :1].expand(self.shape(sample_shape))

    sample = rsample


def normal_prior(family=dist.Normal, **attributes):
    return broken(
        Shifted, __init__=init(Shifted, **attributes), forward=lambda self: family(self.loc, self.scale).to_event(1)
    )


# Where a part remembers what it computed: nothing that has a gradient can be copied.
def remembering(self):
    self.last = self.loc * 2
    return Shifted.forward(self)


PRIORS = {
    "event shape": (
        broken(Shifted, forward=lambda self: dist.Laplace(self.loc, 1.0)),
        r"Broken: expected batch shape \(\) and event shape \(1,\), got \(1,\) and \(\)",
    ),
    "density": (normal_prior(Heavier), "Broken: expected a density that integrates to one with z_dim=1, got 2"),
    "draws": (normal_prior(Elsewhere), "Broken: expected draws that come from its density with z_dim=1, got a mean"),
    "same draws": (normal_prior(OneForAll), "Broken"),
    "validation": (
        normal_prior(lambda loc, scale: dist.Normal(loc, scale, validate_args=False)),
        "Broken: expected a ValueError, that NaN is not within the support",
    ),
    "no gradient": (
        normal_prior(unused=lambda: nn.Parameter(torch.ones(3))),
        "Broken: expected a finite gradient that is not zero for prior.unused, got none",
    ),
    "detached": (
        broken(Shifted, forward=lambda self: dist.Laplace(self.loc.detach(), 1.0).to_event(1)),
        "Broken: expected a finite gradient that is not zero for prior.loc, got none",
    ),
    "unsaved": (
        broken(
            Shifted,
            __init__=init(Shifted, other=lambda: torch.rand(()).item()),
            forward=lambda self: dist.Laplace(self.loc + self.other, 1.0).to_event(1),
        ),
        "Broken: expected the same densities after it was saved and loaded, got others",
    ),
    "dtype": (
        broken(
            Shifted,
            __init__=init(Shifted, other=lambda: torch.ones(1, dtype=torch.float64)),
            forward=lambda self: dist.Laplace(self.loc + self.other, 1.0).to_event(1),
        ),
        "Broken: expected torch.float32 on cpu after a move to it, got torch.float64 on cpu",
    ),
    "device": (
        broken(
            Shifted,
            __init__=init(Shifted, other=lambda: torch.ones(1)),
            forward=lambda self: dist.Laplace(self.loc + self.other, 1.0).to_event(1),
        ),
        'Broken fails on the device "meta", since a tensor stays behind on the CPU',
    ),
    "copy": (broken(Shifted, forward=remembering), "Broken fails when it is copied: RuntimeError"),
    "shared": (
        broken(Shifted, __deepcopy__=lambda self, memo: self),
        "Broken: expected a deep copy that shares nothing with it, got one that changes with it",
    ),
}


@pytest.mark.parametrize("name", PRIORS)
def test_a_broken_prior(name):
    part, message = PRIORS[name]
    with pytest.raises(AssertionError, match=message):
        check_prior(part)


def test_a_prior_that_owns_the_encoder():
    class Greedy(Shifted):
        def __init__(self, z_dim: int, encoder: nn.Module):
            super().__init__(z_dim)
            self.encoder = encoder

    with pytest.raises(AssertionError, match="Greedy: expected parameters that no other part has, got 4 shared ones"):
        check_prior(Greedy)


def test_validation_that_is_switched_off():
    class Careless(Shifted):
        def forward(self):
            torch.distributions.Distribution.set_default_validate_args(False)
            return super().forward()

    try:
        with pytest.raises(AssertionError, match="Careless: expected Pyro's validation left as it was"):
            check_prior(Careless)
    finally:
        torch.distributions.Distribution.set_default_validate_args(True)


def centred(self, x):
    loc, log_scale = self.network(x - x.mean(tuple(range(x.dim() - 1)))).chunk(2, -1)
    return dist.Normal(loc, bounded_exp(log_scale)).to_event(1)


ENCODERS = {
    "event shape": (
        broken(Linear, forward=lambda self, x: Linear.forward(self, x).to_event(x.dim() - 1)),
        r"Broken: expected batch shape \(3,\) and event shape \(1,\) for x of shape \(3, 3\), got \(\) and \(3, 1\)",
    ),
    "leading dimensions": (
        broken(Linear, forward=lambda self, x: Linear.forward(self, torch.einsum("nd->nd", x) if x.dim() > 1 else x)),
        r"Broken fails with x of shape \(2, 3, 3\): RuntimeError: einsum",
    ),
    "batch": (broken(Linear, forward=centred), r"Broken: expected the same log q\(z\|x\) of each datum among others"),
    "not reparameterised": (
        broken(Linear, forward=lambda self, x: dist.Poisson(self.network(x)[..., ::2].exp()).to_event(1)),
        r"Broken: expected a distribution that can be reparameterised \(rsample\), got Independent",
    ),
    "detached": (
        broken(Linear, forward=lambda self, x: Linear.forward(self, x.detach()) and detached(Linear.forward(self, x))),
        "Broken: expected a finite gradient that is not zero for encoder.network.0.weight, got none",
    ),
}


def detached(q):
    return dist.Normal(q.base_dist.loc.detach(), q.base_dist.scale.detach()).to_event(1)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_broken_encoder(name):
    part, message = ENCODERS[name]
    with pytest.raises(AssertionError, match=message):
        check_encoder(part)


class Counts(Likelihood):
    """Positive whole numbers, so that a blank can't be filled with 0."""

    support = constraints.positive_integer

    def forward(self, raw):
        return dist.Geometric(logits=raw[..., 0]).to_event(1)


def two_rows_at_most(self, raw):
    return StudentT.forward(self, torch.einsum("ndp->ndp", raw) if raw.dim() > 2 else raw)


LIKELIHOODS = {
    "event shape": (
        broken(StudentT, forward=lambda self, raw: dist.StudentT(self.df, raw[..., 0], self.log_scale.exp())),
        r"Broken: expected batch shape \(\) and event shape \(3,\) for raw outputs of shape \(3, 1\), got \(3,\) and",
    ),
    "leading dimensions": (
        broken(StudentT, forward=two_rows_at_most),
        r"Broken fails with raw outputs of shape \(2, 3, 3, 1\): RuntimeError: einsum",
    ),
    "density": (
        broken(StudentT, forward=lambda self, raw: Heavier(raw[..., 0], self.log_scale.exp()).to_event(1)),
        "Broken: expected a density that integrates to one over element 0, got 2",
    ),
    "draws": (
        broken(StudentT, forward=lambda self, raw: Elsewhere(raw[..., 0], self.log_scale.exp()).to_event(1)),
        "Broken: expected draws that come from its density over element 0, got a mean",
    ),
    "support": (
        broken(StudentT, support=constraints.unit_interval, accepts="numbers in [0, 1]"),
        r"Broken fails with its own draws as data .*: ValueError: Broken takes numbers in \[0, 1\], but",
    ),
    "half of the support": (
        broken(StudentT, support=constraints.positive, check=lambda self, x: None),
        "Broken: expected a ValueError of its check for data with NaN, got none",
    ),
    "blanks": (
        broken(StudentT, fill=lambda self, x: x),
        "Broken fails with data whose blanks its own fill filled: ValueError: Broken takes real numbers",
    ),
    "observed part": (
        broken(StudentT, observed_part=lambda self, p, observed: p),
        r"Broken: expected no log p\(x\|z\) where nothing is observed, 0, got -",
    ),
    "initial values": (
        broken(StudentT, initial_raw=lambda self, x: x.mean(0)),
        r"Broken: expected finite initial_raw of shape \(3, 1\), got",
    ),
    "dtype": (
        broken(StudentT, forward=lambda self, raw: dist.Normal(raw[..., 0], self.log_scale.exp().double()).to_event(1)),
        "Broken: expected torch.float32 on cpu after a move to it, got torch.float64",
    ),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_broken_likelihood(name):
    part, message = LIKELIHOODS[name]
    with pytest.raises(AssertionError, match=message):
        check_likelihood(part)


def test_densities_over_all_kinds_of_support():
    class Half(Likelihood):
        support, accepts = constraints.positive, "positive numbers"
        params_per_element = 2

        def forward(self, raw):
            return dist.LogNormal(raw[..., 0], bounded_exp(raw[..., 1])).to_event(1)

        def fill(self, x):
            return torch.where(x.isnan(), 1.0, x)

    class Share(Half):
        support, accepts = constraints.unit_interval, "numbers in [0, 1]"

        def forward(self, raw):
            return dist.Beta(1 + bounded_exp(raw[..., 0]), 1 + bounded_exp(raw[..., 1])).to_event(1)

    check_likelihood(Half())
    check_likelihood(Share())
    check_likelihood(Categorical, x_dim=2)


def mean_over_batch(self, model, guide, *x):
    return -self.bounds(model, guide, x[0]).mean()


def evaluates(method):
    """Return a method of an objective that computes the bounds, and changes them."""
    return lambda self, model, guide, x: method(Plain.bounds(self, model, guide, x))


class Upper(Plain):
    """log E[1 / w], an upper bound on -log p(x) turned into one on log p(x) by its sign."""

    def bounds(self, model, guide, x):
        z, log_q = draw(guide, x, self.num_particles)
        return -(log_q - log_density(model, x, z)).logsumexp(0) + math.log(self.num_particles) + 5


class Detached(Plain):
    """A gradient that stops at the draws."""

    def bounds(self, model, guide, x):
        z, log_q = draw(guide, x, self.num_particles)
        return (log_density(model, x, {name: value.detach() for name, value in z.items()}) - log_q).mean(0)


class Forgotten(Plain):
    """It leaves gradients where it should only evaluate."""

    def loss(self, model, guide, *x):
        return self.loss_and_grads(model, guide, *x)


class Misnamed(Plain):
    scheduled = ("weight",)


OBJECTIVES = {
    "shape": (broken(Plain, bounds=evaluates(lambda b: b.sum())), "Broken: expected bounds of shape"),
    "mean": (broken(Plain, differentiable_loss=mean_over_batch), "Broken: expected minus the sum of its bounds"),
    "mean of pyro": (
        type("Broken", (Trace_ELBO,), {"loss": lambda self, *a: Trace_ELBO.loss(self, *a) / len(a[2])}),
        "Broken: expected from loss_and_grads what loss gives from the same noise",
    ),
    "no bound": (
        Upper,
        r"Upper: expected in the mean at most log P\(x\), .* nats \(is_bound=False if it is no bound\)",
    ),
    "factor": (broken(Plain, bounds=evaluates(lambda b: 0.5 * b)), r"Broken: expected in the mean at most log P"),
    "gradient": (
        Detached,
        "Detached: expected in the mean the gradient of its loss, .* of the encoder's parameters, got",
    ),
    "gradient twice": (
        broken(Plain, bounds=evaluates(lambda b: 2 * b - b.detach())),
        "Broken: expected in the mean the gradient of its loss",
    ),
    "no gradient": (
        broken(Plain, bounds=evaluates(lambda b: b.detach())),
        "Broken: expected a finite gradient that is not zero for encoder.network.weight, got none",
    ),
    "not finite": (broken(Plain, bounds=evaluates(lambda b: b / 0)), "Broken: expected a finite number from loss"),
    "evaluation": (Forgotten, "Forgotten: expected no gradients from loss, which only evaluates, got gradients"),
    "scheduled": (Misnamed, "Misnamed fails compiled, as training does it: AttributeError: .*weight"),
    "biased": (
        lambda: ImportanceWeightedELBO(4, "stl"),
        r"ImportanceWeightedELBO: expected in the mean the gradient of its loss, .* \(is_unbiased=False if",
    ),
    "weight": (lambda: KLWeightedELBO(0.1), "KLWeightedELBO: expected in the mean at most"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_broken_objective(name):
    part, message = OBJECTIVES[name]
    with pytest.raises(AssertionError, match=message):
        check_objective(part)


def test_a_prior_used_after_the_check_trains():
    prior = StandardNormal(z_dim=2)
    check_prior(prior)
    assert prior().log_prob(torch.zeros(2)).dtype == torch.float32


def test_right_densities_that_are_narrow_or_have_heavy_tails():
    check_prior(Shifted, scale=0.3)
    check_prior(lambda z_dim: Shifted(z_dim, 0.3), z_dim=1)
    check_likelihood(StudentT(df=1.1))
