"""What a stranger's folder holds is not waited for, and takes no more memory or time than its size explains."""

import contextlib
import importlib
import io
import os
import shutil
import signal
import zipfile

import numpy as np
import pytest
import yaml

from pyro_vae import data
from pyro_vae.commands import train
from pyro_vae.machine.reading import LIMITS, parse_yaml

TINY = ["--epochs", "2", "--hidden_dims", "[8]", "--latent_dim", "2"]
REPORT = ["--no_check", "--overwrite"]
# Who reads what in a run folder.
READERS = [
    ("model.safetensors", "sample", []),
    ("config.yaml", "sample", ["--near", 0]),
    ("config.yaml", "report", REPORT),
    ("config.yaml", "train", []),
    ("summary.json", "reconstruct", []),
    ("summary.json", "report", REPORT),
    ("summary.json", "train", []),
    ("metrics.csv", "report", REPORT),
    ("evaluation.json", "report", REPORT),
    ("evaluation.csv", "report", REPORT),
    ("checkpoint/state.safetensors", "train", ["--epochs", 3]),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "digits"
    train.main([*TINY, "--run", str(run)])
    call("evaluate", run, "--num_samples", 30, "--max_examples", 9)
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def call(name, run, *arguments):
    importlib.import_module(f"pyro_vae.commands.{name}").main(
        ["--resume"] * (name == "train") + [str(run), *map(str, arguments)]
    )


@contextlib.contextmanager
def within(seconds):
    """Fail rather than wait for ever."""

    def stop(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def refused(capsys, call, *arguments):
    """Call what must fail, and soon; return its one line."""
    capsys.readouterr()
    with within(20), pytest.raises(SystemExit) as exit:
        call(*arguments)
    assert exit.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def put(kind, path):
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 2**40)  # which takes no room on the disk


@pytest.mark.parametrize("kind", ["pipe", "device", "huge"])
@pytest.mark.parametrize(("file", "name", "arguments"), READERS)
def test_only_regular_files_of_a_bounded_size_are_read(file, name, arguments, kind, run, capsys):
    put(kind, run / file)
    line = refused(capsys, call, name, run, *arguments)
    assert str(run / file) in line or (name, file) == ("train", "config.yaml")  # which the parser names
    if file.endswith("safetensors") and kind == "huge":
        assert "truncated" in line
    elif kind == "huge":
        assert f"expected at most {LIMITS[os.path.splitext(file)[1]]:,} bytes, got {2**40:,}" in line
    else:
        assert "expected a file, got a pipe or a device" in line or "is not a file" in line


def test_a_link_to_a_regular_file_is_read(run, tmp_path):
    """As caches and version control for data have them."""
    for path in [path for path in run.rglob("*") if path.is_file()]:
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    call("sample", run, "--near", 0)
    call("report", run, *REPORT)


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz"])
def test_data_are_regular_files(suffix, kind, tmp_path):
    path = tmp_path / f"x{suffix}"
    put(kind, path)
    with within(20), pytest.raises(ValueError, match="expected a file, got a pipe or a device"):
        data.load(str(path))


def test_labels_of_anomalies_are_a_regular_file(run, tmp_path, capsys):
    put("pipe", tmp_path / "labels.npy")
    assert "expected a file" in refused(capsys, call, "score", run, "--anomalies", tmp_path / "labels.npy")


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


def test_yaml_with_aliases_is_not_read(run, tmp_path, capsys):
    (tmp_path / "bomb.yaml").write_text(BOMB)
    said = "expected no aliases, got *a0; write out what it stands for"
    assert said in refused(capsys, train.main, ["--config", str(tmp_path / "bomb.yaml")])
    (run / "config.yaml").write_text(BOMB)
    for name, arguments in (("train", []), ("report", REPORT), ("sample", ["--near", 0])):
        assert said in refused(capsys, call, name, run, *arguments)


def test_a_class_is_not_looked_for_in_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "StudentT").write_text("class_path: pyro_vae.priors.GaussianMixture")
    assert train.parse(["--prior", "StudentT"]).prior.class_path == "pyro_vae.priors.StudentT"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.yaml").write_text("prior: pipe")
    assert "--prior: " in refused(capsys, train.main, ["--config", "a.yaml"])


def test_yaml_that_is_nested_without_end_is_refused():
    with within(20), pytest.raises(yaml.YAMLError):
        parse_yaml("[" * 2**18)
    with pytest.raises(yaml.YAMLError, match="characters"):
        parse_yaml(" " * 2**19)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_a_header_promises_no_more_than_there_is(tmp_path, suffix):
    stored = io.BytesIO()
    np.save(stored, np.zeros((40, 3)))
    content = stored.getvalue().replace(b"(40, 3), }      ", b"(40000000, 3), }")  # 0.9 GiB
    path = tmp_path / f"x{suffix}"
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"promises \(40000000, 3\) values of 8 bytes, but it holds 1,088"):
        data.load(str(path))
