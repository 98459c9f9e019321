"""Blanks where something runs away: each datum by itself, with a mark where what was filled in can't be believed."""

import csv

import numpy as np
import pytest
import torch

from pyro_vae.commands.impute import main
from pyro_vae.commands.train import main as train
from pyro_vae.inference import gibbs, impute
from pyro_vae.inference.blanks import plausible, with_blanks
from tests.test_impute import Z, blanked, conditional, linear_vae, misfit

METHODS = {"importance": impute, "gibbs": gibbs}


def diverging(gain=40.0):
    """A linear-Gaussian VAE whose encoder makes more of column 3 than its decoder gives: pseudo-Gibbs runs away."""
    vae, exact = linear_vae()
    vae.encoder.network.weight.data[:Z, 3] = gain
    return vae, exact


def test_a_start_that_runs_away_is_replaced():
    vae, exact = diverging()
    x, _ = blanked()
    filled = impute(vae, x, num_completions=2000, num_samples=8000, num_starts=2, seed=1)
    assert misfit(filled.completions, exact, x) < 3
    assert not filled.implausible.any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gain", [40.0, 4e10])
def test_no_start_leaves_the_range_of_the_data(method, gain):
    vae, _ = diverging(gain)
    x = blanked()[0].float()
    filled = METHODS[method](vae.float(), x, seed=1)
    low, high = plausible(with_blanks(vae.model), x)
    assert ((filled.completions >= low) & (filled.completions <= high)).all()
    assert filled.mean.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_a_datum_that_has_no_density_stays_blank_and_the_others_do_not(method):
    vae, exact = linear_vae()
    x = blanked()[0].float().repeat(2, 1)
    x[2, 2] = 9.97e36
    filled = METHODS[method](vae.float(), x, seed=1)
    assert filled.mean.isnan().any(1).tolist() == [False, False, True, False]
    assert torch.equal(filled.completions[:, 2].isnan(), x[2].isnan().expand(5, -1))
    assert not filled.implausible.any()
    mean, covariance = conditional(exact, x[3].double())
    assert ((filled.mean[3, x[3].isnan()] - mean).abs() < 0.5 * covariance.diagonal().sqrt()).all()


@pytest.mark.parametrize("method", METHODS)
def test_what_lies_far_beyond_the_data_and_the_model_is_marked(method):
    vae, _ = linear_vae()
    x = blanked()[0].repeat(30, 1)
    x[4, 1] = 1e4  # from which the model has to conclude that column 0 or 3 is as far out
    filled = METHODS[method](vae, x, seed=1)
    assert filled.implausible.nonzero()[:, 0].unique().tolist() == [4]
    assert not filled.implausible[4, ~x[4].isnan()].any()


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A run on a table of two columns, and on the same with a third, of classes, between them."""
    folder = tmp_path_factory.mktemp("out_of_range")
    rng = np.random.default_rng(0)
    kind = np.arange(200) % 2
    a = rng.normal(size=200)
    b = a + 0.1 * rng.normal(size=200)
    kinds, plain = np.stack([a + 9 * kind, kind, b], 1), np.stack([a, b], 1)
    np.savetxt(folder / "kinds.csv", kinds, delimiter=",", header="a,kind,b", comments="", fmt="%.4f")
    np.savetxt(folder / "plain.csv", plain, delimiter=",", header="a,b", comments="", fmt="%.4f")
    options = ["--likelihood", "Gaussian", "--epochs", "60", "--lr", "0.02", "--batch_size", "40"]
    options += ["--latent_dim", "1", "--hidden_dims", "[]"]
    train(["--data", str(folder / "plain.csv"), *options, "--run", str(folder / "plain")])
    train(["--data", str(folder / "kinds.csv"), "--condition", "kind", *options, "--run", str(folder / "kinds")])
    return folder


QUICK = ["--num_samples", "200", "--steps", "20", "--num_starts", "1", "--num_completions", "1"]


def call(run, text, tmp_path, *options):
    (tmp_path / "given.csv").write_text(text)
    main([str(run), "--data", str(tmp_path / "given.csv"), "--out", str(tmp_path / "out"), *QUICK, *options])
    diagnostics = rows_of(tmp_path / "out" / "diagnostics.csv")
    return rows_of(tmp_path / "out" / "completed-1.csv"), [
        dict(zip(diagnostics[0], row, strict=True)) for row in diagnostics[1:]
    ]


def test_the_command_names_what_stays_blank_and_marks_what_is_implausible(table, tmp_path, capsys):
    with pytest.warns(UserWarning, match="row 2, column a: 9.97e"):
        completed, diagnostics = call(table / "plain", "a,b\n1.0,\n9.97e36,\n60,\n2.0,0.1\n", tmp_path)
    assert completed[2] == ["9.97e36", ""]
    assert [row["filled"] for row in diagnostics] == ["1", "0", "1"]
    assert [row["implausible"] for row in diagnostics] == ["0", "0", "1"]
    assert float(diagnostics[0]["log_p_observed"]) == pytest.approx(-3, abs=2)
    words = capsys.readouterr().out
    assert "left blank  row 1: the model gives what they observe no density" in words
    assert "implausible 1 values of b in row 2:" in words
    assert (tmp_path / "out" / "completed.png").exists()


def test_the_rows_of_a_conditional_run_are_filled_by_their_own_class(table, tmp_path, capsys):
    text = "a,kind,b\n,0,0.50\n,1,0.50\n,,0.50\n7,1,0.1\n,1,-0.50\n"
    completed, diagnostics = call(table / "kinds", text, tmp_path)
    values = [row[0] for row in completed[1:]]
    assert [row[1:] for row in completed] == [row.split(",")[1:] for row in text.split()]
    assert float(values[0]) == pytest.approx(0.5, abs=3)
    assert float(values[1]) == pytest.approx(9.5, abs=3)
    assert float(values[4]) == pytest.approx(8.5, abs=3)
    assert (values[2], values[3]) == ("", "7")
    assert [row["row"] for row in diagnostics] == ["0", "1", "4"]
    assert "left blank  row 2: without a label" in capsys.readouterr().out
    # And of one class alone: each at its own place in the file.
    completed, diagnostics = call(table / "kinds", text, tmp_path, "--label", "1", "--overwrite")
    assert [row[0] != "" for row in completed[1:]] == [False, True, False, True, True]
    assert [row["row"] for row in diagnostics] == ["1", "4"]


def test_a_table_of_one_column_keeps_each_value_in_its_row(tmp_path):
    (tmp_path / "one.csv").write_text("x\n" + "".join(f"{i % 7}.5\n" for i in range(60)))
    options = ["--likelihood", "Gaussian", "--epochs", "2", "--latent_dim", "1", "--hidden_dims", "[8]"]
    train(["--data", str(tmp_path / "one.csv"), *options, "--run", str(tmp_path / "run")])
    completed, diagnostics = call(tmp_path / "run", 'x\n1.0\n""\n2.0\nNA\n  \n3.0\n', tmp_path)
    assert [completed[i][0] for i in (1, 3, 6)] == ["1.0", "2.0", "3.0"]
    assert all(np.isfinite(float(completed[i][0])) for i in (2, 4, 5))
    assert [row["row"] for row in diagnostics] == ["1", "3", "4"]
