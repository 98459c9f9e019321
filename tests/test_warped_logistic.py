"""The warped logistic against sums, quadrature and its own draws, at any unit and any tail."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from pyro.infer import Trace_ELBO
from scipy.integrate import fixed_quad, quad

from pyro_vae import VAE
from pyro_vae.distributions.marginals import find_bends, find_layout, fit_knots, fit_warp, log_marginal
from pyro_vae.encoders import DiagonalNormal
from pyro_vae.likelihoods import Bernoulli, Categorical, Columns, Gaussian, WarpedLogistic
from pyro_vae.networks import mlp
from pyro_vae.priors import StandardNormal
from tests.test_compiled import require_same

SHAPES = {
    "normal": lambda r, n: r.normal(size=n),
    "bimodal": lambda r, n: r.normal(np.where(r.random(n) < 0.5, -2, 2), 0.3),
    "lognormal": lambda r, n: np.exp(r.normal(size=n)),
    "uniform": lambda r, n: r.random(n),
    "cauchy": lambda r, n: r.standard_cauchy(n),
    "constant": lambda r, n: np.full(n, 3.0),
}
GRIDS = {  # values, step, low, high
    "counts": (lambda r, n: r.poisson(3, n), 1.0, 0.0, None),
    "many counts": (lambda r, n: r.geometric(0.02, n) - 1, 1.0, 0.0, None),
    "grades": (lambda r, n: r.choice([0, 1, 3], n, p=[0.2, 0.7, 0.1]), 1.0, 0.0, 4.0),
    "two decimals": (lambda r, n: np.round(r.normal(size=n), 2), 0.01, None, None),
    "sixty percent zeros": (lambda r, n: np.where(r.random(n) < 0.6, 0, r.poisson(9, n)), 0.25, None, None),
    "zeros and ones": (lambda r, n: r.random(n) < 0.3, 1.0, 0.0, 1.0),
    "tenths": (lambda r, n: 0.1 * r.integers(3, 40, n), 0.1, 0.3, 3.9),
    "capped": (lambda r, n: np.minimum(r.geometric(0.05, n), 30), 1.0, None, 30.0),
}


@pytest.fixture(autouse=True)
def _float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def fitted(values, step=None, low=None, high=None, unit=1.0, **options):
    """Return the likelihood of one column that has seen these values."""
    likelihood = WarpedLogistic(units=[unit], steps=[step], lows=[low], highs=[high], **options)
    likelihood.initialize(torch.from_numpy(np.asarray(values, dtype=float)).unsqueeze(-1))
    return likelihood


def at(likelihood, loc=0.0, scale=1.0):
    """Return p(x|z) of one column, for a location and a scale on the warped scale."""
    return likelihood(torch.tensor([[loc, math.log(scale - likelihood.min_scale)]]))


def density(p, *x):
    return p.log_prob(torch.tensor(x, dtype=torch.float64).unsqueeze(-1)).exp()


PARAMETERS = [(0.0, 1.0), (-2.0, 0.3), (1.5, 0.05), (4.0, 2.0)]


@pytest.mark.parametrize(("loc", "scale"), PARAMETERS)
@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "constant"])
def test_densities_integrate_to_one(shape, loc, scale):
    p = at(fitted(SHAPES[shape](np.random.default_rng(0), 500)), loc, scale)
    warp = p.base_dist.warp
    ends = torch.cat(
        [loc + scale * torch.linspace(-35, 35, 141), warp.levels.flatten()]
    ).unique()  # on the warped scale
    ends = warp.inverse(ends.unsqueeze(-1)).flatten().tolist()
    pieces = [fixed_quad(lambda x: density(p, *x).numpy(), a, b, n=20)[0] for a, b in itertools.pairwise(ends)]
    assert sum(pieces) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("loc", "scale"), PARAMETERS)
@pytest.mark.parametrize("grid", GRIDS)
def test_probabilities_sum_to_one(grid, loc, scale):
    draw, step, low, high = GRIDS[grid]
    p = at(fitted(draw(np.random.default_rng(0), 500), step, low, high), loc, scale)
    first = -40_000 if low is None else round(low / step)
    last = 40_000 if high is None else round(high / step)
    x = step * torch.arange(first, last + 1)
    cells = p.base_dist.warp.cells(x[[0, -1]].unsqueeze(-1))
    below, above = (-loc + cells.lower[0]) / scale, (loc - (cells.lower + cells.width)[1]) / scale
    beyond = below.sigmoid() * ~cells.below[0] + above.sigmoid() * ~cells.above[1]
    assert beyond < 1e-3
    assert (density(p, *x.tolist()).sum() * step + beyond).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("shape", ["normal", "bimodal", "lognormal", "uniform", "cauchy"])
def test_at_location_0_and_scale_1_it_is_the_smoothed_marginal(shape):
    values = SHAPES[shape](np.random.default_rng(0), 4000)
    warp = at(fitted(values)).base_dist.warp
    for level in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98):
        x = warp.inverse(torch.tensor([level]).logit()).item()
        assert (values < x).mean() == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / len(values)))


@pytest.mark.parametrize("grid", GRIDS)
def test_frequent_values_start_with_their_share(grid):
    draw, step, low, high = GRIDS[grid]
    values = draw(np.random.default_rng(0), 2000)
    p = at(fitted(values, step, low, high))
    for value, count in zip(*np.unique(values, return_counts=True), strict=True):
        if count > 0.1 * len(values):
            assert (density(p, value) * step).item() == pytest.approx(count / len(values), abs=0.02)


def test_values_that_repeat_have_a_probability_also_without_a_grid():
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(size=5000))
    values = np.where(rng.random(5000) < 0.6, 0.0, values.clip(max=3.0))
    shares = [(values == 0).mean(), (values == 3).mean()]
    p = at(fitted(values, unit=1e5))
    torch.testing.assert_close(density(p, 0.0, 3.0), torch.tensor(shares), atol=0.01, rtol=0)
    x = p.sample((5000,))
    torch.testing.assert_close(
        (x == torch.tensor([0.0, 3.0])).double().mean(0), torch.tensor(shares), atol=0.03, rtol=0
    )
    assert scipy.stats.ks_2samp(x.flatten(), values).pvalue > 0.01


def test_a_bound_without_a_grid_has_the_probability_of_all_that_is_beyond():
    values = np.random.default_rng(0).normal(size=500).clip(min=-0.5)
    p = at(fitted(values, low=-0.5))
    share = (values == -0.5).mean()
    assert density(p, -0.5).item() == pytest.approx(share, abs=0.02)
    assert p.sample((1000,)).min() == -0.5
    rest = quad(lambda x: density(p, x).item(), -0.499, 40, limit=2000, points=[0, 1, 2, 3])[0]
    assert rest + density(p, -0.5).item() == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize(("loc", "scale"), PARAMETERS)
@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "constant"])
def test_draws_follow_the_density(shape, loc, scale):
    p = at(fitted(SHAPES[shape](np.random.default_rng(0), 300)), loc, scale)
    x = p.sample((4000,))
    cells = p.base_dist.warp.cells(x)
    assert scipy.stats.kstest(((cells.lower.flatten() - loc) / scale).sigmoid(), "uniform").pvalue > 1e-3
    warped = p.base_dist.warp.inverse(cells.lower)
    torch.testing.assert_close(warped, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loc", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize("grid", GRIDS)
def test_draws_lie_on_the_grid_and_within_the_bounds(grid, loc):
    draw, step, low, high = GRIDS[grid]
    likelihood = fitted(draw(np.random.default_rng(0), 500), step, low, high)
    p = at(likelihood, loc)
    x = p.sample((2000,))
    likelihood.check(x)
    likelihood.check(x.float())
    values, counts = x.unique(return_counts=True)
    masses = density(p, *values.tolist()) * step
    often = counts > 50
    torch.testing.assert_close(counts[often] / len(x), masses[often], rtol=0.5, atol=0.03, check_dtype=False)


@pytest.mark.parametrize("factor", [1e-9, 1e-3, 1e3, 1e9])
@pytest.mark.parametrize("name", [*SHAPES, *GRIDS])
def test_another_unit_changes_densities_by_its_jacobian_alone(name, factor):
    draw, step, low, high = GRIDS.get(name, (SHAPES.get(name), None, None, None))
    x = draw(np.random.default_rng(0), 300).astype(float)
    raw = torch.tensor([[0.3, -1.0]])

    def log_prob(unit, shift=0.0):
        """Return log p of a table in another unit, which its schema standardises."""
        moved = [None if bound is None else bound + shift for bound in (low, high)]
        likelihood = fitted(x + shift, step, *moved, unit=unit)
        return likelihood(raw).log_prob(torch.from_numpy(x + shift).unsqueeze(-1))

    jacobian = 0.0 if name == "constant" else math.log(factor)  # what repeats, without a grid, has a probability
    torch.testing.assert_close(log_prob(factor), log_prob(1.0) - jacobian, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_prob(1.0, shift=16.0), log_prob(1.0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_fits_data_of_any_size(shape, factor):
    x = SHAPES[shape](np.random.default_rng(0), 300)
    small, large = (fitted(values)(torch.zeros(1, 2)) for values in (x, x * factor))
    jacobian = 0.0 if shape == "constant" else math.log(factor)
    expected = small.log_prob(torch.from_numpy(x).unsqueeze(-1)) - jacobian
    torch.testing.assert_close(
        large.log_prob(torch.from_numpy(x * factor).unsqueeze(-1)), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*SHAPES, *GRIDS])
def test_values_and_gradients_are_finite_far_out(name, dtype):
    draw, step, low, high = GRIDS.get(name, (SHAPES.get(name), None, None, None))
    small = [fact and 1e-3 * fact for fact in (step, low, high)]
    likelihood = fitted(1e-3 * draw(np.random.default_rng(0), 300), *small).to(dtype)
    x = torch.tensor([-1e18, -1e3, -1.0, 0.0, 1.0, 1e3, 1e18], dtype=dtype)
    x = likelihood.support.clamp(x)
    locs = torch.tensor([-1e3, -30.0, 0.0, 30.0, 1e3], dtype=dtype)
    raw = torch.cartesian_prod(locs, torch.tensor([-30.0, 0.0, 30.0], dtype=dtype)).view(-1, 1, 1, 2).requires_grad_()
    p = likelihood(raw)
    log_prob = p.log_prob(x.unsqueeze(-1))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert raw.grad.isfinite().all()
    assert all(tensor.isfinite().all() for tensor in (p.sample((100,)), p.mean, p.variance))


@pytest.mark.parametrize("grid", GRIDS)
def test_float32_gives_what_float64_gives(grid):
    draw, step, low, high = GRIDS[grid]
    values = np.unique(draw(np.random.default_rng(0), 500))
    likelihood = fitted(values, step, low, high)
    raw = torch.tensor([[0.3, -1.0]])
    x = torch.from_numpy(values).double().unsqueeze(-1)
    exact = likelihood(raw).log_prob(x)
    rounded = likelihood.float()(raw.float()).log_prob(x.float())
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-4, atol=1e-4)


def test_a_fine_grid_is_a_density():
    x = np.random.default_rng(0).normal(size=500)
    likelihood, x = fitted(x.round(6), 1e-6), torch.linspace(-2, 2, 41).unsqueeze(-1)
    fine = at(likelihood).log_prob(x)
    likelihood.warp_step.zero_()
    torch.testing.assert_close(fine, at(likelihood).log_prob(x), rtol=1e-5, atol=1e-5)


def test_a_grid_finer_than_float32_keeps_the_share_of_frequent_values():
    rng = np.random.default_rng(0)
    cents = np.where(rng.random(2000) < 0.6, 0, (1e6 * rng.lognormal(size=2000)).round())
    likelihood = fitted(cents * 1e-7, 1e-7, unit=1e5).float()  # of a dollar
    p = at(likelihood)
    x = torch.from_numpy(cents * 1e-7).float().unsqueeze(-1)
    likelihood.check(x)
    log_prob = p.log_prob(x)
    assert log_prob.isfinite().all()
    assert (log_prob[x[:, 0] == 0].exp() * 0.01).mean().item() == pytest.approx(0.6, abs=0.03)
    assert (p.sample((2000,)) == 0).double().mean().item() == pytest.approx(0.6, abs=0.05)


def test_outliers_take_no_detail_from_the_rest():
    x = np.random.default_rng(0).normal(size=1000)
    new = torch.randn(5000, 1)
    plain, spoiled = (at(fitted(values)).log_prob(new).mean() for values in (x, [*x, -1e6, 1e6]))
    assert spoiled > plain - 0.05


def test_draws_stay_within_bounds_closer_than_float32_tells_apart():
    likelihood = fitted([435.0], 1e-5, 435 - 1e-5, 435 + 4e-5).float()
    x = likelihood(torch.randn(1000, 1, 2, dtype=torch.float32)).sample()
    likelihood.check(x)


@pytest.mark.parametrize("spread", [1e-12, 1e-8, 1e-5])
def test_values_closer_than_float32_tells_apart_have_no_density_beyond_that(spread):
    x = np.concatenate([1 + spread * np.random.default_rng(0).normal(size=500), np.linspace(-3, 3, 50)])
    likelihood = fitted(x)
    assert at(likelihood).log_prob(torch.from_numpy(x).unsqueeze(-1)).max() < -math.log(1e-6)
    likelihood.float()
    near = 1 + torch.arange(-50, 51, dtype=torch.float32) * 2**-23
    for values in (torch.from_numpy(x).float(), near):
        assert at(likelihood).log_prob(values.unsqueeze(-1)).isfinite().all()
    assert at(likelihood).sample((500,)).isfinite().all()


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (1.0, 0.3), (-2.0, 0.1)])
@pytest.mark.parametrize("shape", ["normal", "bimodal", "uniform"])
def test_mean_and_variance(shape, loc, scale):
    p = at(fitted(SHAPES[shape](np.random.default_rng(0), 500)), loc, scale)
    q = p.base_dist.warp.inverse(loc + scale * ((torch.arange(200_000) + 0.5) / 200_000).logit().unsqueeze(-1))
    sd = q.std()
    assert abs(p.mean.item() - q.mean()) < 0.01 * sd
    assert p.variance.item() == pytest.approx(q.var().item(), rel=0.02)


@pytest.mark.parametrize("shape", ["normal", "bimodal", "lognormal"])
def test_as_many_knots_as_held_out_data_ask_for(shape):
    rng = np.random.default_rng(0)
    x, new = (SHAPES[shape](rng, n) for n in (300, 5000))
    warp, layout = fit_warp(x, 0.0, -math.inf, math.inf, 32), find_layout(x, 0.0, -math.inf, math.inf)
    straight = find_bends(x, layout)[0]
    warps = [warp, *(fit_knots(np.sort(x), layout, *straight, size) for size in (1, 32))]
    chosen, least, most = (log_marginal(w, torch.from_numpy(new).unsqueeze(-1)).mean() for w in warps)
    assert chosen > most
    assert chosen > least or (shape == "normal" and chosen > least - 0.01)


def test_blanks_are_left_out():
    x = torch.randn(100, 2).round(decimals=1)
    x[:, 1] += 5
    with_blanks = torch.stack(
        [torch.cat([c, torch.full((50 * (i + 1),), math.nan)])[:150] for i, c in enumerate(x.T)], -1
    )
    one, other = WarpedLogistic(2), WarpedLogistic(2)
    one.initialize(x)
    other.initialize(with_blanks)
    for name, buffer in one.state_dict().items():
        torch.testing.assert_close(buffer, other.state_dict()[name], equal_nan=True)


def test_groups_of_columns_see_the_blanks():
    x = torch.randn(200, 3)
    x[torch.rand(200, 3) < 0.9] = math.nan
    likelihood = Columns([(1, Gaussian()), (2, WarpedLogistic(2))])
    vae = VAE(
        prior=StandardNormal(2),
        encoder=DiagonalNormal(mlp(3, [4], 4)),
        decoder=mlp(2, [4], (3, 2)),
        likelihood=likelihood,
        missing=True,
    )
    vae.initialize(x)
    assert (likelihood.likelihoods[1].warp_bins[..., 6] == 0).all()  # no value repeats, unless blanks are filled


def test_a_compiled_training_is_the_training():
    steps = [0.5, None, 1.0]
    likelihood = Columns(
        [(3, WarpedLogistic(steps=steps, lows=[None, None, 0.0])), (1, Bernoulli()), (1, Categorical(4))]
    )
    x = torch.stack([torch.randn(64).mul(2).round() / 2, torch.randn(64), torch.randn(64).abs().round()], -1)
    x = torch.cat([x, torch.randint(2, (64, 1)), torch.randint(4, (64, 1))], -1)
    decoder = mlp(2, [8], (5, likelihood.params_per_element))
    vae = VAE(prior=StandardNormal(2), encoder=DiagonalNormal(mlp(5, [8], 4)), decoder=decoder, likelihood=likelihood)
    vae.initialize(x)
    elbo = require_same(Trace_ELBO(max_plate_nesting=1), vae.model, vae.guide, (x,), (x[:7],))
    assert elbo.traces == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected x_dim, the number of columns"),
        ({"x_dim": 2, "units": [1.0]}, "got x_dim=2 and 1 units"),
        ({"units": [0.0]}, "units must be positive, not"),
        ({"steps": [-1.0]}, "steps must be positive, or None"),
        ({"lows": [1.0], "highs": [0.0]}, "highs must be above lows"),
        ({"x_dim": 1, "knots": 0}, "knots must be at least 1"),
        ({"x_dim": 1, "min_scale": 0.0}, "min_scale must be positive"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WarpedLogistic(**options)


def test_values_off_the_grid_or_out_of_bounds_are_refused():
    likelihood = WarpedLogistic(steps=[0.1], lows=[0.0], highs=[2.0])
    likelihood.check(torch.tensor([[0.0], [0.1], [0.3], [2.0]]))
    for wrong in (0.05, -0.1, 2.1, math.nan):
        with pytest.raises(ValueError, match="whole multiples of each column's step"):
            likelihood.check(torch.tensor([[wrong]]))
