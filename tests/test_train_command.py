"""The command line: what it writes, what it refuses, and how it survives being killed."""

import contextlib
import csv
import importlib
import io
import itertools
import json
import math
import os
import random
import re
import signal
import sys
import time
import types
import warnings

import numpy as np
import pyro
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import pyro_vae
from pyro_vae.commands.cli import command
from pyro_vae.commands.train import main
from pyro_vae.runs import keeping
from pyro_vae.runs.opening import run_data
from tests import commands
from tests.processes import CONTEXT, run_script

UPDATE = keeping.Checkpoints.update

QUICK = ["--epochs", "2", "--hidden_dims", "[16]", "--latent_dim", "2"]


def train(*arguments):
    commands.call("train", *arguments)


def refused(capsys, *arguments, status=2):
    return commands.refused(capsys, "train", *arguments, status=status)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "digits"
    train(*QUICK, "--run", run)
    return run


def test_the_run_folder(run):
    names = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert names == {
        "config.yaml", "model.safetensors", "checkpoint/state.safetensors", "metrics.csv", "summary.json",
        "kept_data.npz", "samples.png", "reconstructions.png", "curves.png",
    }  # fmt: skip
    summary = json.loads((run / "summary.json").read_text())
    assert summary["data"] == "digits"
    assert summary["pixels"] == "binarized"
    assert summary["prior"] == "pyro_vae.priors.StandardNormal"
    assert summary["epochs"] == 2
    assert -35 < summary["test_elbo"] < -20
    assert 0 < summary["test_elbo_se"] < 1
    expected = (
        "data pixels prior encoder likelihood objective epochs seed train_elbo test_elbo test_elbo_se seconds "
        "examples_per_second device versions"
    )
    assert set(expected.split()) <= summary.keys()
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for name in ("samples", "reconstructions", "curves"):
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_model_loads_and_gives_the_figure_in_the_summary(run):
    vae = pyro_vae.load(run)
    test = pyro_vae.data.load("digits").test
    reconstruction, kl = pyro_vae.objectives.elbo_terms(vae.model, vae.guide, test)
    assert (reconstruction - kl).mean().item() == pytest.approx(
        json.loads((run / "summary.json").read_text())["test_elbo"]
    )
    state = load_file(run / "checkpoint" / "state.safetensors")
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, state[f"weights/{name}"])


def test_the_configuration_repeats_the_run(run, tmp_path):
    train("--config", run / "config.yaml", "--run", tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "config.yaml").read_text() == (run / "config.yaml").read_text()


def test_a_finished_run_can_be_trained_longer(run, tmp_path):
    train(*QUICK, "--run", tmp_path / "short")
    train("--resume", tmp_path / "short", "--epochs", "4")
    train(*QUICK, "--epochs", "4", "--run", tmp_path / "long")
    assert (tmp_path / "short" / "model.safetensors").read_bytes() == (
        tmp_path / "long" / "model.safetensors"
    ).read_bytes()
    assert yaml.safe_load((tmp_path / "short" / "config.yaml").read_text())["epochs"] == 4


def test_data_fewer_than_a_batch_are_one_batch(tmp_path):
    np.savetxt(tmp_path / "table.csv", np.random.default_rng(0).normal(size=(60, 3)), delimiter=",")
    options = [
        "--data",
        tmp_path / "table.csv",
        "--likelihood",
        "Gaussian",
        "--hidden_dims",
        "[4]",
        "--latent_dim",
        "1",
    ]
    train(*options, "--epochs", "2", "--run", tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["batch_size"] == len(run_data(tmp_path / "run").train) < 60
    train("--resume", tmp_path / "run", "--epochs", "3")


def update_each_epoch(self, now):
    UPDATE(self, now=True)


def silently(arguments):
    """Train in a process of its own, with a checkpoint each epoch."""
    keeping.Checkpoints.update = update_each_epoch
    with contextlib.redirect_stdout(io.StringIO()):
        train(*arguments)


def test_a_killed_training_goes_on_as_if_nothing_had_happened(run, tmp_path):
    """Ten times at a random moment, with a real process and the signal that can't be caught."""
    options = ["--epochs", "100", "--hidden_dims", "[32]", "--ema_decay", "0.99", "--batch_size", "50"]
    start = time.monotonic()
    train(*options, "--run", tmp_path / "whole")
    seconds = time.monotonic() - start  # as long as in the other processes, since the first run has imported all
    moments, kills = random.Random(0), 0
    broken = tmp_path / "broken"
    while kills < 10:
        arguments = ["--resume", broken] if (broken / "config.yaml").exists() else [*options, "--run", broken]
        process = CONTEXT.Process(target=silently, args=(arguments,))
        process.start()
        # It is somewhere before, in or after training, or in writing a checkpoint or the results.
        process.join(moments.uniform(0.1, 0.3) * seconds)
        finished = not process.is_alive()
        process.kill()
        process.join()
        kills += 1
        if finished:
            break
    if not (broken / "model.safetensors").exists():
        train("--resume", broken)
    assert kills == 10
    for name in ("model.safetensors", "checkpoint/state.safetensors"):
        whole, again = (load_file(tmp_path / which / name) for which in ("whole", "broken"))
        assert whole.keys() == again.keys()
        assert all(torch.equal(whole[key], again[key]) for key in whole)


def killed_within_an_epoch(arguments, number):
    """Train with a checkpoint after every step, but none between epochs, until the process is killed in a step."""
    keeping.Checkpoints.update = lambda self, now: None
    keeping.Checkpoints.__init__.__kwdefaults__["within"] = 0.0
    count = itertools.count(1)

    def step(svi, *batch, step=pyro.infer.SVI.step, **options):
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(svi, *batch, **options)

    pyro.infer.SVI.step = step
    with contextlib.redirect_stdout(io.StringIO()):
        train(*arguments)


def test_a_training_that_is_killed_within_an_epoch_goes_on_from_there(tmp_path):
    options = ["--epochs", "2", "--hidden_dims", "[16]", "--latent_dim", "2", "--batch_size", "20"]  # 50 steps each
    train(*options, "--run", tmp_path / "whole")
    run, places = tmp_path / "broken", []
    for number, arguments in ((31, [*options, "--run", run]), (40, ["--resume", run])):
        process = CONTEXT.Process(target=killed_within_an_epoch, args=(arguments, number))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        with safe_open(run / "checkpoint" / "state.safetensors", "pt") as file:
            facts = json.loads(file.metadata()["pyro_vae"])
        places.append((facts["epoch"], facts["within"]["step"]))
    assert places == [(0, 30), (1, 19)]
    train("--resume", run)
    for name in ("model.safetensors", "checkpoint/state.safetensors"):
        whole, broken = (load_file(tmp_path / which / name) for which in ("whole", "broken"))
        assert whole.keys() == broken.keys()
        assert all(torch.equal(whole[key], broken[key]) for key in whole)
    metrics = [(path / "metrics.csv").read_text().splitlines() for path in (tmp_path / "whole", run)]
    assert len({str([row.split(",")[:5] for row in rows]) for rows in metrics}) == 1


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch, capsys):
    train(*QUICK, "--epochs", "6", "--run", tmp_path / "whole")
    steps = 0

    def interrupted(self, *batch, step=pyro.infer.SVI.step, **options):
        nonlocal steps
        steps += 1
        if steps == 28:  # in the middle of the fourth epoch
            raise KeyboardInterrupt
        return step(self, *batch, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pyro.infer.SVI, "step", interrupted)
        patch.setattr(keeping.Checkpoints, "update", update_each_epoch)
        with pytest.raises(SystemExit) as exit:
            train(*QUICK, "--epochs", "6", "--run", tmp_path / "broken")
    assert exit.value.code == 130
    assert "go on from epoch 4 with" in capsys.readouterr().out
    train("--resume", tmp_path / "broken")
    for name in ("model.safetensors", "checkpoint/state.safetensors"):
        whole, broken = (load_file(tmp_path / which / name) for which in ("whole", "broken"))
        assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_a_longer_training_leaves_no_results_of_the_shorter_one(tmp_path, monkeypatch):
    train(*QUICK, "--run", tmp_path)
    importlib.import_module("pyro_vae.commands.evaluate").main([str(tmp_path), "--num_samples", "5"])
    with monkeypatch.context() as patch:
        patch.setattr(keeping, "finish", lambda *args: sys.exit(9))  # as if killed before the results are written
        with pytest.raises(SystemExit):
            train("--resume", tmp_path, "--epochs", "3")
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "evaluation.json").exists()
    train("--resume", tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["epochs"] == 3


@pytest.mark.pictures
def test_a_few_images_are_enough(tmp_path):
    np.save(tmp_path / "few.npy", np.random.default_rng(0).random((40, 6, 5)))
    train("--data", tmp_path / "few.npy", "--batch_size", "8", *QUICK, "--run", tmp_path / "run")
    assert (tmp_path / "run" / "reconstructions.png").exists()


def test_data_that_changed_are_refused(tmp_path, capsys):
    x = np.random.default_rng(0).random((300, 6, 5))
    np.save(tmp_path / "images.npy", x)
    train("--data", tmp_path / "images.npy", *QUICK, "--run", tmp_path / "run")
    np.save(tmp_path / "images.npy", x[:-5])
    assert "has changed (train) since" in refused(capsys, "--resume", tmp_path / "run", "--epochs", "3")
    with pytest.raises(ValueError, match=r"has changed \(train\) since"):
        run_data(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()  # as of a run that is not finished
    assert "training data are not those" in refused(capsys, "--resume", tmp_path / "run", "--epochs", "3")


PARTS_OF_DATA = {
    "train": "x_train", "validation": "x_train", "test": "x_test",
    "train labels": "y_train", "validation labels": "y_train", "test labels": "y_test",
}  # fmt: skip
LABELLED = ["--condition", "label"]


@pytest.mark.parametrize(
    ("part", "conditional"),
    [*itertools.product(PARTS_OF_DATA, [[], LABELLED, [*LABELLED, "--num_labels", "20"]])],
    ids=str,
)
def test_a_change_of_any_part_of_the_data_is_said(part, conditional, tmp_path, capsys):
    rng = np.random.default_rng(0)
    arrays = {f"x_{split}": rng.random((size, 6)).astype(np.float32) for split, size in (("train", 100), ("test", 20))}
    arrays |= {f"y_{split}": np.arange(size) % 3 for split, size in (("train", 100), ("test", 20))}
    path, run = tmp_path / "data.npz", tmp_path / "run"
    np.savez(path, **arrays)
    train("--data", path, "--likelihood", "Gaussian", *QUICK, *conditional, "--run", run)
    assert len(run_data(run).train) == 90  # the same
    split = part.split()[0]
    some = getattr(pyro_vae.data.load(str(path), pixels="raw"), split)[0].numpy()
    row = int((arrays[PARTS_OF_DATA[split]] == some).all(1).argmax())
    if "labels" in part:
        arrays[PARTS_OF_DATA[part]][row] += 1
    else:
        arrays[PARTS_OF_DATA[part]][row, 0] += 0.01
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=rf"has changed \({part}\) since .* was trained on it"):
        run_data(run)
    assert f"has changed ({part}) since" in refused(capsys, "--resume", run, "--epochs", "3")


def test_other_names_of_columns_are_other_data(tmp_path):
    table = "\n".join(["a,b", *(f"{row},{row % 7}" for row in range(100))])
    (tmp_path / "table.csv").write_text(table)
    train("--data", tmp_path / "table.csv", "--likelihood", "Gaussian", *QUICK, "--run", tmp_path / "run")
    (tmp_path / "table.csv").write_text(table.replace("a,b", "b,a"))
    with pytest.raises(ValueError, match=r"has changed \(names of columns\) since"):
        run_data(tmp_path / "run")


def test_a_run_with_the_fingerprint_of_earlier_versions_opens(tmp_path, capsys):
    x = np.random.default_rng(0).random((300, 5)).astype(np.float32)
    np.save(tmp_path / "table.npy", x)
    train("--data", tmp_path / "table.npy", "--likelihood", "Gaussian", *QUICK, "--run", tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    summary["data_fingerprint"] = summary["data_fingerprint"]["train"]
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    first = run_data(tmp_path / "run").train[0]
    changed = x.copy()
    changed[(x == first.numpy()).all(1).argmax()] += 1
    np.save(tmp_path / "table.npy", changed)
    with pytest.raises(ValueError, match="has changed"):
        run_data(tmp_path / "run")
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary | {"data_fingerprint": 7}))
    with pytest.raises(ValueError, match=r"summary.json: data_fingerprint: expected str or dict, got 7"):
        run_data(tmp_path / "run")


def test_columns_from_the_command_line(tmp_path):
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.normal(size=(400, 2)), rng.poisson(3.0, 400), rng.integers(0, 2, 400)])
    np.savetxt(tmp_path / "table.csv", table, delimiter=",", header="a,b,count,flag", comments="")
    groups = "[[2, Gaussian], [1, Poisson], [1, Bernoulli]]"
    train("--data", tmp_path / "table.csv", "--likelihood", "Columns", "--likelihood.groups", groups, *QUICK,
          "--run", tmp_path / "run")  # fmt: skip
    samples = pyro_vae.load(tmp_path / "run").sample(100)
    assert set(samples[:, 3].tolist()) <= {0.0, 1.0}
    train("--config", tmp_path / "run" / "config.yaml", "--run", tmp_path / "again")


def test_levels_are_not_trained_on_binarized_pixels(run, capsys, tmp_path):
    line = refused(capsys, "--config", run / "config.yaml", "--likelihood", "Categorical", "--run", tmp_path / "run")
    assert "--pixels levels" in line


def test_metrics_go_to_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(*QUICK, "--run", tmp_path, "--log", "tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    logged = [event.value for event in events.Scalars("elbo")]
    assert logged == pytest.approx([float(row["elbo"]) for row in rows])


def test_own_data(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.random((400, 6, 5)))
    train("--data", tmp_path / "images.npy", *QUICK, "--run", tmp_path / "images")
    assert pyro_vae.load(tmp_path / "images").sample(3).shape == (3, 30)
    table = rng.normal(size=(400, 3)) * [1, 10, 100] + 5
    np.savetxt(tmp_path / "table.csv", table, delimiter=",", header="a,b,c", comments="")
    train("--data", tmp_path / "table.csv", "--likelihood", "Gaussian", *QUICK, "--run", tmp_path / "table")
    assert yaml.safe_load((tmp_path / "table" / "config.yaml").read_text())["pixels"] == "raw"


REFUSALS = [
    (["--data", "nope"], "data='nope'"),
    (["--data", "nope.csv"], "nope.csv"),
    (["--data", "mixed.txt"], "mixed.txt"),
    (["--data", "fake.npy"], "fake.npy"),
    (["--data", "nan.npy"], "nan.npy"),
    (["--data", "inf.csv"], "inf.csv"),
    (["--data", "bytes.npy"], "--levels 256"),
    (["--data", "bytes.npy", "--likelihood", "Gaussian"], "--levels 256"),
    (["--data", "empty.npy"], "empty.npy"),
    (["--data", "few.npy", "--batch_size", "128"], "batch_size"),
    (["--data", "cube.npy"], "cube.npy"),
    (["--data", "table.npy", "--likelihood", "Bernoulli", "--pixels", "raw"], "Bernoulli takes zeros and ones"),
    (["--data", "table.npy", "--likelihood", "Gaussian", "--network", "conv"], "network"),
    (["--pixels", "nope"], "pixels"),
    (["--epochs", "0"], "epochs"),
    (["--epochs", "-3"], "epochs"),
    (["--epochs", "x"], "--epochs"),
    (["--lr", "0"], "lr"),
    (["--lr", "-1"], "lr"),
    (["--batch_size", "0"], "batch_size"),
    (["--batch_size", "5000"], "batch_size"),
    (["--latent_dim", "0"], "latent_dim"),
    (["--hidden_dims", "[-1]"], "hidden_dims"),
    (["--validation", "-1"], "validation"),
    (["--patience", "-1"], "patience"),
    (["--device", "cuda:77"], "device"),
    (["--device", "nope"], "device"),
    (["--prior", "Nope"], "Nope"),
    (["--prior", "StandardNormal", "--prior.nope", "3"], "nope"),
    (["--likelihood", "nope.Nope"], "nope.Nope"),
    (["--nope", "3"], "--nope"),
    (["--config", "nope.yaml"], "nope.yaml"),
    (["--config", "broken.yaml"], "nope"),
    (["--resume", "nope"], "nope"),
    (["--run", "file/run"], "file/run"),
    (["--run", "file"], "file"),
    (["--run", "folder"], "folder"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng(0)
    for name, array in {
        "nan": np.full((400, 4), np.nan),
        "bytes": rng.integers(0, 256, (400, 4, 4)),
        "empty": np.zeros((0, 4)),
        "few": rng.random((20, 4)),
        "cube": np.zeros((3, 4, 5, 6, 7)),
        "table": rng.normal(size=(400, 4)),
    }.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "mixed.txt").write_text("hello")
    (folder / "fake.npy").write_text("hello")
    (folder / "inf.csv").write_text("a,b\n" + "".join(f"{row},{row}\n{row},inf\n" for row in range(50)))
    (folder / "broken.yaml").write_text("nope: 3\n")
    (folder / "file").write_text("mine")
    (folder / "folder").mkdir()
    (folder / "folder" / "mine.txt").write_text("mine")
    return folder


@pytest.mark.parametrize(("arguments", "message"), REFUSALS, ids=lambda a: " ".join(a) if isinstance(a, list) else "")
def test_a_mistake_is_one_clear_line_and_nothing_is_written(arguments, message, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    if "--epochs" not in arguments:
        arguments = ["--epochs", "1", *arguments]
    assert message in refused(capsys, *arguments)
    assert sorted(folder.rglob("*")) == before
    assert (folder / "file").read_text() == (folder / "folder" / "mine.txt").read_text() == "mine"


def test_a_run_is_not_overwritten(run, capsys, tmp_path):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    line = refused(capsys, *QUICK, "--run", run)
    assert "--resume" in line
    assert "--overwrite" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_overwrite_replaces_a_run(tmp_path):
    train(*QUICK, "--run", tmp_path)
    first = (tmp_path / "model.safetensors").read_bytes()
    train(*QUICK, "--run", tmp_path, "--overwrite", "--seed", "1")
    assert (tmp_path / "model.safetensors").read_bytes() != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "0.1", "--epochs", "4"], "--lr 0.1 contradicts the run's own 0.001"),
        (["--likelihood", "Binomial"], "--likelihood pyro_vae.likelihoods.Binomial contradicts"),
        (["--epochs", "1"], "--epochs 1 contradicts"),
        (["--run", "elsewhere"], "leave out --run"),
        ([], "is finished, after epoch 2"),
    ],
)
def test_a_resumed_run_does_not_change(run, capsys, arguments, message):
    assert message in refused(capsys, "--resume", run, *arguments)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "other", "text"])
def test_a_bad_checkpoint(run, capsys, tmp_path, damage):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    state = tmp_path / "run" / "checkpoint" / "state.safetensors"
    if damage == "truncated":
        state.write_bytes(state.read_bytes()[:1000])
    elif damage == "foreign":
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(3)}, state)
    elif damage == "other":
        train(*QUICK, "--latent_dim", "3", "--run", tmp_path / "other")
        shutil.copy(tmp_path / "other" / "checkpoint" / "state.safetensors", state)
    else:
        state.write_text("hello")
    before = state.read_bytes()
    assert "state.safetensors" in refused(capsys, "--resume", tmp_path / "run", "--epochs", "4")
    assert state.read_bytes() == before


def test_a_download_that_fails(capsys, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("Error downloading train-images")

    torchvision = types.ModuleType("torchvision")
    torchvision.datasets = types.SimpleNamespace(MNIST=fails)
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    line = refused(capsys, "--data", "mnist", "--data_dir", tmp_path / "cache", "--run", tmp_path / "run")
    assert "digits" in line
    assert not (tmp_path / "run").exists()


def test_torchvision_is_needed_for_its_downloads_alone(tmp_path):
    broken, images = tmp_path / "broken", tmp_path / "images"
    broken.mkdir()
    images.mkdir()
    for number, image in enumerate(np.random.default_rng(0).integers(0, 256, (20, 4, 4), np.uint8)):
        Image.fromarray(image).save(images / f"{number}.png")
    (broken / "torchvision.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    code = f"""
from pyro_vae.commands import evaluate
from pyro_vae.commands import report
from pyro_vae.commands import train

run = {str(tmp_path / "run")!r}
train.main([*{QUICK}, "--run", run])
evaluate.main([run, "--num_samples", "10", "--max_examples", "9"])
report.main([run, "--no_check"])
train.main([*{QUICK}, "--data", {str(images)!r}, "--run", run + "-images"])
train.main(["--data", "mnist"])
"""
    (broken / "script.py").write_text(code)
    ended = run_script(broken / "script.py", folder=tmp_path)
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run-images" / "summary.json").exists()
    assert ended.returncode == 2  # of the last
    assert "it does not import: operator torchvision::nms does not exist" in ended.stderr.splitlines()[-1]


@pytest.mark.pictures
def test_pictures_that_fail_leave_the_figures(tmp_path, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise MemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr("pyro_vae.plotting.curves", fail)
        train(*QUICK, "--run", tmp_path)
    output = capsys.readouterr()
    assert "warning: samples.png, reconstructions.png, curves.png could not be written (MemoryError" in output.err
    assert "test ELBO" in output.out
    assert "test_elbo" in json.loads((tmp_path / "summary.json").read_text())
    train("--resume", tmp_path)  # draws them
    assert (tmp_path / "curves.png").exists()


def test_a_warning_is_one_line(capsys):
    @command
    def warns(argv):
        print(warnings.formatwarning("of two\nlines", UserWarning, "file.py", 3), end="")

    warns([])
    assert capsys.readouterr().out == "warning: of two; lines\n"


def test_a_loss_that_turns_non_finite_keeps_the_last_good_checkpoint(capsys, tmp_path):
    line = refused(capsys, *QUICK, "--lr", "1e30", "--run", tmp_path / "run", status=1)
    assert "epoch 1, step" in line
    assert "smaller lr" in line
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_foreign_model_file(tmp_path):
    (tmp_path / "model.safetensors").write_text("hello")
    with pytest.raises(ValueError, match="truncated, or no safetensors file"):
        pyro_vae.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="doesn't exist"):
        pyro_vae.load(tmp_path / "nope")


def test_a_model_file_takes_no_more_memory_than_it_holds(tmp_path):
    from safetensors.torch import save_file

    config = {"x_shape": [1, 1000, 1000], "hidden_dims": [10**9]}
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", {"pyro_vae": json.dumps(config)})
    with pytest.raises(ValueError, match="belongs to another model"):
        pyro_vae.load(tmp_path)


def test_over_fitting_is_stopped_or_else_said_and_stored(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 2)) @ rng.normal(size=(2, 8)) + 0.5 * rng.normal(size=(100, 8))
    np.savetxt("rows.csv", rows, delimiter=",", header="a,b,c,d,e,f,g,h", comments="")
    likelihood = ["--likelihood", "Gaussian", "--likelihood.scale", "predicted"]
    options = [
        "--data",
        "rows.csv",
        "--test",
        "30",
        "--validation",
        "20",
        "--epochs",
        "800",
        "--lr",
        "4e-3",
        *likelihood,
    ]
    main([*options, "--run", "stopped"])
    stopped = capsys.readouterr().out
    main([*options, "--run", "overfitted", "--patience", "0"])
    overfitted = capsys.readouterr().out
    assert re.search(r"weights +of epoch \d+, .*; stopped after epoch \d+, 160 epochs without a rise", stopped)
    assert "weights   " not in overfitted
    summaries = [json.loads((tmp_path / run / "summary.json").read_text()) for run in ("stopped", "overfitted")]
    assert summaries[0]["test_elbo"] > summaries[1]["test_elbo"] + 5
    (warning,) = summaries[1]["warnings"]
    assert warning.startswith("over-fitting")
    assert f"warning     {warning}" in overfitted


def test_a_single_classified_example_has_no_standard_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = np.column_stack([np.random.default_rng(0).random((12, 3)), np.arange(12) % 2])
    np.savetxt("few.csv", table, delimiter=",", header="a,b,c,y", comments="")
    train("--data", "few.csv", "--likelihood", "Gaussian", *QUICK, "--condition", "y", "--run", "run")
    capsys.readouterr()
    for name in ("classify", "evaluate"):
        importlib.import_module(f"pyro_vae.commands.{name}").main(["run", "--num_samples", "30"])
        assert "±" not in capsys.readouterr().out
    for path in ("classify/classes.json", "evaluation-classes.json"):
        found = json.loads((tmp_path / "run" / path).read_text(), parse_constant=pytest.fail)
        assert found["log_joint_se"] is found["classification"]["accuracy_se"] is None


def test_figures_that_are_not_finite_are_null_in_the_summary(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "summarize", lambda *_: {"test_elbo": -math.inf, "warnings": [], "nested": [math.nan]})
    monkeypatch.setattr("pyro_vae.commands.train._conclude", lambda *_: None)
    train(*QUICK, "--run", tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["test_elbo"] is summary["nested"][0] is None


@pytest.mark.parametrize("rows", [4, 12])
def test_a_few_rows_are_enough_for_every_command(rows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savetxt("few.csv", np.random.default_rng(0).random((rows, 3)), delimiter=",", header="a,b,c", comments="")
    main(["--data", "few.csv", "--likelihood", "Gaussian", "--epochs", "2", "--run", "run"])
    assert "(a lower bound on log P(X); one example, so without a standard error)" in capsys.readouterr().out
    for name, *options in (
        ("evaluate", "--num_samples", "20"),
        ("score", "--data", "few.csv", "--level", "0.5"),
        ("encode",),
        ("reconstruct",),
        ("report", "--no_check"),
    ):
        importlib.import_module(f"pyro_vae.commands.{name}").main(["run", *options])
        printed = capsys.readouterr()
        assert not re.search(r"\b(nan|inf)\b", printed.out), printed.out
        assert printed.err == ""
