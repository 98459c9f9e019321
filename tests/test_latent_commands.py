"""The commands sample, reconstruct, encode, interpolate and manifold: what they write, and what they refuse."""

import csv
import importlib

import numpy as np
import pytest
import torch
import yaml

import pyro_vae
from pyro_vae import inference
from pyro_vae.commands.train import main as train
from pyro_vae.data import load

pytestmark = pytest.mark.pictures

NAMES = ["length", "width", "kind"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on the digits with two latent dimensions; on a table one with three, and one with two."""
    folder = tmp_path_factory.mktemp("runs")
    table = folder / "table.csv"
    generator = torch.Generator().manual_seed(0)
    length = 50 + 5 * torch.randn(60, generator=generator)
    width, kind = 2 * length + torch.randn(60, generator=generator), (length > 50).float()
    rows = torch.stack([length, width, kind], 1).tolist()
    table.write_text("\n".join([",".join(NAMES), *(",".join(f"{v:.4f}" for v in row) for row in rows)]))
    options = {"data": str(table), "pixels": "raw", "validation": None, "test": None, "levels": None, "data_dir": None}
    groups = [[2, {"class_path": "Gaussian"}], [1, {"class_path": "Bernoulli"}]]
    likelihood = {"class_path": "Columns", "init_args": {"groups": groups}}
    torch.manual_seed(0)
    for name, latent_dim in (("table", 3), ("plane", 2)):  # not trained: it takes time, and they need not be good
        vae = pyro_vae.build((3,), likelihood=likelihood, latent_dim=latent_dim, hidden_dims=[16], pixels="raw")
        vae.initialize(torch.tensor(rows))
        (folder / name).mkdir()
        pyro_vae.save(vae, folder / name)
        (folder / name / "config.yaml").write_text(yaml.safe_dump(options))
    train(["--epochs", "2", "--hidden_dims", "[16]", "--latent_dim", "2", "--run", str(folder / "digits")])
    return {name: folder / name for name in ("digits", "table", "plane")} | {"file": table}


def run_command(name, run, out, *options):
    importlib.import_module(f"pyro_vae.commands.{name}").main([str(run), "--out", str(out), *map(str, options)])
    return sorted(path.name for path in out.iterdir())


def arrays(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def table(path):
    rows = list(csv.DictReader(path.read_text().splitlines()))
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_sample(runs, tmp_path, capsys):
    assert run_command("sample", runs["digits"], tmp_path, "--num", 7, "--seed", 3, "--temperature", 0.7) == [
        "samples.npz",
        "samples.png",
    ]
    made = arrays(tmp_path / "samples.npz")
    expected = inference.sample(pyro_vae.load(runs["digits"]), 7, temperature=0.7, seed=3)
    assert made["x"].dtype == np.uint8  # zeros and ones
    np.testing.assert_array_equal(made["x"].reshape(7, 64), expected.x)
    np.testing.assert_array_equal(made["z"], expected.z)
    assert made["x"].shape == (7, 8, 8)
    # What was made is data, too.
    assert "7 examples" in output_of(
        capsys, "encode", runs["digits"], tmp_path / "encode", "--data", tmp_path / "samples.npz"
    )


def output_of(capsys, *arguments):
    capsys.readouterr()
    run_command(*arguments)
    return capsys.readouterr().out


def test_sample_near(runs, tmp_path, capsys):
    vae, test = pyro_vae.load(runs["digits"]), load("digits").test
    printed = output_of(capsys, "sample", runs["digits"], tmp_path / "a", "--near", 5, "--num", 4, "--mean")
    assert "z ~ q(z|x) of row 5 of the test data" in printed
    made = arrays(tmp_path / "a/samples.npz")
    expected = inference.sample(vae, 4, near=test[5], mean=True, seed=0)
    np.testing.assert_array_equal(made["x"].reshape(4, 64), expected.x)
    np.testing.assert_array_equal(made["near"].flatten(), test[5])
    np.save(tmp_path / "own.npy", test[4:7].reshape(3, 8, 8).numpy())
    for number, (near, row) in enumerate({f"{tmp_path}/own.npy:1": 5, f"{tmp_path}/own.npy": 4}.items()):
        run_command("sample", runs["digits"], tmp_path / f"own{number}", "--near", near, "--num", 4, "--mean")
        np.testing.assert_array_equal(arrays(tmp_path / f"own{number}/samples.npz")["near"].flatten(), test[row])


def test_reconstruct(runs, tmp_path):
    run_command("reconstruct", runs["digits"], tmp_path, "--max_examples", 30)
    made, data = arrays(tmp_path / "reconstructions.npz"), load("digits")
    expected = inference.reconstruct(pyro_vae.load(runs["digits"]), data.test[:30])
    np.testing.assert_array_equal(made["x"].reshape(30, 64), data.test[:30])
    np.testing.assert_array_equal(made["reconstruction"].reshape(30, 64), expected.x)
    np.testing.assert_array_equal(made["y"], data.labels["test"][:30])


def test_encode(runs, tmp_path, capsys):
    printed = output_of(capsys, "encode", runs["digits"], tmp_path)
    made, rows, dimensions = (
        arrays(tmp_path / "latents.npz"),
        table(tmp_path / "latents.csv"),
        table(tmp_path / "dimensions.csv"),
    )
    expected = inference.encode(pyro_vae.load(runs["digits"]), load("digits").test)
    for name in ("loc", "scale", "kl", "kl_per_dimension", "variance", "active"):
        np.testing.assert_array_equal(made[name], getattr(expected, name))
    np.testing.assert_allclose([float(v) for v in rows["loc_z2"]], expected.loc[:, 1], rtol=1e-6)
    np.testing.assert_allclose([float(v) for v in rows["scale_z1"]], expected.scale[:, 0], rtol=1e-6)
    np.testing.assert_allclose([float(v) for v in rows["kl"]], expected.kl, rtol=1e-6)
    assert dimensions["dimension"] == [f"z{j + 1}" for j in expected.order]
    kl = expected.kl_per_dimension[:, expected.order].double()
    np.testing.assert_allclose([float(v) for v in dimensions["kl"]], kl.mean(0), rtol=1e-6)
    np.testing.assert_allclose([float(v) for v in dimensions["kl_se"]], kl.std(0) / 447**0.5, rtol=1e-6)
    assert (
        f"KL          {expected.kl.mean():.2f} ± {expected.kl.std() / 447**0.5:.2f} nats per example, exact" in printed
    )


def test_interpolate(runs, tmp_path):
    run_command("interpolate", runs["digits"], tmp_path, "--between", 3, 17, 5, 8, "--num", 5, "--path", "spherical")
    made, test = arrays(tmp_path / "interpolation.npz"), load("digits").test
    expected = inference.interpolate(
        pyro_vae.load(runs["digits"]), test[[3, 5]], test[[17, 8]], num=5, path="spherical"
    )
    np.testing.assert_array_equal(made["x"].reshape(2, 5, 64), expected.x.transpose(0, 1))
    np.testing.assert_array_equal(made["ends"].reshape(2, 2, 64), test[torch.tensor([[3, 17], [5, 8]])])


def test_manifold(runs, tmp_path):
    assert run_command("manifold", runs["digits"], tmp_path / "a", "--num", 3) == ["manifold.npz", "manifold.png"]
    made, vae = arrays(tmp_path / "a/manifold.npz"), pyro_vae.load(runs["digits"])
    np.testing.assert_array_equal(made["x"].reshape(3, 3, 64), inference.manifold(vae, 3).x)
    files = run_command("manifold", runs["digits"], tmp_path / "b", "--num", 5, "--near", 2, "--dims", 1)
    assert files == ["traversals.npz", "traversals.png"]
    made, test = arrays(tmp_path / "b/traversals.npz"), load("digits").test
    order = inference.encode(vae, test).order
    assert made["dims"].tolist() == order[:1]
    expected = inference.traverse(vae, order[:1], num=5, near=test[2])
    np.testing.assert_array_equal(made["x"].reshape(1, 5, 64), expected.x)


def test_a_table_keeps_its_columns_and_units(runs, tmp_path):
    run, file = runs["table"], runs["file"]
    files = {
        "sample": ["--num", 300],
        "reconstruct": ["--data", file],
        "encode": ["--data", file],
        "interpolate": ["--between", 0, 3],
        "manifold": ["--num", 3],
    }
    for name, options in files.items():
        made = run_command(name, run, tmp_path / name, *options)
        assert sum(file.endswith(".png") for file in made) == 1
    samples = table(tmp_path / "sample/samples.csv")
    assert list(samples) == NAMES
    x = arrays(tmp_path / "sample/samples.npz")["x"]
    np.testing.assert_allclose([float(v) for v in samples["width"]], x[:, 1], rtol=1e-6)
    assert set(samples["kind"]) == {"0", "1"}
    assert 90 < np.mean(x[:, 1]) < 110  # a decoder starts at the marginals
    again = table(tmp_path / "reconstruct/reconstructions.csv")
    assert list(again) == ["index", *NAMES]
    assert len(again["index"]) == 60
    along = table(tmp_path / "interpolate/interpolation.csv")
    assert list(along) == ["from", "to", "t", *NAMES]
    walks = table(tmp_path / "manifold/traversals.csv")
    assert list(walks) == ["dimension", "s", "z1", "z2", "z3", *NAMES]
    assert walks["s"] == ["-3", "0", "3"] * 3
    run_command("manifold", runs["plane"], tmp_path / "plane", "--num", 4)
    grid = table(tmp_path / "plane/manifold.csv")
    assert list(grid) == ["z1", "z2", *NAMES]
    assert len(grid["z1"]) == 16


REFUSALS = [
    ("sample", ["--num", "0"], "num must be"),
    ("sample", ["--num", "1000000000000"], "--num: expected at most"),
    ("sample", ["--temperature", "-1"], "temperature must be above 0"),
    ("sample", ["--near", "447"], "there is no row 447, the 447 examples are rows 0 to 446"),
    ("sample", ["--near", "nothing.npy:3"], "nothing.npy"),
    ("sample", ["--near", "TABLE"], "levels=17 expects whole numbers"),
    ("sample", ["--levels", "17"], "the file of --near"),
    ("sample", ["--near", "3", "--levels", "17"], "name one, as FILE:3"),
    ("reconstruct", ["--data", "BLANK"], "impute"),
    ("reconstruct", ["--max_examples", "0"], "max_examples must be at least 1"),
    ("encode", ["--num_samples", "1"], "num_samples must be at least 2"),
    ("encode", ["--data", "BLANK"], "impute"),
    ("interpolate", ["--between", "1"], "expected pairs of rows"),
    ("interpolate", ["--between", "1", "447"], "--between: there is no row 447"),
    ("interpolate", ["--between", "1", "2", "--num", "1"], "--num must be at least 2"),
    ("interpolate", ["--between", "1", "2", "--path", "curved"], "--path"),
    ("interpolate", [], "required: between"),
    ("manifold", ["--dims", "3"], "expected from 1 to 2"),
    ("manifold", ["--num", "0"], "num must be"),
    ("manifold", ["--num", "100000000"], "--num: expected at most"),
    ("manifold", ["--span", "0"], "span must be above 0"),
    ("manifold", ["--levels", "3"], "the file of --near"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSALS)
def test_refusals(name, options, message, runs, tmp_path, capsys):
    blank = tmp_path / "blank.npy"
    np.save(blank, np.full((2, 8, 8), np.nan, dtype=np.float32))
    options = [{"TABLE": str(runs["file"]), "BLANK": str(blank)}.get(option, option) for option in options]
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        run_command(name, runs["digits"], tmp_path / "out", *options)
    assert exit.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_earlier_results_are_kept(runs, tmp_path, capsys):
    run_command("sample", runs["digits"], tmp_path, "--num", 2)
    before = (tmp_path / "samples.npz").read_bytes()
    with pytest.raises(SystemExit):
        run_command("sample", runs["digits"], tmp_path, "--num", 3)
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "samples.npz").read_bytes() == before
    run_command("sample", runs["digits"], tmp_path, "--num", 3, "--overwrite")
    assert len(arrays(tmp_path / "samples.npz")["x"]) == 3
