import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.evidence import (
    LinearGaussian,
    defensive,
    gaussian,
    importance,
    khat_threshold,
    laplace,
    log_evidence,
    log_weights,
    prior,
    quadrature,
    refined,
    widened,
)
from tests.references import data_of, linear_gaussian, shifted_guide

EXACT = linear_gaussian()
X = data_of(EXACT, 8)


def constrained_model(x):
    """A rate and a location: two sites, one of them positive."""
    with pyro.plate("data", len(x), dim=-1):
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(3.0, dtype=x.dtype), 3.0))
        loc = pyro.sample("loc", dist.Normal(torch.zeros(1, dtype=x.dtype), 1).to_event(1))
        pyro.sample("x", dist.Normal(loc.expand(*loc.shape[:-1], 5), rate.unsqueeze(-1)).to_event(1), obs=x)


def constrained_guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("loc", dist.Normal(x.mean(-1, keepdim=True), 0.5).to_event(1))
        pyro.sample("rate", dist.LogNormal(x.new_zeros(()), 0.5))


def agrees(model, guide, x, exact, num_samples=2000):
    result = log_evidence(model, guide, x, num_samples=num_samples, seed=0)
    assert ((result.log_evidence - exact).abs() < 4 * result.se + 1e-9).all()
    return result


def test_narrow_guide_is_flagged_and_cured():
    exact = linear_gaussian(z_dim=1)
    x = data_of(exact, 8)
    narrow = shifted_guide(exact, 0.0, 0.3)
    flagged = log_evidence(exact.model, narrow, x, num_samples=20_000, seed=0)
    assert (flagged.khat > khat_threshold(20_000)).all()
    for proposal in (
        widened(narrow, 5.0),
        defensive(exact.model, narrow, 0.5),
        refined(exact.model, narrow, x, steps=300, seed=0),
        laplace(exact.model, narrow, x, seed=0),
    ):
        cured = agrees(exact.model, proposal, x, exact.log_evidence(x), 20_000)
        assert (cured.khat < khat_threshold(20_000)).all()


def test_prior_weighs_by_the_likelihood():
    weights = log_weights(EXACT.model, prior(EXACT.model), X, num_samples=10, seed=0)
    limit = dist.Normal(0.0, EXACT.scale).to_event(1).log_prob(torch.zeros(6, dtype=torch.float64))
    assert (weights <= limit).all()
    agrees(EXACT.model, prior(EXACT.model), X, EXACT.log_evidence(X), 20_000)


def test_prior_stops_before_the_decoder():
    decoded = []

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            decoded.append(len(x))
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1), obs=x)

    pyro.poutine.trace(prior(model)).get_trace(torch.zeros(50, 3))
    assert decoded == [1]  # only to learn which sites are latent
    assert not pyro.poutine.runtime._PYRO_STACK


def test_widening_scales_deviations():
    torch.manual_seed(0)
    draws = widened(EXACT.guide, 3.0)(X[:1].expand(4000, -1))
    posterior = EXACT.posterior(X[:1])
    expected = 3 * posterior.stddev
    assert ((draws.std(0) - expected).abs() < 4 * expected / math.sqrt(2 * 4000)).all()
    assert ((draws.mean(0) - posterior.mean).abs() < 4 * expected / math.sqrt(4000)).all()


def test_defensive_weights_are_bounded_by_the_likelihood():
    fraction = 0.2
    proposal = defensive(EXACT.model, shifted_guide(EXACT, 1.0, 0.5), fraction)
    weights = log_weights(EXACT.model, proposal, X, num_samples=5000, seed=0)
    limit = dist.Normal(0.0, EXACT.scale).to_event(1).log_prob(torch.zeros(6, dtype=torch.float64))
    assert (weights <= limit - math.log(fraction)).all()
    agrees(EXACT.model, proposal, X, EXACT.log_evidence(X), 20_000)


@pytest.mark.parametrize(
    "proposal",
    [
        lambda x: defensive(constrained_model, constrained_guide),
        lambda x: widened(constrained_guide, 1.5),
        lambda x: widened(refined(constrained_model, constrained_guide, x, seed=0), 1.3),
        lambda x: widened(refined(constrained_model, constrained_guide, x, full_rank=True, seed=0), 1.3),
        lambda x: defensive(constrained_model, laplace(constrained_model, constrained_guide, x, seed=0)),
    ],
)
def test_sites_of_several_kinds(proposal):
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = agrees(constrained_model, proposal(x), x, quadrature(constrained_model, x, num_points=120))
    assert result.reliable.all()


def test_laplace_is_exact_for_gaussians():
    exact = linear_gaussian(z_dim=4)
    x = data_of(exact, 5)
    fitted = laplace(exact.model, shifted_guide(exact, 1.0, 2.0), x, steps=400, seed=0)
    posterior = exact.posterior(x)
    torch.testing.assert_close(fitted.scale_tril, posterior.scale_tril.expand(5, 4, 4), atol=1e-8, rtol=0)
    torch.testing.assert_close(fitted.loc, posterior.mean, atol=1e-3, rtol=0)


def test_laplace_keeps_the_covariance_between_sites():
    exact = linear_gaussian(z_dim=3)
    x = data_of(exact, 4)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1))
            b = pyro.sample("b", dist.Normal(x.new_zeros(2), 1).to_event(1))
            loc = torch.cat([a.unsqueeze(-1), b], -1) @ exact.weight.T + exact.bias
            pyro.sample("x", dist.Normal(loc, exact.scale).to_event(1), obs=x)

    weights = log_weights(model, laplace(model, prior(model), x, steps=1000, seed=0), x, num_samples=100, seed=0)
    torch.testing.assert_close(weights, exact.log_evidence(x).expand(100, 4), atol=1e-3, rtol=0)


def test_refined_finds_the_posterior():
    exact = linear_gaussian(z_dim=3)
    x = data_of(exact, 5)
    start = shifted_guide(exact, 1.0, 2.0)
    before = log_evidence(exact.model, start, x, num_samples=1000, seed=0).gap
    diagonal = log_evidence(exact.model, refined(exact.model, start, x, seed=0), x, num_samples=1000, seed=0).gap
    full = log_evidence(
        exact.model, refined(exact.model, start, x, full_rank=True, seed=0), x, num_samples=1000, seed=0
    ).gap
    # The best diagonal Gaussian has the precision's diagonal: its KL is 1/2 (sum log S^-1_ii + log det S).
    posterior = exact.posterior(x)
    best = 0.5 * posterior.precision_matrix.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    best = best + posterior.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    assert (diagonal < best + 0.1).all()
    assert (diagonal > best - 0.1).all()
    assert (full < 0.1).all()
    assert (before > 1).all()


def test_a_fitted_proposal_serves_any_part_of_its_data():
    fitted = refined(EXACT.model, EXACT.guide, X, steps=5, seed=0)
    rows = torch.tensor([5, 2])
    assert fitted.rows(X[rows]).tolist() == [5, 2]
    agrees(EXACT.model, widened(fitted, 1.5), X[rows], EXACT.log_evidence(X[rows]))
    with pytest.raises(ValueError, match="fitted to other data"):
        log_weights(EXACT.model, fitted, X + 1, num_samples=2)


def test_fitting_leaves_parameters_without_gradients():
    weight = EXACT.weight.clone().requires_grad_()

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(weight.new_zeros(2), 1).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T, EXACT.scale).to_event(1), obs=x)

    fitted = laplace(model, refined(model, EXACT.guide, X, steps=2), X, steps=2)
    assert weight.grad is None
    assert not fitted.loc.requires_grad
    assert not fitted.scale_tril.requires_grad


def bounded_guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Beta(torch.ones(2), 1.0).to_event(1))


def discrete_model(x):
    with pyro.plate("data", len(x), dim=-1):
        kind = pyro.sample("kind", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(kind.unsqueeze(-1), 1.0).expand([*kind.shape, 6]).to_event(1), obs=x)


def auxiliary_guide(x):
    with pyro.plate("data", len(x), dim=-1):
        u = pyro.sample("u", dist.Normal(torch.zeros(2), 1).to_event(1), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Delta(u, event_dim=1))


def test_refusals_name_what_is_wrong():
    cases = [
        (lambda: widened(EXACT.guide, 0.0), "factor must be positive, got 0.0"),
        (lambda: defensive(EXACT.model, EXACT.guide, 1.0), "fraction must be between 0 and 1"),
        (lambda: log_weights(EXACT.model, widened(bounded_guide, 2.0), X), "site 'z' has support"),
        (lambda: refined(discrete_model, prior(discrete_model), X), "'kind' is discrete"),
        (lambda: log_weights(EXACT.model, defensive(EXACT.model, auxiliary_guide), X), "'u' is auxiliary"),
        (lambda: refined(EXACT.model, EXACT.guide, X, steps=0), "steps must be a whole number"),
        (lambda: refined(EXACT.model, EXACT.guide, X * math.nan), "not finite"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_proposal_does_not_know_the_draws_that_weigh_it(monkeypatch):
    """Fitted and weighed with the same seed, it must not see the same noise twice: that would raise the estimate."""
    seeds = {gaussian: [], importance: []}
    for module, seen in seeds.items():

        def recorded(generator, seen=seen, reseed=module.reseed):
            reseed(generator)
            seen.append(torch.initial_seed())

        monkeypatch.setattr(module, "reseed", recorded)
    proposal = refined(EXACT.model, EXACT.guide, X, steps=2, seed=0)
    log_weights(EXACT.model, proposal, X, num_samples=2, seed=0)
    assert seeds[gaussian]
    assert not set(seeds[gaussian]) & set(seeds[importance])


def test_a_mixture_prior_has_real_latents():
    import pyro_vae

    torch.manual_seed(0)
    vae = pyro_vae.build((1, 3, 3), prior="GaussianMixture", latent_dim=2, hidden_dims=[4]).double()
    x = vae.sample(3)
    proposal = refined(vae.model, vae.guide, x, seed=0)
    result = log_evidence(vae.model, proposal, x, num_samples=4000, seed=1)
    assert ((result.log_evidence - quadrature(vae.model, x)).abs() < 4 * result.se).all()


def steep_model(x):
    """Observes z_1 + 2 z_2 with an error of 1e-5, and nothing else of z: curvatures of 1e10 and 1, in float32."""
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ torch.tensor([[1.0], [2.0]]), 1e-5).to_event(1), obs=x)


def steep_guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))


def test_laplace_where_curvatures_are_so_unlike_that_rounding_leaves_no_covariance():
    tril = laplace(steep_model, steep_guide, torch.zeros(1, 1), steps=1, seed=0).scale_tril[0]
    assert (tril.diagonal() > 0).all()
    assert tril[0, 1] == 0
    assert (torch.tensor([1.0, 2.0]) @ tril).abs().max() < 1e-3  # narrow where z is observed,
    assert (torch.tensor([2.0, -1.0]) @ tril).norm() > 1  # and wide where it is not


def cusp_model(x):
    """The posterior of each datum has its mode at a cusp, where the curvature says nothing of its width."""
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1).to_event(1))
        pyro.sample("x", dist.Laplace(z, 0.01).to_event(1), obs=x)


def cusp_guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(x, 0.015).to_event(1))


def test_no_fit_ends_below_its_start():
    torch.manual_seed(0)
    # So many dimensions that the steps to a full covariance are mostly noise.
    wide = LinearGaussian(torch.randn(6, 200, dtype=X.dtype) / 10, scale=torch.ones(6, dtype=X.dtype))
    start, few = shifted_guide(wide), data_of(wide, 5)
    cusp = torch.tensor([[0.5], [-0.3]], dtype=torch.float64)
    for model, guide, fitted, x in (
        (wide.model, start, refined(wide.model, start, few, steps=50, full_rank=True, seed=0), few),
        (cusp_model, cusp_guide, laplace(cusp_model, cusp_guide, cusp, seed=0), cusp),
    ):
        before, after = (log_evidence(model, q, x, num_samples=2000, seed=1) for q in (guide, fitted))
        # The start has the guide's mean and deviations from 100 draws, which costs a hundredth of a nat a dimension.
        assert (after.elbo > before.elbo - 0.5 - 0.01 * fitted.latents.size).all()


def test_a_hopeless_start_is_replaced_by_the_prior_for_its_own_datum_alone():
    def guide(x, off):
        with pyro.plate("data", len(x), dim=-1):
            posterior = EXACT.posterior(x)
            loc = torch.where((x == X[2]).all(1, keepdim=True), posterior.mean + off, posterior.mean)
            pyro.sample("z", dist.Normal(loc, posterior.stddev).to_event(1))

    usual = refined(EXACT.model, lambda x: guide(x, 0.0), X, seed=0)
    for off in (1e4, torch.nan, torch.inf):
        fitted = refined(EXACT.model, lambda x, off=off: guide(x, off), X, seed=0)
        others = torch.arange(len(X)) != 2
        assert torch.equal(fitted.loc[others], usual.loc[others])
        assert log_evidence(EXACT.model, fitted, X, num_samples=1000, seed=1).gap[2] < 1


def test_a_datum_without_any_density_leaves_the_others_their_fits():
    x = X.clone()
    x[1] = 1e200
    others = torch.arange(len(X)) != 1
    for fit in (laplace, refined):
        fitted, usual = (fit(EXACT.model, shifted_guide(EXACT, 0.5), data, steps=20, seed=0) for data in (x, X))
        assert torch.equal(fitted.loc[others], usual.loc[others])
        assert fitted.loc.isfinite().all()
        assert log_evidence(EXACT.model, fitted, x, num_samples=10).log_evidence[1] == -math.inf
        with pytest.raises(ValueError, match=f"none of the {len(X)} data; look for values"):
            fit(EXACT.model, EXACT.guide, x * 0 + 1e200, steps=2)
