"""Data with blanks: read, modelled by what is observed, and trained on."""

import importlib
import json
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_vae import build, data, equations, fit, likelihoods, load, log_evidence, save
from pyro_vae.base import Likelihood, fill_from_column
from pyro_vae.data.files import read_csv
from pyro_vae.data.pixels import draw_from
from pyro_vae.evidence import LinearGaussian
from pyro_vae.networks import TableInput, WithMask
from pyro_vae.objectives import ImportanceWeightedELBO
from pyro_vae.plotting import columns_compared
from pyro_vae.plotting.figure import to_rgb

B, D = 4, 6


def blanked(x, fraction=0.4, seed=0):
    return x.masked_fill(torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < fraction, math.nan)


LIKELIHOODS = {
    "Bernoulli": (likelihoods.Bernoulli(), 2),
    "Categorical": (likelihoods.Categorical(levels=5), 5),
    "Binomial": (likelihoods.Binomial(levels=5), 5),
    "DiscretizedLogisticMixture": (likelihoods.DiscretizedLogisticMixture(levels=5, components=2), 5),
    "Gaussian": (likelihoods.Gaussian(scale="predicted"), None),
    "Laplace": (likelihoods.Laplace(), None),
    "ContinuousBernoulli": (likelihoods.ContinuousBernoulli(), None),
    "Poisson": (likelihoods.Poisson(), 5),
    "Columns": (likelihoods.Columns([(4, likelihoods.Gaussian()), (2, likelihoods.Bernoulli())]), 2),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_only_the_observed_elements_count(name):
    likelihood, levels = LIKELIHOODS[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(B, D, generator=generator)
    x = blanked(x if levels is None else (levels * x).floor())
    raw = torch.randn(3, B, D, likelihood.params_per_element, generator=generator, requires_grad=True)
    likelihood.check(likelihood.fill(x))
    value = likelihood.observed_part(likelihood(raw), ~x.isnan()).log_prob(likelihood.fill(x))
    value.sum().backward()
    # The change that an observed element makes, alone and one at a time, against a blank row.
    p, zero = likelihood(raw.detach()), likelihood.fill(torch.full_like(x, math.nan))
    expected = torch.zeros(3, B)
    for d in range(D):
        # log p(x_d|z), as the change of the joint when x_d moves, plus where it moved from
        moved = torch.where(torch.arange(D) == d, likelihood.fill(x), zero)
        only = likelihood.observed_part(p, (torch.arange(D) == d).expand(B, D)).log_prob(zero)
        term = p.log_prob(moved) - p.log_prob(zero) + only
        expected += torch.where(x[:, d].isnan(), 0, term)
    assert torch.allclose(value, expected, atol=1e-4)
    assert raw.grad.isfinite().all()
    assert (raw.grad[:, x.isnan()] == 0).all()
    assert (raw.grad[:, ~x.isnan()] != 0).any()
    # With all of them observed it is the distribution itself.
    everything = likelihood.observed_part(p, torch.ones(B, D, dtype=torch.bool))
    assert torch.allclose(everything.log_prob(zero), p.log_prob(zero), atol=1e-5)


class Dependent(Likelihood):
    def forward(self, raw):
        return dist.MultivariateNormal(raw.squeeze(-1), torch.eye(raw.shape[-2]))


def test_dependent_elements_are_refused():
    p = Dependent()(torch.zeros(B, D, 1))
    with pytest.raises(ValueError, match=r"Dependent returns MultivariateNormal.*observed_part of its own"):
        Dependent().observed_part(p, torch.ones(B, D, dtype=torch.bool))


def linear(missing=True):
    """A linear-Gaussian VAE in float64, and its parameters."""
    torch.manual_seed(0)
    options = {"class_path": "Gaussian", "init_args": {"scale": 0.5}}
    vae = build((D,), likelihood=options, latent_dim=2, hidden_dims=[], pixels="binarized", missing=missing).double()
    return vae, vae.decoder[0].weight, vae.decoder[0].bias, vae.encoder.network


def test_the_elbo_and_its_gradient_are_those_of_the_observed_columns():
    vae, weight, bias, encoder = linear()
    x = blanked(torch.randn(B, D, dtype=torch.float64))
    with pyro.get_param_store().scope():
        torch.manual_seed(1)
        loss = Trace_ELBO(max_plate_nesting=1).differentiable_loss(vae.model, vae.guide, x)
    wanted = [weight, bias, *encoder.parameters()]
    gradients = torch.autograd.grad(loss, wanted)

    torch.manual_seed(1)  # by hand, one datum at a time
    filled = torch.cat([x.nan_to_num(0), x.isnan().double() / math.sqrt(D)], -1)
    loc, log_scale = (filled @ encoder[1][0].weight.T + encoder[1][0].bias).chunk(2, -1)
    z = loc + log_scale.exp() * torch.randn(B, 2, dtype=torch.float64)
    elbo = dist.Normal(0, 1).log_prob(z).sum() - dist.Normal(loc, log_scale.exp()).log_prob(z).sum()
    for b in range(B):
        o = ~x[b].isnan()
        elbo = elbo + dist.Normal(weight[o] @ z[b] + bias[o], 0.5).log_prob(x[b, o]).sum()
    assert torch.allclose(loss, -elbo)
    for ours, by_hand in zip(gradients, torch.autograd.grad(-elbo, wanted), strict=True):
        assert torch.allclose(ours, by_hand)


def test_miwae_bounds_the_evidence_of_the_observed_part():
    vae, weight, bias, encoder = linear()
    encoder[1][0].weight.data.zero_()  # the prior, which is near enough to the posterior
    weight.data *= 0.5
    x = blanked(torch.randn(B, D, dtype=torch.float64))
    exact = torch.stack(
        [
            LinearGaussian(weight[o].detach(), bias[o].detach(), scale=torch.full((int(o.sum()),), 0.5).double())
            .log_evidence(row[o][None])
            .squeeze()
            for row in x
            for o in [~row.isnan()]
        ]
    )
    torch.manual_seed(0)
    with torch.no_grad():
        bounds = [ImportanceWeightedELBO(k).bounds(vae.model, vae.guide, x).mean() for k in (1, 20_000)]
    assert bounds[0] < bounds[1]
    result = log_evidence(vae, x, num_samples=20_000, seed=0)
    assert abs(bounds[1] - exact.mean()) < 0.05
    assert ((result.log_evidence - exact).abs() < 4 * result.se).all()


@pytest.mark.parametrize("objective", [None, ImportanceWeightedELBO(5)], ids=["ELBO", "MIWAE"])
def test_training_with_blanks_finds_the_distribution(objective):
    torch.manual_seed(0)
    z = torch.randn(500, 1)
    truth = torch.cat([z, -z, z], -1) + 0.3 * torch.randn(500, 3) + 5
    x = blanked(truth)
    vae = build((3,), likelihood="Gaussian", latent_dim=1, hidden_dims=[16], pixels="raw", missing=True)
    vae.initialize(x)
    fit(vae, x, objective=objective, epochs=30, batch_size=50, lr=0.01, seed=0)
    vae.eval()
    covariance = vae.sample(20_000).T.cov()
    signs = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])
    assert (covariance - (signs + 0.09 * torch.eye(3))).abs().max() < 0.2
    assert vae.reconstruct(x[:5]).isfinite().all()


def test_starting_values_are_those_of_the_observed_values():
    x = blanked(torch.randn(2000, 3) * torch.tensor([1.0, 2, 3]) + 4)
    filled = fill_from_column(x)
    assert torch.equal(filled[~x.isnan()], x[~x.isnan()])
    assert torch.allclose(filled.mean(0), x.nanmean(0), atol=0.1)
    assert torch.allclose(filled.std(0), torch.stack([c[~c.isnan()].std() for c in x.T]), rtol=0.03)
    vae = build((3,), likelihood="Gaussian", pixels="raw", missing=True)
    with pytest.raises(ValueError, match="no value at all in column 1"):
        vae.initialize(torch.where(torch.arange(3) == 1, torch.nan, x))


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_a_model_for_blanks_is_saved_and_loaded(network, tmp_path):
    vae = build((1, 4, 4), network=network, hidden_dims=[4], latent_dim=2, missing=True)
    save(vae, tmp_path)
    x = blanked(torch.ones(3, 16))
    again = load(tmp_path)
    assert again.missing
    assert torch.equal(again.encoder(x).mean, vae.encoder(x).mean)
    # The mask matters: a blank is not a zero.
    assert not torch.equal(again.encoder(x).mean, again.encoder(x.nan_to_num(0)).mean)
    assert not load_plain(tmp_path / "plain").missing


def load_plain(path):
    path.mkdir()
    save(build((1, 4, 4)), path)
    return load(path)


def test_the_encoder_sees_blanks_at_the_mean_and_their_mask():
    for levels, scale in ((3, 2.0), (None, math.sqrt(2))):  # grey levels by their range, real numbers by their moments
        standardize = WithMask(1, levels)
        standardize.initialize(torch.tensor([[0.0], [2.0]]))
        seen = standardize(torch.tensor([[2.0], [math.nan]]))
        assert torch.allclose(seen, torch.tensor([[1 / scale, 0], [0, 1]]))
    assert WithMask(4).double()(torch.full((2, 4), math.nan, dtype=torch.float64))[0, 4:].tolist() == [0.5] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_encoder_sees_numbers_categories_and_blanks(dtype):
    layer = TableInput([0, 3, 0])
    assert layer.width == 8
    x = torch.tensor([[1.5, 2.0, -1.0], [math.nan, 0.0, 9.97e36], [0.0, math.nan, 0.0]], dtype=dtype)
    mark = 3**-0.5
    expected = torch.tensor(
        [[1.5, -1, 0, 0, 1, 0, 0, 0], [0, 1e6, 1, 0, 0, mark, 0, 0], [0, 0, 0, 0, 0, 0, mark, 0]], dtype=dtype
    )
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x.expand(2, 3, 3)), expected.expand(2, 3, 8))
    assert layer(torch.tensor([0.0, 7.0, 0.0])).sum() == 0  # a code that the column hasn't


def test_no_column_of_a_table_drowns_another():
    x = torch.stack([torch.randn(5000), torch.randint(2, (5000,)), torch.randint(500, (5000,))], -1)
    seen = TableInput([0, 2, 500])(x)[:, :503]
    assert [round(v.square().sum(-1).mean().item(), 1) for v in seen.split([1, 2, 500], -1)] == [1.0, 1.0, 1.0]


def test_a_model_that_was_not_told_refuses_blanks_and_names_impute():
    with pytest.raises(ValueError, match=r"imputation .*pyro-vae impute"):
        log_evidence(build((D,)), blanked(torch.ones(B, D)))


# Reading.


def test_blank_cells_of_a_table(tmp_path):
    path = tmp_path / "blanks.csv"
    path.write_text('a,b,c\n1,,3\nNA, 2 ,nan\n"",4,5\n')
    x = read_csv("blanks.csv", path, missing=True).x
    expected = torch.tensor([[1, math.nan, 3], [math.nan, 2, math.nan], [math.nan, 4, 5]])
    assert torch.equal(x.isnan(), expected.isnan())
    assert torch.equal(x.nan_to_num(0), expected.nan_to_num(0))
    with pytest.raises(ValueError, match=r"blank in line 2, column 2; .*pyro-vae impute.*--missing.*remove the rows"):
        read_csv("blanks.csv", path)
    path.write_text("a,b\n1,x\n")
    with pytest.raises(ValueError, match="line 2, column 2 stands 'x'"):
        read_csv("blanks.csv", path, missing=True)
    path.write_text(",,\n1,2,3\n")
    assert len(read_csv("blanks.csv", path, missing=True).x) == 2  # no names, but a row of blanks


@pytest.mark.parametrize("pixels", ["binarized", "threshold", "grey", "levels", "dequantized"])
def test_blank_pixels_stay_blank(pixels, tmp_path):
    levels = np.random.default_rng(0).integers(0, 17, (40, 4, 4)).astype(np.float32)
    blank = np.random.default_rng(1).random(levels.shape) < 0.3
    np.save(tmp_path / "x.npy", np.where(blank, np.nan, levels))
    complete = np.save(tmp_path / "complete.npy", levels) or data.read(
        str(tmp_path / "complete.npy"), pixels=pixels, levels=17
    )
    source = data.read(str(tmp_path / "x.npy"), pixels=pixels, levels=17, missing=True)
    where = torch.from_numpy(blank).flatten(1)
    assert torch.equal(source.x.isnan(), where)
    assert torch.equal(source.x[~where], complete.x[~where])  # the same noise as without blanks
    loaded = data.load(str(tmp_path / "x.npy"), pixels=pixels, levels=17, missing=True)
    assert loaded.train.isnan().any()
    drawn = loaded.train if loaded.draw is None else loaded.draw(loaded.train)
    assert torch.equal(drawn.isnan(), loaded.train.isnan())
    with pytest.raises(ValueError, match=r"blank \(NaN\).*pyro-vae impute"):
        data.load(str(tmp_path / "x.npy"), pixels=pixels, levels=17)


def test_without_blanks_nothing_changes():
    assert draw_from("binarized", None) is data.pixels.binarize


def test_wrong_values_are_still_found_beside_blanks(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[0.5, np.nan], [7, 1]] * 20))
    with pytest.raises(ValueError, match=r"go from 0\.5 to 7"):
        data.load(str(tmp_path / "x.npy"), pixels="grey", missing=True)


def test_train_on_a_table_with_blanks_and_fill_them(tmp_path, capsys):
    from pyro_vae.commands.impute import main as impute
    from pyro_vae.commands.train import main as train

    z = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    x = blanked(torch.cat([z, z + 1, 2 * z], 1))
    rows = [",".join("" if math.isnan(v) else f"{v:.3f}" for v in row) for row in x.tolist()]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["a,b,c", *rows]) + "\n")
    run = str(tmp_path / "run")
    options = ["--data", str(path), "--likelihood", "Gaussian", "--latent_dim", "1", "--epochs", "3", "--run", run]
    with pytest.raises(SystemExit):
        train(options)
    assert "--missing" in capsys.readouterr().err
    train([*options, "--missing"])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert math.isfinite(summary["test_elbo"])
    impute([run, "--num_samples", "50", "--steps", "5", "--num_starts", "1"])  # its own test data
    assert "of 20 examples have blanks" in capsys.readouterr().out
    impute([run, "--data", str(path), "--num_samples", "50", "--steps", "5", "--num_starts", "1", "--overwrite"])
    filled = (tmp_path / "run/impute/mean.csv").read_text().splitlines()
    assert len(filled) == 201
    assert all(cell for line in filled for cell in line.split(","))
    # Fewer completions than before leave none of the earlier ones.
    few = ["--num_samples", "50", "--steps", "5", "--num_starts", "1", "--num_completions", "2"]
    impute([run, "--data", str(path), *few, "--overwrite"])
    assert sorted(file.name for file in (tmp_path / "run/impute").glob("*.csv")) == [
        "completed-1.csv", "completed-2.csv", "diagnostics.csv", "mean.csv",
    ]  # fmt: skip


@pytest.mark.pictures
def test_every_command_takes_the_blanks_of_a_run_that_was_trained_with_them(tmp_path, capsys):
    def run_command(name, *options):
        importlib.import_module(f"pyro_vae.commands.{name}").main(list(options))

    z = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
    x = blanked(torch.cat([z, z + 1, 2 * z], 1))
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["a,b,c", *(",".join(f"{v:.3f}" for v in row) for row in x.tolist())]) + "\n")
    run = str(tmp_path / "run")
    small = ["--latent_dim", "2", "--hidden_dims", "[8]", "--epochs", "2", "--batch_size", "24"]
    run_command("train", "--data", str(path), "--likelihood", "Gaussian", *small, "--missing", "--run", run)
    for command, *options in (
        ["sample"], ["reconstruct"], ["encode"], ["interpolate", "--between", "0", "1"], ["manifold"],
        ["augment", "--data", str(path)], ["score", "--level", "0.3"], ["report", "--no_check"],
        ["evaluate", "--num_samples", "50"],
    ):  # fmt: skip
        run_command(command, run, *options)
    assert capsys.readouterr().err == ""  # all pictures were drawn
    rows = equations.check(load(run), x[:8], num_draws=50, num_gradients=10)
    assert {row.verdict for row in rows} <= {"pass", "measured", "not applicable"}
    augmented = np.load(tmp_path / "run/augment/augmented.npz")["x"]
    np.testing.assert_array_equal(np.isnan(augmented[:60]), x.isnan().numpy())
    assert np.isfinite(augmented[60:]).all()  # the variations are complete


def test_blank_pixels_are_drawn_in_a_colour_of_their_own():
    images = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)).numpy()
    images[1, 2, 3] = np.nan
    drawn = to_rgb(images)
    assert drawn.shape == (3, 4, 5, 3)
    coloured = drawn[..., 0] != drawn[..., 2]
    assert coloured.sum() == 1
    assert coloured[1, 2, 3]
    assert (drawn.min(), drawn.max()) == (0, 1)  # from black to white


def test_a_histogram_leaves_blanks_out(tmp_path):
    x = torch.tensor([[0.0, torch.nan], [1.0, torch.nan], [torch.nan, torch.nan]])
    columns_compared(x, x, tmp_path / "x.png", names=["a", "b"], title="", label="")
    assert (tmp_path / "x.png").exists()
