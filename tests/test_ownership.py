"""Nothing of the user's is lost: what is replaced was asked for and is the program's own, by one process at a time."""

import contextlib
import datetime
import errno
import importlib
import io
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
import yaml

import pyro_vae
from pyro_vae.commands import evaluate, train
from pyro_vae.machine import lock
from pyro_vae.machine.lock import LOCK, taken
from pyro_vae.runs.folder import results
from tests import commands
from tests.processes import CONTEXT
from tests.test_files import INTO_A_FOLDER, QUICK, WRITERS, call, contents, refused


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on labelled digits that every command has been called on."""
    run = tmp_path_factory.mktemp("runs") / "digits"
    train.main([*QUICK, "--condition", "label", "--run", str(run)])
    for name in WRITERS:
        if name != "train":
            call(name, run)
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


# What a run is


@pytest.mark.parametrize("gone", [[], ["model.safetensors"], ["model.safetensors", "summary.json"]], ids=str)
def test_a_run_whose_checkpoint_is_gone_is_not_trained_anew(gone, run, capsys):
    shutil.rmtree(run / "checkpoint")
    for name in gone:
        (run / name).unlink()
    before = contents(run)
    for more in ([], ["--epochs", "3"]):
        line = commands.refused(capsys, "train", "--resume", run, *more)
        assert "but no checkpoint/state.safetensors to go on from; train anew with --config" in line
        assert contents(run) == before
    train.main(["--config", str(run / "config.yaml"), "--run", str(run), "--overwrite"])
    assert (run / "model.safetensors").exists()


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(run, tmp_path, capsys):
    (tmp_path / "killed").mkdir()
    for name in ("config.yaml", ".lock"):
        shutil.copy(run / "config.yaml", tmp_path / "killed" / name)
    assert "--resume" in commands.refused(capsys, "train", *QUICK, "--run", tmp_path / "killed")
    train.main(["--resume", str(tmp_path / "killed")])
    assert contents(tmp_path / "killed").keys() >= {"model.safetensors", "config.yaml"}


@pytest.mark.parametrize(
    ("config", "others"),
    [
        ("a: 1", ["mine.txt"]),
        ("epochs: 3\nlr: 0.1", []),  # options of the user's own, as --config takes them
        ("[", ["metrics.csv"]),
        ("- epochs", ["summary.json", "evaluation.json"]),
        (None, ["evaluation_notes.txt"]),  # as of a run
    ],
    ids=str,
)
def test_a_folder_is_a_run_by_what_it_holds(config, others, run, tmp_path, capsys):
    there = tmp_path / "there"
    there.mkdir()
    (there / "config.yaml").write_text((run / "config.yaml").read_text() if config is None else config)
    for name in others:
        (there / name).write_text("mine")
    before = contents(there)
    assert "is no run folder; name another" in commands.refused(capsys, "train", *QUICK, "--run", there, "--overwrite")
    assert contents(there) == before


# What is the program's own


# In a run folder, and in that of each command; all are named like what the program writes.
OF_THE_USERS = [
    "evaluation_notes.txt", "evaluation-notes.txt", "evaluation.txt", "evaluations.csv", "evaluation-mine.csv",
    "evaluation-mine.png", "evaluation-mine.json", "evaluation-label-3.npz", "evaluation-label-3-notes.csv",
    "samples.json", "samples.npy", "completed-by-hand.csv", "completed-1-checked.csv", "traversals.json", "scores.nc",
    "checkpoint/mine.safetensors", "tensorboard/mine", "notes/samples.npz", "config.yaml.bak",
]  # fmt: skip


def with_files_of_the_users(run):
    """Put these into a run folder; return what is in it of them."""
    for place in (run, *(run / name for name in INTO_A_FOLDER)):
        for name in OF_THE_USERS:
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text('{"mine": 1}')
    return {name: content for name, content in contents(run).items() if content == b'{"mine": 1}'}


@pytest.mark.parametrize("name", WRITERS)
def test_only_files_by_the_programs_names_are_replaced_or_removed(name, run):
    mine = with_files_of_the_users(run)
    call(name, run, *[] if name == "train" else ["--overwrite", "--seed", 1])
    after = contents(run)
    assert after | mine == after


def test_a_run_that_is_replaced_leaves_all_files_of_the_users_and_no_results(run):
    train.main(["--resume", str(run), "--epochs", "3", "--log", "tensorboard"])
    for name in WRITERS:
        if name != "train":
            call(name, run)
    mine = with_files_of_the_users(run)
    assert (run / "sample").is_dir()
    train.main([*QUICK, "--run", str(run), "--overwrite", "--seed", "1"])
    new = {
        "config.yaml", "metrics.csv", "summary.json", "kept_data.npz", "model.safetensors",
        "checkpoint/state.safetensors", "samples.png", "reconstructions.png", "curves.png",
    }  # fmt: skip
    after = contents(run)
    assert after.keys() == {*mine, *new}
    assert after | mine == after


@pytest.mark.pictures
def test_all_that_a_command_leaves_of_a_table_is_known_as_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savetxt("t.csv", np.random.default_rng(0).normal(size=(60, 3)), delimiter=",", header="a,b,c", comments="")
    train.main(["--data", "t.csv", "--likelihood", "Gaussian", "--epochs", "1", "--latent_dim", "2", "--run", "run"])
    options = {"interpolate": ["--between", "0", "1"], "augment": ["--data", "t.csv"], "impute": ["--hide", "0.3"]}
    options["score"] = ["--level", "0.5"]
    for name in sorted({*INTO_A_FOLDER} - {"classify"}):
        importlib.import_module(f"pyro_vae.commands.{name}").main(["run", *options.get(name, [])])
        assert sorted(results(tmp_path / "run" / name, name)) == sorted((tmp_path / "run" / name).iterdir()), name


def test_a_log_beyond_a_link_is_not_the_runs(run, tmp_path):
    mine = tmp_path / "mine" / "events.out.tfevents.1"
    mine.parent.mkdir()
    mine.write_text("mine")
    (run / "tensorboard").symlink_to(mine.parent)
    train.main([*QUICK, "--run", str(run), "--overwrite"])
    assert mine.read_text() == "mine"


def test_a_longer_training_leaves_nothing_that_was_made_of_the_model_before(run):
    for name in INTO_A_FOLDER:
        assert (run / name).is_dir()
    train.main(["--resume", str(run), "--epochs", "3"])
    assert not [name for name in INTO_A_FOLDER if (run / name).exists()]
    assert not list(run.glob("evaluation*"))
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("name", INTO_A_FOLDER)
def test_a_folder_of_other_files_is_not_written_into(name, run, tmp_path, capsys):
    others = [other for other in INTO_A_FOLDER if other != name]
    for number, names in enumerate((["mine.txt"], ["mean.csv", "columns.csv", "dimensions.csv", "diagnostics.csv"],
                                    ["scores.csv", "scores.json", "classes.csv", "classes.json"])):  # fmt: skip
        out = tmp_path / f"out{number}"
        out.mkdir()
        for other in names:
            (out / other).write_text("{}")
        before = contents(out)
        line = refused(capsys, name, run, "--out", out, "--overwrite")
        assert f"--out: {out} holds other files, and no results of {name}; name another folder" in line
        assert contents(out) == before
    before = contents(run)
    assert f"--out: {run} holds a run; name another folder" in refused(capsys, name, run, "--out", run, "--overwrite")
    assert "holds other files" in refused(capsys, name, run, "--out", run / others[0], "--overwrite")
    assert contents(run) == before
    assert "--overwrite" in refused(capsys, name, run)


def test_a_file_is_no_result_by_its_name_alone(run, tmp_path, capsys):
    for name in ("samples.npz", "samples.csv"):
        (tmp_path / name).write_text("mine")
    line = refused(capsys, "sample", run, "--out", tmp_path, "--overwrite")
    assert "holds other files, and no results of sample" in line
    assert (tmp_path / "samples.npz").read_text() == "mine"


@pytest.mark.parametrize("kind", ["csv", "json", "nc", "png"])
def test_an_evaluation_takes_the_place_of_no_other_file(kind, run, capsys):
    (run / f"evaluation-mine.{kind}").write_text("{}")
    for overwrite in ([], ["--overwrite"]):
        line = refused(capsys, "evaluate", run, "--name", "mine", *overwrite)
        assert f"evaluation-mine.{kind} exists, and is of no evaluation; choose another --name" in line
    assert (run / f"evaluation-mine.{kind}").read_text() == "{}"


@pytest.mark.parametrize("kind", ["file", "pipe", "device", "link"])
def test_a_report_takes_the_place_of_an_earlier_one_alone(kind, run, tmp_path, capsys):
    out = tmp_path / "page.html"
    (tmp_path / "mine").write_text("mine")
    if kind == "file":
        out.write_text("mine")
    elif kind == "pipe":
        os.mkfifo(out)
    elif kind == "link":
        out.symlink_to(tmp_path / "mine")
    else:
        out = "/dev/null"
    for overwrite in ([], ["--overwrite"]):
        assert "is no page of this program; name another" in refused(capsys, "report", run, "--out", out, *overwrite)
    assert (tmp_path / "mine").read_text() == "mine"
    call("report", run, "--overwrite")


# One process at a time


def training(arguments, status):
    """Train in a process of its own, without a word, and leave its exit status."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            importlib.import_module(f"pyro_vae.commands.{arguments[0]}").main([str(a) for a in arguments[1:]])
            status.put((0, ""))
        except SystemExit as exit:
            status.put((exit.code, err.getvalue()))


def at_once(*commands):
    """Run commands at the same time, each in a process of its own; return their exit statuses and their errors."""
    status = CONTEXT.SimpleQueue()
    processes = [CONTEXT.Process(target=training, args=(command, status)) for command in commands]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [status.get() for _ in processes]


@pytest.mark.parametrize("there", [False, True])
def test_of_trainings_with_one_folder_one_goes_ahead(there, run, tmp_path):
    place = run if there else tmp_path / "new"
    options = ["train", *QUICK, "--run", place, *(["--overwrite"] if there else [])]
    ended = at_once(*[[*options, "--seed", seed, "--latent_dim", 2 + seed] for seed in range(3)])
    if not there:
        assert sorted(status for status, _ in ended) == [0, 2, 2]
    for status, line in ended:
        assert status == 0 or "is being trained by another process" in line or "holds a run already" in line
    config = yaml.safe_load((place / "config.yaml").read_text())
    assert json.loads((place / "summary.json").read_text())["seed"] == config["seed"]
    assert pyro_vae.load(place).config.latent_dim == config["latent_dim"] == 2 + config["seed"]
    assert not list(place.rglob(".*"))


def test_a_run_in_training_is_neither_replaced_nor_resumed(run, tmp_path, capsys):
    place, status = tmp_path / "live", CONTEXT.SimpleQueue()
    process = CONTEXT.Process(
        target=training, args=(["train", *QUICK, "--patience", 0, "--epochs", 10**6, "--run", place], status)
    )
    process.start()
    try:
        while not (place / "checkpoint" / "state.safetensors").exists():
            assert process.is_alive()
            time.sleep(0.05)
        for arguments in (["--resume", place], [*QUICK, "--run", place, "--overwrite"]):
            assert "is being trained by another process" in commands.refused(capsys, "train", *arguments)
        for name in WRITERS:
            if name != "train":
                assert "isn't finished; wait for it, or go on with --resume" in refused(capsys, name, place)
    finally:
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (place / LOCK).exists()
    train.main([*QUICK, "--run", str(place), "--overwrite"])
    assert not (place / LOCK).exists()


def test_on_a_run_that_is_trained_on_commands_work_until_it_has_another_model(run, tmp_path):
    with taken(run, "", name=LOCK):  # as a training does before its first checkpoint
        for name in WRITERS:
            if name != "train":
                call(name, run, "--overwrite")


def test_the_default_name_is_given_once(tmp_path, monkeypatch):
    class Stopped(datetime.datetime):
        @classmethod
        def now(cls):
            return cls(2030, 1, 2, 3, 4, 5)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datetime, "datetime", Stopped)
    for _ in range(3):
        train.main(QUICK)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        f"digits-20300102-030405{number}" for number in ("", "-2", "-3")
    }
    assert all((path / "model.safetensors").exists() for path in (tmp_path / "runs").iterdir())


@pytest.mark.parametrize("name", [*INTO_A_FOLDER, "evaluate"])
def test_of_commands_with_one_place_for_their_results_one_goes_ahead(name, run, tmp_path, capsys):
    out = [] if name == "evaluate" else ["--out", tmp_path / "out"]
    place = run if name == "evaluate" else tmp_path / "out"
    lock = ".evaluation-label-3.lock" if name == "evaluate" else LOCK
    with taken(place, "", name=lock):
        before = contents(tmp_path)
        assert "another process writes" in refused(capsys, name, run, "--overwrite", *out)
        assert contents(tmp_path) == before
    call(name, run, "--overwrite", *out)
    assert not list(place.rglob(".*"))


def test_of_commands_at_the_same_time_one_leaves_results(run, tmp_path):
    options = ["sample", run, "--out", tmp_path / "out", "--num", 400, "--label"]
    ended = at_once(*[[*options, label] for label in range(4)])
    assert sorted(status for status, _ in ended) == [0, 2, 2, 2]
    assert contents(tmp_path / "out").keys() == {"samples.npz", "samples.png"}


def test_a_folder_that_a_failed_command_has_made_goes_again(run, tmp_path, capsys):
    before = {*tmp_path.rglob("*")}
    refused(capsys, "sample", run, "--out", tmp_path / "a" / "b", "--num", 0)
    commands.refused(capsys, "train", "--run", tmp_path / "c" / "d", "--data", "nowhere.csv")
    assert {*tmp_path.rglob("*")} == before


def test_only_a_lock_that_is_held_says_so(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, "no such disk")

    monkeypatch.setattr(lock, "_lock", fail)
    with pytest.raises(OSError, match="no such disk"), taken(tmp_path, "busy"):
        pass


def test_a_lock_is_one_process_own(tmp_path):
    with (
        taken(tmp_path / "new", "taken"),
        pytest.raises(BlockingIOError, match="taken"),
        taken(tmp_path / "new", "taken"),
    ):
        pass
    assert not (tmp_path / "new").exists()
    (tmp_path / LOCK).write_text("of a process that was killed")
    with taken(tmp_path, "taken"):
        pass
    assert not (tmp_path / LOCK).exists()
    with pytest.raises(FileExistsError), taken(tmp_path, "taken", new=True):
        pass


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    import fcntl

    def fails(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", fails)
    train.main([*QUICK, "--run", str(tmp_path / "run")])
    assert (tmp_path / "run" / "model.safetensors").exists()


# Results of one model


@pytest.mark.parametrize("label", [[], ["--label", "3"]], ids=str)
def test_an_evaluation_of_a_model_that_is_gone_is_not_left_in_the_run(label, run, monkeypatch, capsys):
    def trained_in_the_meantime(*arguments, read=evaluate.read_chosen):
        train.main(["--resume", str(run), "--epochs", "3"])
        return read(*arguments)

    monkeypatch.setattr(evaluate, "read_chosen", trained_in_the_meantime)
    with pytest.raises(SystemExit):
        evaluate.main([str(run), "--num_samples", "3", "--max_examples", "4", "--name", "late", *label])
    assert "was trained again in the meantime" in capsys.readouterr().err
    assert not list(run.glob("evaluation-late*"))


def test_that_other_results_are_of_a_model_that_is_gone_is_said(run, tmp_path, monkeypatch, capsys):
    sample = importlib.import_module("pyro_vae.commands.sample")

    def trained_in_the_meantime(*arguments, write=sample.write_decoded, **options):
        train.main(["--resume", str(run), "--epochs", "3"])
        return write(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sample, "write_decoded", trained_in_the_meantime)
        call("sample", run, "--out", tmp_path / "out")
    assert "was trained again; these are results of the model before" in capsys.readouterr().err
    call("sample", run, "--out", tmp_path / "out", "--overwrite")
    assert capsys.readouterr().err == ""
