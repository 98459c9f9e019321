"""What a user or a file can cause is one line with status 2, in every command; a fault of ours says that it is one."""

import contextlib
import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import pyro_vae
from pyro_vae.__main__ import COMMANDS
from pyro_vae.__main__ import main as program
from pyro_vae.commands.cli import Parser, command
from pyro_vae.machine.distributed import ProcessLost
from pyro_vae.runs.opening import run_data
from tests.commands import FEW, ON_A_RUN, call, refused

QUICK = ["--epochs", "1", "--hidden_dims", "[4]", "--latent_dim", "2"]
# Of the derivation alone, and on a run of the kind.
QUICKLY = ON_A_RUN | {
    "parts": [],
    "check": [],
    "classify": ["labelled", *FEW],
    "compare-table": ["table.csv", "table.csv"],
}
ON_NO_RUN = {"train", "parts", "compare-table"}
WITH_SEED = COMMANDS.keys() - {"parts", "check"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs, of which one knows labels, and data."""
    folder = tmp_path_factory.mktemp("made")
    call("train", *QUICK, "--run", folder / "run")
    call("train", *QUICK, "--run", folder / "labelled", "--condition", "label")
    np.save(folder / "own.npy", pyro_vae.data.load("digits").test[:20].reshape(-1, 8, 8).numpy())
    np.savetxt(folder / "table.csv", np.arange(60).reshape(20, 3), delimiter=",", header="a,b,c", comments="")
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of them, as the current folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--prior", "StudentT", "--prior.df", "x"], "error: --prior.df: expected float, got x"),
        (["train", "--prior", "StudentT", "--prior.nope", "3"], "pyro_vae.priors.StudentT: there is no option nope"),
        (["train", "--likelihood", "Columns", "--likelihood.groups", "[[2, Nope]]"], "error: --likelihood.groups: exp"),
        (["train", "--prior", "[3]"], "error: --prior: expected the name of a class, got [3]"),
        (["train", "--prior", "json.JSONDecoder"], "error: --prior: expected a subclass of Prior"),
        (["evaluate", "run", "--proposal", "Widened", "--proposal.factor", "x"], "error: --proposal.factor: exp"),
        (["score", "run", "--proposal", "Laplace", "--proposal.nope", "1"], "there is no option nope"),
    ],
)
def test_errors_within_a_part_name_its_option_and_the_command(arguments, message, capsys):
    line = refused(capsys, *arguments)
    assert message in line
    name = {"train": "python -m pyro_vae.train"}.get(arguments[0], f"pyro-vae {arguments[0]}")
    assert line.endswith(f"(see {name} --help)")


BROKEN = {"syntax": "x = = 1", "name": "nobody", "error": "raise RuntimeError('mine')", "import": "import nobody"}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_module_of_the_users_that_fails_is_a_mistake(kind, folder, capsys, monkeypatch):
    (folder / "broken.py").write_text(BROKEN[kind])
    (folder / "prior.yaml").write_text("prior: broken.Prior")
    monkeypatch.syspath_prepend(folder)
    for arguments in (
        ["train", "--prior", "broken.Prior"],
        ["train", "--config", "prior.yaml", "--trust", "broken"],
        ["evaluate", "run", "--proposal", "broken.Mine"],
        ["parts", "broken"],
    ):
        assert re.search("invalid syntax|nobody|mine", refused(capsys, *arguments))
    with pytest.raises(ValueError, match=r"prior: expected the name of a class, got 'broken\.Prior'"):
        pyro_vae.build((64,), prior="broken.Prior")


def fail_with(error):
    @command
    def fails(argv):
        raise error

    return fails


@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_is_one_line_and_a_file_with_the_traceback(name, tmp_path, monkeypatch, capsys):
    def fails(*_, **__):
        raise KeyError("of ours\nalone")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Parser, "parse_args", fails)
    monkeypatch.setattr(sys, "argv", ["pyro-vae", name])
    for main in (lambda: call(name), program):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        (line,) = output.err.splitlines()
        assert (ended.value.code, output.out) == (70, "")
        assert "this is a fault of the program, or of a part of your own: KeyError: " in line
        kept = Path(re.search(r"with the traceback in (\S+)$", line)[1])
        assert kept.parent == tmp_path
        assert kept.stat().st_mode & 0o77 == 0  # for its user alone
        assert "in fails" in kept.read_text()


def test_a_fault_is_one_line_without_a_folder_for_the_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(SystemExit) as ended:
        fail_with(RecursionError("too deep"))([])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 70
    assert "whose traceback could not be written (No such file or directory)" in line


def too_much(make):
    def takes():
        make()

    return command(lambda argv: takes())


@pytest.mark.parametrize(
    "take",
    [lambda: torch.empty(2**52), lambda: np.empty(2**50), lambda: bytearray(2**55)],
    ids=["torch", "numpy", "python"],
)
def test_memory_that_is_not_there_is_one_line(take, capsys):
    with pytest.raises(SystemExit) as ended:
        command(lambda argv: take())([])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1
    assert line.startswith("error: out of memory: ")


def test_what_a_message_holds_is_shown_and_not_obeyed(capsys):
    for error in (
        ValueError("a\x1b[31m\u2028b\rc"),
        FileNotFoundError(2, "No such file", "a\nb\x07"),
        KeyError("\x1b[2J"),
    ):
        with pytest.raises(SystemExit):
            fail_with(error)([])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("division by zero"), OverflowError("too large"), AttributeError("x")]
)
def test_what_nobody_has_foreseen_is_a_fault(error, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        fail_with(error)([])
    assert ended.value.code == 70


def test_a_lost_process_is_nobodys_mistake(capsys):
    with pytest.raises(SystemExit) as ended:
        fail_with(ProcessLost("another process ended"))([])
    assert (ended.value.code, capsys.readouterr().err) == (1, "error: another process ended\n")


@pytest.mark.parametrize(
    ("name", "device"),
    [*((name, "privateuseone") for name in sorted(WITH_SEED - {"report", "compare-table"}))]
    + [("sample", device) for device in ("hpu", "meta", "cuda:77", "", "x y")],
)
def test_a_device_that_is_none(name, device, folder, capsys):
    line = refused(capsys, name, *QUICKLY[name], "--device", device)
    assert line == f"error: device: expected one that this machine has, such as cpu or auto, got {device!r}"


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70])
@pytest.mark.parametrize("name", sorted(WITH_SEED))
def test_a_seed_that_is_none(name, seed, folder, capsys):
    arguments = QUICK if name == "train" else QUICKLY[name]
    line = refused(capsys, name, *arguments, "--seed", seed)
    assert line == f"error: seed: expected a whole number from 0 to 2^63 - 1, got {seed}"


@pytest.mark.parametrize("arguments", [["--data", "~nouser/x.npy"], ["--data", "mnist", "--data_dir", "~nouser"]])
def test_a_home_of_nobody(arguments, folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # which would download
    assert "data=" in refused(capsys, "train", *arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_terminal_of_few_letters_shows_the_others_as_question_marks(name, folder, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    call(name, *QUICKLY[name])
    assert out.errors == "strict"
    out.flush()
    assert out.buffer.getvalue().decode("ascii")


def spoil(path, **facts):
    """Change what a YAML file, or the description in a safetensors file, says."""
    if path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | facts))
        return
    header = path.read_bytes()
    size = int.from_bytes(header[:8], "little")
    known = json.loads(json.loads(header[8 : 8 + size])["__metadata__"]["pyro_vae"])
    save_file(load_file(path), path, {"pyro_vae": json.dumps(known | facts)})


WRONG = [
    {"data": 5},
    {"data": None},
    {"pixels": [1]},
    {"validation": "x"},
    {"levels": True},
    {"missing": 3},
    {"condition": 3},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_configuration_of_wrong_types(wrong, folder, capsys):
    spoil(folder / "run" / "config.yaml", **wrong)
    (name,) = wrong
    for arguments in (["encode", "run"], ["impute", "run", "--data", "own.npy"]):
        assert f"config.yaml: {name}: expected " in refused(capsys, *arguments)
    for other in ("check", "report"):  # which have what they need in the other files
        call(other, "run")
    assert name in refused(capsys, "train", "--config", "run/config.yaml")
    assert name in refused(capsys, "train", "--resume", "run", "--epochs", "3")
    with pytest.raises(ValueError, match=f"config.yaml: {name}: expected"):
        run_data("run")


@pytest.mark.parametrize("text", ["[1, 2]", "x", "", "{a: b", "[" * 5000, "5: x"])
def test_a_configuration_that_is_none(text, folder, capsys):
    (folder / "run" / "config.yaml").write_text(text)
    for arguments in (
        ["encode", "run"],
        ["impute", "run", "--data", "own.npy"],
        ["train", "--config", "run/config.yaml"],
    ):
        assert "config.yaml" in refused(capsys, *arguments) or text == "5: x"


NOT_NULL = ["data", "seed", "lr", "latent_dim", "hidden_dims", "device", "missing"]


@pytest.mark.parametrize("option", NOT_NULL)
def test_an_option_with_a_value_is_not_null(option, folder, capsys):
    spoil(folder / "run" / "config.yaml", **{option: None})
    for arguments in (["--config", "run/config.yaml"], ["--resume", "run", "--epochs", "2"]):
        line = refused(capsys, "train", *arguments)
        assert line == f"error: {option}: expected a value, got null; leave it out for the default"


@pytest.mark.parametrize("part", ["objective"])
def test_a_part_is_not_null(part, capsys):
    assert f"error: {part}: expected a value, got null" in refused(capsys, "train", f"--{part}", "null")


@pytest.mark.parametrize("option", ["num_particles", "vectorize_particles", "retain_graph", "jit_options"])
def test_an_option_of_pyros_that_says_no_type_has_one(option, folder, capsys):
    spoil(folder / "run" / "config.yaml", objective={"class_path": "pyro.infer.Trace_ELBO", "init_args": {option: "x"}})
    assert f"objective: {option}: expected " in refused(capsys, "train", "--config", "run/config.yaml")


MODEL = [
    {"x_shape": "64"}, {"x_shape": [64.0]}, {"latent_dim": 2.5}, {"latent_dim": True}, {"hidden_dims": 4},
    {"levels": "16"}, {"missing": "yes"}, {"network": 3}, {"pixels": None}, {"prior": None}, {"prior": 3},
    {"num_classes": "x"},
    {"label_in": "prior"}, {"label_in": [3]},
]  # fmt: skip


@pytest.mark.parametrize("wrong", MODEL, ids=str)
def test_a_model_file_of_wrong_types(wrong, folder, capsys):
    spoil(folder / "run" / "model.safetensors", **wrong)
    assert f"model.safetensors: {next(iter(wrong))}: expected " in refused(capsys, "sample", "run")


STATE = [
    {"data": None}, {"options": []}, {"epoch": "1"}, {"epoch": 1.0}, {"epoch": 2}, {"epoch": -1}, {"history": {}},
    {"history": [3]}, {"history": [{"loss": "x"}]}, {"objective_steps": "x"}, {"best_epoch": None}, {"best_elbo": []},
]  # fmt: skip


@pytest.mark.parametrize("wrong", STATE, ids=str)
def test_a_checkpoint_of_wrong_types(wrong, folder, capsys):
    spoil(folder / "run" / "checkpoint" / "state.safetensors", **wrong)
    assert "the checkpoint: " in refused(capsys, "train", "--resume", "run", "--epochs", "3")


def change(path, change):
    """Change the tensors of a safetensors file."""
    facts = path.read_bytes()
    size = int.from_bytes(facts[:8], "little")
    facts = json.loads(facts[8 : 8 + size])["__metadata__"]
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, facts)


WEIGHT = "decoder.0.weight"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(value, folder, capsys):
    change(folder / "run" / "model.safetensors", lambda tensors: tensors[WEIGHT].fill_(value))
    assert f"model.safetensors: {WEIGHT}: expected finite weights" in refused(capsys, "sample", "run")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int64, torch.bool])
def test_weights_of_another_type(dtype, folder, capsys):
    change(folder / "run" / "model.safetensors", lambda tensors: tensors.update({WEIGHT: tensors[WEIGHT].to(dtype)}))
    line = refused(capsys, "sample", "run")
    assert f"{WEIGHT}: expected torch.bfloat16 or torch.float16 or torch.float32 or torch.float64, got {dtype}" in line
    for group in ("weights", "adam/exp_avg", "adam/step"):
        state, name = folder / "run" / "checkpoint" / "state.safetensors", f"{group}/{WEIGHT}"
        change(state, lambda tensors, name=name: tensors.update({name: tensors[name].to(dtype)}))
        line = refused(capsys, "train", "--resume", "run", "--epochs", "3")
        assert "expected torch.float32 or torch.float64, got" in line


@pytest.mark.parametrize("name", [f"adam/exp_avg/{WEIGHT}", f"adam/step/{WEIGHT}"])
def test_a_checkpoint_of_two_precisions(name, folder, capsys):
    change(
        folder / "run" / "checkpoint" / "state.safetensors",
        lambda tensors: tensors.update({name: tensors[name].double()}),
    )
    line = refused(capsys, "train", "--resume", "run", "--epochs", "3")
    assert f"{WEIGHT} has another shape or type" in line


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - ON_NO_RUN))
def test_a_command_takes_a_model_in_another_precision(name, dtype, folder):
    arguments = ["run"] if name == "check" else QUICKLY[name]
    run = folder / arguments[0]
    pyro_vae.save(pyro_vae.load(run).to(dtype), run)
    call(name, *arguments)


@pytest.mark.parametrize("name", [f"adam/exp_avg/{WEIGHT}", f"adam/step/{WEIGHT}"])
def test_a_checkpoint_that_lacks_what_belongs_to_a_weight(name, folder, capsys):
    change(folder / "run" / "checkpoint" / "state.safetensors", lambda tensors: tensors.pop(name))
    line = refused(capsys, "train", "--resume", "run", "--epochs", "3")
    assert f"the checkpoint is incomplete: what belongs to {WEIGHT} is missing" in line


EXTREME = [
    ("prior.scale", np.nan),
    ("prior.scale", -1.0),
    ("encoder.network.0.weight", 1e38),
    ("decoder.2.bias", -1e38),
]


@pytest.mark.parametrize(("name", "value"), EXTREME)
@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - ON_NO_RUN))
def test_weights_that_lead_nowhere_are_no_fault(command, name, value, folder, capsys, monkeypatch):
    arguments = ["run"] if command in ("check", "classify") else QUICKLY[command]
    if command == "classify":
        call("train", *QUICK, "--condition", "label", "--label_in", "[encoder,decoder]", "--run", "run", "--overwrite")
    change(folder / "run" / "model.safetensors", lambda tensors: tensors[name].fill_(value))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with contextlib.suppress(SystemExit):
        call(command, *arguments)
    assert not list(folder.glob("pyro-vae-*.txt")), capsys.readouterr().err


def test_figures_that_are_not_known_are_said_to_be_so(folder, capsys):
    np.save("few.npy", np.random.default_rng(0).integers(0, 17, (9, 8, 8)))
    few = ["--data", "few.npy", "--levels", "17", "--test", "1", "--validation", "2"]
    call("train", *QUICK, *few, "--run", "few")
    assert re.search(r"test ELBO   -[\d.]+ nats", capsys.readouterr().out)
    change(folder / "run" / "model.safetensors", lambda tensors: tensors["decoder.2.bias"].fill_(-1e38))
    for name in ("evaluate", "score"):
        call(name, "run", *FEW)
        assert "log P(X)    unknown nats per example" in capsys.readouterr().out


def test_an_earlier_evaluation_of_wrong_types_is_none(folder):
    call("evaluate", "run", *FEW)
    path = folder / "run" / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_examples": "x"}))
    call("evaluate", "run", *FEW, "--data", "own.npy")
    assert json.loads((folder / "run" / "evaluation-own.json").read_text())["reference"] is None
