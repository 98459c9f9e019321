"""Sizes are known before memory is taken: of models that files describe, and of what options ask for."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import pyro_vae
from pyro_vae.base import Prior
from pyro_vae.commands import train
from pyro_vae.commands.parts import our_parts
from pyro_vae.machine import memory
from pyro_vae.machine.memory import at_most
from pyro_vae.priors import StandardNormal
from tests.commands import refused


class Masked(Prior):
    """A part of one's own that looks at values while it is built, and has layers without end if it is told so."""

    def __init__(self, z_dim: int, width: int = 8, depth: int = 1):
        super().__init__()
        mask = torch.ones(width, z_dim).bool()
        assert mask.all().item()
        self.layers = nn.ModuleList(nn.Linear(z_dim, int(mask.sum()) // z_dim) for _ in range(depth))
        self.base = StandardNormal(z_dim)

    def forward(self):
        return self.base()


MASKED = f"{__name__}.Masked"
NAMES = {kind: [part.__name__ for part in our_parts(kind)] for kind in ("prior", "encoder", "likelihood")}
HONEST = [{kind: name} for kind, names in NAMES.items() for name in names if name != "Columns"] + [
    {"prior": MASKED},
    {"prior": {"class_path": "FlowPrior", "init_args": {"transforms": 40, "hidden_dims": [8]}}},
    {"prior": {"class_path": "FlowPrior", "init_args": {"transforms": 2, "hidden_dims": [700, 700]}}},
    {"encoder": {"class_path": "FlowPosterior", "init_args": {"transforms": 8, "hidden_dims": [300, 300, 300]}}},
    {"prior": {"class_path": "GaussianMixture", "init_args": {"components": 20000}}, "num_classes": 10,
     "label_in": ["prior"]},
    {"prior": "FlowPrior", "num_classes": 10, "label_in": ["prior"]},
    {"network": "conv", "hidden_dims": [128, 256], "missing": True},
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", HONEST, ids=str)
def test_a_model_of_any_size_is_loaded(options, dtype, tmp_path):
    torch.manual_seed(0)
    vae = pyro_vae.build((1, 4, 4), **{"latent_dim": 3, "hidden_dims": [8], "levels": 5} | options).to(dtype)
    pyro_vae.save(vae, tmp_path / "model")
    again = pyro_vae.load(tmp_path / "model").state_dict()
    assert all(torch.equal(tensor.float(), again[name].float()) for name, tensor in vae.state_dict().items())


# What a description may ask for, that the tensors beside it do not explain.
BOMBS = [
    {"hidden_dims": [10**9]},
    {"hidden_dims": [30000, 30000]},
    {"hidden_dims": [2**62]},
    {"latent_dim": 10**30},
    {"x_shape": [1, 10**6, 10**6]},
    {"prior": {"class_path": "FlowPrior", "init_args": {"hidden_dims": [30000, 30000]}}},
    {"prior": {"class_path": "FlowPrior", "init_args": {"transforms": 10**9}}},
    {"prior": {"class_path": "VampPrior", "init_args": {"components": 10**12}}},
    {"prior": {"class_path": "GaussianMixture", "init_args": {"components": 10**8}}},
    {"encoder": {"class_path": "FlowPosterior", "init_args": {"hidden_dims": [10**5]}}},
    {"likelihood": "Categorical", "levels": 2**16, "pixels": "levels", "hidden_dims": [10**4]},
    {"prior": {"class_path": MASKED, "init_args": {"width": 10**9}}},
    {"prior": {"class_path": MASKED, "init_args": {"depth": 10**9}}},
    {"num_classes": 1000, "label_in": ["prior"], "prior": "GaussianMixture"},
]
LIMITED = """
import resource, sys, time
import pyro_vae, tests.test_memory, zuko
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30,) * 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    start = time.perf_counter()
    try:
        pyro_vae.load(path)
        print("loaded")
    except ValueError as error:
        print(error)
    took = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert took < 2**19, f"{took} KiB"
    assert time.perf_counter() - start < 10
"""


def test_a_description_takes_no_more_memory_or_time_than_its_file_explains(tmp_path):
    """In a process whose memory is limited, for all of them."""
    pyro_vae.save(pyro_vae.build((1, 8, 8), latent_dim=2, hidden_dims=[8]), tmp_path / "small")
    described = pyro_vae.build((1, 8, 8), latent_dim=2, hidden_dims=[8]).config.as_arguments()
    for number, bomb in enumerate(BOMBS):
        facts = {"pyro_vae": json.dumps(described | bomb)}
        save_file(load_file(tmp_path / "small"), tmp_path / f"{number}.safetensors", facts)
    paths = [str(tmp_path / f"{number}.safetensors") for number in range(len(BOMBS))]
    ended = subprocess.run([sys.executable, "-c", LIMITED, *paths], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for path, line in zip(paths, ended.stdout.splitlines(), strict=True):
        assert line.startswith(f"{path} belongs to another model: "), line


def test_counting_changes_no_numbers():
    def build():
        torch.manual_seed(0)
        return pyro_vae.build((1, 4, 4), latent_dim=3, prior="FlowPrior", network="conv", hidden_dims=[4])

    expected = build().state_dict()
    with at_most(2**24):
        counted = build().state_dict()
    assert all(torch.equal(tensor, counted[name]) for name, tensor in expected.items())


def test_what_is_made_of_others_counts_but_no_view_or_change_of_it():
    with at_most(1000):
        x = torch.zeros(200)  # 800 bytes
        x.add_(1).view(10, 20).T.expand(5, 20, 10).unbind()
        x[:50] + 1
        with pytest.raises(MemoryError, match=r"at most 1,000 bytes, got 4,000,000 more"):
            x[:1000, None].expand(200, 5000) + 0
    with at_most(1000), pytest.raises(MemoryError):
        torch.arange(100).repeat(10**9)
    with at_most(1000), pytest.raises(MemoryError):
        torch.ones(10**3, 10**9, device="meta")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    tiny = ["--epochs", "2", "--hidden_dims", "[8]", "--latent_dim", "2"]
    train.main([*tiny, "--run", str(folder / "plain")])
    train.main([*tiny, "--condition", "label", "--run", str(folder / "labelled")])
    return folder


HIDE = ["--hide", "left", "--max_examples", 9]
TOO_MANY = [
    ("sample", "num", []),
    ("interpolate", "num", ["--between", 0, 1]),
    ("manifold", "num", []),
    ("manifold", "num", ["--dims", 1]),
    ("augment", "times", ["--data", "digits"]),
    ("encode", "num_samples", []),
    ("score", "num_samples", []),
    ("evaluate", "num_samples", []),
    ("evaluate", "max_num_samples", ["--target_se", 0.1]),
    ("evaluate", "num_chains", ["--estimator", "ais"]),
    ("evaluate", "num_temperatures", ["--estimator", "bidirectional"]),
    ("impute", "num_completions", HIDE),
    ("impute", "num_samples", HIDE),
    ("impute", "num_starts", HIDE),
    ("impute", "num_completions", [*HIDE, "--method", "gibbs"]),
    ("impute", "num_chains", [*HIDE, "--method", "gibbs"]),
]


@pytest.mark.parametrize(("name", "option", "arguments"), TOO_MANY)
def test_more_than_fits_in_memory_is_refused_before_the_work(name, option, arguments, runs, tmp_path, capsys):
    run, before = runs / "plain", set(runs.rglob("*"))
    line = refused(capsys, name, run, *arguments, f"--{option}", 10**18)
    assert re.match(rf"error: --{option}: expected at most [\d,]+, a quarter of this machine's memory, got ", line)
    assert set(runs.rglob("*")) == before


def test_the_largest_grid_is_named_whatever_was_asked_for(runs, monkeypatch, capsys):
    monkeypatch.setattr(memory, "physical_memory", lambda: 4 * 4 * (64 + 2) * 100)  # for 100 data
    for num in (11, 1000, 10**9):
        assert "--num: expected at most 10, a quarter" in refused(capsys, "manifold", runs / "plain", "--num", num)


def test_more_samples_of_each_class_than_fit_in_memory_are_refused(runs, capsys):
    for name in ("classify", "evaluate"):
        assert "num_samples: expected at most" in refused(capsys, name, runs / "labelled", "--num_samples", 10**18)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--latent_dim", 10**12],
        ["--hidden_dims", "[100000, 100000]"],
        ["--hidden_dims", f"[{10**30}]"],
        ["--prior", "FlowPrior", "--prior.hidden_dims", "[100000, 100000]"],
        ["--prior", "VampPrior", "--prior.components", 10**18],
        ["--objective", "ImportanceWeightedELBO", "--objective.num_particles", 10**12],
        ["--objective", "RenyiELBO", "--objective.num_particles", 10**12],
    ],
    ids=str,
)
def test_a_model_that_does_not_fit_in_memory_is_refused_before_the_work(arguments, tmp_path, capsys):
    line = refused(capsys, "train", *arguments, "--run", tmp_path / "run")
    assert arguments[-2].removeprefix("--") in line or "an option of a part" in line
    assert "GiB, a quarter of this machine's memory" in line
    assert not (tmp_path / "run").exists()


def test_a_configuration_builds_no_more_than_its_checkpoint_explains(runs, tmp_path, capsys):
    run = shutil.copytree(runs / "plain", tmp_path / "run")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("hidden_dims:\n- 8", "hidden_dims:\n- 20000\n- 20000"))
    line = refused(capsys, "train", "--resume", run, "--epochs", 3)
    assert "state.safetensors belongs to another model" in line


def test_memory_is_that_of_the_machine(monkeypatch, runs, capsys):
    monkeypatch.setattr(memory, "physical_memory", lambda: 4 * 4 * (64 + 2) * 100)
    assert "expected at most 100, a quarter" in refused(capsys, "sample", runs / "plain", "--num", 101)
