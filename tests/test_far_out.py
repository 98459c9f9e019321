"""One value that stands for a missing one, such as 9.97e36: named wherever it is read, and no harm to the rest."""

import json
import math

import numpy as np
import pytest
import torch

from pyro_vae import data
from pyro_vae.commands import encode, evaluate, reconstruct, report, score
from pyro_vae.commands.train import main as train
from pyro_vae.data import SPLIT_SEED
from pyro_vae.data.source import far_out
from pyro_vae.networks import Standardize

NAMED = r"1 of 900 values are far out of their columns \(row {}, column b: 9.97e\+36\)"


def test_what_is_far_out():
    x = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0))
    x[:, 1] = (2 * x[:, 1]).exp()  # heavy tails are none
    x[:, 2] = 0.0
    x[:3, 2] = torch.tensor([1.0, 50.0, 9.97e36])  # rare values are none either
    x[7, 0], x[9, 3] = -9999.0, torch.nan
    assert far_out(x).nonzero().tolist() == [[2, 2], [7, 0]]
    few = torch.tensor([[1.0], [2.0], [3.0], [2.5], [9.97e36]])
    assert far_out(few).nonzero().tolist() == [[4, 0]]


def test_no_encoder_sees_more_than_it_can_take():
    layer = Standardize(2)
    layer.initialize(torch.tensor([[1.0, 0.0], [3.0, 2.0]]))
    usual = torch.tensor([[2.5, -40.0]])
    torch.testing.assert_close(layer(usual), (usual - layer.loc) / layer.scale)
    assert layer(torch.tensor([[9.97e36, -math.inf]])).tolist() == [[1e6, -1e6]]


def test_encoders_see_columns_of_any_size():
    x = torch.randn(500, 6) * torch.tensor([1e-12, 1e-7, 1e-3, 1.0, 1e9, 0.0]) + torch.tensor([0.0, 0, 0, 0, 0, 0.1])
    layer = Standardize(6)
    layer.initialize(x)
    seen = layer(x)
    torch.testing.assert_close(seen[:, :5].std(0), torch.ones(5))
    assert seen[:, 5].abs().max() <= 1


def table(path, *cells):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 1)) + 0.1 * rng.normal(size=(300, 3))
    for row in cells:
        x[row, 1] = 9.97e36
    np.savetxt(path, x, delimiter=",", header="a,b,c", comments="", fmt="%.6g")
    return str(path)


QUICK = ["--likelihood", "Gaussian", "--epochs", "3", "--latent_dim", "2", "--hidden_dims", "[8]"]
FEW = ["--num_samples", "30"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("far_out")
    train(["--data", table(folder / "clean.csv"), *QUICK, "--run", str(folder / "run")])
    return folder / "run"


def call(command, run, *options):
    command.main([str(run), *map(str, options)])


@pytest.mark.parametrize("proposal", ["encoder", "Refined", "Laplace"])
def test_score_and_evaluate_name_the_cell_and_go_on(run, tmp_path, proposal, capsys):
    marked = table(tmp_path / "marked.csv", 7)
    options = ["--data", marked, *FEW, *([] if proposal == "encoder" else ["--proposal", proposal])]
    with pytest.warns(UserWarning, match=NAMED.format(8)):
        call(score, run, *options, "--out", tmp_path / "score")
    assert "the model gives no density (-inf)" in capsys.readouterr().out
    found = json.loads((tmp_path / "score" / "scores.json").read_text(), parse_constant=pytest.fail)
    assert found["log_evidence"] is None
    assert (tmp_path / "score" / "scores.png").exists()
    line = (tmp_path / "score" / "scores.csv").read_text().splitlines()[8].split(",")
    assert line[:2] == ["7", "-inf"]

    with pytest.warns(UserWarning, match=NAMED.format(8)):
        call(evaluate, run, *options, "--name", "m", "--overwrite")
    assert "to index 7 the model gives no density" in capsys.readouterr().out
    found = json.loads((run / "evaluation-m.json").read_text(), parse_constant=pytest.fail)
    assert (found["log_evidence"], found["num_impossible"], found["num_examples"]) == (None, 1, 300)
    assert (run / "evaluation-m.png").exists()
    assert (run / "evaluation-m.nc").exists()


@pytest.mark.parametrize("command", [encode, reconstruct], ids=["encode", "reconstruct"])
def test_the_other_rows_are_as_without_it(run, tmp_path, command):
    results = []
    for name, cells in (("clean", ()), ("marked", (7,))):
        with pytest.warns(UserWarning, match=NAMED.format(8)) if cells else _nothing():
            call(command, run, "--data", table(tmp_path / f"{name}.csv", *cells), "--out", tmp_path / name)
        results.append(np.load(next((tmp_path / name).glob("*.npz"))))
    key = "loc" if command is encode else "reconstruction"
    others = np.arange(300) != 7
    np.testing.assert_array_equal(results[0][key][others], results[1][key][others])
    assert np.isfinite(results[1][key]).all()
    assert len([*(tmp_path / "marked").glob("*.png")]) == 1


def _nothing():
    import contextlib

    return contextlib.nullcontext()


def test_training_names_the_cell(tmp_path, capsys):
    order = torch.randperm(300, generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    to_train, to_test = order[0], order[-1]
    with pytest.warns(UserWarning, match=NAMED.format(to_train + 1)), pytest.raises(SystemExit):
        train(["--data", table(tmp_path / "train.csv", to_train), *QUICK, "--run", str(tmp_path / "stopped")])
    assert (
        "the data hold values whose squares are too large to compute with, such as 9.97e+36" in capsys.readouterr().err
    )
    # Where it is in a row to test on, the training is fine, and what follows it works.
    for command, *options in (
        (None, "--data", table(tmp_path / "test.csv", to_test), *QUICK, "--run"),
        (evaluate, *FEW),
        (report, "--no_check"),
    ):
        main = train if command is None else command.main
        told = "1 test rows with values far out are left out" if command is report else NAMED.format(to_test + 1)
        with pytest.warns(UserWarning, match=told):
            main([*options, str(tmp_path / "run")])
    assert {"samples.png", "reconstructions.png", "curves.png", "evaluation.png", "report.html"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_python_names_the_cell_too(tmp_path):
    with pytest.warns(UserWarning, match=NAMED.format(8)):
        data.load(table(tmp_path / "marked.csv", 7))
