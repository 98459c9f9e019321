"""The density of each column given the others: exact on linear-Gaussian models."""

import math

import pyro.distributions as dist
import pytest
import torch

from pyro_vae import build
from pyro_vae.inference import score_columns
from tests.test_impute import conditional, linear_vae


def exactly(exact, x):
    """log p(x_d | x_-d), E[x_d | x_-d] and the standard deviation, (N, D) each, in closed form."""
    found = torch.full((3, *x.shape), torch.nan, dtype=x.dtype)
    for n, d in (~x.isnan()).nonzero().tolist():
        rest = x[n].clone()
        rest[d] = torch.nan
        mean, covariance = conditional(exact, rest)  # of all blanks of the datum
        at = int(rest[:d].isnan().sum())
        normal = dist.Normal(mean[at], covariance[at, at].sqrt())
        found[:, n, d] = torch.stack([normal.log_prob(x[n, d]), normal.mean, normal.stddev])
    return found


@pytest.mark.parametrize("encoder", ["exact", "poor"])
def test_the_density_of_each_column_is_that_of_the_exact_conditional(encoder):
    vae, exact = linear_vae(encoder)
    x = exact.model(None, 6)
    x[1, 3] += 8  # which draws the encoder's z to where the other columns are not
    x[4, [0, 2]] = torch.nan
    found = score_columns(vae, x, num_samples=4000, seed=0)
    log_prob, mean, sd = exactly(exact, x)
    known = ~x.isnan()
    error = ((found.log_prob - log_prob) / found.se)[known]
    assert error.abs().max() < 4
    assert found.se[known].max() < 0.1
    assert ((found.mean - mean) / sd)[known].abs().max() < 0.2
    torch.testing.assert_close(found.sd[known], sd[known], rtol=0.15, atol=0)
    torch.testing.assert_close(found.surprise, -found.log_prob - found.sd.log(), equal_nan=True)
    for values in (found.log_prob, found.se, found.mean, found.sd, found.surprise):
        assert torch.equal(values.isnan(), x.isnan())
    assert found.surprise.nan_to_num(0).argmax(1)[1] == 3
    assert found.reliable[known].all()


def test_whole_numbers_are_judged_by_their_probability():
    """A one where a zero is all but sure is a surprise of -log p, and so is a zero where it is not."""
    vae = build((2,), likelihood="Bernoulli", pixels="raw", latent_dim=1, hidden_dims=[])
    vae.decoder[0].weight.data.zero_()
    vae.decoder[0].bias.data = torch.tensor([math.log(0.001 / 0.999), 0.0])
    found = score_columns(vae, torch.tensor([[0.0, 0.0], [1.0, 1.0]]), num_samples=5000, steps=5, seed=0)
    expected = -torch.tensor([[0.999, 0.5], [0.001, 0.5]]).log()
    torch.testing.assert_close(found.surprise.float(), expected, atol=0.01, rtol=0)
    torch.testing.assert_close(found.log_prob.float(), -expected, atol=0.01, rtol=0)
