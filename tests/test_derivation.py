"""The closed forms against torch, scipy and quadrature."""

import ast
import inspect

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.nn import functional as F

from pyro_vae.equations import closed_forms as derivation
from pyro_vae.equations.closed_forms import LinearGaussian


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def normal_parameters(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(*shape).double(), torch.rand(*shape).double() + 0.2


def covariance(*batch: int) -> torch.Tensor:
    root = torch.randn(*batch, 3, 3).double()
    return root @ root.mT + torch.eye(3).double()


def close(left, right, tolerance=1e-12):
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def test_it_imports_no_pyro():
    tree = ast.parse(inspect.getsource(derivation))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"math", "dataclasses", "torch"}


def test_log_normal_is_scipys():
    loc, scale = normal_parameters(4, 3)
    z = torch.randn(4, 3).double()
    expected = stats.norm(loc.numpy(), scale.numpy()).logpdf(z.numpy()).sum(-1)
    close(derivation.log_normal(z, loc, scale), torch.from_numpy(expected))


def test_divergences_are_torchs():
    (loc_q, scale_q), (loc_p, scale_p) = normal_parameters(4, 3), normal_parameters(4, 3)
    q, p = Normal(loc_q, scale_q), Normal(loc_p, scale_p)
    standard = Normal(torch.zeros(3).double(), torch.ones(3).double())
    close(derivation.kl_standard_normal(loc_q, scale_q), kl_divergence(q, standard).sum(-1))
    close(derivation.kl_diagonal_normals(loc_q, scale_q, loc_p, scale_p), kl_divergence(q, p).sum(-1))
    cov_q, cov_p = covariance(4), covariance(4)
    expected = kl_divergence(MultivariateNormal(loc_q, cov_q), MultivariateNormal(loc_p, cov_p))
    close(derivation.kl_normals(loc_q, cov_q, loc_p, cov_p), expected)


def test_article_loss_is_the_sum_that_its_code_computes():
    probs, x = torch.rand(4, 6).double(), torch.rand(4, 6).double()
    loc, scale = normal_parameters(4, 3)
    log_var = 2 * scale.log()
    bce = F.binary_cross_entropy(probs, x, reduction="sum")
    kl = kl_divergence(Normal(loc, scale), Normal(0.0, 1.0)).sum()
    close(derivation.binary_cross_entropy(probs, x).sum(), bce)
    close(derivation.article_loss(probs, x, loc, log_var), bce + kl)


def test_cross_entropy_at_certainty_is_finite():
    certain = torch.tensor([0.0, 1.0])
    assert derivation.binary_cross_entropy(certain, certain) == 0


@pytest.fixture
def model() -> LinearGaussian:
    bias, scale = normal_parameters(5)
    return LinearGaussian(torch.randn(5, 3).double(), bias, scale)


def test_linear_gaussian_evidence_and_posterior_are_scipys(model):
    x = torch.randn(4, 5).double()
    weight, noise = model.weight.numpy(), np.diag(model.scale.numpy() ** 2)
    marginal = stats.multivariate_normal(model.bias.numpy(), weight @ weight.T + noise)
    close(model.log_evidence(x), torch.from_numpy(marginal.logpdf(x.numpy())), 1e-10)
    # The posterior from the joint Gaussian's conditional, rather than from precisions.
    gain = weight.T @ np.linalg.inv(weight @ weight.T + noise)
    loc, cov = model.posterior(x)
    close(loc, torch.from_numpy((x - model.bias).numpy() @ gain.T), 1e-10)
    close(cov, torch.from_numpy(np.eye(3) - gain @ weight), 1e-10)


def test_linear_gaussian_bound_is_a_sample_mean(model):
    x = torch.randn(1, 5).double()
    loc, cov = torch.randn(1, 3).double(), covariance()
    q = MultivariateNormal(loc[0], cov)
    z = q.sample((100_000,))
    log_likelihood = Normal(z @ model.weight.T + model.bias, model.scale).log_prob(x).sum(-1)
    log_ratio = q.log_prob(z) - Normal(0.0, 1.0).log_prob(z).sum(-1)
    for exact, draws in [
        (model.expected_log_likelihood(x, loc, cov), log_likelihood),
        (model.elbo(x, loc, cov), log_likelihood - log_ratio),
    ]:
        assert abs(exact.item() - draws.mean().item()) < 4 * draws.std().item() / len(draws) ** 0.5


def test_linear_gaussian_bound_is_tight_at_the_posterior_only(model):
    x = torch.randn(4, 5).double()
    loc, cov = model.posterior(x)
    close(model.elbo(x, loc, cov), model.log_evidence(x), 1e-10)
    assert (model.elbo(x, loc + 0.1, cov) < model.log_evidence(x) - 1e-3).all()
