"""Variations: distributed as they should be, and written as the data set was."""

import csv

import numpy as np
import pytest
import torch

import pyro_vae
from pyro_vae.commands import augment as command
from pyro_vae.commands.augment import to_original_units
from pyro_vae.commands.train import main as train
from pyro_vae.data import load, read
from pyro_vae.inference import augment
from tests.references import data_of, linear_gaussian

TIMES = 20_000


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_variations_have_the_moments_of_the_posterior_predictive(temperature):
    exact = linear_gaussian()
    x = data_of(exact, 2)
    mean = exact.posterior(x).mean @ exact.weight.T + exact.bias  # (2, D)
    spread = temperature * exact.weight @ exact.posterior_tril
    of_means = spread @ spread.T
    for means, covariance in ((True, of_means), (False, of_means + exact.scale.square().diag())):
        made = augment(exact.model, exact.guide, x, times=TIMES, temperature=temperature, mean=means, seed=0)
        assert made.shape == (TIMES, 2, 6)
        variance = covariance.diag()
        assert ((made.mean(0) - mean).abs() < 4.5 * (variance / TIMES).sqrt()).all()
        for b in range(2):
            # The standard error of a sample covariance of Gaussians (Isserlis).
            error = ((covariance.square() + variance[:, None] * variance) / TIMES).sqrt()
            assert ((made[:, b].T.cov() - covariance).abs() < 4.5 * error).all()


def test_a_seed_repeats_and_leaves_the_global_state():
    exact = linear_gaussian()
    x = data_of(exact, 5)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    once, again, other = (augment(exact.model, exact.guide, x, times=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert len(once.flatten().unique()) == once.numel()


def test_what_makes_no_sense_is_refused():
    exact = linear_gaussian()
    with pytest.raises(ValueError, match="times must be a whole number of at least 1, got 0"):
        augment(exact.model, exact.guide, data_of(exact, 2), times=0)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        augment(exact.model, exact.guide, data_of(exact, 2), temperature=0.0)
    with pytest.raises(ValueError, match="observe exactly one site"):
        augment(lambda x: exact.model(None, len(x)), exact.guide, data_of(exact, 2))


def test_units():
    levels = torch.arange(17.0)
    assert torch.equal(to_original_units(levels, "levels", 17), levels)
    assert torch.equal(to_original_units(levels / 16, "grey", 17), levels)
    assert torch.equal(to_original_units((levels + 0.5) / 17, "dequantized", 17), levels)
    assert torch.equal(to_original_units(torch.tensor([0.0, 1.0]), "binarized", 17), torch.tensor([0.0, 16.0]))
    assert torch.equal(to_original_units(torch.tensor([0.25]), "binarized", None), torch.tensor([0.25]))
    assert torch.equal(to_original_units(torch.tensor([-0.3]), "raw", 17), torch.tensor([-0.3]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("augment") / "run"
    train(["--epochs", "3", "--hidden_dims", "[16]", "--latent_dim", "2", "--run", str(folder)])
    return folder


@pytest.mark.pictures
def test_an_augmented_data_set_is_one_to_train_on(run, tmp_path, capsys):
    digits = load("digits", pixels="levels")
    images, labels = digits.test.to(torch.uint8).reshape(-1, 8, 8).numpy(), digits.labels["test"].numpy()
    np.savez(tmp_path / "some.npz", x=images, y=labels)
    options = ["--data", str(tmp_path / "some.npz"), "--out", str(tmp_path / "out"), "--max_examples", "30"]
    command.main([str(run), *options, "--times", "3", "--mean"])
    made = np.load(tmp_path / "out" / "augmented.npz")
    assert (made["x"].shape, made["x"].dtype) == ((120, 8, 8), np.uint8)
    np.testing.assert_array_equal(made["x"][:30], images[:30])
    np.testing.assert_array_equal(made["original"], np.tile(np.arange(30), 4))
    np.testing.assert_array_equal(made["y"], labels[made["original"]])
    x = read(str(tmp_path / "some.npz"), pixels="binarized", levels=17).x[:30]
    means = augment(pyro_vae.load(run), x, times=3, mean=True, seed=0)
    np.testing.assert_array_equal(made["x"][30:].reshape(3, 30, 64), (16 * means).round().numpy())
    assert len(read(str(tmp_path / "out" / "augmented.npz"), pixels="binarized", levels=17).x) == 120
    assert (tmp_path / "out" / "augmented.png").read_bytes().startswith(b"\x89PNG")
    assert "120: the 30 originals first" in capsys.readouterr().out


def test_a_table_stays_a_table(tmp_path):
    table = np.random.default_rng(0).normal([5, -100], [1, 30], (60, 2)).astype(np.float32)
    np.savetxt(tmp_path / "table.csv", table, delimiter=",", header="length,weight", comments="")
    data = ["--data", str(tmp_path / "table.csv")]
    small = ["--epochs", "3", "--hidden_dims", "[16]", "--latent_dim", "2", "--batch_size", "30"]
    train([*data, *small, "--likelihood", "Gaussian", "--run", str(tmp_path / "run")])
    command.main([str(tmp_path / "run"), *data, "--times", "2"])
    rows = list(csv.reader((tmp_path / "run" / "augment" / "augmented.csv").read_text().splitlines()))
    assert rows[0] == ["length", "weight"]
    made = np.array(rows[1:], dtype=float)
    np.testing.assert_allclose(made[:60], table, rtol=1e-5)
    assert len(made) == 180
    np.testing.assert_allclose(np.load(tmp_path / "run" / "augment" / "augmented.npz")["x"], made, rtol=1e-5)
    # Of another kind of file, no table is left of the earlier one.
    np.save(tmp_path / "table.npy", table)
    command.main([str(tmp_path / "run"), "--data", str(tmp_path / "table.npy"), "--times", "1", "--overwrite"])
    left = {path.name for path in (tmp_path / "run" / "augment").iterdir()}
    assert left == {"augmented.npz", "augmented.png"}


def test_bad_input_is_refused(run, tmp_path, capsys):
    np.save(tmp_path / "blank.npy", np.full((3, 64), np.nan))
    np.save(tmp_path / "wide.npy", np.ones((3, 32)))
    before = set(tmp_path.rglob("*"))
    for options, said in (
        (["--data", tmp_path / "blank.npy"], "impute"),
        (["--data", tmp_path / "wide.npy"], "32 columns, but the run was trained on 8x8 pixels"),
        (["--data", "digits", "--times", "0"], "times must be a whole number"),
        (["--data", "digits", "--times", "100000000"], "memory"),
        (["--data", "digits", "--temperature", "-1"], "temperature must be above 0"),
        ([], "data"),
    ):
        with pytest.raises(SystemExit) as exit:
            command.main([str(run), "--out", str(tmp_path / "out"), *map(str, options)])
        assert exit.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert said in lines[0]
    assert set(tmp_path.rglob("*")) == before
