"""What is in a folder, be it a stranger's, is not written through, and survives whatever fails."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pyro_vae
from pyro_vae.commands import train
from pyro_vae.machine.files import TEMPORARY, write_file
from pyro_vae.runs import keeping
from pyro_vae.training.loop import Training
from tests import commands

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


def arguments_of(name, run, *more):
    """Return the arguments of a command on a run, in the way that it needs."""
    arguments = [run, *WRITERS[name], *more]
    if name == "train":
        return ["--resume", *arguments]
    return arguments if name == "classify" else [*arguments, "--label", "3"]


def call(name, run, *more):
    commands.call(name, *arguments_of(name, run, *more))


def refused(capsys, name, run, *more):
    return commands.refused(capsys, name, *arguments_of(name, run, *more))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_through_a_link(name, run, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for path in [path for path in run.rglob("*") if path.is_file()]:
        # As a temporary file that could be guessed, and in place of the result.
        path.with_name(f".{path.name}.tmp").symlink_to(mine)
        # In place of what earlier results are not known by, and no command reads.
        read = path.name in ("metrics.csv", "kept_data.npz")
        if path.suffix not in (".safetensors", ".yaml", ".json", ".html") and not read:
            path.unlink()
            path.symlink_to(mine)
    call(name, run, *[] if name == "train" else ["--overwrite"])
    assert mine.read_text() == "mine"


opened = None  # where an audit hook, which stays for good, puts what is opened to write


def _note(event, arguments):
    if opened is not None and event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        opened.append((str(arguments[0]), arguments[2]))


sys.addaudithook(_note)


@pytest.mark.pictures
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


def fail_at(monkeypatch, number, error=errno.ENOSPC):
    """Let the disk be full at the NUMBERth file that is written from now on; return the count so far."""
    count = [0]

    def fsync(descriptor, original=os.fsync):
        count[0] += 1
        if count[0] == number:
            raise OSError(error, os.strerror(error))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return count


# Of each command, how many files are its data; what fails after them is a picture, which has a warning.
DATA = {"train": 1, "evaluate": 2, "sample": 1, "reconstruct": 1, "encode": 3, "interpolate": 1, "manifold": 1,
        "impute": 2, "augment": 1, "score": 2, "classify": 2, "report": 1}  # fmt: skip


@pytest.mark.pictures
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_loses_nothing(name, run, monkeypatch, capsys):
    overwrite = [] if name == "train" else ["--overwrite", "--seed", 1]
    before = contents(run)
    for number in range(1, DATA[name] + 1):
        error = (errno.ENOSPC, errno.EDQUOT, errno.EIO)[number % 3]
        with monkeypatch.context() as patch:
            fail_at(patch, number, error)
            line = refused(capsys, name, run, *overwrite)
        assert f": {os.strerror(error)}; nothing was replaced" in line
        assert Path(line.split(": ")[1]).parent.is_relative_to(run)  # the file's name
        assert contents(run) == before
    with monkeypatch.context() as patch:
        fail_at(patch, DATA[name] + 1)
        if name not in ("train", "classify", "report"):
            call(name, run, *overwrite)
            assert "warning: " in capsys.readouterr().err
    assert not list(run.rglob(".*"))


def test_what_is_written_in_part_is_removed(run, tmp_path):
    """With a real limit on the size of a file, at a moment that is in the middle of one."""
    before = contents(run)
    code = (
        "import resource, sys\n"
        "from pyro_vae.commands import augment\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "augment.main(sys.argv[1:])"
    )
    arguments = [run, "--data", "digits", "--label", 3, "--times", 1, "--overwrite", "--seed", 1]
    ended = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (
        2,
        f"error: {run}/augment/augmented.npz: File too large; nothing was replaced\n",
    )
    assert contents(run) == before


@pytest.mark.parametrize("how", ["full", "killed", "interrupted"])
@pytest.mark.parametrize("what", [["--overwrite", "--lr", "0.01"], ["--resume", "--epochs", "4"]], ids=lambda a: a[0])
def test_a_run_stays_until_the_first_checkpoint_takes_its_place(what, how, run, monkeypatch, capsys):
    (run / "evaluation-notes.txt").write_text("mine")
    before = contents(run)
    config, metrics = before.pop("config.yaml"), before.pop("metrics.csv")
    option, *more = what
    new = (
        ["--resume", str(run)] if option == "--resume" else [*QUICK, "--condition", "label", "--run", str(run), option]
    )

    def stop(*_, **__):
        raise SystemExit(9) if how == "killed" else KeyboardInterrupt

    with monkeypatch.context() as patch:
        if how == "full":  # at the last file of the first checkpoint
            fail_at(patch, 3 if option == "--overwrite" else 4)
        else:
            patch.setattr(Training, "_train_epoch", stop)
        with pytest.raises(SystemExit):
            train.main([*new, *more])
    after = contents(run)
    assert after.pop("config.yaml") == config or option == "--resume"
    assert after.pop("metrics.csv") == metrics
    assert after == before
    said = f"the run in {run} is as it was" if option == "--overwrite" else "go on from epoch 3 with: python"
    assert said in capsys.readouterr().out or how != "interrupted"
    with monkeypatch.context() as patch:
        patch.setattr(keeping, "finish", stop)
        with pytest.raises(SystemExit):
            train.main([*new, *more])
    gone = {"model.safetensors", "summary.json", "report.html", "evaluation-label-3.json", "evaluation-label-3.nc"}
    assert not gone & contents(run).keys()
    assert (run / "evaluation-notes.txt").exists()
    train.main(["--resume", str(run)])
    assert json.loads((run / "summary.json").read_text())["epochs"] == (2 if option == "--overwrite" else 4)


@pytest.mark.parametrize("moment", [0, 1, 10, 33, 34, 35, 36, 37])  # of 38: 35 files go, three take their places
def test_a_kill_while_a_run_is_replaced_leaves_the_one_run_or_the_other(moment, run, tmp_path, monkeypatch):
    new = [*QUICK, "--condition", "label", "--likelihood", "ContinuousBernoulli", "--pixels", "grey", "--seed", "1"]
    train.main([*new, "--run", str(tmp_path / "other")])

    def trained_as(run):
        losses = [line.split(",")[:5] for line in (run / "metrics.csv").read_text().splitlines()]
        return (run / "model.safetensors").read_bytes(), losses

    either = trained_as(run), trained_as(tmp_path / "other")
    steps = [0]

    def killed(name, original):
        def step(path, *arguments, **options):
            steps[0] += name == "replace" or path.suffix != ".tmp"
            if steps[0] > moment:
                raise SystemExit(9)
            return original(path, *arguments, **options)

        return step

    with monkeypatch.context() as patch:
        for name in ("unlink", "replace"):
            patch.setattr(Path, name, killed(name, getattr(Path, name)))
        with pytest.raises(SystemExit):
            train.main([*new, "--run", str(run), "--overwrite"])
    if moment:  # otherwise the one run is whole
        train.main(["--resume", str(run)])
    assert trained_as(run) in either


def test_what_a_killed_training_was_writing_is_removed(run):
    for folder in (run, run / "checkpoint"):
        (folder / TEMPORARY.format("0123")).write_text("half")
    call("train", run)
    assert not list(run.rglob(".*"))


def test_a_command_to_go_on_with_is_quoted_for_a_shell(tmp_path, monkeypatch, capsys):
    """A run folder is called after its data, and these by whoever made them."""

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_train_epoch", stop)
    run = tmp_path / "x$(touch PWNED)"
    with pytest.raises(SystemExit):
        train.main([*QUICK, "--run", str(run)])
    assert f"python -m pyro_vae.train --resume '{run}'\n" in capsys.readouterr().out
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "state.safetensors").touch()
    with pytest.raises(FileNotFoundError, match=r"--resume '.*x\$\(touch PWNED\)'"):
        pyro_vae.load(run)
