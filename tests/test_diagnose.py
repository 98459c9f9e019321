"""Over-fitting, collapse and densities without a maximum are seen, and nothing is seen where there is nothing."""

import pytest
import torch

import pyro_vae
from pyro_vae.base import Likelihood
from pyro_vae.inference import diagnose
from pyro_vae.likelihoods import Bernoulli, Columns, Gaussian, Laplace


def rows(seed: int, size: int = 200) -> torch.Tensor:
    """Six correlated columns: two factors and noise."""
    torch.manual_seed(seed)
    return torch.randn(size, 2) @ torch.linspace(-1, 1, 12).reshape(2, 6) + 0.3 * torch.randn(size, 6)


@pytest.fixture(scope="module")
def trained():
    """A VAE that was trained on a few rows until it knew them by heart."""
    torch.manual_seed(0)
    vae = pyro_vae.build((6,), likelihood="Gaussian", latent_dim=4, hidden_dims=[64], pixels="raw")
    pyro_vae.fit(vae, rows(0, 30), epochs=1000, lr=5e-3)
    return vae


def test_over_fitting_is_seen_where_the_model_knows_its_training_data_by_heart(trained):
    (found,) = diagnose(trained, rows(0, 30), rows(1))
    assert found.startswith("over-fitting: a training example has a higher ELBO than a test example in ")
    assert "hidden_dims" in found


def test_test_data_like_the_training_data_are_no_over_fitting(trained):
    assert diagnose(trained, rows(1), rows(2)) == []


def test_over_fitting_on_very_few_test_data_is_not_told_from_chance(trained):
    assert diagnose(trained, rows(0, 30), rows(1)[:2]) == []


def test_one_outlier_is_no_over_fitting(trained):
    test = rows(2)
    test[0] *= 1e3
    assert diagnose(trained, rows(1), test) == []


def test_collapse_is_seen_where_q_is_the_prior(trained):
    vae = pyro_vae.build((6,), likelihood="Gaussian", latent_dim=2, hidden_dims=[8], pixels="raw")
    torch.nn.init.zeros_(vae.encoder.network[-1][-1].weight)
    torch.nn.init.zeros_(vae.encoder.network[-1][-1].bias)
    (found,) = diagnose(vae, rows(0), rows(1))
    assert found.startswith("collapse: KL[q(z|x) || p(z)] is 0.00 nats")
    assert "KLWeightedELBO" in found


@pytest.mark.parametrize(
    ("likelihood", "elements"),
    [
        (Gaussian("shared"), 6),
        (Gaussian("per_element", x_dim=6), 6),
        (Gaussian("predicted"), 6),
        (Laplace("shared"), 6),
        (Gaussian(0.5), 0),
        (Bernoulli(), 0),
        (Columns([(2, Gaussian("predicted")), (1, Bernoulli()), (3, Laplace("per_element", x_dim=3))]), 5),
    ],
    ids=str,
)
def test_scales_at_their_bound_are_known_to_the_likelihood(likelihood: Likelihood, elements: int):
    raw = torch.full((7, 6, likelihood.params_per_element), -20.0)
    for name, param in likelihood.named_parameters():
        if name.endswith("log_scale"):
            torch.nn.init.constant_(param, -20.0)
    found = likelihood.at_smallest_scale(raw)
    assert (0 if found is None else int(found[0].sum())) == elements
    if found is not None:
        assert found.shape == (7, 6)
    for name, param in likelihood.named_parameters():
        if name.endswith("log_scale"):
            torch.nn.init.zeros_(param)
    found = likelihood.at_smallest_scale(torch.zeros_like(raw))
    assert found is None or not found.any()


def test_a_scale_at_its_bound_names_the_columns(trained):
    vae = pyro_vae.build(
        (6,), likelihood={"class_path": "Gaussian", "init_args": {"scale": "per_element"}}, latent_dim=2, pixels="raw"
    )
    vae.likelihood.log_scale.data[2:4] = -20.0
    (found,) = diagnose(vae, rows(0), rows(1), columns=["a", "b", "c", "d", "e", "f"])
    assert found.startswith("no maximum: the standard deviation of c, d ran to the smallest allowed")
    assert "in 2 of 6 elements" in diagnose(vae, rows(0), rows(1))[0]


def test_labels_known_of_one_part_alone_do_not_mix_two_kinds_of_bounds():
    vae = pyro_vae.build((1, 4, 4), num_classes=2, latent_dim=2)
    x, y = torch.rand(100, 16).round(), torch.arange(100) % 2
    assert diagnose(vae, (x, y), x) == diagnose(vae, x, x)


def test_the_random_state_stays(trained):
    train, test = rows(0, 30), rows(1)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    diagnose(trained, train, test)
    assert torch.equal(torch.rand(2), expected)
