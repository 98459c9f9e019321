"""Each likelihood against scipy, sums, quadrature, its own samples, and hostile input."""

import math

import jsonargparse
import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from torch import Tensor

from pyro_vae.base import Likelihood
from pyro_vae.likelihoods import (
    Bernoulli,
    BetaBinomial,
    Binomial,
    Categorical,
    Columns,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    Laplace,
    NegativeBinomial,
    Poisson,
    WarpedLogistic,
    bits_per_dimension,
)

DOUBLE = torch.float64
LEVELS = 17
D = 4

CONTINUOUS = {
    "gaussian fixed": lambda: Gaussian(scale=0.5),
    "gaussian shared": lambda: Gaussian(scale="shared"),
    "gaussian per element": lambda: Gaussian(scale="per_element", x_dim=D),
    "gaussian predicted": lambda: Gaussian(scale="predicted"),
    "laplace fixed": lambda: Laplace(scale=0.5),
    "laplace shared": lambda: Laplace(scale="shared"),
    "laplace per element": lambda: Laplace(scale="per_element", x_dim=D),
    "laplace predicted": lambda: Laplace(scale="predicted"),
    "continuous bernoulli": ContinuousBernoulli,
}
DISCRETE = {
    "bernoulli": Bernoulli,
    "discretized logistic": lambda: DiscretizedLogistic(LEVELS),
    "discretized logistic mixture": lambda: DiscretizedLogisticMixture(LEVELS, components=3),
    "categorical": lambda: Categorical(LEVELS),
    "binomial": lambda: Binomial(LEVELS),
    "poisson": Poisson,
    "poisson with exposure": lambda: Poisson(exposure=[0.5, 1.0, 2.0, 4.0]),
    "negative binomial": NegativeBinomial,
    "negative binomial with exposure": lambda: NegativeBinomial(exposure=2.0),
}
MIXED = {
    "columns": lambda: Columns(
        [(1, Gaussian("predicted")), (1, Bernoulli()), (1, Categorical(LEVELS)), (1, NegativeBinomial())]
    )
}


def parts(*groups):
    return pytest.mark.parametrize("make", [pytest.param(make, id=name) for g in groups for name, make in g.items()])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def random_raw(likelihood: Likelihood, *leading: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    """Raw outputs of order one, as a network's."""
    return torch.randn(*leading, D, likelihood.params_per_element, dtype=dtype)


def data_for(likelihood: Likelihood, num: int = 500) -> Tensor:
    """Data that suit the likelihood: what it generates itself, in float32."""
    likelihood = likelihood.float()
    return likelihood(random_raw(likelihood, dtype=torch.float32)).sample((num,))


# --- Densities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("likelihood", "reference"),
    [
        (Gaussian(scale=0.3), lambda x, r: scipy.stats.norm.logpdf(x, r[..., 0], 0.3)),
        (Gaussian("shared"), lambda x, r: scipy.stats.norm.logpdf(x, r[..., 0], 1.001)),
        (Gaussian("per_element", x_dim=D), lambda x, r: scipy.stats.norm.logpdf(x, r[..., 0], 1.001)),
        (Gaussian("predicted"), lambda x, r: scipy.stats.norm.logpdf(x, r[..., 0], 1e-3 + np.exp(r[..., 1]))),
        (Laplace(scale=0.3), lambda x, r: scipy.stats.laplace.logpdf(x, r[..., 0], 0.3 / 2**0.5)),
        (
            Laplace("predicted", min_scale=0.1),
            lambda x, r: scipy.stats.laplace.logpdf(x, r[..., 0], (0.1 + np.exp(r[..., 1])) / 2**0.5),
        ),
        (Binomial(LEVELS), lambda x, r: scipy.stats.binom.logpmf(x, 16, 1 / (1 + np.exp(-r[..., 0])))),
        (Poisson(), lambda x, r: scipy.stats.poisson.logpmf(x, np.exp(r[..., 0]))),
        (
            Poisson(exposure=[0.5, 1.0, 2.0, 4.0]),
            lambda x, r: scipy.stats.poisson.logpmf(x, np.exp(r[..., 0]) * np.array([0.5, 1, 2, 4])),
        ),
        (
            NegativeBinomial(exposure=2.0),
            lambda x, r: scipy.stats.nbinom.logpmf(
                x, np.exp(r[..., 1]), 1 / (1 + 2 * np.exp(r[..., 0]) / np.exp(r[..., 1]))
            ),
        ),
        (
            DiscretizedLogistic(LEVELS),
            lambda x, r: np.log(
                np.where(x < 16, logistic_cdf(x + 0.5, r), 1) - np.where(x > 0, logistic_cdf(x - 0.5, r), 0)
            ),
        ),
        (Categorical(LEVELS), lambda x, r: np.log(np.exp(r) / np.exp(r).sum(-1, keepdims=True))[one_hot(x)]),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, Likelihood) else "",
)
def test_log_prob_equals_scipy(likelihood, reference):
    raw = random_raw(likelihood, 20)
    p = likelihood.double()(raw)
    x = p.sample()
    expected = reference(x.numpy(), raw.numpy()).reshape(20, D).sum(-1)
    np.testing.assert_allclose(p.log_prob(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


def test_mixture_is_the_weighted_sum_of_its_logistics():
    logits, loc, log_scale = random_raw(DiscretizedLogisticMixture(LEVELS, components=3), 20).chunk(3, -1)
    x = torch.randint(0, LEVELS, (20, D), dtype=DOUBLE)
    one = DiscretizedLogistic(LEVELS)
    each = [one(torch.stack([loc[..., c], log_scale[..., c]], -1)).base_dist.log_prob(x).exp() for c in range(3)]
    expected = (logits.softmax(-1) * torch.stack(each, -1)).sum(-1).log().sum(-1)
    mixture = DiscretizedLogisticMixture(LEVELS, components=3)(torch.cat([logits, loc, log_scale], -1))
    torch.testing.assert_close(mixture.log_prob(x), expected, rtol=1e-10, atol=0)


def logistic_cdf(x, raw):
    sd = 0.2 + LEVELS * np.exp(raw[..., 1])
    return scipy.stats.logistic.cdf(x, LEVELS * raw[..., 0] - 0.5, sd * 3**0.5 / np.pi)


def one_hot(x):
    return x[..., None] == np.arange(LEVELS)


@parts(DISCRETE)
def test_probabilities_sum_to_one_and_give_the_mean(make):
    likelihood = make().double()
    raw = random_raw(likelihood, 5)
    bounded = {"Bernoulli": 2, "Poisson": 500, "NegativeBinomial": 30_000}
    num = bounded.get(type(likelihood).__name__, LEVELS)
    if num > LEVELS:  # an infinite support: moderate parameters, so that the tail left out is below 1e-10
        raw = raw.clamp(-1, 2)
    support = torch.arange(num, dtype=DOUBLE).view(-1, 1, 1)
    p = likelihood(raw)
    probabilities = p.base_dist.log_prob(support).exp()
    torch.testing.assert_close(probabilities.sum(0), torch.ones(5, D, dtype=DOUBLE), rtol=0, atol=1e-10)
    torch.testing.assert_close((support * probabilities).sum(0), p.mean, rtol=1e-8, atol=1e-10)


@parts(CONTINUOUS)
def test_densities_integrate_to_one(make):
    likelihood = make().double()
    p = likelihood(random_raw(likelihood)).base_dist
    low, high = (0.0, 1.0) if isinstance(likelihood, ContinuousBernoulli) else (-60.0, 60.0)
    for d in range(D):

        def density(x, d=d):
            return p.log_prob(torch.full((D,), x, dtype=DOUBLE))[d].exp().item()

        total = quad(density, low, high, points=[p.mean[d].item()], epsabs=1e-11, limit=200)[0]
        assert total == pytest.approx(1, abs=1e-9)


@parts(CONTINUOUS, DISCRETE, MIXED)
def test_samples_have_the_mean_of_the_density(make):
    likelihood = make().double()
    p = likelihood(random_raw(likelihood).clamp(-1, 1))
    for draws in (p.sample((20_000,)), p.expand((20_000,)).sample()):
        assert ((draws.mean(0) - p.mean).abs() < 5 * draws.std(0) / len(draws) ** 0.5).all()


CHOSEN_BY_LEVEL = ("discretized logistic", "discretized logistic mixture", "categorical")


@parts(CONTINUOUS, {name: make for name, make in DISCRETE.items() if name not in CHOSEN_BY_LEVEL})
def test_samples_have_the_variance_of_the_density(make):
    likelihood = make().double()
    p = likelihood(random_raw(likelihood).clamp(-1, 1))
    squares = (p.sample((20_000,)) - p.mean).square()
    assert ((squares.mean(0) - p.variance).abs() < 5 * squares.std(0) / len(squares) ** 0.5).all()


@parts(
    {name: DISCRETE[name] for name in CHOSEN_BY_LEVEL},
    {"discretized logistic, narrow": lambda: DiscretizedLogistic(LEVELS, min_scale=0.01)},
)
def test_samples_have_the_probabilities_of_each_level(make):
    likelihood = make().double()
    raw = random_raw(likelihood) * 0.5
    p = likelihood(raw).base_dist
    x = p.sample((20_000,))
    for d in range(D):
        levels = torch.arange(LEVELS, dtype=DOUBLE).unsqueeze(-1).expand(-1, D)
        expected = 20_000 * p.log_prob(levels)[:, d].exp()
        observed = torch.bincount(x[:, d].long(), minlength=LEVELS)
        common = expected > 5
        rest = 20_000 - expected[common].sum()
        statistic = ((observed - expected)[common].square() / expected[common]).sum()
        if rest > 5:
            statistic += (observed[~common].sum() - rest) ** 2 / rest
        assert scipy.stats.chi2.sf(statistic, max(int(common.sum()) - 1, 1)) > 1e-6


@pytest.mark.parametrize("logit", [-300.0, -3.0, -0.05, 0.0, 0.05, 3.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_continuous_bernoulli_samples_follow_its_distribution_function(logit, dtype):
    p = ContinuousBernoulli()(torch.full((1, 1), logit, dtype=dtype))
    x = p.sample((5_000,)).squeeze(-1).double().numpy()

    def cdf(x):
        return x if logit == 0 else np.expm1(-abs(logit) * x) / np.expm1(-abs(logit))

    assert scipy.stats.kstest(1 - x if logit > 0 else x, cdf).pvalue > 1e-6


# --- Bernoulli, summed over groups of elements ----------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])  # of the logits: products of four sigmoids underflow above 20
@pytest.mark.parametrize("size", [1, 3, 4, 7, 50])
def test_bernoulli_sums_without_underflow(size, scale):
    torch.manual_seed(0)
    logits = (scale * torch.randn(6, 5, size)).requires_grad_()
    x = torch.rand(5, size).round()
    exact = logits.detach().double().requires_grad_()
    expected = -F.binary_cross_entropy_with_logits(exact, x.double().expand(6, 5, size), reduction="none").sum(-1)
    likelihood = Bernoulli()
    for p in (likelihood(logits.detach().unsqueeze(-1)), likelihood(logits.unsqueeze(-1))):
        torch.testing.assert_close(p.log_prob(x).double(), expected, rtol=1e-6, atol=1e-6 * size)
    weight = torch.randn(6, 5)
    (gradient,) = torch.autograd.grad((weight * likelihood(logits.unsqueeze(-1)).log_prob(x)).sum(), logits)
    (exact_gradient,) = torch.autograd.grad((weight.double() * expected).sum(), exact)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-5, atol=1e-6)


def test_bernoulli_passes_on_what_is_not_a_number():
    logits = torch.tensor([[0.0, 1.0, torch.nan, 2.0], [0.0, 1.0, -torch.inf, 2.0], [0.0, 1.0, torch.inf, 2.0]])
    x = torch.ones(4)
    nan, impossible, certain = torch.ops.pyro_vae.sum_log_prob_bernoulli(logits, x)
    assert nan.isnan()
    assert impossible == -torch.inf
    assert certain == pytest.approx(float(F.logsigmoid(torch.tensor([0.0, 1.0, 2.0])).sum()))


# --- ContinuousBernoulli near logits 0 ------------------------------------------------------------------------


def log_normalizer_series(h: float, terms: int = 60) -> tuple[float, float]:
    """log(sinh h / h) and its derivative, from the product sinh h / h = prod (1 + h^2 / (n pi)^2), for |h| < 2."""
    value = slope = 0.0
    for k in range(1, terms):
        coefficient = (-1) ** (k + 1) * scipy.special.zeta(2 * k) / (k * math.pi ** (2 * k))
        value += coefficient * h ** (2 * k)
        slope += 2 * k * coefficient * h ** (2 * k - 1)
    return value, slope


@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-14), (torch.float32, 3e-6)])
def test_continuous_bernoulli_near_one_half(dtype, tolerance):
    magnitudes = [0.0, 1e-30, 1e-12, 1e-6, 1e-4, 1e-3, 0.0099, 0.0999, 0.1, 0.1001, 0.2, 0.5, 1.0, 2.0]
    for eta in [sign * m for m in magnitudes for sign in (-1, 1)]:
        logits = torch.tensor([[eta]], dtype=dtype, requires_grad=True)
        exact_eta = logits.item()
        value, slope = log_normalizer_series(exact_eta / 2)
        for x in (0.0, 0.25, 0.5, 1.0):
            p = ContinuousBernoulli()(logits)
            log_prob = p.log_prob(torch.tensor([x], dtype=dtype))
            (gradient,) = torch.autograd.grad(log_prob, logits)
            assert log_prob.item() == pytest.approx(exact_eta * (x - 0.5) - value, abs=tolerance)
            assert gradient.item() == pytest.approx(x - 0.5 - slope / 2, abs=tolerance)
            assert p.mean.item() == pytest.approx(0.5 + slope / 2, abs=tolerance)


@pytest.mark.parametrize("eta", [-1e4, -500.0, -30.0, -2.0, 2.0, 30.0, 500.0, 1e4])
def test_continuous_bernoulli_far_from_one_half(eta):
    # With t the distance from the favoured end, p = a exp(-a t) / (1 - exp(-a)), a = |eta|.
    a = abs(eta)
    for x in (0.0, 0.3, 1.0):
        t = 1 - x if eta > 0 else x
        logits = torch.tensor([[eta]], dtype=DOUBLE, requires_grad=True)
        p = ContinuousBernoulli()(logits)
        log_prob = p.log_prob(torch.tensor([x], dtype=DOUBLE))
        (gradient,) = torch.autograd.grad(log_prob, logits)
        slope = (-t + 1 / a + math.exp(-a) / math.expm1(-a)) * eta / a
        assert log_prob.item() == pytest.approx(-a * t + math.log(a) - math.log1p(-math.exp(-a)), rel=1e-13, abs=1e-13)
        assert gradient.item() == pytest.approx(slope, rel=1e-12, abs=1e-13)


def test_continuous_bernoulli_variance_is_the_slope_of_its_mean():
    logits = torch.tensor([-400.0, -5.0, -0.1001, -0.0999, 0.0, 0.05, 1.0, 50.0], dtype=DOUBLE, requires_grad=True)
    p = ContinuousBernoulli()(logits.unsqueeze(-1))
    (slope,) = torch.autograd.grad(p.mean.sum(), logits)
    torch.testing.assert_close(p.variance, slope, rtol=1e-10, atol=1e-12)


# --- Shapes, extremes, gradients ------------------------------------------------------------------------------


@parts(CONTINUOUS, DISCRETE, MIXED)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_leading_dimensions(make, dtype):
    likelihood = make().to(dtype)
    raw = random_raw(likelihood, 3, 2, dtype=dtype)  # (K, B, D, P)
    p = likelihood(raw)
    assert (p.batch_shape, p.event_shape) == ((3, 2), (D,))
    x = p.sample()[0]  # (B, D)
    assert x.dtype == p.mean.dtype == dtype
    assert p.mean.shape == (3, 2, D)
    assert p.sample((5,)).shape == (5, 3, 2, D)
    assert p.expand((5, 3, 2)).sample().shape == (5, 3, 2, D)
    one_by_one = torch.stack([likelihood(raw[k]).log_prob(x) for k in range(3)])
    torch.testing.assert_close(p.log_prob(x), one_by_one)
    torch.testing.assert_close(p.expand((5, 3, 2)).log_prob(x), one_by_one.expand(5, 3, 2))
    torch.testing.assert_close(likelihood(raw[0, 0]).log_prob(x)[0], one_by_one[0, 0])


@parts(CONTINUOUS, DISCRETE, MIXED)
@pytest.mark.parametrize("size", [1e2, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_extreme_outputs_stay_finite(make, size, dtype):
    likelihood = make().to(dtype)
    signs = torch.randint(-1, 2, (200, D, likelihood.params_per_element))
    raw = (size * signs).to(dtype).requires_grad_()
    p = likelihood(raw)
    for x in data_for(make(), 5).to(dtype):
        log_prob = p.log_prob(x)
        gradients = torch.autograd.grad(log_prob.sum(), [raw, *likelihood.parameters()], retain_graph=True)
        assert all(torch.isfinite(t).all() for t in [log_prob, *gradients])
    assert torch.isfinite(p.mean).all()
    assert torch.isfinite(p.sample()).all()


@parts(CONTINUOUS, DISCRETE, MIXED)
def test_gradients_are_those_of_the_density(make):
    likelihood = make().double()
    raw = random_raw(likelihood, 3).requires_grad_()
    x = likelihood(raw.detach()).sample()
    assert torch.autograd.gradcheck(lambda raw: likelihood(raw).log_prob(x), raw)
    likelihood(raw).log_prob(x).sum().backward()
    assert all((parameter.grad != 0).all() for parameter in likelihood.parameters())


@parts({name: make for name, make in CONTINUOUS.items() if make is not ContinuousBernoulli})
def test_the_scale_is_bounded_from_below(make):
    likelihood = make().double()
    if likelihood.log_scale is not None:
        likelihood.log_scale.data.fill_(-1e4)
    p = likelihood(torch.full((D, likelihood.params_per_element), -1e4, dtype=DOUBLE))
    expected = 0.5 if likelihood.fixed_scale else 1e-3
    torch.testing.assert_close(p.variance.sqrt(), torch.full((D,), expected, dtype=DOUBLE), rtol=1e-3, atol=0)


@parts(DISCRETE, {"continuous bernoulli": ContinuousBernoulli}, MIXED)
def test_values_outside_the_support_are_refused(make):
    likelihood = make()
    p = likelihood(random_raw(likelihood, dtype=torch.float32))
    for bad in (-1.0, 0.3 if not isinstance(likelihood, ContinuousBernoulli) else 1.3):
        with pytest.raises(ValueError, match="within the support"):
            p.log_prob(torch.full((D,), bad))


# --- Checks of the data and starting values -------------------------------------------------------------------


@parts(CONTINUOUS, DISCRETE, MIXED)
def test_check_accepts_what_the_likelihood_generates(make):
    likelihood = make()
    likelihood.check(data_for(likelihood))
    assert likelihood.support.check(data_for(likelihood)).all()


@pytest.mark.parametrize(
    ("likelihood", "value", "words"),
    [
        (ContinuousBernoulli(), 3.0, ["values from 0 to 1", "Categorical"]),
        (ContinuousBernoulli(), -0.7, ["values from 0 to 1", "Gaussian"]),
        (Categorical(LEVELS), 17.0, ["whole numbers from 0 to 16", "Poisson"]),
        (DiscretizedLogistic(LEVELS), 0.5, ["whole numbers from 0 to 16", "ContinuousBernoulli"]),
        (DiscretizedLogisticMixture(LEVELS), -2.0, ["whole numbers from 0 to 16", "Gaussian"]),
        (Binomial(LEVELS), 0.25, ["whole numbers from 0 to 16", "ContinuousBernoulli"]),
        (Poisson(), 0.5, ["counts", "ContinuousBernoulli"]),
        (NegativeBinomial(), -1.5, ["counts", "Gaussian"]),
        (Gaussian(), math.nan, ["real numbers", "not finite"]),
        (Laplace(), math.nan, ["real numbers", "not finite"]),
        (Columns([(1, Gaussian()), (3, Bernoulli())]), 0.5, ["columns 1 to 3", "Bernoulli", "ContinuousBernoulli"]),
        (Columns([(1, Gaussian()), (2, Bernoulli())]), 0.0, ["[1, 2]", "3 in all", "4"]),
    ],
)
def test_check_refuses_in_one_line_that_names_the_way_out(likelihood, value, words):
    x = torch.zeros(10, D)
    x[3, 2] = value
    with pytest.raises(ValueError) as error:  # noqa: PT011
        likelihood.check(x)
    message = str(error.value)
    assert "\n" not in message
    assert type(likelihood).__name__ in message or message.startswith("columns")
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Gaussian(scale="free"), "'free'"),
        (lambda: Gaussian(scale=0.0), "0.0"),
        (lambda: Laplace(scale="per_element"), "x_dim"),
        (lambda: Gaussian(min_scale=0.0), "min_scale"),
        (lambda: Poisson(exposure=[1.0, 0.0]), "exposure"),
        (lambda: Categorical(None), "levels must be"),
        (lambda: DiscretizedLogistic(1), "levels must be"),
        (lambda: Columns([]), "groups"),
        (lambda: Columns([(0, Gaussian())]), "groups"),
    ],
)
def test_wrong_options_are_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()


@parts(CONTINUOUS, DISCRETE, MIXED)
def test_initial_outputs_give_the_means_of_the_data(make):
    likelihood = make()
    x = data_for(likelihood, 2_000)
    raw = likelihood.initial_raw(x)
    assert raw.shape == (D, likelihood.params_per_element)
    assert raw.dtype == x.dtype
    # Rounding a logistic and clamping it to the levels moves its mean somewhat; clamping logits, a hundredth.
    slack = 0.3 * (x.std(0) + 1) if "Logistic" in type(likelihood).__name__ else 0.01 * (1 + x.abs().max(0).values)
    assert ((likelihood(raw).mean - x.mean(0)).abs() <= slack).all()


def test_categorical_starts_at_the_frequencies():
    x = torch.tensor([[0.0, 2.0], [0.0, 1.0], [3.0, 2.0]], dtype=DOUBLE)
    counts = torch.tensor([[2.0, 0.0, 0.0, 1.0], [0.0, 1.0, 2.0, 0.0]], dtype=DOUBLE)
    torch.testing.assert_close(Categorical(4).initial_raw(x).exp(), (counts + 1 / 4) / 4)


@parts(CONTINUOUS, DISCRETE, MIXED)
def test_initial_outputs_survive_constant_columns(make):
    likelihood = make()
    raw = likelihood.initial_raw(torch.zeros(10, D))
    assert torch.isfinite(raw).all()
    assert torch.isfinite(likelihood(raw).log_prob(torch.zeros(D)))


@pytest.mark.parametrize("family", [Gaussian, Laplace])
@pytest.mark.parametrize("scale", ["shared", "per_element", "predicted"])
def test_a_scale_starts_at_the_spread_of_the_data(family, scale):
    sd = torch.tensor([0.1, 0.5, 1.0, 3.0])
    x = 5 + sd * torch.randn(2_000, D)
    likelihood = family(scale=scale, x_dim=D)
    likelihood.initialize(x)
    found = likelihood(likelihood.initial_raw(x)).variance.sqrt()
    expected = x.var(0).mean().sqrt().expand(D) if scale == "shared" else x.std(0)
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0)


SIZES = [1e-3, 1.0, 148.0, 1e3, 1e6, 1e9]
REAL = {
    **{name: make for name, make in CONTINUOUS.items() if "fixed" not in name and "bernoulli" not in name},
    "warped logistic": lambda: WarpedLogistic(D),
}
COUNTS = {name: make for name, make in DISCRETE.items() if "poisson" in name or "negative" in name}
GREY = {
    "discretized logistic": DiscretizedLogistic,
    "discretized logistic mixture": DiscretizedLogisticMixture,
    "binomial": Binomial,
    "beta binomial": BetaBinomial,
}


@pytest.mark.parametrize("size", SIZES)
@parts(REAL)
def test_the_start_fits_real_numbers_of_any_size(make, size):
    x = size * torch.randn(2_000, D)
    likelihood = make()
    likelihood.min_scale = min(likelihood.min_scale, 1e-2 * size)
    likelihood.initialize(x)
    p = likelihood(likelihood.initial_raw(x))
    assert ((p.mean - x.mean(0)).abs() < 0.1 * size).all()
    torch.testing.assert_close(p.variance.sqrt().expand(D), x.std(0), rtol=0.1, atol=0)


@pytest.mark.parametrize("size", SIZES)
@parts(COUNTS)
def test_the_start_fits_counts_of_any_size(make, size):
    x = torch.poisson(torch.full((2_000, D), size))
    likelihood = make()
    likelihood.initialize(x)
    mean = likelihood(likelihood.initial_raw(x)).mean
    torch.testing.assert_close(mean, x.mean(0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("levels", [3, 256, 65_536])
@pytest.mark.parametrize("family", GREY.values(), ids=GREY)
def test_the_start_fits_any_number_of_levels(family, levels):
    x = torch.randint(levels // 3, levels - levels // 3, (2_000, D)).float()
    likelihood = family(levels)
    likelihood.initialize(x)
    raw = likelihood.initial_raw(x)
    torch.manual_seed(0)
    mean = likelihood(raw).sample((2_000,)).mean(0)
    assert ((mean - x.mean(0)).abs() < 0.1 * levels).all()


def test_negative_binomial_starts_at_the_spread_of_the_data():
    x = torch.distributions.NegativeBinomial(torch.tensor([0.5, 2.0, 20.0]), logits=torch.zeros(3)).sample((20_000,))
    likelihood = NegativeBinomial(exposure=3.0)
    torch.testing.assert_close(likelihood(likelihood.initial_raw(x)).variance, x.var(0), rtol=1e-3, atol=0)


def test_columns_is_the_product_of_its_groups():
    gaussian, negative_binomial = Gaussian("predicted"), NegativeBinomial()
    likelihood = Columns([(3, gaussian), (1, Bernoulli()), (2, negative_binomial)], packed=True)
    assert likelihood.params_per_element == 2
    assert likelihood.is_density
    assert not Columns([(1, Bernoulli(grey=True)), (1, Gaussian())]).is_density
    raw = torch.randn(5, 6, 2)
    x = likelihood(raw).sample()
    outputs = raw.flatten(1)  # row by row, of which the last is left over
    expected = (
        gaussian(outputs[:, :6].view(5, 3, 2)).log_prob(x[:, :3])
        + Bernoulli()(outputs[:, 6:7].view(5, 1, 1)).log_prob(x[:, 3:4])
        + negative_binomial(outputs[:, 7:11].view(5, 2, 2)).log_prob(x[:, 4:])
    )
    torch.testing.assert_close(likelihood(raw).log_prob(x), expected)
    assert likelihood(raw).support.check(x).all()


def test_a_column_with_many_categories_makes_the_decoder_no_wider_for_the_others():
    likelihood = Columns([(98, Gaussian()), (1, Categorical(500)), (1, Bernoulli())], packed=True)
    assert 98 + 500 + 1 <= 100 * likelihood.params_per_element < 98 + 500 + 1 + 100
    x = torch.cat([torch.randn(50, 98), torch.randint(500, (50, 1)), torch.randint(2, (50, 1))], -1)
    p = likelihood(likelihood.initial_raw(x))
    torch.testing.assert_close(p.mean, x.mean(0), rtol=0.01, atol=0.01)


def test_the_command_line_can_name_the_groups_of_columns():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Likelihood, "likelihood")
    groups = "[[3, {class_path: Gaussian, init_args: {scale: 0.5}}], [2, Bernoulli], [1, Gaussian]]"
    config = parser.parse_args(["--likelihood=Columns", f"--likelihood.groups={groups}"]).likelihood
    names = [(width, part.class_path, part.init_args.get("scale")) for width, part in config.init_args.groups]
    gaussian, bernoulli = "pyro_vae.likelihoods.Gaussian", "pyro_vae.likelihoods.Bernoulli"
    assert names == [(3, gaussian, 0.5), (2, bernoulli, None), (1, gaussian, "shared")]


# --- Stability of the discretized logistic --------------------------------------------------------------------


def test_discretized_logistic_keeps_the_tails_that_subtraction_loses():
    # Location at the first of 256 levels, scale of 3 levels: level 255 is 85 scales away, exp(-85) in float32.
    sd = 3 * math.pi / 3**0.5
    raw = torch.tensor([[0.5 / 256, math.log((sd - 0.2) / 256)]])
    log_prob = DiscretizedLogistic(256)(raw).log_prob(torch.tensor([200.0])).item()
    width = math.log(-math.expm1(-1 / 3))
    assert log_prob == pytest.approx(-199.5 / 3 + width, rel=1e-5)  # the subtraction in float32 gives log 0


# --- Bits per dimension ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("likelihood", "raw", "levels"),
    [
        (Categorical(LEVELS), torch.zeros(D, LEVELS), None),
        (ContinuousBernoulli(), torch.zeros(D, 1), LEVELS),
        (
            # One narrow logistic in the middle of each level.
            DiscretizedLogisticMixture(LEVELS, components=LEVELS, min_scale=1e-3),
            torch.cat([torch.zeros(LEVELS), (torch.arange(LEVELS) + 0.5) / LEVELS, torch.full((LEVELS,), -100.0)])
            .double()
            .expand(D, -1),
            None,
        ),
        (Columns([(1, Categorical(LEVELS)), (3, Categorical(LEVELS))]), torch.zeros(D, LEVELS), None),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, Likelihood) else "",
)
def test_bits_per_dimension_of_uniform_levels(likelihood, raw, levels):
    x = torch.randint(0, LEVELS, (10, D), dtype=DOUBLE)
    if levels is not None:
        x = (x + torch.rand_like(x)) / levels
    bits = bits_per_dimension(likelihood(raw.double()).log_prob(x), D, levels)
    torch.testing.assert_close(bits, torch.full((10,), math.log2(LEVELS), dtype=DOUBLE), rtol=1e-10, atol=0)
