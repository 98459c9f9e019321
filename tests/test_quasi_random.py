"""Quasi-random draws: the same distribution, data that stay independent, and smaller errors."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import kstest

from pyro_vae.evidence import LinearGaussian, laplace, log_evidence, quasi_random, refined
from pyro_vae.program import draw, quiet, reseed

torch.manual_seed(0)
EXACT = LinearGaussian(torch.randn(6, 3, dtype=torch.float64), scale=torch.full((6,), 0.7, dtype=torch.float64))
X = torch.randn(50, 6, dtype=torch.float64)


def wide(x):
    q = EXACT.posterior(x)
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.MultivariateNormal(q.loc + 0.1, scale_tril=1.3 * q.scale_tril))


def diagonal(x):
    q = EXACT.posterior(x)
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(q.loc, 1.5 * q.variance.sqrt()).to_event(1))


def errors(guide, repeats=40, num_samples=64):
    exact = EXACT.log_evidence(X)
    estimates = [
        log_evidence(EXACT.model, guide, X, num_samples=num_samples, seed=s).log_evidence for s in range(repeats)
    ]
    return torch.stack(estimates).exp() / exact.exp() - 1  # relative, (R, B)


@pytest.mark.parametrize("guide", [wide, diagonal])
def test_the_errors_are_smaller_and_have_zero_mean(guide):
    plain, quasi = errors(guide), errors(quasi_random(guide))
    assert quasi.square().mean() < 0.5 * plain.square().mean()
    # 2000 values, uncorrelated between data and between repeats.
    assert abs(quasi.mean()) < 3 * quasi.std() / quasi.numel() ** 0.5
    between_data = torch.corrcoef(quasi.T)[~torch.eye(50, dtype=bool)].mean()
    assert abs(between_data) < 0.02


def test_every_draw_has_the_distribution_of_the_guide():
    with quiet(EXACT.model, X, 0) as seeds:
        reseed(seeds)
        z = torch.cat([draw(quasi_random(wide), X[:1], 4)[0]["z"][:, 0] for _ in range(500)])  # each set of 4 anew
    q = EXACT.posterior(X[:1])
    whitened = torch.linalg.solve_triangular(1.3 * q.scale_tril[0], (z - q.loc[0] - 0.1).T, upper=False)
    assert all(kstest(row[i::4].numpy(), "norm").pvalue > 0.01 for row in whitened for i in range(4))


def test_fitted_proposals_and_data_in_chunks():
    for fit in (refined, laplace):
        proposal = quasi_random(fit(EXACT.model, EXACT.guide, X[:5], steps=5, seed=0))
        results = [
            log_evidence(EXACT.model, proposal, X[:5], num_samples=300, seed=0, chunk_size=c).log_evidence
            for c in (None, 7)
        ]
        torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def test_another_than_a_gaussian_site_is_refused():
    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.StudentT(3.0, torch.zeros(3, dtype=torch.float64)).to_event(1))

    with pytest.raises(ValueError, match="'z' is StudentT, and only Gaussian"):
        log_evidence(EXACT.model, quasi_random(guide), X, num_samples=10)
