import sys
import types

import matplotlib
import pytest
import torch

from pyro_vae.evidence import khat, log_weights, to_arviz
from pyro_vae.evidence.arviz import psislw
from tests.references import data_of, linear_gaussian, shifted_guide

arviz = pytest.importorskip("arviz")

EXACT = linear_gaussian()
X = data_of(EXACT, 4)
GUIDE = shifted_guide(EXACT, 0.3, 1.2)
SIZES = {"chain": 1, "draw": 3000, "data": 4}


@pytest.fixture(scope="module")
def data():
    return to_arviz(EXACT.model, GUIDE, X, num_samples=5000, num_draws=3000, seed=0)


def test_groups_and_dimensions(data):
    expected = {
        ("posterior", "z"): SIZES | {"z_dim_0": 2},
        ("log_likelihood", "x"): SIZES,
        ("posterior_predictive", "x"): SIZES | {"x_dim_0": 6},
        ("prior", "z"): SIZES | {"z_dim_0": 2},
        ("prior_predictive", "x"): SIZES | {"x_dim_0": 6},
        ("observed_data", "x"): {"data": 4, "x_dim_0": 6},
        ("sample_stats", "log_weight"): SIZES,
        ("sample_stats", "khat"): {"data": 4},
        ("sample_stats", "proposal_log_weight"): {"proposal": 5000, "data": 4},
    }
    for (group, name), sizes in expected.items():
        assert dict(data[group][name].sizes) == sizes


def test_draws_are_from_the_exact_posterior(data):
    posterior = EXACT.posterior(X)
    z = torch.tensor(data["posterior"]["z"].values[0])
    error = posterior.stddev / 3000**0.5 * 1.5  # the weights cost some of the draws
    assert ((z.mean(0) - posterior.mean).abs() < 4 * error).all()
    for b in range(4):
        torch.testing.assert_close(z[:, b].T.cov(), posterior.covariance_matrix[b], atol=0.02, rtol=0.1)


def test_diagnostics_are_those_of_the_weights(data):
    weights = log_weights(EXACT.model, GUIDE, X, num_samples=5000, seed=0)
    stats = data["sample_stats"]
    torch.testing.assert_close(torch.tensor(stats["proposal_log_weight"].values), weights)
    torch.testing.assert_close(torch.tensor(stats["khat"].values), khat(weights))
    z = torch.tensor(data["posterior"]["z"].values[0])
    expected = torch.distributions.Normal(z @ EXACT.weight.T + EXACT.bias, EXACT.scale).log_prob(X).sum(-1)
    torch.testing.assert_close(torch.tensor(data["log_likelihood"]["x"].values[0]), expected)


@pytest.mark.filterwarnings("ignore")  # ArviZ is behind matplotlib's deprecations
def test_arviz_works_on_it(data, tmp_path):
    summary = arviz.summary(data)
    assert len(summary) == 8
    matplotlib.use("Agg")
    assert arviz.plot_posterior(data, var_names="z").size == 8
    assert arviz.plot_ppc(data, num_pp_samples=10) is not None
    data.to_netcdf(str(tmp_path / "evaluation.nc"))
    assert "posterior" in str(arviz.from_netcdf(str(tmp_path / "evaluation.nc")))


def test_psislw_of_both_lines(monkeypatch):
    weights = log_weights(EXACT.model, GUIDE, X, num_samples=1000, seed=0)
    smoothed, expected = psislw(weights)
    torch.testing.assert_close(khat(weights), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(smoothed.logsumexp(0), torch.zeros(4, dtype=torch.float64))

    # The 1.x line: no InferenceData, and a function of log-likelihoods rather than log-weights.
    original = arviz.psislw
    stats, base = types.ModuleType("arviz_stats"), types.ModuleType("arviz_stats.base")
    base.array_stats = types.SimpleNamespace(psislw=lambda ary: original(-ary))
    monkeypatch.setitem(sys.modules, "arviz", types.ModuleType("arviz"))
    monkeypatch.setitem(sys.modules, "arviz_stats", stats)
    monkeypatch.setitem(sys.modules, "arviz_stats.base", base)
    torch.testing.assert_close(psislw(weights)[1], expected)
    tree = to_arviz(EXACT.model, GUIDE, X, num_samples=10, num_draws=5)
    assert type(tree).__name__ == "DataTree"
    assert tree["posterior"]["z"].shape == (1, 5, 4, 2)


def test_counts_are_checked():
    with pytest.raises(ValueError, match="num_draws must be a whole number of at least 1, got 0"):
        to_arviz(EXACT.model, GUIDE, X, num_draws=0)
