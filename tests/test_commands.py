"""What all commands have in common: options from signatures, configurations, and results that outlive a picture."""

import importlib
import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import pyro_vae
from pyro_vae import inference, plotting
from pyro_vae.__main__ import COMMANDS
from pyro_vae.commands import augment, classify, encode, evaluate, impute, interpolate, sample, score, train
from pyro_vae.evidence import ais, log_evidence
from pyro_vae.runs.opening import read_examples

QUICK = ["--epochs", "2", "--hidden_dims", "[16]", "--latent_dim", "2"]
FEW = ["--num_samples", "30", "--max_examples", "20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs on the digits, of which one knows their labels, and a file of digits."""
    folder = tmp_path_factory.mktemp("runs")
    train.main([*QUICK, "--run", str(folder / "plain")])
    train.main([*QUICK, "--run", str(folder / "labelled"), "--condition", "label"])
    np.save(folder / "own.npy", pyro_vae.data.load("digits").test[:20].reshape(-1, 8, 8).numpy())
    return folder


def call(name, run, *arguments):
    importlib.import_module(f"pyro_vae.commands.{name}").main([str(run), *map(str, arguments)])


# Each command that draws, with what it draws by and the files that are left beside the picture.
PICTURES = {
    "sample": (["--num", 9], "image_grid", {"samples.npz"}, "samples.png"),
    "reconstruct": (["--max_examples", 9], "image_rows", {"reconstructions.npz"}, "reconstructions.png"),
    "encode": ([], "latent_map", {"latents.npz", "latents.csv", "dimensions.csv"}, "latents.png"),
    "interpolate": (["--between", 0, 1, "--num", 3], "image_rows", {"interpolation.npz"}, "interpolation.png"),
    "manifold": (["--num", 3], "image_plane", {"manifold.npz"}, "manifold.png"),
    "traversals": (["--num", 3, "--dims", 2], "image_rows", {"traversals.npz"}, "traversals.png"),
    "impute": (
        ["--hide", "left", "--max_examples", 3, "--num_samples", 20, "--num_starts", 1, "--steps", 2],
        "completed_images",
        {"completed.npz", "diagnostics.csv"},
        "completed.png",
    ),
    "augment": (["--data", "own.npy", "--times", 1], "image_grid", {"augmented.npz"}, "augmented.png"),
    "score": (["--data", "own.npy", "--num_samples", 5], "scores", {"scores.csv", "scores.json"}, "scores.png"),
}


@pytest.mark.pictures
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_that_fails_loses_nothing_but_itself(name, folder, tmp_path, monkeypatch, capsys):
    arguments, draws, files, picture = PICTURES[name]
    monkeypatch.chdir(folder)
    command, out = "manifold" if name == "traversals" else name, tmp_path / "out"
    call(command, folder / "plain", *arguments, "--out", out)
    printed = capsys.readouterr().out.splitlines()
    assert {path.name for path in out.iterdir()} == {*files, picture}
    assert printed[-1].startswith(f"results     {out}  (")
    assert set(printed[-1].split("(")[1].rstrip(")").split(", ")) == {*files, picture}

    def fail(*_, **__):
        # By now the data are there, and a picture of an earlier call is not.
        assert {path.name for path in out.iterdir()} - {".lock"} == files
        raise RuntimeError("no\nfont")

    monkeypatch.setattr(plotting, draws, fail)
    call(command, folder / "plain", *arguments, "--out", out, "--overwrite")
    output = capsys.readouterr()
    assert output.err == f"warning: {picture} could not be written (RuntimeError: no font)\n"
    assert {path.name for path in out.iterdir()} == files
    assert set(output.out.splitlines()[-1].split("(")[1].rstrip(")").split(", ")) == files


@pytest.mark.parametrize(
    ("name", "summary", "table", "arguments"),
    [
        ("score", "scores.json", "scores.csv", ["--num_samples", 5, "--max_examples", 9]),
        ("classify", "classes.json", "classes.csv", FEW),
        ("evaluate", "evaluation-classes.json", "evaluation-classes.csv", FEW),
        ("evaluate", "evaluation-label-3.json", "evaluation-label-3.csv", [*FEW, "--label", 3]),
    ],
)
def test_where_a_summary_is_it_belongs_to_the_other_files(
    name, summary, table, arguments, folder, tmp_path, monkeypatch
):
    run = shutil.copytree(folder / ("plain" if name == "score" else "labelled"), tmp_path / "run")
    out = run if name == "evaluate" else tmp_path / "out"
    call(name, run, *arguments, *([] if name == "evaluate" else ["--out", out]))
    assert json.loads((out / summary).read_text())["seed"] == 0
    placed = []

    def stop_at_the_summary(temporary, path, replace=Path.replace):
        assert not (out / summary).exists()
        placed.append(path.name)
        if path.name == summary:
            raise KeyboardInterrupt  # as if killed
        replace(temporary, path)

    monkeypatch.setattr(Path, "replace", stop_at_the_summary)
    with pytest.raises(SystemExit) as stopped:
        call(name, run, *arguments, "--seed", 1, "--overwrite", *([] if name == "evaluate" else ["--out", out]))
    assert stopped.value.code == 130
    assert placed == [table, summary]
    assert not (out / summary).exists()


OF_FUNCTIONS = [
    (augment, inference.augment, "times", "temperature", "mean"),
    (classify, inference.classify, "num_samples"),
    (encode, inference.encode, "num_samples"),
    (encode, read_examples, "split", "data", "levels", "data_dir", "max_examples"),
    (evaluate, log_evidence, "num_samples", "target_se", "target_khat", "max_num_samples"),
    (evaluate, ais, "num_temperatures", "num_chains", "num_leapfrog"),
    (impute, inference.impute, "num_completions", "num_samples", "num_starts", "steps"),
    (impute, inference.gibbs, "num_steps", "num_chains"),
    (interpolate, inference.interpolate, "num", "path"),
    (sample, inference.sample, "temperature", "mean"),
    (score, inference.score, "num_samples", "two_sided"),
]


@pytest.mark.parametrize(("module", "function", "names"), [(module, f, names) for module, f, *names in OF_FUNCTIONS])
def test_options_are_the_parameters_of_functions(module, function, names):
    parser, parameters = module.parser(), inspect.signature(function).parameters
    defaults, help = parser.get_defaults(), parser.format_help()
    for name in names:
        assert defaults[name] == parameters[name].default
        described = inspect.getdoc(function).split(f"    {name}: ")[1].split("\n")[0]
        assert " ".join(described.split()[:4]) in " ".join(help.split())


def test_flags_need_no_value(folder, tmp_path):
    call("sample", "--mean", folder / "plain", "--num", 3, "--out", tmp_path)
    assert np.load(tmp_path / "samples.npz")["x"].dtype == np.float32  # means, rather than zeros and ones


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_the_command_and_loads_no_more_than_it_needs(name, run_code, tmp_path):
    heavy = {"matplotlib", "arviz", "sklearn", "scipy", "pandas", "torchvision", "zuko", "xarray", "h5py"}
    code = (
        f"import sys; sys.argv = ['pyro-vae', {name!r}, '--help']\n"
        "from pyro_vae.__main__ import main\n"
        "try: main()\n"
        f"finally: print(sorted({heavy!r} & sys.modules.keys()), file=sys.stderr)"
    )
    result = run_code(code, tmp_path)
    program = "python -m pyro_vae.train" if name == "train" else f"pyro-vae {name}"
    assert result.stdout.startswith(f"usage: {program} ")
    assert (result.returncode, result.stderr) == (0, "[]\n")


MIXTURE = {"class_path": "pyro_vae.priors.GaussianMixture", "init_args": {"components": 50}}


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """Configurations of a mixture with 50 components and of another prior, in the current folder."""
    monkeypatch.chdir(tmp_path)
    objective = {"class_path": "pyro.infer.RenyiELBO", "init_args": {"alpha": 0.5, "num_particles": 3}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"epochs": 3, "lr": 0.5, "prior": MIXTURE, "objective": objective}))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({"epochs": 4, "prior": {"class_path": "pyro_vae.priors.StudentT"}}))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--config a.yaml --epochs 7", {"epochs": 7, "lr": 0.5}),
        ("--epochs 7 --config a.yaml", {"epochs": 7, "lr": 0.5}),
        ("--epochs 7 --config=a.yaml --lr 0.1", {"epochs": 7, "lr": 0.1}),
        ("--config a.yaml --config b.yaml", {"epochs": 4, "lr": 0.5, "prior": "StudentT", "df": 5.0}),
        ("--config b.yaml --config a.yaml", {"epochs": 3, "prior": "GaussianMixture", "components": 50}),
        ("--config b.yaml --epochs 7 --config=a.yaml", {"epochs": 7, "prior": "GaussianMixture", "components": 50}),
        ("--prior GaussianMixture --prior.components 7 --config a.yaml", {"components": 7, "epochs": 3}),
        ("--prior GaussianMixture --prior.components 7 --config b.yaml", {"components": 7, "epochs": 4}),
        ("--prior.components 7 --config a.yaml", {"prior": "GaussianMixture", "components": 7}),
        ("--prior=StudentT --prior.df 3 --config=a.yaml", {"prior": "StudentT", "df": 3.0, "objective": "RenyiELBO"}),
        ("--objective Trace_ELBO --config a.yaml", {"objective": "Trace_ELBO"}),
        ("--objective.num_particles 9 --config a.yaml", {"objective": "RenyiELBO", "num_particles": 9}),
        ("--objective.num_particles 9 --config b.yaml", {"objective": "Trace_ELBO", "num_particles": 9}),
        ("--config b.yaml", {"objective": "Trace_ELBO", "num_particles": 1}),
    ],
)
def test_options_win_over_configurations_wherever_they_stand(line, expected, configs):
    config = train.parse(line.split())
    found = config.as_dict()
    for part in ("prior", "objective"):
        found |= {part: config[part].class_path.rpartition(".")[2], **found[part].get("init_args", {})}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    "line", ["--epochs 5 --config {config} --resume {run}", "--resume {run} --epochs=5 --config={config}"]
)
def test_options_win_over_configurations_in_a_resumed_run(line, folder):
    run = folder / "plain"
    assert train.parse(line.format(run=run, config=run / "config.yaml").split()).epochs == 5
