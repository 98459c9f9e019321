"""A module that only a file names is not imported, whatever the file and the command are."""

import importlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import pyro_vae
from pyro_vae.__main__ import COMMANDS
from pyro_vae.commands import train
from pyro_vae.machine.trust import check_names
from tests.commands import ON_A_RUN, call, refused

STRANGER = """
from pathlib import Path

from pyro.infer import Trace_ELBO

from pyro_vae.likelihoods import Bernoulli
from pyro_vae.priors import StandardNormal

Path(__file__).with_name("it_ran").touch()


class Prior(StandardNormal): ...
class Likelihood(Bernoulli): ...
class Objective(Trace_ELBO): ...
"""
QUICK = ["--epochs", "1", "--hidden_dims", "[4]", "--latent_dim", "2"]


def forget(folder):
    """Make the stranger's module one that nobody has imported."""
    sys.modules.pop("stranger", None)
    (folder / "it_ran").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a module, and a run with a part of it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "stranger.py").write_text(STRANGER)
    (folder / "settings.yaml").write_text("prior: stranger.Prior")
    (folder / "part.yaml").write_text("class_path: stranger.Prior")
    shutil.copy(folder / "part.yaml", folder / "StandardNormal")
    np.save(folder / "own.npy", pyro_vae.data.load("digits").test[:20].reshape(-1, 8, 8).numpy())
    sys.path.append(str(folder))
    train.main([*QUICK, "--prior", "stranger.Prior", "--run", str(folder / "run")])
    yield folder
    sys.path.remove(str(folder))
    forget(folder)


@pytest.fixture
def folder(made, monkeypatch):
    """That folder as the current one, where nothing was imported yet."""
    monkeypatch.chdir(made)
    importlib.invalidate_caches()
    forget(made)
    return made


# That of "classify" is of the wrong kind, as it says later.
ON_THE_RUN = ON_A_RUN | {"score": [*ON_A_RUN["score"], "--split", "train", "--cross_fit", 2]}


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"parts", "compare-table"}))
def test_a_command_imports_no_module_that_only_its_run_names(name, folder, capsys):
    line = refused(capsys, name, *ON_THE_RUN[name])
    assert "stranger.Prior" in line
    assert line.endswith("--trust stranger, in Python trust=['stranger']")
    assert not (folder / "it_ran").exists()
    if name == "classify":
        assert "trained without labels" in refused(capsys, name, *ON_THE_RUN[name], "--trust", "stranger")
    else:
        call(name, *ON_THE_RUN[name], "--trust", "other", "--trust", "stranger")
    assert (folder / "it_ran").exists()


def columns(likelihood):
    return {"likelihood": {"class_path": "Columns", "init_args": {"groups": likelihood}}}


PRIOR = {"class_path": "stranger.Prior"}
WAYS = {
    "by name": {"prior": "stranger.Prior"},
    "as a class": {"prior": PRIOR},
    "with options": {"prior": PRIOR | {"init_args": {"df": 3}}},
    "by a dotted key": {"prior.class_path": "stranger.Prior"},
    "as YAML in a text": {"prior": "{class_path: stranger.Prior}"},
    "as YAML with escapes": {"prior": '{class_path: "stranger\\x2ePrior"}'},
    "beside a merged key": "<<: {prior: stranger.Prior}",
    "within a list": columns([[64, "stranger.Likelihood"]]),
    "deep in a list": columns([[64, {"class_path": "stranger.Likelihood"}]]),
    "in a list as a text": columns("[[64, stranger.Likelihood]]"),
    "as the objective": {"objective": "stranger.Objective"},
    "in a file of the part": {"prior": "part.yaml"},
    "as a submodule": {"prior": "pyro.contrib.stranger"},
    "in the standard library": {"prior": "antigravity.Prior"},
    "deep in the standard library": {"prior": "idlelib.pyshell.Prior"},
    "of the standard library, imported": {"prior": "json.JSONDecoder"},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_configuration_names_no_module(way, folder, capsys, tmp_path):
    text = WAYS[way] if isinstance(WAYS[way], str) else yaml.safe_dump(WAYS[way])
    (tmp_path / "config.yaml").write_text(text)
    before = sys.modules.keys()
    for arguments in (["--config", tmp_path / "config.yaml"], [f"--config={tmp_path / 'config.yaml'}", "--seed", 1]):
        assert "and no module is imported because a file names it" in refused(capsys, "train", *QUICK, *arguments)
    assert not (folder / "it_ran").exists()
    assert not {"antigravity", "idlelib", "stranger"} & (sys.modules.keys() - before)
    assert "and no module is imported" in refused(capsys, "train", "--resume", tmp_path)


def test_a_configuration_may_use_what_is_allowed(folder, capsys):
    for arguments in (
        ["--config", "settings.yaml", "--trust", "stranger"],
        ["--config", "settings.yaml", "--trust=stranger", "--prior", "stranger.Prior"],
        ["--config", "settings.yaml", "--likelihood", "stranger.Likelihood"],
        ["--config", "settings.yaml", "--objective=stranger.Objective"],
    ):
        forget(folder)
        assert train.parse(arguments).prior.class_path == "stranger.Prior"
        assert (folder / "it_ran").exists()
    forget(folder)
    assert "--trust stranger" in refused(capsys, "train", "--config", "settings.yaml", "--trust", "strange")
    assert "--trust stranger" in refused(capsys, "train", "--config", "settings.yaml", "--data", "stranger.csv")


def test_a_file_with_the_name_of_a_class_is_no_part(folder):
    assert train.parse(["--prior", "StandardNormal"]).prior.class_path == "pyro_vae.priors.StandardNormal"
    assert not (folder / "it_ran").exists()


@pytest.mark.parametrize("way", [way for way, value in WAYS.items() if isinstance(value, dict) and len(value) == 1])
def test_a_model_file_names_no_module(way, folder, tmp_path):
    save_file(
        {"a": torch.zeros(1)}, tmp_path / "model.safetensors", {"pyro_vae": json.dumps({"x_shape": [64]} | WAYS[way])}
    )
    before = sys.modules.keys()
    with pytest.raises(ValueError, match="and no module is imported"):
        pyro_vae.load(tmp_path)
    assert not (folder / "it_ran").exists()
    assert not {"antigravity", "idlelib", "stranger"} & (sys.modules.keys() - before)


def test_a_model_file_may_use_what_is_trusted_or_imported_already(folder):
    with pytest.raises(ValueError, match="trust: expected a list of modules, got 'stranger'"):
        pyro_vae.load("run", trust="stranger")
    assert type(pyro_vae.load("run", trust=["stranger"]).prior).__name__ == "Prior"
    assert type(pyro_vae.load("run").prior).__module__ == "stranger"  # by now it is imported
    forget(folder)
    with pytest.raises(ValueError, match=r"names stranger\.Prior"):
        pyro_vae.load("run")


def test_what_a_program_has_imported_is_a_class_not_all_that_its_package_holds(monkeypatch):
    check_names("file", "pyro.infer.Trace_ELBO", trust=[])
    check_names("file", "torch.nn.Linear", trust=[])
    for name in ("torch.nn", "torch.nn.absent", "torch.no.Linear"):
        with pytest.raises(ValueError, match="no module is imported"):
            check_names("file", name, trust=[])


OF_THE_CALL = ["run: elsewhere", "overwrite: true", "resume: run", "log: tensorboard", "config: settings.yaml"]


@pytest.mark.parametrize("line", [*OF_THE_CALL, "trust: [stranger]"])
def test_a_configuration_says_nothing_of_the_call(line, folder, capsys, tmp_path):
    (tmp_path / "config.yaml").write_text(f"epochs: 1\n{line}\n")
    name = line.split(":")[0]
    assert f"sets {name}, which concerns the one call" in refused(capsys, "train", "--config", tmp_path / "config.yaml")
    assert f"sets {name}, which concerns the one call" in refused(capsys, "train", "--resume", tmp_path)
    assert not (folder / "it_ran").exists()


def test_a_printed_configuration_can_be_read(folder, capsys, tmp_path):
    with pytest.raises(SystemExit):
        call("train", "--prior", "StudentT", "--epochs", "7", "--print_config")
    (tmp_path / "config.yaml").write_text(capsys.readouterr().out)
    config = train.parse(["--config", str(tmp_path / "config.yaml")])
    assert (config.epochs, config.prior.class_path) == (7, "pyro_vae.priors.StudentT")
