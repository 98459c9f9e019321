import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.evidence import ais, bidirectional, log_evidence, quadrature
from pyro_vae.evidence.hmc import StepSizes, transition
from tests.references import data_of, linear_gaussian, shifted_guide

EXACT = linear_gaussian()


def curved(x):
    """A posterior like a banana, in two dimensions."""
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1).to_event(1))
        loc = torch.stack([z[..., 0], z[..., 1] + z[..., 0].square()], -1)
        pyro.sample("x", dist.Normal(loc, 0.4).to_event(1), obs=x)


def curved_guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.2).to_event(1))


def test_transitions_leave_the_density_invariant():
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64)

    def log_density(u):
        log_f = dist.Normal(1.0, scale).to_event(1).log_prob(u)
        return log_f, u[..., 0]

    torch.manual_seed(0)
    u = 1 + scale * torch.randn(4000, 1, 2, dtype=torch.float64)
    step_size = torch.full((1, 1), 0.6, dtype=torch.float64)
    for _ in range(20):
        start = u
        u, accepted, before, after = transition(log_density, start, step_size, 3)
        assert torch.equal(before, start[..., 0])
        assert torch.equal(after, u[..., 0])
    assert 0.5 < accepted.mean() < 1
    assert ((u.mean((0, 1)) - 1).abs() < 4 * scale / math.sqrt(4000)).all()
    assert ((u.std((0, 1)) - scale).abs() < 4 * scale / math.sqrt(2 * 4000)).all()


def test_step_sizes_reach_the_wanted_acceptance():
    scale = torch.tensor([[0.01], [1.0], [100.0]], dtype=torch.float64)

    def log_density(u):
        log_f = dist.Normal(0.0, scale.expand(3, 5)).to_event(1).log_prob(u)
        return log_f, log_f

    torch.manual_seed(0)
    sizes = StepSizes(scale, target=0.65)
    u = scale * torch.randn(50, 3, 5, dtype=torch.float64)
    rates = []
    for i in range(300):
        u, accepted = transition(log_density, u, sizes.now, 5)[:2]
        sizes.adapt(accepted)
        if i >= 200:
            rates.append(accepted.mean(0))
    assert (torch.stack(rates).mean(0) - 0.65).abs().max() < 0.05


def test_importance_sampling_annealing_and_quadrature_agree():
    x = torch.tensor([[0.5, 1.0], [-1.0, 2.0], [0.0, -0.5], [1.5, 0.0]], dtype=torch.float64)
    exact = quadrature(curved, x)
    torch.testing.assert_close(exact, quadrature(curved, x, num_points=300), atol=1e-10, rtol=0)
    sampled = log_evidence(curved, curved_guide, x, num_samples=20_000, seed=1)
    annealed = ais(curved, x, num_temperatures=60, num_chains=100, num_leapfrog=5, seed=0)
    for result in (sampled, annealed):
        assert ((result.log_evidence - exact).abs() < 3 * result.se).all()
        assert result.se.max() < 0.15


def test_a_guide_shortens_the_path():
    x = data_of(EXACT, 6)
    guide = shifted_guide(EXACT, 0.3, 1.2)
    options = {"num_temperatures": 20, "num_chains": 20, "num_leapfrog": 3, "seed": 0}
    from_guide, from_prior = ais(EXACT.model, x, guide=guide, **options), ais(EXACT.model, x, **options)
    assert ((from_guide.log_evidence - EXACT.log_evidence(x)).abs() < 4 * from_guide.se).all()
    assert (from_guide.se < from_prior.se).all()


def test_constrained_latents():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0, dtype=x.dtype), 2.0))
            weight = pyro.sample("weight", dist.Beta(torch.tensor(2.0, dtype=x.dtype), 2.0))
            pyro.sample(
                "x", dist.Normal(weight.unsqueeze(-1), rate.unsqueeze(-1)).expand([*rate.shape, 3]).to_event(1), obs=x
            )

    x = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = ais(model, x, num_temperatures=40, num_chains=100, num_leapfrog=5, seed=0)
    assert ((result.log_evidence - quadrature(model, x, num_points=150)).abs() < 4 * result.se).all()


def test_bounds_sandwich_the_evidence_and_meet():
    x = torch.zeros(20, 6, dtype=torch.float64)
    gaps = []
    for num_temperatures in (10, 100):
        bounds = bidirectional(EXACT.model, x, num_temperatures=num_temperatures, num_leapfrog=5, seed=0)
        exact = EXACT.log_evidence(bounds.x)
        below, above = exact - bounds.lower.log_evidence, bounds.upper - exact
        assert below.mean() > -3 * below.std() / math.sqrt(20)
        assert above.mean() > -3 * above.std() / math.sqrt(20)
        torch.testing.assert_close(bounds.gap, below + above)
        gaps.append(bounds.gap.mean())
    assert gaps[1] < 0.1 * gaps[0]
    assert gaps[1] < 0.1


def test_simulated_data_are_drawn_from_the_model():
    bounds = bidirectional(
        EXACT.model, torch.zeros(2000, 6, dtype=torch.float64), num_temperatures=1, num_chains=1, seed=0
    )
    variance = EXACT.weight.square().sum(1) + EXACT.scale.square()
    assert ((bounds.x.mean(0) - EXACT.bias).abs() < 4 * (variance / 2000).sqrt()).all()
    assert ((bounds.x.var(0) / variance - 1).abs() < 4 * math.sqrt(2 / 2000)).all()


def test_progress_reaches_the_end():
    calls = []
    x = data_of(EXACT, 2)
    ais(EXACT.model, x, num_temperatures=3, num_chains=2, num_leapfrog=1, progress=lambda *c: calls.append(c))
    bidirectional(EXACT.model, x, num_temperatures=3, num_chains=2, num_leapfrog=1, progress=lambda *c: calls.append(c))
    assert calls[5] == (6, 6)
    assert calls[-1] == (9, 9)


def discrete(x):
    with pyro.plate("data", len(x), dim=-1):
        kind = pyro.sample("kind", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(kind.unsqueeze(-1), 1.0).expand([*kind.shape, 6]).to_event(1), obs=x)


def two_observed(x):
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).to_event(1), obs=x)
        pyro.sample("y", dist.Normal(z, 1.0), obs=x[:, 0])


def test_refusals_name_what_is_wrong():
    x = torch.zeros(2, 6)
    cases = [
        (lambda: ais(discrete, x), "'kind' is discrete"),
        (lambda: ais(EXACT.model, x, num_temperatures=0), "num_temperatures must be a whole number"),
        (lambda: ais(EXACT.model, x, num_chains=0), "num_chains must be a whole number"),
        (lambda: ais(EXACT.model, x * math.nan), "not finite"),
        (lambda: bidirectional(two_observed, x), "must observe one site"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
