"""What is in a folder, be it a stranger's, is not written through, and survives whatever fails."""

import importlib
import os
import shutil
import sys
from pathlib import Path

import pytest

import pyro_vae
from pyro_vae.commands import train
from pyro_vae.machine.files import write_file

QUICK = ["--epochs", "2", "--hidden_dims", "[8]", "--latent_dim", "2"]
# All commands that write, with what makes them quick; they leave their files in the run folder, or in one within it.
WRITERS = {
    "train": ["--epochs", 3, "--log", "tensorboard"],
    "evaluate": ["--num_samples", 30, "--max_examples", 20],
    "sample": ["--num", 9],
    "reconstruct": ["--max_examples", 9],
    "encode": ["--max_examples", 9],
    "interpolate": ["--between", 0, 1, "--num", 3],
    "manifold": ["--num", 3],
    "impute": ["--hide", "left", "--max_examples", 3, "--num_samples", 20, "--num_starts", 1, "--steps", 2],
    "augment": ["--data", "digits", "--max_examples", 9, "--times", 1],
    "score": ["--num_samples", 5, "--max_examples", 9],
    "classify": ["--num_samples", 5, "--max_examples", 9],
    "report": ["--no_check"],
}
INTO_A_FOLDER = [name for name in WRITERS if name not in ("train", "evaluate", "report")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on labelled digits that every command has been called on, in a folder of that name, or in the run's own."""
    run = tmp_path_factory.mktemp("runs") / "digits"
    train.main([*QUICK, "--condition", "label", "--run", str(run)])
    for name in WRITERS:
        if name != "train":
            call(name, run)
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def call(name, run, *arguments):
    arguments = [str(run), *map(str, [*WRITERS[name], *arguments])]
    if name == "train":
        arguments = ["--resume", *arguments]
    elif name != "classify":
        arguments += ["--label", "3"]
    importlib.import_module(f"pyro_vae.commands.{name}").main(arguments)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, name, run, *arguments):
    """Call a command that must fail; return its one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        call(name, run, *arguments)
    assert exit.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_through_a_link(name, run, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for path in [path for path in run.rglob("*") if path.is_file()]:
        # As a temporary file that could be guessed, and in place of the result.
        path.with_name(f".{path.name}.tmp").symlink_to(mine)
        if path.name not in ("model.safetensors", "state.safetensors", "config.yaml", "summary.json", "metrics.csv"):
            path.unlink()
            path.symlink_to(mine)
    call(name, run, *[] if name == "train" else ["--overwrite"])
    assert mine.read_text() == "mine"


opened = None  # where an audit hook, which stays for good, puts what is opened to write


def _note(event, arguments):
    if opened is not None and event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        opened.append((str(arguments[0]), arguments[2]))


sys.addaudithook(_note)


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_is_written_as_a_new_one(name, run, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "opened", [])
    call(name, run, *[] if name == "train" else ["--overwrite"])
    own = [(path, flags) for path, flags in opened if path.startswith(str(run)) and "tensorboard" not in path]
    assert own
    assert all(flags & os.O_EXCL for _, flags in own), own


@pytest.mark.parametrize("name", INTO_A_FOLDER)
def test_a_link_in_a_run_folder_is_no_folder_to_write_into(name, run, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere"
    (run / name).rename(elsewhere)
    (run / name).symlink_to(elsewhere)
    before = contents(elsewhere)
    line = refused(capsys, name, run, "--overwrite")
    assert f"{run / name}: expected a folder to write into, got a link to {elsewhere}" in line
    assert contents(elsewhere) == before


@pytest.mark.parametrize("name", ["checkpoint", "tensorboard"])
def test_a_training_writes_into_no_link(name, run, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere"
    (run / "checkpoint").rename(elsewhere)
    (run / "checkpoint").symlink_to(elsewhere)
    if name == "tensorboard":
        (run / "checkpoint").rename(run / name)
        shutil.copytree(elsewhere, run / "checkpoint")
    before = contents(elsewhere), contents(run)
    assert f"{run / name}: expected a folder to write into, got a link" in refused(capsys, "train", run)
    assert (contents(elsewhere), contents(run)) == before


def test_a_link_that_the_user_names_is_the_users_own(run, tmp_path, capsys):
    (tmp_path / "latest").symlink_to(run)
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "there")
    call("sample", tmp_path / "latest", "--out", tmp_path / "out")
    assert f"results     {tmp_path / 'there'}  (" in capsys.readouterr().out
    call("train", tmp_path / "latest")
    assert f"run folder  {run}  (" in capsys.readouterr().out
    (tmp_path / "page.html").symlink_to(tmp_path / "there" / "page.html")
    call("report", tmp_path / "latest", "--out", tmp_path / "page.html")
    assert f"page        {tmp_path / 'there' / 'page.html'}  (" in capsys.readouterr().out
    (tmp_path / "model").symlink_to(tmp_path / "there" / "model")
    pyro_vae.save(pyro_vae.load(tmp_path / "latest"), tmp_path / "model")
    assert {"samples.npz", "page.html", "model"} <= {path.name for path in (tmp_path / "there").iterdir()}


def test_a_file_that_is_replaced_has_the_rights_of_a_new_one(tmp_path):
    (tmp_path / "new").touch()
    write_file(tmp_path / "written", "text")
    assert (tmp_path / "written").stat().st_mode == Path(tmp_path / "new").stat().st_mode
