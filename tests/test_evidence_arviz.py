import json

import arviz
import matplotlib
import numpy as np
import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from pyro import poutine

import pyro_vae
from pyro_vae.data import from_frame
from pyro_vae.evidence import khat, log_evidence, log_weights, to_arviz
from pyro_vae.evidence.arviz import to_netcdf
from tests.references import ARVIZ_0, data_of, linear_gaussian, psislw, shifted_guide

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


def test_it_is_what_this_line_of_arviz_works_on(data):
    assert isinstance(data, arviz.InferenceData if ARVIZ_0 else xarray.DataTree)


@pytest.mark.filterwarnings("ignore")  # ArviZ is behind its dependencies' deprecations
def test_arviz_works_on_it(data, tmp_path):
    summary = arviz.summary(data, round_to=6)
    mean = data["posterior"]["z"].mean(("chain", "draw")).values
    np.testing.assert_allclose(summary["mean"].to_numpy(float), mean.flatten(), atol=1e-6)
    matplotlib.use("Agg")
    if ARVIZ_0:
        assert arviz.plot_posterior(data, var_names="z").size == mean.size
        assert arviz.plot_ppc(data, num_pp_samples=10) is not None
    else:
        panels = arviz.plot_dist(data, var_names=["z"], backend="matplotlib").viz["plot"]["z"]
        assert panels.size == mean.size
        arviz.plot_ppc_dist(data, num_samples=10, backend="matplotlib").savefig(tmp_path / "predictive.png")
        assert (tmp_path / "predictive.png").stat().st_size > 0

    (tmp_path / "evaluation.nc").write_bytes(to_netcdf(data))
    again = arviz.from_netcdf(str(tmp_path / "evaluation.nc"))
    for group in ("posterior", "sample_stats", "log_likelihood", "observed_data", "prior_predictive"):
        for name in data[group].data_vars:
            np.testing.assert_array_equal(again[group][name].values, data[group][name].values)


@pytest.mark.filterwarnings("ignore")  # k-hat above its threshold: leaving out a datum with a latent of its own is much
def test_leave_one_out(data):
    loo = arviz.loo(data, pointwise=True)
    log_likelihood = data["log_likelihood"]["x"].values[0]
    ratios, _ = psislw(torch.tensor(-log_likelihood))
    expected = torch.tensor(ratios + log_likelihood).logsumexp(0)
    pointwise = loo.loo_i if ARVIZ_0 else loo.elpd_i
    np.testing.assert_allclose(pointwise.values, expected, rtol=1e-6)


def test_psislw_takes_weights_in_both_lines():
    weights = log_weights(EXACT.model, GUIDE, X, num_samples=400, seed=0)
    smoothed, expected = psislw(weights)
    np.testing.assert_allclose(khat(weights), expected, atol=1e-6)
    np.testing.assert_allclose(np.exp(smoothed).sum(0), 1)


def test_counts_are_checked():
    with pytest.raises(ValueError, match="num_draws must be a whole number of at least 1, got 0"):
        to_arviz(EXACT.model, GUIDE, X, num_draws=0)


def normal(loc):
    return dist.Normal(loc, 1.0)


def of_two(observe):
    """z is N(0, 1), and x_0 and x_1 are N(z, 1), as ``observe`` observes them; with a guide that sees x_1 alone."""

    def model(x, seen):
        with pyro.plate("data", len(x)):
            observe(pyro.sample("z", normal(x.new_zeros(()))), x, seen)

    def guide(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x[:, 1] / 2, 1.0))
            if observe is by_obs_mask:
                with poutine.mask(mask=~seen[:, 0]):
                    pyro.sample("a_unobserved", normal(z))

    return model, guide


def by_poutine_mask(z, x, seen):
    with poutine.mask(mask=seen[:, 0]):
        pyro.sample("a_observed", normal(z), obs=x[:, 0])
    pyro.sample("b", normal(z), obs=x[:, 1])


def by_obs_mask(z, x, seen):
    pyro.sample("a", normal(z), obs=x[:, 0], obs_mask=seen[:, 0])
    pyro.sample("b", normal(z), obs=x[:, 1])


def by_masked_distribution(z, x, seen):
    pyro.sample("a_observed", normal(z).mask(seen[:, 0]), obs=x[:, 0])
    pyro.sample("b", normal(z), obs=x[:, 1])


@pytest.mark.parametrize("observe", [by_poutine_mask, by_obs_mask, by_masked_distribution])
def test_what_is_masked_is_no_observation(observe):
    x = torch.tensor([[900.0, 0.3], [0.2, -0.1]])  # 900 stands for a missing value
    seen = torch.tensor([[False, True], [True, True]])
    data = to_arviz(*of_two(observe), (x, seen), num_samples=200, num_draws=50, seed=0)
    z = torch.tensor(data["posterior"]["z"].values[0])
    likelihood = data["log_likelihood"]
    assert (likelihood["a_observed"].values[0, :, 0] == 0).all()
    np.testing.assert_allclose(likelihood["a_observed"].values[0, :, 1], normal(z[:, 1]).log_prob(x[1, 0]), rtol=1e-5)
    np.testing.assert_allclose(likelihood["b"].values[0], normal(z).log_prob(x[:, 1]), rtol=1e-5)
    np.testing.assert_array_equal(data["observed_data"]["a_observed"].values, [np.nan, np.float32(0.2)])
    np.testing.assert_array_equal(data["observed_data"]["b"].values, x[:, 1])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "likelihood", ["Gaussian", {"class_path": "Columns", "init_args": {}}], ids=["plain", "groups"]
)
def test_blanks_are_no_observations(likelihood, tmp_path):
    if isinstance(likelihood, dict):
        parts = [{"class_path": f"pyro_vae.likelihoods.{name}"} for name in ("Gaussian", "Bernoulli")]
        likelihood = likelihood | {"init_args": {"groups": [(2, parts[0]), (1, parts[1])]}}
    x = torch.rand(9, 3, generator=torch.Generator().manual_seed(0)).round(decimals=3)
    x[:, 2] = x[:, 2].round()
    x[0, 1], x[1, 2], x[2] = torch.nan, torch.nan, torch.nan
    vae = pyro_vae.build((3,), likelihood=likelihood, pixels="raw", missing=True, latent_dim=2, hidden_dims=[8])
    vae.initialize(x)
    data = to_arviz(vae, x, num_samples=200, num_draws=100, seed=0)
    np.testing.assert_array_equal(data["observed_data"]["x"].values, x)
    assert (data["log_likelihood"]["x"].values[0] == 0).all(0).tolist() == [False, False, True] + 6 * [False]
    assert not np.isnan(data["posterior_predictive"]["x"].values).any()
    # ArviZ works on it.
    assert len(arviz.summary(data)) == 18
    matplotlib.use("Agg")
    (arviz.plot_ppc if ARVIZ_0 else arviz.plot_ppc_dist)(data)
    if ARVIZ_0:  # later ones refuse a datum whose values are all the same
        assert np.isfinite(arviz.loo(data).elpd_loo)
    (tmp_path / "blanks.nc").write_bytes(to_netcdf(data))
    again = arviz.from_netcdf(str(tmp_path / "blanks.nc"))
    np.testing.assert_array_equal(again["observed_data"]["x"].values, x)


def test_the_file_says_what_its_groups_are_and_has_log_evidence_of_each_datum(data, tmp_path):
    (tmp_path / "evaluation.nc").write_bytes(to_netcdf(data))
    again = arviz.from_netcdf(str(tmp_path / "evaluation.nc"))
    assert "log p(x|z)" in again["log_likelihood"].attrs["about"]
    assert "compare models by log_evidence in sample_stats" in again["log_likelihood"].attrs["about"]
    assert "NaN where a value is blank or masked" in again["observed_data"].attrs["about"]
    assert "log_evidence: log P(x) of each datum" in again["sample_stats"].attrs["about"]
    result = log_evidence(EXACT.model, GUIDE, X, num_samples=5000, seed=0)
    np.testing.assert_allclose(again["sample_stats"]["log_evidence"].values, result.log_evidence)


@pytest.mark.filterwarnings("ignore")
def test_a_table_is_in_its_own_units_with_the_names_of_its_columns(tmp_path):
    frame = pandas.DataFrame(
        {
            "kind": ["ash", "oak", "elm"] * 12,
            "when": pandas.Timestamp("2020-01-01") + pandas.to_timedelta(range(36), "D"),
            "height": [1000.5 + i**2 for i in range(36)],
            "ill": ["no", "yes"] * 18,
            "many": [f"{'x' * 3000}{i % 12}" for i in range(36)],
        }
    )
    frame.loc[3, "height"] = np.nan
    table = from_frame(frame, validation=0).table
    x = table.encode(frame)
    vae = pyro_vae.build((5,), table=table, missing=True, latent_dim=1, hidden_dims=[4])
    vae.initialize(x)
    drawn = to_arviz(vae.model, vae.guide, x, num_samples=20, num_draws=50, seed=0)
    (tmp_path / "table.nc").write_bytes(to_netcdf(drawn))
    again = arviz.from_netcdf(str(tmp_path / "table.nc"))
    for data in (drawn, again):
        for group in ("observed_data", "posterior_predictive", "prior_predictive"):
            values = data[group]["x"]
            assert values.x_dim_0.values.tolist() == ["when", "height", "ill", "kind", "many"]
            assert json.loads(values.attrs["categories"]) == {"kind": ["ash", "elm", "oak"], "ill": ["no", "yes"]}
            assert json.loads(values.attrs["dates"]) == {"when": "days since 1970"}
            assert set(values.sel(x_dim_0="kind").values.flatten()) <= {0, 1, 2}
        own = data["observed_data"]["x"]
        np.testing.assert_allclose(own.sel(x_dim_0="height"), frame["height"], rtol=1e-6)
        assert own.sel(x_dim_0="when").values.round(3).tolist() == list(range(18262, 18298))
        assert 700 < float(data["prior_predictive"]["x"].sel(x_dim_0="height").mean()) < 2000
    assert len(arviz.summary(again)) == 36
